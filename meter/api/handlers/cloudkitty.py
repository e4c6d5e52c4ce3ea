"""Handlers of CloudKitty's ``/v2/summary`` and ``/v2/dataframes``, read only: what usage cost, from rated days."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Sequence
from datetime import datetime
from datetime import timedelta

from meter.api.errors import ApiError
from meter.api.errors import HttpError
from meter.api.errors import invalid_input
from meter.api.handlers.prices import NOT_CONFIGURED
from meter.api.rendering import cloudkitty as rendering
from meter.api.request.arguments import Parameter
from meter.api.request.context import RequestContext
from meter.api.request.times import parse_time_argument
from meter.query import SampleFilter
from meter.rating.book.price_book import PriceDirectory
from meter.rating.costs.cost_query import FIELDS
from meter.rating.costs.cost_query import TIME_GROUPS
from meter.rating.costs.cost_query import CostQuery
from meter.rating.costs.cost_query import TooManyGroups

MAX_DAYS = 93
"""The longest time that is summed: three months."""

DEFAULT_LIMIT = 100

BEGIN = Parameter("begin", "string", "Start of the first day (inclusive). Default: the present month.", narrows=True)
END = Parameter(
    "end", "string", "End (exclusive): days that start before it. Default: the end of the present month.", narrows=True
)
FILTERS = Parameter(
    "filters",
    "string",
    "Only what has these values, as key:value, separated by commas or repeated. Keys are type (the SKU), project_id, id (the"
    " resource), currency, account_id and names of values such as flavor.",
    many=True,
    narrows=True,
)
GROUPBY = Parameter(
    "groupby", "string", "Keys to group by, as those of filters, or time, time-d, time-w, time-m, time-y.", many=True
)
LIMIT = Parameter("limit", "integer", f"Maximum number of entries in the response. Default: {DEFAULT_LIMIT}.")
OFFSET = Parameter("offset", "integer", "Number of entries to leave out at the start.")
RESPONSE_FORMAT = Parameter("response_format", "string", "table (default) or object.", narrows=True)


async def summary(context: RequestContext) -> rendering.Summary:
    """Handle ``/v2/summary``."""
    arguments = context.arguments
    chosen = arguments["response_format"] or "table"
    if chosen not in ("table", "object"):
        raise invalid_input("response_format", chosen, "use table or object.")
    directory = await _directory(context)
    groupby = [name for text in arguments["groupby"] for name in text.split(",") if name]
    query = _query(context, directory, groupby)
    offset, limit = _page(context)
    try:
        sums = await context.store.cost_sums(directory, query, context.slices)
    except TooManyGroups as error:
        raise ApiError(400, str(error)) from error
    if "currency" not in groupby and any(len(each.currencies) > 1 for each in sums):
        raise ApiError(400, "These costs have several currencies: group by currency, or filter by one.")
    names = [name for name in groupby if name not in TIME_GROUPS]
    return rendering.summary(sums[offset : offset + limit], len(sums), names, as_objects=chosen == "object")


async def dataframes(context: RequestContext) -> rendering.DataFrames:
    """Handle ``/v2/dataframes``."""
    directory = await _directory(context)
    offset, limit = _page(context)
    query = _query(context, directory, ())
    days, total = await context.store.cost_points(directory, query, offset, limit, context.slices)
    return rendering.dataframes(days, total)


async def _directory(context: RequestContext) -> PriceDirectory:
    context.store.check(SampleFilter())
    if context.prices is None:
        raise HttpError(404, NOT_CONFIGURED)
    return await context.prices.current()


def _query(context: RequestContext, directory: PriceDirectory, groupby: Sequence[str]) -> CostQuery:
    known = {*FIELDS, *(name for book in directory.books.values() for sku in book.skus.values() for name in sku.by)}
    for name in groupby:
        if name not in known and name not in TIME_GROUPS:
            raise invalid_input("groupby", name, f"use {_listed(known)} or {_listed(TIME_GROUPS)}.")
    if sum(name in TIME_GROUPS for name in groupby) > 1:
        raise invalid_input("groupby", ",".join(groupby), "it can have only one time.")
    filters: dict[str, list[str]] = {}
    for text in (part for value in context.arguments["filters"] for part in value.split(",")):
        name, colon, value = text.partition(":")
        if not colon:
            raise invalid_input("filters", text, "use key:value.")
        if name not in known:
            raise invalid_input("filters", text, f"use one of the keys {_listed(known)}.")
        filters.setdefault(name, []).append(value)
    begin, end = _times(context)
    project = filters.get("project_id", [])
    return CostQuery(
        begin=begin,
        end=end,
        filters=filters,
        groupby=tuple(dict.fromkeys(groupby)),
        project_id=project[0] if len(project) == 1 else None,
    )


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names))


def _times(context: RequestContext) -> tuple[datetime, datetime]:
    now = context.utc_now
    month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    begin, end = context.arguments["begin"], context.arguments["end"]
    first = month if begin is None else parse_time_argument("begin", begin)
    last = (month + timedelta(days=32)).replace(day=1) if end is None else parse_time_argument("end", end)
    if first >= last:
        raise ApiError(400, "begin must be before end.")
    if last - first > timedelta(days=MAX_DAYS):
        raise ApiError(400, f"The time can have at most {MAX_DAYS} days.")
    if not 2 <= first.year <= last.year < 9999:
        raise ApiError(400, "The years must be from 2 to 9998.")
    return first, last


def _page(context: RequestContext) -> tuple[int, int]:
    offset = context.arguments["offset"] or 0
    if offset < 0:
        raise invalid_input("offset", offset, "it must not be negative.")
    limit = DEFAULT_LIMIT if context.arguments["limit"] is None else context.check_limit(context.arguments["limit"])
    return offset, limit
