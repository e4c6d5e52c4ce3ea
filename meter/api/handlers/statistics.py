"""Handler of statistics, and the checks of aggregates and units that need the store."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence

from meter.api.errors import ApiError
from meter.api.rendering import v2 as rendering
from meter.api.request.context import RequestContext
from meter.api.request.simple_query import SAMPLE_FIELDS
from meter.api.request.statistics import FUNCTIONS
from meter.api.request.statistics import parse_aggregates
from meter.api.request.statistics import parse_groupings
from meter.api.request.statistics import parse_period
from meter.api.responses import ListResponse
from meter.daemon.shared_slices import OwnedSlices
from meter.query import Aggregate
from meter.query import SampleFilter
from meter.query import Statistics
from meter.query import StatisticsQuery
from meter.sample import SampleType

REQUIRED_TYPE: Mapping[str, SampleType] = {"rate": "cumulative", "increase": "cumulative", "integral": "gauge"}
"""The type of meter that an aggregate requires."""

ALTERNATIVE: Mapping[str, Mapping[SampleType, str]] = {
    "rate": {"gauge": "avg", "delta": "sum over a period"},
    "increase": {"gauge": "max and min, or integral", "delta": "sum"},
    "integral": {"cumulative": "increase", "delta": "sum"},
}
"""The aggregate to use for other types, for the error text."""


async def statistics(context: RequestContext) -> ListResponse:
    """Handle ``/v2/meters/{meter}/statistics``; the header ``Warning`` lists the units if there are several."""
    max_windows = context.limits.max_windows
    simple = context.simple_query(SAMPLE_FIELDS)
    groupings = parse_groupings(context.arguments["groupby"])
    query = StatisticsQuery(
        filter=simple.filter,
        period=parse_period(context.arguments["period"], simple.filter, context.now, max_windows),
        groupby=tuple(groupings),
        aggregates=parse_aggregates(context.arguments["aggregate"]),
        limit=max_windows + 1,
    )
    await _check_meter_type(context, query.aggregates)
    rows = await context.store.statistics(query)
    if len(rows) > max_windows:
        raise ApiError(
            400,
            f"There are more than {max_windows} rows of windows and groups: use a longer period, fewer groups or a"
            " shorter time range.",
        )
    selected = bool(context.arguments["aggregate"])
    return ListResponse(
        list(rows),
        lambda row: rendering.statistics_row(
            row, group_names=groupings, selected=selected, start=simple.start, end=simple.end
        ),
        await unit_warning(rows, "each unit has its own rows", context.slices),
    )


async def unit_warning(rows: Sequence[Statistics], consequence: str, slices: OwnedSlices) -> dict[str, str]:
    """Return a ``Warning`` header if ``rows`` have several units; ``consequence`` is its effect on the response."""
    distinct: set[str] = set()
    async for batch in slices.batches(rows, 1000):
        distinct.update(row.unit for row in batch)
    units = sorted(distinct)
    if len(units) < 2:
        return {}
    listed = ", ".join(unit or "no unit" for unit in units[:10])
    quotable = "".join(each if " " <= each <= "~" and each not in '"\\' else "?" for each in listed)
    return {"Warning": f'299 - "the samples have {len(units)} units: {quotable}; {consequence}"'}


async def _check_meter_type(context: RequestContext, aggregates: Sequence[Aggregate]) -> None:
    """Raise :class:`ApiError` 400 for an aggregate that is not defined for the meter's type."""
    if not any(aggregate.function in REQUIRED_TYPE for aggregate in aggregates):
        return
    name = context.path["meter"]
    meters = await context.store.meters(SampleFilter(equals={"meter": name}), len(FUNCTIONS), True)
    for function in (aggregate.function for aggregate in aggregates):
        for meter in meters:
            if function in REQUIRED_TYPE and meter.type != REQUIRED_TYPE[function]:
                raise ApiError(
                    400,
                    f"Bad aggregate: {function} requires a {REQUIRED_TYPE[function]} meter, but {name} is a {meter.type}"
                    f" meter; use {ALTERNATIVE[function][meter.type]}.",
                )
