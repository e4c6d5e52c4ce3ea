"""Numbers of things in texts for people: one thing is not called by its plural."""

from __future__ import annotations

PLURALS = {"series": "series", "entry": "entries", "index": "indexes", "batch": "batches"}
"""Plurals of words that get no *s*, or not only that."""


def counted(number: int, thing: str, separator: str = "") -> str:
    """Return ``number`` with the name of what is counted: ``1 dead letter``, ``2 dead letters``; ``separator`` is that of thousands."""
    *before, word = thing.split(" ")
    name = thing if number == 1 else " ".join([*before, PLURALS.get(word, f"{word}s")])
    return f"{number:{separator}} {name}"
