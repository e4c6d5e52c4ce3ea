"""The handler of ``/v2/unpriced-usage``: what was used without a price, over all accounts."""

from __future__ import annotations

from meter.api.errors import HttpError
from meter.api.handlers.prices import NOT_CONFIGURED
from meter.api.rendering import unpriced_usage as rendering
from meter.api.request.context import RequestContext
from meter.api.responses import ListResponse


async def unpriced_usage(context: RequestContext) -> ListResponse:
    """Handle ``/v2/unpriced-usage``."""
    if not context.requester.is_admin:
        raise HttpError(403, "RBAC Authorization Failed: only administrators see unpriced usage.")
    if context.prices is None:
        raise HttpError(404, NOT_CONFIGURED)
    directory = await context.prices.current()
    found = await context.store.unpriced_usage(directory, context.utc_now, context.slices)
    return ListResponse(list(found), rendering.unpriced_entry)
