"""Horizontal bars, each with its name, value and share of the total: a table that also shows lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BarRow:
    """One bar: the length ``percent`` is relative to the longest bar, ``share`` is the part of the total, 0 to 1.

    ``key`` is an id that is shown below the name. Negative values have no bar; without a total there is no share.
    ``rest``: it stands for all that have no bar of their own.
    """

    name: str
    value: float
    percent: float
    share: float | None
    key: str | None = None
    link: str | None = None
    rest: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """What a bar shows, before it is compared with others."""

    name: str
    value: float
    key: str | None = None
    link: str | None = None
    rest: bool = False


def bar_rows(bars: Sequence[Bar], total: float | None = None) -> list[BarRow]:
    """Return ``bars`` with their lengths, in their order, and with their shares of ``total`` if it is positive."""
    longest = max((each.value for each in bars), default=0.0)
    return [
        BarRow(
            name=each.name,
            value=each.value,
            percent=round(100 * max(0.0, each.value) / longest, 2) if longest > 0 else 0.0,
            share=each.value / total if total is not None and total > 0 else None,
            key=each.key,
            link=each.link,
            rest=each.rest,
        )
        for each in bars
    ]
