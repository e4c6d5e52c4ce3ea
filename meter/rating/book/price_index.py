"""Which price a unit of usage has: the most specific one that is valid on the day."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from datetime import date
from threading import Lock

from cachetools import LRUCache

from meter.rating.book.price_book import Price
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import PriceScope

MAX_INDEXED_BOOKS = 16

_Scope = tuple[str, str]


def scope_key(scope: PriceScope) -> tuple[str, str]:
    """Return the kind of a scope and its id: ``("project", "p1")``, or ``("", "")`` for everybody."""
    for kind in ("project", "account", "domain"):
        if (value := getattr(scope, kind)) is not None:
            return kind, value
    return "", ""


class PriceIndex:
    """The prices of a book, for finding those that apply to one SKU, scope and set of values without looking at all others."""

    def __init__(self, book: PriceBook) -> None:
        self._prices: dict[tuple[str, _Scope], dict[tuple[str, ...], dict[tuple[str, ...], list[Price]]]] = {}
        for price in book.prices:
            of_scope = self._prices.setdefault((price.sku, scope_key(price.scope)), {})
            keys = tuple(sorted(price.match))
            matched = tuple(price.match[key] for key in keys)
            of_scope.setdefault(keys, {}).setdefault(matched, []).append(price)
        for of_scope in self._prices.values():
            # Those with most keys first. Keys of one number are in a fixed order; a checked book has no two that match.
            ordered = sorted(of_scope.items(), key=lambda each: (-len(each[0]), each[0]))
            of_scope.clear()
            of_scope.update(ordered)

    def price_of(
        self,
        sku: str,
        values: Mapping[str, str],
        *,
        project: str,
        account: str,
        domain: str | None,
        day: date,
    ) -> Price | None:
        """Return the price of a unit of ``sku`` with ``values`` that ``project`` used on ``day``; ``None`` if no price covers it.

        A price for the project precedes one for its account, that one for its domain, and that one for everybody; among those of
        one scope, the one that matches most keys is taken.
        """
        for scope in (("project", project), ("account", account), ("domain", domain or ""), ("", "")):
            for price in self._candidates(sku, scope, values):
                if price.validity.covers(day):
                    return price
        return None

    def _candidates(self, sku: str, scope: _Scope, values: Mapping[str, str]) -> Iterator[Price]:
        for keys, by_values in self._prices.get((sku, scope), {}).items():
            if all(key in values for key in keys):
                yield from by_values.get(tuple(values[key] for key in keys), ())


_indexes: LRUCache[int, tuple[PriceBook, PriceIndex]] = LRUCache(MAX_INDEXED_BOOKS)
_lock = Lock()


def price_index(book: PriceBook) -> PriceIndex:
    """Return the index of ``book``; those of the books that were used last are kept. It may be called in any thread."""
    with _lock:
        found = _indexes.get(id(book))
        if found is None or found[0] is not book:
            # The book itself is kept, too, so that no other object gets its id.
            found = _indexes[id(book)] = (book, PriceIndex(book))
        return found[1]


def price_of(
    book: PriceBook,
    sku: str,
    values: Mapping[str, str],
    *,
    project: str,
    account: str,
    domain: str | None,
    day: date,
) -> Price | None:
    """Return the price of a unit of usage in ``book``, see :meth:`PriceIndex.price_of`."""
    return price_index(book).price_of(sku, values, project=project, account=account, domain=domain, day=day)
