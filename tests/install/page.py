"""The code blocks of ``docs/install.rst``, each with the hosts that the text before it names."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).parents[2]
PAGE = TOP / "docs/install.rst"

DOMAIN = "example.org"
HOST = re.compile(rf"``(\w+)\.{re.escape(DOMAIN)}``")
DIRECTIVE = re.compile(r"^\.\. code-block:: (\w+)$")
TITLE_LINE = re.compile(r"^([=~-])\1+$")
LITERAL = "literal"


@dataclass(frozen=True, slots=True)
class Block:
    """One code block: the ``line`` of the page on which its text begins, and where on the page it is.

    ``hosts`` are those that the paragraph before it names, in that order. ``language`` is ``literal`` for a block after ``::``.
    """

    line: int
    section: str
    hosts: Sequence[str]
    language: str
    text: str

    @property
    def title(self) -> str:
        """The first line, by which a block can be recognized."""
        return self.text.partition("\n")[0]

    @property
    def place(self) -> str:
        """Where on the page the block is, for messages."""
        return f"docs/{PAGE.name}:{self.line} ({self.section})"


def blocks(text: str | None = None) -> Sequence[Block]:
    """Return all code blocks of the page, or of another ``text``, in order."""
    lines = (PAGE.read_text(encoding="utf-8") if text is None else text).splitlines()
    found: list[Block] = []
    section, paragraph, number = "", "", 0
    while number < len(lines):
        line = lines[number]
        if TITLE_LINE.match(line) and number and lines[number - 1].strip():
            section, paragraph = lines[number - 1], ""
        directive = DIRECTIVE.match(line)
        if directive or (line.endswith("::") and not line.startswith("..")):
            if not directive and line != "::":
                paragraph = _paragraph_at(lines, number)
            begin, end = _indented(lines, number + 1)
            content = textwrap.dedent("\n".join(lines[begin:end])).rstrip() + "\n"
            language = directive[1] if directive else LITERAL
            found.append(Block(begin + 1, section, tuple(HOST.findall(paragraph)), language, content))
            number = end
            continue
        if line.strip():
            paragraph = _paragraph_at(lines, number)
        number += 1
    return found


def _paragraph_at(lines: Sequence[str], number: int) -> str:
    """Return the paragraph that the line is in, up to this line."""
    first = number
    while first and lines[first - 1].strip():
        first -= 1
    return " ".join(lines[first : number + 1])


def _indented(lines: Sequence[str], number: int) -> tuple[int, int]:
    """Return the first line of the indented text from ``number`` on, and the line after it."""
    while not lines[number].strip():
        number += 1
    end = number
    while end < len(lines) and (not lines[end].strip() or lines[end].startswith(" ")):
        end += 1
    return number, end
