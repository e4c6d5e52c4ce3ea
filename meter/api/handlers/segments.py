"""Handler of ``/v2/segments``: how long instances were in each state with each flavor."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC
from datetime import datetime

from meter.api.errors import ApiError
from meter.api.errors import invalid_input
from meter.api.rendering.segments import instance_segments
from meter.api.request.arguments import Parameter
from meter.api.request.context import RequestContext
from meter.api.request.paging import after_key_marker
from meter.api.request.paging import key_marker
from meter.api.request.paging import next_link
from meter.api.request.times import parse_time_argument
from meter.api.responses import ListResponse
from meter.completeness.instance_times import instance_times
from meter.query import IdField
from meter.query import SampleFilter
from meter.sample import utc_text

MAX_INSTANCES = 1_000
"""Instances per response, each of which takes a query for its samples."""

PARAMETERS = (
    Parameter("resource_id", "string", "Only this instance.", narrows=True),
    Parameter("project_id", "string", "Only instances of this project.", narrows=True),
    Parameter(
        "start",
        "string",
        "Start of the period (inclusive). Default: the first sample of each instance.",
        narrows=True,
    ),
    Parameter("end", "string", "End of the period (exclusive). Default and maximum: the present time.", narrows=True),
)


async def segments(context: RequestContext) -> ListResponse:
    """Handle ``/v2/segments``: a page of instances, including deleted ones, ordered by id."""
    arguments = context.arguments
    start, end = _time("start", arguments["start"]), _time("end", arguments["end"])
    if start is not None and end is not None and start >= end:
        raise ApiError(400, f"start must be before end; got {utc_text(start)} and {utc_text(end)}.")
    if arguments["limit"] is not None and arguments["limit"] > MAX_INSTANCES:
        raise invalid_input("limit", arguments["limit"], f"the maximum is {MAX_INSTANCES} instances.")
    limit = min(context.limit, MAX_INSTANCES)
    names: tuple[IdField, ...] = ("resource_id", "project_id")
    equals = {name: arguments[name] for name in names if arguments[name]}
    filter = SampleFilter(equals=equals, as_of=context.as_of)
    if arguments["marker"] is not None:
        filter = replace(filter, expression=after_key_marker(arguments["marker"], ("resource_id",)))
    # The future is not counted, nor, with as_of, the time after it.
    known_until = min(datetime.fromtimestamp(context.now, UTC), filter.as_of or datetime.max.replace(tzinfo=UTC))
    end = known_until if end is None else min(end, known_until)
    instances, last = await instance_times(context.store, filter, start, end, limit)
    link = {} if last is None else {"Link": next_link(context.url, key_marker(last))}
    return ListResponse(instances, lambda instance: instance_segments(instance, start, end), link)


def _time(name: str, text: str | None) -> datetime | None:
    return None if text is None else parse_time_argument(name, text)
