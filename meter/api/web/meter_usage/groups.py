"""The groups with the largest values, each with its windows, and the rest as one: three questions of statistics at most."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

from meter.api.errors import ApiError
from meter.api.request.context import RequestContext
from meter.api.request.simple_query import convert
from meter.api.web.meter_usage.measures import COUNT
from meter.api.web.meter_usage.measures import UsageMeasure
from meter.api.web.meter_usage.view import UsageView
from meter.api.web.meter_usage.windows import number_of_windows
from meter.daemon.concurrent import all_of
from meter.query import And
from meter.query import Comparison
from meter.query import Expression
from meter.query import Grouping
from meter.query import In
from meter.query import Not
from meter.query import SampleFilter
from meter.query import Scalar
from meter.query import Statistics
from meter.query import StatisticsQuery

MAX_GROUPS = 10
"""Groups of a chart, as many as it has colours."""


@dataclass(frozen=True, slots=True)
class GroupUsage:
    """The value of a group over the range, and the number of its samples. ``id`` is ``None`` for samples without one."""

    id: str | None
    value: float
    samples: int


@dataclass(frozen=True, slots=True)
class RankedUsage:
    """The groups of one unit: the ``shown`` ones, largest first, and what the ``rest``, ``rest_groups`` of them, amounts to.

    ``total`` is that of all groups, ``None`` if values of groups do not add up. ``units`` are all units of the samples.
    """

    unit: str
    units: Sequence[str]
    shown: Sequence[GroupUsage]
    rest: GroupUsage | None
    rest_groups: int
    total: float | None


@dataclass(frozen=True, slots=True)
class GroupWindows:
    """The values of a group by window, ``None`` where it has no samples."""

    id: str | None
    values: Sequence[float | None]


async def ranked_usage(context: RequestContext, view: UsageView, limit: int = MAX_GROUPS) -> RankedUsage | None:
    """Return the ``limit`` groups with the largest values, ``None`` without samples.

    Raises :class:`~meter.api.errors.ApiError` 400 if there are more groups than the API answers.
    """
    most = context.limits.max_windows
    rows = await context.store.statistics(
        StatisticsQuery(
            filter=view.filter,
            groupby=() if view.grouping is None else (view.grouping,),
            aggregates=(view.measure.aggregate, COUNT),
            limit=most + 1,
        )
    )
    if len(rows) > most:
        raise ApiError(400, f"There are more than {most} groups: select a project, or a shorter time range.")
    by_unit: dict[str, list[GroupUsage]] = {}
    async for batch in context.slices.batches(rows, 1000):
        for row in batch:
            by_unit.setdefault(row.unit, []).append(_group_usage(row, view))
    if not by_unit or (view.unit is not None and view.unit not in by_unit):
        return None
    unit = view.unit
    if unit is None:
        unit = max(by_unit, key=lambda each: sum(group.samples for group in by_unit[each]))
    groups = by_unit[unit]
    sign = 1 if view.measure.function == "min" else -1
    groups.sort(key=lambda each: (sign * each.value, each.id or ""))
    shown, rest = groups[:limit], groups[limit:]
    if rest:
        # Samples without an id cannot be named in the question for the windows of the shown groups.
        rest = [*(each for each in shown if each.id is None), *rest]
        shown = [each for each in shown if each.id is not None]
    return RankedUsage(
        unit=unit,
        units=sorted(by_unit),
        shown=shown,
        rest=_together(rest, view.measure) if rest else None,
        rest_groups=len(rest),
        total=sum(each.value for each in groups) if view.measure.additive else None,
    )


def _group_usage(row: Statistics, view: UsageView) -> GroupUsage:
    group = None if view.grouping is None else row.group[view.grouping]
    return GroupUsage(group, row.values[view.measure.aggregate.label], int(row.values[COUNT.label]))


def _together(groups: Sequence[GroupUsage], measure: UsageMeasure) -> GroupUsage:
    """Return what ``groups`` amount to together: an average is weighted by samples."""
    samples = sum(each.samples for each in groups)
    values = [each.value for each in groups]
    match measure.function:
        case "max":
            value = max(values)
        case "min":
            value = min(values)
        case "avg":
            value = sum(each.value * each.samples for each in groups) / samples
        case _:
            value = sum(values)
    return GroupUsage(None, value, samples)


async def usage_windows(context: RequestContext, view: UsageView, ranked: RankedUsage) -> list[GroupWindows]:
    """Return the windows of the shown groups in their order, then those of the rest if there is one."""
    units: tuple[Expression, ...] = ()
    if len(ranked.units) > 1:
        units = (Comparison("unit", "=", ranked.unit),)
    if view.grouping is None or ranked.rest is None:
        rows = await _windows(context, view, _and(view.filter, units), view.grouping)
        return [_filled(rows, view, each.id) for each in ranked.shown]
    among = In(view.grouping, tuple(_comparable(view.grouping, (each.id for each in ranked.shown))))
    rows, rest = await all_of(
        _windows(context, view, _and(view.filter, (*units, among)), view.grouping),
        _windows(context, view, _and(view.filter, (*units, Not(among))), None),
    )
    return [*(_filled(rows, view, each.id) for each in ranked.shown), _filled(rest, view, None)]


def _comparable(grouping: Grouping, ids: Iterable[str | None]) -> Iterable[Scalar]:
    """Yield the values that have the names ``ids``: groups of metadata are named by texts also if the value is a number."""
    for each in ids:
        if each is not None:
            yield each
            if grouping.startswith("metadata.") and not isinstance(value := convert(each, ""), str):
                yield value


def _and(filter: SampleFilter, parts: Sequence[Expression]) -> SampleFilter:
    given = () if filter.expression is None else (filter.expression,)
    return replace(filter, expression=And((*given, *parts)) if parts or given else None)


async def _windows(
    context: RequestContext, view: UsageView, filter: SampleFilter, grouping: Grouping | None
) -> dict[str | None, list[tuple[int, float]]]:
    """Return numbers of windows and their values, by group."""
    rows = await context.store.statistics(
        StatisticsQuery(
            filter=filter,
            period=view.window,
            groupby=() if grouping is None else (grouping,),
            aggregates=(view.measure.aggregate,),
            limit=context.limits.max_windows,
        )
    )
    found: dict[str | None, list[tuple[int, float]]] = {}
    async for batch in context.slices.batches(rows, 1000):
        for row in batch:
            n = round((row.period_start - view.range.start).total_seconds() / view.window)
            group = None if grouping is None else row.group[grouping]
            found.setdefault(group, []).append((n, row.values[view.measure.aggregate.label]))
    return found


def _filled(found: dict[str | None, list[tuple[int, float]]], view: UsageView, group: str | None) -> GroupWindows:
    values: list[float | None] = [None] * number_of_windows(view.range, view.window)
    for n, value in found.get(group, ()):
        values[n] = value
    return GroupWindows(group, values)
