"""Compaction: rebuilds the indexes of past weeks without the free space that only growing indexes need.

Message ids arrive in any order, so an index is about two thirds full when its week ends, and half full at worst. Rebuilding
blocks neither readers nor writers, and late samples can still be inserted.
"""

from __future__ import annotations

from datetime import date

from meter.interfaces import Unavailable
from meter.store.maintenance.partitions import partition_name
from meter.store.maintenance.partitions import weeks_with_partitions
from meter.store.migrations import SPREAD_STORE
from meter.store.migrations import has_table
from meter.store.postgres.pool import Session

LOCK = 0x6D65746572_04
"""Key of the advisory lock of the one session that compacts."""

# A fillfactor of 100 marks an index as compact.
NOT_COMPACT = """
SELECT c.relname, i.indisvalid
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
WHERE t.relname = ANY(%s) AND t.relnamespace = current_schema()::regnamespace
AND NOT (i.indisvalid AND coalesce(c.reloptions, '{}') @> '{fillfactor=100}')
ORDER BY i.indisvalid, c.relname
"""


async def compact(session: Session, until: date) -> int:
    """Rebuild the indexes of all weeks that began before ``until`` and are not compact; return how many.

    ``session`` must be outside of a transaction and without time limits. One session at a time compacts:
    :class:`~meter.interfaces.Unavailable` while another one does.
    """
    if await has_table(session, SPREAD_STORE):
        return 0  # the indexes are on the workers, whose shards are rebuilt when they are moved
    [[locked]] = await session.rows("SELECT pg_try_advisory_lock(%s)", [LOCK])
    if not locked:
        raise Unavailable("another session is compacting")
    tables = [partition_name(week) for week in await weeks_with_partitions(session) if week < until]
    rebuilt = 0
    for index, valid in await session.rows(NOT_COMPACT, [tables]):
        if not valid:  # left behind by an interrupted REINDEX
            await session.count(f'DROP INDEX CONCURRENTLY IF EXISTS "{index}"')
            continue
        await session.count(f'ALTER INDEX "{index}" SET (fillfactor = 100)')
        try:
            await session.count(f'REINDEX INDEX CONCURRENTLY "{index}"')
        except BaseException:
            if not session.closed:
                await session.count(f'ALTER INDEX "{index}" RESET (fillfactor)')
            raise
        rebuilt += 1
    return rebuilt
