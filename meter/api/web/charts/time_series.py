"""A chart of values over time: one series per group, a value per window; a window without samples is a gap, not 0."""

from __future__ import annotations

import math
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from datetime import timedelta
from typing import Any

MAX_TABLE_ROWS = 100
"""Windows in the table below a chart, the newest ones."""

DRAWN_DIGITS = 7
"""Significant digits of the values that are drawn: more than a screen has pixels."""


@dataclass(frozen=True, slots=True)
class ChartSeries:
    """The values of one group, ``None`` where a window has none. ``link`` leads to the view of this group alone.

    ``rest``: it is the sum of all groups that are not shown.
    """

    name: str
    values: Sequence[float | None]
    link: str | None = None
    rest: bool = False


@dataclass(frozen=True, slots=True)
class TableRow:
    """One window: its start, and a value per series."""

    start: datetime
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSeriesChart:
    """Values in ``unit`` of windows of ``step`` seconds, the first of which begins at ``start``.

    ``key`` is the id of the figure in its page. ``stacked`` series are drawn on top of one another, if none is negative.
    ``zoom``: dragging over the chart opens the same page with the parameters ``start`` and ``end`` of that range.
    """

    key: str
    title: str
    unit: str
    start: datetime
    step: float
    series: Sequence[ChartSeries]
    stacked: bool = False
    zoom: bool = True

    @property
    def windows(self) -> int:
        """The number of windows."""
        return max((len(each.values) for each in self.series), default=0)

    @property
    def is_stacked(self) -> bool:
        """Whether the series are drawn on top of one another."""
        return self.stacked and all(value is None or value >= 0 for each in self.series for value in each.values)

    @property
    def omitted_rows(self) -> int:
        """Windows that the table does not have."""
        return max(0, self.windows - MAX_TABLE_ROWS)

    @property
    def data(self) -> Mapping[str, Any]:
        """What the script draws, as JSON: times in seconds since 1970."""
        return {
            "start": self.start.timestamp(),
            "step": self.step,
            "unit": self.unit,
            "stacked": self.is_stacked,
            "zoom": self.zoom,
            "series": [
                {"name": each.name, "rest": each.rest, "values": [*map(_drawn, each.values)]} for each in self.series
            ],
        }

    def table_rows(self) -> Iterator[TableRow]:
        """Yield the newest windows, newest first."""
        for n in range(self.windows - 1, self.omitted_rows - 1, -1):
            yield TableRow(self.start + timedelta(seconds=n * self.step), [each.values[n] for each in self.series])


def _drawn(value: float | None) -> float | int | None:
    """Return ``value`` with the digits that are drawn, integers in their short form; ``None`` if it is not a finite number."""
    if value is None or not math.isfinite(value):
        return None
    rounded = float(f"{value:.{DRAWN_DIGITS}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded
