"""Garbage collection: deletes unused rows of the dimension tables, in batches, while others write.

Samples and rollups refer to rows whose ``retained_until`` is after their own time (:mod:`meter.store.write.dimensions`). A
row whose ``retained_until`` is not after all retained samples and rollups, and all samples that may still be written, begin,
is therefore unused: by what is stored, and by a writer that has its id in memory, whose sample would be refused as too old.

Each time that something has expired, every table is walked through once in the order of its ids, some thousand rows in a transaction; names
are compared with all series once. Finding some rows anew for each batch would read all rows that are in use again and again.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Coroutine
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any
from typing import NamedTuple

from meter.store.postgres.connection import Locked
from meter.store.postgres.pool import Pool
from meter.store.postgres.pool import Session
from meter.store.query.access_paths import ROLLUPS_BY_START
from meter.store.write.dimensions import LOCK

BATCH_ROWS = 1000
"""Maximum number of rows that one transaction deletes."""

EXAMINED_ROWS = 20_000
"""Maximum number of rows that one transaction looks at."""

MAX_BATCHES = 100
"""Transactions that one run of maintenance spends on each dimension table, so that other work is not delayed."""

OLDEST_RETAINED = f"""
SELECT before, least(before, (SELECT min(start) FROM rollup WHERE {ROLLUPS_BY_START.format("rollup")})) FROM retention_cutoff WHERE meter = ''
"""
"""The time before which there are no samples, and the time before which there are no rollups either. No row if nothing expired."""

_WALK = """
WITH examined AS MATERIALIZED (
    SELECT id, retained_until <= %(before)s AS unused FROM {table} WHERE id > %(after)s ORDER BY id LIMIT %(examined)s
), unused AS MATERIALIZED (SELECT id FROM examined WHERE unused ORDER BY id LIMIT %(rows)s)
"""

# The last id that was looked at, null at the end of the table: the next batch begins after it.
_LAST = """
CASE WHEN (SELECT count(*) FROM unused) = %(rows)s THEN (SELECT max(id) FROM unused)
    WHEN (SELECT count(*) FROM examined) = %(examined)s THEN (SELECT max(id) FROM examined) END
"""

# Rows that a writer is about to retain for longer are locked, and are skipped.
DELETE_ROWS = f"""{_WALK}, deleted AS (
    DELETE FROM {{table}} WHERE id IN (
        SELECT id FROM {{table}} WHERE id = ANY(ARRAY(SELECT id FROM unused)) AND retained_until <= %(before)s FOR UPDATE SKIP LOCKED
    ) RETURNING 1
), counted AS ({{count}})
SELECT (SELECT count(*) FROM deleted), {_LAST}
"""

DELETE_BATCHES = """
WITH deleted AS (
    DELETE FROM signed_batch WHERE id IN (
        SELECT id FROM signed_batch WHERE last < %(before)s LIMIT %(rows)s FOR UPDATE SKIP LOCKED
    ) RETURNING 1
), counted AS ({count})
SELECT count(*) FROM deleted
"""

UNUSED = "NOT EXISTS (SELECT FROM series WHERE series.{column} = dimension.id){used_by_rating}"

# Most columns of series have no index by which a name could be looked up: all names are compared with all series at once.
FIND_NAMES = f"""
WITH unused AS MATERIALIZED (SELECT id FROM {{table}} AS dimension WHERE {UNUSED}) SELECT id FROM unused ORDER BY id LIMIT %(rows)s
"""
DELETE_NAMES = f"""
WITH deleted AS (
    DELETE FROM {{table}} AS dimension WHERE id = ANY(%(ids)s) AND {UNUSED} RETURNING 1
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
    "resource": " AND NOT EXISTS (SELECT FROM usage_resource u WHERE u.resource_id = dimension.id)",
    "project": " AND NOT EXISTS (SELECT FROM usage_project u WHERE u.project_id = dimension.id)",
}
"""Names of usage that is kept stay after the last series, by table."""


class Batch(NamedTuple):
    """What a transaction has done: how many rows it deleted, and after which id the next one goes on; ``None`` at the end."""

    deleted: int
    last: int | None


async def oldest_retained(session: Session) -> tuple[datetime, datetime] | None:
    """Return the time of the oldest samples, and of the oldest samples or rollups; ``None`` if nothing has expired."""
    for samples, rollups in await session.rows(OLDEST_RETAINED):
        return samples, rollups
    return None


async def collect(session: Session, dimension: str, before: datetime, after: int = 0) -> Batch:
    """Delete a batch of rows of ``series``, ``metadata`` or ``wire_format`` that expired ``before``, of those with ids ``after``."""
    statement = DELETE_ROWS.format(table=dimension, count=COUNT)
    parameters = {"dimension": dimension, "before": before, "after": after}
    [row] = await session.rows(statement, {**parameters, "rows": BATCH_ROWS, "examined": EXAMINED_ROWS})
    return Batch(*row)


async def collect_batches(session: Session, before: datetime, after: int = 0) -> Batch:
    """Delete some of the signed batches all of whose samples are from ``before``. An index finds them, wherever they are."""
    [[deleted]] = await session.rows(
        DELETE_BATCHES.format(count=COUNT), {"dimension": "signed_batch", "before": before, "rows": BATCH_ROWS}
    )
    return Batch(deleted, after if deleted == BATCH_ROWS else None)


async def unused_names(session: Session, dimension: str) -> list[int]:
    """Return the ids of names that no series refers to, as many as one run may delete. Writers may make series meanwhile."""
    await session.count("SET LOCAL enable_nestloop = off")
    statement = FIND_NAMES.format(**_of_names(dimension))
    return [id for [id] in await session.rows(statement, {"rows": MAX_BATCHES * BATCH_ROWS})]


async def delete_names(session: Session, dimension: str, ids: Sequence[int]) -> int:
    """Delete those names that still no series refers to, while a lock keeps writers from making any; return how many."""
    await session.count("SET LOCAL lock_timeout = '2s'")
    await session.rows("SELECT pg_advisory_xact_lock(%s)", [LOCK])
    statement = DELETE_NAMES.format(**_of_names(dimension), count=COUNT)
    [[deleted]] = await session.rows(statement, {"dimension": dimension, "ids": list(ids)})
    return int(deleted)


def _of_names(dimension: str) -> dict[str, str]:
    return {
        "table": f'"{dimension}"',
        "column": f"{dimension}_id",
        "used_by_rating": USED_BY_RATING.get(dimension, ""),
    }


class GarbageCollection:
    """Collects what is unused since something expired, over ``pool``; several runs of maintenance share a large amount."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._oldest: tuple[datetime, datetime] | None = None
        self._places: dict[str, int] = {}

    @property
    def unfinished(self) -> bool:
        """Whether the next run goes on."""
        return bool(self._places)

    async def run(self) -> None:
        """Delete unused rows; nothing to do until more samples or rollups have expired."""
        oldest = await self._pool.run(oldest_retained)
        if oldest is None:
            return
        if oldest != self._oldest:
            tables = ("signed_batch", "wire_format", "metadata", "series", *NAME_TABLES)
            self._oldest, self._places = oldest, dict.fromkeys(tables, 0)
        samples, rollups = oldest
        await self._walk("signed_batch", partial(collect_batches, before=samples))
        await self._walk("wire_format", partial(collect, dimension="wire_format", before=samples))
        await self._walk("metadata", partial(collect, dimension="metadata", before=rollups))
        await self._walk("series", partial(collect, dimension="series", before=rollups))
        if "series" in self._places:
            return  # which still refer to names
        with suppress(Locked):  # a writer makes series for longer than others may wait: the next run goes on
            for name in NAME_TABLES:
                if name in self._places:
                    await self._collect_names(name)

    async def _collect_names(self, table: str) -> None:
        places = self._places
        ids = await self._pool.run(unused_names, table)
        for first in range(0, len(ids), BATCH_ROWS):
            await self._pool.run(delete_names, table, ids[first : first + BATCH_ROWS])
        if len(ids) < MAX_BATCHES * BATCH_ROWS:
            places.pop(table, None)

    async def _walk(self, table: str, collect_batch: Callable[..., Coroutine[Any, Any, Batch]]) -> None:
        places = self._places
        for _ in range(MAX_BATCHES):
            if table not in places:
                return
            batch = await self._pool.run(collect_batch, after=places[table])
            if batch.last is None:
                places.pop(table, None)
            else:
                places[table] = batch.last
