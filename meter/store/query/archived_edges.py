"""The newest and the oldest sample of each of many series in a range of time that begins or ends in an archived week, read together.

Such a sample is in the middle of its row, and so only on the archive server. Without these, each series would be a statement there. Of each row
that has the end of the range in its middle, the elements around that end are read, with one statement for a thousand rows. They are one
row of arrays, in the order of the ids of their series, and are found in it by bisection, like the edges of a spread store
(:mod:`meter.store.query.spread_edges`). PostgreSQL reads them when the first series is looked up: a statement that looks up none, or in whose range
nothing is archived, does without the archive server.

A series that is not found here is looked up in its rows, as ever: the answer is the same.
"""

from __future__ import annotations

from meter.store.packing.packed_rows import ANY_ARCHIVED
from meter.store.packing.packed_rows import IS_ARCHIVED
from meter.store.packing.packed_rows import archived_around
from meter.store.packing.packed_rows import overlaps
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import filled
from meter.store.query.packed_parts import TimeBounds
from meter.store.query.packed_parts import within

TABLE = "{name} AS MATERIALIZED (SELECT {arrays} FROM ({edges}) s)"

OF_RANGE = """
    SELECT DISTINCT ON (s.series_id) {columns} FROM ({archived}) s
    WHERE {condition}
    ORDER BY s.series_id, s.timestamp {direction}, s.message_id {direction}
"""

# A series none of whose samples in the row meets the condition has no time.
MATCHING = """
    SELECT DISTINCT ON (s.series_id) {columns} FROM (
        SELECT {all_columns}, CASE WHEN {condition} THEN s.timestamp END AS timestamp FROM ({archived}) s {joins}
    ) s
    ORDER BY s.series_id, s.timestamp {direction} NULLS LAST, s.message_id {direction}
"""

EDGE = f"""
    SELECT {{elements}} FROM {{name}} e CROSS JOIN LATERAL (SELECT width_bucket({{series}}, e.series_ids) AS n OFFSET 0) AS place
    WHERE {ANY_ARCHIVED} AND place.n > 0 AND e.series_ids[place.n] = {{series}}
"""

SERIES_OF_PAGE = f"""ARRAY(
    SELECT unnest(ids) FROM (
        SELECT listed.ids FROM ({{listed}}) listed
        WHERE EXISTS (SELECT FROM packed_samples p WHERE p.series_id = ANY(listed.ids) AND {IS_ARCHIVED} AND {{overlaps}} OFFSET 0)
        LIMIT {{limit}}
    ) AS page
)"""


def edge_table(
    name: str,
    columns: tuple[str, ...],
    at: Sql | str,
    ids: Sql | str,
    *,
    condition: Sql | str,
    joins: Sql | str | None = None,
    oldest: bool = False,
) -> Sql:
    """Return the common table expression ``name``: of each archived row around the time ``at`` the newest sample, or the ``oldest``.

    It is the newest one that meets ``condition``, which excludes what is later than ``at``, or earlier for the ``oldest``. ``ids`` is the
    SQL array of the ids of the series. ``columns`` include the time and the message id. ``joins`` is what a condition needs that samples within
    the range may not meet: then all of the row up to ``at`` is looked at, or from ``at`` on.
    """
    names = tuple(dict.fromkeys(("series_id", *columns)))
    selective = joins is not None
    archived = archived_around(
        names, series="{ids}", at="{at}", until=selective and not oldest, since=selective and oldest
    )
    edges = filled(
        MATCHING if selective else OF_RANGE,
        columns=", ".join(f"s.{column}" for column in names),
        all_columns=", ".join(f"s.{column}" for column in names if column != "timestamp"),
        archived=filled(archived, ids=ids, at=at),
        joins=joins or "",
        condition=condition,
        direction="ASC" if oldest else "DESC",
    )
    arrays = ", ".join(f"array_agg(s.{column} ORDER BY s.series_id) AS {_array(column)}" for column in names)
    return filled(TABLE, name=name, arrays=arrays, edges=edges)


def edge_in_table(name: str, columns: tuple[str, ...], series: str) -> Sql:
    """Return the subquery of the sample of one series in the table ``name``, with ``columns``.

    It has no row if nothing of the series was read, and one without a time if its row around the end of the range has no sample that is wanted.
    """
    elements = ", ".join(f"e.{_array(column)}[place.n] AS {column}" for column in columns)
    return filled(EDGE, elements=elements, name=name, series=series)


def series_of_page(listed: Sql, at: Sql, limit: Sql) -> Sql:
    """Return the SQL array of the ids of the first ``limit`` of ``listed`` that have an archived row around the time ``at``.

    ``listed`` is the subquery of what is listed, in its order, with the ``ids`` of its series. More are not needed, unless others have no samples.
    """
    return filled(
        SERIES_OF_PAGE, listed=listed, overlaps=within(overlaps("{first}", "{last}"), TimeBounds(at, at)), limit=limit
    )


def _array(column: str) -> str:
    return "series_ids" if column == "series_id" else f"{column}_of_series"
