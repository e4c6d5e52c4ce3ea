"""Handlers of ``/v2/completeness``: what was expected and what is missing, gaps, agents, and whether a period may be closed."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any
from typing import get_args

from meter.api.errors import ApiError
from meter.api.errors import HttpError
from meter.api.errors import invalid_input
from meter.api.rendering import completeness as rendering
from meter.api.request.arguments import Parameter
from meter.api.request.context import RequestContext
from meter.api.request.paging import offset_of
from meter.api.request.paging import offset_page_link
from meter.api.request.times import parse_time_argument
from meter.api.responses import JsonResponse
from meter.api.responses import ListResponse
from meter.completeness_query import CompletenessQuery
from meter.completeness_query import GroupField
from meter.completeness_query import Resolution
from meter.sample import utc_text

MAX_DAYS = 400
MAX_HOURS = 14 * 24
"""The longest period by hour, in hours."""

MAX_GAP_DAYS = 62
"""The longest period in which gaps are looked for."""

DEFAULT_PERIOD = timedelta(days=1)

PERIOD = (
    Parameter("start", "string", "Start of the period (inclusive). Default: one day before its end.", narrows=True),
    Parameter("end", "string", "End of the period (exclusive). Default: the present time.", narrows=True),
)
SCOPE = (
    Parameter("project_id", "string", "Only resources of this project.", narrows=True),
    Parameter("resource_id", "string", "Only this resource.", narrows=True),
    Parameter("meter", "string", "Only this meter.", narrows=True),
    Parameter(
        "agent",
        "string",
        "Only samples of this agent, such as meter-compute@host. For administrators.",
        narrows=True,
    ),
)
BY = Parameter("by", "string", "One row for each hour or day, in UTC. Default: one row for the period.", narrows=True)
GROUP = Parameter(
    "group", "string", "One row for each agent (administrators only), project_id, meter or resource_id.", narrows=True
)
PROJECT = Parameter("project_id", "string", "Only samples of this project.", narrows=True)


async def completeness(context: RequestContext) -> ListResponse:
    """Handle ``/v2/completeness``."""
    by = _choice(context, "by", get_args(Resolution))
    group = _choice(context, "group", get_args(GroupField))
    query = _query(context, by=by, group=group)
    length = query.end - query.start
    if by == "hour" and length > timedelta(hours=MAX_HOURS):
        raise ApiError(400, f"With by=hour the period can have at most {MAX_HOURS} hours; use by=day.")
    if length > timedelta(days=MAX_DAYS):
        raise ApiError(400, f"The period can have at most {MAX_DAYS} days.")
    limit, offset = context.limit, offset_of(context.arguments["marker"])
    rows = await context.store.completeness(query, context.utc_now, offset + limit + 1)
    link = offset_page_link(context.url, offset, limit, len(rows))
    page = list(rows[offset : offset + limit])
    requester = context.requester
    project_id = query.project_id if requester.is_admin else requester.project_id
    names = await context.store.name_histories(rendering.projects_of(page, query.group, project_id))
    render = partial(
        rendering.completeness,
        group=query.group,
        project_id=project_id,
        names=names,
        for_admin=requester.is_admin,
    )
    return ListResponse(page, render, link)


async def gaps(context: RequestContext) -> ListResponse:
    """Handle ``/v2/completeness/gaps``."""
    query = _query(context)
    if query.end - query.start > timedelta(days=MAX_GAP_DAYS):
        raise ApiError(400, f"The period of gaps can have at most {MAX_GAP_DAYS} days.")
    limit, offset = context.limit, offset_of(context.arguments["marker"])
    found = await context.store.completeness_gaps(query, context.utc_now, offset + limit + 1)
    return ListResponse(
        list(found[offset : offset + limit]),
        partial(rendering.gap, for_admin=context.requester.is_admin),
        offset_page_link(context.url, offset, limit, len(found)),
    )


async def agents(context: RequestContext) -> ListResponse:
    """Handle ``/v2/completeness/agents``."""
    return ListResponse(list(await context.store.agent_states(context.utc_now)), rendering.agent)


async def unmetered(context: RequestContext) -> ListResponse:
    """Handle ``/v2/completeness/unmetered``."""
    return ListResponse(list(await context.store.unmetered()), rendering.unmetered_resources)


async def audits(context: RequestContext) -> ListResponse:
    """Handle ``/v2/completeness/audits``."""
    query = _query(context)
    if query.end - query.start > timedelta(days=MAX_GAP_DAYS):
        raise ApiError(400, f"The period of audits can have at most {MAX_GAP_DAYS} days.")
    return ListResponse(list(await context.store.audited_periods(query.start, query.end)), rendering.audited_period)


async def closable(context: RequestContext) -> JsonResponse:
    """Handle ``/v2/completeness/closable``."""
    query = _query(context)
    if query.end - query.start > timedelta(days=MAX_DAYS):
        raise ApiError(400, f"The period can have at most {MAX_DAYS} days.")
    answer = await context.store.closable(query, context.utc_now)
    return JsonResponse(rendering.closable_period(answer, for_admin=context.requester.is_admin))


def _choice(context: RequestContext, name: str, allowed: tuple[str, ...]) -> Any:
    value = context.arguments[name]
    if value is not None and value not in allowed:
        raise invalid_input(name, value, f"use {' or '.join(allowed)}.")
    return value


def _query(
    context: RequestContext, *, by: Resolution | None = None, group: GroupField | None = None
) -> CompletenessQuery:
    arguments = context.arguments
    end = context.utc_now if arguments["end"] is None else parse_time_argument("end", arguments["end"])
    try:
        default = end - DEFAULT_PERIOD
    except OverflowError:
        default = end
    start = default if arguments["start"] is None else parse_time_argument("start", arguments["start"])
    if start >= end:
        raise ApiError(400, f"start must be before end; got {utc_text(start)} and {utc_text(end)}.")
    if not context.requester.is_admin and (arguments.get("agent") is not None or group == "agent"):
        raise HttpError(403, "Agents are shown to administrators only.")
    return CompletenessQuery(
        start=start,
        end=end,
        project_id=arguments.get("project_id"),
        resource_id=arguments.get("resource_id"),
        meter=arguments.get("meter"),
        agent=arguments.get("agent"),
        by=by,
        group=group,
    )
