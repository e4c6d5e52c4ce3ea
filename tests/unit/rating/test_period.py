"""Billing periods and their days, where clocks change and where they skip."""

from __future__ import annotations

import itertools
from datetime import UTC
from datetime import date
from datetime import datetime
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.rating.period import BillingPeriod
from meter.rating.period import day_of
from meter.rating.period import start_of_day

ZONES = (
    "UTC",
    "Europe/Paris",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "America/St_Johns",
    "America/Havana",
    "Pacific/Apia",
    "Pacific/Kiritimati",
    "Pacific/Pago_Pago",
    "Africa/Casablanca",
    "Antarctica/Troll",
)
zones = st.sampled_from(ZONES).map(ZoneInfo)
months = st.tuples(st.integers(1971, 2060), st.integers(1, 12)).map(lambda each: f"{each[0]:04}-{each[1]:02}")


@pytest.mark.parametrize(
    ("name", "zone", "start", "hours"),
    [
        ("2026-11", "UTC", "2026-11-01T00:00", 720),
        ("2026-03", "Europe/Paris", "2026-02-28T23:00", 743),
        ("2026-10", "Europe/Paris", "2026-09-30T22:00", 745),
        ("2026-11", "Asia/Kolkata", "2026-10-31T18:30", 720),
        ("2026-04", "Australia/Lord_Howe", "2026-03-31T13:00", 720.5),
        ("2026-10", "Australia/Lord_Howe", "2026-09-30T13:30", 743.5),
        ("2018-11", "America/Sao_Paulo", "2018-11-01T03:00", 719),
        ("2011-12", "Pacific/Apia", "2011-12-01T10:00", 720),
        ("2028-02", "Europe/Paris", "2028-01-31T23:00", 696),
        ("2026-02", "Europe/Paris", "2026-01-31T23:00", 672),
    ],
)
def test_a_period_has_the_length_of_its_month_by_the_clock_of_its_zone(
    name: str, zone: str, start: str, hours: float
) -> None:
    period = BillingPeriod.named(name, ZoneInfo(zone))
    assert period.start == datetime.fromisoformat(start).replace(tzinfo=UTC)
    assert period.seconds == hours * 3600
    assert period.end - period.start == timedelta(hours=hours)


def test_a_day_without_midnight_begins_when_the_clock_changes() -> None:
    zone = ZoneInfo("America/Sao_Paulo")
    start = start_of_day(date(2018, 11, 4), zone)
    assert start.astimezone(zone).isoformat() == "2018-11-04T01:00:00-02:00"
    assert day_of(start - timedelta(microseconds=1), zone) == date(2018, 11, 3)
    assert start_of_day(date(2018, 11, 5), zone) - start == timedelta(hours=23)


def test_a_day_that_a_zone_skipped_has_no_time() -> None:
    zone = ZoneInfo("Pacific/Apia")
    december = BillingPeriod.named("2011-12", zone)
    skipped = date(2011, 12, 30)
    assert skipped in list(december.days())
    assert start_of_day(skipped, zone) == start_of_day(date(2011, 12, 31), zone)
    assert day_of(start_of_day(skipped, zone), zone) == date(2011, 12, 31)
    assert day_of(start_of_day(skipped, zone) - timedelta(microseconds=1), zone) == date(2011, 12, 29)


def test_a_day_goes_on_where_the_clock_returns_to_the_day_before() -> None:
    zone = ZoneInfo("America/St_Johns")
    # On 7 November 2010 at 00:01 the clock went back to 23:01 of the 6th.
    again = datetime(2010, 11, 7, 3, 0, tzinfo=UTC)
    assert again.astimezone(zone).date() == date(2010, 11, 6)
    assert day_of(again, zone) == date(2010, 11, 7)


@given(zones, st.integers(366 * 86400, 90 * 365 * 86400))
def test_every_instant_is_in_its_day_and_in_one_period(zone: ZoneInfo, seconds: int) -> None:
    time = datetime.fromtimestamp(seconds, UTC)
    day = day_of(time, zone)
    assert start_of_day(day, zone) <= time < start_of_day(day + timedelta(days=1), zone)
    period = BillingPeriod.containing(time, zone)
    assert period.start <= time < period.end
    assert day in list(period.days())


@given(zones, months)
def test_the_days_of_a_period_follow_each_other_and_fill_it(zone: ZoneInfo, name: str) -> None:
    period = BillingPeriod.named(name, zone)
    days = list(period.days())
    assert days[0] == period.first
    assert days == [period.first + timedelta(days=number) for number in range(len(days))]
    starts = [start_of_day(day, zone) for day in [*days, period.until]]
    assert starts == sorted(starts)
    assert (starts[0], starts[-1]) == (period.start, period.end)
    assert period.seconds == sum(((end - start).total_seconds() for start, end in itertools.pairwise(starts)))


@given(zones, months)
def test_a_period_has_a_name_and_neighbours(zone: ZoneInfo, name: str) -> None:
    period = BillingPeriod.named(name, zone)
    assert period.name == name
    assert period.next.previous == period
    assert period.next.start == period.end
    assert BillingPeriod.containing(period.start, zone) == period
    assert BillingPeriod.containing(period.end, zone) == period.next


def test_29_february_is_a_day_of_leap_years() -> None:
    zone = ZoneInfo("Europe/Paris")
    assert list(BillingPeriod.named("2028-02", zone).days())[-1] == date(2028, 2, 29)
    assert list(BillingPeriod.named("2100-02", zone).days())[-1] == date(2100, 2, 28)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "2026",
        "2026-1",
        "2026-00",
        "2026-13",
        "2026-11-01",
        " 2026-11",
        "2026-11\n",
        "0000-01",
        "0001-01",
        "9999-12",
        "٢٠٢٦-١١",
        "2026/11",
    ],
)
def test_what_is_no_month_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="write year and month, as in 2026-11"):
        BillingPeriod.named(name, ZoneInfo("Europe/Paris"))
