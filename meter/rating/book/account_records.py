"""From ``[[account]]`` and ``[[budget]]`` of a file to their records."""

from __future__ import annotations

from meter.rating.book.price_book import Account
from meter.rating.book.price_book import Membership
from meter.rating.book.price_book import Place
from meter.rating.book.price_book import PriceScope
from meter.rating.book.price_book import SpendingBudget
from meter.rating.book.price_records import KeyProblem
from meter.rating.book.price_records import validity_of
from meter.rating.book.tables import AccountTable
from meter.rating.book.tables import BudgetTable


def account_record(table: AccountTable, book: str, problems: list[KeyProblem]) -> Account:
    """Return the record of ``table``, whose book is ``book``; contradictions in it are added to ``problems``."""

    def members(kind: str) -> tuple[Membership, ...]:
        return tuple(
            Membership(id=each.id, validity=validity_of(each, problems, kind, position))
            for position, each in enumerate(getattr(table, kind))
        )

    return Account(
        id=table.id,
        name=table.name or table.id,
        book=book,
        projects=members("projects"),
        domains=members("domains"),
        billing_address=table.billing_address,
        reference=table.reference,
    )


def budget_record(table: BudgetTable, place: Place, problems: list[KeyProblem]) -> SpendingBudget:
    """Return the record of ``table``; contradictions in it are added to ``problems``."""
    if [table.project, table.account, table.domain].count(None) != 2:
        problems.append(
            ((), "a budget is of a project, an account or a domain: write one of project, account and domain")
        )
    if (table.amount is None) == (table.quantity is None):
        problems.append(
            ((), "a budget has an amount of money or a quantity of a SKU: write one of amount and quantity")
        )
    if table.quantity is not None and table.sku is None:
        problems.append((("quantity",), "a quantity needs the sku whose usage it is"))
    return SpendingBudget(
        id=table.id,
        name=table.name or table.id,
        place=place,
        scope=PriceScope(project=table.project, account=table.account, domain=table.domain),
        sku=table.sku,
        amount=table.amount,
        quantity=table.quantity,
        used_percent=tuple(sorted(set(table.used_percent))),
        forecast_percent=tuple(sorted(set(table.forecast_percent))),
        webhooks=tuple(dict.fromkeys(table.webhooks)),
    )
