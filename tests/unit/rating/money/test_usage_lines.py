"""From usage to lines: prices, tiers, packages, free units, what no price covers."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from meter.rating.book.price_book import Account
from meter.rating.book.price_book import Membership
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import PriceScope
from meter.rating.money.rated import Rated
from meter.rating.money.rated import RatedLine
from meter.rating.money.rated import UnmeteredTime
from meter.rating.money.rating import rate
from meter.rating.period import BillingPeriod
from meter.rating.usage.usage_atom import UsageAtom
from tests.price_books import NOVEMBER
from tests.price_books import account
from tests.price_books import book
from tests.price_books import directory
from tests.price_books import november
from tests.price_books import price
from tests.price_books import sku
from tests.price_books import tiers
from tests.price_books import used
from tests.price_books import valid

ACME = account()


def rated(prices: PriceBook, usage: Iterable[UsageAtom], period: BillingPeriod = NOVEMBER, **options: Any) -> Rated:
    return rate(directory(prices, ACME), prices, ACME, period, usage, **options)


def amounts(result: Rated) -> list[tuple[str | None, int | None, str, str]]:
    return [(each.price_id, each.tier, str(each.quantity), str(each.amount)) for each in result.lines]


def only(result: Rated) -> RatedLine:
    [line] = result.lines
    return line


def test_a_line_has_what_was_used_and_what_it_costs() -> None:
    prices = book(price(amount="0.1"), skus=[sku(by=("flavor",), tax_category="standard")])
    line = only(rated(prices, [used(3, "1.5", flavor="big"), used(9, "2", flavor="big")]))
    assert line == RatedLine(
        kind="usage",
        key="usage/shop/egress/p1/1/flavor%3Dbig",
        project_id="shop",
        description="Egress (flavor big): 3.5 GB at 0.1 EUR",
        first=november(3),
        until=november(10),
        exact_amount=Decimal("0.35"),
        amount=Decimal("0.35"),
        list_amount=Decimal("0.7"),
        sku="egress",
        price_id="p1",
        tier=1,
        values={"flavor": "big"},
        quantity=Decimal("3.5"),
        unit="GB",
        list_unit_price=Decimal("0.2"),
        unit_price=Decimal("0.1"),
        pricing_quantity=Decimal("3.5"),
        pricing_unit="GB",
        service="Networking",
        category="Networking",
        tax_category="standard",
    )


def test_a_line_is_rounded_once_and_the_total_is_the_sum_of_lines() -> None:
    result = rated(book(price(amount="0.005")), [used(1, 1, "shop"), used(1, 1, "web"), used(2, 1, "shop")])
    assert [str(each.amount) for each in result.lines] == ["0.01", "0.01"]
    assert [each.exact_amount for each in result.lines] == [Decimal("0.01"), Decimal("0.005")]
    assert (result.net, result.tax, result.total) == (Decimal("0.02"), 0, Decimal("0.02"))


def test_graduated_tiers_split_the_units_at_their_edges() -> None:
    prices = book(price(mode="graduated", tiers=tiers(("10", "1"), ("20.5", "0.5"), (None, "0.1"))))
    result = rated(prices, [used(1, "9.5"), used(2, "11"), used(3, "10")])
    assert amounts(result) == [
        ("p1", 1, "10", "10.00"),
        ("p1", 2, "10.5", "5.25"),
        ("p1", 3, "10", "1.00"),
    ]


def test_a_quantity_at_the_edge_of_a_tier_is_within_it() -> None:
    prices = book(price(mode="volume", tiers=tiers(("10", "1"), (None, "0.5"))))
    assert amounts(rated(prices, [used(1, 10)])) == [("p1", 1, "10", "10.00")]
    assert amounts(rated(prices, [used(1, "10.000000001")])) == [("p1", 2, "10.000000001", "5.00")]


def test_a_volume_price_is_that_of_the_tier_of_the_total() -> None:
    prices = book(price(mode="volume", tiers=tiers(("10", "1"), (None, "0.5"))))
    result = rated(prices, [used(1, 4, "shop"), used(2, 8, "web")])
    assert amounts(result) == [("p1", 2, "4", "2.00"), ("p1", 2, "8", "4.00")]


def test_each_begun_package_is_charged_once() -> None:
    prices = book(price(amount="0.5", mode="package", package_size=Decimal(10)))
    result = rated(prices, [used(1, 4, "shop"), used(2, 6, "web"), used(3, 1, "shop")])
    assert amounts(result) == [("p1", 1, "5", "1.00"), ("p1", 1, "6", "0.00")]
    assert result.lines[0].description == "Egress: 5 GB in 2 packages of 10 GB, each at 0.5 EUR"
    assert (result.lines[0].pricing_quantity, result.lines[0].pricing_unit) == (2, "10 GB")


def test_a_package_of_a_multiple_unit_is_one_of_its_base_unit() -> None:
    prices = book(price(mode="package", package_size=Decimal(10)), skus=[sku(unit="1000 Requests")])
    line = only(rated(prices, [used(1, 4)]))
    assert line.pricing_unit == "10000 Requests"
    assert line.description == "Egress: 4 × 1000 Requests in 1 package of 10000 Requests, each at 0.1 EUR"


def test_free_units_come_first_and_are_counted_by_the_tiers() -> None:
    prices = book(price(mode="graduated", tiers=tiers(("10", "1"), (None, "0.5")), free=Decimal(4)))
    result = rated(prices, [used(1, 3), used(2, 9)])
    assert amounts(result) == [("p1", 0, "4", "0.00"), ("p1", 1, "6", "6.00"), ("p1", 2, "2", "1.00")]
    assert result.lines[0].description == "Egress: 4 GB free of charge"
    assert result.lines[0].list_amount == 0


def test_packages_begin_after_the_free_units() -> None:
    prices = book(price(amount="1", mode="package", package_size=Decimal(10), free=Decimal(5)))
    assert amounts(rated(prices, [used(1, 15)])) == [("p1", 0, "5", "0.00"), ("p1", 1, "10", "1.00")]
    assert amounts(rated(prices, [used(1, "15.1")])) == [("p1", 0, "5", "0.00"), ("p1", 1, "10.1", "2.00")]


def test_free_units_of_a_volume_price_stay_free() -> None:
    prices = book(price(mode="volume", tiers=tiers(("10", "1"), (None, "0.5")), free=Decimal(5)))
    assert amounts(rated(prices, [used(1, 11)])) == [("p1", 0, "5", "0.00"), ("p1", 2, "6", "3.00")]


@pytest.mark.parametrize(
    ("per", "billed"),
    [("account", "6.00"), ("project", "3.00"), ("resource", "0.00")],
)
def test_free_units_are_those_of_an_account_project_or_resource(per: Any, billed: str) -> None:
    prices = book(price(amount="1", free=Decimal(3), per=per))
    usage = [
        used(1, 3, "shop", "r1"),
        used(1, 3, "shop", "r2"),
        used(1, 3, "web", "r3"),
    ]
    assert str(rated(prices, usage).total) == billed


def test_the_position_carries_on_when_the_price_changes() -> None:
    prices = book(
        price("old", mode="graduated", tiers=tiers(("10", "1"), (None, "0.5")), validity=valid(until=november(15))),
        price("new", mode="graduated", tiers=tiers(("10", "2"), (None, "1")), validity=valid(since=november(15))),
    )
    result = rated(prices, [used(14, 8), used(15, 5)])
    assert amounts(result) == [("old", 1, "8", "8.00"), ("new", 1, "2", "4.00"), ("new", 2, "3", "3.00")]


def test_the_position_carries_on_to_a_price_of_the_project_with_the_same_match() -> None:
    prices = book(
        price("all", mode="graduated", tiers=tiers(("10", "1"), (None, "0.5"))),
        price("own", "3", mode="graduated", tiers=tiers(("10", "3"), (None, "2")), scope=PriceScope(project="web")),
    )
    result = rated(prices, [used(1, 8, "shop"), used(1, 4, "web"), used(2, 1, "shop")])
    assert amounts(result) == [
        ("all", 1, "8", "8.00"),
        ("all", 2, "1", "0.50"),
        ("own", 1, "2", "6.00"),
        ("own", 2, "2", "4.00"),
    ]


def test_a_price_with_another_match_counts_for_itself() -> None:
    prices = book(
        price("small", "1", free=Decimal(5), match={"flavor": "small"}),
        price("other", "1", free=Decimal(5)),
        skus=[sku(by=("flavor",))],
    )
    result = rated(prices, [used(1, 6, flavor="small"), used(1, 6, flavor="big"), used(1, 1, flavor="huge")])
    assert amounts(result) == [
        ("other", 0, "5", "0.00"),
        ("other", 1, "1", "1.00"),
        ("other", 1, "1", "1.00"),
        ("small", 0, "5", "0.00"),
        ("small", 1, "1", "1.00"),
    ]


def test_prorated_free_units_follow_the_days_of_the_price() -> None:
    until = book(price(amount="1", free=Decimal(10), free_prorated=True, validity=valid(until=november(4))))
    assert amounts(rated(until, [used(1, 2)])) == [("p1", 0, "1", "0.00"), ("p1", 1, "1", "1.00")]


def test_prorated_free_units_of_a_price_and_its_successor_are_those_of_a_month() -> None:
    change = book(
        price("old", "1", free=Decimal(10), free_prorated=True, validity=valid(until=november(15))),
        price("new", "2", free=Decimal(10), free_prorated=True, validity=valid(since=november(15))),
    )
    assert amounts(rated(change, [used(1, 3), used(20, 9)])) == [
        ("old", 0, "3", "0.00"),
        ("new", 0, "7", "0.00"),
        ("new", 1, "2", "4.00"),
    ]


@pytest.mark.parametrize(
    ("month", "zone", "hours"),
    [
        ("2026-03", "Europe/Paris", "743"),
        ("2026-10", "Europe/Paris", "745"),
        ("2026-11", "Europe/Paris", "720"),
        ("2028-02", "Asia/Kolkata", "696"),
        ("2026-04", "Australia/Lord_Howe", "720.5"),
    ],
)
def test_a_monthly_price_is_that_of_all_hours_of_the_month(month: str, zone: str, hours: str) -> None:
    period = BillingPeriod.named(month, ZoneInfo(zone))
    prices = book(price(amount="30", per_month=True), skus=[sku(unit="Hours")], timezone=ZoneInfo(zone))
    line = only(rated(prices, [used(period.first, hours)], period))
    assert (line.amount, line.exact_amount) == (Decimal("30.00"), 30)
    assert (line.pricing_quantity, line.pricing_unit) == (1, "Months")


def test_a_monthly_price_is_divided_once_to_12_decimals() -> None:
    prices = book(price(amount="1", per_month=True), skus=[sku(unit="GiB-Hours")])
    line = only(rated(prices, [used(1, 3), used(2, 4)]))
    assert (line.exact_amount, line.amount) == (Decimal("0.009722222222"), Decimal("0.01"))
    assert line.pricing_unit == "GiB-Months"


def test_usage_without_a_price_is_listed_and_not_billed() -> None:
    prices = book(price(match={"flavor": "small"}), skus=[sku(by=("flavor",))])
    result = rated(prices, [used(1, "1.50", flavor="big"), used(4, 2, flavor="big"), used(5, 0, flavor="huge")])
    assert result.lines == ()
    [unpriced] = result.unpriced
    assert (unpriced.values, unpriced.quantity, unpriced.first, unpriced.until, unpriced.unit) == (
        {"flavor": "big"},
        Decimal("3.5"),
        november(1),
        november(5),
        "GB",
    )


def test_unmetered_time_is_listed_and_not_billed() -> None:
    result = rated(book(price()), [used(1, 0, unmetered=60), used(2, 0, unmetered=30, resource="r2")])
    assert result.lines == ()
    assert result.unmetered == [UnmeteredTime(project_id="shop", sku="egress", seconds=90)]


def test_usage_of_days_in_which_the_project_is_of_another_account_is_ignored() -> None:
    prices = book(price(amount="1"))
    members = (Membership(id="shop", validity=valid(until=november(10))),)
    first = Account(id="first", name="First", book="list", projects=members)
    prices_of = directory(prices, first)
    usage = [used(9, 1), used(10, 2, unmetered=5), used(11, 4)]
    result = rate(prices_of, prices, first, NOVEMBER, usage)
    assert (result.total, result.unmetered) == (1, [])
    implied = prices_of.account_of("shop", None, november(10))
    assert rate(prices_of, prices, implied, NOVEMBER, usage).total == 6


def test_a_project_belongs_to_the_account_of_its_domain_as_it_was_on_the_day() -> None:
    prices = book(price("list", "1"), price("own", "3", scope=PriceScope(domain="d1")))
    domain = account(projects=(), domains=(Membership(id="d1"), Membership(id="d2")))
    usage = [used(1, 1), used(2, 1), used(3, 1)]

    def domain_of(_project_id: str, day: date) -> str | None:
        return {november(1): "d1", november(2): "d2"}.get(day)

    result = rate(directory(prices, domain), prices, domain, NOVEMBER, usage, domain_of=domain_of)
    assert amounts(result) == [("own", 1, "1", "3.00"), ("list", 1, "1", "1.00")]


def test_a_maximum_is_one_of_the_whole_period() -> None:
    line = only(rated(book(price(amount="2"), skus=[sku(usage="maximum")]), [used(1, 7)]))
    assert (line.first, line.until, line.amount) == (november(1), date(2026, 12, 1), Decimal("14.00"))


def test_units_that_are_taken_back_leave_the_last_tier_first() -> None:
    prices = book(price(mode="graduated", tiers=tiers(("10", "1"), (None, "0.5"))))
    assert amounts(rated(prices, [used(1, 12), used(2, -4)])) == [("p1", 1, "8", "8.00")]


def test_a_negative_amount_is_rounded_half_away_from_zero() -> None:
    assert str(rated(book(price(amount="0.005")), [used(1, -1)]).total) == "-0.01"


@pytest.mark.parametrize(("currency", "total"), [("EUR", "1.23"), ("JPY", "1"), ("KWD", "1.235")])
def test_amounts_have_the_minor_unit_of_the_currency(currency: str, total: str) -> None:
    assert str(rated(book(price(amount="1.2345"), currency=currency), [used(1, 1)]).total) == total


def test_a_quantity_as_large_as_a_sample_can_have_is_rated_exactly() -> None:
    largest = Decimal(sys.float_info.max)
    prices = book(price(mode="package", package_size=Decimal(3), amount="0.123456789012", free=Decimal(1)))
    result = rated(prices, [used(1, largest), used(2, "0.000000001")])
    assert len(str(result.total)) > 300
    assert [each.tier for each in result.lines] == [0, 1]


@pytest.mark.parametrize(
    ("usage", "reason"),
    [
        ([used(1, 1, sku="a"), used(1, 1, sku="b"), used(2, 1, sku="a")], "SKU"),
        ([used(2, 1), used(1, 1)], "2026-11-01 comes after that of 2026-11-02"),
        ([used(date(2026, 12, 1), 1)], "not in the period 2026-11"),
        ([used(date(2026, 10, 31), 1)], "not in the period 2026-11"),
        ([used(1, 1, sku="c")], "not in the price book"),
    ],
)
def test_usage_that_does_not_fit_is_refused(usage: list[UsageAtom], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        rated(book(price(sku="a"), price("p2", sku="b"), price("p3"), skus=[sku("a"), sku("b"), sku()]), usage)


def test_keys_of_lines_differ_whatever_the_names_contain() -> None:
    prices = book(
        price(id="p/1"),
        skus=[sku(by=("a", "b"))],
    )
    usage = [used(1, 1, a="x&b=y"), used(1, 1, a="x", b="y"), used(1, 1, "web", a="é/ ٢")]
    keys = [each.key for each in rated(prices, usage).lines]
    assert len(set(keys)) == 3
    assert all(key.count("/") == 5 for key in keys)
