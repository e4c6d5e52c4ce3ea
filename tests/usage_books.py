"""Price books of tests: SKUs of every kind of usage, without files."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

from meter.rating.book.price_book import Place
from meter.rating.book.price_book import Price
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import Sku
from meter.rating.book.price_book import Tier
from meter.rating.period import BillingPeriod

HOURS = Fraction(1, 3600)


def sku(id: str, usage: Any, meter: str | None = None, **fields: Any) -> Sku:
    """Return a SKU whose quantity is in what is measured, or in hours of it if ``hours`` is said."""
    factor = fields.pop("factor", HOURS if usage in ("exists", "integral") else Fraction(1))
    return Sku(
        id=id,
        name=id,
        service="Compute",
        category="Compute",
        usage=usage,
        unit="Hours",
        factor=factor,
        meter=meter,
        **fields,
    )


def book(*skus: Sku, timezone: str = "UTC", per_resource: tuple[str, ...] = ()) -> PriceBook:
    """Return a book with ``skus``; those of ``per_resource`` have a price that counts per resource."""
    prices = tuple(
        Price(
            id=f"{id}-price",
            sku=id,
            place=Place(file="x.toml", line=1),
            tiers=(Tier(up_to=None, list_price=Decimal(1), price=Decimal(1)),),
            per="resource",
        )
        for id in per_resource
    )
    return PriceBook(
        name="test",
        currency="EUR",
        timezone=ZoneInfo(timezone),
        grace_days=5,
        issuer="Cloud",
        text="",
        sha256="",
        default=True,
        skus={each.id: each for each in skus},
        prices=prices,
    )


def october(of: PriceBook) -> BillingPeriod:
    """Return October 2026 in the time zone of a book."""
    return BillingPeriod.named("2026-10", of.timezone)


EVERY_KIND = book(
    sku("a-vm", "exists", resource_kind="instance", states=("active",), by=("flavor",)),
    sku("b-vm-hours", "exists", resource_kind="instance", by=("state",), started="hour"),
    sku("c-volume", "exists", resource_kind="volume", times_size=True, by=("size",)),
    sku("d-memory", "integral", "memory", by=("zone",)),
    sku("e-cpu", "increase", "cpu", factor=Fraction(1, 10**9), by=("flavor.name",)),
    sku("f-requests", "sum", "requests"),
    sku("g-peak", "maximum", "rate"),
    sku("h-p95", "percentile95", "cpu", factor=Fraction(8, 10**6)),
    sku("i-p95-gauge", "percentile95", "rate"),
    sku("j-rounded", "increase", "cpu", factor=Fraction(1, 7 * 10**9), round_up_to=Decimal("0.25")),
    sku("k-minimum", "integral", "memory", minimum=Decimal("100000.5")),
    per_resource=("e-cpu",),
)


def in_zone(of: PriceBook, timezone: str) -> PriceBook:
    """Return the same book in another time zone."""
    return replace(of, timezone=ZoneInfo(timezone))
