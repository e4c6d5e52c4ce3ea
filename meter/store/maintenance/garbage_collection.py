"""Garbage collection: deletes unused rows of the dimension tables, in batches, while others write.

Samples and rollups refer to rows whose ``retained_until`` is not before their own time (:mod:`meter.store.write.dimensions`). A
row whose ``retained_until`` is before all retained samples and rollups, and before all samples that may still be written,
is therefore unused: by what is stored, and by a writer that has its id in memory, whose sample would be refused as too old.
"""

from __future__ import annotations

from datetime import datetime

from meter.store.postgres.pool import Session
from meter.store.query.access_paths import ROLLUPS_BY_START
from meter.store.write.dimensions import LOCK

BATCH_ROWS = 1000
"""Maximum number of rows that one transaction deletes."""

OLDEST_RETAINED = f"""
SELECT before, least(before, (SELECT min(start) FROM rollup WHERE {ROLLUPS_BY_START.format("rollup")})) FROM retention_cutoff WHERE meter = ''
"""
"""The time before which there are no samples, and the time before which there are no rollups either. No row if nothing expired."""

# Rows that a writer is about to retain for longer are locked, and are skipped.
DELETE_ROWS = """
WITH deleted AS (
    DELETE FROM {table} WHERE id IN (
        SELECT id FROM {table} WHERE retained_until < %(before)s LIMIT %(rows)s FOR UPDATE SKIP LOCKED
    ) RETURNING 1
), counted AS ({count})
SELECT count(*) FROM deleted
"""

DELETE_BATCHES = """
WITH deleted AS (
    DELETE FROM signed_batch WHERE id IN (
        SELECT id FROM signed_batch WHERE last < %(before)s LIMIT %(rows)s FOR UPDATE SKIP LOCKED
    ) RETURNING 1
), counted AS ({count})
SELECT count(*) FROM deleted
"""

UNUSED = "NOT EXISTS (SELECT FROM series WHERE series.{column} = name.id){used_by_rating}"
FIND_NAMES = f"SELECT id FROM {{table}} AS name WHERE {UNUSED} LIMIT %(rows)s"
DELETE_NAMES = f"""
WITH deleted AS (
    DELETE FROM {{table}} AS name WHERE id = ANY(%(ids)s) AND {UNUSED} RETURNING 1
), counted AS ({{count}})
SELECT count(*) FROM deleted
"""

COUNT = """
    INSERT INTO garbage_collected (dimension, rows, at) SELECT %(dimension)s, count(*), now() FROM deleted HAVING count(*) > 0
    ON CONFLICT (dimension) DO UPDATE SET rows = garbage_collected.rows + excluded.rows, at = excluded.at
"""

NAME_TABLES = ("meter", "resource", "user", "project", "source", "run")
"""Dimension tables that ``series`` refers to, and rated usage to two of them."""

USED_BY_RATING = {
    "resource": " AND NOT EXISTS (SELECT FROM usage_resource u WHERE u.resource_id = name.id)",
    "project": " AND NOT EXISTS (SELECT FROM usage_project u WHERE u.project_id = name.id)",
}
"""Names of usage that is kept stay after the last series, by table."""


async def oldest_retained(session: Session) -> tuple[datetime, datetime] | None:
    """Return the time of the oldest samples, and of the oldest samples or rollups; ``None`` if nothing has expired."""
    for samples, rollups in await session.rows(OLDEST_RETAINED):
        return samples, rollups
    return None


async def collect(session: Session, dimension: str, before: datetime) -> int:
    """Delete a batch of rows of ``series``, ``metadata`` or ``wire_format`` that expired ``before``; return how many."""
    statement = DELETE_ROWS.format(table=dimension, count=COUNT)
    [[deleted]] = await session.rows(statement, {"dimension": dimension, "before": before, "rows": BATCH_ROWS})
    return int(deleted)


async def collect_batches(session: Session, before: datetime) -> int:
    """Delete some of the signed batches all of whose samples are from ``before``; return how many."""
    [[deleted]] = await session.rows(
        DELETE_BATCHES.format(count=COUNT), {"dimension": "signed_batch", "before": before, "rows": BATCH_ROWS}
    )
    return int(deleted)


async def collect_names(session: Session, dimension: str) -> int:
    """Delete a batch of the names that no series refers to; return how many.

    They are found while writers may make series, and checked again while a lock keeps writers from making any.
    """
    parts = {
        "table": f'"{dimension}"',
        "column": f"{dimension}_id",
        "count": COUNT,
        "used_by_rating": USED_BY_RATING.get(dimension, ""),
    }
    ids = [id for [id] in await session.rows(FIND_NAMES.format(**parts), {"rows": BATCH_ROWS})]
    if not ids:
        return 0
    await session.count("SET LOCAL lock_timeout = '2s'")
    await session.rows("SELECT pg_advisory_xact_lock(%s)", [LOCK])
    [[deleted]] = await session.rows(DELETE_NAMES.format(**parts), {"dimension": dimension, "ids": ids})
    return int(deleted)
