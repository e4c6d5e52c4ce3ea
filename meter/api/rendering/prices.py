"""JSON schemas of ``/v2/prices``, and the conversion of records of the price book. Decimals are strings, as in statements."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import msgspec

from meter.rating.book.price_book import Credit
from meter.rating.book.price_book import Discount
from meter.rating.book.price_book import FixedCharge
from meter.rating.book.price_book import Minimum
from meter.rating.book.price_book import Price
from meter.rating.book.price_book import Sku
from meter.rating.book.price_book import Tax


class _Dated(msgspec.Struct, kw_only=True):
    since: date | None = msgspec.field(name="from")
    until: date | None


class _ForWhom(_Dated, kw_only=True):
    project_id: str | None
    account_id: str | None
    domain_id: str | None


class ListedTier(msgspec.Struct, kw_only=True):
    """The prices of a unit above the tier before, up to and including ``up_to``, which is null in the last tier."""

    up_to: Decimal | None
    list_price: Decimal
    price: Decimal


class ListedPrice(_ForWhom, kw_only=True):
    """A price, valid from the day ``from`` until before ``until``, of usage whose values are those of ``match``.

    Without ``project_id``, ``account_id`` and ``domain_id`` it is for everybody. docs/prices.rst explains the other fields.
    """

    id: str
    match: dict[str, str]
    mode: str
    tiers: list[ListedTier]
    package_size: Decimal | None
    per: str
    free: Decimal
    free_prorated: bool
    per_month: bool


class ListedSku(msgspec.Struct, kw_only=True):
    """What is billed, with its prices. ``by`` has the names of the values that prices match on."""

    id: str
    name: str
    service: str
    category: str
    usage: str
    unit: str
    by: list[str]
    prices: list[ListedPrice]


class ListedCharge(_ForWhom, kw_only=True):
    """A charge without usage: each month if ``recurring``, else once on the day ``from``."""

    id: str
    description: str
    list_amount: Decimal
    amount: Decimal
    recurring: bool
    prorated: bool
    resource_id: str | None


class ListedDiscount(_ForWhom, kw_only=True):
    """A reduction of the usage of ``skus``, of all SKUs if the list is empty, by ``percent``."""

    id: str
    description: str
    percent: Decimal
    skus: list[str]


class ListedMinimum(_ForWhom, kw_only=True):
    """The least that an account, or each project (``per``), pays in a period."""

    id: str
    description: str
    amount: Decimal
    per: str


class ListedCredit(_ForWhom, kw_only=True):
    """An amount that is used up before anything is paid."""

    id: str
    description: str
    amount: Decimal


class ListedTax(_Dated, kw_only=True):
    """A tax, in percent of the net amounts of its category."""

    category: str
    name: str
    percent: Decimal
    default: bool


class PriceList(msgspec.Struct, kw_only=True):
    """A price book, as far as the requester may see it. Days are those of ``timezone``, amounts are in ``currency``."""

    book: str
    currency: str
    timezone: str
    issuer: str
    region: str
    skus: list[ListedSku]
    fixed_charges: list[ListedCharge]
    discounts: list[ListedDiscount]
    minimums: list[ListedMinimum]
    credits: list[ListedCredit]
    taxes: list[ListedTax]


def sku(found: Sku, prices: list[ListedPrice]) -> ListedSku:
    """Return a SKU as JSON."""
    return ListedSku(
        id=found.id,
        name=found.name,
        service=found.service,
        category=found.category,
        usage=found.usage,
        unit=found.unit,
        by=list(found.by),
        prices=prices,
    )


def price(found: Price) -> ListedPrice:
    """Return a price as JSON."""
    return ListedPrice(
        id=found.id,
        match=dict(found.match),
        mode=found.mode,
        tiers=[ListedTier(up_to=each.up_to, list_price=each.list_price, price=each.price) for each in found.tiers],
        package_size=found.package_size,
        per=found.per,
        free=found.free,
        free_prorated=found.free_prorated,
        per_month=found.per_month,
        **_for_whom(found),
    )


def charge(found: FixedCharge) -> ListedCharge:
    """Return a fixed charge as JSON."""
    return ListedCharge(
        id=found.id,
        description=found.description,
        list_amount=found.list_amount,
        amount=found.amount,
        recurring=found.recurring,
        prorated=found.prorated,
        resource_id=found.resource_id,
        **_for_whom(found),
    )


def discount(found: Discount) -> ListedDiscount:
    """Return a discount as JSON."""
    return ListedDiscount(
        id=found.id,
        description=found.description,
        percent=found.percent,
        skus=list(found.skus),
        **_for_whom(found),
    )


def minimum(found: Minimum) -> ListedMinimum:
    """Return a minimum as JSON."""
    return ListedMinimum(
        id=found.id, description=found.description, amount=found.amount, per=found.per, **_for_whom(found)
    )


def credit(found: Credit) -> ListedCredit:
    """Return a credit as JSON."""
    return ListedCredit(id=found.id, description=found.description, amount=found.amount, **_for_whom(found))


def tax(found: Tax) -> ListedTax:
    """Return a tax as JSON."""
    return ListedTax(
        category=found.category, name=found.name, percent=found.percent, default=found.default, **_days(found)
    )


def _days(found: Any) -> dict[str, Any]:
    return {"since": found.validity.since, "until": found.validity.until}


def _for_whom(found: Any) -> dict[str, Any]:
    scope = found.scope
    return {**_days(found), "project_id": scope.project, "account_id": scope.account, "domain_id": scope.domain}
