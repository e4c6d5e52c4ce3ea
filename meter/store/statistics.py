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
from meter.reckoning import fraction
from meter.store.conditions import SERIES_FIELDS
from meter.store.conditions import column_of
from meter.store.conditions import of_sample
from meter.store.conditions import of_series
from meter.store.expressions import METADATA
from meter.store.metadata import metadata_values
from meter.store.sql import Sql

AGGREGATES = {
    "max": "max(volume)",
    "min": "min(volume)",
    "sum": "sum(volume)",
    "avg": "avg(volume)",
    "count": "count(*)",
    "stddev": "stddev_pop(volume)",
    "increase": "coalesce(sum(grown), 0)",
    "rate": "coalesce(sum(grown / nullif(seen, 0)), 0)",
    "integral": "coalesce(sum(lasting), 0)",
}

STEPPING = frozenset({"increase", "rate", "integral"})
"""Aggregates of the steps from a sample of a resource to the next one, see :mod:`meter.reckoning`."""

STEPS = """, stepped AS (
    SELECT *,
        lag(volume) OVER step AS volume_before, lag(timestamp) OVER step AS before, lead(timestamp) OVER step AS next
    FROM matching
    WINDOW step AS (PARTITION BY meter, unit, resource_id ORDER BY timestamp, message_id)
), measured AS (
    SELECT *,
        CASE WHEN volume >= volume_before THEN volume - volume_before WHEN before IS NOT NULL THEN volume END AS grown,
        volume * (extract(epoch FROM next - timestamp)::float8 / 3600) AS lasting,
        sum(extract(epoch FROM timestamp - before)::float8)
            OVER (PARTITION BY {window}, unit, resource_id {grouped}) AS seen
    FROM stepped
)"""

CARDINALITIES = ("resource_id", "user_id", "project_id")
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
    steps = any(aggregate.function in STEPPING for aggregate in query.aggregates)
    by_metadata = any(grouping.startswith(METADATA) for grouping in query.groupby)
    window = _window(query)
    text = f"""
        WITH matching AS (
            SELECT s.timestamp, s.volume, s.message_id, m.name AS meter, m.unit, x.resource_id, x.user_id, x.project_id
                {"".join(f", {value} AS {column}" for column, value, _ in groups)}
            FROM sample s
            JOIN series x ON x.id = s.series_id
            JOIN meter m ON m.id = x.meter_id
            {"JOIN metadata d ON d.id = s.metadata_id" if by_metadata else ""}
            WHERE {series} AND {sample}
        ) {STEPS.format(window=window, grouped=grouped) if steps else ""}, rows AS (
            SELECT {window} AS window_start, unit, min(timestamp) AS first, max(timestamp) AS last {grouped}
                {"".join(f", {_aggregate(aggregate)} AS value_{n}" for n, aggregate in enumerate(query.aggregates))}
            FROM {"measured" if steps else "matching"}
            GROUP BY window_start, unit {grouped}
        )
        SELECT window_start, unit, first, last
            {"".join(f", {name}" for name in names)}
            {"".join(f", value_{n}" for n in range(len(query.aggregates)))}
        FROM rows
        ORDER BY coalesce(window_start, first), unit {order}
    """
    values = (value for _, group, _ in groups for value in group.parameters)
    windows = window.parameters * (2 if steps else 1)
    percentiles = (fraction(each) for each in query.aggregates if each.function == "percentile")
    return Sql(text, (*values, *series.parameters, *sample.parameters, *windows, *percentiles))


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
    if aggregate.function == "percentile":
        return "percentile_cont(%s) WITHIN GROUP (ORDER BY volume)"
    if aggregate.function in AGGREGATES and aggregate.param is None:
        return AGGREGATES[aggregate.function]
    raise RequestError(
        f"there is no aggregate {aggregate.label!r}:"
        f" use {', '.join(AGGREGATES)}, percentile, or cardinality of {', '.join(CARDINALITIES)}"
    )
