"""The newest and the oldest sample of each of many series, found by one statement for lists of meters and resources.

In a spread store those of all series are read at once, and in any store those that are in the middle of archived rows
(:mod:`meter.store.query.archived_edges`). They are one row of arrays, in the order of the ids of their series, and are found in it by
bisection: a table of them would be searched from its beginning for each series.
"""

from __future__ import annotations

from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import alternative
from meter.store.postgres.sql import filled
from meter.store.postgres.sql import listing
from meter.store.query.access_paths import SERIES_OF_SAMPLE
from meter.store.query.archived_edges import edge_table
from meter.store.query.archived_edges import series_of_page
from meter.store.query.conditions import TRUE
from meter.store.query.conditions import FilterConditions
from meter.store.query.conditions import any_of_series
from meter.store.query.conditions import newest_of_series
from meter.store.query.packed_parts import NO_END
from meter.store.query.packed_parts import NO_START
from meter.store.query.sample_rows import sample_columns
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
    """Return whether all samples of a matching series in the range meet ``conditions``: then its newest and its oldest one do."""
    return conditions.metadata == TRUE and conditions.rest == TRUE and conditions.marker == TRUE


def edge_tables(conditions: FilterConditions, *, oldest: bool, listed: Sql | None, limit: Sql) -> Sql:
    """Return the WITH clause of a statement with :func:`edge_of_each`: the newest samples, and the ``oldest`` if wanted.

    ``listed`` is the subquery of what is listed, in its order and with the ``ids`` of its series, and ``limit`` how many there are on a page.
    Without it, nothing is read from archive servers in advance.
    """
    archived = [] if listed is None else _archived_tables(conditions, listed, limit, oldest=oldest)
    spread = []
    if finds_edges(conditions):
        spread = [_edges(conditions, name) for name in (("newest_edge", "oldest_edge") if oldest else ("newest_edge",))]
    if not archived:
        return alternative("", filled("WITH {tables}", tables=listing(spread))) if spread else Sql("")
    if spread:
        archived = [
            filled(
                "{spread}{archived}",
                spread=alternative("", filled("{tables}, ", tables=listing(spread))),
                archived=archived[0],
            ),
            *archived[1:],
        ]
    return filled("WITH {tables}", tables=listing(archived))


def edge_of_each(
    conditions: FilterConditions, columns: str, condition: Sql | None = None, *, oldest: bool = False
) -> Sql:
    """Return the subquery of the newest sample of the series ``x`` that meets the conditions, or the ``oldest``.

    ``columns`` are some of ``s.timestamp``, ``s.message_id`` and ``s.metadata_id``. ``condition`` replaces those on the sample.
    """
    edge = _edge(conditions, columns, condition or conditions.sample, oldest=oldest)
    archived = _archived_name(conditions, oldest=oldest)
    return newest_of_series(conditions, columns, 1, condition, oldest=oldest, spread=edge, edges=archived)


def any_of_each(conditions: FilterConditions, *, with_tables: bool) -> Sql:
    """Return the subquery that has a row if the series ``x`` has a sample that meets the conditions.

    ``with_tables``: :func:`edge_tables` has those of archive servers. They are needed only if the range may begin and end within a row.
    """
    within_row = with_tables and conditions.bounds.first != NO_START
    return any_of_series(
        conditions,
        spread=_edge(conditions, "s.timestamp, s.message_id", conditions.sample, oldest=False),
        edges=_archived_name(conditions, oldest=False) if within_row else "",
    )


def _archived_name(conditions: FilterConditions, *, oldest: bool) -> str:
    """Return the name of the table of archived samples at one end of the range; empty if it has no such end."""
    first, last, _ = conditions.bounds
    if oldest:
        return "" if first == NO_START else "archived_oldest"
    return "" if last == NO_END else "archived_newest"


def _archived_tables(conditions: FilterConditions, listed: Sql, limit: Sql, *, oldest: bool) -> list[Sql]:
    joins = f"{SERIES_OF_SAMPLE if conditions.rest_needs_series else ''} {conditions.joined_metadata}"
    columns = sample_columns("s.timestamp s.message_id s.metadata_id", conditions.sample, joins)
    ends = (
        [(False, conditions.bounds.last), (True, conditions.bounds.first)]
        if oldest
        else [(False, conditions.bounds.last)]
    )
    return [
        edge_table(
            name,
            columns,
            at,
            series_of_page(listed, at, limit),
            condition=conditions.sample,
            joins=None if finds_edges(conditions) else joins,
            oldest=is_oldest,
        )
        for is_oldest, at in ends
        if (name := _archived_name(conditions, oldest=is_oldest))
    ]


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
