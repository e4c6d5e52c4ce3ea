"""Text of others made visible: what a terminal or a browser would interpret or hide is escaped."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return ``text`` with all unprintable characters escaped, except line breaks."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode() for each in text
    )
