"""Handler of ``/v2/segments``: how long resources were in each state, with each flavor or size and each owner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC
from datetime import datetime

from meter.api.errors import ApiError
from meter.api.errors import invalid_input
from meter.api.rendering.segments import identities_in
from meter.api.rendering.segments import resource_segments
from meter.api.request.arguments import Parameter
from meter.api.request.context import RequestContext
from meter.api.request.paging import after_key_marker
from meter.api.request.paging import key_marker
from meter.api.request.paging import next_link
from meter.api.request.times import parse_time_argument
from meter.api.responses import ListResponse
from meter.completeness.lives.kinds import INSTANCE
from meter.completeness.lives.kinds import KINDS
from meter.completeness.lives.kinds import ResourceKind
from meter.completeness.lives.resource_lives import ResourceLife
from meter.query import IdField
from meter.query import SampleFilter
from meter.sample import utc_text

MAX_RESOURCES = 1_000
"""Resources per response."""

ALL_KINDS = "all"
"""The value of ``kind`` for resources of every kind."""

PARAMETERS = (
    Parameter(
        "kind",
        "string",
        f"Only resources of this kind; repeatable. One of {', '.join(KINDS)}; or {ALL_KINDS}. Default: {INSTANCE}.",
        many=True,
        narrows=True,
    ),
    Parameter("resource_id", "string", "Only this resource.", narrows=True),
    Parameter("project_id", "string", "Only resources and segments of this project.", narrows=True),
    Parameter(
        "start",
        "string",
        "Start of the period (inclusive). Default: the begin of each resource.",
        narrows=True,
    ),
    Parameter("end", "string", "End of the period (exclusive). Default and maximum: the present time.", narrows=True),
)


async def segments(context: RequestContext) -> ListResponse:
    """Handle ``/v2/segments``: a page of resources, including deleted ones, ordered by id."""
    arguments = context.arguments
    start, end = _time("start", arguments["start"]), _time("end", arguments["end"])
    if start is not None and end is not None and start >= end:
        raise ApiError(400, f"start must be before end; got {utc_text(start)} and {utc_text(end)}.")
    if arguments["limit"] is not None and arguments["limit"] > MAX_RESOURCES:
        raise invalid_input("limit", arguments["limit"], f"the maximum is {MAX_RESOURCES} resources.")
    limit = min(context.limit, MAX_RESOURCES)
    names: tuple[IdField, ...] = ("resource_id", "project_id")
    equals = {name: arguments[name] for name in names if arguments[name]}
    filter = SampleFilter(equals=equals, as_of=context.as_of)
    if arguments["marker"] is not None:
        filter = replace(filter, expression=after_key_marker(arguments["marker"], ("resource_id",)))
    end = until_now(context, end, filter.as_of)
    kinds = _kinds(context.arguments["kind"])
    found, last = await visible_lives(context, filter, start, end, kinds, limit)
    link = {} if last is None else {"Link": next_link(context.url, key_marker(last))}
    names_of_owners = await context.store.name_histories(identities_in(found))
    return ListResponse(found, lambda each: resource_segments(each, start, end, names_of_owners), link)


def until_now(context: RequestContext, end: datetime | None, as_of: datetime | None = None) -> datetime:
    """Return the end of a period of lives: the future is not counted, nor, with ``as_of``, the time after it."""
    known_until = min(context.utc_now, as_of or datetime.max.replace(tzinfo=UTC))
    return known_until if end is None else min(end, known_until)


async def visible_lives(
    context: RequestContext,
    filter: SampleFilter,
    start: datetime | None,
    end: datetime,
    kinds: Sequence[ResourceKind],
    limit: int,
) -> tuple[list[ResourceLife], str | None]:
    """Return the lives of at most ``limit`` resources that existed in the period, and the id after which the next page begins."""
    known_until = until_now(context, None, filter.as_of)
    return await context.store.lives(filter, start, end, known_until, kinds, limit, context.slices)


def _kinds(names: Sequence[str]) -> list[ResourceKind]:
    """Return the kinds with these names, :class:`ApiError` 400 for an unknown one."""
    for name in names:
        if name not in KINDS and name != ALL_KINDS:
            raise invalid_input("kind", name, f"it must be {ALL_KINDS} or one of {', '.join(KINDS)}.")
    wanted = names or (INSTANCE,)
    return [kind for kind in KINDS.values() if ALL_KINDS in wanted or kind.name in wanted]


def _time(name: str, text: str | None) -> datetime | None:
    return None if text is None else parse_time_argument(name, text)
