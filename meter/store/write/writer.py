"""Writes batches of messages: one transaction each, every message once; unstorable messages are refused, the others stored."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from twisted.internet.interfaces import IReactorTime

from meter.archive_unavailable import ArchiveUnavailable
from meter.archive_unavailable import PartlyStored
from meter.batch_signature import BatchEntry
from meter.daemon.services import wall_seconds
from meter.interfaces import Unavailable
from meter.message import MeteringMessage
from meter.query import Refusal
from meter.query import WriteResult
from meter.sample_identity import compared_range
from meter.sample_identity import start_of_week
from meter.sample_identity import week_of
from meter.store.maintenance.partitions import Partitions
from meter.store.maintenance.partitions import end_of_week
from meter.store.maintenance.rollups import DAY
from meter.store.maintenance.rollups import HOUR
from meter.store.maintenance.rollups import LOCK_HOURS_SHARED
from meter.store.maintenance.rollups import hour_locks
from meter.store.maintenance.rollups import start_of
from meter.store.packing.packed_ids import MONDAY
from meter.store.postgres.connection import Duplicate
from meter.store.postgres.connection import Rejected
from meter.store.postgres.connection import TimedOut
from meter.store.postgres.pool import Pool
from meter.store.postgres.pool import Session
from meter.store.query.as_of import WRITER_LOCK_SQL
from meter.store.query.commit_listener import NOTIFY_SQL
from meter.store.write.dimensions import CachedId
from meter.store.write.dimensions import IdCache
from meter.store.write.dimensions import K
from meter.store.write.dimensions import ids_of
from meter.store.write.dimensions import metadata_ids
from meter.store.write.dimensions import series_ids
from meter.store.write.dimensions import upsert_wire_formats
from meter.store.write.duplicates import LOCK_BOUNDARIES
from meter.store.write.duplicates import Place
from meter.store.write.duplicates import boundaries
from meter.store.write.duplicates import by_week
from meter.store.write.duplicates import repeated
from meter.store.write.duplicates import repeats
from meter.store.write.inserts import insert_samples
from meter.store.write.late_samples import LateSamples
from meter.store.write.lost_weeks import LOST
from meter.store.write.lost_weeks import LOST_WEEKS
from meter.store.write.lost_weeks import lost_of
from meter.store.write.lost_weeks import repeated_in_lost_week
from meter.store.write.old_samples import BEGINNING
from meter.store.write.old_samples import NotAccepted
from meter.store.write.old_samples import refuse_too_old
from meter.store.write.record import Record
from meter.store.write.record import Series
from meter.store.write.record import Unstorable
from meter.store.write.record import WireFormat
from meter.store.write.record import record_of
from meter.store.write.signed_batches import delete_empty_batches
from meter.store.write.signed_batches import delete_statements_of_stored
from meter.store.write.signed_batches import insert_unstored_entries
from meter.store.write.signed_batches import upsert_batches
from meter.store.write.spread_inserts import LOCK_IDS
from meter.store.write.spread_inserts import add_sampled_series
from meter.store.write.spread_inserts import insert_spread_samples
from meter.stored_batch import UnstoredReason

PACKED = 0
"""Stands for the number of hours in the row of :data:`BEGIN_TO_WRITE` with the end of the newest packed week."""

BEGIN_TO_WRITE = f"""
{LOCK_HOURS_SHARED}; {WRITER_LOCK_SQL}; SELECT {NOTIFY_SQL};
SELECT before, meter, NULL FROM retention_cutoff WHERE before > %s
UNION ALL SELECT final_period.start, NULL, final_period.hours
FROM final_period JOIN unnest(%s::smallint[], %s::timestamptz[]) AS period (hours, start) USING (hours, start)
UNION ALL SELECT period.start, NULL, period.hours
FROM unnest(%s::smallint[], %s::timestamptz[]) AS period (hours, start)
WHERE period.hours = {HOUR} AND EXISTS (SELECT FROM changed_series WHERE changed_series.start = period.start)
UNION ALL SELECT {MONDAY.format("max(week) + 7")}, NULL, {PACKED} FROM packed_week HAVING max(week) IS NOT NULL
UNION ALL {LOST_WEEKS}
"""
"""Takes the shared locks, then returns the retention cutoffs newer than the batch, the periods it touches that are final, or
were and have changed since, the end of the newest packed week, and the beginnings of the weeks that are lost.

Each statement sees what was committed when it begins, and until the end of the transaction no other session can finalize these hours.
"""

CAREFUL_TRANSACTIONS = 20
"""Transactions that look for each id after one that met an id that was stored already."""

DimensionIds = tuple[int, int, int]
"""The ids of a sample's series, metadata and wire format."""

CacheUpdate = tuple[IdCache[Any], Mapping[Any, CachedId]]
"""A cache, and what is to be added to it once the transaction is committed."""


class SampleWriter:
    """Writes batches over ``pool``. ``cached_ids`` is the size of each of the caches of series, metadata and wire formats.

    ``late`` says which samples are counted as late. Without ``creates_partitions`` samples of weeks that have no partition wait in
    the default partition for the maintenance of another process.
    """

    def __init__(
        self,
        pool: Pool,
        clock: IReactorTime,
        *,
        cached_ids: int = 50_000,
        creates_partitions: bool = True,
        late: LateSamples = LateSamples(),  # noqa: B008 (frozen)
    ) -> None:
        self._pool = pool
        self._clock = clock
        self._late = late
        self._partitions = Partitions(pool, clock) if creates_partitions else None
        self._series: IdCache[Series] = IdCache(cached_ids)
        self._metadata: IdCache[bytes] = IdCache(cached_ids)
        self._wire_formats: IdCache[WireFormat] = IdCache(cached_ids)
        self._generation = 0
        self._careful = 0

    async def write(
        self, messages: Sequence[MeteringMessage], refused_entries: Sequence[BatchEntry] = ()
    ) -> WriteResult:
        """Commit ``messages``: in one transaction, unless ids are repeated or the database rejects one of them.

        A further transaction states which entries of their signed batches are not stored; ``refused_entries`` are among them.
        """
        records: list[tuple[int, Record]] = []
        refused: dict[int, Refusal] = {}
        for index, message in enumerate(messages):
            try:
                records.append((index, record_of(message)))
            except Unstorable as error:
                refused[index] = Refusal(index, str(error))
        if self._partitions is not None:
            await self._partitions.ensure({record.timestamp for _, record in records})
        stored, same = 0, []
        elsewhere: set[int] = set()
        postponed: dict[int, ArchiveUnavailable] = {}
        while records:
            found = repeats(records)
            # The same order in all collectors: two that write the same samples wait for each other, but do not deadlock.
            found.first.sort(key=lambda positioned: (positioned[1].timestamp, positioned[1].message_id))
            stored += await self._write_available(found.first, refused, elsewhere, postponed)
            same += found.same
            records = found.others
        for index, first in same:
            if first in postponed:
                postponed[index] = postponed[first]
            if first in refused:
                refused[index] = replace(refused[first], index=index)
            if _place(messages[index]) != _place(messages[first]):
                elsewhere.add(index)
        unstored: dict[object, tuple[BatchEntry, UnstoredReason]] = {
            entry.place: (entry, "refused") for entry in refused_entries
        }
        for index in elsewhere | refused.keys():
            if (entry := messages[index].entry) is not None:
                unstored[entry.place] = entry, "refused" if index in refused else "duplicate"
        if unstored:
            await self._pool.run(insert_unstored_entries, list(unstored.values()))
        duplicates = len(messages) - stored - len(refused) - len(postponed)
        result = WriteResult(stored, duplicates, tuple(refused[index] for index in sorted(refused)))
        if postponed:
            raise PartlyStored(postponed[min(postponed)], result, postponed)
        return result

    async def _write_available(
        self,
        records: Sequence[tuple[int, Record]],
        refused: dict[int, Refusal],
        elsewhere: set[int],
        postponed: dict[int, ArchiveUnavailable],
    ) -> int:
        """Do what :meth:`_write` does; while an archive server is away, for the records that do not need it. The others are ``postponed``."""
        try:
            return await self._write(records, refused, elsewhere)
        except ArchiveUnavailable as away:
            if len(records) == 1:
                postponed[records[0][0]] = away
                return 0
            # The samples of new weeks do not need it, and are written together.
            old = [
                each for each in records if away.end is None or compared_range(week_of(each[1].timestamp))[0] < away.end
            ]
            indexes = {index for index, _ in old}
            new = [each for each in records if each[0] not in indexes]
            half = len(records) // 2
            parts = (old, new) if old and new else (records[:half], records[half:])
            return sum([await self._write_available(part, refused, elsewhere, postponed) for part in parts])

    async def _write(
        self, records: Sequence[tuple[int, Record]], refused: dict[int, Refusal], elsewhere: set[int]
    ) -> int:
        """Store ``records`` and return how many were new. If the database rejects them, halve them to find the rejected ones.

        The indexes of records that are stored in another place than theirs are added to ``elsewhere``.
        """
        if not records:
            return 0
        try:
            stored, conflicting, repeats_elsewhere = await self._commit([record for _, record in records])
        except Rejected as error:
            if len(records) == 1:
                index = records[0][0]
                refused[index] = Refusal(index, "PostgreSQL rejects it", cause=str(error))
                return 0
        except NotAccepted as error:
            refused |= {
                records[position][0]: Refusal(records[position][0], reason)
                for position, reason in error.reasons.items()
            }
            recent = [record for position, record in enumerate(records) if position not in error.reasons]
            return await self._write(recent, refused, elsewhere)
        except TimedOut as error:
            raise Unavailable(f"writing {len(records)} samples took longer than the statement timeout") from error
        else:
            for position, reason in conflicting.items():
                refused[records[position][0]] = Refusal(records[position][0], reason, "conflict")
            elsewhere |= {records[position][0] for position in repeats_elsewhere}
            return stored
        half = len(records) // 2
        return await self._write(records[:half], refused, elsewhere) + await self._write(
            records[half:], refused, elsewhere
        )

    async def _commit(self, records: Sequence[Record]) -> tuple[int, Mapping[int, str], Sequence[int]]:
        careful = self._careful > 0
        if careful:
            self._careful -= 1
        try:
            result = await self._pool.run(self._store, records, careful)
        except Duplicate:
            # Messages that were delivered again come together.
            self._careful = CAREFUL_TRANSACTIONS
            result = await self._pool.run(self._store, records, True)
        new, conflicting, elsewhere, cache_updates, generation = result
        if generation == self._pool.generation:
            for cache, found in cache_updates:
                cache.update(found)
        return new, conflicting, elsewhere

    async def _store(
        self, session: Session, records: Sequence[Record], careful: bool = False
    ) -> tuple[int, Mapping[int, str], Sequence[int], list[CacheUpdate], int]:
        """Store ``records``, which are in the order of their times, each id once.

        Return how many were new, why some conflict (by position), the positions of those that are stored in another place of
        a signed batch than theirs, what to add to the caches, and the pool's generation. Unless it is ``careful``, it raises
        :class:`Duplicate` for an id that is stored already.
        """
        self._clear_caches_after_reconnect()
        generation = self._generation
        timestamps = sorted({record.timestamp for record in records})
        ids, cache_updates = await self._dimension_ids(session, records, timestamps)
        places, known_batches = await upsert_batches(session, records)
        periods = sorted({(hours, start_of(each, hours)) for each in timestamps for hours in (HOUR, DAY)})
        begin, parameters = BEGIN_TO_WRITE, [hour_locks(timestamps), timestamps[0], *_period_columns(periods) * 2]
        if near := boundaries(timestamps):
            begin, parameters = LOCK_BOUNDARIES + begin, [near, *parameters]
        if session.spread:
            begin, parameters = LOCK_IDS + begin, [_array([record.message_id for record in records]), *parameters]
        rows = await session.rows(begin, parameters)
        if retention_cutoffs := {meter: before for before, meter, hours in rows if hours is None}:
            refuse_too_old(records, retention_cutoffs)
        late = self._late.possible(timestamps[0], wall_seconds(self._clock)) and (
            self._late.every or any(record.series.interval for record in records)
        )
        final_periods = [(hours, start) for start, _, hours in rows if hours not in (None, PACKED, LOST)]
        packed_until = next((end for end, _, hours in rows if hours == PACKED), BEGINNING)
        of_old = [*_period_columns(final_periods) * 2, *self._late.parameters] if final_periods or late else None
        stored = 0
        conflicting: dict[int, str] = {}
        elsewhere: list[int] = []
        lost = lost_of(rows)
        for week, positions in by_week(records).items():
            if entry := lost.get(start_of_week(week)):
                of_lost = [(n, records[n], ids[n][0], places[n]) for n in positions]
                found = await repeated_in_lost_week(session, week, entry, of_lost, known_batches)
                conflicting |= found.conflicts
                elsewhere += found.elsewhere
                continue
            of_week = (
                [records[n] for n in positions],
                [ids[n] for n in positions],
                [places[n] for n in positions],
            )
            packed = compared_range(week)[0] < packed_until
            if session.spread:
                new = await insert_spread_samples(
                    session, week, of_week[0], partial(_some_columns, *of_week), of_old, packed=packed
                )
            else:
                new = await insert_samples(
                    session, week, _columns(*of_week), of_week[0], of_old, careful=careful, packed=packed
                )
            if new < len(positions):
                found = await repeated(
                    session,
                    week,
                    {n: records[n] for n in positions},
                    {n: ids[n][0] for n in positions},
                    {n: places[n] for n in positions},
                )
                conflicting |= found.conflicts
                elsewhere += found.elsewhere
            stored += new
        if elsewhere:
            await delete_empty_batches(session, places, elsewhere)
        await delete_statements_of_stored(session, places, known_batches, elsewhere)
        return stored, conflicting, elsewhere, cache_updates, generation

    async def _dimension_ids(
        self, session: Session, records: Sequence[Record], timestamps: Sequence[datetime]
    ) -> tuple[list[DimensionIds], list[CacheUpdate]]:
        """Return the dimension ids of ``records``, and what to add to the caches."""
        until = end_of_week(timestamps[-1])
        cache_updates: list[CacheUpdate] = []

        async def look_up(
            cache: IdCache[K], keys: Sequence[K], upsert: Callable[..., Awaitable[Sequence[int]]], *args: Any
        ) -> list[int]:
            found, upserted = await ids_of(cache, keys, until, partial(upsert, session, *args))
            cache_updates.append((cache, upserted))
            return found

        series = await look_up(self._series, [record.series for record in records], series_ids)
        if session.spread and (upserted := cache_updates[0][1]):
            await add_sampled_series(session, [each.id for each in upserted.values()])
        digests = [record.metadata_digest for record in records]
        metadata = await look_up(self._metadata, digests, metadata_ids, partial(_texts, records))
        wire_formats = await look_up(
            self._wire_formats, [record.wire_format for record in records], upsert_wire_formats
        )
        return list(zip(series, metadata, wire_formats, strict=True)), cache_updates

    def _clear_caches_after_reconnect(self) -> None:
        """Drop all ids after a failover: the database that took over may have given them to other rows."""
        if self._generation != self._pool.generation:
            self._generation = self._pool.generation
            for cache in (self._series, self._metadata, self._wire_formats):
                cache.clear()


def _place(message: MeteringMessage) -> tuple[str, bytes, int] | None:
    return None if message.entry is None else message.entry.place


def _texts(records: Sequence[Record]) -> dict[bytes, str]:
    """Return the metadata of ``records`` by their digests."""
    return {record.metadata_digest: record.metadata for record in records}


def _some_columns(
    records: Sequence[Record], ids: Sequence[DimensionIds], places: Sequence[Place], positions: Sequence[int]
) -> list[Any]:
    """Return :func:`_columns` of the records at ``positions``."""
    return _columns([records[n] for n in positions], [ids[n] for n in positions], [places[n] for n in positions])


def _columns(records: Sequence[Record], ids: Sequence[DimensionIds], places: Sequence[Place]) -> list[Any]:
    """Return the first parameters of :data:`INSERT_SAMPLES`, a column each."""
    timestamps = sorted({record.timestamp for record in records})
    positions = {timestamp: position for position, timestamp in enumerate(timestamps, 1)}
    series, metadata, wire_formats = zip(*ids, strict=True)
    verbatim_json = [record.verbatim_json for record in records]
    return [
        _array([timestamp.isoformat() for timestamp in timestamps]),
        _array_of_numbers([positions[record.timestamp] for record in records]),
        _array([record.message_id for record in records]),
        _array_of_numbers([record.volume for record in records]),
        _array_of_numbers(list(metadata)),
        _array_of_numbers(list(series)),
        _array_of_numbers(list(wire_formats)),
        _array([record.signature or '""' for record in records]) if any(record.signature for record in records) else [],
        verbatim_json if any(verbatim_json) else [],
        _array_of_numbers([batch_id for batch_id, _ in places]),
        _array_of_numbers([position for _, position in places]),
    ]


def _period_columns(periods: Sequence[tuple[int, datetime]]) -> tuple[list[int], list[datetime]]:
    return [hours for hours, _ in periods], [start for _, start in periods]


def _array(literals: Iterable[str]) -> str:
    """Return a PostgreSQL array literal. ``literals`` must not contain blanks, commas, braces or backslashes."""
    return f"{{{','.join(literals)}}}"


def _array_of_numbers(numbers: list[int] | list[float]) -> str:
    """Return a PostgreSQL array literal: Python's notation of a list of numbers, but for the brackets."""
    return f"{{{repr(numbers)[1:-1]}}}"
