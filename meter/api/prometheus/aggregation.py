"""Aggregations over the series of a vector, at each time."""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

from meter.api.prometheus.grid import Column
from meter.api.prometheus.grid import GridSeries
from meter.api.prometheus.grid import VectorGrid
from meter.api.prometheus.grid import only
from meter.api.prometheus.grid import without
from meter.api.prometheus.results import METRIC_NAME
from meter.api.prometheus.results import Labels
from meter.api.prometheus.results import PromqlError
from meter.api.prometheus.syntax import AggregationNode
from meter.daemon.shared_slices import OwnedSlices


def total(values: Sequence[float]) -> float:
    """Return the sum, exactly rounded where all values are finite."""
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):
        return sum(values)


def mean(values: Sequence[float]) -> float:
    """Return the average."""
    return total(values) / len(values)


def minimum(values: Sequence[float]) -> float:
    """Return the lowest number; values that are not a number count only if there is no other."""
    return min((value for value in values if value == value), default=math.nan)


def maximum(values: Sequence[float]) -> float:
    """Return the highest number, as :func:`minimum` does."""
    return max((value for value in values if value == value), default=math.nan)


def variance(values: Sequence[float]) -> float:
    """Return the variance of the population."""
    if not all(map(math.isfinite, values)):
        return math.nan
    middle = mean(values)
    distances = [value - middle for value in values]
    return total([distance * distance for distance in distances]) / len(values)  # ** raises for huge numbers


def deviation(values: Sequence[float]) -> float:
    """Return the standard deviation of the population."""
    return math.sqrt(variance(values))


def quantile(part: float, values: Sequence[float]) -> float:
    """Return the value at the fraction ``part`` of the sorted ``values``, interpolated; infinite if it is not from 0 to 1."""
    if not values or math.isnan(part):
        return math.nan
    if part < 0:
        return -math.inf
    if part > 1:
        return math.inf
    ordered = sorted(values, key=lambda value: (value == value, value))  # what is not a number comes first
    position = part * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    weight = position - below
    return ordered[below] * (1 - weight) + ordered[above] * weight


REDUCTIONS: Mapping[str, Callable[[Sequence[float]], float]] = {
    "sum": total,
    "avg": mean,
    "min": minimum,
    "max": maximum,
    "count": lambda values: float(len(values)),
    "group": lambda values: 1.0,
    "stddev": deviation,
    "stdvar": variance,
}


async def aggregated(
    node: AggregationNode, operand: VectorGrid, parameter: Sequence[float] | None, slices: OwnedSlices
) -> VectorGrid:
    """Return the aggregation of ``operand``; ``parameter`` has that of ``topk``, ``bottomk`` or ``quantile`` at each time."""
    groups: dict[Labels, list[GridSeries]] = {}
    dropped = (*node.labels, METRIC_NAME)
    for each in operand.series:
        if slices.over:
            await slices.pause()
        key = only(each.labels, node.labels) if node.by else without(each.labels, dropped)
        groups.setdefault(key, []).append(each)
    if node.operator in ("topk", "bottomk"):
        result: list[GridSeries] = []
        for members in groups.values():
            result += await _extremes(members, parameter or (), node.operator == "topk", slices)
        return VectorGrid(result)
    return VectorGrid(
        [GridSeries(key, await _reduced(node.operator, members, parameter, slices)) for key, members in groups.items()]
    )


async def _reduced(
    operator: str, members: Sequence[GridSeries], parameter: Sequence[float] | None, slices: OwnedSlices
) -> Column:
    reduced: Column = []
    reduction = REDUCTIONS.get(operator)
    for number, row in enumerate(zip(*(member.values for member in members), strict=True)):
        if slices.over:
            await slices.pause()
        values = [value for value in row if value is not None]
        if not values:
            reduced.append(None)
        elif reduction is not None:
            reduced.append(reduction(values))
        else:
            reduced.append(quantile((parameter or ())[number], values))
    return reduced


async def _extremes(
    members: Sequence[GridSeries], parameter: Sequence[float], largest: bool, slices: OwnedSlices
) -> list[GridSeries]:
    """Return the ``parameter`` largest or smallest members at each time, the most extreme first at the first time."""
    columns: list[Column] = [[None] * len(parameter) for _ in members]
    ranked: dict[int, None] = {}
    sign = -1 if largest else 1
    for number, row in enumerate(zip(*(member.values for member in members), strict=True)):
        if slices.over:
            await slices.pause()
        count = parameter[number]
        if math.isnan(count) or abs(count) > 2**63:
            raise PromqlError("bad_data", f"the parameter of topk and bottomk must be an integer, not {count}")
        present = [(value != value, sign * value, index) for index, value in enumerate(row) if value is not None]
        for _, _, index in sorted(present)[: max(int(count), 0)]:
            columns[index][number] = row[index]
            ranked[index] = None
    return [GridSeries(members[index].labels, columns[index]) for index in ranked]
