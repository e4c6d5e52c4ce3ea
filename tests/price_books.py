"""Price books and usage for tests of rating."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

from meter.rating.book.price_book import Account
from meter.rating.book.price_book import Membership
from meter.rating.book.price_book import Place
from meter.rating.book.price_book import Price
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import PriceDirectory
from meter.rating.book.price_book import Sku
from meter.rating.book.price_book import Tier
from meter.rating.book.price_book import Validity
from meter.rating.period import BillingPeriod
from meter.rating.usage.usage_atom import UsageAtom

PLACE = Place(file="prices.toml", line=1)
PARIS = ZoneInfo("Europe/Paris")
NOVEMBER = BillingPeriod.named("2026-11", PARIS)


def sku(id: str = "egress", unit: str = "GB", **fields: Any) -> Sku:
    values: dict[str, Any] = {
        "name": id.capitalize(),
        "service": "Networking",
        "category": "Networking",
        "usage": "sum",
    }
    return Sku(id=id, unit=unit, factor=Fraction(1), **{**values, **fields})


def tiers(*each: tuple[str | None, str]) -> tuple[Tier, ...]:
    """Tiers of (up to, price); the list price is twice the price."""
    return tuple(
        Tier(up_to=None if up_to is None else Decimal(up_to), list_price=Decimal(price) * 2, price=Decimal(price))
        for up_to, price in each
    )


def price(id: str = "p1", amount: str = "0.1", sku: str = "egress", **fields: Any) -> Price:
    return Price(**{"id": id, "sku": sku, "place": PLACE, "tiers": tiers((None, amount)), **fields})


def valid(since: date | None = None, until: date | None = None) -> Validity:
    return Validity(since=since, until=until)


def november(day: int) -> date:
    return date(2026, 11, day)


def book(*prices: Price, skus: Iterable[Sku] | None = None, **fields: Any) -> PriceBook:
    known = list(skus) if skus is not None else [sku(id) for id in sorted({each.sku for each in prices} or {"egress"})]
    values: dict[str, Any] = {
        "name": "list",
        "currency": "EUR",
        "timezone": PARIS,
        "grace_days": 5,
        "issuer": "Example Cloud",
        "text": "{}",
        "sha256": "0" * 64,
        "default": True,
        "skus": {each.id: each for each in known},
        "prices": prices,
    }
    return PriceBook(**{**values, **fields})


def account(id: str = "acme", projects: Iterable[str] = ("shop", "web"), **fields: Any) -> Account:
    members = tuple(Membership(id=each) for each in projects)
    return Account(**{"id": id, "name": id.capitalize(), "book": "list", "projects": members, **fields})


def directory(book: PriceBook, *accounts: Account) -> PriceDirectory:
    return PriceDirectory(books={book.name: book}, accounts={each.id: each for each in accounts})


def used(
    day: date | int,
    quantity: str | int | Decimal,
    project: str = "shop",
    resource: str = "r1",
    sku: str = "egress",
    unmetered: int = 0,
    **values: str,
) -> UsageAtom:
    return UsageAtom(
        sku=sku,
        project_id=project,
        resource_id=resource,
        day=november(day) if isinstance(day, int) else day,
        values=values,
        quantity=Decimal(quantity),
        unmetered_seconds=unmetered,
    )
