"""Prices, taxes and memberships of which two would hold at the same time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import date
from typing import NamedTuple
from typing import TypeVar

from meter.rating.book.price_book import Account
from meter.rating.book.price_book import Membership
from meter.rating.book.price_book import Price
from meter.rating.book.price_book import Tax
from meter.rating.book.price_book import Validity
from meter.rating.book.price_index import scope_key

MAX_AMBIGUITIES = 20
"""How many ambiguities of a SKU and scope are reported: a set of prices that is wrong in one way has thousands of them."""

T = TypeVar("T")


def _start(validity: Validity) -> date:
    return validity.since or date.min


def _end(validity: Validity) -> date:
    return validity.until or date.max


def intersection(one: Validity, other: Validity) -> Validity | None:
    """Return the days that are in both, ``None`` if there are none."""
    since, until = max(_start(one), _start(other)), min(_end(one), _end(other))
    if since >= until:
        return None
    return Validity(since=None if since == date.min else since, until=None if until == date.max else until)


def overlapping(things: Iterable[T], validity: Callable[[T], Validity]) -> Iterator[tuple[T, T, date | None]]:
    """Yield each thing that is valid before another one has ended: the other one, itself, and the first common day."""
    last: T | None = None
    for each in sorted(things, key=lambda thing: _start(validity(thing))):
        if last is not None and (common := intersection(validity(last), validity(each))):
            yield last, each, common.since
        if last is None or _end(validity(each)) > _end(validity(last)):
            last = each


class PriceConflict(NamedTuple):
    """Two prices of equal rank that apply to the same usage from ``since`` on; ``match``: to which values, if they match different keys."""

    price: Price
    other: Price
    since: date | None
    match: Mapping[str, str] | None


def price_conflicts(prices: Iterable[Price]) -> Iterator[PriceConflict]:
    """Yield the conflicts among the prices of a book."""
    by_scope: dict[Hashable, list[Price]] = defaultdict(list)
    for price in prices:
        by_scope[price.sku, scope_key(price.scope)].append(price)
    for group in by_scope.values():
        by_match: dict[Hashable, list[Price]] = defaultdict(list)
        for price in group:
            by_match[frozenset(price.match.items())].append(price)
        for same in by_match.values():
            for other, price, since in overlapping(same, lambda each: each.validity):
                yield PriceConflict(price, other, since, None)
        if len({frozenset(price.match) for price in group}) > 1:
            yield from _ambiguities(group)


def _ambiguities(group: Sequence[Price]) -> Iterator[PriceConflict]:
    by_keys: dict[tuple[str, ...], list[Price]] = defaultdict(list)
    for price in group:
        by_keys[tuple(sorted(price.match))].append(price)
    told = 0
    kinds = sorted(by_keys)
    for number, keys in enumerate(kinds):
        for others in kinds[number + 1 :]:
            if len(others) != len(keys):
                continue
            common = [key for key in keys if key in others]
            by_common: dict[tuple[str, ...], list[Price]] = defaultdict(list)
            for price in by_keys[others]:
                by_common[tuple(price.match[key] for key in common)].append(price)
            for price in by_keys[keys]:
                for other in by_common.get(tuple(price.match[key] for key in common), ()):
                    days = intersection(price.validity, other.validity)
                    union = {**price.match, **other.match}
                    if days is None or _covered(days, union, group, len(keys)):
                        continue
                    first, second = sorted((price, other), key=lambda each: (each.place.file, each.place.line))
                    yield PriceConflict(second, first, days.since, union)
                    told += 1
                    if told == MAX_AMBIGUITIES:
                        return


def _covered(days: Validity, match: Mapping[str, str], group: Sequence[Price], keys: int) -> bool:
    """Return whether on each of ``days`` a price that matches more than ``keys`` keys applies to all values that ``match`` has."""
    at = _start(days)
    for price in sorted(group, key=lambda each: _start(each.validity)):
        if len(price.match) > keys and price.match.items() <= match.items() and _start(price.validity) <= at:
            at = max(at, _end(price.validity))
    return at >= _end(days)


def tax_conflicts(taxes: Sequence[Tax]) -> Iterator[tuple[Tax, Tax, date | None, str]]:
    """Yield two taxes of a category on the same days, and two defaults, with what is wrong."""
    by_category: dict[str, list[Tax]] = defaultdict(list)
    for tax in taxes:
        by_category[tax.category].append(tax)
    for category, same in by_category.items():
        for other, tax, since in overlapping(same, lambda each: each.validity):
            yield other, tax, since, f"the category {category} has another tax"
    defaults = [tax for tax in taxes if tax.default]
    for other, tax, since in overlapping(defaults, lambda each: each.validity):
        if other.category != tax.category:
            yield other, tax, since, f"{other.category} is a default, too"


class Belonging(NamedTuple):
    """A project or domain that belongs to an account; ``position`` is its place in the list of the account."""

    account: Account
    member: Membership
    position: int


def membership_conflicts(accounts: Iterable[Account], kind: str) -> Iterator[tuple[Belonging, Belonging, date | None]]:
    """Yield the members that belong to two accounts, or twice to one, on the same days; ``kind`` is *projects* or *domains*."""
    by_id: dict[str, list[Belonging]] = defaultdict(list)
    for account in accounts:
        for position, member in enumerate(getattr(account, kind)):
            by_id[member.id].append(Belonging(account, member, position))
    for same in by_id.values():
        yield from overlapping(same, lambda each: each.member.validity)


def is_member_always(account: Account, project: str) -> bool:
    """Return whether ``project`` belongs to ``account`` on all days."""
    spans = sorted((_start(each.validity), _end(each.validity)) for each in account.projects if each.id == project)
    at = date.min
    for start, end in spans:
        if start > at:
            return False
        at = max(at, end)
    return at == date.max
