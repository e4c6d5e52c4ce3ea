"""The amounts of usage: sums by line, from which amounts are computed once."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from datetime import date
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

from meter.rating.book.price_book import Price
from meter.rating.exact import EXACT
from meter.rating.exact import divided_amount
from meter.rating.exact import plain
from meter.rating.money.tiers import ZERO
from meter.rating.period import BillingPeriod

Values = tuple[tuple[str, str], ...]
"""Names and values of a SKU's ``by``, sorted."""


def as_values(values: Mapping[str, str]) -> Values:
    """Return ``values`` as a key."""
    return tuple(sorted(values.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedUnits:
    """Units of one day, price and tier. ``priced`` is what the price is multiplied by.

    ``resource_id`` is "" where no price of the SKU counts resources.
    """

    sku: str
    day: date
    project_id: str
    resource_id: str = ""
    values: Values
    price: Price
    tier: int
    quantity: Decimal
    priced: Decimal


Observe = Callable[[PricedUnits], object]
"""Is called with the priced units of each day; where the total of the period decides the tier, after all usage of the SKU."""


@dataclass(slots=True)
class UsageSum:
    """The usage of a line. ``priced`` is what the price is multiplied by: ``quantity``, or the number of packages.

    ``discounted`` has, for each discount, as much of ``priced`` as was used in its days.
    """

    first: date
    until: date
    quantity: Decimal = ZERO
    priced: Decimal = ZERO
    discounted: dict[str, Decimal] = field(default_factory=dict)

    @classmethod
    def of(cls, day: date) -> UsageSum:
        """Return an empty sum of usage on ``day``."""
        return cls(first=day, until=day + timedelta(days=1))

    def add(self, day: date, quantity: Decimal, priced: Decimal, discounts: tuple[str, ...]) -> None:
        """Add usage on ``day`` for which the discounts with these ids hold."""
        self.first = min(self.first, day)
        self.until = max(self.until, day + timedelta(days=1))
        self.quantity = EXACT.add(self.quantity, quantity)
        self.priced = EXACT.add(self.priced, priced)
        for each in discounts:
            self.discounted[each] = EXACT.add(self.discounted.get(each, ZERO), priced)

    def merge(self, other: UsageSum) -> None:
        """Add what ``other`` is the sum of."""
        self.first = min(self.first, other.first)
        self.until = max(self.until, other.until)
        self.quantity = EXACT.add(self.quantity, other.quantity)
        self.priced = EXACT.add(self.priced, other.priced)
        for name, priced in other.discounted.items():
            self.discounted[name] = EXACT.add(self.discounted.get(name, ZERO), priced)


@dataclass(slots=True)
class UnpricedSum:
    """Usage that no price covers."""

    first: date
    until: date
    quantity: Decimal = ZERO

    def add(self, day: date, quantity: Decimal) -> None:
        """Add usage on ``day``."""
        self.first = min(self.first, day)
        self.until = max(self.until, day + timedelta(days=1))
        self.quantity = EXACT.add(self.quantity, quantity)


def amount_of(unit_price: Decimal, priced: Decimal, price: Price, period: BillingPeriod) -> Decimal:
    """Return the exact amount of ``priced`` units, packages or hours.

    For a price per month the product is divided once by the hours of ``period``, to 12 decimals.
    """
    product = EXACT.multiply(unit_price, priced)
    return plain(divided_amount(months(product, period)) if price.per_month else product)


def months(hours: Decimal, period: BillingPeriod) -> Fraction:
    """Return ``hours`` as a share of the hours of ``period``."""
    return Fraction(hours) * 3600 / period.seconds
