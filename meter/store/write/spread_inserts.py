"""Inserts samples of one week into a spread store: ids are looked up on all servers first, then what is new is inserted.

There the unique key has to contain the series (:doc:`/decisions/0023-citus`): the same sample again is refused by the key, another fact
with its id only by the look-up. Writers of the same id wait for each other before it (:doc:`/decisions/0034-ids-in-a-cluster`).
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from datetime import date
from datetime import timedelta
from typing import Any

from meter.sample_identity import compared_range
from meter.store.postgres.pool import Session
from meter.store.write.duplicates import MAX_ID_RANGES
from meter.store.write.duplicates import NOT_VOIDED
from meter.store.write.duplicates import compared_week
from meter.store.write.duplicates import id_ranges
from meter.store.write.duplicates import is_new_among_packed
from meter.store.write.inserts import CHANGES_OF_OLD
from meter.store.write.inserts import INSERT
from meter.store.write.record import Record

LOCKS = 0x6D657468
"""First key of the advisory locks of ids that are being written, ``meth`` in ASCII. The second is the hash of an id."""

LOCK_IDS = f"""
SELECT count(pg_advisory_xact_lock({LOCKS}, hash)) FROM (
    SELECT DISTINCT uuid_hash(id) AS hash FROM unnest(%s::uuid[]) AS given (id) ORDER BY 1 OFFSET 0
) AS hashes;
"""
"""Waits at the coordinator for all transactions that write one of the ids, and keeps others from writing them until the end of this one.

All locks of a transaction are taken at once and in order, before those of hours: writers wait for each other, but do not deadlock. They
are released after the workers were told to commit, so that the look-up of whoever has waited finds what was stored.
"""

INSTANT = timedelta(microseconds=1)

STORED_IDS = """
SELECT s.message_id::text FROM sample s WHERE s.message_id = ANY(%s::uuid[]) AND s.timestamp >= %s AND s.timestamp <= %s
"""
"""Those of the ids that samples between two times have, whatever their series: a look-up of each id on each shard."""

ID_NEARBY = """
SELECT true FROM sample s
WHERE ({ranges}) AND (s.timestamp >= %s AND s.timestamp < %s OR s.timestamp >= %s AND s.timestamp <= %s)
LIMIT 1
"""
"""Whether a sample of the weeks before and after has an id in a few ranges: the ids that a daemon makes in a minute are close to each other."""

KNOWN_HERE = "SELECT given.message_id::text FROM unnest(%s::uuid[]) AS given (message_id) WHERE NOT ({is_new})"
"""The ids of voided and packed samples, which the coordinator has."""

# The number of rows that Citus reports is that of the rows given, not of those that were stored. RETURNING has the stored ones.
INSERT_NEW = f"{INSERT} ON CONFLICT DO NOTHING RETURNING timestamp, recorded_at, series_id"

CHANGES = CHANGES_OF_OLD.format(
    stored="SELECT * FROM unnest(%s::timestamptz[], %s::timestamptz[], %s::integer[]) AS s (timestamp, recorded_at, series_id)"
)

ADD_SERIES = "INSERT INTO sampled_series (series_id) SELECT unnest(%s::integer[]) ON CONFLICT DO NOTHING"


async def insert_spread_samples(
    session: Session,
    week: date,
    records: Sequence[Record],
    columns_of: Callable[[Sequence[int]], Sequence[Any]],
    of_old: Sequence[Any] | None,
    *,
    packed: bool,
) -> int:
    """Insert ``records``, all of ``week``, and return how many were new. See :func:`~meter.store.write.inserts.insert_samples`.

    ``columns_of`` returns the columns of the records at some positions.
    """
    ids = f"{{{','.join(record.message_id for record in records)}}}"
    known = await _stored_ids(session, week, ids, id_ranges(record.message_id for record in records))
    is_new = f"{NOT_VOIDED} AND {is_new_among_packed(week)}" if packed else NOT_VOIDED
    parameters = [ids, *compared_range(week), *([ids] if packed else [])]
    known |= {id for [id] in await session.rows(KNOWN_HERE.format(is_new=is_new), parameters)}
    new = [n for n, record in enumerate(records) if record.message_id not in known]
    if not new:
        return 0
    if of_old is None:
        return await session.count(INSERT_NEW, columns_of(new))
    stored = await session.rows(INSERT_NEW, columns_of(new))
    if stored:
        await session.rows(CHANGES, [*map(list, zip(*stored, strict=True)), *of_old])
    return len(stored)


async def _stored_ids(session: Session, week: date, ids: str, ranges: Sequence[tuple[str, str]]) -> set[str]:
    """Return those of ``ids``, an array, that samples of ``week``, or of a week that it is compared with, have."""
    first, begin, end, last = compared_week(week)
    if len(ranges) <= MAX_ID_RANGES:
        nearby = " OR ".join(["s.message_id BETWEEN %s AND %s"] * len(ranges))
        parameters = [id for each in ranges for id in each]
        if not await session.rows(ID_NEARBY.format(ranges=nearby), [*parameters, first, begin, end, last]):
            first, last = begin, min(last, end - INSTANT)
    return {id for [id] in await session.rows(STORED_IDS, [ids, first, last])}


async def add_sampled_series(session: Session, ids: Sequence[int]) -> None:
    """Note on their shards that these series may have samples."""
    await session.count(ADD_SERIES, [f"{{{','.join(map(str, sorted(set(ids))))}}}"])
