"""Handlers of the v2 API: meters, samples and resources."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar
from urllib.parse import unquote

import msgspec

from meter.api.errors import ApiError
from meter.api.errors import invalid_input
from meter.api.rendering import v2 as rendering
from meter.api.rendering.sample_pages import SampleFormat
from meter.api.request.complex_query import parse_complex_query
from meter.api.request.complex_query import parse_expression
from meter.api.request.complex_query import parse_limit
from meter.api.request.complex_query import parse_order
from meter.api.request.context import RequestContext
from meter.api.request.paging import after_key_marker
from meter.api.request.paging import key_marker
from meter.api.request.paging import next_link
from meter.api.request.paging import parse_sample_marker
from meter.api.request.paging import sample_marker
from meter.api.request.simple_query import METER_FIELDS
from meter.api.request.simple_query import RESOURCE_FIELDS
from meter.api.request.simple_query import SAMPLE_FIELDS
from meter.api.responses import ListResponse
from meter.api.responses import SampleListResponse
from meter.api.responses import StreamingResponse
from meter.api.streaming.export import MEDIA_TYPES
from meter.api.streaming.export import PAGE_SAMPLES
from meter.api.streaming.export import export
from meter.api.streaming.live import EVENT_STREAM
from meter.api.streaming.live import last_event
from meter.api.streaming.live import live as live_events
from meter.query import And
from meter.query import Field
from meter.query import Order
from meter.query import SampleFilter
from meter.query import StoredMeter
from meter.query import StoredResource
from meter.stored_batch import StoredProof

Entry = TypeVar("Entry")


async def meters(context: RequestContext) -> ListResponse:
    """Handle ``/v2/meters``."""
    unique = bool(context.arguments["unique"])
    order = ("meter", "type", "unit") if unique else ("meter", "resource_id", "type", "unit")
    filter = _after_marker(context, context.simple_query(METER_FIELDS).filter, order)
    rows = await context.store.meters(filter, context.limit + 1, unique)

    def marker(row: StoredMeter) -> str:
        return key_marker(row.name, *(() if unique else (row.resource_id or "",)), row.type, row.unit)

    return _page(context, rows, rendering.meter, marker)


def _after_marker(context: RequestContext, filter: SampleFilter, order: Sequence[Field]) -> SampleFilter:
    """Return ``filter`` restricted to the entries after the argument ``marker``, unchanged without one."""
    marker = context.arguments["marker"]
    if marker is None:
        return filter
    condition = () if filter.expression is None else (filter.expression,)
    return replace(filter, expression=And((*condition, after_key_marker(marker, order))))


def _page(
    context: RequestContext,
    entries: Sequence[Entry],
    render: Callable[[Entry], msgspec.Struct],
    marker: Callable[[Entry], str],
) -> ListResponse:
    """Return a page of ``entries``, of which there is one more than the limit if there is a next page."""
    size = context.limit
    link = {"Link": next_link(context.url, marker(entries[size - 1]))} if len(entries) > size else {}
    return ListResponse(list(entries[:size]), render, link)


# --- samples -------------------------------------------------------------------------------------------------------


async def meter_samples(context: RequestContext) -> SampleListResponse | StreamingResponse:
    """Handle ``/v2/meters/{meter}``."""
    filter = context.simple_query(SAMPLE_FIELDS).filter
    return await _list_samples(context, filter, context.arguments["limit"], rendering.OLD_SAMPLE)


async def samples(context: RequestContext) -> SampleListResponse | StreamingResponse:
    """Handle ``/v2/samples``."""
    filter = context.simple_query(SAMPLE_FIELDS).filter
    return await _list_samples(context, filter, context.arguments["limit"], rendering.SAMPLE)


async def query_samples(context: RequestContext) -> SampleListResponse | StreamingResponse:
    """Handle ``/v2/query/samples``."""
    query = parse_complex_query({} if context.body is msgspec.UNSET else context.body)
    limit = parse_limit(query)
    filter = SampleFilter(expression=parse_expression(query.filter), as_of=context.as_of)
    return await _list_samples(context, filter, limit, rendering.SAMPLE, parse_order(query.orderby))


async def _list_samples(
    context: RequestContext,
    filter: SampleFilter,
    limit: int | None,
    schema: rendering.SampleSchema,
    order: Sequence[Order] = (),
) -> SampleListResponse | StreamingResponse:
    """Return a page of samples with a link to the next one, or an export of all, depending on the media type."""
    marker = context.arguments["marker"]
    after = None if marker is None else parse_sample_marker(marker)
    if order and (after is not None or context.media_type in MEDIA_TYPES):
        raise invalid_input("orderby", "…", "it cannot be combined with a marker or an export, which are newest first.")
    if context.media_type in MEDIA_TYPES:
        if limit is not None and limit <= 0:
            raise ApiError(400, "Limit must be positive")
        # The first page is queried before the response begins, while an error can still have its own status.
        first = await context.store.sample_page(filter, min(limit or PAGE_SAMPLES, PAGE_SAMPLES), (), after)
        encoder = context.encoders.of(schema, MEDIA_TYPES[context.media_type])
        chunks = export(context.store, filter, encoder, limit=limit, page=first, slices=context.slices)
        return StreamingResponse(context.media_type, chunks)
    size = context.check_limit(limit)
    page = await context.store.sample_page(filter, size + 1, order, after)
    has_next = len(page.rows) > size and not order
    link = {"Link": next_link(context.url, sample_marker(page.marker(size - 1)))} if has_next else {}
    del page.rows[size:]
    return SampleListResponse(page, context.encoders.of(schema, SampleFormat.LIST), link)


async def post_samples(context: RequestContext) -> ListResponse:
    """Handle a POST to ``/v2/meters/{meter}``."""
    ingest = context.ingest
    if ingest is None:
        raise ApiError(403, "This server does not accept samples: [api] accept_samples is false.")
    slices = context.slices
    posted = await ingest.parse(context.body, context.path["meter"], context.requester, context.now, slices)
    await ingest.check(posted, context.requester, context.now, context.store, slices)
    if context.arguments["direct"]:
        messages = await ingest.write(posted, slices, context.store.place)
    else:
        messages = await ingest.publish(posted, slices)
    return ListResponse(
        list(zip(messages, context.body, strict=True)),
        lambda pair: rendering.posted_sample(pair[0], pair[1].get("resource_metadata") or {}),
    )


async def live(context: RequestContext) -> StreamingResponse:
    """Handle ``/v2/live``."""
    filter = context.simple_query(SAMPLE_FIELDS).filter
    context.store.check(filter)
    events = live_events(
        context.store, filter, lambda row: rendering.sample(row, context.flatten), context.clock, context.slices
    )
    return StreamingResponse(EVENT_STREAM, events, last_event)


async def proof(context: RequestContext) -> rendering.Proof:
    """Handle ``/v2/samples/{id}/proof``."""
    return rendering.proof(await stored_proof(context, context.path["id"]), context.keys)


async def stored_proof(context: RequestContext, sample_id: str) -> StoredProof:
    """Return the signed message of a sample; :class:`ApiError` 404 if there is no visible one."""
    found = await context.store.proof(sample_id)
    if found is None:
        raise ApiError(404, f"Sample {sample_id} Not Found")
    return found


async def sample(context: RequestContext) -> rendering.Sample:
    """Handle ``/v2/samples/{id}``."""
    row = await context.store.sample(context.path["id"])
    if row is None:
        raise ApiError(404, f"Sample {context.path['id']} Not Found")
    return rendering.sample(row, context.flatten)


# --- resources -----------------------------------------------------------------------------------------------------


async def resources(context: RequestContext) -> ListResponse:
    """Handle ``/v2/resources``."""
    filter = _after_marker(context, context.simple_query(RESOURCE_FIELDS).filter, ("resource_id",))
    rows = await context.store.resources(filter, context.limit + 1)
    meter_links = context.arguments["meter_links"] != 0
    return _page(
        context,
        rows,
        lambda row: rendering.resource(row, context.flatten, context.base_url, meter_links),
        lambda row: key_marker(row.resource_id),
    )


async def resource(context: RequestContext) -> rendering.Resource:
    """Handle ``/v2/resources/{id}``."""
    resource_id = context.path["id"]
    row = await _find_resource(context, resource_id)
    if row is None and "\0" not in (decoded := unquote(resource_id)) and decoded != resource_id:
        # Ceilometer decoded this id twice, so its clients encode it twice.
        row = await _find_resource(context, decoded)
    if row is None:
        raise no_resource(resource_id)
    return rendering.resource(row, context.flatten, context.base_url, meter_links=True)


async def stored_resource(context: RequestContext, resource_id: str) -> StoredResource:
    """Return the resource with exactly this id; :class:`ApiError` 404 if there is no visible one."""
    row = await _find_resource(context, resource_id)
    if row is None:
        raise no_resource(resource_id)
    return row


def no_resource(resource_id: str) -> ApiError:
    """Return the error 404 of a resource that does not exist or is not visible."""
    return ApiError(404, f"Resource {resource_id} Not Found")


async def _find_resource(context: RequestContext, resource_id: str) -> StoredResource | None:
    rows = await context.store.resources(SampleFilter(equals={"resource_id": resource_id}), 1)
    return rows[0] if rows else None
