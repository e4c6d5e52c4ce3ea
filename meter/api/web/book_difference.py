"""The page ``/prices/difference``: what a month would have cost by a new price book, which is pasted and not kept."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from meter.api.errors import ApiError
from meter.api.errors import HttpError
from meter.api.handlers.prices import NOT_CONFIGURED
from meter.api.request.arguments import Parameter
from meter.api.request.context import RequestContext
from meter.api.responses import RawResponse
from meter.api.web.billing.statement_view import MAX_ROWS
from meter.api.web.operation import form
from meter.api.web.operation import page
from meter.api.web.page import page_response
from meter.rating.statements.book_comparison import totals

MAX_BOOK_CHARACTERS = 128 * 1024
"""Length of a book that is pasted; ``meter-rate diff`` compares longer ones."""

PERIOD = Parameter("period", "string", "The month, such as 2026-11.")
NEW_BOOK = Parameter("text", "string", "The new prices in TOML: all that a price directory would have.")


async def difference_form(context: RequestContext) -> RawResponse:
    """Handle ``/prices/difference``: the form."""
    _check(context)
    return await _shown(context)


async def book_difference(context: RequestContext) -> RawResponse:
    """Handle the form: compare, and show amounts before and after."""
    _check(context)
    assert context.prices is not None
    text, name = context.arguments["text"] or "", context.arguments["period"] or _present(context)
    if not text.strip():
        raise ApiError(400, "Paste the text of the new price book.")
    if len(text) > MAX_BOOK_CHARACTERS:
        raise ApiError(400, f"The new book has more than {MAX_BOOK_CHARACTERS} characters: use meter-rate diff.")
    directory = await context.prices.current()
    checked = await context.prices.check_text(text)
    if checked.directory is None:
        return await _shown(context, text=text, period=name, problems=checked.problems)
    try:
        now = context.utc_now
        found = await context.store.book_differences(directory, checked.directory, name, now)
    except ValueError as error:
        raise ApiError(400, str(error)) from error
    largest = sorted(found, key=lambda each: -abs(each.difference or Decimal(0)))
    sums = [(currency, old, new, new - old) for currency, (old, new) in sorted(totals(found).items())]
    return await _shown(context, text=text, period=name, rows=largest[:MAX_ROWS], count=len(found), sums=sums)


def _check(context: RequestContext) -> None:
    if not context.requester.is_admin:
        raise HttpError(403, "RBAC Authorization Failed: only administrators compare price books.")
    if context.prices is None:
        raise HttpError(404, NOT_CONFIGURED)


def _present(context: RequestContext) -> str:
    return f"{context.utc_now:%Y-%m}"


async def _shown(context: RequestContext, **found: Any) -> RawResponse:
    empty = {"text": "", "period": _present(context), "problems": (), "rows": None, "count": 0, "sums": ()}
    return await page_response(context, "book-difference.html", "Difference of a new book", **{**empty, **found})


PAGES = (
    page("/prices/difference", difference_form, "The form that compares a new price book."),
    form("/prices/difference", book_difference, "Compare a new price book.", PERIOD, NEW_BOOK),
)
