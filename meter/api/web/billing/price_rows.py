"""Prices as rows of a table: each price with its SKU, and each SKU without a price."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import TypeVar

import msgspec

from meter.api.rendering.prices import ListedCharge
from meter.api.rendering.prices import ListedCredit
from meter.api.rendering.prices import ListedDiscount
from meter.api.rendering.prices import ListedMinimum
from meter.api.rendering.prices import ListedPrice
from meter.api.rendering.prices import ListedSku
from meter.api.rendering.prices import ListedTax
from meter.api.rendering.prices import PriceList
from meter.rating.book.price_book import Account

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceRow:
    """A price of ``sku``; ``None`` if it has none that is valid. ``tiers`` of it are shown below each other."""

    sku: ListedSku
    price: ListedPrice | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PricePage:
    """A book as its page shows it: the rows from an offset on, and the other records."""

    book: PriceList
    rows: Sequence[PriceRow]
    count: int
    unpriced: Sequence[str]
    charges: Sequence[ListedCharge]
    discounts: Sequence[ListedDiscount]
    minimums: Sequence[ListedMinimum]
    credits: Sequence[ListedCredit]
    taxes: Sequence[ListedTax]


def price_page(book: PriceList, account: Account | None, offset: int, limit: int) -> PricePage:
    """Return ``limit`` rows of ``book`` from ``offset`` on; with ``account`` what is for everybody or for it, its projects and domains."""
    rows = [*_rows(book, account)]
    return PricePage(
        book=book,
        rows=rows[offset : offset + limit],
        count=len(rows),
        unpriced=[each.sku.id for each in rows if each.price is None],
        charges=[*_records(book.fixed_charges, ListedCharge, account)],
        discounts=[*_records(book.discounts, ListedDiscount, account)],
        minimums=[*_records(book.minimums, ListedMinimum, account)],
        credits=[*_records(book.credits, ListedCredit, account)],
        taxes=[*_records(book.taxes, ListedTax, None)],
    )


def _rows(book: PriceList, account: Account | None) -> Iterator[PriceRow]:
    for sku in book.skus:
        prices = [*_records(sku.prices, ListedPrice, account)]
        for price in prices:
            yield PriceRow(sku=sku, price=price)
        if not prices:
            yield PriceRow(sku=sku, price=None)


def _records(listed: Iterable[Any], kind: type[T], account: Account | None) -> Iterator[T]:
    for each in listed:
        record = msgspec.json.decode(each, type=kind)
        if account is None or _is_for(record, account):
            yield record


def _is_for(record: Any, account: Account) -> bool:
    if record.project_id is not None:
        return any(each.id == record.project_id for each in account.projects)
    if record.domain_id is not None:
        return any(each.id == record.domain_id for each in account.domains)
    return record.account_id in (None, account.id)
