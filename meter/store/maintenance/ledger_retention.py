"""Retention of the completeness ledger: its rows are deleted some time after the samples and rollups that they explain.

Samples are deleted by whole weeks and rollups by days. Rows of the ledger that are deleted before them would leave samples that nobody
expected; rows that stay somewhat longer say that samples have expired.

Series that are still measured stay, and so do agents that have rows. Each transaction deletes a limited number of rows.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from datetime import timedelta

from meter.store.postgres.connection import Rejected
from meter.store.postgres.pool import Pool
from meter.store.postgres.pool import Session

BATCH_ROWS = 5000
"""Maximum number of rows that one transaction deletes."""

MAX_BATCHES = 20
"""Batches that one run deletes of each table, so that other work is not delayed."""

LONGER_DAYS = 14.0
"""Days for which the ledger is retained longer than samples and rollups, more than the week by which samples are deleted."""

HEARTBEAT_DAYS = 30.0
"""Days after which the heartbeat of a daemon that does not report any more is deleted."""

EXPIRED = {
    "cycle_run": "last_due < %(before)s",
    "metered_resource": "until_due < %(before)s",
    "polling_exception": "until_time < %(before)s",
    "off_schedule_poll": "at < %(before)s",
    "inactive_pollster": "until < %(before)s",
    "rejected_sample": "start < %(before)s",
}
"""What expires, by table."""

LATE = "start < %(before)s"
"""Which counts of late samples expire: they refer to series, which are deleted with the rollups."""

DELETE = """
DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE {expired} LIMIT {rows} FOR UPDATE SKIP LOCKED))
"""

# A boot is needed as long as a report of it may be repeated. One that has no cycle, as all its reports wait, has no rows.
DELETE_BOOTS = f"""
DELETE FROM agent_boot WHERE ctid = ANY(ARRAY(
    SELECT b.ctid FROM agent_boot b JOIN agent a ON a.id = b.agent_id
    WHERE b.last_due < %(before)s AND a.newest_boot IS DISTINCT FROM b.boot LIMIT {BATCH_ROWS} FOR UPDATE OF b SKIP LOCKED
))
"""

# The row of an agent is locked by whoever applies its reports.
DELETE_AGENTS = f"""
DELETE FROM agent WHERE ctid = ANY(ARRAY(
    SELECT a.ctid FROM agent a WHERE a.last_due < %(before)s AND a.last_due > '-infinity'
        AND NOT EXISTS (SELECT FROM waiting_report w WHERE w.agent_id = a.id)
        AND NOT EXISTS (SELECT FROM cycle_run r WHERE r.agent_id = a.id)
        AND NOT EXISTS (SELECT FROM polling_exception e WHERE e.agent_id = a.id)
    LIMIT {BATCH_ROWS} FOR UPDATE OF a SKIP LOCKED
))
"""
"""Deletes agents that have not reported since, with the series that they still had: nobody measures these any more."""

# Lists that a writer is about to use are locked, and are skipped.
DELETE_METER_LISTS = f"""
DELETE FROM meter_list WHERE ctid = ANY(ARRAY(
    SELECT l.ctid FROM meter_list l
    WHERE NOT EXISTS (SELECT FROM metered_resource m WHERE m.meter_list_id = l.id)
        AND NOT EXISTS (SELECT FROM off_schedule_poll o WHERE o.meter_list_id = l.id)
    LIMIT {BATCH_ROWS} FOR UPDATE OF l SKIP LOCKED
))
"""


def retained_days(days: float, rollup_days: float) -> float:
    """Return for how many days the ledger is retained, 0 for ever: as long as samples or their rollups."""
    return max(days, rollup_days) if days and rollup_days else 0.0


class LedgerRetention:
    """Deletes what samples or rollups that are retained for ``days``, 0 for ever, do not need any more, over ``pool``."""

    def __init__(self, pool: Pool, days: float) -> None:
        self._pool = pool
        self._days = days
        self._unused_lists_until: datetime | None = None

    async def run(self, now: datetime) -> int:
        """Delete expired rows of all tables; return how many."""
        heartbeats = "received_at < %(before)s"
        deleted = await self._delete(
            DELETE.format(table="daemon_heartbeat", expired=heartbeats, rows=BATCH_ROWS),
            now - timedelta(days=HEARTBEAT_DAYS),
        )
        if not self._days:
            return deleted
        before = now - timedelta(days=self._days)
        deleted += await self._delete(DELETE.format(table="late_sample", expired=LATE, rows=BATCH_ROWS), before)
        before -= timedelta(days=LONGER_DAYS)
        for table, expired in EXPIRED.items():
            deleted += await self._delete(DELETE.format(table=table, expired=expired, rows=BATCH_ROWS), before)
        deleted += await self._delete(DELETE_BOOTS, before)
        deleted += await self._delete(DELETE_AGENTS, before)
        if self._unused_lists_until is None or now >= self._unused_lists_until:
            with suppress(Rejected):  # a list that somebody began to use meanwhile: the next run tries again
                deleted += await self._delete(DELETE_METER_LISTS, before)
            self._unused_lists_until = now + timedelta(hours=1)
        return deleted

    async def _delete(self, statement: str, before: datetime) -> int:
        deleted = 0
        for _ in range(MAX_BATCHES):
            some = await self._pool.run(_delete_some, statement, before)
            deleted += some
            if some < BATCH_ROWS:
                break
        return deleted


async def _delete_some(session: Session, statement: str, before: datetime) -> int:
    return await session.count(statement, {"before": before})
