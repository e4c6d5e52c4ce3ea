"""Handlers of the v1 API, which was read-only: meters, resources, users, projects, and samples, called *events*."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import TypeVar

from meter.api.errors import ApiError
from meter.api.handlers.statistics import unit_warning
from meter.api.rendering import v1 as rendering
from meter.api.request.context import RequestContext
from meter.api.request.simple_query import RESOURCE_FIELDS
from meter.api.request.simple_query import SimpleQuery
from meter.api.request.simple_query import parse_simple_query
from meter.api.responses import JsonResponse
from meter.api.responses import ListResponse
from meter.query import Aggregate
from meter.query import AggregateFunction
from meter.query import IdField
from meter.query import Statistics
from meter.query import StatisticsQuery
from meter.query import StoredSample
from meter.sample import utc_text

OWNER_FIELDS: Mapping[str, IdField] = {
    "resources": "resource_id",
    "users": "user_id",
    "projects": "project_id",
    "sources": "source",
}
"""The collections that a path can begin with, and the field of a sample that has their ids."""

COMBINED = "the value combines them without conversion"
"""Consequence of several units, for the ``Warning`` header of a volume."""

Entry = TypeVar("Entry")


def handler_for(
    owners: str | None, handler: Callable[[RequestContext, SimpleQuery], Awaitable[Any]]
) -> Callable[[RequestContext], Awaitable[Any]]:
    """Return the handler of a path that begins with one of ``owners`` (``users``…) and its id, or with neither."""

    async def handle(context: RequestContext) -> Any:
        equals: dict[IdField, str] = {}
        if owners is not None:
            equals[OWNER_FIELDS[owners]] = context.path["id"]
        if "meter" in context.path:
            equals["meter"] = context.path["meter"]
        try:
            return await handler(context, _simple_query(context.arguments, equals))
        except ApiError as error:
            if error.status == 401 and equals.get("project_id") is not None:
                # v1 answered 404 where v2 answers 401.
                raise ApiError(404, f"Project {equals['project_id']} Not Found") from error
            raise

    return handle


def _simple_query(arguments: Mapping[str, Any], equals: Mapping[IdField, str]) -> SimpleQuery:
    """Return the query in v1's parameters, parsed as the equivalent terms of v2."""
    terms = [{"field": f"metadata.{key}", "value": value} for key, value in (arguments.get("metadata.") or {}).items()]
    if arguments.get("start_timestamp"):
        terms.append({"field": "timestamp", "op": "ge", "value": arguments["start_timestamp"]})
    if arguments.get("end_timestamp"):
        terms.append({"field": "timestamp", "op": "lt", "value": arguments["end_timestamp"]})
    if arguments.get("search_offset") is not None:
        terms.append({"field": "search_offset", "value": str(arguments["search_offset"])})
    return parse_simple_query(terms, RESOURCE_FIELDS, fixed=equals)


def _check_complete(context: RequestContext, entries: Sequence[Entry]) -> Sequence[Entry]:
    """Return ``entries``; :class:`ApiError` 400 if they exceed the limit, since v1 has neither limits nor pages."""
    if len(entries) > context.limits.max_limit:
        raise ApiError(
            400,
            f"The response would have more than {context.limits.max_limit} entries: use a shorter time range, or /v2,"
            " which has pages.",
        )
    return entries


async def meters(context: RequestContext, query: SimpleQuery) -> ListResponse:
    """Return the meters of each resource."""
    rows = _check_complete(context, await context.store.meters(query.filter, context.limits.max_limit + 1, False))
    return ListResponse(list(rows), rendering.meter, member="meters")


async def resources(context: RequestContext, query: SimpleQuery) -> ListResponse:
    """Return the resources that have matching samples."""
    rows = _check_complete(context, await context.store.resources(query.filter, context.limits.max_limit + 1))
    return ListResponse(list(rows), rendering.resource, member="resources")


async def users(context: RequestContext, query: SimpleQuery) -> rendering.Users:
    """Return the ids of users that have matching samples."""
    return rendering.Users(await _distinct(context, query, "user_id"))


async def projects(context: RequestContext, query: SimpleQuery) -> rendering.Projects:
    """Return the ids of projects that have matching samples."""
    return rendering.Projects(await _distinct(context, query, "project_id"))


async def _distinct(context: RequestContext, query: SimpleQuery, field: str) -> list[str]:
    rows = await _statistics(context, query, "count", groupby=(field,))
    return sorted({value for row in rows if (value := row.group[field]) is not None})


async def source(context: RequestContext, query: SimpleQuery) -> rendering.Source:
    """Return the source, if it has samples; :class:`ApiError` 404 if not."""
    if not await context.store.meters(query.filter, 1, True):
        raise ApiError(404, f"Source {context.path['id']} Not Found")
    return rendering.Source(context.path["id"])


async def events(context: RequestContext, query: SimpleQuery) -> ListResponse:
    """Return samples as they were signed, newest first."""
    rows: Sequence[StoredSample] = _check_complete(
        context, await context.store.samples(query.filter, context.limits.max_limit + 1)
    )
    return ListResponse(list(rows), rendering.event, member="events")


async def duration(context: RequestContext, query: SimpleQuery) -> rendering.Duration:
    """Return the time between the first and the last sample, within the range of the request."""
    rows = await _statistics(context, query, "count")
    if not rows:
        return rendering.Duration(None, None, None)
    start, end = min(row.first for row in rows), max(row.last for row in rows)
    start = start if query.start is None else max(start, query.start)
    end = end if query.end is None else min(end, query.end)
    if start > end:
        return rendering.Duration(None, None, None)
    return rendering.Duration(utc_text(start), utc_text(end), (end - start).total_seconds())


async def max_volume(context: RequestContext, query: SimpleQuery) -> JsonResponse:
    """Return the maximum of the volumes; the header ``Warning`` lists the units if there are several."""
    rows = await _statistics(context, query, "max")
    maximum = max((row.values["max"] for row in rows), default=None)
    return JsonResponse(rendering.Volume(maximum), await unit_warning(rows, COMBINED, context.slices))


async def sum_of_volumes(context: RequestContext, query: SimpleQuery) -> JsonResponse:
    """Return the sum of the volumes; the header ``Warning`` lists the units if there are several."""
    rows = await _statistics(context, query, "sum")
    total = sum(row.values["sum"] for row in rows) if rows else None
    return JsonResponse(rendering.Volume(total), await unit_warning(rows, COMBINED, context.slices))


async def _statistics(
    context: RequestContext, query: SimpleQuery, function: AggregateFunction, groupby: tuple[str, ...] = ()
) -> Sequence[Statistics]:
    statistics = await context.store.statistics(
        StatisticsQuery(
            filter=query.filter,
            groupby=groupby,
            aggregates=(Aggregate(function),),
            limit=context.limits.max_limit + 1,
        )
    )
    return _check_complete(context, statistics)
