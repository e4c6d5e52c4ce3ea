"""Statistics in SQL: one row per unit, group and window that has samples."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any

from meter.interfaces import RequestError
from meter.query import Aggregate
from meter.query import Statistics
from meter.query import StatisticsQuery
from meter.store.conditions import SERIES_FIELDS
from meter.store.conditions import Sql
from meter.store.conditions import column_of
from meter.store.conditions import metadata_values
from meter.store.conditions import of_sample
from meter.store.conditions import of_series

AGGREGATES = {
    "max": "max(volume)",
    "min": "min(volume)",
    "sum": "sum(volume)",
    "avg": "avg(volume)",
    "count": "count(*)",
    "stddev": "stddev_pop(volume)",
}

CARDINALITIES = ("resource_id", "user_id", "project_id")
METADATA = "metadata."
LONGEST_PERIOD = 10**10
"""Seconds: more than three centuries; more overflows PostgreSQL's intervals in the end."""


def statistics_statement(query: StatisticsQuery) -> Sql:
    """Return the statement that answers ``query``: window, unit, first, last, the groups, the aggregates.

    :class:`RequestError` for a grouping or an aggregate that does not exist.
    """
    series, sample = of_series(query.filter), of_sample(query.filter)
    groups = [_group(f"group_{n}", grouping) for n, grouping in enumerate(query.groupby)]
    names = [_name(column, table) for column, _, table in groups]
    order = "".join(f""", coalesce({name}, '') COLLATE "C" """ for name in names)
    grouped = "".join(f", {column}" for column, _, _ in groups)
    by_metadata = any(grouping.startswith(METADATA) for grouping in query.groupby)
    window = _window(query)
    text = f"""
        WITH matching AS (
            SELECT s.timestamp, s.volume, m.unit, x.resource_id, x.user_id, x.project_id
                {"".join(f", {value} AS {column}" for column, value, _ in groups)}
            FROM sample s
            JOIN series x ON x.id = s.series_id
            JOIN meter m ON m.id = x.meter_id
            {"JOIN metadata d ON d.id = s.metadata_id" if by_metadata else ""}
            WHERE {series} AND {sample}
        ), rows AS (
            SELECT {window} AS window_start, unit, min(timestamp) AS first, max(timestamp) AS last {grouped}
                {"".join(f", {_aggregate(aggregate)} AS value_{n}" for n, aggregate in enumerate(query.aggregates))}
            FROM matching
            GROUP BY window_start, unit {grouped}
        )
        SELECT window_start, unit, first, last
            {"".join(f", {name}" for name in names)}
            {"".join(f", value_{n}" for n in range(len(query.aggregates)))}
        FROM rows
        ORDER BY coalesce(window_start, first), unit {order}
    """
    values = (value for _, group, _ in groups for value in group.parameters)
    return Sql(text, (*values, *series.parameters, *sample.parameters, *window.parameters))


def statistics_rows(query: StatisticsQuery, rows: Iterable[Sequence[Any]]) -> list[Statistics]:
    """Return the answer that ``rows`` hold."""
    groups = len(query.groupby)
    return [
        Statistics(
            unit=unit,
            group=dict(zip(query.groupby, rest[:groups], strict=True)),
            period=query.period or 0,
            period_start=window_start or first,
            period_end=_end(window_start, query.period) if window_start and query.period else last,
            first=first,
            last=last,
            values={
                aggregate.label: float(value) for aggregate, value in zip(query.aggregates, rest[groups:], strict=True)
            },
        )
        for window_start, unit, first, last, *rest in rows
    ]


def _end(start: datetime, period: int) -> datetime:
    try:
        return start + timedelta(seconds=period)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def _window(query: StatisticsQuery) -> Sql:
    if query.period is None:
        return Sql("NULL::timestamptz")
    if not 0 < query.period <= LONGEST_PERIOD:
        raise RequestError(f"period must be from 1 to {LONGEST_PERIOD} seconds, not {query.period}")
    stride = "%s * interval '1 second'"
    if query.filter.start is None:
        return Sql(f"date_bin({stride}, timestamp, (SELECT min(timestamp) FROM matching))", (query.period,))
    return Sql(f"date_bin({stride}, timestamp, %s)", (query.period, query.filter.start))


def _group(column: str, grouping: str) -> tuple[str, Sql, str | None]:
    """Return a column for ``grouping``, its value in a matching sample, and the table that has its names if it is an id."""
    if grouping in SERIES_FIELDS:
        return column, Sql(f"x.{column_of(grouping)}"), SERIES_FIELDS[grouping]
    if grouping.startswith(METADATA) and len(grouping) > len(METADATA):
        values = metadata_values(grouping.removeprefix(METADATA))
        return column, Sql(f"coalesce({values}) #>> '{{}}'", values.parameters), None
    raise RequestError(f"samples cannot be grouped by {grouping!r}: use {', '.join(SERIES_FIELDS)} or metadata.<key>")


def _name(column: str, table: str | None) -> str:
    return column if table is None else f"(SELECT name FROM {table} WHERE id = {column})"


def _aggregate(aggregate: Aggregate) -> str:
    if aggregate.function == "cardinality" and aggregate.param in CARDINALITIES:
        return f"count(DISTINCT nullif({aggregate.param}, 0))"
    if aggregate.function in AGGREGATES and aggregate.param is None:
        return AGGREGATES[aggregate.function]
    raise RequestError(
        f"there is no aggregate {aggregate.label!r}:"
        f" use {', '.join(AGGREGATES)} or cardinality of {', '.join(CARDINALITIES)}"
    )
