"""Rated days add up to the lines of the statement, whoever asks, and are those of the book of a closed statement."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import replace
from datetime import UTC
from datetime import date
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from meter.rating.book.price_book import PriceDirectory
from meter.rating.book.price_book import PriceScope
from meter.rating.book.price_book import Tier
from meter.rating.book.price_book import Validity
from meter.rating.costs.rated_days import RatedDay
from meter.rating.costs.rated_days import RatedDays
from meter.rating.money.rating import rate
from meter.rating.statements.statement import StatementPeriod
from meter.testing import MemoryStore
from tests.closed_statements import annex_pages
from tests.closed_statements import closing
from tests.rated_month import keep_usage
from tests.statement_documents import signed
from tests.statement_documents import statement
from tests.worked_months import CLOUD_MONTH

PERIOD = StatementPeriod(
    name="2025-11",
    first=date(2025, 11, 1),
    until=date(2025, 12, 1),
    start=datetime(2025, 10, 31, 23, tzinfo=UTC),
    end=datetime(2025, 11, 30, 23, tzinfo=UTC),
    timezone="Europe/Paris",
)
ALWAYS = (datetime(2025, 10, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC))


def result_of(work: Coroutine[Any, Any, Any]) -> Any:
    results: list[Any] = []
    Deferred.fromCoroutine(work).addBoth(results.append)
    [found] = results
    if hasattr(found, "raiseException"):
        found.raiseException()
    return found


class CountingSlices:
    """Wants a pause at every look, and counts the pauses."""

    over = True
    pauses = 0

    async def pause(self) -> None:
        self.pauses += 1


class Month:
    def __init__(self) -> None:
        self.store = MemoryStore(Clock())
        self.directory: PriceDirectory = result_of(keep_usage(self.store))
        self.directory_of: Any = None
        self.slices = CountingSlices()

    def days(self, *times: datetime, project: str | None = None, by_resource: bool = False) -> list[RatedDay]:
        async def collect() -> list[RatedDay]:
            rated = RatedDays(self.store.rating, self.store, self.directory, self.directory_of, self.slices)
            begin, end = times or ALWAYS
            return [day async for day in rated.between(begin, end, project, by_resource=by_resource)]

        return result_of(collect())


@pytest.fixture
def month() -> Month:
    return Month()


def total(days: list[RatedDay]) -> dict[tuple[str, str, str], Decimal]:
    sums: dict[tuple[str, str, str], Decimal] = {}
    for day in days:
        key = (day.currency, day.project_id, day.sku)
        sums[key] = sums.get(key, Decimal(0)) + day.amount
    return sums


def lines(month: Month) -> dict[tuple[str, str, str], Decimal]:
    sums: dict[tuple[str, str, str], Decimal] = {}
    for account in month.directory.accounts.values():
        book = month.directory.books[account.book]
        rated = rate(month.directory, book, account, CLOUD_MONTH.period_of(book), CLOUD_MONTH.usage(book.name))
        for line in rated.lines:
            if line.kind == "usage":
                key = (book.currency, line.project_id, line.sku or "")
                sums[key] = sums.get(key, Decimal(0)) + line.exact_amount
    return sums


@pytest.mark.parametrize("by_resource", [False, True])
def test_days_add_up_to_the_lines_of_the_statements(month: Month, by_resource: bool) -> None:
    expected = lines(month)
    found = total(month.days(by_resource=by_resource))
    assert set(found) == set(expected)
    # Prices of a month and shares of resources are divided day by day, each to 12 decimals.
    assert all(abs(found[key] - expected[key]) < Decimal("1e-9") for key in expected)


def test_days_of_a_project_are_those_among_all(month: Month) -> None:
    assert month.days(project="lab") == [day for day in month.days() if day.project_id == "lab"]
    assert month.days(project="nobody") == []


def test_tiers_and_the_change_of_a_price_are_those_of_the_day(month: Month) -> None:
    egress = [day for day in month.days(project="shop") if day.sku == "egress"]
    # 10 free, then 0.09 and from the 15th on 0.08 up to 1000, then 0.06: positions 0, 400, 700, 1150.
    assert [(day.day.day, day.quantity, day.amount) for day in egress] == [
        (6, Decimal(400), Decimal("35.10")),
        (14, Decimal(300), Decimal("27.00")),
        (15, Decimal(450), Decimal("33.00")),
        (28, Decimal("500.5"), Decimal("30.030")),
    ]


def test_a_day_belongs_to_the_time_in_which_it_starts(month: Month) -> None:
    begin = datetime(2025, 11, 13, 23, tzinfo=UTC)  # midnight in Paris
    found = month.days(begin, datetime(2025, 11, 14, 23, tzinfo=UTC), project="shop")
    assert {day.day.day for day in found} == {14}
    assert {(day.start, day.end) for day in found} == {(begin, datetime(2025, 11, 14, 23, tzinfo=UTC))}


def test_resources_share_what_their_day_cost(month: Month) -> None:
    found = [day for day in month.days(project="shop", by_resource=True) if (day.sku, day.day.day) == ("vm", 15)]
    assert {day.resource_id for day in found} >= {"temp-1", "db-1"}
    assert all(day.amount == day.quantity * price(day) for day in found)


def price(day: RatedDay) -> Decimal:
    return {"m1.small": Decimal("0.0125"), "m1.large": Decimal("0.05")}[day.values["flavor"]]


def test_price_by_the_total_is_that_of_the_total_so_far(month: Month) -> None:
    book = month.directory.books["eur"]
    prices = tuple(
        replace(
            each,
            mode="volume",
            free=Decimal(0),
            tiers=(
                Tier(up_to=Decimal(1000), list_price=Decimal(2), price=Decimal(2)),
                Tier(up_to=None, list_price=Decimal(1), price=Decimal(1)),
            ),
        )
        if each.sku == "egress"
        else each
        for each in book.prices
    )
    month.directory = replace(month.directory, books={**month.directory.books, "eur": replace(book, prices=prices)})
    egress = [day for day in month.days(project="shop") if day.sku == "egress"]
    assert all(day.amount == day.quantity for day in egress)


def test_closed_period_is_rated_by_the_book_of_its_statement(month: Month) -> None:
    document = signed(statement(period=PERIOD))  # of the account acme and November, with another book
    result_of(month.store.rating.statements.add(closing(document), annex_pages([])))
    book = month.directory.books["eur"]
    doubled = tuple(
        replace(each, tiers=tuple(replace(tier, price=tier.price * 2) for tier in each.tiers)) for each in book.prices
    )
    stored = replace(month.directory, books={"eur": replace(book, prices=doubled, sha256="b" * 64)})
    month.directory_of = lambda text: stored
    found = total(month.days())
    before = lines(month)
    assert abs(found["EUR", "shop", "vm"] - 2 * before["EUR", "shop", "vm"]) < Decimal("1e-9")
    assert found["JPY", "tokyo", "vm"] == before["JPY", "tokyo", "vm"]


def test_work_pauses_for_each_quantity_and_each_day(month: Month) -> None:
    found = month.days(project="shop")
    assert month.slices.pauses > 2 * len(found)


def by_its_own_prices(month: Month, **changes: Any) -> None:
    """Let SKU vm of the euro book have one price per resource, with ``changes``."""
    book = month.directory.books["eur"]
    price = next(each for each in book.prices if each.sku == "vm")
    own = replace(price, id="own", match={}, scope=PriceScope(), validity=Validity(), per="resource", **changes)
    prices = (*(each for each in book.prices if each.sku != "vm"), own)
    month.directory = replace(month.directory, books={**month.directory.books, "eur": replace(book, prices=prices)})


VOLUME = {
    "mode": "volume",
    "tiers": (
        Tier(up_to=Decimal(100), list_price=Decimal(2), price=Decimal(2)),
        Tier(up_to=None, list_price=Decimal(1), price=Decimal(1)),
    ),
}
GRADUATED = {**VOLUME, "mode": "graduated"}


@pytest.mark.parametrize("by_resource", [False, True])
@pytest.mark.parametrize("tiers", [VOLUME, GRADUATED], ids=["volume", "graduated"])
def test_where_resources_are_counted_each_costs_by_its_own_tiers(
    month: Month, tiers: dict[str, Any], by_resource: bool
) -> None:
    by_its_own_prices(month, free=Decimal(10), **tiers)
    found = [day for day in month.days(by_resource=True) if day.sku == "vm" and day.currency == "EUR"]
    used: dict[str, Decimal] = {}
    cost: dict[str, Decimal] = {}
    for day in found:
        used[day.resource_id] = used.get(day.resource_id, Decimal(0)) + day.quantity
        cost[day.resource_id] = cost.get(day.resource_id, Decimal(0)) + day.amount

    def right(quantity: Decimal) -> Decimal:
        if tiers is VOLUME:
            return max(quantity - 10, Decimal(0)) * (2 if quantity <= 100 else 1)
        return max(min(quantity, Decimal(100)) - 10, Decimal(0)) * 2 + max(quantity - 100, Decimal(0))

    assert {quantity <= 100 for quantity in used.values()} == {True, False}
    assert cost == {resource: right(quantity) for resource, quantity in used.items()}
    found = [day for day in month.days(by_resource=by_resource) if day.sku == "vm" and day.currency == "EUR"]
    expected = sum(amount for key, amount in lines(month).items() if key[0] == "EUR" and key[2] == "vm")
    assert sum(day.amount for day in found) == expected == sum(cost.values())
