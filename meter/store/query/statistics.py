"""The statement that computes statistics: one row per unit, group and window that has samples.

:mod:`meter.testing.statistics` defines what the aggregates mean.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any
from typing import NamedTuple

from meter.interfaces import RequestError
from meter.query import Aggregate
from meter.query import AggregateFunction
from meter.query import Statistics
from meter.query import StatisticsQuery
from meter.store.maintenance.rollups import DAY
from meter.store.maintenance.rollups import HOUR
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import filled
from meter.store.postgres.sql import following
from meter.store.query.before_range import COVER_KNOWN
from meter.store.query.before_range import BeforeRange
from meter.store.query.conditions import SERIES_FIELDS
from meter.store.query.conditions import TRUE
from meter.store.query.conditions import FilterConditions
from meter.store.query.conditions import series_column
from meter.store.query.conditions import split_filter
from meter.store.query.expressions import METADATA_PREFIX
from meter.store.query.first_sample import first_sample
from meter.store.query.metadata import metadata_values
from meter.store.query.metadata_resources import TABLE
from meter.store.query.metadata_resources import are_narrowed
from meter.store.query.metadata_resources import resources_of_metadata
from meter.store.query.partials import PARTIAL_COLUMNS
from meter.store.query.partials_query import matching_partial
from meter.store.query.partials_query import of_several_hosts
from meter.store.query.partials_query import partials_query
from meter.store.query.partials_query import reads_totals
from meter.store.query.partials_query import series_with_rollups
from meter.store.query.partials_query import series_with_samples
from meter.store.query.series_ends import WeeksBefore
from meter.store.query.steps import with_increase
from meter.store.query.steps import with_integral
from meter.store.query.windows import Windows

ORIGIN = "(SELECT first FROM origin)"
"""Where windows begin if the query names no start and reads rollups."""

SHORTEST_OF_TOTALS = 60
"""Seconds of windows that can contain a minute."""

SHORTEST_WITH_WHOLE_HOURS = 2 * 3600
"""Seconds of windows that contain a whole hour wherever they begin."""

AGGREGATES = {
    "max": "max(max_volume)",
    "min": "min(min_volume)",
    "sum": "sum(sum_volume)",
    "avg": "sum(sum_volume) / sum(count)",
    "count": "sum(count)",
    "stddev": "sqrt((merge_deviations(ARRAY[count, sum_volume, squared_deviations]))[3] / sum(count))",
    "increase": "coalesce(sum(total_increase), 0)",
    "rate": "coalesce(sum(total_increase / nullif(run_seconds, 0)), 0)",
    "integral": "coalesce(sum(total_integral), 0)",
    "first": "(min(ARRAY[date_part('epoch', first), first_volume]))[2]",
    "last": "(max(ARRAY[date_part('epoch', last), last_volume]))[2]",
    "polling_interval": "max(polling_interval)",
}
"""Each aggregate as SQL over the partials of one window, unit and group."""

INCREASES = frozenset({"increase", "rate"})
"""Aggregates of the steps from each sample of a run to the next one."""

STEPS = INCREASES | {"integral"}
"""Aggregates of the steps between samples."""

OF_SINGLE_SAMPLES = STEPS | {"percentile"}
"""Aggregates that sums of several samples cannot serve."""

STEP_COLUMNS = ("first_volume", "last_volume", "increase", "integral", "tie")
"""Columns of partials that only aggregates of steps need: ``increase``, ``rate`` and ``integral``."""

END_COLUMNS: Mapping[AggregateFunction, str] = {"first": "first_volume", "last": "last_volume"}
"""The column of partials that each of these aggregates needs. Rollups of all resources together do not have it."""

BASIC_COLUMNS = tuple(column for column in PARTIAL_COLUMNS if column not in (*STEP_COLUMNS, "squared_deviations"))
"""Columns of partials that all statistics need."""

RUN_KEYS = {
    "meter": "m.name",
    "resource_id": "x.resource_id",
    "run_kind": "x.run_kind",
    "run_id": "x.run_id",
}
"""The columns that identify, together with the unit, the run of a partial."""

CARDINALITIES = ("resource_id", "user_id", "project_id")
MAX_PERIOD = 10**10
"""Seconds, more than three centuries: much longer periods overflow PostgreSQL's intervals."""

STATISTICS = """
WITH {resources} {origin} partial AS ({partials}), windowed AS NOT MATERIALIZED (
    SELECT *, {window} AS window_start {selected} FROM partial
) {increases} {integrals}, aggregated AS (
    SELECT window_start, unit, min(first) AS first, max(last) AS last {grouped} {aggregates}
    FROM {source} {matching} GROUP BY window_start, unit {grouped}
)
SELECT window_start, unit, first, last {groups} {values}{known}
FROM aggregated {joins}
ORDER BY coalesce(window_start, first), unit {order}
LIMIT {limit}
"""


@dataclass(frozen=True, slots=True)
class _Group:
    """One grouping by ``column`` of the partials.

    Either ``table`` has the names of the ids in that column, or ``metadata_value`` is SQL for it over the metadata ``d``.
    """

    column: str
    table: str | None = None
    metadata_value: Sql | None = None


def looks_before(query: StatisticsQuery) -> bool:
    """Return whether the statement for ``query`` looks up what was before its start, and can do so in few weeks."""
    functions = {aggregate.function for aggregate in query.aggregates}
    return query.filter.start is not None and query.filter.as_of is None and not STEPS.isdisjoint(functions)


def statistics_statement(query: StatisticsQuery, weeks: WeeksBefore | None = None) -> Sql:
    """Return the statement for ``query``; its columns are the window's start, unit, first, last, the groups, the aggregates.

    With ``weeks``, if it :func:`looks_before`, one more column tells whether the weeks suffice: the rows are right only if it is true in all of them.

    It aggregates rollups, and samples where no rollup will do, from one snapshot. :class:`RequestError` for an unknown
    grouping or aggregate.
    """
    groups = [_group(n, grouping) for n, grouping in enumerate(query.groupby)]
    functions = {aggregate.function for aggregate in query.aggregates}
    increase, integral = bool(functions & INCREASES), "integral" in functions
    conditions = split_filter(query.filter)
    conditions = replace(conditions, of_few_resources=are_narrowed(conditions))
    keys = _keys(query, groups)
    metadata_keys = {group.column: group.metadata_value for group in groups if group.metadata_value}
    totals = reads_totals(conditions, keys, metadata_keys)
    windows = _windows(query)
    longest_rollup = _longest_rollup(query, conditions, windows, totals=totals)
    by_origin = longest_rollup > 0 and windows is not None and windows.start is None
    selected = matching_partial(conditions) if increase or integral else "true"
    before = BeforeRange(
        query.filter.start,
        excluded=query.filter.after_start,
        as_of=conditions.as_of,
        with_rollups=longest_rollup > 0,
        weeks=weeks,
    )
    cover_known = weeks is not None and integral
    names = [f"name_{n}.name" if group.table else group.column for n, group in enumerate(groups)]
    grouped = "".join(f", {column}" for column in dict.fromkeys(group.column for group in groups))
    return filled(
        STATISTICS,
        resources=filled(f"{TABLE} AS MATERIALIZED ({{resources}}),", resources=resources_of_metadata(conditions))
        if conditions.of_few_resources
        else "",
        origin=_origin(conditions, totals=totals) if by_origin else "",
        partials=partials_query(
            conditions,
            keys=keys,
            metadata_keys=metadata_keys,
            columns=_columns(functions),
            longest_rollup=longest_rollup,
            steps=increase or integral,
            windows=windows,
            adds_up=functions.isdisjoint(OF_SINGLE_SAMPLES)
            and (windows is None or windows.start is not None or by_origin),
        ),
        window="NULL::timestamptz"
        if windows is None
        else windows.of("first")
        if by_origin
        else _window(windows, selected),
        selected="" if selected == "true" else f", {selected} AS selected",
        matching="" if selected == "true" else "WHERE selected",
        increases=with_increase(
            "windowed",
            before,
            of_several_hosts=of_several_hosts(conditions),
            all_selected=selected == "true",
            grouped=grouped,
        )
        if increase
        else "",
        integrals=with_integral("with_increase" if increase else "windowed", before) if integral else "",
        source="with_integral" if integral else "with_increase" if increase else "windowed",
        grouped=grouped,
        aggregates=following(
            [
                *(
                    Sql(f"{value} AS value_{n}", value.parameters)
                    for n, value in enumerate(map(_aggregate, query.aggregates))
                ),
                *([Sql(f"bool_and({COVER_KNOWN}) AS cover_known")] if cover_known else []),
            ]
        ),
        groups="".join(f", {name}" for name in names),
        values="".join(f", value_{n}" for n in range(len(query.aggregates))),
        known=filled(
            ", {all_final}{cover_known}",
            all_final=before.all_final(),
            cover_known=" AND cover_known" if cover_known else "",
        )
        if weeks
        else "",
        joins=" ".join(
            f"LEFT JOIN LATERAL (SELECT name FROM {group.table} WHERE id = aggregated.{group.column} OFFSET 0) AS name_{n} ON true"
            for n, group in enumerate(groups)
            if group.table
        ),
        order="".join(f""", coalesce({name}, '') COLLATE "C" """ for name in names),
        limit=Sql("%s", (query.limit,)),
    )


def _columns(functions: Collection[str]) -> tuple[str, ...]:
    """Return the columns of partials that aggregates of these ``functions`` need."""
    columns = BASIC_COLUMNS
    if "stddev" in functions:
        columns += ("squared_deviations",)
    if not STEPS.isdisjoint(functions):
        columns += STEP_COLUMNS
    return columns + tuple(
        column for function, column in END_COLUMNS.items() if function in functions and column not in columns
    )


def _keys(query: StatisticsQuery, groups: Sequence[_Group]) -> dict[str, str]:
    """Return the columns by which partials are told apart, as SQL over the series ``x`` and the meter ``m``."""
    functions = {aggregate.function for aggregate in query.aggregates}
    keys = {"unit": "m.unit"}
    if not STEPS.isdisjoint(functions):
        keys |= RUN_KEYS
    if not END_COLUMNS.keys().isdisjoint(functions):
        keys["resource_id"] = "x.resource_id"
    if "integral" in functions or "polling_interval" in functions:
        keys |= {"resource_id": "x.resource_id", "polling_interval": "x.polling_interval"}
    counted = (aggregate.param for aggregate in query.aggregates if aggregate.function == "cardinality")
    keys |= {column: f"x.{column}" for column in counted if column}
    return keys | {group.column: f"x.{group.column}" for group in groups if group.table}


def _windows(query: StatisticsQuery) -> Windows | None:
    """Return the windows of ``query``, ``None`` for a single one; :class:`RequestError` if they are too long."""
    if query.period is None:
        return None
    if not 0 < query.period <= MAX_PERIOD:
        raise RequestError(f"period must be from 1 to {MAX_PERIOD} seconds, not {query.period}")
    start = query.filter.start
    return Windows(query.period, start, Sql(ORIGIN) if start is None else Sql("%s", (start,)))


def _longest_rollup(
    query: StatisticsQuery, conditions: FilterConditions, windows: Windows | None, *, totals: bool
) -> int:
    """Return the longest rollups that ``query`` can use, in hours; 0 if it must read samples.

    Rollups keep no single volumes, and are of samples with the same series and the same metadata. Where windows cut hours,
    rollups of the others are worth reading only if there are many, or if ``totals`` by minute can take the place of samples.
    """
    functions = {aggregate.function for aggregate in query.aggregates}
    if conditions.rest != TRUE or "percentile" in functions:
        return 0
    if windows is None:
        return DAY
    if windows.aligned_hours:
        return windows.aligned_hours
    if windows.start is None and (conditions.metadata != TRUE or not STEPS.isdisjoint(functions)):
        return 0
    return HOUR if windows.seconds >= (SHORTEST_OF_TOTALS if totals else SHORTEST_WITH_WHOLE_HOURS) else 0


def _origin(conditions: FilterConditions, *, totals: bool) -> Sql:
    """Return the common table expression to which :data:`ORIGIN` refers."""
    series = conditions.series
    first = first_sample(series_with_samples(series), series_with_rollups(series, totals=totals))
    return filled("origin AS MATERIALIZED ({first}),", first=first)


class StatisticsResultRow(NamedTuple):
    """A row of :func:`statistics_statement`: one window, unit and group. Without a period ``window_start`` is ``None``."""

    window_start: datetime | None
    unit: str
    first: datetime
    last: datetime
    group: Sequence[str | None]
    values: Sequence[float]


def statistics_rows(query: StatisticsQuery, rows: Iterable[Sequence[Any]]) -> list[Statistics]:
    """Return the statistics in ``rows``, which :func:`statistics_statement` selects, whether with weeks or not."""
    labels = [aggregate.label for aggregate in query.aggregates]
    groups = len(query.groupby)
    end = groups + len(labels)
    period = query.period or 0
    length = timedelta(seconds=period)
    statistics = []
    for window_start, unit, first, last, *others in rows:
        row = StatisticsResultRow(window_start, unit, first, last, others[:groups], others[groups:end])
        statistics.append(
            Statistics(
                unit=row.unit,
                group=dict(zip(query.groupby, row.group, strict=True)),
                period=period,
                period_start=row.window_start or row.first,
                period_end=_end(row.window_start, length) if row.window_start else row.last,
                first=row.first,
                last=row.last,
                values=dict(zip(labels, map(float, row.values), strict=True)),
            )
        )
    return statistics


def _end(start: datetime, length: timedelta) -> datetime:
    try:
        return start + length
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def _window(windows: Windows, selected: str) -> Sql:
    """Return the window of a partial; without a start, the first matching partial begins the first window."""
    if windows.start is not None:
        return windows.of("first")
    # A second reference to all partials would read them twice.
    origin = (
        "(SELECT min(first) FROM partial)" if selected == "true" else f"min(first) FILTER (WHERE {selected}) OVER ()"
    )
    return replace(windows, origin=Sql(origin)).of("first")


def _group(n: int, grouping: str) -> _Group:
    if grouping in SERIES_FIELDS:
        return _Group(series_column(grouping), table=SERIES_FIELDS[grouping])
    if grouping.startswith(METADATA_PREFIX) and len(grouping) > len(METADATA_PREFIX):
        values = metadata_values(grouping.removeprefix(METADATA_PREFIX))
        return _Group(f"group_{n}", metadata_value=Sql(f"coalesce({values}) #>> '{{}}'", values.parameters))
    raise RequestError(f"samples cannot be grouped by {grouping!r}: use {', '.join(SERIES_FIELDS)} or metadata.<key>")


def _aggregate(aggregate: Aggregate) -> Sql:
    if aggregate.function == "cardinality" and aggregate.param in CARDINALITIES:
        return Sql(f"count(DISTINCT nullif({aggregate.param}, 0))")
    if aggregate.function == "percentile":
        try:
            return Sql("percentile_cont(%s) WITHIN GROUP (ORDER BY sum_volume)", (aggregate.fraction,))
        except ValueError as error:
            raise RequestError(str(error)) from error
    if aggregate.function in AGGREGATES and aggregate.param is None:
        return Sql(AGGREGATES[aggregate.function])
    raise RequestError(
        f"there is no aggregate {aggregate.label!r}:"
        f" use {', '.join(AGGREGATES)}, percentile, or cardinality of {', '.join(CARDINALITIES)}"
    )
