"""When samples are recorded, and how a question as of a moment can be sure of all that was recorded by then.

A sample is recorded a little before it is committed. Whoever writes holds a lock, for as long as the transaction lasts,
that tells when it began; a question as of a moment first waits until nobody holds one from before. ``pg_locks`` shows
the locks to every user of the database.
"""

from __future__ import annotations

from datetime import datetime

from twisted.internet.interfaces import IReactorTime

from meter.daemon.services import sleep
from meter.interfaces import RequestError
from meter.interfaces import Unavailable
from meter.store.postgres.pool import Pool

LOCKS = 0x6D657465
"""First key of the advisory locks: ``mete`` in ASCII. The second is the second in which the transaction began."""

EPOCH = "extract(epoch FROM {} - timestamptz '2020-01-01 00:00+00')"
"""Seconds since 2020: until 2088 they fit into the key of a lock."""

RECORDING = f"SELECT pg_advisory_xact_lock_shared({LOCKS}, floor({EPOCH.format('clock_timestamp()')})::integer)"
"""The first statement of a transaction that records samples. ``recorded_at`` must be read from the clock after it."""

WRITERS_IN_PROGRESS = f"""
SELECT at.moment > clock_timestamp(), pg_is_in_recovery() AND at.moment > clock_timestamp() - interval '10 minutes', EXISTS (
    SELECT FROM pg_locks
    WHERE locktype = 'advisory' AND classid = {LOCKS} AND objsubid = 2
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND objid::bigint <= {EPOCH.format("at.moment")}
) FROM (SELECT %s::timestamptz AS moment) at
"""

PAUSE_SECONDS = 0.05
PAUSES = 60


async def wait_for_writers_before(pool: Pool, clock: IReactorTime, moment: datetime) -> None:
    """Return once all that was recorded up to ``moment`` is committed, for good: later answers will be the same.

    :class:`RequestError` for a moment to come; :class:`Unavailable` while a transaction from before it goes on, or on
    a standby, which does not see the locks, for ten minutes.
    """
    for _ in range(PAUSES):
        [[ahead, unseen, writing]] = await pool.rows(WRITERS_IN_PROGRESS, [moment])
        if ahead:
            raise RequestError(f"{moment.isoformat()} is yet to come: what is recorded by then is not known")
        if unseen:
            raise Unavailable(
                f"a standby cannot tell yet what was recorded by {moment.isoformat()}: ask ten minutes after it"
            )
        if not writing:
            return
        await sleep(clock, PAUSE_SECONDS)
    raise Unavailable(f"samples recorded by {moment.isoformat()} are still being written: ask again")
