"""Sums and points of rated days: groups, filters, times and pages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Coroutine
from datetime import UTC
from datetime import date
from datetime import datetime
from datetime import timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from twisted.internet.defer import Deferred

from meter.rating.costs import cost_query
from meter.rating.costs.cost_query import CostQuery
from meter.rating.costs.cost_query import TooManyGroups
from meter.rating.costs.cost_query import cost_points
from meter.rating.costs.cost_query import cost_sums
from meter.rating.costs.rated_days import RatedDay
from meter.rating.period import start_of_day

PARIS = ZoneInfo("Europe/Paris")
BEGIN, END = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)


def rated_day(day: date, amount: str, **fields: Any) -> RatedDay:
    defaults: dict[str, Any] = {
        "currency": "EUR",
        "account_id": "acme",
        "project_id": "blue",
        "resource_id": "vm-1",
        "sku": "vm",
        "unit": "Hours",
        "values": {"flavor": "m1.small"},
        "quantity": Decimal(24),
    }
    start, end = start_of_day(day, PARIS), start_of_day(day + timedelta(days=1), PARIS)
    return RatedDay(day=day, start=start, end=end, amount=Decimal(amount), **{**defaults, **fields})


DAYS = (
    rated_day(date(2026, 11, 1), "0.1"),
    rated_day(date(2026, 11, 2), "0.2"),
    rated_day(date(2026, 11, 2), "0.4", project_id="green", resource_id="vm-2", values={}),
    rated_day(date(2026, 12, 31), "0.8", sku="disk", resource_id="disk-1", currency="JPY"),
)


async def stream(days: tuple[RatedDay, ...] = DAYS) -> AsyncIterator[RatedDay]:
    for day in days:
        yield day


def result_of(work: Coroutine[Any, Any, Any]) -> Any:
    results: list[Any] = []
    Deferred.fromCoroutine(work).addBoth(results.append)
    [found] = results
    if hasattr(found, "raiseException"):
        found.raiseException()
    return found


def sums(**query: Any) -> list[tuple[Any, ...]]:
    found = result_of(cost_sums(stream(), CostQuery(begin=BEGIN, end=END, **query)))
    return [(*each.group, str(each.quantity), str(each.amount)) for each in found]


def test_without_groups_there_is_one_sum_of_the_whole_time() -> None:
    [found] = result_of(cost_sums(stream(), CostQuery(begin=BEGIN, end=END)))
    assert (found.begin, found.end, found.amount, found.quantity) == (BEGIN, END, Decimal("1.5"), Decimal(96))
    assert found.currencies == {"EUR", "JPY"}


def test_sums_are_exact() -> None:
    found = result_of(cost_sums(stream((rated_day(date(2026, 11, 1), "0.1"),) * 3), CostQuery(begin=BEGIN, end=END)))
    assert str(found[0].amount) == "0.3"


def test_groups_are_those_of_fields_and_values() -> None:
    assert sums(groupby=("type", "project_id")) == [
        ("disk", "blue", "24", "0.8"),
        ("vm", "blue", "48", "0.3"),
        ("vm", "green", "24", "0.4"),
    ]
    assert sums(groupby=("flavor",)) == [(None, "24", "0.4"), ("m1.small", "72", "1.1")]


def test_filters_of_several_names_all_hold_and_of_one_name_any() -> None:
    assert sums(filters={"type": ["vm"], "project_id": ["blue"]}) == [("48", "0.3")]
    assert sums(filters={"project_id": ["blue", "green"], "type": ["vm"]}) == [("72", "0.7")]
    assert sums(filters={"id": ["nothing"]}) == []


@pytest.mark.parametrize(
    ("time", "begins"),
    [
        ("time", ["2026-10-31T23", "2026-11-01T23", "2026-12-30T23"]),
        ("time-d", ["2026-10-31T23", "2026-11-01T23", "2026-12-30T23"]),
        ("time-w", ["2026-10-26T00", "2026-11-02T00", "2026-12-28T00"]),
        ("time-m", ["2026-11-01T00", "2026-12-01T00"]),
        ("time-y", ["2026-01-01T00"]),
    ],
)
def test_times_are_those_of_the_days_of_the_book(time: str, begins: list[str]) -> None:
    found = result_of(cost_sums(stream(), CostQuery(begin=BEGIN, end=END, groupby=(time,))))
    assert [f"{each.begin:%Y-%m-%dT%H}" for each in found] == begins
    assert all(each.begin < each.end for each in found)


def test_number_of_groups_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_query, "MAX_GROUPS", 1)
    with pytest.raises(TooManyGroups):
        sums(groupby=("type",))


def test_a_page_has_its_points_and_the_number_of_all() -> None:
    query = CostQuery(begin=BEGIN, end=END, filters={"type": ["vm"]})
    page, total = result_of(cost_points(stream(), query, 1, 1))
    assert ([str(each.amount) for each in page], total) == (["0.2"], 3)


@pytest.mark.parametrize(
    ("query", "expected"), [({}, False), ({"groupby": ("id",)}, True), ({"filters": {"id": ["x"]}}, True)]
)
def test_resources_are_told_apart_only_if_they_matter(query: Any, expected: bool) -> None:
    assert CostQuery(begin=BEGIN, end=END, **query).by_resource is expected
