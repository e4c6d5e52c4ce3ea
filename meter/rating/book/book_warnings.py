"""What is suspicious within a book: usage that gets no price or no tax without being wrong. Warnings, as it may be meant so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import date
from itertools import pairwise

from meter.rating.book.book_problem import suggestion
from meter.rating.book.price_book import Price
from meter.rating.book.price_book import PriceScope
from meter.rating.book.price_book import Sku
from meter.rating.book.price_book import Tax
from meter.rating.book.price_index import scope_key

INSTANCE_STATES = frozenset(
    {"active", "building", "deleted", "error", "paused", "rescued", "resized", "shelved", "shelved_offloaded"}
    | {"soft-delete", "stopped", "suspended", "unknown"}
)
"""States of Nova (``vm_state``), and *unknown*. Those of other kinds are not listed: their services add some in each release."""


def state_warnings(sku: Sku) -> Iterator[str]:
    """Yield what is suspicious about the states of ``sku``: usage in a state that is misspelt is not billed."""
    if sku.resource_kind == "instance":
        yield from (f"states: {_unknown(each)}" for each in sku.states if each not in INSTANCE_STATES)


def match_warning(price: Price, sku: Sku) -> str | None:
    """Return what is suspicious about the state that ``price`` matches, as :func:`state_warnings`; ``None`` if nothing is."""
    state = price.match.get("state")
    if state is None or sku.usage != "exists":
        return None
    if sku.states and state not in sku.states:
        return f"match: the state {state!r} is not one of states of the sku {sku.id}{suggestion(state, sku.states)}"
    if sku.resource_kind == "instance" and state not in INSTANCE_STATES:
        return f"match: {_unknown(state)}"
    return None


def _unknown(state: str) -> str:
    return f"an instance is never in the state {state!r}{suggestion(state, INSTANCE_STATES, shown=20)}"


def price_holes(prices: Sequence[Price]) -> Iterator[tuple[Price, date, date]]:
    """Yield each price before which days have no price, though one of the same match ended, with the first and the end of the days."""
    same: dict[Hashable, list[Price]] = defaultdict(list)
    by_sku: dict[str, list[Price]] = defaultdict(list)
    for price in prices:
        same[price.sku, scope_key(price.scope), frozenset(price.match.items())].append(price)
        by_sku[price.sku].append(price)
    for group in same.values():
        for before, after in pairwise(sorted(group, key=lambda each: each.validity.since or date.min)):
            end, since = before.validity.until, after.validity.since
            if end is None or since is None or end >= since:
                continue
            wider = (each for each in by_sku[after.sku] if each not in group and _is_wider(each, after))
            if not any(each.validity.covers(end) for each in wider):
                yield after, end, since


def _is_wider(price: Price, other: Price) -> bool:
    return price.scope in (PriceScope(), other.scope) and price.match.items() <= other.match.items()


def has_no_tax(category: str | None, taxes: Sequence[Tax]) -> bool:
    """Return whether lines of ``category`` have no tax, in a book that has ``taxes``."""
    return bool(taxes) and category is None and not any(each.default for each in taxes)


def unpriced(skus: Mapping[str, Sku], prices: Sequence[Price]) -> list[str]:
    """Return the ids of SKUs that have no price."""
    return sorted(skus.keys() - {each.sku for each in prices})
