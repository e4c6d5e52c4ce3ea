"""Partitions of the sample table: a week each, made when their first sample comes, one week ahead.

Only weeks near the present get one; all else lives in the default partition, so that a clock gone mad cannot make
thousands of tables.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC
from datetime import date
from datetime import datetime
from datetime import timedelta

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from meter.identity import WEEK
from meter.identity import week_of
from meter.interfaces import Unavailable
from meter.store.migrations import has_table
from meter.store.postgres.connection import Rejected
from meter.store.postgres.connection import TimedOut
from meter.store.postgres.pool import Pool
from meter.store.postgres.pool import Session
from meter.store.query.access_paths import IN_ORDER_OF_TIME

OLDEST = timedelta(days=400)
"""How far back samples may lie to get a partition: a year and the month in which it is billed."""

NEWEST = timedelta(days=7)
"""How far ahead of the database's clock a partition may begin."""

RETRY_SECONDS = 600.0
"""How long a week that could not get a partition is left to the default one before that is tried again."""

LOCK = 0x6D65746572_02
"""Key of the advisory lock that makers of partitions take."""


def end_of_week(moment: datetime) -> datetime:
    """Return the Monday, in UTC, that ends the week that ``moment`` (aware) lies in; the end of time for the last."""
    try:
        return datetime.combine(week_of(moment) + WEEK, datetime.min.time(), UTC)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def partition_name(week: date) -> str:
    """Return the name of the table that holds ``week``: ``sample_2026_11_16``."""
    return f"sample_{week:%Y_%m_%d}"


class Partitions:
    """Knows which weeks are taken care of and has the others made, over ``pool``."""

    _log = Logger()

    def __init__(self, pool: Pool, clock: IReactorTime) -> None:
        self._pool = pool
        self._clock = clock
        self._covered: set[date] = set()
        self._left: dict[date, float] = {}

    async def cover(self, moments: Iterable[datetime]) -> None:
        """Have partitions for ``moments``, as far as they may have one. Samples can be written whether or not this works."""
        weeks = {week_of(moment) for moment in moments} - self._covered
        now = self._clock.seconds()
        for week in sorted(weeks):
            if self._left.get(week, now) > now:
                continue
            try:
                covered = await self._pool.run(_cover, week)
            except (Unavailable, TimedOut, Rejected) as error:
                covered = False
                self._log.warn("week {week} has no partition yet: {reason}", week=str(week), reason=str(error))
            if covered:
                self._covered.add(week)
            else:
                self._left = {w: until for w, until in self._left.items() if until > now}
                self._left[week] = now + RETRY_SECONDS


async def _cover(session: Session, week: date) -> bool:
    """Make the partitions of ``week`` and the next; return whether ``week`` has one. The database's clock decides."""
    await session.count("SET LOCAL lock_timeout = '2s'")
    await session.rows("SELECT pg_advisory_xact_lock(%s)", [LOCK])
    [[now]] = await session.rows("SELECT now()")
    oldest, newest = week_of(now - OLDEST), week_of(now + NEWEST)
    if not oldest <= week <= newest:
        return False
    for each in sorted({week, min(week + WEEK, newest)}):
        if not await has_table(session, partition_name(each)):
            await _make(session, each)
    return True


async def _make(session: Session, week: date) -> None:
    """Make the partition of ``week`` and move into it what the default partition has of that week."""
    name, bounds = partition_name(week), {"first": f"{week} 00:00+00", "end": f"{week + WEEK} 00:00+00"}
    await session.count("LOCK TABLE sample_default IN ACCESS EXCLUSIVE MODE")
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


async def weeks_with_partitions(session: Session) -> list[date]:
    """Return the weeks that have a partition, oldest first."""
    rows = await session.rows(
        "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid"
        " WHERE inhparent = 'sample'::regclass AND relname ~ '^sample_[0-9_]+$' ORDER BY relname"
    )
    return [date.fromisoformat(name.removeprefix("sample_").replace("_", "-")) for [name] in rows]


async def drop_before(session: Session, monday: datetime) -> None:
    """Drop the partitions of the weeks before ``monday``, and what the default partition has of that time."""
    for week in await weeks_with_partitions(session):
        if week < monday.date():
            await session.count(f"DROP TABLE {partition_name(week)}")
    await session.count(f"DELETE FROM sample_default s WHERE {IN_ORDER_OF_TIME} AND timestamp < %s", [monday])
