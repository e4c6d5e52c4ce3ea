"""The forecast: the usage of the days that are over, continued to the end of the period."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.rating.book.price_book import FixedCharge
from meter.rating.book.price_book import Price
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import PriceScope
from meter.rating.money.forecast import forecast
from meter.rating.money.rated import Rated
from meter.rating.money.rating import rate
from meter.rating.period import BillingPeriod
from meter.rating.period import start_of_day
from meter.rating.usage.usage_atom import UsageAtom
from tests import rated_usage
from tests.price_books import NOVEMBER
from tests.price_books import PARIS
from tests.price_books import PLACE
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


def expected(prices: PriceBook, usage: Iterable[UsageAtom], now: datetime, period: BillingPeriod = NOVEMBER) -> Rated:
    return forecast(directory(prices, ACME), prices, ACME, period, usage, now)


def at(day: int, hour: int = 0) -> datetime:
    return start_of_day(november(day), PARIS) + timedelta(hours=hour)


def test_the_usage_of_the_days_that_are_over_goes_on_to_the_end() -> None:
    result = expected(book(price(amount="1")), [used(1, 4), used(5, 6)], at(11))
    assert [(each.quantity, each.amount) for each in result.lines] == [(30, 30)]


def test_today_has_what_is_expected_or_what_it_has_already() -> None:
    prices = book(price(amount="1"))
    usage = [used(day, 1) for day in range(1, 11)]
    assert expected(prices, [*usage, used(11, "0.5")], at(11, 12)).total == 30
    assert expected(prices, [*usage, used(11, 8)], at(11, 12)).total == 37
    assert expected(prices, [*usage, used(11, 8, "web")], at(11, 12)).total == 38


def test_the_first_day_goes_on_as_it_was_until_now() -> None:
    assert expected(book(price(amount="1")), [used(1, 2)], at(1, 6)).total == 240
    assert expected(book(price(amount="1")), [], at(1)).total == 0


def test_tiers_and_prices_to_come_apply() -> None:
    prices = book(
        price("old", mode="graduated", tiers=tiers(("20", "1"), (None, "0.5")), validity=valid(until=november(21))),
        price("new", mode="graduated", tiers=tiers(("20", "3"), (None, "2")), validity=valid(since=november(21))),
    )
    result = expected(prices, [used(day, 2) for day in range(1, 6)], at(6))
    assert [(each.price_id, each.tier, each.quantity, each.amount) for each in result.lines] == [
        ("old", 1, 20, 20),
        ("old", 2, 20, 10),
        ("new", 2, 20, 40),
    ]


def test_fixed_charges_count_in_full_and_a_maximum_stays() -> None:
    charge = FixedCharge(
        id="f",
        description="",
        service="",
        category="",
        amount=Decimal(30),
        list_amount=Decimal(30),
        recurring=True,
        prorated=True,
        place=PLACE,
        validity=valid(),
        scope=PriceScope(),
    )
    prices = book(price(amount="1"), skus=[sku(usage="maximum")], fixed_charges=(charge,))
    assert [each.amount for each in expected(prices, [used(1, 7)], at(11)).lines] == [7, 30]


def test_time_that_is_unmetered_today_is_told() -> None:
    result = expected(book(price()), [used(1, 1, unmetered=10), used(3, 0, unmetered=20)], at(3, 5))
    assert [each.seconds for each in result.unmetered] == [30]


@pytest.mark.parametrize(
    "usage", [[used(1, 1, sku="unknown")], [used(NOVEMBER.until, 1)], [used(1, 1), used(2, 1, sku="other"), used(2, 1)]]
)
def test_usage_that_does_not_fit_is_refused(usage: list[UsageAtom]) -> None:
    with pytest.raises(ValueError, match=r"usage|SKU"):
        expected(book(price(), price("p2", sku="other")), usage, at(5))


def test_a_day_with_25_hours_has_more_usage() -> None:
    october = BillingPeriod.named("2026-10", PARIS)
    usage = [used(day, 24) for day in october.days() if day.day < 11]
    result = expected(book(price(amount="1")), usage, start_of_day(november(1) - timedelta(days=21), PARIS), october)
    assert result.total == 745


@given(st.sampled_from([NOVEMBER.end, datetime(2027, 5, 1, tzinfo=UTC)]), rated_usage.prices(), rated_usage.usage())
def test_a_period_that_is_over_is_not_extrapolated(now: datetime, prices: list[Price], usage: list[UsageAtom]) -> None:
    prices_book = book(*prices, skus=[sku(by=("flavor",))])
    actual = rate(directory(prices_book, ACME), prices_book, ACME, NOVEMBER, usage)
    assert expected(prices_book, usage, now) == actual


@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 10**12)), min_size=1, max_size=20),
    st.integers(0, 86399),
)
def test_the_days_of_a_forecast_add_up_to_the_rate_times_the_month(usage: list[tuple[int, int]], second: int) -> None:
    atoms = [used(day, Decimal(units).scaleb(-9)) for day, units in sorted(usage)]
    result = expected(book(price(amount="1")), atoms, at(21) + timedelta(seconds=second))
    total = sum((each.quantity for each in atoms), Decimal(0))
    forecast_total = sum((each.quantity or Decimal(0) for each in result.lines), Decimal(0))
    # 20 of the 30 days are over; each day is rounded to 9 decimals.
    assert abs(forecast_total - total * 30 / 20) <= Decimal("1e-9")
    assert forecast_total >= total
