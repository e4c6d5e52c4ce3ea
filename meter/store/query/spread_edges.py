"""The newest and the oldest sample of each of many series of a spread store, found by one statement for lists of meters and resources.

They are one row of arrays, in the order of the ids of their series, and are found in it by bisection: a table of them would be searched
from its beginning for each series.
"""

from __future__ import annotations

from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import alternative
from meter.store.postgres.sql import filled
from meter.store.query.conditions import TRUE
from meter.store.query.conditions import FilterConditions
from meter.store.query.conditions import any_of_series
from meter.store.query.conditions import newest_of_series
from meter.store.query.time_range import TICK

COLUMNS = ("series_id", "timestamp", "message_id", "metadata_id")

EDGES = """
{name} AS MATERIALIZED (
    SELECT {arrays}
    FROM spread_samples_of_each(ARRAY(SELECT x.id FROM series x WHERE x.resource_id > 0 AND {series}), {first}, {last}, {oldest}, 1, false, false) s
)"""

EDGE = """
SELECT {columns} FROM (
    SELECT {elements} FROM {name} e CROSS JOIN LATERAL (SELECT width_bucket(x.id, e.series_ids) AS n OFFSET 0) AS place
    WHERE place.n > 0 AND e.series_ids[place.n] = x.id
) s WHERE {condition}
"""


def finds_edges(conditions: FilterConditions) -> bool:
    """Return whether the newest and the oldest sample of a series in the range meet ``conditions`` if any does."""
    return conditions.metadata == TRUE and conditions.rest == TRUE and conditions.marker == TRUE


def edge_tables(conditions: FilterConditions, *, oldest: bool) -> Sql:
    """Return the WITH clause of a statement with :func:`edge_of_each`: the newest samples, and the ``oldest`` if wanted."""
    if not finds_edges(conditions):
        return Sql("")
    names = ("newest_edge", "oldest_edge") if oldest else ("newest_edge",)
    tables = [_edges(conditions, name) for name in names]
    text = f"WITH {', '.join(map(str, tables))}"
    return alternative("", Sql(text, tuple(value for table in tables for value in table.parameters)))


def edge_of_each(
    conditions: FilterConditions, columns: str, condition: Sql | None = None, *, oldest: bool = False
) -> Sql:
    """Return the subquery of the newest sample of the series ``x`` that meets the conditions, or the ``oldest``.

    ``columns`` are some of ``s.timestamp``, ``s.message_id`` and ``s.metadata_id``. ``condition`` replaces those on the sample.
    """
    edge = _edge(conditions, columns, condition or conditions.sample, oldest=oldest)
    return newest_of_series(conditions, columns, 1, condition, oldest=oldest, spread=edge)


def any_of_each(conditions: FilterConditions) -> Sql:
    """Return the subquery that has a row if the series ``x`` has a sample that meets the conditions."""
    return any_of_series(
        conditions, spread=_edge(conditions, "s.timestamp, s.message_id", conditions.sample, oldest=False)
    )


def _edge(conditions: FilterConditions, columns: str, condition: Sql, *, oldest: bool) -> Sql | str:
    if not finds_edges(conditions):
        return ""
    return filled(
        EDGE,
        columns=columns,
        elements=", ".join(f"e.{column}s[place.n] AS {column}" for column in COLUMNS[1:]),
        name="oldest_edge" if oldest else "newest_edge",
        condition=condition,
    )


def _edges(conditions: FilterConditions, name: str) -> Sql:
    within, bounds = conditions.time_range, conditions.bounds
    return filled(
        EDGES,
        name=name,
        arrays=", ".join(f"array_agg(s.{column} ORDER BY s.series_id) AS {column}s" for column in COLUMNS),
        series=conditions.series,
        first=filled(f"{{time}} + {TICK}", time=bounds.first) if within.after_start and within.start else bounds.first,
        last=filled(f"{{time}} - {TICK}", time=bounds.last) if within.end and not within.through_end else bounds.last,
        oldest=str(name == "oldest_edge").lower(),
    )
