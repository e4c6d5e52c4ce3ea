"""Sweeping: rows of the dimension tables that nothing needs any more are deleted, a portion at a time, beside any writers.

A sample, an hour or a day needs the rows that it refers to, and those say until when they may be needed
(:mod:`meter.store.write.dimensions`). What that is before all that is kept, and before all that may still be written, is
needed by nobody: neither by what is stored, nor by a writer who remembers it, whose sample would be refused as too old.
"""

from __future__ import annotations

from datetime import datetime

from meter.store.postgres.pool import Session
from meter.store.query.access_paths import ROLLUPS_BY_START
from meter.store.write.dimensions import LOCK

PORTION = 1000
"""Rows that one transaction deletes at most."""

OLDEST = f"""
SELECT before, least(before, (SELECT min(start) FROM rollup WHERE {ROLLUPS_BY_START.format("rollup")})) FROM retention_cutoff WHERE meter = ''
"""
"""Of what time the oldest samples may be, and the oldest rollups. No row as long as nothing was let go."""

# Rows that somebody moves on in this moment are left alone.
SWEEP = """
WITH gone AS (
    DELETE FROM {table} WHERE id IN (
        SELECT id FROM {table} WHERE retained_until < %(before)s LIMIT %(portion)s FOR UPDATE SKIP LOCKED
    ) RETURNING 1
), counted AS ({count})
SELECT count(*) FROM gone
"""

UNUSED = "NOT EXISTS (SELECT FROM series WHERE series.{column} = name.id)"
FIND_NAMES = f"SELECT id FROM {{table}} AS name WHERE {UNUSED} LIMIT %(portion)s"
SWEEP_NAMES = f"""
WITH gone AS (
    DELETE FROM {{table}} AS name WHERE id = ANY(%(ids)s) AND {UNUSED} RETURNING 1
), counted AS ({{count}})
SELECT count(*) FROM gone
"""

COUNT = """
    INSERT INTO garbage_collected (dimension, rows, at) SELECT %(dimension)s, count(*), now() FROM gone HAVING count(*) > 0
    ON CONFLICT (dimension) DO UPDATE SET rows = garbage_collected.rows + excluded.rows, at = excluded.at
"""

NAMES = ("meter", "resource", "user", "project", "source", "run")
"""Dimension tables that series refer to, and nothing else."""


async def oldest_kept(session: Session) -> tuple[datetime, datetime] | None:
    """Return times before which there are no samples, and neither samples nor rollups; ``None`` if all are kept."""
    for samples, rollups in await session.rows(OLDEST):
        return samples, rollups
    return None


async def sweep(session: Session, dimension: str, before: datetime) -> int:
    """Delete a portion of the series, metadata or forms that are needed until ``before`` only; return how many went."""
    statement = SWEEP.format(table=dimension, count=COUNT)
    [[gone]] = await session.rows(statement, {"dimension": dimension, "before": before, "portion": PORTION})
    return int(gone)


async def sweep_names(session: Session, dimension: str) -> int:
    """Delete a portion of the names that no series refers to; return how many went.

    They are looked for while series are made, and looked at again while none can be.
    """
    words = {"table": f'"{dimension}"', "column": f"{dimension}_id", "count": COUNT}
    ids = [number for [number] in await session.rows(FIND_NAMES.format(**words), {"portion": PORTION})]
    if not ids:
        return 0
    await session.count("SET LOCAL lock_timeout = '2s'")
    await session.rows("SELECT pg_advisory_xact_lock(%s)", [LOCK])
    [[gone]] = await session.rows(SWEEP_NAMES.format(**words), {"dimension": dimension, "ids": ids})
    return int(gone)
