"""The price of usage, found by looking at all."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from meter.rating.book.price_book import Price
from meter.rating.book.price_book import PriceBook


def price_of(
    book: PriceBook, sku: str, values: Mapping[str, str], *, project: str, account: str, domain: str | None, day: date
) -> Price | None:
    found = []
    for p in book.prices:
        s = p.scope
        if p.sku != sku or not p.validity.covers(day):
            continue
        if any(values.get(k) != v for k, v in p.match.items()):
            continue
        if s.project is not None:
            if s.project != project:
                continue
            rank = 3
        elif s.account is not None:
            if s.account != account:
                continue
            rank = 2
        elif s.domain is not None:
            if s.domain != domain:
                continue
            rank = 1
        else:
            rank = 0
        found.append((rank, len(p.match), p.id, p))
    return max(found)[3] if found else None
