"""Export: all samples of a query as CSV or JSON lines, page by page, in constant memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

from twisted.internet.defer import Deferred

from meter.api.auth.visibility import VisibleStore
from meter.api.rendering.sample_pages import SampleEncoder
from meter.api.rendering.sample_pages import SampleFormat
from meter.daemon.shared_slices import OwnedSlices
from meter.query import SampleFilter
from meter.sample_page import SamplePage

CSV = "text/csv"
JSON_LINES = "application/x-ndjson"
MEDIA_TYPES = {CSV: SampleFormat.CSV, JSON_LINES: SampleFormat.LINES}

PAGE_SAMPLES = 1000
"""Samples per query. While a client reads a page, the export holds no connection to the database."""


async def export(
    store: VisibleStore,
    filter: SampleFilter,
    encoder: SampleEncoder,
    *,
    limit: int | None,
    page: SamplePage,
    slices: OwnedSlices,
) -> AsyncIterator[bytes]:
    """Yield the encoded samples of ``filter``, at most ``limit``, encoded in ``slices``; ``page`` is their first page."""
    if encoder.header:
        yield encoder.header
    sent = 0
    while page.rows:
        sent += len(page.rows)
        size = PAGE_SAMPLES if limit is None else min(PAGE_SAMPLES, limit - sent)
        if len(page.rows) < PAGE_SAMPLES or size <= 0:
            async for chunk in encoder.encoded(page, slices):
                yield chunk
            return
        # The next page is queried while this one is written: the database is at most one page ahead of the client.
        next_page = Deferred.fromCoroutine(store.sample_page(filter, size, (), page.marker(-1)))
        try:
            async for chunk in encoder.encoded(page, slices):
                yield chunk
            page = await next_page
        finally:
            if not next_page.called:
                next_page.cancel()  # the client has disconnected
            next_page.addErrback(lambda _: None)
