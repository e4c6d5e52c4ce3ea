"""The page ``/statements``: this month so far, budgets, and what was billed before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from urllib.parse import urlencode

from meter.api.auth.visible_statements import VisibleStatement
from meter.api.errors import ApiError
from meter.api.handlers.statements import ACCOUNT
from meter.api.handlers.statements import open_statement
from meter.api.operation import MARKER
from meter.api.rendering.statements import StatementEntry
from meter.api.rendering.statements import entry
from meter.api.request.context import RequestContext
from meter.api.request.paging import offset_of
from meter.api.responses import RawResponse
from meter.api.web.billing.amount_bars import NamedAmount
from meter.api.web.billing.amount_bars import amount_bars
from meter.api.web.billing.budget_bars import BudgetBar
from meter.api.web.billing.budget_bars import budget_bar
from meter.api.web.billing.statement_view import MAX_ROWS
from meter.api.web.billing.statement_view import document_of
from meter.api.web.operation import page
from meter.api.web.page import page_response
from meter.interfaces import Unavailable

MAX_BUDGETS = 20
MAX_READ_BUDGETS = 1000
"""Budgets among which those of an account are looked for."""

MAX_MONTHS = 12
"""Months with a bar."""

MAX_ACCOUNTS = 500
"""Accounts that an administrator is offered; others are typed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PresentMonth:
    """The open statement of an account, ``None`` if there is nothing of it; ``problem`` says why it cannot be computed."""

    visible: VisibleStatement | None = None
    problem: str = ""


async def statements(context: RequestContext) -> RawResponse:
    """Handle ``/statements``."""
    account, offset = context.arguments["account_id"], offset_of(context.arguments["marker"])
    visible = context.store.statements
    only = None if context.requester.is_admin else visible.visible_project(None)
    found = await visible.summaries(account, None, None, offset + MAX_ROWS + 1)
    entries = [entry(each, only) for each in found[offset : offset + MAX_ROWS]]
    month = await _open_month(context, account, only) if offset == 0 else None
    opened = None if month is None or month.visible is None else month.visible
    return await page_response(
        context,
        "statements.html",
        "Statements",
        configured=context.prices is not None,
        account=account,
        accounts=await _accounts(context),
        month=month,
        opened=None if opened is None else document_of(opened),
        forecast=None if opened is None else opened.forecast,
        bars=amount_bars(_months(entries, opened)) if account is not None or only is not None else [],
        budgets=await _budgets(context, only, account) if offset == 0 else [],
        entries=entries,
        more=f"/statements?{_query(account, offset + MAX_ROWS)}" if len(found) > offset + MAX_ROWS else None,
        newest=f"/statements?{_query(account)}" if offset else None,
    )


def _query(account: str | None, offset: int = 0) -> str:
    given = {"account_id": account, "marker": str(offset) if offset else None}
    return urlencode({name: value for name, value in given.items() if value is not None})


async def _open_month(context: RequestContext, account: str | None, project: str | None) -> PresentMonth | None:
    """Return the present month of an account or of the requester's project; ``None`` if an administrator has chosen no account."""
    if context.prices is None or (account is None and project is None):
        return None
    try:
        return PresentMonth(visible=await open_statement(context, account, project, None))
    except Unavailable as error:
        return PresentMonth(problem=str(error))
    except ApiError as error:
        if error.status != 400:
            raise
        return PresentMonth(problem=error.text)


async def _accounts(context: RequestContext) -> Sequence[tuple[str, str]]:
    """Return ids and names of the accounts of the price directory, to administrators."""
    if not context.requester.is_admin or context.prices is None:
        return []
    try:
        directory = await context.prices.current()
    except Unavailable:
        return []
    return [(each.id, each.name) for each in directory.accounts.values()][:MAX_ACCOUNTS]


async def _budgets(context: RequestContext, project: str | None, account: str | None) -> Sequence[BudgetBar]:
    """Return the first budgets: all that the requester may see, or those of an account that was chosen and of its projects."""
    if context.prices is None:
        return []
    if account is None or project is not None:
        states = await context.store.budgets.states(project, None, None, MAX_BUDGETS)
    else:
        try:
            directory = await context.prices.current()
        except Unavailable:
            return []
        # A project without an account is one of its own, with the same id.
        known = directory.accounts.get(account)
        projects = {account} if known is None else {each.id for each in known.projects}
        states = [
            each
            for each in await context.store.budgets.states(None, None, None, MAX_READ_BUDGETS)
            if each.scope.account_id == account or each.scope.project_id in projects
        ]
    return [budget_bar(each) for each in states[:MAX_BUDGETS]]


def _months(entries: Sequence[StatementEntry], opened: VisibleStatement | None) -> list[NamedAmount]:
    """Return the amounts of the last months, the newest first; those of accounts that are shared have no total to be shown."""
    amounts = []
    if opened is not None and opened.whole is not None:
        statement = opened.whole.statement
        amounts.append(
            NamedAmount(name=statement.period.name, amount=statement.total, currency=statement.currency, badge="so far")
        )
        if opened.forecast is not None:
            amounts.insert(
                0,
                NamedAmount(
                    name=statement.period.name, amount=opened.forecast, currency=statement.currency, badge="forecast"
                ),
            )
    for each in entries:
        if each.total is not None and len(amounts) < MAX_MONTHS:
            link = f"/statement?{urlencode({'id': each.statement_id})}"
            amounts.append(NamedAmount(name=each.period, amount=Decimal(each.total), currency=each.currency, link=link))
    return amounts


PAGES = (page("/statements", statements, "This month so far, and statements.", ACCOUNT, MARKER),)
