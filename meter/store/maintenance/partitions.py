"""Partitions of the sample table: one a week, created with the first sample of a week or one week ahead.

Only weeks near the present get a partition. Other samples are in the default partition, so that samples with wrong
timestamps cannot create thousands of tables.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from datetime import UTC
from datetime import date
from datetime import datetime
from datetime import timedelta

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from meter.interfaces import Unavailable
from meter.sample_identity import WEEK
from meter.sample_identity import start_of_week
from meter.sample_identity import week_of
from meter.store.maintenance.attempts import FailedAttempts
from meter.store.migrations import has_table
from meter.store.postgres.connection import Rejected
from meter.store.postgres.connection import TimedOut
from meter.store.postgres.pool import Pool
from meter.store.postgres.pool import Session
from meter.store.query.access_paths import IN_ORDER_OF_TIME

MAX_AGE = timedelta(days=400)
"""How far before the database's clock a week with a partition may be: a year, and the month in which it is billed."""

MAX_AHEAD = timedelta(days=7)
"""How far ahead of the database's clock a partition may begin."""

FIRST_RETRY_SECONDS = 60.0
MAX_RETRY_SECONDS = 600.0
"""Pauses before other attempts to create a partition, the first and the longest; samples of that week are in the default partition meanwhile."""

LOCK = 0x6D65746572_02
"""Key of the advisory lock under which partitions are created."""


SAMPLE_WITHOUT_PARTITION = f"""
SELECT s.timestamp FROM sample_default s WHERE {IN_ORDER_OF_TIME} AND s.timestamp >= %s AND s.timestamp < %s
ORDER BY s.timestamp LIMIT 1
"""

OF_WEEK = f"SELECT FROM sample_default s WHERE {IN_ORDER_OF_TIME} AND s.timestamp >= %(first)s AND s.timestamp < %(end)s LIMIT 1"


def end_of_week(timestamp: datetime) -> datetime:
    """Return the Monday, in UTC, after ``timestamp`` (aware); the last possible time for the last week of the year 9999."""
    try:
        return start_of_week(week_of(timestamp) + WEEK)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def partition_name(week: date) -> str:
    """Return the name of the table that holds ``week``: ``sample_2026_11_16``."""
    return f"sample_{week:%Y_%m_%d}"


class Partitions:
    """Creates partitions over ``pool``, and remembers which weeks have one."""

    _log = Logger()

    def __init__(self, pool: Pool, clock: IReactorTime) -> None:
        self._pool = pool
        self._clock = clock
        self._existing: set[date] = set()
        self.failed_weeks = FailedAttempts[date](clock, FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS)

    async def ensure(self, timestamps: Iterable[datetime]) -> None:
        """Create the missing partitions for ``timestamps``, as far as these may have one.

        A failure is logged, and samples can be written nevertheless: the default partition takes them.
        """
        if not self._pool.ready:
            return  # nothing can be written either, so this is no attempt that failed: the next write comes here again
        weeks = {week_of(timestamp) for timestamp in timestamps} - self._existing
        for week in sorted(weeks):
            if self.failed_weeks.wait(week):
                continue
            began = self._clock.seconds()
            try:
                exists = await self._pool.run(_ensure, week)
            except (Unavailable, TimedOut, Rejected) as error:
                exists = False
                self._log.warn(
                    "cannot create the partition of week {week}: {reason}", week=str(week), reason=str(error)
                )
            if exists:
                self._existing.add(week)
                self.failed_weeks.succeeded(week)
            else:
                self.failed_weeks.forget_abandoned()
                self.failed_weeks.failed(week, began)


async def without_partition(pool: Pool, now: datetime) -> list[datetime]:
    """Return the time of a sample whose week may have a partition and has none, in a list that is empty if there is no such one.

    Whoever may not create partitions has stored it.
    """
    return [timestamp for (timestamp,) in await pool.rows(SAMPLE_WITHOUT_PARTITION, [now - MAX_AGE, now + MAX_AHEAD])]


async def _ensure(session: Session, week: date) -> bool:
    """Create the partitions of ``week`` and of the next one; return whether ``week`` has one.

    The database's clock decides which weeks may have one.
    """
    await session.count("SET LOCAL lock_timeout = '2s'")
    await session.rows("SELECT pg_advisory_xact_lock(%s)", [LOCK])
    [[now]] = await session.rows("SELECT now()")
    oldest, newest = week_of(now - MAX_AGE), week_of(now + MAX_AHEAD)
    if not oldest <= week <= newest:
        return False
    for each in sorted({week, min(week + WEEK, newest)}):
        if not await has_table(session, partition_name(each)):
            await _create(session, each)
    return True


async def _create(session: Session, week: date) -> None:
    """Create the partition of ``week``, and move the samples of that week from the default partition into it."""
    name, bounds = partition_name(week), {"first": f"{week} 00:00+00", "end": f"{week + WEEK} 00:00+00"}
    if session.spread:
        await session.count("SET LOCAL citus.multi_shard_modify_mode TO 'sequential'")
        await _lock(session, bounds)
        await _create_spread(session, name, bounds)
        return
    await _lock(session, bounds)
    await session.count(f"CREATE TABLE {name} (LIKE sample INCLUDING ALL)")
    await session.count(
        f"WITH moved AS (DELETE FROM sample_default s WHERE {IN_ORDER_OF_TIME}"
        " AND timestamp >= %(first)s AND timestamp < %(end)s RETURNING *)"
        f" INSERT INTO {name} SELECT * FROM moved",
        bounds,
    )
    await session.rows("SELECT index_message_ids(%s)", [name])
    await session.count(
        f"ALTER TABLE sample ATTACH PARTITION {name} FOR VALUES FROM (%(first)s) TO (%(end)s)",
        bounds,
    )


async def _lock(session: Session, bounds: Mapping[str, str]) -> None:
    """Keep others from the default partition, and from all samples if some of them are moved.

    A reader that waits for the default partition knows already which partitions there are: it would find the moved samples neither
    there nor in the new one, and an hour would become final without them. One that waits for the whole table looks afterwards.
    """
    moves = await session.rows(OF_WEEK, bounds)
    if moves:
        await session.count("LOCK TABLE ONLY sample IN ACCESS EXCLUSIVE MODE")
    await session.count("LOCK TABLE sample_default IN ACCESS EXCLUSIVE MODE")
    if not moves and await session.rows(OF_WEEK, bounds):
        raise Unavailable("samples of the week were just written into the default partition")


async def _create_spread(session: Session, name: str, bounds: Mapping[str, str]) -> None:
    """Create a partition in a spread store: attached to the table it is distributed like it, and then the samples are put into it."""
    of_week = "timestamp >= %(first)s AND timestamp < %(end)s"
    await session.count(
        "CREATE TEMPORARY TABLE moved ON COMMIT DROP AS"
        f" SELECT * FROM sample_default s WHERE {IN_ORDER_OF_TIME} AND {of_week}",
        bounds,
    )
    await session.count(f"DELETE FROM sample_default s WHERE {IN_ORDER_OF_TIME} AND {of_week}", bounds)
    await session.count(f"CREATE TABLE {name} (LIKE sample INCLUDING ALL)")
    if not await session.rows("SELECT FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'p'", [name]):
        await session.count(f"ALTER TABLE {name} ADD PRIMARY KEY (message_id, timestamp, series_id)")
    await session.count(
        f"ALTER TABLE sample ATTACH PARTITION {name} FOR VALUES FROM (%(first)s) TO (%(end)s)",
        bounds,
    )
    if await session.rows("SELECT FROM moved LIMIT 1"):
        await session.count("INSERT INTO sample SELECT * FROM moved")
    await session.count("DROP TABLE moved")


async def weeks_with_partitions(session: Session) -> list[date]:
    """Return the weeks that have a partition, oldest first."""
    rows = await session.rows(
        "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid"
        " WHERE inhparent = 'sample'::regclass AND relname ~ '^sample_[0-9_]+$' ORDER BY relname"
    )
    return [date.fromisoformat(name.removeprefix("sample_").replace("_", "-")) for [name] in rows]


async def drop_before(session: Session, monday: datetime) -> None:
    """Drop the partitions of the weeks before ``monday``, and delete older samples from the default partition and voided ones."""
    for week in await weeks_with_partitions(session):
        if week < monday.date():
            await session.count(f"DROP TABLE {partition_name(week)}")
    await session.count(f"DELETE FROM sample_default s WHERE {IN_ORDER_OF_TIME} AND timestamp < %s", [monday])
    await session.count("DELETE FROM voided_sample WHERE timestamp < %s", [monday])
