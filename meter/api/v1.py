"""The answers of the v1 API, which was read-only: meters, resources, users, projects, and samples as *events*."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from typing import TypeVar

from meter.api.errors import Fault
from meter.api.rendering import v1 as shapes
from meter.api.request.context import RequestContext
from meter.api.request.simple_query import RESOURCE_FIELDS
from meter.api.request.simple_query import SimpleQuery
from meter.api.request.simple_query import simple_query
from meter.api.request.statistics import unit_warning
from meter.api.responses import JsonResponse
from meter.query import Aggregate
from meter.query import AggregateFunction
from meter.query import IdField
from meter.query import Statistics
from meter.query import StatisticsQuery
from meter.query import StoredSample
from meter.sample import utc_text

OWNERS: Mapping[str, IdField] = {
    "resources": "resource_id",
    "users": "user_id",
    "projects": "project_id",
    "sources": "source",
}
"""What may stand before an id in a path, and the field of a sample that the id is."""

COMBINED = "this is one number for all of them, without conversion"
"""What a warning says of a volume that is made of samples in several units."""

Answer = Callable[[RequestContext], Awaitable[Any]]
Row = TypeVar("Row")


def of(owners: str | None, answer: Callable[[RequestContext, SimpleQuery], Awaitable[Any]]) -> Answer:
    """Return what answers with ``answer`` for the samples of one of ``owners`` (``users``…), or for all."""

    async def respond(question: RequestContext) -> Any:
        equals: dict[IdField, str | None] = {}
        if owners is not None:
            equals[OWNERS[owners]] = question.path["id"]
        if "meter" in question.path:
            equals["meter"] = question.path["meter"]
        try:
            return await answer(question, _asked(question, equals))
        except Fault as fault:
            if fault.status == 401 and equals.get("project_id") is not None:
                raise Fault(404, f"Project {equals['project_id']} Not Found") from fault  # as v1 said it
            raise

    return respond


def _asked(question: RequestContext, equals: dict[IdField, str | None]) -> SimpleQuery:
    """Return what the arguments mean, by the rules of v2: v1 had the same questions in other words."""
    given = question.arguments
    terms = [{"field": f"metadata.{key}", "value": value} for key, value in (given.get("metadata.") or {}).items()]
    if given.get("start_timestamp"):
        terms.append({"field": "timestamp", "op": "ge", "value": given["start_timestamp"]})
    if given.get("end_timestamp"):
        terms.append({"field": "timestamp", "op": "lt", "value": given["end_timestamp"]})
    if given.get("search_offset") is not None:
        terms.append({"field": "search_offset", "value": str(given["search_offset"])})
    asked = simple_query(terms, RESOURCE_FIELDS)
    return replace(asked, filter=replace(asked.filter, equals=equals))


def _all(question: RequestContext, rows: Sequence[Row]) -> Sequence[Row]:
    """Return ``rows`` if these are all: v1 knew no limit, and half an answer would look like a whole one."""
    if len(rows) > question.limits.largest:
        raise Fault(400, f"There are more than {question.limits.largest}: narrow the range, or ask /v2 for pages.")
    return rows


async def meters(question: RequestContext, asked: SimpleQuery) -> shapes.Meters:
    """Answer with the meters of each resource."""
    rows = _all(question, await question.store.meters(asked.filter, question.limits.largest + 1, False))
    return shapes.Meters([shapes.meter(row) for row in rows])


async def resources(question: RequestContext, asked: SimpleQuery) -> shapes.Resources:
    """Answer with the resources that have samples in the range."""
    rows = _all(question, await question.store.resources(asked.filter, question.limits.largest + 1))
    return shapes.Resources([shapes.resource(row) for row in rows])


async def users(question: RequestContext, asked: SimpleQuery) -> shapes.Users:
    """Answer with the ids of users that have samples."""
    return shapes.Users(await _values(question, asked, "user_id"))


async def projects(question: RequestContext, asked: SimpleQuery) -> shapes.Projects:
    """Answer with the ids of projects that have samples."""
    return shapes.Projects(await _values(question, asked, "project_id"))


async def _values(question: RequestContext, asked: SimpleQuery, field: str) -> list[str]:
    rows = await _rows(question, asked, "count", groupby=(field,))
    return sorted({value for row in rows if (value := row.group[field]) is not None})


async def source(question: RequestContext, asked: SimpleQuery) -> shapes.Source:
    """Answer with what is known of a source: that it has samples."""
    if not await question.store.meters(asked.filter, 1, True):
        raise Fault(404, f"Source {question.path['id']} Not Found")
    return shapes.Source(question.path["id"])


async def events(question: RequestContext, asked: SimpleQuery) -> shapes.Events:
    """Answer with samples as they were signed, newest first."""
    rows: Sequence[StoredSample] = _all(
        question, await question.store.samples(asked.filter, question.limits.largest + 1)
    )
    return shapes.Events([shapes.event(row) for row in rows])


async def duration(question: RequestContext, asked: SimpleQuery) -> shapes.Duration:
    """Answer with the time between the first and the last sample, within the range as asked."""
    rows = await _rows(question, asked, "count")
    if not rows:
        return shapes.Duration(None, None, None)
    start, end = min(row.first for row in rows), max(row.last for row in rows)
    start = start if asked.start is None else max(start, asked.start)
    end = end if asked.end is None else min(end, asked.end)
    if start > end:
        return shapes.Duration(None, None, None)
    return shapes.Duration(utc_text(start), utc_text(end), (end - start).total_seconds())


async def largest_volume(question: RequestContext, asked: SimpleQuery) -> JsonResponse:
    """Answer with the largest volume; a warning says that the samples have more than one unit."""
    rows = await _rows(question, asked, "max")
    largest = max((row.values["max"] for row in rows), default=None)
    return JsonResponse(shapes.Volume(largest), unit_warning(rows, COMBINED))


async def sum_of_volumes(question: RequestContext, asked: SimpleQuery) -> JsonResponse:
    """Answer with the sum of volumes; a warning says that the samples have more than one unit."""
    rows = await _rows(question, asked, "sum")
    total = sum(row.values["sum"] for row in rows) if rows else None
    return JsonResponse(shapes.Volume(total), unit_warning(rows, COMBINED))


async def _rows(
    question: RequestContext, asked: SimpleQuery, function: AggregateFunction, groupby: tuple[str, ...] = ()
) -> Sequence[Statistics]:
    query = StatisticsQuery(
        filter=asked.filter,
        groupby=groupby,
        aggregates=(Aggregate(function),),
        limit=question.limits.largest + 1,
    )
    return _all(question, await question.store.statistics(query))
