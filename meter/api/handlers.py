"""The answers: one function per operation, from a question that is understood to the record that is sent."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar
from urllib.parse import unquote

import msgspec

from meter.api.errors import Fault
from meter.api.errors import invalid_input
from meter.api.rendering import service as rendering_service
from meter.api.rendering import v2 as rendering
from meter.api.request.complex_query import expression_of
from meter.api.request.complex_query import limit_of
from meter.api.request.complex_query import order_of
from meter.api.request.complex_query import read_complex_query
from meter.api.request.context import RequestContext
from meter.api.request.paging import beyond
from meter.api.request.paging import marker_after
from meter.api.request.paging import next_link
from meter.api.request.paging import place_after
from meter.api.request.paging import read_marker
from meter.api.request.simple_query import METER_FIELDS
from meter.api.request.simple_query import RESOURCE_FIELDS
from meter.api.request.simple_query import SAMPLE_FIELDS
from meter.api.request.statistics import FUNCTIONS
from meter.api.responses import JsonResponse
from meter.api.responses import StreamingResponse
from meter.api.streaming.export import MEDIA_TYPES
from meter.api.streaming.export import PAGE_SAMPLES
from meter.api.streaming.export import export
from meter.api.streaming.live import EVENT_STREAM
from meter.api.streaming.live import live as live_events
from meter.query import And
from meter.query import Field
from meter.query import Order
from meter.query import SampleFilter
from meter.query import StoredMeter
from meter.query import StoredResource

Row = TypeVar("Row")


async def versions(question: RequestContext) -> rendering_service.Versions:
    """Answer ``/``."""
    return rendering_service.versions(question.base_url)


async def meters(question: RequestContext) -> JsonResponse:
    """Answer ``/v2/meters``."""
    unique = bool(question.arguments["unique"])
    order = ("meter", "type", "unit") if unique else ("meter", "resource_id", "type", "unit")
    filter = _beyond(question, question.simple_query(METER_FIELDS).filter, order)
    rows = await question.store.meters(filter, question.limit + 1, unique)

    def place(row: StoredMeter) -> str:
        return place_after(row.name, *(() if unique else (row.resource_id or "",)), row.type, row.unit)

    return _page(question, rows, rendering.meter, place)


def _beyond(question: RequestContext, filter: SampleFilter, order: Sequence[Field]) -> SampleFilter:
    """Return ``filter`` for what comes after the marker that was given, if one was."""
    marker = question.arguments["marker"]
    if marker is None:
        return filter
    asked = () if filter.expression is None else (filter.expression,)
    return replace(filter, expression=And((*asked, beyond(marker, order))))


def _page(
    question: RequestContext, rows: Sequence[Row], render: Callable[[Row], msgspec.Struct], place: Callable[[Row], str]
) -> JsonResponse:
    """Answer with as many of ``rows``, one more than may be, as may be, and with the way to the others."""
    size = question.limit
    link = {"Link": next_link(question.url, place(rows[size - 1]))} if len(rows) > size else {}
    return JsonResponse([render(row) for row in rows[:size]], link)


# --- samples -------------------------------------------------------------------------------------------------------


async def meter_samples(question: RequestContext) -> JsonResponse | StreamingResponse:
    """Answer ``/v2/meters/{meter}``."""
    return await _listed(question, question.meter_query().filter, question.arguments["limit"], rendering.OLD_SAMPLE)


async def samples(question: RequestContext) -> JsonResponse | StreamingResponse:
    """Answer ``/v2/samples``."""
    asked = question.simple_query(SAMPLE_FIELDS)
    return await _listed(question, asked.filter, question.arguments["limit"], rendering.SAMPLE)


async def queried_samples(question: RequestContext) -> JsonResponse | StreamingResponse:
    """Answer ``/v2/query/samples``."""
    asked = read_complex_query({} if question.body is msgspec.UNSET else question.body)
    limit = limit_of(asked)
    filter = question.with_as_of(SampleFilter(expression=expression_of(asked.filter)))
    return await _listed(question, filter, limit, rendering.SAMPLE, order_of(asked.orderby))


async def _listed(
    question: RequestContext,
    filter: SampleFilter,
    limit: int | None,
    shape: rendering.SampleShape,
    order: Sequence[Order] = (),
) -> JsonResponse | StreamingResponse:
    """Answer with samples: a page and the way to the next one, or all of them as they come."""
    marker = question.arguments["marker"]
    after = None if marker is None else read_marker(marker)
    if order and (after is not None or question.media_type in MEDIA_TYPES):
        raise invalid_input("orderby", "…", "pages and exports come newest first.")
    if question.media_type in MEDIA_TYPES:
        if limit is not None and limit <= 0:
            raise Fault(400, "Limit must be positive")
        # The first page is asked for here, while a fault still has a status of its own.
        first = await question.store.samples(filter, min(limit or PAGE_SAMPLES, PAGE_SAMPLES), (), after)
        chunks = export(question.store, filter, question.media_type, shape, question.flat, limit=limit, rows=first)
        return StreamingResponse(question.media_type, chunks)
    size = question.limit_of(limit)
    rows = await question.store.samples(filter, size + 1, order, after)
    more = len(rows) > size and not order
    link = {"Link": next_link(question.url, marker_after(rows[size - 1]))} if more else {}
    return JsonResponse(shape.rendered(rows[:size], question.flat), link)


async def post_samples(question: RequestContext) -> Sequence[rendering.OldSample]:
    """Answer a POST to ``/v2/meters/{meter}``."""
    acceptance = question.acceptance
    if acceptance is None:
        raise Fault(403, "Samples are not accepted here: [api] accept_samples is off.")
    posted = acceptance.samples(question.body, question.path["meter"], question.requester, question.now)
    messages = await (acceptance.write(posted) if question.arguments["direct"] else acceptance.publish(posted))
    return [
        rendering.posted_sample(message, sent.get("resource_metadata") or {})
        for message, sent in zip(messages, question.body, strict=True)
    ]


async def live(question: RequestContext) -> StreamingResponse:
    """Answer ``/v2/live``."""
    asked = question.simple_query(SAMPLE_FIELDS)
    question.store.check(asked.filter)
    events = live_events(question.store, asked.filter, lambda row: rendering.sample(row, question.flat), question.clock)
    return StreamingResponse(EVENT_STREAM, events)


async def proof(question: RequestContext) -> rendering.Proof:
    """Answer ``/v2/samples/{id}/proof``."""
    sample_id = question.path["id"]
    row = await question.store.sample(sample_id)
    message = None if row is None else await question.store.message(sample_id)
    if row is None or message is None:
        raise Fault(404, f"Sample {sample_id} Not Found")
    return rendering.Proof(message=dict(message), key_id=row.key_id)


async def one_sample(question: RequestContext) -> rendering.Sample:
    """Answer ``/v2/samples/{id}``."""
    row = await question.store.sample(question.path["id"])
    if row is None:
        raise Fault(404, f"Sample {question.path['id']} Not Found")
    return rendering.sample(row, question.flat)


# --- resources, and what there is ----------------------------------------------------------------------------------


async def resources(question: RequestContext) -> JsonResponse:
    """Answer ``/v2/resources``."""
    filter = _beyond(question, question.simple_query(RESOURCE_FIELDS).filter, ("resource_id",))
    rows = await question.store.resources(filter, question.limit + 1)
    meter_links = question.arguments["meter_links"] != 0
    return _page(
        question,
        rows,
        lambda row: rendering.resource(row, question.flat, question.base_url, meter_links),
        lambda row: place_after(row.resource_id),
    )


async def one_resource(question: RequestContext) -> rendering.Resource:
    """Answer ``/v2/resources/{id}``."""
    resource_id = question.path["id"]
    row = await _resource(question, resource_id)
    if row is None and "\0" not in (decoded := unquote(resource_id)) and decoded != resource_id:
        # Ceilometer decoded this id twice, so its clients encode it twice.
        row = await _resource(question, decoded)
    if row is None:
        raise Fault(404, f"Resource {resource_id} Not Found")
    return rendering.resource(row, question.flat, question.base_url, meter_links=True)


async def _resource(question: RequestContext, resource_id: str) -> StoredResource | None:
    rows = await question.store.resources(SampleFilter(equals={"resource_id": resource_id}), 1)
    return rows[0] if rows else None


async def capabilities(question: RequestContext) -> rendering_service.Capabilities:
    """Answer ``/v2/capabilities``."""
    able = [f"{kind}:query:{way}" for kind in ("meters", "resources", "samples") for way in ("simple", "metadata")]
    able += ["samples:query:complex", "statistics:groupby", "statistics:query:simple", "statistics:query:metadata"]
    able += ["statistics:aggregation:standard"]
    able += [f"statistics:aggregation:selectable:{function}" for function in FUNCTIONS]
    return rendering_service.Capabilities(
        api=dict.fromkeys(able, True),
        storage={"storage:production_ready": True},
    )
