"""The usage of one SKU, day by day: prices, tiers and positions, to sums by line."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from datetime import timedelta
from decimal import Decimal
from typing import Protocol
from typing import TypeVar

from meter.rating.book.price_book import PERIOD_KINDS
from meter.rating.book.price_book import Discount
from meter.rating.book.price_book import Per
from meter.rating.book.price_book import Price
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import Sku
from meter.rating.currency import rounded
from meter.rating.exact import EXACT
from meter.rating.exact import divided_amount
from meter.rating.exact import plain
from meter.rating.money.account_projects import AccountProjects
from meter.rating.money.descriptions import pricing_unit
from meter.rating.money.descriptions import usage_description
from meter.rating.money.line_keys import line_key
from meter.rating.money.line_keys import values_part
from meter.rating.money.priced_usage import Observe
from meter.rating.money.priced_usage import PricedUnits
from meter.rating.money.priced_usage import UnpricedSum
from meter.rating.money.priced_usage import UsageSum
from meter.rating.money.priced_usage import Values
from meter.rating.money.priced_usage import amount_of
from meter.rating.money.priced_usage import as_values
from meter.rating.money.priced_usage import months
from meter.rating.money.rated import RatedLine
from meter.rating.money.tiers import FREE_TIER
from meter.rating.money.tiers import ZERO
from meter.rating.money.tiers import TierPrices
from meter.rating.money.tiers import free_units
from meter.rating.period import BillingPeriod
from meter.rating.steps import Steps
from meter.rating.steps import at_once
from meter.rating.usage.measured_skus import counts_resources
from meter.rating.usage.usage_atom import UsageAtom


class PriceOf(Protocol):
    """Finds the price of usage."""

    def __call__(
        self,
        book: PriceBook,
        sku: str,
        values: Mapping[str, str],
        *,
        project: str,
        account: str,
        domain: str | None,
        day: date,
    ) -> Price | None:
        """Return the most specific price of the SKU with these values, or ``None`` if no price covers it."""


Match = frozenset[tuple[str, str]]
Position = tuple[Match, Per, str]
"""What the usage before a unit is counted of: what the price matches, and an account, project or resource by its id."""

_Key = TypeVar("_Key")


class SkuUsage:
    """The usage of one SKU, day by day."""

    def __init__(
        self,
        book: PriceBook,
        sku: Sku,
        period: BillingPeriod,
        projects: AccountProjects,
        price_of: PriceOf,
        unpriced: dict[tuple[str, str, Values], UnpricedSum],
        observe: Observe | None = None,
    ) -> None:
        self.sku = sku
        self._book = book
        self._period = period
        self._projects = projects
        self._price_of = price_of
        self._unpriced = unpriced
        self._observe = observe
        self._by_resource = counts_resources(book, sku.id)
        prices = [each for each in book.prices if each.sku == sku.id]
        self._tiers = {each.id: TierPrices(each, free_units(each, prices, period)) for each in prices}
        self._counted = _counted_by_match(prices)
        self._discounts = [each for each in book.discounts if not each.skus or sku.id in each.skus]
        self._positions: dict[Position, Decimal] = {}
        self._sums: dict[tuple[str, Values, str, int], UsageSum] = {}
        self._volume: dict[tuple[str, Values, str, Position], UsageSum] = {}
        self._observed_later: list[tuple[Position, PricedUnits]] = []
        """Units whose tier the total of the period decides."""
        self._day: date | None = None
        self._of_day: dict[tuple[str, str, Values], Decimal] = {}

    def begin(self, day: date) -> Steps[None]:
        """End the days before ``day``; :meth:`add` does it by itself, but at once."""
        if self._day == day:
            return
        if self._day is not None and day < self._day:
            raise ValueError(f"usage of {day} comes after that of {self._day}: sort it by SKU and day")
        yield from self.end()
        self._day = day

    def add(self, atom: UsageAtom) -> None:
        """Add usage of the SKU by a project of the account, in the order of days."""
        if self._day != atom.day:
            at_once(self.begin(atom.day))
        key = (atom.project_id, atom.resource_id if self._by_resource else "", as_values(atom.values))
        self._of_day[key] = EXACT.add(self._of_day.get(key, ZERO), atom.quantity)

    def finished(self) -> Iterator[tuple[RatedLine, dict[str, Decimal]]]:
        """Yield the lines of the days that are ended, each with the exact amounts to which discounts apply."""
        if self._observe is not None:
            for position, units in self._observed_later:
                tier = self._tiers[units.price.id].tier_of_total(self._positions[position])
                self._observe(replace(units, tier=tier))
        for (project_id, values, price_id, position), usage in self._volume.items():
            tier = self._tiers[price_id].tier_of_total(self._positions[position])
            _sum_of(self._sums, (project_id, values, price_id, tier), usage.first).merge(usage)
        for (project_id, values, price_id, tier), usage in self._sums.items():
            if usage.quantity or usage.priced:
                yield self._line(project_id, values, self._tiers[price_id], tier, usage)

    def end(self) -> Steps[None]:
        """End the present day."""
        usage, self._of_day = self._of_day, {}
        if self._day is None:
            return
        for (project_id, resource_id, values), quantity in sorted(usage.items()):
            if quantity:
                self._price(project_id, resource_id, values, self._day, quantity)
                yield

    def _price(self, project_id: str, resource_id: str, values: Values, day: date, quantity: Decimal) -> None:
        domain_id = self._projects.domain_of(project_id, day)
        price = self._price_of(
            self._book,
            self.sku.id,
            dict(values),
            project=project_id,
            account=self._projects.account.id,
            domain=domain_id,
            day=day,
        )
        if price is None:
            key = (project_id, self.sku.id, values)
            self._unpriced.setdefault(key, UnpricedSum(day, day + timedelta(days=1))).add(day, quantity)
            return
        discounts = tuple(each.id for each in self._discounts if self._applies(each, project_id, day))
        tiers = self._tiers[price.id]
        match = frozenset(price.match.items())
        counted_ids = {"account": self._projects.account.id, "project": project_id, "resource": resource_id}
        position: Position = (match, price.per, counted_ids[price.per])
        before = self._positions.get(position, ZERO)
        for units in tiers.units(before, quantity):
            is_volume = price.mode == "volume" and units.number != FREE_TIER
            packages = price.mode == "package" and units.number != FREE_TIER
            priced = tiers.packages(before, quantity) if packages else units.quantity
            if self._observe is not None:
                observed = PricedUnits(
                    sku=self.sku.id,
                    day=day,
                    project_id=project_id,
                    resource_id=resource_id,
                    values=values,
                    price=price,
                    tier=units.number,
                    quantity=units.quantity,
                    priced=priced,
                )
                if is_volume:
                    self._observed_later.append((position, observed))
                else:
                    self._observe(observed)
            if is_volume:
                of_volume = _sum_of(self._volume, (project_id, values, price.id, position), day)
                of_volume.add(day, units.quantity, units.quantity, discounts)
                continue
            _sum_of(self._sums, (project_id, values, price.id, units.number), day).add(
                day, units.quantity, priced, discounts
            )
        for per in self._counted[match]:
            counted: Position = (match, per, counted_ids[per])
            self._positions[counted] = EXACT.add(self._positions.get(counted, ZERO), quantity)

    def _applies(self, discount: Discount, project_id: str, day: date) -> bool:
        return discount.validity.covers(day) and self._projects.usage_in_scope(discount.scope, project_id, day)

    def _line(
        self, project_id: str, values: Values, tiers: TierPrices, tier: int, usage: UsageSum
    ) -> tuple[RatedLine, dict[str, Decimal]]:
        sku, price, currency = self.sku, tiers.price, self._book.currency
        unit_price, list_price = tiers.unit_price(tier), tiers.list_price(tier)
        amount = amount_of(unit_price, usage.priced, price, self._period)
        pricing_quantity = plain(
            divided_amount(months(usage.priced, self._period)) if price.per_month else usage.priced
        )
        of_period = sku.usage in PERIOD_KINDS
        line = RatedLine(
            kind="usage",
            key=line_key("usage", project_id, sku.id, price.id, str(tier), values_part(dict(values))),
            project_id=project_id,
            description=usage_description(
                sku, price, tier, dict(values), usage.quantity, pricing_quantity, unit_price, currency
            ),
            first=self._period.first if of_period else usage.first,
            until=self._period.until if of_period else usage.until,
            exact_amount=amount,
            amount=rounded(amount, currency),
            list_amount=amount_of(list_price, usage.priced, price, self._period),
            sku=sku.id,
            price_id=price.id,
            tier=tier,
            values=dict(values),
            quantity=plain(usage.quantity),
            unit=sku.unit,
            list_unit_price=list_price,
            unit_price=unit_price,
            pricing_quantity=pricing_quantity,
            pricing_unit=pricing_unit(sku, price),
            service=sku.service,
            category=sku.category,
            tax_category=sku.tax_category,
        )
        discounted = {
            each: amount_of(unit_price, priced, price, self._period) for each, priced in usage.discounted.items()
        }
        return line, discounted


def _sum_of(sums: dict[_Key, UsageSum], key: _Key, day: date) -> UsageSum:
    found = sums.get(key)
    if found is None:
        found = sums[key] = UsageSum.of(day)
    return found


def _counted_by_match(prices: list[Price]) -> dict[Match, tuple[Per, ...]]:
    """Return, for each match of ``prices``, per what its usage is counted: a price goes on where another with the same match ended."""
    counted: dict[Match, set[Per]] = {}
    for each in prices:
        counted.setdefault(frozenset(each.match.items()), set()).add(each.per)
    return {match: tuple(sorted(pers)) for match, pers in counted.items()}
