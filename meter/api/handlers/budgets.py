"""Handler of ``/v2/budgets``: what was used and is forecast, as it was evaluated last."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from meter.api.errors import HttpError
from meter.api.errors import invalid_input
from meter.api.handlers.prices import NOT_CONFIGURED
from meter.api.rendering import budgets as rendering
from meter.api.request.arguments import Parameter
from meter.api.request.context import RequestContext
from meter.api.request.paging import offset_of
from meter.api.request.paging import offset_page_link
from meter.api.responses import ListResponse
from meter.rating.period import BillingPeriod

PARAMETERS = (
    Parameter("project_id", "string", "Only budgets of this project.", narrows=True),
    Parameter("budget_id", "string", "Only this budget.", narrows=True),
    Parameter("period", "string", "The period, such as 2026-11. Default: the newest of each budget.", narrows=True),
)


async def budgets(context: RequestContext) -> ListResponse:
    """Handle ``/v2/budgets``."""
    arguments = context.arguments
    limit, offset = context.limit, offset_of(arguments["marker"])
    visible, period = context.store.budgets, arguments["period"]
    visible.check(arguments["project_id"])
    if period is not None:
        try:
            BillingPeriod.named(period, UTC_ZONE)
        except ValueError as error:
            raise invalid_input("period", period, "use year and month, such as 2026-11.") from error
    if context.prices is None:
        raise HttpError(404, NOT_CONFIGURED)
    found = await visible.states(arguments["project_id"], arguments["budget_id"], period, offset + limit + 1)
    return ListResponse(
        list(found[offset : offset + limit]),
        rendering.budget,
        offset_page_link(context.url, offset, limit, len(found)),
    )


UTC_ZONE = ZoneInfo("UTC")
