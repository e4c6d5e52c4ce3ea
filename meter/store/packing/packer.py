"""The packer: rewrites the samples of old weeks as rows of ``packed_samples``, group by group, and verifies each group before it is committed.

Each group of series is one transaction: it takes the plain rows and what is packed of these series already, makes new packed rows,
reads them back and compares. For every snapshot a sample is in one of the two tables. It can be killed at any time: what is still plain
is still to do.

Writers of samples never wait for it, and it never misses what they do:

* It packs samples that were recorded before a time ``until``, from before which no writer is in progress any more.
* Before the first group it commits the row of the week in ``packed_week``, with the index of the ids. Then it waits again for the writers
  in progress: all that begin later look their ids up among packed samples, too. A writer that has looked for an id before it was stored finds it
  in the unique index of the partition, because it is not packed before that writer has ended.
"""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from datetime import datetime
from typing import Any

from meter.interfaces import Unavailable
from meter.sample_identity import WEEK
from meter.sample_identity import start_of_week
from meter.store.archive.archived_weeks import archived_weeks
from meter.store.archive.archived_weeks import refuse_archived
from meter.store.maintenance.partitions import partition_name
from meter.store.maintenance.partitions import weeks_with_partitions
from meter.store.maintenance.rollups import next_hour_to_finalize
from meter.store.packing.packed_batches import add_batches
from meter.store.packing.packed_ids import ENTRIES_PER_BUCKET
from meter.store.packing.packed_ids import add_to_index
from meter.store.packing.packed_ids import collect_keys
from meter.store.packing.packed_ids import forget_keys
from meter.store.packing.packed_ids import make_index
from meter.store.packing.packed_partitions import ensure_packed_partition
from meter.store.packing.packed_partitions import lock_packed_samples
from meter.store.packing.packed_rows import unpacked
from meter.store.packing.packing_sql import ALMOST_EMPTY
from meter.store.packing.packing_sql import ALWAYS
from meter.store.packing.packing_sql import BY_SERIES
from meter.store.packing.packing_sql import COPY_PACKED
from meter.store.packing.packing_sql import DELETE_PACKED
from meter.store.packing.packing_sql import DIFFERENCES
from meter.store.packing.packing_sql import FINISH_WEEK
from meter.store.packing.packing_sql import IN_WEEK
from meter.store.packing.packing_sql import INDEXES
from meter.store.packing.packing_sql import INSERT_PACKED
from meter.store.packing.packing_sql import MAX_LEFT_ROWS
from meter.store.packing.packing_sql import NEXT_SERIES
from meter.store.packing.packing_sql import STILL_PLAIN
from meter.store.packing.packing_sql import TAKE_PLAIN
from meter.store.packing.packing_sql import WORKING_TABLE
from meter.store.packing.packing_sql import WRONG_ROWS
from meter.store.postgres.pool import Session
from meter.store.postgres.transaction import in_transaction
from meter.store.query.as_of import WRITERS_IN_PROGRESS
from meter.store.query.as_of import Writers

LOCK = 0x6D65746572_10
"""Key of the advisory lock of the one session that packs, or unpacks weeks."""

MAX_GROUP_SAMPLES = 50_000
"""Samples that one transaction packs, unless a single series has more: it takes about a second."""

CLOCK_MARGIN_SECONDS = 3600
"""How far the database's clock may be set back, as by a failover, without a sample being missed by the index of ids."""

MAX_PAUSES = 100
"""How often the packer waits a moment for writers in progress, before it gives up until next time."""

SMALL_TABLE_BYTES = 1_000_000
"""Below this size, with its indexes, an almost empty table is left as it is."""


class NotVerified(Exception):
    """What was read back is not what was to be packed; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Week:
    """A week and its bounds; ``table`` is the partition of its plain samples."""

    monday: date

    @property
    def start(self) -> datetime:
        """The first time of the week."""
        return start_of_week(self.monday)

    @property
    def end(self) -> datetime:
        """The first time after the week."""
        return self.start + WEEK

    @property
    def table(self) -> str:
        """The partition of the samples that are not packed."""
        return partition_name(self.monday)

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters of statements."""
        return {"week": self.monday, "start": self.start, "end": self.end}


class Packer:
    """Packs over ``session``, which is outside of a transaction and without time limits.

    ``pause`` waits a moment. ``packed`` is called with the number of samples of each group after its commit.
    """

    def __init__(
        self,
        session: Session,
        pause: Callable[[], Awaitable[object]],
        *,
        max_group_samples: int = MAX_GROUP_SAMPLES,
        packed: Callable[[int], object] = lambda samples: None,
    ) -> None:
        self._session = session
        self._pause = pause
        self._max_group_samples = max_group_samples
        self._packed = packed

    async def open(self) -> None:
        """Become the one packer; :class:`Unavailable` while another session packs."""
        [[locked]] = await self._session.rows("SELECT pg_try_advisory_lock(%s)", [LOCK])
        if not locked:
            raise Unavailable("another session packs or unpacks; one that was killed does so until its statement ends")

    async def close(self) -> None:
        """Let others pack."""
        await self._session.rows("SELECT pg_advisory_unlock(%s)", [LOCK])

    async def pack(self, monday: date, *, even_if_not_final: bool = False) -> int | None:
        """Pack the samples of the week of ``monday`` that are plain; return how many.

        ``None`` if an hour of the week is not final: nothing, or not everything, was packed then. :class:`WeekIsArchived` for
        an archived week: its late samples stay plain until it is brought back.
        """
        week = Week(monday)
        await refuse_archived(self._session, monday)
        [[until]] = await self._session.rows("SELECT clock_timestamp()")
        [[plain]] = await self._session.rows(STILL_PLAIN.format(table=week.table), {"until": until})
        if not plain:
            return await self._finish(week, 0)
        await self._wait_for_writers(until)
        if not even_if_not_final and not await self._is_final(week):
            return None
        await in_transaction(self._session, self._index, week, until)
        [[indexed_at]] = await self._session.rows("SELECT clock_timestamp()")
        await self._wait_for_writers(indexed_at)
        after, samples = -1, 0
        while group := await self._next_group(week, until, after):
            last, _ = group[-1]
            count = await in_transaction(self._session, self._pack_group, week, until, after, last, even_if_not_final)
            if count is None:
                return None
            after, samples = last, samples + count
            self._packed(count)
        return await self._finish(week, samples)

    async def _finish(self, week: Week, samples: int) -> int:
        """Note that the week is packed, and give the space back that its plain samples had; return ``samples``."""
        if await self._session.count(FINISH_WEEK, {**week.parameters, "samples": samples}):
            await release_space(self._session, week.table)
        return samples

    async def _wait_for_writers(self, begun_before: datetime) -> None:
        for _ in range(MAX_PAUSES):
            [row] = await self._session.rows(WRITERS_IN_PROGRESS, [begun_before])
            if not Writers(*row).in_progress:
                return
            await self._pause()
        raise Unavailable(f"a transaction that writes samples has not ended since {begun_before.isoformat()}")

    async def _is_final(self, week: Week) -> bool:
        return await next_hour_to_finalize(self._session, week.start, week.end) is None

    async def _index(self, week: Week, until: datetime) -> None:
        """Index the ids and batches of what will be packed, and mark the week as one that has packed samples."""
        session, parameters = self._session, {**week.parameters, "until": until}
        await lock_packed_samples(session)
        await ensure_packed_partition(session, week.monday)
        await session.count(WORKING_TABLE)
        found = await session.rows(
            "SELECT id_buckets, indexed_until::text FROM packed_week WHERE week = %(week)s", parameters
        )
        buckets, since = found[0] if found else (0, "-infinity")
        new = f"SELECT s.* FROM {week.table} s WHERE s.recorded_at >= '{since}' AND s.recorded_at <= '{until.isoformat()}'"
        keys = await collect_keys(session, new)
        if keys > buckets * ENTRIES_PER_BUCKET:
            await forget_keys(session)
            every = (
                f"SELECT s.message_id, s.series_id FROM {week.table} s UNION ALL SELECT message_id, series_id FROM"
                f" ({unpacked(('message_id', 'series_id'), first=ALWAYS[0], last=ALWAYS[1])}"
                f" WHERE p.first >= '{week.start.isoformat()}' AND p.first < '{week.end.isoformat()}') AS packed"
            )
            keys = await collect_keys(session, every)
            await make_index(session, week.monday, keys, until)
        elif keys:
            await add_to_index(session, week.monday, buckets)
        await add_batches(session, week.monday, new)
        await session.count(
            f"UPDATE packed_week SET indexed_until = %(until)s - interval '{CLOCK_MARGIN_SECONDS} seconds' WHERE week = %(week)s",
            parameters,
        )

    async def _next_group(self, week: Week, until: datetime, after: int) -> Sequence[tuple[int, int]]:
        """Return the next series after ``after``, and how many samples they have; none if there is nothing left to pack."""

        async def read() -> Sequence[tuple[int, int]]:
            await self._session.count(BY_SERIES)
            rows = await self._session.rows(
                NEXT_SERIES.format(table=week.table),
                {**week.parameters, "until": until, "after": after, "samples": self._max_group_samples},
            )
            return [(series_id, int(samples)) for series_id, samples in rows]

        group: list[tuple[int, int]] = []
        total = 0
        for series_id, samples in await in_transaction(self._session, read):
            total += samples
            if group and total > self._max_group_samples:
                break
            group.append((series_id, samples))
        return group

    async def _pack_group(
        self, week: Week, until: datetime, after: int, last: int, even_if_not_final: bool
    ) -> int | None:
        """Pack the series after ``after`` up to ``last``; return how many plain samples were packed."""
        session = self._session
        parameters = {**week.parameters, "until": until, "after": after, "last": last}
        await lock_packed_samples(session)
        if not even_if_not_final and not await self._is_final(week):
            return None  # an administrator has voided samples meanwhile
        await session.count(BY_SERIES)
        await session.count(WORKING_TABLE)
        taken = await session.count(TAKE_PLAIN.format(table=week.table), parameters)
        await session.count("SET LOCAL enable_seqscan = on; SET LOCAL enable_sort = on")
        if await session.rows(f"SELECT FROM packed_samples p WHERE {IN_WEEK} LIMIT 1", parameters):
            await session.count(COPY_PACKED, parameters)
            await session.count(DELETE_PACKED, parameters)
        await session.count(INSERT_PACKED)
        [[given, found, missing]] = await session.rows(DIFFERENCES, parameters)
        [[wrong_rows]] = await session.rows(WRONG_ROWS, parameters)
        if given != found or missing or wrong_rows:
            raise NotVerified(
                f"of {given} samples of {week.table}, {found} were read back, {missing} differ, and {wrong_rows} rows are wrong"
            )
        return taken


async def release_space(session: Session, table: str) -> None:
    """Give the free space of the plain samples of a packed week back to the file system; nothing is blocked for longer than a moment.

    Where a long transaction still sees deleted rows, nothing is given back, and the next call does it.
    """
    [[size, rows]] = await session.rows(ALMOST_EMPTY.format(table=table))
    if size < SMALL_TABLE_BYTES or rows >= MAX_LEFT_ROWS:
        return
    await session.count(f"VACUUM (ANALYZE) {table}")
    [[left]] = await session.rows(f"SELECT pg_relation_size('{table}')")
    if left < SMALL_TABLE_BYTES:
        for [index] in await session.rows(INDEXES, [table]):
            await session.count(f'REINDEX INDEX CONCURRENTLY "{index}"')


async def pack_everything(
    session: Session, pause: Callable[[], Awaitable[object]], *, max_group_samples: int = MAX_GROUP_SAMPLES
) -> int:
    """Pack all weeks that have a partition and are not archived, whatever their age and whether their hours are final; return how many samples.

    For tests and benchmarks: maintenance packs only old weeks.
    """
    packer = Packer(session, pause, max_group_samples=max_group_samples)
    await packer.open()
    try:
        samples = 0
        archived = {each.week for each in await archived_weeks(session)}
        for week in sorted({*await weeks_with_partitions(session)} - archived):
            samples += await packer.pack(week, even_if_not_final=True) or 0
        return samples
    finally:
        if not session.closed:
            await packer.close()
