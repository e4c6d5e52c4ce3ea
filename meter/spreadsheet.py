"""Text in CSV files that a spreadsheet must not take for a formula.

Excel, LibreOffice and Google Sheets evaluate a cell that begins with ``=``, ``+``, ``-`` or ``@``, also after spaces or in
full-width characters, and a formula can send the other cells to its author or start a program (``=cmd|' /C calc'!A0``).
Quotation marks do not prevent it. Where the list separator is a semicolon, a cell begins after every ``;`` of the text too.
"""

from __future__ import annotations

import re

FORMULA_STARTS = "=+-@\uff1d\uff0b\uff0d\uff20\u2212"
"""The last five are full-width characters and the minus sign of typography."""

_CELL_START = r"(^|[;\t\r\n])"

_NEEDS_APOSTROPHE = re.compile(rf"{_CELL_START}(?=[\s\"]*['{re.escape(FORMULA_STARTS)}])|^(?=[\t\r\n])")
_APOSTROPHE = re.compile(rf"{_CELL_START}'")

_SPACES = "".join(re.findall(r"\s", "".join(map(chr, range(0x3001)))))  # U+3000 is the last one

SUSPECT_FIRST_BYTES = frozenset(text.encode()[0] for text in f"{FORMULA_STARTS}'\"{_SPACES}")
"""First bytes, in UTF-8, of texts that :func:`neutralize` changes, unless they have a ``;``, a tab or a line break."""


def neutralize(text: str) -> str:
    """Return ``text`` with an apostrophe before everything that a spreadsheet could take for a formula.

    An apostrophe that is in such a place already gets another one, so that :func:`restore` is exact.
    """
    return _NEEDS_APOSTROPHE.sub(r"\1'", text)


def restore(cell: str) -> str:
    """Return the text from which :func:`neutralize` made ``cell``."""
    return _APOSTROPHE.sub(r"\1", cell)
