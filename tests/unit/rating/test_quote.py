"""What a wish would cost."""

from __future__ import annotations

from decimal import Decimal

import pytest

from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_directory import check_files
from meter.rating.book.price_files import PriceFile
from meter.rating.period import BillingPeriod
from meter.rating.quote import Wish
from meter.rating.quote import quote

BOOK = """
[[book]]
name = "euro"
currency = "EUR"
timezone = "Europe/Paris"
issuer = "x"
[[sku]]
id = "vm"
usage = "exists"
resource_kind = "instance"
unit = "Hours"
by = ["flavor"]
[[sku]]
id = "ip"
usage = "exists"
resource_kind = "floating_ip"
unit = "Hours"
started = "hour"
minimum = "3"
[[sku]]
id = "volume"
usage = "exists"
resource_kind = "volume"
times_size = true
unit = "GiB-Hours"
[[sku]]
id = "memory"
usage = "integral"
meter = "memory.usage"
unit = "GB-Hours"
factor = "1/3600000"
[[sku]]
id = "egress"
usage = "increase"
meter = "network.outgoing.bytes"
factor = "1/1000000000"
unit = "GB"
round_up_to = "10"
[[price]]
sku = "vm"
match = {flavor = "small"}
price = "1"
until = 2026-11-16
[[price]]
sku = "vm"
match = {flavor = "small"}
price = "2"
from = 2026-11-16
[[price]]
sku = "vm"
project = "p"
match = {flavor = "small"}
price = "0.5"
[[price]]
sku = "vm"
domain = "d"
match = {flavor = "small"}
price = "0.25"
[[price]]
sku = "ip"
price = "1"
[[price]]
sku = "volume"
price = "0.1"
per_month = true
[[price]]
sku = "memory"
price = "1"
[[price]]
sku = "egress"
per = "resource"
tiers = [{up_to = 100, price = "1"}, {price = "0.5"}]
[[minimum]]
id = "m"
description = ""
amount = "1000"
[[fixed_charge]]
id = "f"
description = ""
amount = "1000"
recurring = true
[[discount]]
id = "d"
description = ""
percent = 50
skus = ["memory"]
"""


@pytest.fixture(scope="module")
def book() -> PriceBook:
    checked = check_files([PriceFile("a.toml", BOOK)])
    assert checked.directory is not None, checked.problems
    return checked.directory.books["euro"]


def total(book: PriceBook, *wishes: Wish, month: str = "2026-11", **whose: str) -> str:
    rated = quote(book, wishes, BillingPeriod.named(month, book.timezone), **whose)  # type: ignore[arg-type]
    assert rated.unpriced == []
    return str(rated.total)


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        (Wish(sku="vm", values={"flavor": "small"}, hours=Decimal(10)), "10.00"),
        (Wish(sku="vm", values={"flavor": "small"}, hours=Decimal(10), count=3), "30.00"),
        (Wish(sku="vm", values={"flavor": "small"}), "1080.00"),
        (Wish(sku="vm", values={"flavor": "small"}, hours=Decimal("360.5")), "361.00"),
        (Wish(sku="ip", hours=Decimal("3.01")), "4.00"),
        (Wish(sku="ip", hours=Decimal("0.1")), "3.00"),
        (Wish(sku="volume", size=Decimal(100)), "10.00"),
        (Wish(sku="volume", size=Decimal(100), hours=Decimal(360)), "5.00"),
        (Wish(sku="memory", size=Decimal(2000), hours=Decimal(5)), "5.00"),
        (Wish(sku="egress", quantity=Decimal(191)), "150.00"),
        (Wish(sku="egress", quantity=Decimal(191), count=2), "300.00"),
        (Wish(sku="egress", quantity=Decimal(0)), "0"),
    ],
)
def test_wish_costs_what_a_statement_would_say(book: PriceBook, wish: Wish, expected: str) -> None:
    assert Decimal(total(book, wish)) == Decimal(expected)


@pytest.mark.parametrize(("month", "hours"), [("2026-02", 672), ("2026-03", 743), ("2026-10", 745), ("2028-02", 696)])
def test_whole_month_has_its_hours_and_a_price_per_month_is_paid_once(book: PriceBook, month: str, hours: int) -> None:
    assert Decimal(total(book, Wish(sku="ip"), month=month)) == hours
    assert Decimal(total(book, Wish(sku="volume", size=Decimal(10)), month=month)) == 1


def test_agreed_prices_are_those_of_the_project_and_its_domain(book: PriceBook) -> None:
    wish = Wish(sku="vm", values={"flavor": "small"}, hours=Decimal(4))
    assert Decimal(total(book, wish, project="p")) == 2
    assert Decimal(total(book, wish, project="q", domain="d")) == 1
    assert Decimal(total(book, wish, project="q")) == 4


def test_wishes_for_one_sku_share_their_tiers(book: PriceBook) -> None:
    several = [Wish(sku="vm", values={"flavor": "small"}, hours=Decimal(1)), Wish(sku="ip", hours=Decimal(3))]
    assert Decimal(total(book, *several, several[0])) == 5


def test_usage_without_a_price_is_unpriced(book: PriceBook) -> None:
    rated = quote(book, [Wish(sku="vm", values={"flavor": "x"})], BillingPeriod.named("2026-11", book.timezone))
    [unpriced] = rated.unpriced
    assert (unpriced.sku, unpriced.values, unpriced.quantity) == ("vm", {"flavor": "x"}, 720)


@pytest.mark.parametrize(
    ("wish", "problem"),
    [
        (Wish(sku="vn"), "no SKU 'vn'"),
        (Wish(sku="vm", count=0), "count must be"),
        (Wish(sku="vm", count=1001), "count must be"),
        (Wish(sku="vm", values={"flavour": "x"}), "did you mean flavor"),
        (Wish(sku="vm", size=Decimal(1)), "depends on the size"),
        (Wish(sku="vm", quantity=Decimal(1)), "give hours instead"),
        (Wish(sku="vm", hours=Decimal(0)), "above 0 and at most 720"),
        (Wish(sku="vm", hours=Decimal(721)), "above 0 and at most 720"),
        (Wish(sku="volume"), "size is missing"),
        (Wish(sku="memory"), "size is missing"),
        (Wish(sku="egress"), "quantity is missing, in GB"),
        (Wish(sku="egress", quantity=Decimal(1), hours=Decimal(1)), "has no duration"),
    ],
)
def test_wish_that_does_not_fit_is_refused(book: PriceBook, wish: Wish, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        total(book, wish)
