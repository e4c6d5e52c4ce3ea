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
from meter.query import SampleFilter
from meter.query import Statistics
from meter.query import StatisticsQuery
from meter.reckoning import SECONDS_IN_HOUR
from meter.reckoning import fraction
from meter.store.conditions import SERIES_FIELDS
from meter.store.conditions import column_of
from meter.store.conditions import of_sample
from meter.store.conditions import of_series
from meter.store.conditions import only_series_and_range
from meter.store.expressions import METADATA
from meter.store.metadata import metadata_values
from meter.store.rollups import DAY
from meter.store.rollups import GAPS
from meter.store.rollups import GROWN
from meter.store.rollups import HOUR
from meter.store.rollups import OF_ROLLUP
from meter.store.rollups import OF_SAMPLE
from meter.store.sql import Sql
from meter.store.sql import both

AGGREGATES = {
    "max": "max(largest)",
    "min": "min(smallest)",
    "sum": "sum(total)",
    "avg": "sum(total) / sum(count)",
    "count": "sum(count)",
    "stddev": "sqrt(sum(deviation + count * (total / count - mean) ^ 2) / sum(count))",
    "increase": "coalesce(sum(grown), 0)",
    "rate": "coalesce(sum(grown / nullif(seen, 0)), 0)",
    "integral": "coalesce(sum(lasting), 0)",
}
"""Each by the pieces of its cell, a window, unit and group."""

STEPPING = frozenset({"increase", "rate", "integral"})
"""Aggregates of the steps from a sample of a resource to the next one, see :mod:`meter.reckoning`."""

STEPPED = f""", stepped AS (
    SELECT *, lag(last_volume) OVER step AS volume_before, lag(last) OVER step AS before, lead(first) OVER step AS next
    FROM cell
    WINDOW step AS (PARTITION BY meter, unit, resource_id ORDER BY first, tie)
), measured AS (
    SELECT *, increase + coalesce({GROWN}, 0) AS grown,
        integral + coalesce(last_volume * (extract(epoch FROM next - last)::float8 / 3600), 0) AS lasting,
        sum(extract(epoch FROM last - coalesce(before, first))::float8)
            OVER (PARTITION BY window_start, unit, resource_id {{grouped}}) AS seen
    FROM stepped
)"""

CARDINALITIES = ("resource_id", "user_id", "project_id")
LONGEST_PERIOD = 10**10
"""Seconds: more than three centuries; more overflows PostgreSQL's intervals in the end."""

RAW = """
SELECT s.series_id, {of_sample_piece} {values}
FROM sample s JOIN series x ON x.id = s.series_id {metadata}
WHERE {series} AND {sample}
"""

# The days and hours that are settled and lie in the range, and the ranges between them, which only samples tell.
# Of a past whose samples were let go, hours tell in the gaps too: nothing can be late for them.
# OFFSET 0 has PostgreSQL look into each gap by itself: it cannot know how narrow gaps are.
ROLLED = """
WITH span AS MATERIALIZED (
    SELECT h.start, h.hours FROM settled h
    WHERE h.hours = {longest} AND {of_span} {untangled}
    UNION ALL
    SELECT h.start, h.hours FROM settled h
    WHERE h.hours = 1 AND {longest} = 24 AND {of_span} {untangled} AND date_trunc('day', h.start) NOT IN (
        SELECT h.start FROM settled h WHERE h.hours = 24 AND {of_span} {untangled}
    )
), gap AS MATERIALIZED ({gaps}), past AS MATERIALIZED (
    SELECT m.id AS meter_id, max(h.before) AS before FROM horizon h JOIN meter m ON h.meter IN (m.name, '') GROUP BY m.id
)
SELECT s.* FROM gap CROSS JOIN LATERAL (
    SELECT s.series_id, {of_sample_piece}
    FROM series x JOIN sample s ON s.series_id = x.id LEFT JOIN past ON past.meter_id = x.meter_id
    WHERE s.timestamp >= gap.start AND s.timestamp < gap.finish AND {series} AND {sample}
    AND (past.before IS NULL OR s.timestamp >= past.before)
    OFFSET 0
) AS s
UNION ALL
SELECT r.series_id, {of_rollup} FROM series x JOIN rollup r ON r.series_id = x.id
WHERE r.hours = 24 AND r.start = ANY(ARRAY(SELECT start FROM span WHERE hours = 24)) AND {series}
UNION ALL
SELECT r.series_id, {of_rollup} FROM series x JOIN rollup r ON r.series_id = x.id
WHERE r.hours = 1 AND r.start = ANY(ARRAY(SELECT start FROM span WHERE hours = 1)) AND {series}
UNION ALL
SELECT r.series_id, {of_rollup}
FROM past JOIN series x ON x.meter_id = past.meter_id JOIN rollup r ON r.series_id = x.id AND r.hours = 1 CROSS JOIN gap
WHERE r.start >= gap.start AND r.start < gap.finish AND r.start < past.before AND {series} AND {of_whole}
"""


def statistics_statement(query: StatisticsQuery) -> Sql:
    """Return the statement that answers ``query``: window, unit, first, last, the groups, the aggregates.

    It adds up rollups as far as they can tell, and samples for the rest, of one snapshot. :class:`RequestError` for a
    grouping or an aggregate that does not exist.
    """
    groups = [_group(f"group_{n}", grouping) for n, grouping in enumerate(query.groupby)]
    names = [_name(column, table) for column, _, table in groups]
    order = "".join(f""", coalesce({name}, '') COLLATE "C" """ for name in names)
    grouped = "".join(f", {column}" for column, _, _ in groups)
    functions = {aggregate.function for aggregate in query.aggregates}
    steps = bool(functions & STEPPING)
    mean = "sum(total) OVER whole / sum(count) OVER whole" if "stddev" in functions else "NULL::float8"
    longest = _longest_rollup(query)
    pieces = _rolled(query, longest, steps) if longest else _raw(query, groups)
    window = _window(query)
    owned = [(column, value) for column, value, table in groups if table]
    text = f"""
        WITH matching AS (
            SELECT piece.*, m.name AS meter, m.unit, x.resource_id, x.user_id, x.project_id
                {"".join(f", {value} AS {column}" for column, value in owned)}
            FROM ({pieces}) AS piece JOIN series x ON x.id = piece.series_id JOIN meter m ON m.id = x.meter_id
        ), windowed AS (
            SELECT *, {window} AS window_start FROM matching
        ), cell AS (
            SELECT *, {mean} AS mean FROM windowed WINDOW whole AS (PARTITION BY window_start, unit {grouped})
        ) {STEPPED.format(grouped=grouped) if steps else ""}, rows AS (
            SELECT window_start, unit, min(first) AS first, max(last) AS last {grouped}
                {"".join(f", {_aggregate(aggregate)} AS value_{n}" for n, aggregate in enumerate(query.aggregates))}
            FROM {"measured" if steps else "cell"}
            GROUP BY window_start, unit {grouped}
        )
        SELECT window_start, unit, first, last
            {"".join(f", {name}" for name in names)}
            {"".join(f", value_{n}" for n in range(len(query.aggregates)))}
        FROM rows
        ORDER BY coalesce(window_start, first), unit {order}
    """
    percentiles = (fraction(each) for each in query.aggregates if each.function == "percentile")
    return Sql(text, (*pieces.parameters, *window.parameters, *percentiles))


def _longest_rollup(query: StatisticsQuery) -> int:
    """Return how many hours a rollup may tell at once to be of use for ``query``, 0 if only samples are."""
    filter, period = query.filter, query.period
    if (
        not only_series_and_range(filter)
        or any(grouping.startswith(METADATA) for grouping in query.groupby)
        or any(aggregate.function == "percentile" for aggregate in query.aggregates)
    ):
        return 0
    if period is None:
        return DAY
    if filter.start is None:
        return 0
    start = filter.start.astimezone(UTC)
    if (start.minute, start.second, start.microsecond) != (0, 0, 0) or period % SECONDS_IN_HOUR:
        return 0
    return DAY if start.hour == 0 and period % (DAY * SECONDS_IN_HOUR) == 0 else HOUR


def _rolled(query: StatisticsQuery, longest: int, steps: bool) -> Sql:
    filter = query.filter
    series, sample = of_series(filter), of_sample(filter)
    of_span = _within("h", filter)
    of_whole = _within("r", filter)
    text = ROLLED.format(
        longest=longest,
        of_span=of_span,
        untangled="AND NOT h.tangled" if steps else "",
        gaps=GAPS.format(spans="span"),
        of_sample_piece=OF_SAMPLE,
        of_rollup=OF_ROLLUP,
        series=series,
        sample=sample,
        of_whole=of_whole,
    )
    rolled = series.parameters * 3
    return Sql(text, (*of_span.parameters * 3, *series.parameters, *sample.parameters, *rolled, *of_whole.parameters))


def _within(table: str, filter: SampleFilter) -> Sql:
    """Ask a row of ``table`` whether all of its hours lie in the range of ``filter``."""
    bounds = []
    if filter.start is not None:
        bounds.append(Sql(f"{table}.start {'>' if filter.after_start else '>='} %s", (filter.start,)))
    if filter.end is not None:
        bounds.append(Sql(f"{table}.start + make_interval(hours => {table}.hours) <= %s", (filter.end,)))
    return both(bounds)


def _raw(query: StatisticsQuery, groups: Sequence[tuple[str, Sql, str | None]]) -> Sql:
    series, sample = of_series(query.filter), of_sample(query.filter)
    found = [(column, value) for column, value, table in groups if not table]
    text = RAW.format(
        of_sample_piece=OF_SAMPLE,
        values="".join(f", {value} AS {column}" for column, value in found),
        metadata="JOIN metadata d ON d.id = s.metadata_id" if found else "",
        series=series,
        sample=sample,
    )
    values = (parameter for _, value in found for parameter in value.parameters)
    return Sql(text, (*values, *series.parameters, *sample.parameters))


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
        return Sql(f"date_bin({stride}, first, (SELECT min(first) FROM matching))", (query.period,))
    return Sql(f"date_bin({stride}, first, %s)", (query.period, query.filter.start))


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
        return "percentile_cont(%s) WITHIN GROUP (ORDER BY total)"
    if aggregate.function in AGGREGATES and aggregate.param is None:
        return AGGREGATES[aggregate.function]
    raise RequestError(
        f"there is no aggregate {aggregate.label!r}:"
        f" use {', '.join(AGGREGATES)}, percentile, or cardinality of {', '.join(CARDINALITIES)}"
    )
