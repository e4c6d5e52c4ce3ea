"""The sum of what counts for a budget, account by account, and the budget's state that it makes."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import date
from datetime import datetime
from datetime import timedelta
from decimal import Decimal

from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import PriceScope
from meter.rating.book.price_book import SpendingBudget
from meter.rating.book.price_index import scope_key
from meter.rating.budgets.account_spending import AccountSpending
from meter.rating.budgets.account_spending import Quantities
from meter.rating.budgets.budget_state import Basis
from meter.rating.budgets.budget_state import BudgetGap
from meter.rating.budgets.budget_state import BudgetScope
from meter.rating.budgets.budget_state import BudgetState
from meter.rating.budgets.budget_state import BudgetThreshold
from meter.rating.currency import rounded
from meter.rating.exact import EXACT
from meter.rating.exact import plain
from meter.rating.exact import total_of
from meter.rating.money.account_projects import DomainOf
from meter.rating.money.rated import Rated
from meter.rating.money.rated import RatedLine
from meter.rating.period import BillingPeriod
from meter.rating.period import day_of

COUNTED = ("usage", "fixed", "discount")
"""The kinds of lines that count. A minimum, a credit and a tax say what is paid, a correction is of another period."""

IsCounted = Callable[[str, str | None], bool]
"""Whether the usage of a project and SKU counts."""

ReachedTimes = Mapping[tuple[str, Basis, Decimal], datetime]
"""When thresholds were reached in a period, by budget, basis and percent."""


class BudgetSum:
    """Adds up what counts for ``budget`` in ``period``. ``book`` says its currency, or the unit of its SKU."""

    def __init__(self, budget: SpendingBudget, book: PriceBook, period: BillingPeriod) -> None:
        sku = book.skus.get(budget.sku) if budget.sku is not None else None
        self.budget = budget
        self.period = period
        self._is_amount = budget.amount is not None
        self._currency = book.currency if self._is_amount else None
        self._unit = "" if self._is_amount or sku is None else sku.unit
        self._used = Decimal(0)
        self._expected: Decimal | None = Decimal(0)
        self._unmetered: dict[str, int] = {}
        self._unpriced: dict[tuple[str, str], Decimal] = {}
        self._elsewhere: set[str] = set()
        self._no_sku = budget.sku is not None and sku is None
        self.meter = None if sku is None else sku.meter
        """The meter of the SKU, if it has one; samples of it can be missing."""
        self.missing_samples = 0
        self.error: Exception | None = None
        """The first error of what the budget counts: then there is no new state of it."""

    def counts_account(self, account_id: str) -> bool:
        """Return whether the budget counts an account as a whole."""
        return scope_key(self.budget.scope) in account_scopes(account_id)

    def counts(self, account_id: str, project_id: str, domain_id: str | None) -> bool:
        """Return whether the budget counts the usage of a project that ``account_id`` pays."""
        return scope_key(self.budget.scope) in project_scopes(account_id, project_id, domain_id)

    def add(self, spending: AccountSpending, domain_of: DomainOf, now: datetime) -> None:
        """Add what counts of an account. The projects of a domain are those that belong to it at ``now``, or at the period's end."""
        today = last_day(spending.period, now)

        def is_counted(project_id: str, sku: str | None) -> bool:
            if self.budget.sku not in (None, sku):
                return False
            if not project_id:  # a line of the account as a whole
                return self.counts_account(spending.account.id)
            return self.counts(spending.account.id, project_id, domain_of(project_id, today))

        if not self._is_comparable(spending):
            if any(is_counted(*key) and value for key, value in spending.used_quantities.items()):
                self._elsewhere.add(spending.book.currency if self._is_amount else _unit(spending, self.budget.sku))
            return
        self._used = EXACT.add(self._used, self._sum(spending.used, spending.used_quantities, is_counted))
        if spending.expected is None or self._expected is None:
            self._expected = None
        else:
            expected = self._sum(spending.expected, spending.expected_quantities, is_counted)
            self._expected = EXACT.add(self._expected, expected)
        for time in spending.used.unmetered:
            if time.seconds and is_counted(time.project_id, time.sku):
                self._unmetered[time.sku] = self._unmetered.get(time.sku, 0) + time.seconds
        for usage in spending.used.unpriced:
            if self._is_amount and usage.quantity and is_counted(usage.project_id, usage.sku):
                key = usage.sku, usage.unit
                self._unpriced[key] = EXACT.add(self._unpriced.get(key, Decimal(0)), usage.quantity)

    def _is_comparable(self, spending: AccountSpending) -> bool:
        if self._is_amount:
            return spending.book.currency == self._currency
        return self.budget.sku not in spending.book.skus or _unit(spending, self.budget.sku) == self._unit

    def _sum(self, rated: Rated, quantities: Quantities, is_counted: IsCounted) -> Decimal:
        if not self._is_amount:
            return total_of(value for key, value in quantities.items() if is_counted(*key))
        lines: Sequence[RatedLine] = rated.lines
        return total_of(line.amount for line in lines if line.kind in COUNTED and is_counted(line.project_id, line.sku))

    def state(self, now: datetime, reached: ReachedTimes) -> BudgetState:
        """Return the state at ``now``."""
        budget = self.budget
        limit = budget.amount if budget.amount is not None else budget.quantity
        thresholds: list[tuple[Basis, Decimal]] = [("used", each) for each in sorted(set(budget.used_percent))]
        thresholds += [("forecast", each) for each in sorted(set(budget.forecast_percent))]
        return BudgetState(
            budget_id=budget.id,
            name=budget.name,
            scope=BudgetScope(
                project_id=budget.scope.project, account_id=budget.scope.account, domain_id=budget.scope.domain
            ),
            sku=budget.sku,
            period=self.period.name,
            start=self.period.start,
            end=self.period.end,
            currency=self._currency,
            unit=None if self._is_amount else self._unit,
            limit=self._figure(limit or Decimal(0)),
            used=self._figure(self._used),
            forecast=None if self._expected is None else self._figure(self._expected),
            evaluated_at=now,
            thresholds=tuple(
                BudgetThreshold(
                    basis=basis, percent=plain(percent), reached_at=reached.get((budget.id, basis, percent))
                )
                for basis, percent in thresholds
            ),
            gaps=tuple(self._gaps()),
        )

    def _figure(self, value: Decimal) -> Decimal:
        """Return a quantity without zeros at its end, or an amount with the digits of its currency, or more if it has more."""
        if self._currency is None:
            return plain(value)
        in_minor_units = rounded(value, self._currency)
        return in_minor_units if in_minor_units == value else plain(value)

    def _gaps(self) -> Iterable[BudgetGap]:
        for sku, seconds in sorted(self._unmetered.items()):
            text = f"resources existed for {seconds} s, added up, in which their usage of SKU {sku} is not known"
            yield BudgetGap(code="unmetered", text=text, seconds=seconds)
        if missing := self.missing_samples:
            yield BudgetGap(code="missing", text=f"{missing} samples are missing", samples=missing)
        for (sku, unit), quantity in sorted(self._unpriced.items()):
            yield BudgetGap(code="unpriced", text=f"{plain(quantity)} {unit} of SKU {sku} have no price")
        for other in sorted(self._elsewhere):
            if self._is_amount:
                yield BudgetGap(code="other currency", text=f"usage that is billed in {other} is not counted")
            else:
                yield BudgetGap(code="other unit", text=f"usage of this SKU in {other} is not counted")
        if self._no_sku:
            yield BudgetGap(code="no sku", text="the price book has no such SKU")


def account_scopes(account_id: str) -> list[tuple[str, str]]:
    """Return the keys of the scopes of budgets that count an account as a whole."""
    return [scope_key(PriceScope()), ("account", account_id)]


def project_scopes(account_id: str, project_id: str, domain_id: str | None) -> list[tuple[str, str]]:
    """Return the keys of the scopes of budgets that count the usage of a project that ``account_id`` pays."""
    of_domain = [] if domain_id is None else [("domain", domain_id)]
    return [*account_scopes(account_id), ("project", project_id), *of_domain]


def last_day(period: BillingPeriod, now: datetime) -> date:
    """Return the day of ``now``, or the nearest to it in ``period``."""
    return max(period.first, min(day_of(now, period.timezone), period.until - timedelta(days=1)))


def _unit(spending: AccountSpending, sku: str | None) -> str:
    return spending.book.skus[sku].unit if sku is not None and sku in spending.book.skus else ""
