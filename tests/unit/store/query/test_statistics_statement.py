"""Statistics that cannot be computed are refused before anything is read, and rows become statistics."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any

import pytest

from meter.interfaces import RequestError
from meter.query import Aggregate
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.store.query.statistics import statistics_rows
from meter.store.query.statistics import statistics_statement

NOON = datetime(2026, 11, 18, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "query",
    [
        {"groupby": ("volume",)},
        {"groupby": ("metadata.",)},
        {"aggregates": (Aggregate("median"),)},  # type: ignore[arg-type]
        {"aggregates": (Aggregate("cardinality", "id"),)},
        {"aggregates": (Aggregate("max", "resource_id"),)},
        {"period": 0},
        {"period": -1},
        {"period": 10**11},
    ],
)
def test_statistics_with_an_unknown_grouping_aggregate_or_period_are_refused(query: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        statistics_statement(StatisticsQuery(filter=SampleFilter(), **query))


def test_row_has_a_value_for_each_group_and_aggregate() -> None:
    query = StatisticsQuery(
        filter=SampleFilter(),
        period=3600,
        groupby=("resource_id",),
        aggregates=(Aggregate("max"), Aggregate("cardinality", "user_id")),
    )
    last = NOON + timedelta(minutes=5)

    [row] = statistics_rows(query, [(NOON, "ns", NOON, last, "vm", 7.5, 2)])

    assert (row.unit, row.group, row.values) == ("ns", {"resource_id": "vm"}, {"max": 7.5, "cardinality/user_id": 2.0})
    assert (row.period, row.period_start, row.period_end) == (3600, NOON, NOON + timedelta(hours=1))
    assert (row.first, row.last) == (NOON, last)


def test_row_without_a_period_spans_the_first_to_the_last_sample() -> None:
    query = StatisticsQuery(filter=SampleFilter(), aggregates=(Aggregate("count"),))

    [row] = statistics_rows(query, [(None, "ns", NOON, NOON + timedelta(days=2), 3.0)])

    assert (row.period, row.period_start, row.period_end) == (0, NOON, NOON + timedelta(days=2))


def test_last_window_of_the_calendar_ends_with_it() -> None:
    query = StatisticsQuery(filter=SampleFilter(), period=86400, aggregates=(Aggregate("count"),))
    start = datetime(9999, 12, 31, 12, tzinfo=UTC)

    [row] = statistics_rows(query, [(start, "ns", start, start, 1.0)])

    assert row.period_end == datetime.max.replace(tzinfo=UTC)
