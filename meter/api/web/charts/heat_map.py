"""A heat map of completeness: rows of agents or projects, columns of hours or days, with the number of missing samples in each cell.

What must be looked at is a cell with a link and a number. Neighbouring cells in which nothing is missing are one bar, so that a
map of many complete hours stays small, and few steps lead through it with the keyboard.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from datetime import timedelta

from meter.completeness_query import CompletenessRow

MAX_MARKS = 240
"""Marks of a map, each of which takes about 200 bytes in the page; further rows are on the next page."""

CELL_WIDTH = 22
ROW_HEIGHT = 22
LABEL_WIDTH = 210
LABEL_CHARACTERS = 30
MANY = 0.1
"""Part of the expected samples from which on many are missing."""

PENDING = frozenset({"not finalized"})
"""Causes that go away by themselves."""


@dataclass(frozen=True, slots=True)
class HeatMark:
    """A cell, or neighbouring cells in which nothing is missing. ``x`` and ``width`` are pixels; ``look`` is the name of its class."""

    x: int
    width: int
    look: str
    text: str
    title: str
    link: str


@dataclass(frozen=True, slots=True)
class HeatRow:
    """The marks of an agent or project; ``label`` may be shortened, ``name`` is not."""

    key: str
    name: str
    label: str
    link: str
    marks: Sequence[HeatMark]


@dataclass(frozen=True, slots=True)
class HeatColumn:
    """The label of a column at ``x``."""

    x: int
    label: str


@dataclass(frozen=True, slots=True)
class HeatMap:
    """The map. ``rows`` are the first of those that were asked for, as many as fit."""

    rows: Sequence[HeatRow]
    columns: Sequence[HeatColumn]
    width: int
    height: int
    resolution: str


def heat_map(
    keys: Sequence[str],
    cells: Mapping[tuple[str, datetime], CompletenessRow],
    start: datetime,
    end: datetime,
    step: timedelta,
    *,
    name: Callable[[str], str],
    link: Callable[[str, datetime | None], str],
    max_marks: int = MAX_MARKS,
) -> HeatMap:
    """Return the map of ``keys`` from ``start`` to ``end``, each a multiple of ``step``, an hour or a day.

    ``cells`` are by key and start. ``link`` returns the view of a cell, or of a whole row. At least one row is on the map.
    """
    starts = []
    at = start
    while at < end:
        starts.append(at)
        at += step
    rows: list[HeatRow] = []
    marks = 0
    for key in keys:
        found = _marks(key, name(key), starts, step, cells, link)
        marks += len(found) + 1
        if rows and marks > max_marks:
            break
        text = name(key)
        label = text if len(text) <= LABEL_CHARACTERS else f"{text[: LABEL_CHARACTERS - 1]}…"
        rows.append(HeatRow(key, text, label, link(key, None), found))
    by_day = step >= timedelta(days=1)
    return HeatMap(
        rows=rows,
        columns=[HeatColumn(LABEL_WIDTH + n * CELL_WIDTH, label) for n, label in _column_labels(starts, by_day)],
        width=LABEL_WIDTH + CELL_WIDTH * len(starts) + 40,
        height=ROW_HEIGHT * (len(rows) + 1) + 4,
        resolution="day" if by_day else "hour",
    )


def cell_look(row: CompletenessRow) -> str:
    """Return the class of a cell in which something was expected."""
    if not row.missing:
        return "complete"
    if PENDING.issuperset(row.causes):
        return "pending"
    if not row.received:
        return "none"
    return "many" if row.missing >= MANY * row.expected else "few"


def short_count(count: int) -> str:
    """Return ``count`` in at most four characters, rounded down: ``240``, ``1k``, ``12k``, ``3M``."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count // size}{unit}"
    return str(count)


def _column_labels(starts: Sequence[datetime], by_day: bool) -> list[tuple[int, str]]:
    """Return every few columns' labels: dates, or hours with the date where a day begins."""
    every = 7 if by_day and len(starts) > 14 else 2 if by_day else 6
    return [
        (n, f"{at:%m-%d}" if by_day or at.hour == 0 else f"{at:%H:%M}")
        for n, at in enumerate(starts)
        if (n % every == 0 if by_day else at.hour % every == 0)
    ]


def _marks(
    key: str,
    name: str,
    starts: Sequence[datetime],
    step: timedelta,
    cells: Mapping[tuple[str, datetime], CompletenessRow],
    link: Callable[[str, datetime | None], str],
) -> list[HeatMark]:
    marks: list[HeatMark] = []
    complete: list[tuple[int, CompletenessRow]] = []

    def end_run() -> None:
        if complete:
            first, last = complete[0][0], complete[-1][0]
            expected = sum(row.expected for _, row in complete)
            until = starts[last] + step
            title = f"{name}, {_time(starts[first])} to {_time(until)} UTC: none of {expected} missing"
            width = CELL_WIDTH * (last - first + 1) - 1
            marks.append(HeatMark(LABEL_WIDTH + first * CELL_WIDTH, width, "complete", "", title, ""))
            complete.clear()

    for n, at in enumerate(starts):
        row = cells.get((key, at))
        if row is None or not row.expected:
            end_run()
        elif not row.missing:
            complete.append((n, row))
        else:
            end_run()
            title = f"{name}, {_time(at)} UTC: {row.missing} of {row.expected} missing"
            left = LABEL_WIDTH + n * CELL_WIDTH
            text = short_count(row.missing)
            marks.append(HeatMark(left, CELL_WIDTH - 1, cell_look(row), text, title, link(key, at)))
    end_run()
    return marks


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"
