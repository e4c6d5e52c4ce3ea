"""The page ``/prices``: list prices and those agreed with the requester; administrators see all, what is wrong with the files, and unpriced usage."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

from meter.api.errors import invalid_input
from meter.api.handlers.prices import day_argument
from meter.api.handlers.prices import price_lists
from meter.api.operation import MARKER
from meter.api.request.arguments import Parameter
from meter.api.request.context import RequestContext
from meter.api.request.paging import offset_of
from meter.api.responses import RawResponse
from meter.api.web.billing.price_rows import price_page
from meter.api.web.billing.statement_view import MAX_ROWS
from meter.api.web.billing.unpriced_rows import unpriced_groups
from meter.api.web.billing.unpriced_rows import unpriced_rows
from meter.api.web.operation import page
from meter.api.web.page import page_response
from meter.interfaces import Unavailable
from meter.rating.book.book_problem import BookProblem
from meter.rating.book.price_book import Account
from meter.rating.book.price_book import PriceDirectory

DAY = Parameter("day", "string", "Only what is valid on this day of the book's time zone. Default: today and later.")
BOOK = Parameter("book", "string", "The book, if the requester sees several.")
FOR_ACCOUNT = Parameter("account_id", "string", "Only what this account pays, for administrators.")


async def prices(context: RequestContext) -> RawResponse:
    """Handle ``/prices``."""
    day = day_argument(context)
    admin = context.requester.is_admin
    problems: Sequence[BookProblem] = ()
    directory, text = None, ""
    if context.prices is not None:
        try:
            directory = await context.prices.current()
        except Unavailable as error:
            text = str(error) if admin else "The prices cannot be read at present."
        problems = context.prices.problems if admin else ()
    if directory is None:
        return await page_response(
            context, "prices.html", "Prices", directory=None, shown=None, problem=text, problems=problems[:MAX_ROWS]
        )
    account = _account(context, directory)
    lists = await price_lists(context, day)
    wanted = context.arguments["book"] or (account.book if account is not None else directory.default_book)
    chosen = next((each for each in lists if each.book == wanted), None)
    if chosen is None and context.arguments["book"]:
        raise invalid_input("book", wanted, "there is no such book.")
    chosen = chosen or (lists[0] if lists else None)
    offset = offset_of(context.arguments["marker"])
    shown = None if chosen is None else price_page(chosen, account, offset, MAX_ROWS)
    given = {
        "day": context.arguments["day"],
        "account_id": None if account is None else account.id,
        "book": None if chosen is None else chosen.book,
        "marker": str(offset + MAX_ROWS),
    }
    unpriced = await unpriced_groups(context)
    more = "/prices?" + urlencode({name: value for name, value in given.items() if value is not None})
    return await page_response(
        context,
        "prices.html",
        "Prices",
        directory=directory if admin else None,
        source=directory.books.get(chosen.book) if admin and chosen is not None else None,
        shown=shown,
        books=[each.book for each in lists],
        account=account,
        day=day,
        problem=text,
        problems=problems[:MAX_ROWS],
        more=more if shown is not None and shown.count > offset + MAX_ROWS else None,
        max_rows=MAX_ROWS,
        unpriced=unpriced,
        unpriced_rows=unpriced_rows((unpriced.value or ())[:MAX_ROWS], context.utc_now),
    )


def _account(context: RequestContext, directory: PriceDirectory) -> Account | None:
    id = context.arguments["account_id"]
    if id is None or not context.requester.is_admin:
        return None
    account = directory.accounts.get(id)
    if account is None:
        raise invalid_input("account_id", id, "the price directory has no such account.")
    return account


PAGES = (page("/prices", prices, "Prices.", DAY, FOR_ACCOUNT, BOOK, MARKER),)
