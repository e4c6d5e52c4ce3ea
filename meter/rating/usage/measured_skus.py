"""The SKUs of a price book as they are measured: their definitions, and the days of a period that can be measured."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from datetime import datetime
from datetime import timedelta

from meter.completeness.lives.kinds import KINDS
from meter.completeness.lives.kinds import ResourceKind
from meter.rating.book.price_book import PERIOD_KINDS
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import Sku
from meter.rating.period import BillingPeriod
from meter.rating.period import start_of_day
from meter.rating.usage.sku_definition import fingerprint
from meter.rating.usage.sku_definition import sku_definition


@dataclass(frozen=True, slots=True)
class MeasuredSku:
    """A SKU, its definition and the fingerprint of that. Several SKUs may have the same."""

    sku: Sku
    definition: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class MeasuredDay:
    """A day: from ``start`` until ``finish``, which is its end, or the present."""

    day: date
    start: datetime
    finish: datetime


def measured_skus(book: PriceBook) -> Sequence[MeasuredSku]:
    """Return the SKUs of ``book``, in the order of their ids."""
    found = []
    for sku in sorted(book.skus.values(), key=lambda each: each.id):
        definition = sku_definition(sku, book.timezone)
        found.append(MeasuredSku(sku, definition, fingerprint(definition)))
    return found


def measured_days(period: BillingPeriod, now: datetime) -> Sequence[MeasuredDay]:
    """Return the days of ``period`` that began before ``now``."""
    found = []
    for day in period.days():
        start = start_of_day(day, period.timezone)
        if start < now:
            found.append(MeasuredDay(day, start, min(start_of_day(day + timedelta(days=1), period.timezone), now)))
    return found


def whole_period(period: BillingPeriod, now: datetime) -> MeasuredDay:
    """Return ``period``, as far as it has passed, as the one day of SKUs whose quantity is one of the period."""
    return MeasuredDay(period.first, period.start, min(period.end, now))


def is_measured_whole(sku: Sku) -> bool:
    """Return whether the samples of the whole period are measured at once: of a maximum, those of each day are."""
    return sku.usage in PERIOD_KINDS and sku.usage != "maximum"


def counts_resources(book: PriceBook, sku: str) -> bool:
    """Return whether a price of ``sku`` counts what each resource uses, so that resources must not be summed up."""
    return any(price.sku == sku and price.per == "resource" for price in book.prices)


def life_kinds(skus: Iterable[Sku]) -> Sequence[ResourceKind]:
    """Return the kinds of resources whose lives ``skus`` are measured by; gauges are integrated within all of them."""
    names: set[str] = set()
    for sku in skus:
        if sku.usage == "exists":
            names.add(sku.resource_kind or "")
        elif sku.usage == "integral":
            names.update(KINDS)
    return [KINDS[name] for name in KINDS if name in names]
