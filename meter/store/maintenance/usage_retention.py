"""Retention of rated usage: it is deleted with the rollups of its days, long after their samples."""

from __future__ import annotations

from datetime import datetime
from datetime import timedelta

from meter.store.postgres.pool import Pool
from meter.store.postgres.pool import Session

MAX_DAYS = 100
"""Days of SKUs that one run deletes, so that other work is not delayed."""

EXPIRED_DAYS = "SELECT sku_id, day FROM usage_day WHERE finish < %s ORDER BY finish LIMIT %s"

DELETE_ATOMS = "DELETE FROM usage_atom WHERE sku_id = %s AND day = %s"
DELETE_DAY = "DELETE FROM usage_day WHERE sku_id = %s AND day = %s"

DELETE_LIVES = "DELETE FROM usage_life WHERE ended < %s"

# What refers to a name is looked up once for all of them: there are few names, and much usage.
DELETE_NAMES = """
DELETE FROM {table} n WHERE NOT EXISTS (SELECT FROM usage_atom u WHERE u.{column} = n.{column})
    AND NOT EXISTS (SELECT FROM usage_life l WHERE l.{column} = n.{column})
"""
DELETE_VALUES = "DELETE FROM usage_values v WHERE NOT EXISTS (SELECT FROM usage_atom u WHERE u.values_id = v.id)"
DELETE_SKUS = """
DELETE FROM usage_sku k WHERE NOT EXISTS (SELECT FROM usage_day d WHERE d.sku_id = k.id)
    AND NOT EXISTS (SELECT FROM usage_atom u WHERE u.sku_id = k.id)
"""


class UsageRetention:
    """Deletes usage of days that ended more than ``days`` ago, 0 for never, over ``pool``."""

    def __init__(self, pool: Pool, days: float) -> None:
        self._pool = pool
        self._days = days

    async def run(self, now: datetime) -> int:
        """Delete the usage of some expired days; return of how many. Unused names are freed when there are no more."""
        if not self._days:
            return 0
        before = now - timedelta(days=self._days)
        expired = await self._pool.rows(EXPIRED_DAYS, [before, MAX_DAYS])
        for sku_id, day in expired:
            await self._pool.run(_delete_day, [sku_id, day])
        if expired and len(expired) < MAX_DAYS:
            await self._pool.run(_free_names, before)
        return len(expired)


async def _delete_day(session: Session, key: list[object]) -> None:
    for statement in (DELETE_ATOMS, DELETE_DAY):
        await session.count(statement, key)


async def _free_names(session: Session, before: datetime) -> None:
    await session.count(DELETE_LIVES, [before])
    for table, column in (("usage_resource", "resource_id"), ("usage_project", "project_id")):
        await session.count(DELETE_NAMES.format(table=table, column=column))
    for statement in (DELETE_VALUES, DELETE_SKUS):
        await session.count(statement)
