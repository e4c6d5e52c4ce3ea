"""Statistics in SQL: one row per unit, group and window that has samples."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any

from meter.counter_runs import RunKind
from meter.interfaces import RequestError
from meter.query import Aggregate
from meter.query import Statistics
from meter.query import StatisticsQuery
from meter.store.maintenance.rollups import DAY
from meter.store.maintenance.rollups import HOUR
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import filled
from meter.store.postgres.sql import following
from meter.store.query.conditions import SERIES_FIELDS
from meter.store.query.conditions import answerable_by_rollups
from meter.store.query.conditions import column_of
from meter.store.query.expressions import METADATA
from meter.store.query.metadata import metadata_values
from meter.store.query.partials import INCREASE_BETWEEN
from meter.store.query.partials import PIECE
from meter.store.query.partials import carried_hours
from meter.store.query.partials import pieces
from meter.testing.statistics import SECONDS_IN_HOUR
from meter.testing.statistics import fraction

AGGREGATES = {
    "max": "max(max_volume)",
    "min": "min(min_volume)",
    "sum": "sum(sum_volume)",
    "avg": "sum(sum_volume) / sum(count)",
    "count": "sum(count)",
    "stddev": "sqrt((merge_deviations(ARRAY[count, sum_volume, squared_deviations]))[3] / sum(count))",
    "increase": "coalesce(sum(grown), 0)",
    "rate": "coalesce(sum(grown / nullif(seen, 0)), 0)",
    "integral": "coalesce(sum(lasted), 0)",
}
"""Each by the pieces of its cell, a window, unit and group."""

OF_GROWTH = frozenset({"increase", "rate"})
"""Aggregates of the steps from a sample of a run to the next one, see :mod:`meter.testing.statistics`."""

OF_STEPS = ("first_volume", "last_volume", "increase", "integral", "tie")
OF_ALL = tuple(column for column in PIECE if column not in (*OF_STEPS, "squared_deviations"))
"""Columns of pieces that every answer is made of; only few need more."""

# A run by host whose first sample is later than some sample by another host has arrived: it counts from zero.
GROWING = f""", of_runs AS (
    SELECT *, lag(last_volume) OVER step AS volume_before, lag(last) OVER step AS before,
        min(first) OVER (PARTITION BY meter, unit, resource_id, run_kind) AS first_of_kind
    FROM {{cells}}
    WINDOW step AS (PARTITION BY meter, unit, resource_id, run_kind, run_id ORDER BY first, tie)
), growing AS (
    SELECT *, increase + coalesce({INCREASE_BETWEEN}, CASE
            WHEN before IS NULL AND run_kind > {RunKind.DECLARED:d} AND first_of_kind < first THEN first_volume END, 0) AS grown,
        sum(extract(epoch FROM last - coalesce(before, first))::float8)
            OVER (PARTITION BY window_start, unit, resource_id {{grouped}}) AS seen
    FROM of_runs
)"""

# Pieces that overlap are read only where their samples are gone: what lies between them is told within them.
LASTING = f""", of_resources AS (
    SELECT *, lead(first) OVER step AS next, lead(first) OVER of_run IS NOT NULL AS continued
    FROM {{cells}}
    WINDOW step AS (PARTITION BY meter, unit, resource_id ORDER BY first, tie),
        of_run AS (PARTITION BY meter, unit, resource_id, run_kind, run_id ORDER BY first, tie)
), lasting AS (
    SELECT *, integral + coalesce(last_volume
        * {carried_hours("greatest(next - last, '0')", within_run="continued")}, 0) AS lasted
    FROM of_resources
)"""

OF_STEPPING_SERIES = {
    "meter": "m.name",
    "resource_id": "x.resource_id",
    "run_kind": "x.run_kind",
    "run_id": "x.run_id",
}
"""Between which pieces steps lead."""

CARDINALITIES = ("resource_id", "user_id", "project_id")
LONGEST_PERIOD = 10**10
"""Seconds: more than three centuries; more overflows PostgreSQL's intervals in the end."""

ANSWER = """
WITH matching AS ({pieces}), cell AS (
    SELECT *, {window} AS window_start FROM matching
) {growing} {lasting}, rows AS (
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
    grown, lasted = bool(functions & OF_GROWTH), "integral" in functions
    columns = dict.fromkeys(group.column for group in groups)
    names = [f"name_{n}.name" if group.table else group.column for n, group in enumerate(groups)]
    grouped = "".join(f", {column}" for column in columns)
    return filled(
        ANSWER,
        pieces=_pieces(query, groups, grown, lasted),
        window=_window(query),
        growing=GROWING.format(cells="cell", grouped=grouped) if grown else "",
        lasting=LASTING.format(cells="growing" if grown else "cell") if lasted else "",
        cells="lasting" if lasted else "growing" if grown else "cell",
        grouped=grouped,
        aggregates=following(
            Sql(f"{value} AS value_{n}", value.parameters) for n, value in enumerate(map(_aggregate, query.aggregates))
        ),
        groups="".join(f", {name}" for name in names),
        values="".join(f", value_{n}" for n in range(len(query.aggregates))),
        named=" ".join(
            f"LEFT JOIN LATERAL (SELECT name FROM {group.table} WHERE id = rows.{group.column} OFFSET 0) AS name_{n} ON true"
            for n, group in enumerate(groups)
            if group.table
        ),
        order="".join(f""", coalesce({name}, '') COLLATE "C" """ for name in names),
    )


def _pieces(query: StatisticsQuery, groups: Sequence[_Group], grown: bool, lasted: bool) -> Sql:
    """Return the pieces that ``query`` is about, each with what says in which row of the answer it counts."""
    functions = {aggregate.function for aggregate in query.aggregates}
    steps = grown or lasted
    counted = [aggregate.param for aggregate in query.aggregates if aggregate.function == "cardinality"]
    keys = {
        "unit": "m.unit",
        **(OF_STEPPING_SERIES if steps else {}),
        **({"polling_interval": "x.polling_interval"} if lasted else {}),
        **{
            column: f"x.{column}" for column in (*counted, *(group.column for group in groups if group.table)) if column
        },
    }
    values = {group.column: group.value for group in groups if group.value}
    columns = (*OF_ALL, *(["squared_deviations"] if "stddev" in functions else []), *(OF_STEPS if steps else []))
    # Overlaps with other runs matter to what is carried from one to the other only.
    least_overlap = 1 if lasted else 2 if grown else 0
    return pieces(query.filter, _longest_rollup(query), keys, values, columns, least_overlap)


def _longest_rollup(query: StatisticsQuery) -> int:
    """Return how many hours a rollup may tell at once to be of use for ``query``, 0 if only samples are."""
    filter, period = query.filter, query.period
    if not answerable_by_rollups(filter) or any(aggregate.function == "percentile" for aggregate in query.aggregates):
        return 0
    if period is None:
        return DAY
    if filter.start is None:
        return 0
    start = filter.start.astimezone(UTC)
    if (start.minute, start.second, start.microsecond) != (0, 0, 0) or period % SECONDS_IN_HOUR:
        return 0
    return DAY if start.hour == 0 and period % (DAY * SECONDS_IN_HOUR) == 0 else HOUR


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
        return Sql("percentile_cont(%s) WITHIN GROUP (ORDER BY sum_volume)", (fraction(aggregate),))
    if aggregate.function in AGGREGATES and aggregate.param is None:
        return Sql(AGGREGATES[aggregate.function])
    raise RequestError(
        f"there is no aggregate {aggregate.label!r}:"
        f" use {', '.join(AGGREGATES)}, percentile, or cardinality of {', '.join(CARDINALITIES)}"
    )
