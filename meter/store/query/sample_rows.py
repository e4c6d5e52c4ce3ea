"""All samples, whether they are rows of ``sample`` or packed: FROM items and subqueries in place of ``FROM sample s``.

Every statement that must see all samples is made with these. docs/decisions/0021-packed-weeks.rst says what a packed row is. A
sample is in one of the two tables for each snapshot, therefore both are read by one statement. The parts of packed samples read
only the arrays that ``columns`` need, and of these only the elements that can lie in the range of time.

A store in which nothing is packed has no partitions of ``packed_samples``: PostgreSQL leaves the parts of packed samples out.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from meter.store.packing.packed_rows import SAMPLE_COLUMNS
from meter.store.packing.packed_rows import overlaps
from meter.store.packing.packed_rows import slices_from_end
from meter.store.packing.packed_rows import unpacked
from meter.store.packing.packed_rows import unpacked_slice
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import filled

NO_START = Sql("'-infinity'::timestamptz")
NO_END = Sql("'infinity'::timestamptz")

BETWEEN = """(
    SELECT {columns} FROM sample s {where}
    UNION ALL
    {unpacked}
    WHERE {series} AND {overlaps} {of_rows}
    OFFSET 0
) s"""

# The plain rows come first: only packed rows that can have samples beyond them are read, one row after the other, until there are
# enough. Rows of a series do not overlap, so that this is the order of their samples. Of each row the elements at its end are
# unpacked first: mostly these are enough.
FIRST_OF_SERIES = """
WITH plain AS MATERIALIZED ({plain})
SELECT {columns} FROM plain s
UNION ALL (
    SELECT {columns} FROM (
        SELECT p.* FROM packed_samples p
        WHERE p.series_id = {series} AND {overlaps} {of_rows} AND {beyond}
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

PLAIN_OF_SERIES = """
    SELECT {columns} FROM sample s {joins}
    WHERE s.series_id = {series} AND {condition}
    ORDER BY s.timestamp {direction}, s.message_id {direction} LIMIT {limit}
"""

WITH_IDS = """(
    SELECT {columns} FROM sample s WHERE s.message_id = ANY({ids})
    UNION ALL
    SELECT {columns} FROM (
        SELECT DISTINCT given.id, w.week, entry.series_id
        FROM unnest({ids}) AS given (id)
        CROSS JOIN LATERAL (SELECT message_id_key(given.id) AS key OFFSET 0) AS of_id
        CROSS JOIN LATERAL (
            SELECT * FROM packed_week w WHERE w.week > {first} - interval '8 days' AND w.week < {last} + interval '1 day' OFFSET 0
        ) w
        CROSS JOIN LATERAL (
            SELECT i.fingerprints, i.series_ids FROM packed_message_id i
            WHERE i.week = w.week AND i.bucket = mod(of_id.key, w.id_buckets)
            OFFSET 0
        ) AS bucket
        CROSS JOIN LATERAL unnest(bucket.fingerprints, bucket.series_ids) AS entry (fingerprint, series_id)
        WHERE entry.fingerprint = mod(of_id.key / w.id_buckets, 65536) - 32768
    ) AS candidate
    CROSS JOIN LATERAL (SELECT p.* FROM packed_samples p WHERE p.series_id = candidate.series_id AND {of_week} OFFSET 0) p
    CROSS JOIN LATERAL (
        SELECT n AS lower, n AS upper FROM unnest(array_positions(p.message_ids, candidate.id)) AS position (n) OFFSET 0
    ) AS slice
    CROSS JOIN LATERAL ({unpacked} OFFSET 0) s
) s"""

OF_WEEK = """p.first >= candidate.week::timestamp AT TIME ZONE 'UTC' AND p.first < (candidate.week + 7)::timestamp AT TIME ZONE 'UTC'"""

OF_ANY_SERIES = "p.count > 0"
"""Makes the index on the last time of packed rows usable. True of every row."""

RECORDED_SINCE = "p.part >= 0 AND p.last_recorded >= {since}"
"""The condition of the packed rows ``p`` with samples that were recorded since a time. The first part is true of every row."""

AFTER_PACKED = f"s.timestamp > coalesce((SELECT max(p.last) FROM packed_samples p WHERE {OF_ANY_SERIES}), '-infinity')"
"""The condition that a plain sample is newer than all that are packed."""

BEYOND = {
    "DESC": "p.last >= (SELECT CASE WHEN count(*) < {limit} THEN '-infinity' ELSE min(s.timestamp) END FROM plain s)",
    "ASC": "p.first <= (SELECT CASE WHEN count(*) < {limit} THEN 'infinity' ELSE max(s.timestamp) END FROM plain s)",
}

_REFERENCE = re.compile(r"\bs\.(\w+|\*)")


class TimeBounds(NamedTuple):
    """SQL for the first and the last time of a range, both included. Samples just outside of it may be read, too."""

    first: Sql
    last: Sql

    def within(self, first: Sql | str, last: Sql | str) -> TimeBounds:
        """Return the bounds of the part of the range that lies from ``first`` to ``last``, SQL for times that can be null for none."""
        return TimeBounds(_both("greatest", self.first, first), _both("least", self.last, last))


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
) -> Sql:
    """Return the FROM item ``s`` of all samples with ``columns``.

    ``series`` is the condition on the series of a row ``p`` of ``packed_samples``, and ``packed`` another one on that row. They
    only exclude what is not asked for: the statement repeats all conditions for ``s``. ``plain`` is a condition on plain rows that
    lets them use an index.
    """
    return filled(
        BETWEEN,
        columns=_listed(columns),
        where=filled("WHERE {plain}", plain=plain) if str(plain) else "",
        unpacked=_within(unpacked(columns, first="{first}", last="{last}"), bounds),
        overlaps=_within(overlaps("{first}", "{last}"), bounds),
        series=series,
        of_rows=filled("AND {packed}", packed=packed) if str(packed) != "true" else "",
    )


def samples_with_ids(columns: tuple[str, ...], bounds: TimeBounds, ids: Sql) -> Sql:
    """Return the FROM item ``s`` of all samples with one of ``ids``, an array, and with ``columns``.

    The index of the ids of packed weeks tells the series in which an id can be.
    """
    return filled(
        WITH_IDS, columns=_listed(columns), ids=ids, first=bounds.first, last=bounds.last, of_week=OF_WEEK, unpacked=unpacked_slice(columns)
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
    oldest: bool = False,
) -> Sql:
    """Return the subquery of the newest samples of one series that meet ``condition``, or the ``oldest``, in this order.

    ``columns`` must include the message id. ``series`` is SQL for the id of the series. ``joins`` is what the condition needs.
    ``plain`` replaces the subquery that finds the plain ones.
    """
    direction = "ASC" if oldest else "DESC"
    listed = _listed(columns)
    return filled(
        FIRST_OF_SERIES,
        plain=plain
        or filled(
            PLAIN_OF_SERIES,
            columns=listed,
            joins=joins,
            series=series,
            condition=condition,
            direction=direction,
            limit=str(limit),
        ),
        columns=listed,
        series=series,
        overlaps=_within(overlaps("{first}", "{last}"), bounds),
        of_rows="",
        beyond=BEYOND[direction].format(limit=limit),
        direction=direction,
        ends=_within(slices_from_end(limit, first="{first}", last="{last}", oldest=oldest), bounds),
        unpacked=unpacked_slice(columns),
        joins=joins,
        condition=condition,
        limit=str(limit),
    )


def _both(function: str, time: Sql, other: Sql | str) -> Sql:
    unlimited = (NO_START, NO_END)
    if other in unlimited:
        return time
    return (
        filled("{other}", other=other)
        if time in unlimited
        else filled(f"{function}({{time}}, {{other}})", time=time, other=other)
    )


def _listed(columns: tuple[str, ...]) -> str:
    return ", ".join(f"s.{column}" for column in columns)


def _within(template: str, bounds: TimeBounds) -> Sql:
    return filled(template, first=bounds.first, last=bounds.last)
