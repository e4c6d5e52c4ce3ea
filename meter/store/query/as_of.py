"""Queries as of a time: how to be sure that all samples recorded until then are committed.

A sample is recorded a little before it is committed. Each writing transaction holds an advisory lock whose key is the second
in which it began; a query as of a time first waits until no lock from before that time is held. ``pg_locks`` shows the
locks to every user of the database.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime

from meter.daemon.services import sleep
from meter.interfaces import RequestError
from meter.interfaces import Unavailable
from meter.store.cluster.visibility import ensure_all_visible
from meter.store.postgres.pool import Pool

LOCKS = 0x6D657465
"""First key of the advisory locks: ``mete`` in ASCII. The second key is the second in which the transaction began."""

EPOCH = "extract(epoch FROM {} - timestamptz '2020-01-01 00:00+00')"
"""Seconds since 2020: they fit into the key of a lock until 2088."""

WRITER_LOCK_SQL = f"SELECT pg_advisory_xact_lock_shared({LOCKS}, floor({EPOCH.format('clock_timestamp()')})::integer)"
"""The first statement of a transaction that stores samples. ``recorded_at`` must be read from the clock after it."""

WRITERS_IN_PROGRESS = f"""
SELECT given.as_of > clock_timestamp() AS in_future,
    pg_is_in_recovery() AND given.as_of > clock_timestamp() - interval '10 minutes' AS hidden_by_standby,
    EXISTS (
        SELECT FROM pg_locks
        WHERE locktype = 'advisory' AND classid = {LOCKS} AND objsubid = 2
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND objid::bigint <= {EPOCH.format("given.as_of")}
    ) AS in_progress
FROM (SELECT %s::timestamptz AS as_of) given
"""

PAUSE_SECONDS = 0.05
MAX_PAUSES = 60


class Writers(NamedTuple):
    """The row of :data:`WRITERS_IN_PROGRESS`: the writers that began before a time."""

    in_future: bool
    """The time is in the future, so that more writers can begin before it."""
    hidden_by_standby: bool
    """The database is a standby, which does not see the locks of the primary."""
    in_progress: bool


async def wait_for_writers_before(pool: Pool, clock: IReactorTime, as_of: datetime) -> None:
    """Return when all samples that were recorded until ``as_of`` are committed: from then on the result of a query is final.

    :class:`RequestError` if ``as_of`` is in the future; :class:`Unavailable` if a writer from before it does not finish
    in time, if the database is a standby and ``as_of`` is less than ten minutes ago, or if a spread store cannot show all of them.
    """
    for _ in range(MAX_PAUSES):
        [row] = await pool.rows(WRITERS_IN_PROGRESS, [as_of])
        writers = Writers(*row)
        if writers.in_future:
            raise RequestError(f"{as_of.isoformat()} is in the future: what will be recorded by then is not known")
        if writers.hidden_by_standby:
            raise Unavailable(
                f"the standby may not have received all samples recorded by {as_of.isoformat()}: try again ten minutes after that time"
            )
        if not writers.in_progress:
            if pool.spread and not (pool.visible_until and as_of <= pool.visible_until):
                await ensure_all_visible(pool.rows)
                pool.visible_until = as_of
            return
        await sleep(clock, PAUSE_SECONDS)
    raise Unavailable(f"samples recorded by {as_of.isoformat()} are still being committed: try again")
