"""Statistics in SQL: one row per unit, group and window that has samples."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
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
from meter.store.conditions import about_resources
from meter.store.conditions import column_of
from meter.store.conditions import of_metadata
from meter.store.conditions import of_range
from meter.store.conditions import of_sample
from meter.store.conditions import of_series
from meter.store.conditions import told_by_stretches
from meter.store.expressions import METADATA
from meter.store.metadata import metadata_values
from meter.store.rollups import ADJOINING
from meter.store.rollups import DAY
from meter.store.rollups import GAPS
from meter.store.rollups import GROWN
from meter.store.rollups import HOUR
from meter.store.rollups import PIECE
from meter.store.rollups import piece_of_rollup
from meter.store.rollups import piece_of_sample
from meter.store.sql import Sql
from meter.store.sql import both
from meter.store.sql import filled

AGGREGATES = {
    "max": "max(largest)",
    "min": "min(smallest)",
    "sum": "sum(total)",
    "avg": "sum(total) / sum(count)",
    "count": "sum(count)",
    "stddev": "sqrt((spread(ARRAY[count, total, deviation]))[3] / sum(count))",
    "increase": "coalesce(sum(grown), 0)",
    "rate": "coalesce(sum(grown / nullif(seen, 0)), 0)",
    "integral": "coalesce(sum(lasting), 0)",
}
"""Each by the pieces of its cell, a window, unit and group."""

STEPPING = frozenset({"increase", "rate", "integral"})
"""Aggregates of the steps from a sample of a resource to the next one, see :mod:`meter.reckoning`."""

OF_STEPS = ("first_volume", "last_volume", "increase", "integral", "tie")
OF_ALL = tuple(column for column in PIECE if column not in (*OF_STEPS, "deviation"))
"""Columns of pieces that every answer is made of; only few need more."""

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
SELECT {keys} {values}, {of_sample}
FROM sample s JOIN series x ON x.id = s.series_id JOIN meter m ON m.id = x.meter_id {described_sample}
WHERE {series} AND {sample}
"""

# Days and hours that are settled and lie in the range are told by rollups, what lies between them by samples only; of a
# past whose samples were let go, hours tell in the gaps too: nothing can be late for them.
# Series whose keys are the same are looked up together, one range of time after the other: so their rows come with the
# keys, in the order of the index. OFFSET 0 keeps PostgreSQL to it: it cannot know how few ranges there are, and how narrow.
ROLLED = """
WITH own AS MATERIALIZED (
    SELECT x.id, x.meter_id, {keys} FROM series x JOIN meter m ON m.id = x.meter_id WHERE x.resource_id > 0 AND {series}
), alike AS MATERIALIZED (
    SELECT {keys}, array_agg(x.id) AS ids FROM series x JOIN meter m ON m.id = x.meter_id WHERE {rolled} AND {series}
    GROUP BY {values_of_keys}
), span AS MATERIALIZED (
    SELECT h.start, h.hours FROM settled h WHERE h.hours = {longest} AND {of_span} {untangled}
    UNION ALL
    SELECT h.start, h.hours FROM settled h
    WHERE h.hours = 1 AND {longest} = 24 AND {of_span} {untangled} AND date_trunc('day', h.start) NOT IN (
        SELECT h.start FROM settled h WHERE h.hours = 24 AND {of_span} {untangled}
    )
), told AS MATERIALIZED ({adjoining}), gap AS MATERIALIZED ({gaps}), past AS MATERIALIZED (
    SELECT m.id AS meter_id, max(h.before) AS before FROM horizon h JOIN meter m ON h.meter IN (m.name, '') GROUP BY m.id
)
SELECT piece.* FROM told CROSS JOIN alike CROSS JOIN LATERAL (
    SELECT {names} {values}, {of_rollup} FROM rollup r {described_rollup}
    WHERE r.hours = told.hours AND r.series_id = ANY(alike.ids) AND r.start >= told.start AND r.start < told.finish
        AND {metadata}
    OFFSET 0
) AS piece
UNION ALL
SELECT piece.* FROM gap CROSS JOIN LATERAL (
    SELECT {names} {values}, {of_sample}
    FROM own JOIN sample s ON s.series_id = own.id LEFT JOIN past ON past.meter_id = own.meter_id {described_sample}
    WHERE s.timestamp >= gap.start AND s.timestamp < gap.finish AND {range}
        AND (past.before IS NULL OR s.timestamp >= past.before) AND {metadata}
    OFFSET 0
) AS piece
UNION ALL
SELECT {keys} {values}, {of_rollup}
FROM past JOIN series x ON x.meter_id = past.meter_id JOIN meter m ON m.id = x.meter_id
    JOIN rollup r ON r.series_id = x.id {described_rollup} CROSS JOIN gap
WHERE r.hours = 1 AND r.start >= gap.start AND r.start < gap.finish AND r.start < past.before AND {of_whole}
    AND {rolled} AND {series} AND {metadata}
"""

# What a rollup of several metadata tells is asked of its samples.
MIXED = """
UNION ALL
SELECT piece.* FROM told CROSS JOIN LATERAL (
    SELECT {names} {values}, {of_sample}
    FROM own JOIN rollup r ON r.series_id = own.id
    JOIN sample s ON s.series_id = r.series_id AND s.timestamp >= r.first AND s.timestamp <= r.last {described_sample}
    WHERE r.hours = told.hours AND r.start >= told.start AND r.start < told.finish AND r.metadata_id = 0
        AND {range} AND {metadata}
    OFFSET 0
) AS piece
"""

ANSWER = """
WITH matching AS ({pieces}), cell AS (
    SELECT *, {window} AS window_start FROM matching
) {stepped}, rows AS (
    SELECT window_start, unit, min(first) AS first, max(last) AS last {grouped} {aggregates}
    FROM {cells} GROUP BY window_start, unit {grouped}
)
SELECT window_start, unit, first, last {groups} {values}
FROM rows {named}
ORDER BY coalesce(window_start, first), unit {order}
"""


@dataclass(frozen=True, slots=True)
class _Group:
    """One grouping: its column in the pieces, and where its names are if that is an id, or else its value in metadata."""

    column: str
    table: str | None = None
    value: Sql | None = None


def statistics_statement(query: StatisticsQuery) -> Sql:
    """Return the statement that answers ``query``: window, unit, first, last, the groups, the aggregates.

    It adds up rollups as far as they can tell, and samples for the rest, of one snapshot. :class:`RequestError` for a
    grouping or an aggregate that does not exist.
    """
    groups = [_group(n, grouping) for n, grouping in enumerate(query.groupby)]
    functions = {aggregate.function for aggregate in query.aggregates}
    steps = bool(functions & STEPPING)
    columns = dict.fromkeys(group.column for group in groups)
    names = [f"name_{n}.name" if group.table else group.column for n, group in enumerate(groups)]
    grouped = "".join(f", {column}" for column in columns)
    return filled(
        ANSWER,
        pieces=_pieces(query, groups, steps),
        window=_window(query),
        stepped=STEPPED.format(grouped=grouped) if steps else "",
        cells="measured" if steps else "cell",
        grouped=grouped,
        aggregates=_after(
            Sql(f"{value} AS value_{n}", value.parameters) for n, value in enumerate(map(_aggregate, query.aggregates))
        ),
        groups="".join(f", {name}" for name in names),
        values="".join(f", value_{n}" for n in range(len(query.aggregates))),
        named=" ".join(
            f"LEFT JOIN {group.table} AS name_{n} ON name_{n}.id = rows.{group.column}"
            for n, group in enumerate(groups)
            if group.table
        ),
        order="".join(f""", coalesce({name}, '') COLLATE "C" """ for name in names),
    )


def _pieces(query: StatisticsQuery, groups: Sequence[_Group], steps: bool) -> Sql:
    """Return the pieces that ``query`` is about, each with the keys that its row of the answer depends on."""
    filter = query.filter
    functions = {aggregate.function for aggregate in query.aggregates}
    counted = [aggregate.param or "" for aggregate in query.aggregates if aggregate.function == "cardinality"]
    keys = {
        "unit": "m.unit",
        **({"meter": "m.name", "resource_id": "x.resource_id"} if steps else {}),
        **{column: f"x.{column}" for column in counted},
        **{group.column: f"x.{group.column}" for group in groups if group.table},
    }
    columns = (*OF_ALL, *(["deviation"] if "stddev" in functions else []), *(OF_STEPS if steps else []))
    values = [(group.column, group.value) for group in groups if group.value]
    metadata = of_metadata(filter)
    longest = _longest_rollup(query)
    mixed = longest and (values or metadata)
    totals = not mixed and "resource_id" not in keys and not about_resources(filter)
    described = "JOIN metadata d ON d.id = {}.metadata_id" if values or mixed else ""
    return filled(
        RAW if not longest else ROLLED + MIXED if mixed else ROLLED,
        keys=", ".join(f"{value} AS {name}" for name, value in keys.items()),
        names=", ".join(keys),
        values_of_keys=", ".join(keys.values()),
        values=_after(Sql(f"{value} AS {column}", value.parameters) for column, value in values),
        of_sample=piece_of_sample(columns),
        of_rollup=piece_of_rollup(columns),
        described_sample=described.format("s"),
        described_rollup=described.format("r"),
        series=of_series(filter),
        sample=of_sample(filter),
        range=of_range(filter),
        metadata=metadata or "true",
        rolled="x.resource_id = 0" if totals else "x.resource_id > 0",
        longest=longest,
        of_span=_within("h", filter),
        of_whole=_within("r", filter),
        untangled="AND NOT h.tangled" if steps else "",
        adjoining=ADJOINING.format(spans="span"),
        gaps=GAPS.format(spans="span"),
    )


def _longest_rollup(query: StatisticsQuery) -> int:
    """Return how many hours a rollup may tell at once to be of use for ``query``, 0 if only samples are."""
    filter, period = query.filter, query.period
    if not told_by_stretches(filter) or any(aggregate.function == "percentile" for aggregate in query.aggregates):
        return 0
    if period is None:
        return DAY
    if filter.start is None:
        return 0
    start = filter.start.astimezone(UTC)
    if (start.minute, start.second, start.microsecond) != (0, 0, 0) or period % SECONDS_IN_HOUR:
        return 0
    return DAY if start.hour == 0 and period % (DAY * SECONDS_IN_HOUR) == 0 else HOUR


def _within(table: str, filter: SampleFilter) -> Sql:
    """Ask a row of ``table`` whether all of its hours lie in the range of ``filter``."""
    bounds = []
    if filter.start is not None:
        bounds.append(Sql(f"{table}.start {'>' if filter.after_start else '>='} %s", (filter.start,)))
    if filter.end is not None:
        bounds.append(Sql(f"{table}.start + make_interval(hours => {table}.hours) <= %s", (filter.end,)))
    return both(bounds)


def _after(expressions: Iterable[Sql]) -> Sql:
    """Return ``expressions`` as they follow others in a list."""
    listed = [Sql(f", {expression}", expression.parameters) for expression in expressions]
    return Sql("".join(map(str, listed)), tuple(value for each in listed for value in each.parameters))


def statistics_rows(query: StatisticsQuery, rows: Iterable[Sequence[Any]]) -> list[Statistics]:
    """Return the answer that ``rows`` hold."""
    period, groupby, groups = query.period or 0, query.groupby, len(query.groupby)
    labels = [aggregate.label for aggregate in query.aggregates]
    return [
        Statistics(
            unit=unit,
            group=dict(zip(groupby, rest[:groups], strict=True)),
            period=period,
            period_start=window_start or first,
            period_end=_end(window_start, period) if window_start else last,
            first=first,
            last=last,
            values=dict(zip(labels, map(float, rest[groups:]), strict=True)),
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


def _group(n: int, grouping: str) -> _Group:
    if grouping in SERIES_FIELDS:
        return _Group(column_of(grouping), table=SERIES_FIELDS[grouping])
    if grouping.startswith(METADATA) and len(grouping) > len(METADATA):
        values = metadata_values(grouping.removeprefix(METADATA))
        return _Group(f"group_{n}", value=Sql(f"coalesce({values}) #>> '{{}}'", values.parameters))
    raise RequestError(f"samples cannot be grouped by {grouping!r}: use {', '.join(SERIES_FIELDS)} or metadata.<key>")


def _aggregate(aggregate: Aggregate) -> Sql:
    if aggregate.function == "cardinality" and aggregate.param in CARDINALITIES:
        return Sql(f"count(DISTINCT nullif({aggregate.param}, 0))")
    if aggregate.function == "percentile":
        return Sql("percentile_cont(%s) WITHIN GROUP (ORDER BY total)", (fraction(aggregate),))
    if aggregate.function in AGGREGATES and aggregate.param is None:
        return Sql(AGGREGATES[aggregate.function])
    raise RequestError(
        f"there is no aggregate {aggregate.label!r}:"
        f" use {', '.join(AGGREGATES)}, percentile, or cardinality of {', '.join(CARDINALITIES)}"
    )
