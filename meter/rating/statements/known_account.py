"""Whether an account exists: a wrong name must not be billed a minimum."""

from __future__ import annotations

from meter.identity_names import IdentityKey
from meter.identity_names import IIdentityNames
from meter.rating.book.book_problem import suggestion
from meter.rating.book.price_book import PriceDirectory
from meter.rating.period import BillingPeriod
from meter.rating.statements.account_rating import AccountRating
from meter.rating.statements.payers import charged_projects
from meter.rating.statements.statement_store import IStatementStore


async def require_known(
    account_id: str,
    period_name: str,
    directory: PriceDirectory,
    rating: AccountRating,
    names: IIdentityNames,
    statements: IStatementStore,
) -> None:
    """Require that the price files name the account, that it has a statement, or that the store knows the project with its id.

    :raises ValueError: it is unknown, or ``period_name`` is not the name of a period
    """
    if account_id in directory.accounts or await statements.first_period(account_id) is not None:
        return
    key = IdentityKey("project", account_id)
    if (await names.histories([key])).get(key):
        return
    for book in directory.books.values():
        period = BillingPeriod.named(period_name, book.timezone)
        if account_id in charged_projects(book) or account_id in await rating.projects(book, period):
            return
    close = suggestion(account_id, list(directory.accounts))
    raise ValueError(f"unknown account {account_id!r}, and no project has this id{close}")
