"""The pages ``/statement``, one statement with what was checked of it, and ``/statement/days``, its usage by day and resource."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from urllib.parse import quote
from urllib.parse import unquote
from urllib.parse import urlencode

from meter.api.errors import ApiError
from meter.api.errors import HttpError
from meter.api.errors import invalid_input
from meter.api.handlers.prices import NOT_CONFIGURED
from meter.api.handlers.statements import PROJECT
from meter.api.handlers.statements import visible_statement
from meter.api.operation import MARKER
from meter.api.request.arguments import Parameter
from meter.api.request.context import RequestContext
from meter.api.request.paging import offset_of
from meter.api.responses import RawResponse
from meter.api.web.billing.amount_bars import NamedAmount
from meter.api.web.billing.amount_bars import amount_bars
from meter.api.web.billing.statement_checks import is_short
from meter.api.web.billing.statement_checks import statement_checks
from meter.api.web.billing.statement_view import MAX_ROWS
from meter.api.web.billing.statement_view import document_of
from meter.api.web.billing.statement_view import statement_view
from meter.api.web.operation import page
from meter.api.web.page import page_response
from meter.rating.costs.cost_query import CostQuery
from meter.rating.costs.cost_query import CostSum
from meter.rating.costs.cost_query import TooManyGroups
from meter.rating.period import BillingPeriod
from meter.rating.period import timezone_named
from meter.rating.statements.extract import StatementExtract
from meter.rating.statements.period_difference import PeriodDifference
from meter.rating.statements.period_difference import period_differences
from meter.rating.statements.statement import Statement
from meter.rating.statements.statement_id import statement_id
from meter.rating.statements.verification import StatementCheck

ID = Parameter("id", "string", "The statement, such as 2026-11.acme.", narrows=True)
VERIFY = Parameter("verify", "boolean", "Check the signature, also of a long statement.")
BY = Parameter("by", "string", "day (default) or resource.", narrows=True)
SKU = Parameter("sku", "string", "Only usage of this SKU.")


async def statement(context: RequestContext) -> RawResponse:
    """Handle ``/statement``."""
    found = await visible_statement(context, _id(context))
    document = document_of(found)
    offset = offset_of(context.arguments["marker"])
    view = statement_view(document, context.arguments["project_id"], offset)
    checks: Sequence[StatementCheck] | None = None
    verify = context.arguments["verify"]
    if found.whole is not None and document.state == "closed" and (is_short(found.whole) if verify is None else verify):
        checks = await statement_checks(context, found.whole)
    before, differences = await _before(context, document)
    path = f"/v2/statements/{quote(document.statement_id, safe='')}"
    return await page_response(
        context,
        "statement.html",
        f"{'Statement' if document.state == 'closed' else 'Month so far'} {document.period.name}",
        view=view,
        document=document,
        account_id=unquote(document.statement_id.partition(".")[2]),
        signed=found.whole,
        forecast=found.forecast,
        checks=checks,
        download=path,
        before=before,
        differences=differences[:MAX_ROWS],
        corrections=[line for line in document.lines if line.kind == "correction"][:MAX_ROWS],
        project=context.arguments["project_id"],
        next=_link(context, view.next_offset),
        max_rows=MAX_ROWS,
    )


def _link(context: RequestContext, offset: int | None) -> str | None:
    if offset is None:
        return None
    given = {"id": _id(context), "project_id": context.arguments["project_id"], "marker": str(offset)}
    return "/statement?" + urlencode({name: value for name, value in given.items() if value is not None})


def _id(context: RequestContext) -> str:
    asked: str | None = context.arguments["id"]
    if asked is None:
        raise invalid_input("id", None, "name a statement, such as 2026-11.acme.")
    return asked


async def _before(
    context: RequestContext, document: Statement | StatementExtract
) -> tuple[Statement | StatementExtract | None, Sequence[PeriodDifference]]:
    """Return the closed statement of the month before, if it shows as much and in the same currency, and what changed since."""
    try:
        period = BillingPeriod.named(document.period.name, timezone_named(document.period.timezone)).previous
    except ValueError:
        return None, []
    account = unquote(document.statement_id.partition(".")[2])
    found = await context.store.statements.statement(statement_id(period.name, account))
    if found is None:
        return None, []
    before = document_of(found)
    if type(before) is not type(document) or before.currency != document.currency:
        return None, []
    return before, period_differences(before.lines, document.lines)


async def statement_days(context: RequestContext) -> RawResponse:
    """Handle ``/statement/days``."""
    found = await visible_statement(context, _id(context))
    document = document_of(found)
    by = context.arguments["by"] or "day"
    if by not in ("day", "resource"):
        raise invalid_input("by", by, "use day or resource.")
    project = context.arguments["project_id"]
    if isinstance(document, StatementExtract):
        project = project or document.project_id
    if project is None:
        raise invalid_input("project_id", None, "name the project whose usage is shown.")
    if context.prices is None:
        raise HttpError(404, NOT_CONFIGURED)
    account, sku = unquote(document.statement_id.partition(".")[2]), context.arguments["sku"]
    filters = {"account_id": [account], "currency": [document.currency], **({"type": [sku]} if sku else {})}
    query = CostQuery(
        begin=document.period.start,
        end=document.period.end,
        filters=filters,
        groupby=("time-d",) if by == "day" else ("id", "type"),
        project_id=project,
    )
    try:
        sums = await context.store.cost_sums(await context.prices.current(), query, context.slices)
    except TooManyGroups as error:
        raise ApiError(400, str(error)) from error
    offset = offset_of(context.arguments["marker"])
    if by == "resource":
        sums.sort(key=lambda each: (-each.amount, each.group))
    given = {"id": document.statement_id, "project_id": project, "sku": sku, "by": by, "marker": str(offset + MAX_ROWS)}
    more = "/statement/days?" + urlencode({name: value for name, value in given.items() if value})
    return await page_response(
        context,
        "statement-days.html",
        f"Usage of {document.period.name} by {by}",
        document=document,
        project=project,
        sku=sku,
        skus=sorted({line.sku for line in document.lines if line.sku})[:MAX_ROWS],
        by=by,
        bars=amount_bars([_named(each, by, document) for each in sums[offset : offset + MAX_ROWS]]),
        more=more if len(sums) > offset + MAX_ROWS else None,
    )


def _named(each: CostSum, by: str, document: Statement | StatementExtract) -> NamedAmount:
    if by == "day":
        day = each.begin.astimezone(timezone_named(document.period.timezone)).date()
        return NamedAmount(name=f"{day}", amount=_plain(each.amount), currency=document.currency)
    resource, sku = each.group
    return NamedAmount(name=resource or "", amount=_plain(each.amount), currency=document.currency, badge=sku or "")


def _plain(amount: Decimal) -> Decimal:
    """Return an exact amount without zeros at its end, which a day's share of a price has many of."""
    return amount.normalize() if amount else Decimal(0)


PAGES = (
    page("/statement", statement, "One statement.", ID, PROJECT, VERIFY, MARKER),
    page("/statement/days", statement_days, "Usage of a statement by day or resource.", ID, PROJECT, BY, SKU, MARKER),
)
