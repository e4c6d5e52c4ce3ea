"""All samples, whether they are rows of ``sample`` or packed: FROM items and subqueries in place of ``FROM sample s``.

Every statement that must see all samples is made with these. docs/decisions/0021-packed-weeks.rst says what a packed row is. A
sample is in one of the two tables for each snapshot, therefore both are read by one statement. The parts of packed samples read
only the arrays that ``columns`` need, and of these only the elements that can lie in the range of time.

A store in which nothing is packed has no partitions of ``packed_samples``: PostgreSQL leaves the parts of packed samples out.

Where the store has several servers, the plain samples come from the functions of :mod:`meter.store.cluster.functions`.
"""

from __future__ import annotations

import re

from meter.store.packing.packed_batches import packed_of_batch
from meter.store.packing.packed_ids import candidates
from meter.store.packing.packed_ids import packed_by_id
from meter.store.packing.packed_rows import ROW_ID
from meter.store.packing.packed_rows import SAMPLE_COLUMNS
from meter.store.packing.packed_rows import archived_with_ids
from meter.store.packing.packed_rows import overlaps
from meter.store.packing.packed_rows import slices_from_end
from meter.store.packing.packed_rows import unpacked_slice
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import alternative
from meter.store.postgres.sql import filled
from meter.store.query.access_paths import IN_ORDER_OF_TIME
from meter.store.query.archived_edges import edge_in_table
from meter.store.query.packed_parts import NO_END
from meter.store.query.packed_parts import NO_START
from meter.store.query.packed_parts import TimeBounds
from meter.store.query.packed_parts import archived_part
from meter.store.query.packed_parts import ids_of_series
from meter.store.query.packed_parts import of_weeks_since
from meter.store.query.packed_parts import packed_here
from meter.store.query.packed_parts import packed_part
from meter.store.query.packed_parts import within

OF_ANY_SERIES = "p.count > 0"
"""Makes the index on the last time of packed rows usable. True of every row."""

BETWEEN = """(
    {plain}
    UNION ALL
    ({packed})
) s"""
PLAIN_BETWEEN = "SELECT {columns} FROM sample s {where}"
SPREAD_BETWEEN = "SELECT {columns} FROM spread_samples({series}, {first}, {last}, {wide}) s"
SPREAD_RECORDED = "SELECT {columns} FROM spread_samples_recorded({since}, {first}, {last}, NULL, {wide}) s"

# The plain rows come first: only packed rows that can have samples beyond them are read, one row after the other, until there are
# enough. Rows of a series do not overlap, so that this is the order of their samples. Of each row the elements at its end are
# unpacked first: mostly these are enough.
FIRST_OF_SERIES = """
WITH {edge}plain AS MATERIALIZED ({plain})
SELECT {columns} FROM plain s
UNION ALL (
    SELECT {columns} FROM (
        SELECT p.* FROM packed_samples p
        WHERE p.series_id = {series} AND {overlaps}{of_rows} {without_edge} AND {beyond}
        ORDER BY p.first {direction}, p.part {direction} OFFSET 0
    ) p {ends}
    CROSS JOIN LATERAL (
        SELECT {columns} FROM ({unpacked} OFFSET 0) s {joins}
        WHERE {condition}
        ORDER BY s.timestamp {direction}, s.message_id {direction} OFFSET 0
    ) s LIMIT {limit}
)
ORDER BY timestamp {direction}, message_id {direction} LIMIT {limit}
"""

# With what was read of archived rows of many series at once: the row that has the end of the range in its middle is not read again.
ARCHIVED_EDGE = "edge AS MATERIALIZED ({edge}), "
WITH_ARCHIVED_EDGE = """
    SELECT {columns} FROM (({plain}) UNION ALL SELECT {columns} FROM edge s WHERE s.timestamp IS NOT NULL) s
    ORDER BY timestamp {direction}, message_id {direction} LIMIT 1
"""
WITHOUT_EDGE = "AND NOT (p.first < {at} AND p.last > {at} AND EXISTS (SELECT FROM edge))"

PLAIN_OF_SERIES = """
    SELECT {columns} FROM sample s {joins}
    WHERE s.series_id = {series} AND {condition}
    ORDER BY s.timestamp {direction}, s.message_id {direction} LIMIT {limit}
"""

# The first rows suffice mostly, and tell whether there are any others. The parts of UNION ALL are executed one after the other, as far
# as LIMIT needs them.
SPREAD_OF_SERIES = """
    SELECT {columns} FROM (
        WITH ahead AS MATERIALIZED (
            SELECT * FROM spread_samples_in_order({series}, {first}, {last}, {oldest}, 0, {limit}, {wide})
        )
        SELECT {columns} FROM (SELECT {all_columns} FROM ahead s) s {joins} WHERE {condition}
        UNION ALL
        SELECT {columns} FROM (
            SELECT {all_columns} FROM spread_samples_in_order({series}, {first}, {last}, {oldest}, {limit}, NULL, {wide}) s
            WHERE (SELECT count(*) FROM ahead) >= {limit} OFFSET 0
        ) s {joins} WHERE {condition}
        LIMIT {limit}
    ) s
"""

WITH_IDS = """(
    {plain}
    UNION ALL
    SELECT {columns} FROM unnest({ids}) AS given (id) CROSS JOIN LATERAL ({packed}) s
    UNION ALL
    SELECT {columns} FROM ({archived}) s WHERE s.message_id = ANY({ids}) AND s.timestamp >= {first} AND s.timestamp <= {last}
) s"""
PLAIN_WITH_IDS = "SELECT {columns} FROM sample s WHERE s.message_id = ANY({ids})"
SPREAD_WITH_IDS = "SELECT {columns} FROM spread_samples_with_ids({ids}, {first}, {last}, {wide}) s"
VISIBLE_IDS = """ARRAY(
    SELECT given.id FROM unnest({ids}) AS given (id)
    WHERE EXISTS (SELECT FROM ({candidates}) AS c JOIN series x ON x.id = c.series_id WHERE {visible})
)"""

OF_BATCHES = """(
    {plain}
    UNION ALL
    SELECT {columns} FROM unnest({ids}) AS given (id) CROSS JOIN LATERAL ({packed}) s
    UNION ALL
    SELECT {columns} FROM ({archived}) s WHERE s.batch_id = ANY({ids})
) s"""
SERIES_OF_BATCHES = """ARRAY(
    SELECT DISTINCT unnest(l.series_ids) FROM packed_batch of_week JOIN series_list l ON l.id = of_week.series_list_id
    WHERE of_week.batch_id = ANY({ids})
)"""
PLAIN_OF_BATCHES = f"""
    SELECT {{columns}} FROM sample s
    WHERE s.batch_id = ANY({{ids}}) AND s.timestamp BETWEEN {{first}} AND {{last}} AND {IN_ORDER_OF_TIME}
"""
SPREAD_OF_BATCHES = "SELECT {columns} FROM spread_samples_of_batches({ids}, {first}, {last}, {wide}) s"

RECORDED_SINCE = "p.part >= 0 AND p.last_recorded >= {since}"
"""The condition of the packed rows ``p`` with samples that were recorded since a time. The first part is true of every row."""

AFTER_PACKED = f"s.timestamp > coalesce((SELECT max(p.last) FROM packed_samples p WHERE {OF_ANY_SERIES} AND {{of_weeks}}), '-infinity')"

BEYOND = {
    "DESC": "p.last >= (SELECT CASE WHEN count(*) < {limit} THEN '-infinity' ELSE min(s.timestamp) END FROM plain s)",
    "ASC": "p.first <= (SELECT CASE WHEN count(*) < {limit} THEN 'infinity' ELSE max(s.timestamp) END FROM plain s)",
}

_REFERENCE = re.compile(r"\bs\.(\w+|\*)")

EVER = TimeBounds(NO_START, NO_END)
"""The bounds of all time."""


def sample_columns(*texts: Sql | str) -> tuple[str, ...]:
    """Return the columns of the sample ``s`` to which the SQL ``texts`` refer, in the order of the table; always the timestamp."""
    names = {"timestamp", *(name for text in texts for name in _REFERENCE.findall(str(text)))}
    return tuple(column for column in SAMPLE_COLUMNS if column in names or "*" in names)


def samples_between(
    columns: tuple[str, ...],
    bounds: TimeBounds,
    *,
    series: Sql | str = "true",
    plain: Sql | str = "",
    packed: Sql | str = "true",
    recorded_since: Sql | str = "",
    visible: Sql | str = "true",
    archived: bool = True,
) -> Sql:
    """Return the FROM item ``s`` of all samples with ``columns``; without ``archived``, of those that are not on archive servers.

    ``series`` is the condition on the series of a row ``p`` of ``packed_samples``, and ``packed`` another one on that row. They
    only exclude what is not asked for: the statement repeats all conditions for ``s``. ``plain`` is a condition on plain rows that
    lets them use an index. ``recorded_since``, if it is given, is the time of recording from which on samples are asked for. ``visible``
    is a condition on the series ``x`` about which archive servers are asked if ``series`` restricts none.
    """
    arguments: dict[str, Sql | str] = {
        "columns": listed(columns, spread=True),
        "first": bounds.first,
        "last": bounds.last,
        "wide": wide(columns),
    }
    return filled(
        BETWEEN,
        plain=alternative(
            filled(
                PLAIN_BETWEEN,
                columns=listed(columns, plain=True),
                where=filled("WHERE {plain}", plain=plain) if str(plain) else "",
            ),
            filled(SPREAD_RECORDED, since=recorded_since, **arguments)
            if str(recorded_since)
            else filled(SPREAD_BETWEEN, series=ids_of_series(series), **arguments),
        ),
        packed=packed_part(columns, bounds, series, packed, recorded_since=recorded_since, visible=visible)
        if archived
        else packed_here(columns, bounds, series, packed),
    )


def wide(columns: tuple[str, ...]) -> str:
    """Return SQL for whether ``columns`` have one that is long."""
    return str("signature" in columns or "verbatim_json" in columns).lower()


def samples_by_series(columns: tuple[str, ...], bounds: TimeBounds, *, series: str, archived: bool = True) -> Sql:
    """Return the FROM item ``s`` of all samples, with ``columns``, of the series whose id compares with ``series``, like ``= 7``.

    The statement repeats the conditions on the time, but not that on the series: comparing each sample with many would take long.
    Without ``archived``, those on archive servers are left out.
    """
    return samples_between(
        columns, bounds, series=f"p.series_id {series}", plain=f"s.series_id {series}", archived=archived
    )


def packed_samples(columns: tuple[str, ...], bounds: TimeBounds, *, recorded_since: Sql) -> Sql:
    """Return the FROM item ``s`` of the packed samples alone, of rows with samples that were recorded since a time."""
    condition = filled(RECORDED_SINCE, since=recorded_since)
    return filled("({packed}) s", packed=packed_part(columns, bounds, "true", condition, recorded_since=recorded_since))


def samples_with_ids(columns: tuple[str, ...], bounds: TimeBounds, ids: Sql, *, visible: Sql | str = "true") -> Sql:
    """Return the FROM item ``s`` of all samples with one of ``ids``, an array, and with ``columns``.

    ``visible`` is a condition on series ``x``. An archive server is asked only about ids that one of these may have: that it is away, or that
    its samples are lost, tells nobody that an id is one of somebody else.
    """
    archived_ids = ids
    if str(visible) != "true":
        of_id = within(candidates("given.id", first="{first}", last="{last}"), bounds)
        archived_ids = filled(VISIBLE_IDS, ids=ids, candidates=of_id, visible=visible)
    return filled(
        WITH_IDS,
        plain=alternative(
            filled(PLAIN_WITH_IDS, columns=listed(columns, plain=True), ids=ids),
            filled(
                SPREAD_WITH_IDS, columns=listed(columns, spread=True), ids=ids, wide=wide(columns), **bounds._asdict()
            ),
        ),
        columns=listed(columns),
        ids=ids,
        packed=within(packed_by_id(columns, "given.id", first="{first}", last="{last}", archived=False), bounds),
        archived=filled(
            archived_with_ids(tuple(dict.fromkeys((*columns, "message_id"))), "{ids}", first="{first}", last="{last}"),
            ids=archived_ids,
            **bounds._asdict(),
        ),
        **bounds._asdict(),
    )


def samples_of_batches(columns: tuple[str, ...], bounds: TimeBounds, ids: Sql, *, without_lost: bool = False) -> Sql:
    """Return the FROM item ``s`` of all samples of the signed batches with the ``ids``, an array, and with ``columns``.

    ``without_lost``: those of weeks that are lost are left out, instead of an error.
    """
    return filled(
        OF_BATCHES,
        plain=alternative(
            filled(PLAIN_OF_BATCHES, columns=listed(columns, plain=True), ids=ids, **bounds._asdict()),
            filled(
                SPREAD_OF_BATCHES, columns=listed(columns, spread=True), ids=ids, wide=wide(columns), **bounds._asdict()
            ),
        ),
        columns=listed(columns),
        ids=ids,
        packed=within(packed_of_batch(columns, "given.id", first="{first}", last="{last}", archived=False), bounds),
        archived=archived_part(
            tuple(dict.fromkeys((*columns, "batch_id"))),
            bounds,
            filled(SERIES_OF_BATCHES, ids=ids),
            without_lost=without_lost,
        ),
    )


def first_of_series(
    columns: tuple[str, ...],
    bounds: TimeBounds,
    *,
    series: str,
    condition: Sql | str,
    limit: int | str,
    joins: Sql | str = "",
    plain: Sql | str = "",
    spread: Sql | str = "",
    oldest: bool = False,
    of_rows: Sql | str = "",
    any_of_row: bool = False,
    edges: str = "",
) -> Sql:
    """Return the subquery of the newest samples of one series that meet ``condition``, or the ``oldest``, in this order.

    ``columns`` must include the message id. ``series`` is SQL for the id of the series. ``joins`` is what the condition needs.
    ``plain`` replaces the subquery that finds the plain ones, and ``spread`` the one that does in a spread store. ``of_rows`` is what the
    condition means for packed rows ``p``, and follows others. ``any_of_row``: any sample of a packed row will do, and the first ones are looked
    at first. ``edges`` is the name of a table with those that were read from archive servers before
    (:mod:`meter.store.query.archived_edges`), if the ``limit`` is one.
    """
    direction = "ASC" if oldest else "DESC"
    names = listed(columns)
    not_archived = alternative(
        plain
        or filled(
            PLAIN_OF_SERIES,
            columns=names,
            joins=joins,
            series=series,
            condition=condition,
            direction=direction,
            limit=str(limit),
        ),
        spread
        or spread_in_order(
            columns, bounds, series=f"ARRAY[{series}]", condition=condition, limit=limit, joins=joins, oldest=oldest
        ),
    )
    return filled(
        FIRST_OF_SERIES,
        edge=filled(ARCHIVED_EDGE, edge=edge_in_table(edges, columns, series)) if edges else "",
        plain=filled(WITH_ARCHIVED_EDGE, columns=names, plain=not_archived, direction=direction)
        if edges
        else not_archived,
        columns=names,
        series=series,
        overlaps=within(overlaps("{first}", "{last}"), bounds),
        of_rows=of_rows,
        without_edge=filled(WITHOUT_EDGE, at=bounds.first if oldest else bounds.last) if edges else "",
        beyond=BEYOND[direction].format(limit=limit),
        direction=direction,
        ends=within(slices_from_end(limit, first="{first}", last="{last}", oldest=oldest or any_of_row), bounds),
        unpacked=unpacked_slice(columns),
        joins=joins,
        condition=condition,
        limit=str(limit),
    )


def after_packed(bounds: TimeBounds) -> Sql:
    """Return the condition that a plain sample is newer than all packed ones after the first time of ``bounds``."""
    return filled(AFTER_PACKED, of_weeks=of_weeks_since(bounds.first))


def spread_in_order(
    columns: tuple[str, ...],
    bounds: TimeBounds,
    *,
    series: Sql | str,
    condition: Sql | str,
    limit: int | str,
    joins: Sql | str = "",
    oldest: bool = False,
) -> Sql:
    """Return the subquery of the newest plain samples, or the ``oldest``, of a spread store that meet ``condition``.

    ``series`` is the SQL array of the ids of their series, null for all.
    """
    return filled(
        SPREAD_OF_SERIES,
        columns=listed(columns),
        all_columns=listed(columns, spread=True),
        series=series,
        oldest=str(oldest).lower(),
        joins=joins,
        condition=condition,
        limit=str(limit),
        wide=wide(columns),
        **bounds._asdict(),
    )


def listed(columns: tuple[str, ...], *, plain: bool = False, spread: bool = False) -> str:
    """Return the select list of ``columns`` of samples ``s``; ``plain`` if ``s`` is the table, ``spread`` if a function's result.

    There a sample with its time and id is the only one of its series.
    """
    row_id = f"s.ctid AS {ROW_ID}" if plain else f"('(' || s.series_id || ',1)')::tid AS {ROW_ID}" if spread else ""
    return ", ".join(row_id if row_id and column == ROW_ID else f"s.{column}" for column in columns)
