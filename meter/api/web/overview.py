"""The page ``/``: what is metered."""

from __future__ import annotations

from meter.api.request.context import RequestContext
from meter.api.responses import RawResponse
from meter.api.web.operation import page
from meter.api.web.page import page_response
from meter.query import SampleFilter

MAX_METERS = 200


async def overview(context: RequestContext) -> RawResponse:
    """Handle ``/`` for browsers."""
    meters = await context.store.meters(SampleFilter(), MAX_METERS, True)
    return await page_response(context, "overview.html", "Overview", meters=meters)


PAGES = (page("/", overview, "What is metered now."),)
