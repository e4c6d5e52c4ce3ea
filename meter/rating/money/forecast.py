"""Forecast of a period by its run rate: the usage of the days that are over, continued to the end."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import date
from datetime import datetime
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

from meter.rating.book.price_book import PERIOD_KINDS
from meter.rating.book.price_book import Account
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import PriceDirectory
from meter.rating.book.price_index import price_of as find_price
from meter.rating.exact import quantity
from meter.rating.money.account_projects import DomainOf
from meter.rating.money.account_projects import no_domain
from meter.rating.money.priced_usage import Values
from meter.rating.money.priced_usage import as_values
from meter.rating.money.rated import Rated
from meter.rating.money.rated import RatedLine
from meter.rating.money.rating import Rating
from meter.rating.money.sku_usage import PriceOf
from meter.rating.period import BillingPeriod
from meter.rating.period import day_of
from meter.rating.period import start_of_day
from meter.rating.steps import Steps
from meter.rating.steps import at_once
from meter.rating.usage.measured_skus import counts_resources
from meter.rating.usage.usage_atom import UsageAtom


class Forecast:
    """Adds to a :class:`Rating` the usage of the days that are over, and the expected usage of the others.

    The rate of a project, SKU and values is its usage in the days that are over, divided by their seconds; on the first
    day, in the time until ``now``. Each day that is left gets the rate times its seconds, the day of ``now`` at least what it has
    already. So tiers, changes of prices and discounts apply as they will, and fixed charges count in full. Quantities of a
    period (maximum, percentile) stay as they are. Usage is added in the order of SKU and day.
    """

    def __init__(self, rating: Rating, now: datetime) -> None:
        period = rating.period
        self._rating = rating
        now = min(max(now, period.start), period.end)
        self._today = day_of(now, period.timezone) if now < period.end else period.until
        over = start_of_day(self._today, period.timezone)
        self._first_day = over == period.start
        self._elapsed = _seconds(period.start, now if self._first_day else over)
        self._left = [
            (day, _seconds(start_of_day(day, period.timezone), start_of_day(_after(day), period.timezone)))
            for day in period.days()
            if day >= self._today
        ]
        self._sku = ""
        self._over: dict[_Key, Fraction] = {}
        self._of_today: dict[_Key, Fraction] = {}
        self._unmetered: dict[_Key, int] = {}

    def begin(self, sku: str, day: date) -> Steps[None]:
        """End the usage before that of a SKU and day; :meth:`add` does it by itself, but at once.

        :raises ValueError: as :meth:`Rating.add`.
        """
        if sku != self._sku:
            yield from self._finish_sku()
            self._sku = sku
        if day < self._today:
            yield from self._rating.begin(sku, day)

    def add(self, atom: UsageAtom) -> None:
        """Add usage, in the order of SKU and day.

        :raises ValueError: as :meth:`Rating.add`.
        """
        if atom.sku != self._sku:
            at_once(self._finish_sku())
            self._sku = atom.sku
        sku, period = self._rating.book.skus.get(atom.sku), self._rating.period
        if sku is None or sku.usage in PERIOD_KINDS or not period.first <= atom.day < period.until:
            self._rating.add(atom)  # which refuses what does not fit
            return
        resource_id = atom.resource_id if counts_resources(self._rating.book, atom.sku) else ""
        key = (atom.project_id, resource_id, as_values(atom.values))
        usage = self._over if atom.day < self._today else self._of_today
        usage[key] = usage.get(key, Fraction(0)) + Fraction(atom.quantity)
        if atom.day < self._today:
            self._rating.add(atom)
        else:
            self._unmetered[key] = self._unmetered.get(key, 0) + atom.unmetered_seconds

    def result(
        self, *, corrections: Sequence[RatedLine] = (), credits_used: Mapping[str, Decimal] | None = None
    ) -> Rated:
        """Return what the period is expected to cost; the parameters are those of :meth:`Rating.result`."""
        return at_once(self.results(corrections=corrections, credits_used=credits_used))

    def results(
        self, *, corrections: Sequence[RatedLine] = (), credits_used: Mapping[str, Decimal] | None = None
    ) -> Steps[Rated]:
        """Do what :meth:`result` does, in steps."""
        yield from self._finish_sku()
        return (yield from self._rating.results(corrections=corrections, credits_used=credits_used))

    def _finish_sku(self) -> Steps[None]:
        basis = self._of_today if self._first_day else self._over
        rates = {key: used / self._elapsed for key, used in basis.items()} if self._elapsed else {}
        expected: dict[_Key, Fraction] = {}
        for day, seconds in self._left:
            keys = sorted({*rates, *(self._of_today if day == self._today else ())})
            if keys:
                yield from self._rating.begin(self._sku, day)
            for key in keys:
                before = expected.get(key, Fraction(0))
                expected[key] = before + rates.get(key, Fraction(0)) * seconds
                # Rounded as a running sum, so that the days add up to the quantity of the month.
                units = quantity(expected[key]) - quantity(before)
                unmetered = 0
                if day == self._today:
                    units = max(units, quantity(self._of_today.get(key, Fraction(0))))
                    unmetered = self._unmetered.get(key, 0)
                project_id, resource_id, values = key
                self._rating.add(
                    UsageAtom(
                        sku=self._sku,
                        project_id=project_id,
                        resource_id=resource_id,
                        day=day,
                        values=dict(values),
                        quantity=units,
                        unmetered_seconds=unmetered,
                    )
                )
                yield
        self._over, self._of_today, self._unmetered = {}, {}, {}


_Key = tuple[str, str, Values]


def _seconds(start: datetime, end: datetime) -> Fraction:
    return Fraction((end - start) // timedelta(microseconds=1), 1_000_000)


def _after(day: date) -> date:
    return day + timedelta(days=1)


def forecast(
    directory: PriceDirectory,
    book: PriceBook,
    account: Account,
    period: BillingPeriod,
    usage: Iterable[UsageAtom],
    now: datetime,
    *,
    domain_of: DomainOf = no_domain,
    corrections: Sequence[RatedLine] = (),
    credits_used: Mapping[str, Decimal] | None = None,
    price_of: PriceOf = find_price,
) -> Rated:
    """Return what an account and period are expected to cost: what :class:`Forecast` makes of ``usage`` until ``now``."""
    expected = Forecast(Rating(directory, book, account, period, domain_of=domain_of, price_of=price_of), now)
    for atom in usage:
        expected.add(atom)
    return expected.result(corrections=corrections, credits_used=credits_used)
