"""The statements of :mod:`meter.store.maintenance.voiding`: they choose samples, move them, and delete the rollups that covered them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from meter.sample import MAX_VOLUME
from meter.sample import MIN_VOLUME
from meter.store.audit.void_statements import IDS_SHA256
from meter.store.maintenance.rollups import HOUR_LOCKS
from meter.store.packing.packed_ids import packed_by_id
from meter.store.packing.packed_rows import overlaps
from meter.store.packing.packed_rows import unpacked
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import alternative

CHOOSE = """
CREATE TEMPORARY TABLE chosen ON COMMIT DROP AS
SELECT s.message_id, s.timestamp, s.series_id, {audit_seq} AS audit_seq, {problem} AS problem
FROM {rows} JOIN series x ON x.id = s.series_id JOIN meter m ON m.id = x.meter_id
WHERE {condition}
"""

CHOOSE_PACKED = """
INSERT INTO chosen
SELECT s.message_id, s.timestamp, s.series_id, 0, {problem}
FROM ({packed}) AS s JOIN series x ON x.id = s.series_id JOIN meter m ON m.id = x.meter_id
WHERE {condition}
"""

CHOSEN_COLUMNS = ("timestamp", "message_id", "series_id", "wire_format_id", "batch_id")
"""The columns of a sample that conditions refer to."""


def packed_of_series(series: Sql, first: datetime | None, last: datetime | None) -> Sql:
    """Return the query of the packed samples from ``first`` to ``last`` of the series ``x`` that meet the condition ``series``."""
    since = f"'{'-infinity' if first is None else first.isoformat()}'::timestamptz"
    until = f"'{'infinity' if last is None else last.isoformat()}'::timestamptz"
    of_series = f"p.series_id = ANY(ARRAY(SELECT x.id FROM series x JOIN meter m ON m.id = x.meter_id WHERE {series}))"
    return Sql(
        f"{unpacked(CHOSEN_COLUMNS, first=since, last=until)} WHERE {overlaps(since, until)} AND {of_series}",
        series.parameters,
    )


def samples_of(series: Sql, ids: Sequence[str], first: datetime | None, last: datetime | None) -> Sql:
    """Return the FROM item of the samples that are not packed, with ``ids``, or from ``first`` to ``last`` of the series of a condition."""
    since = f"'{'-infinity' if first is None else first.isoformat()}'::timestamptz"
    until = f"'{'infinity' if last is None else last.isoformat()}'::timestamptz"
    spread = (
        Sql(f"spread_samples_with_ids(%s::uuid[], {since}, {until}, false) s", (list(ids),))
        if ids
        else Sql(
            "spread_samples(ARRAY(SELECT x.id FROM series x JOIN meter m ON m.id = x.meter_id"
            f" WHERE {series}), {since}, {until}, false) s",
            series.parameters,
        )
    )
    return alternative("sample s", spread)


PACKED_WITH_IDS = f"""
SELECT packed.* FROM unnest(%s::uuid[]) AS given (id)
CROSS JOIN LATERAL ({packed_by_id(CHOSEN_COLUMNS, "given.id", first="'-infinity'::timestamptz", last="'infinity'::timestamptz")}) AS packed
"""

PACKED_SERIES = """
SELECT w.week, array_agg(DISTINCT c.series_id)
FROM chosen c JOIN packed_week w ON w.week = date_trunc('week', c.timestamp AT TIME ZONE 'UTC')::date
WHERE c.problem IS NULL
GROUP BY w.week ORDER BY w.week
"""
"""The series of chosen samples by week, of the weeks that are packed."""

OF_KEY = """
(s.wire_format_id = ANY(%s::int[]) OR EXISTS (SELECT FROM signed_batch b WHERE b.id = s.batch_id AND b.key_id = %s))
"""

# A chosen row is found by id and time in the one partition that may have it, whatever PostgreSQL expects of the new table.
FIND_BY_INDEX = "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off"

HOURS_OF_CHOSEN = f"""
SELECT DISTINCT floor(extract(epoch FROM timestamp) / 3600)::bigint % {HOUR_LOCKS} FROM chosen ORDER BY 1
"""

COLUMNS = """
SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum), string_agg('s.' || quote_ident(attname), ', ' ORDER BY attnum)
FROM pg_attribute WHERE attrelid = 'sample'::regclass AND attnum > 0 AND NOT attisdropped
"""

CHOSEN_ROWS = "s.message_id = chosen.message_id AND s.timestamp = chosen.timestamp AND chosen.problem IS NULL"

MOVE_TO_VOIDED = f"""
WITH moved AS (DELETE FROM sample s USING chosen WHERE {CHOSEN_ROWS} RETURNING s.*)
INSERT INTO voided_sample ({{names}}, voided_at, voided_by, reason, audit_seq)
SELECT {{columns}}, now(), %s, %s, %s FROM moved s
"""

MOVE_BACK = f"""
WITH moved AS (DELETE FROM voided_sample s USING chosen WHERE {CHOSEN_ROWS} RETURNING s.*)
INSERT INTO sample ({{names}}) SELECT {{columns}} FROM moved s
"""

OF_CHOSEN_HOURS = """
EXISTS (
    SELECT FROM chosen WHERE problem IS NULL
    AND timestamp >= {table}.start AND timestamp < {table}.start + make_interval(hours => {table}.hours)
)
"""

NO_LONGER_FINAL = f"DELETE FROM final_period WHERE {OF_CHOSEN_HOURS.format(table='final_period')}"

# An hour of which nothing is left is not finalized again: the summary of its day is made again all the same.
CHANGED_COMPLETENESS = """
INSERT INTO completeness_change (from_time, until_time)
SELECT DISTINCT date_trunc('hour', timestamp, 'UTC'), date_trunc('hour', timestamp, 'UTC') FROM chosen WHERE problem IS NULL
"""

# Of the series, and the totals of their owners: where an hour has no other samples, it is not finalized again. Expired samples
# are not concerned: all samples of a meter in an hour expire together.
DELETE_ROLLUPS = """
DELETE FROM rollup USING (
    SELECT DISTINCT o.id AS series_id, p.hours, date_trunc(p.unit, c.timestamp, 'UTC') AS start
    FROM chosen c JOIN series x ON x.id = c.series_id
    JOIN series o ON o.id = x.id OR (o.meter_id = x.meter_id AND o.resource_id = 0 AND o.user_id = x.user_id
        AND o.project_id = x.project_id AND o.source_id = x.source_id)
    CROSS JOIN (VALUES (1, 'hour'), (24, 'day')) AS p (hours, unit)
    WHERE c.problem IS NULL
) AS stale
WHERE rollup.hours = stale.hours AND rollup.series_id = stale.series_id AND rollup.start = stale.start
"""

EXPIRED = "{time} < (SELECT max(cutoff.before) FROM retention_cutoff cutoff WHERE cutoff.meter IN (m.name, ''))"

_OF_LOST_WEEK = "date_trunc('week', s.timestamp, 'UTC') IN (SELECT w.week::timestamp AT TIME ZONE 'UTC' FROM archived_week w WHERE w.lost_at IS NOT NULL)"

NOT_VOIDABLE = f"""
CASE
    WHEN {EXPIRED.format(time="s.timestamp")} THEN 'it is older than the retention, and about to be deleted: its rollup cannot be made again without it'
    WHEN {_OF_LOST_WEEK} THEN 'other samples of its week are lost: its rollup cannot be made again without them'
END
"""

_PACKED_MEANWHILE = packed_by_id(
    ("message_id",),
    "s.message_id",
    first="date_trunc('week', s.timestamp, 'UTC') - interval '7 days'",
    last="date_trunc('week', s.timestamp, 'UTC') + interval '14 days' - interval '1 microsecond'",
)

_FIRST_OF_COMPARED = "date_trunc('week', s.timestamp, 'UTC') - interval '7 days'"
_END_OF_COMPARED = "date_trunc('week', s.timestamp, 'UTC') + interval '14 days'"
# In a spread store one statement looks all of them up afterwards: SAME_IDS.
_STORED_MEANWHILE = alternative(
    f"""
        SELECT FROM sample t WHERE t.message_id = s.message_id
        AND t.timestamp >= {_FIRST_OF_COMPARED} AND t.timestamp < {_END_OF_COMPARED}
    """,
    "SELECT WHERE false",
)
_STORED_AGAIN = "'another sample with its id has been stored meanwhile: void that one first'"

NOT_RESTORABLE = f"""
CASE
    WHEN {EXPIRED.format(time="s.timestamp")} THEN 'it is older than the retention: samples next to it have been deleted'
    WHEN {_OF_LOST_WEEK} THEN 'other samples of its week are lost: its rollup cannot be made again without them'
    WHEN NOT (s.volume = 0 OR abs(s.volume) BETWEEN {MIN_VOLUME!r} AND {MAX_VOLUME!r}) THEN 'its volume is out of bounds'
    WHEN EXISTS ({_STORED_MEANWHILE}) OR EXISTS ({_PACKED_MEANWHILE}) THEN {_STORED_AGAIN}
END
"""

_ALL_CHOSEN = "(SELECT array_agg(message_id) FROM chosen WHERE problem IS NULL)"

SAME_IDS = f"""
UPDATE chosen s SET problem = {_STORED_AGAIN}
FROM spread_samples_with_ids(
    {_ALL_CHOSEN}, (SELECT min({_FIRST_OF_COMPARED}) FROM chosen s), (SELECT max({_END_OF_COMPARED}) FROM chosen s), false
) t
WHERE s.problem IS NULL AND t.message_id = s.message_id AND t.timestamp >= {_FIRST_OF_COMPARED} AND t.timestamp < {_END_OF_COMPARED}
"""
"""Completes :data:`NOT_RESTORABLE` in a spread store."""

_PLAIN_CHOSEN = alternative(
    "FROM sample s", f"FROM spread_samples_with_ids({_ALL_CHOSEN}, '-infinity', 'infinity', false) s"
)
RESTORED = f"SELECT s.message_id, s.series_id, s.batch_id {_PLAIN_CHOSEN}, chosen WHERE {CHOSEN_ROWS}"
"""The samples that were put back, as rows of ``sample``."""

PROBLEMS = "SELECT message_id::text, problem FROM chosen WHERE problem IS NOT NULL"
MISSING = "SELECT given::text FROM unnest(%s::uuid[]) AS given WHERE given NOT IN (SELECT message_id FROM chosen)"
CHOSEN_IDS = "SELECT message_id::text FROM chosen WHERE problem IS NULL ORDER BY timestamp, message_id LIMIT %s"

HASH_OF_CHOSEN = f"SELECT {IDS_SHA256} FROM chosen WHERE problem IS NULL"
ENTRIES_OF_CHOSEN = "SELECT DISTINCT audit_seq FROM chosen WHERE problem IS NULL AND audit_seq > 0 ORDER BY 1"

EXPIRED_MEANWHILE = f"""
SELECT FROM chosen c JOIN series x ON x.id = c.series_id JOIN meter m ON m.id = x.meter_id
WHERE c.problem IS NULL AND {EXPIRED.format(time="c.timestamp")} LIMIT 1
"""

SUMMARY = """
SELECT count(*), min(timestamp), max(timestamp) FROM chosen WHERE problem IS NULL
"""

BY_METER = """
SELECT m.name, p.name, count(*), count(DISTINCT x.resource_id)
FROM chosen c JOIN series x ON x.id = c.series_id JOIN meter m ON m.id = x.meter_id
LEFT JOIN project p ON p.id = x.project_id
WHERE c.problem IS NULL
GROUP BY m.name, p.name ORDER BY m.name, p.name
"""

VOIDED = """
SELECT s.message_id::text, s.verbatim_json, s.timestamp, s.volume, m.name, m.unit, r.name, p.name, u.name, o.name, s.voided_at,
    s.voided_by, s.reason, s.audit_seq
FROM voided_sample s LEFT JOIN series x ON x.id = s.series_id LEFT JOIN meter m ON m.id = x.meter_id
LEFT JOIN resource r ON r.id = x.resource_id LEFT JOIN project p ON p.id = x.project_id
LEFT JOIN "user" u ON u.id = x.user_id LEFT JOIN source o ON o.id = x.source_id
ORDER BY s.voided_at DESC, s.timestamp DESC, s.message_id LIMIT %s
"""
