"""Packs all samples of a database, of whatever age: what is stored before a read is packed when it is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg2
from twisted.internet.threads import deferToThread

from meter.store import PostgresStore
from meter.store.packing.packed_rows import PACKED
from meter.store.packing.packed_rows import PACKED_COLUMNS
from meter.store.packing.packed_rows import SAMPLE_COLUMNS
from meter.store.packing.packed_rows import unpacked

COLUMNS = ", ".join(SAMPLE_COLUMNS)
TABLES = ("packed_samples", "packed_week", "packed_message_id", "packed_batch", "series_list")
"""Tables to truncate, beside those of samples."""

WEEKS = """
SELECT DISTINCT date_trunc('week', timestamp AT TIME ZONE 'UTC')::date FROM sample
WHERE timestamp BETWEEN '1990-01-01' AND '2200-01-01' ORDER BY 1
"""

PACK = f"""
CREATE TABLE IF NOT EXISTS packed_samples_{{name}} PARTITION OF packed_samples FOR VALUES FROM ('{{week}} 00:00+00') TO ('{{next}} 00:00+00');
CREATE TEMPORARY TABLE moved ON COMMIT DROP AS
{unpacked(SAMPLE_COLUMNS, first="'-infinity'::timestamptz", last="'infinity'::timestamptz")} WHERE p.first >= '{{week}} 00:00+00' AND p.first < '{{next}} 00:00+00'
UNION ALL SELECT {COLUMNS} FROM sample WHERE timestamp >= '{{week}} 00:00+00' AND timestamp < '{{next}} 00:00+00';
DELETE FROM sample WHERE timestamp >= '{{week}} 00:00+00' AND timestamp < '{{next}} 00:00+00';
DELETE FROM packed_samples WHERE first >= '{{week}} 00:00+00' AND first < '{{next}} 00:00+00';
INSERT INTO packed_samples ({PACKED_COLUMNS}) {PACKED.format(samples=f"SELECT {COLUMNS} FROM moved")};
INSERT INTO packed_week VALUES ('{{week}}', now(), 7) ON CONFLICT DO NOTHING;
DELETE FROM packed_message_id WHERE week = '{{week}}';
INSERT INTO packed_message_id (week, bucket, part, fingerprints, series_ids)
SELECT '{{week}}', bucket, 0, array_agg((key / 7 % 65536 - 32768)::smallint), array_agg(series_id)
FROM (SELECT DISTINCT message_id_key(message_id) % 7 AS bucket, message_id_key(message_id) AS key, series_id FROM moved) AS _
GROUP BY bucket;
DELETE FROM packed_batch WHERE week = '{{week}}';
DELETE FROM series_list WHERE week = '{{week}}';
INSERT INTO series_list (week, hash, series_ids)
SELECT DISTINCT ON (series_ids) '{{week}}'::date, sha256(array_to_string(series_ids, ',')::bytea), series_ids
FROM (SELECT array_agg(DISTINCT series_id) AS series_ids FROM moved WHERE batch_id > 0 GROUP BY batch_id) AS _;
INSERT INTO packed_batch (batch_id, week, series_list_id)
SELECT batch_id, '{{week}}', l.id
FROM (SELECT batch_id, array_agg(DISTINCT series_id) AS series_ids FROM moved WHERE batch_id > 0 GROUP BY batch_id) AS b
JOIN series_list l ON l.series_ids = b.series_ids AND l.week = '{{week}}'
"""


def pack_everything(dsn: str) -> None:
    """Pack all samples in the database, those of packed weeks together with what is packed."""
    connection = psycopg2.connect(dsn)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(1, 1)")
            cursor.execute(WEEKS)
            weeks = [week for [week] in cursor.fetchall()]
        for week in weeks:
            following = week.fromordinal(week.toordinal() + 7)
            with connection, connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(1, 1)")
                cursor.execute(PACK.format(name=f"{week:%Y_%m_%d}", week=week, next=following))
    finally:
        connection.close()


def packing_before_reads(store: PostgresStore, dsn: str, *pools: Any) -> PostgresStore:
    """Make the ``pools`` of ``store``, or the one that answers queries, pack everything before each statement."""
    for pool in pools or (store._readers,):
        pool.rows = _packing_first(pool.rows, dsn)
    return store


def _packing_first(execute: Any, dsn: str) -> Any:
    async def rows(statement: str, parameters: Sequence[Any] = ()) -> Any:
        await deferToThread(pack_everything, dsn)
        return await execute(statement, parameters)

    return rows
