"""Compaction: the indexes of a week that is over are made anew, without the room that more samples would have needed.

Ids come in any order, so that an index is two thirds full when its week ends, half full at worst. Readers and writers go
on meanwhile; late samples find their place as before.
"""

from __future__ import annotations

from datetime import date

from meter.interfaces import Unavailable
from meter.store.maintenance.partitions import partition_name
from meter.store.maintenance.partitions import weeks_with_partitions
from meter.store.postgres.pool import Session

LOCK = 0x6D65746572_04
"""Key of the advisory lock of the one session that compacts."""

# An index that is full says so by its fillfactor.
LOOSE = """
SELECT c.relname, i.indisvalid
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
WHERE t.relname = ANY(%s) AND t.relnamespace = current_schema()::regnamespace
AND NOT (i.indisvalid AND coalesce(c.reloptions, '{}') @> '{fillfactor=100}')
ORDER BY i.indisvalid, c.relname
"""


async def compact(session: Session, until: date) -> int:
    """Make the indexes of all weeks anew that began before ``until``; return how many.

    ``session`` must be outside of a transaction and without time limits. Only one at a time does this:
    :class:`~meter.interfaces.Unavailable` while that is another.
    """
    [[alone]] = await session.rows("SELECT pg_try_advisory_lock(%s)", [LOCK])
    if not alone:
        raise Unavailable("another session compacts")
    tables = [partition_name(week) for week in await weeks_with_partitions(session) if week < until]
    made = 0
    for index, valid in await session.rows(LOOSE, [tables]):
        if not valid:  # left behind by one that was interrupted
            await session.count(f'DROP INDEX CONCURRENTLY IF EXISTS "{index}"')
            continue
        await session.count(f'ALTER INDEX "{index}" SET (fillfactor = 100)')
        try:
            await session.count(f'REINDEX INDEX CONCURRENTLY "{index}"')
        except BaseException:
            if not session.closed:
                await session.count(f'ALTER INDEX "{index}" RESET (fillfactor)')
            raise
        made += 1
    return made
