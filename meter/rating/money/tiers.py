"""Tiers: which units of the usage cost how much.

A unit's position is the usage of the account, project or resource (``Price.per``) in the period until then, of the SKU with what the
price matches. Tiers are half-open: a tier has the units above the one before, up to and including its ``up_to``. Positions are quantities
of usage, so free units count: with 10 free units and a first tier up to 100, the first tier has 90.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from meter.rating.book.price_book import Price
from meter.rating.exact import EXACT
from meter.rating.exact import quantity
from meter.rating.period import BillingPeriod

ZERO = Decimal(0)

FREE_TIER = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TierUnits:
    """Units of one tier: ``number`` 0 is that of free units, 1 the first of the price."""

    number: int
    quantity: Decimal


@dataclass(frozen=True, slots=True)
class TierPrices:
    """The tiers of ``price``, of which the units until the position ``free`` cost nothing."""

    price: Price
    free: Decimal

    def unit_price(self, tier: int) -> Decimal:
        """Return what a unit, or a package, of the tier with a number costs."""
        return ZERO if tier == FREE_TIER else self.price.tiers[tier - 1].price

    def list_price(self, tier: int) -> Decimal:
        """Return what the price list says that a unit, or a package, of the tier with a number costs."""
        return ZERO if tier == FREE_TIER else self.price.tiers[tier - 1].list_price

    def units(self, position: Decimal, used: Decimal) -> Iterator[TierUnits]:
        """Yield to which tiers the units from ``position`` to ``position`` + ``used`` belong.

        A negative ``used`` takes units back: the units of each tier are negative.
        """
        low, high = position, EXACT.add(position, used)
        if used < 0:
            low, high = high, low
        for number, above, up_to in self._bounds():
            least = low if above is None else max(low, above)
            most = high if up_to is None else min(high, up_to)
            if least < most:
                part = EXACT.subtract(most, least)
                yield TierUnits(number=number, quantity=part if used > 0 else EXACT.minus(part))

    def tier_of_total(self, total: Decimal) -> int:
        """Return the tier by which all units that are not free cost, with ``total`` units in the period: mode *volume*."""
        return next(
            number for number, tier in enumerate(self.price.tiers, 1) if tier.up_to is None or total <= tier.up_to
        )

    def packages(self, position: Decimal, used: Decimal) -> Decimal:
        """Return how many packages the units from ``position`` to ``position`` + ``used`` begin, apart from free ones."""
        return EXACT.subtract(self._packages_until(EXACT.add(position, used)), self._packages_until(position))

    def _packages_until(self, position: Decimal) -> Decimal:
        size = self.price.package_size
        if size is None:
            raise ValueError(f"price {self.price.id!r} has packages without a size")
        begun = max(ZERO, EXACT.subtract(position, self.free))
        whole = EXACT.divide_int(begun, size)
        return whole if EXACT.multiply(whole, size) == begun else EXACT.add(whole, Decimal(1))

    def _bounds(self) -> Iterator[tuple[int, Decimal | None, Decimal | None]]:
        """Yield the number of each tier with the positions where it begins and ends."""
        above: Decimal | None = None
        if self.free > 0:
            yield FREE_TIER, None, self.free
            above = self.free
        if self.price.mode != "graduated":
            yield 1, above, None
            return
        for number, tier in enumerate(self.price.tiers, 1):
            yield number, above, tier.up_to
            if tier.up_to is not None:
                above = tier.up_to if above is None else max(above, tier.up_to)


def free_units(price: Price, prices: Sequence[Price], period: BillingPeriod) -> Decimal:
    """Return the position until which units of ``price`` are free in ``period``.

    Prorated free units are in proportion to the days in which the price is valid. If a price replaces another of the same
    scope and match, what is free by both adds up, so that it is that of a whole month if nothing but the price changed.
    """
    if not price.free_prorated:
        return price.free
    days = sum(1 for _ in period.days())
    free = Fraction(0)
    for each in prices:
        same = (each.sku, each.match, each.scope) == (price.sku, price.match, price.scope)
        valid = [day for day in period.days() if each.validity.covers(day)]
        if same and each.free_prorated and valid and _begins(each) <= _begins(price):
            free += Fraction(each.free) * len(valid) / days
    return quantity(free)


def _begins(price: Price) -> int:
    return price.validity.since.toordinal() if price.validity.since else 0
