"""The ids of packed samples: an index from a message id to the series that may have it, in each packed week.

A week's index covers the samples that were recorded before ``indexed_until``, packed or not, so that it can be made before the first
sample of the week is packed. What it finds is a candidate: other ids can have the same fingerprint.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from datetime import datetime

from meter.store.packing.packed_rows import IS_ARCHIVED
from meter.store.packing.packed_rows import unpacked_slice
from meter.store.packing.packed_rows import whole_array
from meter.store.postgres.pool import Session

ENTRIES_PER_BUCKET = 1000
"""A look-up reads one bucket; one entry in 65 536 of it is a false candidate."""

MONDAY = "(({}) + time '00:00') AT TIME ZONE 'UTC'"
"""SQL: the time at which a week, a date, begins; whatever the time zone of the session."""


def candidates(message_id: str, *, first: str, last: str) -> str:
    """Return a query of the rows ``(week, series_id)`` that may have the sample with the id ``message_id``.

    All are SQL; ``first`` and ``last`` are the range of its time, both included. It can be used with LATERAL. Weeks that are not packed have
    no rows. OFFSET 0: one bucket of each week is looked up, whatever PostgreSQL expects of the tables.
    """
    return f"""
SELECT DISTINCT w.week, bucket.series_ids[position] AS series_id
FROM (
    SELECT week, id_buckets FROM packed_week
    WHERE {MONDAY.format("week")} <= {last} AND {MONDAY.format("week + 7")} > {first} OFFSET 0
) AS w
CROSS JOIN LATERAL (SELECT message_id_key({message_id}) AS key OFFSET 0) AS of_id
CROSS JOIN LATERAL (
    SELECT i.fingerprints, i.series_ids FROM packed_message_id i
    WHERE i.week = w.week AND i.bucket = mod(of_id.key, w.id_buckets) OFFSET 0
) AS bucket
CROSS JOIN LATERAL unnest(
    array_positions(bucket.fingerprints, (mod(of_id.key / w.id_buckets, 65536) - 32768)::smallint)
) AS position
"""


def packed_by_id(columns: Collection[str], message_id: str, *, first: str, last: str, archived: bool = True) -> str:
    """Return a query of the packed samples with the id ``message_id`` from ``first`` to ``last``, SQL, both included.

    Its rows have ``columns``. It can be used with LATERAL. Of each row that may have the sample, only the ids are read before the sample is
    known to be there. Without ``archived``, rows on archive servers are left out: ``archived_with_ids()`` reads those of many ids together.
    """
    wanted = list(dict.fromkeys([*columns, "timestamp"]))
    return f"""
SELECT {", ".join(f"e.{column}" for column in columns)}
FROM ({candidates(message_id, first=first, last=last)}) AS c
CROSS JOIN LATERAL (
    SELECT p.* FROM packed_samples p
    WHERE p.series_id = c.series_id AND p.first >= {MONDAY.format("c.week")} AND p.first < {MONDAY.format("c.week + 7")}
    AND p.first <= {last} AND p.last >= {first}{"" if archived else f" AND NOT {IS_ARCHIVED}"} OFFSET 0
) AS p
CROSS JOIN LATERAL ({whole_array("message_ids") if archived else "SELECT p.message_ids"}) AS ids
CROSS JOIN LATERAL (
    SELECT position AS lower, position AS upper FROM unnest(array_positions(ids.message_ids, {message_id})) AS position OFFSET 0
) AS slice
CROSS JOIN LATERAL ({unpacked_slice(wanted)} OFFSET 0) AS e
WHERE e.timestamp >= {first} AND e.timestamp <= {last}
"""


ENTRIES = """
SELECT DISTINCT mod(key, {buckets})::integer AS bucket, (mod(key / {buckets}, 65536) - 32768)::smallint AS fingerprint, series_id
FROM packed_key
"""

COLLECT_KEYS = """
INSERT INTO packed_key SELECT DISTINCT message_id_key(s.message_id), s.series_id FROM ({samples}) AS s
"""

# The key's own number of a bucket's part: what is added later follows what is there.
INSERT_ENTRIES = f"""
INSERT INTO packed_message_id (week, bucket, part, fingerprints, series_ids)
SELECT %(week)s, bucket,
    (SELECT coalesce(max(i.part) + 1, 0) FROM packed_message_id i WHERE i.week = %(week)s AND i.bucket = e.bucket),
    array_agg(fingerprint ORDER BY series_id, fingerprint), array_agg(series_id ORDER BY series_id, fingerprint)
FROM ({ENTRIES.format(buckets="%(buckets)s")}) AS e
GROUP BY bucket
"""


async def collect_keys(session: Session, samples: str) -> int:
    """Collect the keys of ``samples``, a query of rows with ``message_id`` and ``series_id``; return how many were added."""
    await session.count(
        "CREATE TEMPORARY TABLE IF NOT EXISTS packed_key (key bigint, series_id integer) ON COMMIT DELETE ROWS"
    )
    return await session.count(COLLECT_KEYS.format(samples=samples))


async def forget_keys(session: Session) -> None:
    """Forget what was collected in this transaction, to collect anew."""
    await session.count("TRUNCATE packed_key")


async def make_index(session: Session, week: date, keys: int, until: datetime) -> None:
    """Index the collected ``keys`` anew, all those of the samples of ``week`` that were recorded before ``until``."""
    buckets = max(1, -(-keys // ENTRIES_PER_BUCKET))
    await session.count("DELETE FROM packed_message_id WHERE week = %s", [week])
    await session.count(INSERT_ENTRIES, {"week": week, "buckets": buckets})
    await session.count(
        "INSERT INTO packed_week (week, id_buckets, indexed_until) VALUES (%s, %s, %s)"
        " ON CONFLICT (week) DO UPDATE SET id_buckets = excluded.id_buckets, indexed_until = excluded.indexed_until",
        [week, buckets, until],
    )


async def add_to_index(session: Session, week: date, buckets: int) -> None:
    """Add the collected keys to the index of ``week``, which has ``buckets``; keys that are there already are harmless."""
    await session.count(INSERT_ENTRIES, {"week": week, "buckets": buckets})
