"""Credits: amounts that are used up before anything is paid."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Protocol
from urllib.parse import unquote

from meter.rating.book.price_book import Credit
from meter.rating.book.price_book import PriceBook
from meter.rating.currency import rounded
from meter.rating.exact import EXACT
from meter.rating.exact import plain
from meter.rating.money.account_projects import AccountProjects
from meter.rating.money.line_keys import line_key
from meter.rating.money.rated import RatedLine
from meter.rating.money.taxes import tax_category_of
from meter.rating.money.tiers import ZERO
from meter.rating.period import BillingPeriod


class CreditLine(Protocol):
    """What is read of a line of a statement that may be one of a credit."""

    @property
    def kind(self) -> str:
        """The kind of the line."""

    @property
    def key(self) -> str:
        """The key of the line."""

    @property
    def amount(self) -> Decimal:
        """The amount of the line."""


def credits_used(lines: Iterable[CreditLine]) -> dict[str, Decimal]:
    """Return how much of each credit, by id, the lines of closed statements have used."""
    used: dict[str, Decimal] = {}
    for line in lines:
        if line.kind == "credit":
            credit_id = unquote(line.key.split("/")[1])
            used[credit_id] = EXACT.subtract(used.get(credit_id, ZERO), line.amount)
    return used


def credits_of_projects(book: PriceBook) -> dict[str, str]:
    """Return the project of each credit, by id, that is one of a project."""
    return {each.id: each.scope.project for each in book.credits if each.scope.project is not None}


def credit_lines(
    book: PriceBook,
    period: BillingPeriod,
    projects: AccountProjects,
    lines: Sequence[RatedLine],
    used: Mapping[str, Decimal],
) -> Iterator[RatedLine]:
    """Yield the lines of credits that are valid on the first day of ``period``; ``used``: how much earlier statements used, by credit.

    ``lines`` are all others without taxes. A credit never makes an account's net, a project's, or that of a tax category negative; so it
    has a line for each tax category that it pays. Credits of projects are used before those of the account, and those that end
    first before others.
    """
    net = _Net(book, period, lines)
    valid = [each for each in book.credits if each.validity.covers(period.first)]
    for credit in sorted(valid, key=_order):
        if not projects.account_in_scope(credit.scope, period.first):
            continue
        left = rounded(EXACT.subtract(credit.amount, used.get(credit.id, ZERO)), book.currency)
        for category in net.categories:
            amount = min(left, net.payable(category, credit.scope.project))
            if amount <= 0:
                continue
            left = EXACT.subtract(left, amount)
            net.pay(category, credit.scope.project, amount)
            yield _line(credit, category, amount, period, book)


class _Net:
    """What is to be paid, by tax category and project."""

    def __init__(self, book: PriceBook, period: BillingPeriod, lines: Sequence[RatedLine]) -> None:
        self._amounts: dict[tuple[str, str], Decimal] = {}
        for line in lines:
            self._add(tax_category_of(line, book, period) or "", line.project_id, line.amount)
        self.categories = sorted({category for category, _ in self._amounts})

    def payable(self, category: str, project_id: str | None) -> Decimal:
        """Return how much a credit, of a project or of the account, can pay of a tax category."""
        limits = [self._sum(None, None), self._sum(category, None)]
        if project_id is not None:
            limits += [self._sum(None, project_id), self._sum(category, project_id)]
        return min(limits)

    def pay(self, category: str, project_id: str | None, amount: Decimal) -> None:
        """Take off what a credit pays."""
        self._add(category, project_id or "", EXACT.minus(amount))

    def _add(self, category: str, project_id: str, amount: Decimal) -> None:
        key = (category, project_id)
        self._amounts[key] = EXACT.add(self._amounts.get(key, ZERO), amount)

    def _sum(self, category: str | None, project_id: str | None) -> Decimal:
        total = ZERO
        for (of_category, of_project), amount in self._amounts.items():
            if category in (None, of_category) and project_id in (None, of_project):
                total = EXACT.add(total, amount)
        return total


def _order(credit: Credit) -> tuple[bool, date, date, str]:
    validity = credit.validity
    return (credit.scope.project is None, validity.until or date.max, validity.since or date.min, credit.id)


def _line(credit: Credit, category: str, amount: Decimal, period: BillingPeriod, book: PriceBook) -> RatedLine:
    reduction = EXACT.minus(amount)
    return RatedLine(
        kind="credit",
        key=line_key("credit", credit.id, *([category] if category else [])),
        project_id=credit.scope.project or "",
        description=credit.description or f"Credit {credit.id}",
        first=period.first,
        until=period.until,
        exact_amount=plain(reduction),
        amount=rounded(reduction, book.currency),
        list_amount=ZERO,
        price_id=credit.id,
        tax_category=category or None,
    )
