"""Functions of the samples in a window, from the statistics of its tiles: the equal parts into which windows are divided.

A window is ``start <= timestamp < end``, as everywhere in Meter, and nothing is extrapolated. Windows of all times of evaluation
are made of the same tiles, so that one question to the store serves them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

from meter.api.prometheus.aggregation import total
from meter.query import Aggregate
from meter.query import AggregateFunction

TileColumns = Mapping[str, Sequence[float]]
"""By the label of each aggregate, its values of those tiles of a series that have samples, from the oldest to the newest."""


@dataclass(frozen=True, slots=True)
class WindowFunction:
    """A function of the samples in a window.

    ``compute`` gets the columns of a series, the first and the last + 1 tile of the window, which has samples, and the length
    of the window in seconds. ``whole`` says that tiles cannot be put together: a window has to be one tile. ``keeps_name``:
    the result has the name of the metric. ``counter`` says that it is defined for cumulative meters only.
    """

    aggregates: tuple[AggregateFunction, ...]
    compute: Callable[[TileColumns, int, int, float], float | None]
    whole: bool = False
    keeps_name: bool = False
    counter: bool = False


def _sum(name: str) -> Callable[[TileColumns, int, int, float], float]:
    return lambda columns, first, end, seconds: total(columns[name][first:end])


def _average(columns: TileColumns, first: int, end: int, seconds: float) -> float:
    if end - first == 1:
        return columns["avg"][first]
    return total(columns["sum"][first:end]) / total(columns["count"][first:end])


def _delta(columns: TileColumns, first: int, end: int, seconds: float) -> float | None:
    if total(columns["count"][first:end]) < 2:
        return None
    return columns["last"][end - 1] - columns["first"][first]


def _variance(columns: TileColumns, first: int, end: int, seconds: float) -> float:
    if end - first == 1:
        return columns["stddev"][first] ** 2
    counts = columns["count"][first:end]
    number = total(counts)
    mean = total(columns["sum"][first:end]) / number
    squares = [
        count * (deviation**2 + (average - mean) ** 2)
        for count, deviation, average in zip(
            counts, columns["stddev"][first:end], columns["avg"][first:end], strict=True
        )
    ]
    return total(squares) / number


def _deviation(columns: TileColumns, first: int, end: int, seconds: float) -> float:
    return math.sqrt(_variance(columns, first, end, seconds))


WINDOW_FUNCTIONS: Mapping[str, WindowFunction] = {
    "increase": WindowFunction(("increase",), _sum("increase"), counter=True),
    "rate": WindowFunction(
        ("increase",),
        lambda columns, first, end, seconds: total(columns["increase"][first:end]) / seconds,
        counter=True,
    ),
    "delta": WindowFunction(("count", "first", "last"), _delta),
    "avg_over_time": WindowFunction(("avg", "sum", "count"), _average),
    "min_over_time": WindowFunction(("min",), lambda columns, first, end, seconds: min(columns["min"][first:end])),
    "max_over_time": WindowFunction(("max",), lambda columns, first, end, seconds: max(columns["max"][first:end])),
    "sum_over_time": WindowFunction(("sum",), _sum("sum")),
    "count_over_time": WindowFunction(("count",), _sum("count")),
    "last_over_time": WindowFunction(
        ("last",), lambda columns, first, end, seconds: columns["last"][end - 1], keeps_name=True
    ),
    "stddev_over_time": WindowFunction(("stddev", "avg", "sum", "count"), _deviation),
    "stdvar_over_time": WindowFunction(("stddev", "avg", "sum", "count"), _variance),
    "present_over_time": WindowFunction(("count",), lambda columns, first, end, seconds: 1.0),
}


def quantile_function(part: float) -> WindowFunction:
    """Return ``quantile_over_time`` with this fraction."""
    if not 0 <= part <= 1:
        limit = math.nan if math.isnan(part) else math.copysign(math.inf, part)
        return WindowFunction(("count",), lambda columns, first, end, seconds: limit)
    label = quantile_aggregate(part).label
    return WindowFunction((), lambda columns, first, end, seconds: columns[label][first], whole=True)


def quantile_aggregate(part: float) -> Aggregate:
    """Return the aggregate that the store computes for the fraction ``part``."""
    return Aggregate("percentile", repr(part * 100))
