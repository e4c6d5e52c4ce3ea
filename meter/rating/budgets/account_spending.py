"""What an account used in a period so far, and is expected to use until its end: lines, and quantities by project and SKU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from datetime import datetime
from datetime import timedelta
from decimal import Decimal

from meter.rating.book.price_book import Account
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import PriceDirectory
from meter.rating.book.price_index import price_of
from meter.rating.exact import EXACT
from meter.rating.money.account_projects import DomainOf
from meter.rating.money.forecast import Forecast
from meter.rating.money.rated import Rated
from meter.rating.money.rating import Rating
from meter.rating.period import BillingPeriod
from meter.rating.steps import Steps
from meter.rating.steps import at_once
from meter.rating.usage.usage_atom import UsageAtom

MIN_FORECAST = timedelta(days=1)
"""How much of a period is over before there is a forecast: minutes of usage say nothing about a month."""

Quantities = Mapping[tuple[str, str], Decimal]
"""Quantities by project and SKU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountSpending:
    """The ``used`` and ``expected`` lines and quantities of an account; ``None`` is expected while it is too early.

    ``expected`` is what was used, if the period is over.
    """

    account: Account
    book: PriceBook
    period: BillingPeriod
    used: Rated
    used_quantities: Quantities
    expected: Rated | None
    expected_quantities: Quantities


class SpendingCalculation:
    """Calculates the spending of ``account`` until ``now`` from its usage, which is added in the order that :class:`Rating` needs."""

    def __init__(
        self,
        directory: PriceDirectory,
        book: PriceBook,
        account: Account,
        period: BillingPeriod,
        now: datetime,
        domain_of: DomainOf,
    ) -> None:
        self._account = account
        self._period = period
        self._used, self._expected = (
            _CountingRating(directory, book, account, period, domain_of) for _ in ("used", "expected")
        )
        self._is_over = now >= period.end
        has_forecast = not self._is_over and now >= period.start + MIN_FORECAST
        self._forecast = Forecast(self._expected, now) if has_forecast else None

    def begin(self, sku: str, day: date) -> Steps[None]:
        """End the usage before that of a SKU and day; :meth:`add` does it by itself, but at once."""
        yield from self._used.begin(sku, day)
        if self._forecast is not None:
            yield from self._forecast.begin(sku, day)

    def add(self, atom: UsageAtom) -> None:
        """Add usage; what belongs to another account is ignored."""
        self._used.add(atom)
        if self._forecast is not None:
            self._forecast.add(atom)

    def result(self) -> AccountSpending:
        """End the usage and return the spending."""
        return at_once(self.results())

    def results(self) -> Steps[AccountSpending]:
        """Do what :meth:`result` does, in steps."""
        used = yield from self._used.results()
        expected, quantities = (used, self._used.quantities) if self._is_over else (None, {})
        if self._forecast is not None:
            expected, quantities = (yield from self._forecast.results()), self._expected.quantities
        return AccountSpending(
            account=self._account,
            book=self._used.book,
            period=self._period,
            used=used,
            used_quantities=self._used.quantities,
            expected=expected,
            expected_quantities=quantities,
        )


class _CountingRating(Rating):
    """Rates usage, and adds its quantities up, whether they have a price or not."""

    def __init__(
        self,
        directory: PriceDirectory,
        book: PriceBook,
        account: Account,
        period: BillingPeriod,
        domain_of: DomainOf,
    ) -> None:
        super().__init__(directory, book, account, period, domain_of=domain_of, price_of=price_of)
        self.quantities: dict[tuple[str, str], Decimal] = {}

    def add(self, atom: UsageAtom) -> None:
        """Add usage, see :meth:`Rating.add`."""
        super().add(atom)
        if self._projects.has(atom.project_id, atom.day):
            key = atom.project_id, atom.sku
            self.quantities[key] = EXACT.add(self.quantities.get(key, Decimal(0)), atom.quantity)
