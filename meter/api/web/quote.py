"""The page ``/quote``: what resources would cost in a month, by the requester's own prices."""

from __future__ import annotations

from decimal import Decimal

from meter.api.errors import HttpError
from meter.api.errors import invalid_input
from meter.api.handlers.prices import NOT_CONFIGURED
from meter.api.handlers.prices import books_of
from meter.api.request.arguments import Parameter
from meter.api.request.context import RequestContext
from meter.api.responses import RawResponse
from meter.api.web.operation import page
from meter.api.web.page import page_response
from meter.api.web.prices import BOOK
from meter.query import SampleFilter
from meter.rating.book.values import not_negative_decimal
from meter.rating.book.visible_prices import VisibleBook
from meter.rating.money.rated import Rated
from meter.rating.period import BillingPeriod
from meter.rating.quote import ANYBODY
from meter.rating.quote import Wish
from meter.rating.quote import quote

MAX_QUOTED = 100
"""Resources of a quote on the page: each is counted on its own, day by day."""

SKU = Parameter("sku", "string", "The SKU.")
COUNT = Parameter("count", "integer", f"Number of resources, at most {MAX_QUOTED}. Default: 1.")
HOURS = Parameter("hours", "string", "Hours of the month in which they exist. Default: all.")
SIZE = Parameter("size", "string", "Size of each, in the unit of its kind.")
QUANTITY = Parameter("quantity", "string", "What each uses, in the unit of the SKU, of usage that has no duration.")
MONTH = Parameter("month", "string", "The month, such as 2026-11. Default: the present one.")
VALUES = Parameter("value.", "string", "A value on which prices depend, such as value.flavor.", prefix=True)


async def quote_page(context: RequestContext) -> RawResponse:
    """Handle ``/quote``."""
    context.store.check(SampleFilter())
    if context.prices is None:
        raise HttpError(404, NOT_CONFIGURED)
    directory = await context.prices.current()
    books = await books_of(context, directory)
    wanted = context.arguments["book"] or directory.default_book
    visible = next((each for each in books if each.book.name == wanted), books[0] if books else None)
    if visible is None or (context.arguments["book"] and visible.book.name != wanted):
        raise invalid_input("book", wanted, "there is no such book.")
    book, arguments = visible.book, context.arguments
    sku = book.skus.get(arguments["sku"] or "")
    period, rated, problem = None, None, ""
    try:
        period = _period(context, visible)
        if arguments["sku"]:
            rated = _rated(context, visible, period)
    except ValueError as error:
        problem = str(error)
    return await page_response(
        context,
        "quote.html",
        "What would this cost?",
        book=book,
        books=[each.book.name for each in books],
        sku=sku,
        arguments=arguments,
        values=arguments["value."],
        period=period,
        rated=rated,
        problem=problem,
    )


def _period(context: RequestContext, visible: VisibleBook) -> BillingPeriod:
    zone = visible.book.timezone
    if context.arguments["month"]:
        return BillingPeriod.named(context.arguments["month"], zone)
    return BillingPeriod.containing(context.utc_now, zone)


def _rated(context: RequestContext, visible: VisibleBook, period: BillingPeriod) -> Rated:
    """Return the lines; ``ValueError`` says what does not fit."""
    arguments = context.arguments
    count = 1 if arguments["count"] is None else arguments["count"]
    if not 1 <= count <= MAX_QUOTED:
        raise ValueError(f"count must be a whole number from 1 to {MAX_QUOTED}; meter-rate quote has more")
    wish = Wish(
        sku=arguments["sku"],
        values={name: value for name, value in arguments["value."].items() if value},
        count=count,
        **{name: _decimal(arguments[name], name) for name in ("hours", "size", "quantity")},
    )
    return quote(
        visible.book,
        [wish],
        period,
        project=visible.project or ANYBODY,
        account=visible.account,
        domain=visible.domain,
    )


def _decimal(text: str | None, name: str) -> Decimal | None:
    if text is None:
        return None
    try:
        return not_negative_decimal(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


PAGES = (
    page("/quote", quote_page, "What resources would cost.", BOOK, SKU, COUNT, HOURS, SIZE, QUANTITY, MONTH, VALUES),
)
