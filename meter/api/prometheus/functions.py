"""Functions of scalars and instant vectors."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from functools import lru_cache

from meter.api.prometheus.grid import Column
from meter.api.prometheus.grid import GridSeries
from meter.api.prometheus.grid import ScalarGrid
from meter.api.prometheus.grid import VectorGrid
from meter.api.prometheus.grid import joined
from meter.api.prometheus.grid import replaced
from meter.api.prometheus.grid import without_name
from meter.api.prometheus.matchers import LabelMatcher
from meter.api.prometheus.matchers import compiled
from meter.api.prometheus.names import LABEL_NAME
from meter.api.prometheus.results import METRIC_NAME
from meter.api.prometheus.results import Labels
from meter.api.prometheus.results import PromqlError
from meter.daemon.shared_slices import OwnedSlices

MAX_REPLACED_CHARACTERS = 1024
"""Length of a value that ``label_replace`` makes."""

_REFERENCES = re.compile(r"\$(?:(\$)|\{(\w+)\}|(\w+))")


def _rounded_with(function: Callable[[float], int]) -> Callable[[float], float]:
    return lambda value: float(function(value)) if math.isfinite(value) else value


def _logarithm(function: Callable[[float], float]) -> Callable[[float], float]:
    def logarithm(value: float) -> float:
        if value > 0:
            return function(value)
        return -math.inf if value == 0 else math.nan

    return logarithm


def _exponential(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def _sign(value: float) -> float:
    return math.copysign(1.0, value) if value == value and value != 0 else value


SIMPLE: Mapping[str, Callable[[float], float]] = {
    "abs": abs,
    "ceil": _rounded_with(math.ceil),
    "exp": _exponential,
    "floor": _rounded_with(math.floor),
    "ln": _logarithm(math.log),
    "log10": _logarithm(math.log10),
    "log2": _logarithm(math.log2),
    "sgn": _sign,
    "sqrt": lambda value: math.sqrt(value) if value >= 0 else math.nan,
}
"""Functions of one number."""


async def mapped(vector: VectorGrid, function: Callable[[float], float], slices: OwnedSlices) -> VectorGrid:
    """Return ``function`` of each value, without the name of the metric."""
    results = []
    for each in vector.series:
        if slices.over:
            await slices.pause()
        column: Column = [None if value is None else function(value) for value in each.values]
        results.append(GridSeries(without_name(each.labels), column))
    return await joined(results, slices)


async def mapped_with(
    vector: VectorGrid, function: Callable[..., float | None], parameters: Sequence[ScalarGrid], slices: OwnedSlices
) -> VectorGrid:
    """Return ``function`` of each value and of the ``parameters`` at its time, without the name of the metric."""
    results = []
    scalars = list(zip(*(parameter.values for parameter in parameters), strict=True))
    for each in vector.series:
        if slices.over:
            await slices.pause()
        column: Column = [
            None if value is None else function(value, *given)
            for value, given in zip(each.values, scalars, strict=True)
        ]
        results.append(GridSeries(without_name(each.labels), column))
    return await joined(results, slices)


def rounded(value: float, nearest: float) -> float:
    """Return ``value``, rounded to a multiple of ``nearest``; halves are rounded up."""
    if nearest == 0 or not math.isfinite(nearest):
        return math.nan
    if not math.isfinite(value):
        return value
    inverse = 1.0 / nearest
    scaled = value * inverse + 0.5
    return math.floor(scaled) / inverse if math.isfinite(scaled) else value


def clamped(value: float, low: float, high: float) -> float | None:
    """Return ``value``, but at least ``low`` and at most ``high``; nothing if these are in the wrong order."""
    if low > high:
        return None
    if math.nan in (value, low, high) or value != value or low != low or high != high:
        return math.nan
    return max(low, min(high, value))


async def scalar_of(vector: VectorGrid, count: int, slices: OwnedSlices) -> ScalarGrid:
    """Return the value of the only element at each time; not a number where there is none, or are several."""
    values = []
    for number in range(count):
        if slices.over:
            await slices.pause()
        present = [each.values[number] for each in vector.series if each.values[number] is not None]
        only = present[0] if len(present) == 1 else None
        values.append(math.nan if only is None else only)
    return ScalarGrid(values)


def absent_labels(matchers: Sequence[LabelMatcher]) -> Labels:
    """Return the labels of what is absent: those that the matchers require to be equal to one value."""
    values: dict[str, str] = {}
    for matcher in matchers:
        if matcher.label == METRIC_NAME:
            continue
        if matcher.operator == "=" and matcher.label not in values:
            values[matcher.label] = matcher.value
        else:
            values.pop(matcher.label, None)
    return tuple(sorted((name, value) for name, value in values.items() if value))


async def absent(vector: VectorGrid, labels: Labels, count: int, slices: OwnedSlices) -> VectorGrid:
    """Return 1 at each time at which ``vector`` has no element."""
    column: Column = [1.0] * count
    for each in vector.series:
        if slices.over:
            await slices.pause()
        column = [one if value is None else None for one, value in zip(column, each.values, strict=True)]
    return VectorGrid([GridSeries(labels, column)] if any(column) else [])


def ordered(vector: VectorGrid, *, descending: bool) -> VectorGrid:
    """Return ``vector`` in the order of its values at the first time; what is not a number comes last."""

    def key(each: GridSeries) -> tuple[bool, float]:
        value = each.values[0]
        if value is None or value != value:
            return True, 0.0
        return False, -value if descending else value

    return VectorGrid(sorted(vector.series, key=key))


async def label_replaced(
    vector: VectorGrid, target: str, replacement: str, source: str, pattern: str, slices: OwnedSlices
) -> VectorGrid:
    """Return ``vector`` with the label ``target`` made from the label ``source``, where all of it matches ``pattern``."""
    if not LABEL_NAME.fullmatch(target):
        raise PromqlError("execution", f"invalid destination label name in label_replace(): {target}")
    expression = compiled(pattern)
    names = {name: number for name, number in expression.groupindex.items()}

    @lru_cache(maxsize=4096)
    def replacement_for(value: str) -> str | None:
        found = expression.fullmatch(value)
        if found is None:
            return None

        def group(reference: re.Match[str]) -> str:
            if reference[1]:
                return "$"
            name = reference[2] or reference[3]
            number = int(name) if name.isdecimal() else names.get(name, -1)
            return (found[number] or "") if 0 <= number <= expression.groups else ""

        text = _REFERENCES.sub(group, replacement)
        if len(text) > MAX_REPLACED_CHARACTERS:
            raise PromqlError(
                "execution", f"label_replace() made a value of more than {MAX_REPLACED_CHARACTERS} characters"
            )
        return text

    results = []
    for each in vector.series:
        if slices.over:
            await slices.pause()
        made = replacement_for(dict(each.labels).get(source, ""))
        labels = each.labels if made is None else replaced(each.labels, target, made)
        results.append(GridSeries(labels, each.values))
    return await joined(results, slices)
