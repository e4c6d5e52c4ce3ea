"""Writing: a batch of messages in one transaction, each once, the bad apart from the good."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from functools import partial
from typing import Any

from twisted.internet.interfaces import IReactorTime

from meter.identity import compared_range
from meter.interfaces import Unavailable
from meter.message import MeteringMessage
from meter.query import Refusal
from meter.query import WriteResult
from meter.store.maintenance.partitions import Partitions
from meter.store.maintenance.partitions import end_of_week
from meter.store.maintenance.rollups import DAY
from meter.store.maintenance.rollups import HOLD
from meter.store.maintenance.rollups import HOUR
from meter.store.maintenance.rollups import buckets
from meter.store.maintenance.rollups import start_of
from meter.store.postgres.connection import Rejected
from meter.store.postgres.connection import TimedOut
from meter.store.postgres.pool import Pool
from meter.store.postgres.pool import Session
from meter.store.query.as_of import RECORDING
from meter.store.query.commit_listener import TELL
from meter.store.write.dimensions import CachedId
from meter.store.write.dimensions import IdCache
from meter.store.write.dimensions import K
from meter.store.write.dimensions import digest
from meter.store.write.dimensions import numbers
from meter.store.write.dimensions import upsert_metadata
from meter.store.write.dimensions import upsert_series
from meter.store.write.dimensions import upsert_wire_formats
from meter.store.write.duplicates import HOLD_BOUNDARIES
from meter.store.write.duplicates import UNKNOWN
from meter.store.write.duplicates import boundaries
from meter.store.write.duplicates import by_week
from meter.store.write.duplicates import conflicts
from meter.store.write.duplicates import repeats
from meter.store.write.record import Record
from meter.store.write.record import Series
from meter.store.write.record import Unstorable
from meter.store.write.record import WireFormat
from meter.store.write.record import record_of

# Arrays are sent as PostgreSQL's own literals: psycopg2 would adapt each element by itself, for ten times the time.
# Times, which many samples share, are sent once and referred to by their position.
INSERT_SAMPLES = f"""
INSERT INTO sample (timestamp, recorded_at, message_id, volume, metadata_id, series_id, wire_format_id, signature, verbatim_json)
SELECT (%s::timestamptz[])[moment], recorded_at, message_id, volume, metadata_id, series_id, wire_format_id,
    decode(signature, 'hex'), coalesce(verbatim_json, '')
FROM (SELECT clock_timestamp() AS recorded_at) AS now, unnest(%s::integer[], %s::uuid[], %s::float8[],
    %s::integer[], %s::integer[], %s::integer[], %s::text[], %s::text[])
    AS given (moment, message_id, volume, metadata_id, series_id, wire_format_id, signature, verbatim_json)
WHERE {UNKNOWN}
ON CONFLICT DO NOTHING
"""

"""Inserts samples of one week whose ids are unknown. The unique index of the partition has the last word."""

# What is late for an hour that was settled takes the mark away: from then on the samples themselves tell that hour.
INSERT_LATE_SAMPLES = f"""
WITH stored AS ({INSERT_SAMPLES} RETURNING timestamp), unsettled AS (
    DELETE FROM final_period USING unnest(%s::smallint[], %s::timestamptz[]) AS late (hours, start)
    WHERE final_period.hours = late.hours AND final_period.start = late.start AND EXISTS (
        SELECT FROM stored
        WHERE timestamp >= late.start AND timestamp < late.start + make_interval(hours => late.hours)
    )
)
SELECT count(*) FROM stored
"""

BEGIN_TO_RECORD = f"""
{HOLD}; {RECORDING}; SELECT {TELL};
SELECT before, meter, NULL FROM retention_cutoff WHERE before > %s
UNION ALL SELECT final_period.start, NULL, final_period.hours
FROM final_period JOIN unnest(%s::smallint[], %s::timestamptz[]) AS span (hours, start) USING (hours, start)
"""
"""Takes part in what others wait for, and then tells horizons that may be too late, and what of the batch's time is settled.

Each statement sees what is so when it begins, and until the end of the transaction nobody settles these hours.
"""

BEGINNING = datetime.min.replace(tzinfo=UTC)


References = tuple[int, int, int]
"""The numbers of a sample's series, metadata and form."""

News = tuple[IdCache[Any], Mapping[Any, CachedId]]
"""What is to be remembered, and where, once the transaction that found it out is committed."""


class _TooOld(Exception):
    """Some records lie before their horizon; ``reasons`` has a text for each of their positions."""

    def __init__(self, reasons: Mapping[int, str]) -> None:
        super().__init__(f"{len(reasons)} samples are too old")
        self.reasons = reasons


class SampleWriter:
    """Writes batches over ``pool``. ``remembered`` bounds how many series, metadata and forms are known by heart."""

    def __init__(self, pool: Pool, clock: IReactorTime, *, remembered: int = 50_000) -> None:
        self._pool = pool
        self._partitions = Partitions(pool, clock)
        self._series: IdCache[Series] = IdCache(remembered)
        self._metadata: IdCache[bytes] = IdCache(remembered)
        self._forms: IdCache[WireFormat] = IdCache(remembered)
        self._generation = 0

    async def write(self, messages: Sequence[MeteringMessage]) -> WriteResult:
        """Commit ``messages``, in one transaction unless ids are repeated or the database refuses something in it."""
        records: list[tuple[int, Record]] = []
        refused: dict[int, Refusal] = {}
        for index, message in enumerate(messages):
            try:
                records.append((index, record_of(message)))
            except Unstorable as error:
                refused[index] = Refusal(index, str(error))
        await self._partitions.cover({record.timestamp for _, record in records})
        stored, same = 0, []
        while records:
            found = repeats(records)
            # One order for all collectors: two that write the same samples at once wait for each other, never in a circle.
            found.first.sort(key=lambda numbered: (numbered[1].timestamp, numbered[1].message_id))
            stored += await self._write(found.first, refused)
            same += found.same
            records = found.others
        for index, first in same:
            if first in refused:
                refused[index] = replace(refused[first], index=index)
        return WriteResult(
            stored, len(messages) - stored - len(refused), tuple(refused[each] for each in sorted(refused))
        )

    async def _write(self, records: Sequence[tuple[int, Record]], refused: dict[int, Refusal]) -> int:
        """Store ``records`` and return how many were new; of a batch that is refused, find the ones it is refused for."""
        if not records:
            return 0
        try:
            stored, conflicting = await self._commit([record for _, record in records])
        except Rejected as error:
            if len(records) == 1:
                index = records[0][0]
                refused[index] = Refusal(index, f"PostgreSQL refuses it: {error}")
                return 0
        except _TooOld as error:
            refused |= {
                records[position][0]: Refusal(records[position][0], reason)
                for position, reason in error.reasons.items()
            }
            recent = [record for position, record in enumerate(records) if position not in error.reasons]
            return await self._write(recent, refused)
        except TimedOut as error:
            raise Unavailable(f"writing {len(records)} samples took longer than statements may") from error
        else:
            for position, reason in conflicting.items():
                refused[records[position][0]] = Refusal(records[position][0], reason, "conflict")
            return stored
        half = len(records) // 2
        return await self._write(records[:half], refused) + await self._write(records[half:], refused)

    async def _commit(self, records: Sequence[Record]) -> tuple[int, Mapping[int, str]]:
        stored, conflicting, news, generation = await self._pool.run(self._store, records)
        if generation == self._pool.generation:
            for memory, found in news:
                memory.update(found)
        return stored, conflicting

    async def _store(
        self, session: Session, records: Sequence[Record]
    ) -> tuple[int, Mapping[int, str], list[News], int]:
        """Store ``records``, oldest first and each id once.

        Return how many were new, which are refused and why, what was found out, and when (the pool's generation).
        """
        self._forget_if_reconnected()
        generation = self._generation
        moments = sorted({record.timestamp for record in records})
        references, news = await self._references(session, records, moments)
        spans = sorted({(hours, start_of(moment, hours)) for moment in moments for hours in (HOUR, DAY)})
        begin, parameters = BEGIN_TO_RECORD, [buckets(moments), moments[0], *_columns_of(spans)]
        if near := boundaries(moments):
            begin, parameters = HOLD_BOUNDARIES + begin, [near, *parameters]
        facts = await session.rows(begin, parameters)
        if retention_cutoffs := {meter: before for before, meter, hours in facts if hours is None}:
            _refuse_too_old(records, retention_cutoffs)
        finalized = [(hours, start) for start, _, hours in facts if hours is not None]
        stored = 0
        conflicting: dict[int, str] = {}
        for week, of_week in by_week(records).items():
            columns = [
                *_columns([records[n] for n in of_week], [references[n] for n in of_week]),
                *compared_range(week),
            ]
            if finalized:
                [[new]] = await session.rows(INSERT_LATE_SAMPLES, [*columns, *_columns_of(finalized)])
            else:
                new = await session.count(INSERT_SAMPLES, columns)
            if new < len(of_week):
                series_ids = {n: references[n][0] for n in of_week}
                conflicting |= await conflicts(session, week, {n: records[n] for n in of_week}, series_ids)
            stored += new
        return stored, conflicting, news, generation

    async def _references(
        self, session: Session, records: Sequence[Record], moments: Sequence[datetime]
    ) -> tuple[list[References], list[News]]:
        """Return what ``records`` refer to by number, and what had to be looked up for that."""
        ends = {moment: end_of_week(moment) for moment in moments}
        untils = [ends[record.timestamp] for record in records]
        digests = [digest(record.metadata) for record in records]
        texts = {hash_: record.metadata for hash_, record in zip(digests, records, strict=True)}

        async def look_up(
            memory: IdCache[K], keys: Sequence[K], resolve: Callable[..., Awaitable[Sequence[int]]], *args: Any
        ) -> list[int]:
            # Of several samples that refer to one row the last, which is the newest, says how long it must stay.
            needed = dict(zip(keys, untils, strict=True))
            found, looked_up = await numbers(memory, needed, partial(resolve, session, *args))
            news.append((memory, looked_up))
            return [found[key] for key in keys]

        news: list[News] = []
        series = await look_up(self._series, [record.series for record in records], upsert_series)
        metadata = await look_up(self._metadata, digests, upsert_metadata, texts)
        forms = await look_up(self._forms, [record.wire_format for record in records], upsert_wire_formats)
        return list(zip(series, metadata, forms, strict=True)), news

    def _forget_if_reconnected(self) -> None:
        """Forget all numbers after a failover: they may mean something else in the database that took over."""
        if self._generation != self._pool.generation:
            self._generation = self._pool.generation
            for memory in (self._series, self._metadata, self._forms):
                memory.clear()


def _columns(records: Sequence[Record], references: Sequence[References]) -> list[Any]:
    """Return the first parameters of :data:`INSERT_SAMPLES`: a column each."""
    moments = sorted({record.timestamp for record in records})
    positions = {moment: position for position, moment in enumerate(moments, 1)}
    series, metadata, forms = zip(*references, strict=True)
    rests = [record.verbatim_json for record in records]
    return [
        _array([moment.isoformat() for moment in moments]),
        _array_of_numbers([positions[record.timestamp] for record in records]),
        _array([record.message_id for record in records]),
        _array_of_numbers([record.volume for record in records]),
        _array_of_numbers(list(metadata)),
        _array_of_numbers(list(series)),
        _array_of_numbers(list(forms)),
        _array([record.signature or '""' for record in records]),
        rests if any(rests) else [],
    ]


def _columns_of(spans: Sequence[tuple[int, datetime]]) -> tuple[list[int], list[datetime]]:
    return [hours for hours, _ in spans], [start for _, start in spans]


def _array(literals: Iterable[str]) -> str:
    """Return an array for PostgreSQL to parse. ``literals`` have no blanks, commas, braces or backslashes of their own."""
    return f"{{{','.join(literals)}}}"


def _array_of_numbers(numbers: list[int] | list[float]) -> str:
    """Return an array for PostgreSQL to parse: Python writes a list of numbers as one."""
    return f"{{{repr(numbers)[1:-1]}}}"


def _refuse_too_old(records: Sequence[Record], retention_cutoffs: Mapping[str, datetime]) -> None:
    """Raise if a record is older than what is kept of its meter: its neighbours in time were let go already."""
    of_all = retention_cutoffs.get("", BEGINNING)
    reasons = {}
    for position, record in enumerate(records):
        retention_cutoff = max(of_all, retention_cutoffs.get(record.series.name, BEGINNING))
        if record.timestamp < retention_cutoff:
            reasons[position] = (
                f"it is older than the retention: samples before {retention_cutoff.isoformat()} were let go"
            )
    if reasons:
        raise _TooOld(reasons)
