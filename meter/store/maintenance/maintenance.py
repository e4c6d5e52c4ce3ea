"""Maintenance of the store: finalizes hours and days, creates partitions ahead, compacts indexes, expires what is too old.

Any number of collectors may do it at the same time: each step is a transaction that finds nothing to do if another
collector was faster.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Set
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import field
from datetime import UTC
from datetime import date
from datetime import datetime
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from meter.daemon.services import Periodic
from meter.daemon.services import sleep
from meter.interfaces import Unavailable
from meter.sample_identity import start_of_week
from meter.sample_identity import week_of
from meter.store.archive.archive_removal import removals
from meter.store.archive.archive_removal import remove_from_archives
from meter.store.maintenance.attempts import FailedAttempts
from meter.store.maintenance.attempts import RetriedWork
from meter.store.maintenance.compaction import compact
from meter.store.maintenance.completeness_days import COMPLETENESS_TABLES
from meter.store.maintenance.completeness_days import CompletenessSummaries
from meter.store.maintenance.empty_hours import mark_empty_hours
from meter.store.maintenance.empty_hours import unused_gaps
from meter.store.maintenance.garbage_collection import BATCH_ROWS
from meter.store.maintenance.garbage_collection import MAX_BATCHES
from meter.store.maintenance.garbage_collection import GarbageCollection
from meter.store.maintenance.identity_names import collect_identity_names
from meter.store.maintenance.ledger_retention import LedgerRetention
from meter.store.maintenance.ledger_retention import retained_days
from meter.store.maintenance.minute_totals import delete_old_minute_totals
from meter.store.maintenance.packing import WeekPacking
from meter.store.maintenance.partitions import Partitions
from meter.store.maintenance.partitions import drop_before
from meter.store.maintenance.partitions import without_partition
from meter.store.maintenance.rollups import DAY
from meter.store.maintenance.rollups import HOUR
from meter.store.maintenance.rollups import days_to_finalize
from meter.store.maintenance.rollups import finalize
from meter.store.maintenance.rollups import lock_all_hours
from meter.store.maintenance.rollups import next_hour_to_finalize
from meter.store.maintenance.usage_retention import UsageRetention
from meter.store.maintenance.voiding import voided_count
from meter.store.packing.packed_partitions import drop_packed_before
from meter.store.packing.packed_partitions import lock_packed_samples
from meter.store.packing.packed_retention import delete_packed
from meter.store.postgres.connection import Locked
from meter.store.postgres.connection import Rejected
from meter.store.postgres.connection import TimedOut
from meter.store.postgres.pool import Pool
from meter.store.postgres.pool import Session
from meter.store.query.access_paths import ROLLUPS_BY_START

MAX_RETRY_SECONDS = 3600.0
"""The longest pause before an hour or day that could not be finalized is tried again, or hours that could not be marked as empty."""

EMPTY_HOURS_INTERVAL_SECONDS = 3600.0
"""How often empty hours are looked for while no hour becomes final."""

COMPACTION_INTERVAL_SECONDS = 1800.0

COMPACTION_AGE = timedelta(days=2)
"""Time after the end of a week until its indexes are compacted: few late samples are expected after that."""

PACKING_INTERVAL_SECONDS = 1800.0

PAUSE_SECONDS = 0.1
"""How long the packer waits before it looks again whether writers have ended."""

IDENTITY_NAMES_INTERVAL_SECONDS = 3600.0
"""How often names of projects, domains and users are looked through for those that nothing refers to."""

MAX_REMOVAL_RETRY_SECONDS = 600.0
"""The longest pause after an archive server was away before it is tried again to delete there."""

BEGINNING = datetime.min.replace(tzinfo=UTC)

ADVANCE_CUTOFF = """
INSERT INTO retention_cutoff (meter, before) VALUES (%s, %s)
ON CONFLICT (meter) DO UPDATE SET before = greatest(retention_cutoff.before, excluded.before)
"""

ROLLUPS_EXPIRED_BEFORE = "SELECT least(%s, before) FROM retention_cutoff WHERE meter = ''"
"""The time before which rollups have expired: those whose samples have, any others would be computed again."""


SERIES_OF_METER = """
SELECT ARRAY(SELECT x.id FROM series x JOIN meter m ON m.id = x.meter_id WHERE m.name = %s)::text
"""
"""The ids of the series of a meter, as PostgreSQL writes an array."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Days for which samples and rollups are retained; 0 means without limit.

    ``meter_days`` is by shell pattern of meter names. The first pattern that matches counts, if it is less than ``days``.
    """

    days: float = 0
    meter_days: Mapping[str, float] = field(default_factory=dict)
    rollup_days: float = 0


class Maintenance(Service):
    """Runs maintenance every ``interval_seconds`` over ``pool``, which it starts and stops.

    An hour is finalized ``finalize_after_seconds`` after its end, when few late samples are still expected. ``connect``
    returns a new session for compaction, which takes long, and ``connect_packer`` one for packing the weeks that ended more than
    ``pack_after_days`` ago; 0 packs none. ``voided_samples`` is their number at the last run.
    """

    _log = Logger()

    def __init__(
        self,
        pool: Pool,
        clock: IReactorTime,
        *,
        connect: Callable[[], Session],
        connect_packer: Callable[[], Session],
        retention: Retention = Retention(),
        finalize_after_seconds: float = 900.0,
        pack_after_days: float = 0.0,
        interval_seconds: float = 60.0,
    ) -> None:
        self.voided_samples = 0
        self._pool = pool
        self._clock = clock
        self._unfinalized = FailedAttempts[tuple[datetime, int]](clock, interval_seconds, MAX_RETRY_SECONDS)
        self._unmarked = FailedAttempts[tuple[datetime, datetime]](clock, interval_seconds, MAX_RETRY_SECONDS)
        self.failed_removals = FailedAttempts[str](clock, interval_seconds, MAX_REMOVAL_RETRY_SECONDS)
        self._interval_seconds = interval_seconds
        self._unrollable: set[datetime] = set()
        self._rollups_deleted_before: datetime | None = None
        self._expired_packed: dict[str, datetime] = {}
        self.garbage_collection = GarbageCollection(pool)
        self._mark_empty_hours_at = 0.0
        self._collect_identity_names_at = 0.0
        self._partitions = Partitions(pool, clock)
        self._retention = retention
        self._ledger_retention = LedgerRetention(pool, retained_days(retention.days, retention.rollup_days))
        self._usage_retention = UsageRetention(pool, retention.rollup_days)
        self._finalize_after = timedelta(seconds=finalize_after_seconds)
        self._summaries = CompletenessSummaries(pool, finalize_after_seconds, partial(sleep, clock, 0))
        self._periodic = Periodic(
            self._try_run, interval_seconds, clock, name="store maintenance", first_after=min(interval_seconds, 5.0)
        )
        self._connect = connect
        self._compacted_until: date | None = None
        self._compaction_session: Session | None = None
        self._compaction = RetriedWork(
            self._compact_old,
            COMPACTION_INTERVAL_SECONDS,
            clock,
            name="store compaction",
            retry_seconds=interval_seconds,
        )
        self.packing = WeekPacking(
            connect_packer,
            partial(sleep, clock, PAUSE_SECONDS),
            after_days=pack_after_days,
            retention_days=retention.days,
        )
        self._packing = RetriedWork(
            self._pack, PACKING_INTERVAL_SECONDS, clock, name="store packing", retry_seconds=interval_seconds
        )

    def startService(self) -> None:
        """Begin to connect, and to run at intervals."""
        super().startService()
        self._pool.startService()
        self._periodic.startService()
        self._compaction.startService()
        self._packing.startService()

    def stopService(self) -> Deferred[Any]:
        """Abort compaction and packing; fire when the current step is done."""
        super().stopService()
        if self._compaction_session is not None:
            self._compaction_session.close()
        self.packing.abort()
        services = (self._pool, self._periodic, self._compaction, self._packing)
        stopped = [service.stopService() for service in services]
        return gatherResults([each for each in stopped if each is not None], consumeErrors=True)

    async def _try_run(self) -> None:
        try:
            await self.run()
        except Unavailable as error:
            self._log.debug("store maintenance is not possible now: {reason}", reason=str(error))

    async def run(self) -> None:
        """Do all that is due, except compaction; :class:`Unavailable` while the database cannot be reached."""
        [[now]] = await self._pool.rows("SELECT now()")
        await self._partitions.ensure([now, *await without_partition(self._pool, now)])
        await self.finalize(now - self._finalize_after)
        await self.summarize(now)
        await self.expire(now)
        await self.remove_from_archives()
        await self._ledger_retention.run(now)
        await self._usage_retention.run(now)
        await self.collect_garbage()
        if self._clock.seconds() >= self._collect_identity_names_at:
            await self.collect_identity_names(now)
            self._collect_identity_names_at = self._clock.seconds() + IDENTITY_NAMES_INTERVAL_SECONDS
        self.voided_samples = await self._pool.run(voided_count)

    async def finalize(self, until: datetime) -> int:
        """Finalize the hours and days that ended before ``until``; return how many with samples were, and days.

        Hours without samples between them are marked as final before the days are looked for.
        """
        now = self._clock.seconds()
        self._unfinalized.forget_abandoned()
        self._unrollable &= {start for start, _ in self._unfinalized.pending()}
        until = until.replace(minute=0, second=0, microsecond=0)
        finalized, since = 0, BEGINNING
        while (hour := await self._pool.run(next_hour_to_finalize, since, until)) is not None:
            finalized += await self._finalize(hour, HOUR)
            since = hour + timedelta(hours=HOUR)
        if finalized or now >= self._mark_empty_hours_at:
            all_marked = await self._mark_empty_hours()
            self._mark_empty_hours_at = now + (EMPTY_HOURS_INTERVAL_SECONDS if all_marked else self._interval_seconds)
        for day in await self._pool.run(days_to_finalize, until.replace(hour=0)):
            finalized += await self._finalize(day, DAY)
        return finalized

    async def _mark_empty_hours(self) -> bool:
        """Mark hours without samples as final; return whether all were looked at."""
        self._unmarked.forget_abandoned()
        all_marked = True
        for gap in await self._pool.run(unused_gaps):
            start, finish = gap
            if self._unmarked.wait(gap):
                all_marked = False
                continue
            began, done = self._clock.seconds(), False
            try:
                done = await mark_empty_hours(self._pool.run, start, finish)
            except (Rejected, TimedOut) as error:
                # Queries look for samples in such hours.
                self._log.debug(
                    "the hours without samples from {start} to {finish} cannot be marked as final: {reason}",
                    start=str(start),
                    finish=str(finish),
                    reason=str(error),
                )
            if done:
                self._unmarked.succeeded(gap)
            else:
                self._unmarked.failed(gap, began)
                all_marked = False
        return all_marked

    async def summarize(self, now: datetime) -> int:
        """Summarize completeness for the hours and days that are over and final; return how many were summarized."""
        try:
            return await self._summaries.summarize(now)
        except (Rejected, TimedOut) as error:
            # Queries compute such an hour or day.
            self._log.debug("completeness cannot be summarized: {reason}", reason=str(error))
            return 0

    async def _finalize(self, start: datetime, hours: int) -> bool:
        if self._unfinalized.wait((start, hours)):
            return False
        began = self._clock.seconds()
        self._unrollable.discard(start)
        try:
            is_final = await self._pool.run(finalize, start, hours)
        except (Rejected, TimedOut) as error:
            self._unfinalized.failed((start, hours), began)
            if isinstance(error, Rejected):
                self._unrollable.add(start)
            # Queries read the samples of such an hour or day.
            self._log.debug(
                "{hours} h from {start} cannot be finalized: {reason}", hours=hours, start=str(start), reason=str(error)
            )
            return False
        self._unfinalized.succeeded((start, hours))
        return is_final

    async def expire(self, now: datetime) -> None:
        """Delete what is older than the retention. Samples of periods that are not final stay until these are."""
        retention = self._retention
        await self._pool.run(delete_old_minute_totals, now)
        if retention.days:
            monday = start_of_week(week_of(now - timedelta(days=retention.days)))
            with suppress(Locked):  # a long transaction of the packer, or a reader: the next run drops them
                await self._pool.run(_drop_expired_partitions, monday, self._unrollable)
        if retention.meter_days:
            for [name] in await self._pool.rows("SELECT DISTINCT name FROM meter ORDER BY name"):
                days = next((days for pattern, days in retention.meter_days.items() if fnmatchcase(name, pattern)), 0)
                if days:
                    before = (now - timedelta(days=days)).replace(minute=0, second=0, microsecond=0)
                    if await self._pool.run(_advance_cutoff, name, before, self._unrollable):
                        # Looking through all packed weeks once an hour is enough: the cutoff moves by hours.
                        packed = self._expired_packed.get(name) != before
                        with suppress(Locked):  # what packs or voids may take minutes: the next run deletes them
                            await self._pool.run(_delete_samples, name, before, packed)
                            self._expired_packed[name] = before
        if retention.rollup_days:
            midnight = (now - timedelta(days=retention.rollup_days)).replace(hour=0, minute=0, second=0, microsecond=0)
            for [before] in await self._pool.rows(ROLLUPS_EXPIRED_BEFORE, [midnight]):
                if before != self._rollups_deleted_before:
                    await self._pool.run(_delete_rollups, before)
                    self._rollups_deleted_before = before

    async def remove_from_archives(self) -> None:
        """Delete on archive servers what has expired or is back here; what cannot be deleted now is tried again later."""
        due = [each for each in await self._pool.run(removals) if not self.failed_removals.wait(each.server)]
        began = self._clock.seconds()
        failed = await remove_from_archives(due, self._pool.run)
        for server in {each.server for each in due} - failed.keys():
            self.failed_removals.succeeded(server)
        for server, reason in failed.items():
            self._log.warn(
                "samples that are not needed stay on the archive server {server}: {reason}",
                server=server,
                reason=reason,
            )
            self.failed_removals.failed(server, began)

    async def collect_garbage(self) -> None:
        """Delete the unused rows of the dimension tables; nothing to do until more samples or rollups have expired."""
        await self.garbage_collection.run()

    async def collect_identity_names(self, now: datetime) -> None:
        """Delete the names of projects, domains and users that nothing refers to."""
        for _ in range(MAX_BATCHES):
            if await self._pool.run(collect_identity_names, now) < BATCH_ROWS:
                break

    async def _compact_old(self) -> None:
        [[now]] = await self._pool.rows("SELECT now()")
        await self.compact(week_of(now - COMPACTION_AGE))

    async def _pack(self) -> None:
        [[now]] = await self._pool.rows("SELECT now()")
        await self.packing.run(now)

    async def compact(self, until: date) -> int:
        """Compact the indexes of the weeks that began before ``until``, unless they are compact; return how many indexes were rebuilt."""
        if until == self._compacted_until:
            return 0
        session = self._compaction_session = self._connect()
        try:
            await session.open()
            await session.remove_time_limits()
            rebuilt = await compact(session, until)
        finally:
            self._compaction_session = None
            session.close()
        self._compacted_until = until
        return rebuilt


async def _advance_cutoff(session: Session, meter: str, before: datetime, unrollable: Set[datetime]) -> bool:
    """Refuse samples before ``before`` from now on; return ``False`` while an hour before it may still become final."""
    if await session.rows("SELECT FROM retention_cutoff WHERE meter = %s AND before >= %s", [meter, before]):
        return True  # once: writers wait for the locks
    await lock_all_hours(session)
    since = BEGINNING
    while (hour := await next_hour_to_finalize(session, since, before)) is not None:
        if hour not in unrollable:
            return False
        since = hour + timedelta(hours=HOUR)
    await session.count(ADVANCE_CUTOFF, [meter, before])
    return True


async def _drop_expired_partitions(session: Session, monday: datetime, unrollable: Set[datetime]) -> None:
    await session.count("SET LOCAL lock_timeout = '2s'")
    await lock_packed_samples(session)
    if await _advance_cutoff(session, "", monday, unrollable):
        await drop_before(session, monday)
        await drop_packed_before(session, monday)


async def _delete_samples(session: Session, meter: str, before: datetime, packed: bool) -> None:
    if packed:
        await session.count("SET LOCAL lock_timeout = '2s'")
        await lock_packed_samples(session)
        await delete_packed(session, meter, before)
    # The ids are values: a statement on several servers cannot read them from a table of one.
    [[series]] = await session.rows(SERIES_OF_METER, [meter])
    for table in ("sample", "voided_sample"):
        await session.count(
            f"DELETE FROM {table} s WHERE s.timestamp < %s AND s.series_id = ANY(%s::integer[])", [before, series]
        )


async def _delete_rollups(session: Session, before: datetime) -> None:
    """Delete rollups whose samples have expired: any others would be computed again."""
    expired = "least(%s, (SELECT coalesce(max(before), '-infinity') FROM retention_cutoff WHERE meter = ''))"
    await session.count(f"DELETE FROM rollup WHERE {ROLLUPS_BY_START.format('rollup')} AND start < {expired}", [before])
    for table in ("meter_totals", "final_period", "changed_series", *COMPLETENESS_TABLES):
        await session.count(f"DELETE FROM {table} WHERE start < {expired}", [before])
