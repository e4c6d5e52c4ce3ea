"""What is wrong with a price directory: every fault with its file and line."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass

from meter.rating.book.price_book import Place


@dataclass(frozen=True, slots=True, order=True)
class BookProblem:
    """A fault: where it is, what is wrong and what would be right. ``warning``: the directory can be used in spite of it."""

    file: str
    line: int
    text: str
    warning: bool = False

    @classmethod
    def at(cls, place: Place, text: str, *, warning: bool = False) -> BookProblem:
        """Return a fault at ``place``."""
        return cls(place.file, place.line, text, warning)

    def __str__(self) -> str:
        return f"{Place(file=self.file, line=self.line)}: {'warning: ' if self.warning else ''}{self.text}"


class PriceBookError(Exception):
    """A price directory that cannot be used. ``problems`` has all faults, by file and line, with the warnings."""

    def __init__(self, problems: Iterable[BookProblem]) -> None:
        self.problems: Sequence[BookProblem] = tuple(sorted(set(problems)))
        super().__init__("\n".join(map(str, self.problems)))


def suggestion(name: str, known: Collection[str], *, shown: int = 8) -> str:
    """Return which of ``known`` may be meant by ``name``, or what is known if these are few, as the end of a sentence."""
    close = difflib.get_close_matches(name, known, 1)
    if not close:
        folded = {each.casefold(): each for each in known}
        close = [folded[name.casefold()]] if name.casefold() in folded else []
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known: {', '.join(sorted(known))}" if 0 < len(known) <= shown else ""
