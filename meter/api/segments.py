"""``/v2/segments``: how long instances were in which state, with which flavor."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC
from datetime import datetime

import msgspec

from meter.api.errors import Fault
from meter.api.errors import invalid_input
from meter.api.request.arguments import Parameter
from meter.api.request.context import RequestContext
from meter.api.request.paging import beyond
from meter.api.request.paging import next_link
from meter.api.request.paging import place_after
from meter.api.responses import JsonResponse
from meter.completeness.instance_times import InstanceTime
from meter.completeness.instance_times import instance_times
from meter.completeness.segments import RUNNING
from meter.message import BadMessage
from meter.message import parse_timestamp
from meter.query import IdField
from meter.query import SampleFilter
from meter.sample import utc_text

MOST_INSTANCES = 1_000
"""Instances of one answer; the samples of each are read."""

PARAMETERS = (
    Parameter("resource_id", "text", "The instance; without it all of the project.", narrows=True),
    Parameter("project_id", "text", "The project; without it all that can be seen.", narrows=True),
    Parameter(
        "start",
        "text",
        "The first moment of the period; without it the period begins with each instance.",
        narrows=True,
    ),
    Parameter("end", "text", "The first moment after the period; now at the latest, and without it.", narrows=True),
)


class Segment(msgspec.Struct, kw_only=True):
    """A time in one state under one flavor; ``ended`` is null while it lasts, ``seconds`` are those in the period."""

    state: str
    flavor: str
    running: bool
    began: str
    ended: str | None
    seconds: float


class Spent(msgspec.Struct, kw_only=True):
    """The seconds of the period in one state under one flavor."""

    state: str
    flavor: str
    running: bool
    seconds: float


class InstanceSegments(msgspec.Struct, kw_only=True):
    """How one instance spent the period."""

    resource_id: str
    project_id: str | None
    user_id: str | None
    display_name: str | None
    segments: list[Segment]
    seconds: list[Spent]


async def segments(question: RequestContext) -> JsonResponse:
    """Answer ``/v2/segments``: a page of instances by id, deleted ones too, and the marker of the next page."""
    asked = question.arguments
    start, end = _time("start", asked["start"]), _time("end", asked["end"])
    if start is not None and end is not None and start >= end:
        raise Fault(400, f"start must be before end; they are {utc_text(start)} and {utc_text(end)}.")
    if asked["limit"] is not None and asked["limit"] > MOST_INSTANCES:
        raise invalid_input("limit", asked["limit"], f"it may be at most {MOST_INSTANCES} instances.")
    limit = min(question.limit, MOST_INSTANCES)
    names: tuple[IdField, ...] = ("resource_id", "project_id")
    filter = question.with_as_of(SampleFilter(equals={name: asked[name] for name in names if asked[name]}))
    if asked["marker"] is not None:
        filter = replace(filter, expression=beyond(asked["marker"], ("resource_id",)))
    # The future is never counted, nor, as of a time, what came after it.
    known = min(datetime.fromtimestamp(question.now, UTC), filter.as_of or datetime.max.replace(tzinfo=UTC))
    end = known if end is None else min(end, known)
    times, last = await instance_times(question.store, filter, start, end, limit)
    link = {} if last is None else {"Link": next_link(question.url, place_after(last))}
    return JsonResponse([_rendered(each, start, end) for each in times], link)


def _rendered(lived: InstanceTime, start: datetime | None, end: datetime) -> InstanceSegments:
    rows = []
    for each in lived.segments:
        seconds = each.seconds(each.began if start is None else start, end)
        if seconds:
            rows.append(
                Segment(
                    state=each.state,
                    flavor=each.flavor,
                    running=each.state in RUNNING,
                    began=utc_text(each.began),
                    ended=utc_text(each.ended) if each.ended else None,
                    seconds=seconds,
                )
            )
    return InstanceSegments(
        resource_id=lived.resource_id,
        project_id=lived.project_id,
        user_id=lived.user_id,
        display_name=lived.display_name,
        segments=rows,
        seconds=[
            Spent(state=state, flavor=flavor, running=state in RUNNING, seconds=spent)
            for (state, flavor), spent in lived.seconds.items()
        ],
    )


def _time(name: str, text: str | None) -> datetime | None:
    try:
        return None if text is None else parse_timestamp(text, name)
    except BadMessage as error:
        raise invalid_input(name, text, "invalid timestamp format") from error
