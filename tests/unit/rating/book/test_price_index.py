"""Which price a unit of usage has."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from meter.rating.book.price_book import Price
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import PriceScope
from meter.rating.book.price_book import Tier
from meter.rating.book.price_book import Validity
from meter.rating.book.price_index import price_of

DAY = date(2026, 11, 15)


def price(id: str, sku: str = "vm", scope: PriceScope | None = None, **more: object) -> Price:
    tier = Tier(up_to=None, list_price=Decimal(1), price=Decimal(1))
    return Price(id=id, sku=sku, tiers=(tier,), scope=scope or PriceScope(), **more)  # type: ignore[arg-type]


def book(*prices: Price) -> PriceBook:
    return PriceBook(
        name="b", currency="EUR", timezone=ZoneInfo("UTC"), grace_days=0, issuer="", text="", sha256="", prices=prices
    )


def found(
    prices: list[Price],
    values: Mapping[str, str] | None = None,
    *,
    project: str = "p",
    account: str = "a",
    domain: str | None = "d",
    day: date = DAY,
) -> str | None:
    price = price_of(book(*prices), "vm", values or {}, project=project, account=account, domain=domain, day=day)
    return None if price is None else price.id


EVERYBODY = price("all", match={"flavor": "small", "zone": "1"})
DOMAIN = price("domain", scope=PriceScope(domain="d"), match={"flavor": "small"})
ACCOUNT = price("account", scope=PriceScope(account="a"), match={"flavor": "small"})
PROJECT = price("project", scope=PriceScope(project="p"))


def test_most_specific_scope_precedes_the_number_of_matched_keys() -> None:
    values = {"flavor": "small", "zone": "1"}
    prices = [EVERYBODY, DOMAIN, ACCOUNT, PROJECT]
    assert found(prices, values) == "project"
    assert found(prices, values, project="q") == "account"
    assert found(prices, values, project="q", account="b") == "domain"
    assert found(prices, values, project="q", account="b", domain=None) == "all"


def test_price_that_matches_more_keys_precedes() -> None:
    prices = [price("any"), price("small", match={"flavor": "small"}), EVERYBODY]
    assert found(prices, {"flavor": "small", "zone": "1"}) == "all"
    assert found(prices, {"flavor": "small", "zone": "2"}) == "small"
    assert found(prices, {"flavor": "large"}) == "any"
    assert found(prices, {}) == "any"


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        (date(2026, 10, 31), None),
        (date(2026, 11, 1), "first"),
        (date(2026, 11, 14), "first"),
        (date(2026, 11, 15), "second"),
        (date(2028, 2, 29), "second"),
    ],
)
def test_price_is_the_one_of_the_day(day: date, expected: str | None) -> None:
    first = price("first", validity=Validity(since=date(2026, 11, 1), until=DAY))
    assert found([price("second", validity=Validity(since=DAY)), first], day=day) == expected


def test_specific_price_that_is_not_valid_gives_way_to_a_general_one() -> None:
    ended = price("ended", scope=PriceScope(project="p"), validity=Validity(until=DAY))
    assert found([ended, price("any")]) == "any"


def test_usage_that_no_price_covers_has_none() -> None:
    assert found([price("other", sku="volume"), price("small", match={"flavor": "small"})]) is None
    assert found([price("small", match={"flavor": "small"})], {"flavor": "large"}) is None
    assert found([DOMAIN], {"flavor": "small"}, domain=None) is None


def test_books_that_are_equal_but_for_their_prices_have_their_own_index() -> None:
    assert [found([price(str(number))]) for number in range(40)] == [str(number) for number in range(40)]
