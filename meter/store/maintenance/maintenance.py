"""Maintenance house: hours and days are settled, partitions made ahead and made compact, what is too old is let go and swept.

Any number of collectors may do it: each step is a transaction that finds nothing to do where another was faster.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Set
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
from meter.identity import week_of
from meter.interfaces import Unavailable
from meter.store.maintenance.compaction import compact
from meter.store.maintenance.garbage_collection import NAMES
from meter.store.maintenance.garbage_collection import PORTION
from meter.store.maintenance.garbage_collection import oldest_kept
from meter.store.maintenance.garbage_collection import sweep
from meter.store.maintenance.garbage_collection import sweep_names
from meter.store.maintenance.partitions import Partitions
from meter.store.maintenance.partitions import drop_before
from meter.store.maintenance.rollups import DAY
from meter.store.maintenance.rollups import HOUR
from meter.store.maintenance.rollups import days_to_finalize
from meter.store.maintenance.rollups import finalize
from meter.store.maintenance.rollups import hold_all_hours
from meter.store.maintenance.rollups import next_hour_to_finalize
from meter.store.postgres.connection import Rejected
from meter.store.postgres.connection import TimedOut
from meter.store.postgres.pool import Pool
from meter.store.postgres.pool import Session

RETRY_SECONDS = 3600.0
"""How long a span that could not be settled is left alone: it may take as long as a statement may."""

COMPACTION_SECONDS = 1800.0
"""How often it is looked whether a week has come of age."""

COMPACTED_AFTER = timedelta(days=2)
"""How long a week has been over when few samples of it are still to come."""

PORTIONS_AT_A_TIME = 100
"""So many portions of a dimension are swept before other work gets its turn."""

BEGINNING = datetime.min.replace(tzinfo=UTC)

LET_GO = """
INSERT INTO retention_cutoff (meter, before) VALUES (%s, %s)
ON CONFLICT (meter) DO UPDATE SET before = greatest(retention_cutoff.before, excluded.before)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How many days samples are kept, and rollups; 0 is for ever.

    ``meter_days`` is for meters whose names match a shell pattern, the first that does; for them it counts if it is
    less than ``days``.
    """

    days: float = 0
    meter_days: Mapping[str, float] = field(default_factory=dict)
    rollup_days: float = 0


class Maintenance(Service):
    """Keeps the house over ``pool``, which it starts and stops, every ``interval_seconds``.

    An hour is settled ``settle_after_seconds`` after its end, when few samples of it are still to come. ``connect``
    returns a new session, for what takes long: weeks are made compact once they have been over for two days.
    """

    _log = Logger()

    def __init__(
        self,
        pool: Pool,
        clock: IReactorTime,
        *,
        connect: Callable[[], Session],
        retention: Retention = Retention(),
        settle_after_seconds: float = 900.0,
        interval_seconds: float = 60.0,
    ) -> None:
        self._pool = pool
        self._clock = clock
        self._left: dict[tuple[datetime, int], float] = {}
        self._hopeless: set[datetime] = set()
        self._swept: tuple[datetime, datetime] | None = None
        self._partitions = Partitions(pool, clock)
        self._retention = retention
        self._settle_after = timedelta(seconds=settle_after_seconds)
        self._periodic = Periodic(
            self._keep, interval_seconds, clock, name="keeping the store", first_after=min(interval_seconds, 5.0)
        )
        self._connect = connect
        self._compacted: date | None = None
        self._compacting: Session | None = None
        self._compaction = Periodic(
            self._compact, COMPACTION_SECONDS, clock, name="compacting the store", first_after=COMPACTION_SECONDS
        )

    def startService(self) -> None:
        """Begin to connect, and to keep house."""
        super().startService()
        self._pool.startService()
        self._periodic.startService()
        self._compaction.startService()

    def stopService(self) -> Deferred[Any]:
        """Fire when the step that is under way is done."""
        super().stopService()
        if self._compacting is not None:
            self._compacting.close()
        stopped = [self._pool.stopService(), self._periodic.stopService(), self._compaction.stopService()]
        return gatherResults([each for each in stopped if each is not None], consumeErrors=True)

    async def _keep(self) -> None:
        try:
            await self.keep()
        except Unavailable as error:
            self._log.debug("the store is not kept now: {reason}", reason=str(error))

    async def keep(self) -> None:
        """Do all there is to do now; :class:`Unavailable` while the database cannot be reached."""
        [[now]] = await self._pool.rows("SELECT now()")
        await self._partitions.cover([now])
        await self.finalize(now - self._settle_after)
        await self.expire(now)
        await self.sweep()

    async def finalize(self, until: datetime) -> int:
        """Settle the hours and the days that ended before ``until``; return how many were settled."""
        now = self._clock.seconds()
        self._left = {span: again for span, again in self._left.items() if again > now}
        self._hopeless &= {start for start, _ in self._left}
        until = until.replace(minute=0, second=0, microsecond=0)
        finalized, since = 0, BEGINNING
        while (hour := await self._pool.run(next_hour_to_finalize, since, until)) is not None:
            finalized += await self._settle(hour, HOUR)
            since = hour + timedelta(hours=HOUR)
        for day in await self._pool.run(days_to_finalize, until.replace(hour=0)):
            finalized += await self._settle(day, DAY)
        return finalized

    async def _settle(self, start: datetime, hours: int) -> bool:
        if (start, hours) in self._left:
            return False
        try:
            return await self._pool.run(finalize, start, hours)
        except (Rejected, TimedOut) as error:
            self._left[start, hours] = self._clock.seconds() + RETRY_SECONDS
            if isinstance(error, Rejected):
                self._hopeless.add(start)
            # Volumes beyond 10**154 have no deviation that a double can tell: samples themselves answer such hours.
            self._log.debug(
                "{hours} h from {start} cannot be settled: {reason}", hours=hours, start=str(start), reason=str(error)
            )
            return False

    async def expire(self, now: datetime) -> None:
        """Let go of what is too old. What is not settled yet stays until it is."""
        keep = self._retention
        if keep.days:
            await self._pool.run(
                _let_weeks_go,
                datetime.combine(week_of(now - timedelta(days=keep.days)), datetime.min.time(), UTC),
                self._hopeless,
            )
        if keep.meter_days:
            for [name] in await self._pool.rows("SELECT DISTINCT name FROM meter ORDER BY name"):
                days = next((days for pattern, days in keep.meter_days.items() if fnmatchcase(name, pattern)), 0)
                if days:
                    before = (now - timedelta(days=days)).replace(minute=0, second=0, microsecond=0)
                    if await self._pool.run(_set_horizon, name, before, self._hopeless):
                        await self._pool.run(_delete_samples, name, before)
        if keep.rollup_days:
            await self._pool.run(
                _delete_rollups,
                (now - timedelta(days=keep.rollup_days)).replace(hour=0, minute=0, second=0, microsecond=0),
            )

    async def sweep(self) -> None:
        """Delete what of the dimension tables nothing needs any more; there is nothing to do until more is let go."""
        oldest = await self._pool.run(oldest_kept)
        if oldest is None or oldest == self._swept:
            return
        samples, rollups = oldest
        work = [
            partial(sweep, dimension="wire_format", before=samples),
            partial(sweep, dimension="metadata", before=rollups),
            partial(sweep, dimension="series", before=rollups),
            *(partial(sweep_names, dimension=name) for name in NAMES),
        ]
        for portion in work:
            for _ in range(PORTIONS_AT_A_TIME):
                if await self._pool.run(portion) < PORTION:
                    break
            else:
                return  # the rest is for the next time
        self._swept = oldest

    async def _compact(self) -> None:
        try:
            [[now]] = await self._pool.rows("SELECT now()")
            await self.compact(week_of(now - COMPACTED_AFTER))
        except Unavailable as error:
            self._log.debug("the store is not compacted now: {reason}", reason=str(error))

    async def compact(self, until: date) -> int:
        """Make the indexes of the weeks that began before ``until`` compact, unless that is done; return how many were."""
        if until == self._compacted:
            return 0
        session = self._compacting = self._connect()
        try:
            await session.open()
            session.disable_timeout()
            await session.count("SET statement_timeout = 0")
            made = await compact(session, until)
        finally:
            self._compacting = None
            session.close()
        self._compacted = until
        return made


async def _set_horizon(session: Session, meter: str, before: datetime, hopeless: Set[datetime]) -> bool:
    """Have nobody write samples before ``before`` any more, and say so, unless some are not settled but may be."""
    await hold_all_hours(session)
    since = BEGINNING
    while (hour := await next_hour_to_finalize(session, since, before)) is not None:
        if hour not in hopeless:
            return False
        since = hour + timedelta(hours=HOUR)
    await session.count(LET_GO, [meter, before])
    return True


async def _let_weeks_go(session: Session, monday: datetime, hopeless: Set[datetime]) -> None:
    await session.count("SET LOCAL lock_timeout = '2s'")
    if await _set_horizon(session, "", monday, hopeless):
        await drop_before(session, monday)


async def _delete_samples(session: Session, meter: str, before: datetime) -> None:
    await session.count(
        "DELETE FROM sample s WHERE s.timestamp < %s AND s.series_id = ANY(ARRAY("
        "SELECT x.id FROM series x JOIN meter m ON m.id = x.meter_id WHERE m.name = %s))",
        [before, meter],
    )


async def _delete_rollups(session: Session, before: datetime) -> None:
    """Delete rollups of hours whose samples were let go: the others would only be settled again."""
    for table in ("rollup", "final_period"):
        await session.count(
            f"DELETE FROM {table} WHERE start < least(%s, (SELECT coalesce(max(before), '-infinity') FROM retention_cutoff WHERE meter = ''))",
            [before],
        )
