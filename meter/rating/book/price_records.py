"""From a ``[[price]]`` of a file to its record."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Any

from meter.rating.book.price_book import Place
from meter.rating.book.price_book import Price
from meter.rating.book.price_book import PriceScope
from meter.rating.book.price_book import Tier
from meter.rating.book.price_book import TierMode
from meter.rating.book.price_book import Validity
from meter.rating.book.price_index import scope_key
from meter.rating.book.tables import PriceTable
from meter.rating.book.tables import TierTable

KeyProblem = tuple[tuple[str | int, ...], str]
"""The key that is wrong, and the text."""

_ESCAPED = str.maketrans({each: f"%{ord(each):02X}" for each in "%/=,"})


def scope_of(table: Any, problems: list[KeyProblem]) -> PriceScope:
    """Return whom a table is for; more than one of project, account and domain is a fault."""
    given = [key for key in ("project", "account", "domain") if getattr(table, key) is not None]
    if len(given) > 1:
        problems.append(((given[1],), f"give one of {', '.join(given)}"))
    return PriceScope(project=table.project, account=table.account, domain=table.domain)


def validity_of(table: Any, problems: list[KeyProblem], *outer: str | int) -> Validity:
    """Return the days of a table; an ``until`` that is not after ``from`` is a fault."""
    if table.since is not None and table.until is not None and table.until <= table.since:
        problems.append(((*outer, "until"), f"until {table.until} must be after from {table.since}"))
    return Validity(since=table.since, until=table.until)


def derived_id(sku: str, match: dict[str, str], scope: PriceScope, since: date | None) -> str:
    """Return the id of a price that has none: it does not depend on where the price stands, or on its amount."""
    kind, who = scope_key(scope)
    parts = [
        _escaped(sku),
        ",".join(f"{_escaped(key)}={_escaped(value)}" for key, value in sorted(match.items())),
        f"{kind}={_escaped(who)}" if kind else "",
        since.isoformat() if since else "",
    ]
    return "/".join(part for part in parts if part)


def _escaped(text: str) -> str:
    return text.translate(_ESCAPED)


def price_record(table: PriceTable, place: Place, problems: list[KeyProblem]) -> Price | None:
    """Return the record of ``table``; ``None``, with ``problems``, if it contradicts itself."""
    before = len(problems)
    mode: TierMode = table.mode or ("unit" if table.tiers is None else "graduated")
    scope = scope_of(table, problems)
    validity = validity_of(table, problems)
    problems += _price_problems(table, mode)
    if len(problems) > before:
        return None
    told = [(each.up_to, each.price, each.list_price) for each in table.tiers or ()]
    tiers = told or [(None, table.price or Decimal(0), table.list_price)]
    return Price(
        id=table.id or derived_id(table.sku, table.match, scope, table.since),
        sku=table.sku,
        place=place,
        tiers=tuple(
            Tier(up_to=up_to, list_price=price if listed is None else listed, price=price)
            for up_to, price, listed in tiers
        ),
        match=dict(sorted(table.match.items())),
        validity=validity,
        scope=scope,
        mode=mode,
        package_size=table.package_size,
        per=table.per,
        free=table.free,
        free_prorated=table.free_prorated,
        per_month=table.per_month,
    )


def _price_problems(table: PriceTable, mode: TierMode) -> Iterator[KeyProblem]:
    if table.tiers is None:
        if table.price is None:
            yield (), "price is missing: give price, or tiers"
        if mode in ("graduated", "volume"):
            yield ("mode",), f"mode {mode} needs tiers instead of price"
    else:
        for key in ("price", "list"):
            if getattr(table, "list_price" if key == "list" else key) is not None:
                yield (key,), f"{key} and tiers exclude each other: write {key} into each tier"
        if mode in ("unit", "package"):
            yield ("mode",), f"mode {mode} has a price instead of tiers; did you mean graduated or volume?"
        yield from _tier_problems(table.tiers, table.free)
    if mode == "package" and table.package_size is None:
        yield ("mode",), "package_size is missing: how many units a package has"
    if mode != "package" and table.package_size is not None:
        yield ("package_size",), 'package_size is for mode = "package" only'
    if mode == "package" and table.per_month:
        yield ("per_month",), "per_month is not for packages, which are counted and not measured in hours"
    if table.free_prorated and not table.free:
        yield ("free_prorated",), "free_prorated without free has no effect: say how many units are free"


def _tier_problems(tiers: list[TierTable], free: Decimal) -> Iterator[KeyProblem]:
    first = tiers[0].up_to
    if first is not None and first <= free:
        yield ("tiers", 0, "up_to"), f"the first tier is free: up_to {first} counts the {free} free units, too"
    last: Decimal | None = None
    for number, tier in enumerate(tiers):
        key = ("tiers", number)
        is_last = number == len(tiers) - 1
        if tier.up_to is None:
            if not is_last:
                yield key, f"tier {number + 1} has no up_to, so that the tiers after it are never reached"
        else:
            if last is not None and tier.up_to <= last:
                yield (*key, "up_to"), f"tiers must ascend: up_to {tier.up_to} follows {last}"
            last = tier.up_to
            if is_last:
                yield key, f"usage above {tier.up_to} has no price: leave up_to out of the last tier"
