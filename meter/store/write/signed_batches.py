"""Signed batches: each is stored once, a sample has its place in it, and entries that are not stored are stated to be so."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Sequence

from meter.batch_signature import BatchEntry
from meter.batch_signature import BatchSignature
from meter.message import parse_timestamp
from meter.store.packing.packed_batches import packed_of_batch
from meter.store.postgres.pool import Session
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import alternative
from meter.store.query.access_paths import IN_ORDER_OF_TIME
from meter.store.write.duplicates import Place
from meter.store.write.record import Record
from meter.stored_batch import UnstoredReason
from meter.stored_batch import checks_of

NO_PLACE: Place = (0, 0)

# Updating a row that is there already returns its id, and makes a writer of the same batch wait until it is committed. Only of
# a row that this statement has inserted, xmax is 0.
UPSERT_BATCHES = """
INSERT INTO signed_batch (uuid, first, last, key_id, mac, checks)
SELECT * FROM unnest(%s::uuid[], %s::timestamptz[], %s::timestamptz[], %s::text[], %s::bytea[], %s::bytea[])
ON CONFLICT (uuid, mac) DO UPDATE SET last = signed_batch.last
RETURNING id, uuid::text, mac, xmax <> 0
"""


def _samples_of_batch(columns: str) -> Sql:
    return alternative(
        f"SELECT {columns} FROM sample s WHERE s.batch_id = b.id AND s.timestamp BETWEEN b.first AND b.last AND {IN_ORDER_OF_TIME}",
        f"SELECT {columns} FROM spread_samples_of_batches(ARRAY[b.id], b.first, b.last, false) s",
    )


DELETE_EMPTY_BATCHES = f"""
DELETE FROM signed_batch b WHERE id = ANY(%s) AND NOT EXISTS (
    {_samples_of_batch("")}
    UNION ALL SELECT FROM voided_sample v WHERE v.batch_id = b.id
    UNION ALL SELECT FROM packed_batch packed WHERE packed.batch_id = b.id
)
"""

DELETE_STATEMENTS = """
DELETE FROM unstored_entry e USING unnest(%s::bigint[], %s::smallint[]) AS stored (batch_id, position)
WHERE (e.batch_id, e.position) = (stored.batch_id, stored.position)
"""

# Locked in the order of upsert_batches.
LOCK_BATCHES = """
SELECT b.id FROM unnest(%s::uuid[], %s::bytea[]) AS entry (uuid, batch_mac)
JOIN signed_batch b ON (b.uuid, b.mac) = (entry.uuid, entry.batch_mac)
ORDER BY b.uuid, b.mac FOR UPDATE OF b
"""
"""Makes writers of these batches wait, so that none stores an entry that is about to be stated as not stored."""

# One lookup for each batch, not for each entry: messages of a batch can have the same timestamp as very many others.
INSERT_UNSTORED_ENTRIES = f"""
WITH entry AS MATERIALIZED (
    SELECT b.id, b.first, b.last, entry.position, entry.reason, entry.digest, entry.mac
    FROM unnest(%s::uuid[], %s::bytea[], %s::smallint[], %s::text[], %s::bytea[], %s::bytea[])
        AS entry (uuid, batch_mac, position, reason, digest, mac)
    JOIN signed_batch b ON (b.uuid, b.mac) = (entry.uuid, entry.batch_mac)
), batch AS MATERIALIZED (
    SELECT id, ARRAY(
        {_samples_of_batch("s.batch_position")}
        UNION ALL SELECT v.batch_position FROM voided_sample v WHERE v.batch_id = b.id
        UNION ALL SELECT p.batch_position FROM ({packed_of_batch(("batch_position",), "b.id", first="b.first", last="b.last", without_lost=True)}) AS p
    ) AS stored
    FROM (SELECT DISTINCT id, first, last FROM entry) AS b
)
INSERT INTO unstored_entry (batch_id, position, reason, digest, mac)
SELECT id, position, reason, digest, mac FROM entry JOIN batch USING (id)
WHERE NOT position = ANY(stored)
ORDER BY 1, 2
ON CONFLICT DO NOTHING
"""
"""Inserts statements that entries were not stored, unless they are, for batches of which other entries are stored."""


async def upsert_batches(session: Session, records: Sequence[Record]) -> tuple[list[Place], frozenset[int]]:
    """Store the batches of ``records`` that are not stored yet.

    Return the place of each record in its batch, and the ids of the batches that were stored already.
    """
    batches = {(entry.batch.id, entry.batch.mac): entry.batch for each in records if (entry := each.entry) is not None}
    if not batches:
        return [NO_PLACE] * len(records), frozenset()
    # The same order in all collectors, so that two that write the same batches do not deadlock.
    ordered = [batches[key] for key in sorted(batches)]
    rows = await session.rows(UPSERT_BATCHES, _columns(ordered))
    ids = {(uuid, bytes(mac)): id for id, uuid, mac, _ in rows}
    places = [
        NO_PLACE if entry is None else (ids[entry.batch.id, entry.batch.mac], entry.position)
        for entry in (record.entry for record in records)
    ]
    return places, frozenset(id for id, _, _, known in rows if known)


def _columns(batches: Sequence[BatchSignature]) -> list[list[object]]:
    return [
        [batch.id for batch in batches],
        [parse_timestamp(batch.first, "first") for batch in batches],
        [parse_timestamp(batch.last, "last") for batch in batches],
        [batch.key_id for batch in batches],
        [batch.mac for batch in batches],
        [checks_of(batch.digests) for batch in batches],
    ]


async def delete_empty_batches(session: Session, places: Iterable[Place], elsewhere: Iterable[int]) -> None:
    """Delete the batches none of whose messages was stored.

    ``elsewhere`` are the positions in ``places`` of messages that are stored with another batch.
    """
    places = list(places)
    repeated = set(elsewhere)
    stored = {batch_id for n, (batch_id, _) in enumerate(places) if n not in repeated}
    empty = sorted({batch_id for batch_id, _ in places} - stored - {NO_PLACE[0]})
    if empty:
        await session.count(DELETE_EMPTY_BATCHES, [empty])


async def delete_statements_of_stored(
    session: Session, places: Sequence[Place], known_batches: Collection[int], elsewhere: Iterable[int]
) -> None:
    """Delete the statements about messages that had been refused and were stored now, when they were sent again.

    There are none about batches that are not among ``known_batches``, those that were stored before. ``elsewhere`` are the
    positions in ``places`` of messages that were not stored in their own place.
    """
    repeated = set(elsewhere)
    stored = [place for n, place in enumerate(places) if n not in repeated and place[0] in known_batches]
    if stored:
        batch_ids, positions = zip(*stored, strict=True)
        await session.count(DELETE_STATEMENTS, [list(batch_ids), list(positions)])


async def insert_unstored_entries(session: Session, entries: Sequence[tuple[BatchEntry, UnstoredReason]]) -> None:
    """State that ``entries`` were not stored, and why; nothing is stated of an entry whose place has a stored message."""
    ids = [entry.batch.id for entry, _ in entries]
    macs = [entry.batch.mac for entry, _ in entries]
    await session.rows(LOCK_BATCHES, [ids, macs])
    await session.count(
        INSERT_UNSTORED_ENTRIES,
        [
            ids,
            macs,
            [entry.position for entry, _ in entries],
            [reason for _, reason in entries],
            [entry.digest for entry, _ in entries],
            [entry.unstored_mac(reason) for entry, reason in entries],
        ],
    )
