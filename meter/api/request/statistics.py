"""Statistics: groups, windows and aggregates of a question, read, and refused where they make no sense."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import cast
from typing import get_args

from meter.api.errors import Fault
from meter.api.errors import unknown_argument
from meter.api.rendering import v2 as rendering
from meter.api.request.context import RequestContext
from meter.api.request.simple_query import METADATA_PREFIXES
from meter.api.request.simple_query import SimpleQuery
from meter.api.responses import JsonResponse
from meter.query import STANDARD_AGGREGATES
from meter.query import Aggregate
from meter.query import AggregateFunction
from meter.query import Grouping
from meter.query import SampleFilter
from meter.query import Statistics
from meter.query import StatisticsQuery
from meter.sample import SampleType

GROUPABLE_IDS = ("user_id", "resource_id", "project_id", "source")
COUNTABLE_IDS = ("resource_id", "user_id", "project_id")
FUNCTIONS = get_args(AggregateFunction)

LONGEST_PERIOD_SECONDS = 100 * 366 * 24 * 3600
"""A century; what is much longer leads out of the calendar."""

MEANT_FOR: Mapping[str, SampleType] = {"rate": "cumulative", "increase": "cumulative", "integral": "gauge"}
"""Aggregates that mean something for one type of meter only."""

RIGHT_ONE: Mapping[str, Mapping[SampleType, str]] = {
    "rate": {"gauge": "avg", "delta": "sum over a period"},
    "increase": {"gauge": "max and min, or integral", "delta": "sum"},
    "integral": {"cumulative": "increase", "delta": "sum"},
}
"""What to ask for instead."""


async def statistics(question: RequestContext) -> JsonResponse:
    """Answer ``/v2/meters/{meter}/statistics``; a warning says that the samples have more than one unit."""
    asked = question.meter_query()
    groupings = _groupings(question.arguments["groupby"])
    query = StatisticsQuery(
        filter=asked.filter,
        period=_period(question, asked),
        groupby=tuple(groupings),
        aggregates=_aggregates(question.arguments["aggregate"]),
        limit=question.limits.windows + 1,
    )
    await _check_meaning(question, query.aggregates)
    selected = bool(question.arguments["aggregate"])
    rows = await question.store.statistics(query)
    if len(rows) > question.limits.windows:
        raise Fault(
            400,
            f"There are more than {question.limits.windows} windows and groups: ask for longer periods, fewer groups or"
            " a shorter range.",
        )
    return JsonResponse(
        [rendering.statistics_row(row, asked, groupings, selected) for row in rows],
        unit_warning(rows, "each has rows of its own"),
    )


def unit_warning(rows: Sequence[Statistics], consequence: str) -> dict[str, str]:
    """Return a Warning header where ``rows`` have more than one unit, with what that means for the answer."""
    units = sorted({row.unit for row in rows})
    if len(units) < 2:
        return {}
    shown = ", ".join(unit or "no unit" for unit in units[:10])
    plain = "".join(each if " " <= each <= "~" and each not in '"\\' else "?" for each in shown)
    return {"Warning": f'299 - "the samples have {len(units)} units: {plain}; {consequence}"'}


def _groupings(names: Sequence[str]) -> dict[Grouping, str]:
    """Return the groupings that ``names`` mean, each once, with the name it was asked for by."""
    wrong = sorted(name for name in set(names) if name not in GROUPABLE_IDS and not _metadata_grouping(name))
    if wrong:
        raise unknown_argument(", ".join(wrong), "Invalid groupby fields")
    return {_metadata_grouping(name) or name: name for name in names}


def _metadata_grouping(name: str) -> Grouping:
    """Return the grouping by metadata that ``name`` means, empty if it means none."""
    return next((f"metadata.{name[len(p) :]}" for p in METADATA_PREFIXES if name.startswith(p) and name != p), "")


def _period(question: RequestContext, asked: SimpleQuery) -> int | None:
    """Return the length of a window in seconds; :class:`Fault` when there would be too many of them."""
    period: int | None = question.arguments["period"]
    if not period:
        return None
    if period < 0:
        raise Fault(400, "Period must be positive.")
    if period > LONGEST_PERIOD_SECONDS:
        raise Fault(400, f"Invalid period {period}: it may be at most {LONGEST_PERIOD_SECONDS} s.")
    if asked.filter.start is not None:
        end = asked.filter.end.timestamp() if asked.filter.end else question.now
        windows = int((end - asked.filter.start.timestamp()) // period)
        if windows > question.limits.windows:
            raise Fault(
                400,
                f"Invalid period {period}: it would make {windows} windows, and there may be at most"
                f" {question.limits.windows}.",
            )
    return period


def _aggregates(terms: Sequence[Mapping[str, str]]) -> tuple[Aggregate, ...]:
    """Return the selectable aggregates that were asked for, each once; the standard ones when none were."""
    return tuple(dict.fromkeys(map(_aggregate, terms))) or STANDARD_AGGREGATES


def _aggregate(term: Mapping[str, str]) -> Aggregate:
    function, param = term["func"], term.get("param") or None
    if function not in FUNCTIONS:
        raise Fault(400, f"Invalid aggregation function: {function}")
    if function == "percentile":
        if not _is_percent(param):
            raise Fault(400, f"Bad aggregate: percentile.{param}: aggregate.param must be a number from 0 to 100.")
    elif param not in (COUNTABLE_IDS if function == "cardinality" else (None,)):
        raise Fault(400, f"Bad aggregate: {function}.{param}")
    return Aggregate(cast(AggregateFunction, function), param)


def _is_percent(text: str | None) -> bool:
    try:
        return 0 <= float(text or "") <= 100
    except ValueError:
        return False


async def _check_meaning(question: RequestContext, aggregates: Sequence[Aggregate]) -> None:
    """Raise :class:`Fault` for an aggregate that means nothing for this meter, and name the right one."""
    if not any(aggregate.function in MEANT_FOR for aggregate in aggregates):
        return
    meter = question.path["meter"]
    kinds = await question.store.meters(SampleFilter(equals={"meter": meter}), len(FUNCTIONS), True)
    for function in (aggregate.function for aggregate in aggregates):
        for kind in kinds:
            if function in MEANT_FOR and kind.type != MEANT_FOR[function]:
                raise Fault(
                    400,
                    f"Bad aggregate: {function} is for {MEANT_FOR[function]} meters, and {meter} is {kind.type}:"
                    f" use {RIGHT_ONE[function][kind.type]}.",
                )
