"""Packs all samples of a database, of whatever age: what is stored before a read is packed when it is read."""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import AbstractContextManager
from contextlib import contextmanager
from threading import Lock
from typing import Any
from unittest.mock import patch

import psycopg2
from twisted.internet.threads import deferToThread

from meter.store.packing.packer import pack_everything
from meter.store.postgres.pool import Pool
from meter.store.postgres.sql import chosen

TABLES = (
    "packed_samples",
    "packed_week",
    "packed_message_id",
    "packed_batch",
    "series_list",
    "archived_week",
    "archive_removal",
)
"""Tables to truncate, beside those of samples."""

PLAIN = "SELECT FROM sample WHERE tableoid <> 'sample_default'::regclass LIMIT 1"


class BlockingSession:
    """A session of the store whose statements are executed when they are called, so that a coroutine with it never waits."""

    closed = False
    spread = False

    def __init__(self, dsn: str) -> None:
        self._connection = psycopg2.connect(dsn)
        self._connection.autocommit = True

    async def rows(self, statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        """Return the rows of ``statement``."""
        with self._connection.cursor() as cursor:
            cursor.execute(*chosen(statement, parameters, spread=self.spread))
            return cursor.fetchall() if cursor.description is not None else []

    async def count(self, statement: str, parameters: Any = None) -> int:
        """Return how many rows ``statement`` changed."""
        with self._connection.cursor() as cursor:
            cursor.execute(*chosen(statement, parameters, spread=self.spread))
            return cursor.rowcount

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()


def pack_all_blocking(dsn: str) -> None:
    """Pack all samples in the weekly partitions of the database, those of packed weeks together with what is packed."""
    session = BlockingSession(dsn)
    try:
        pack(session)
    finally:
        session.close()


def pack(session: Any) -> None:
    """Pack the same over ``session``."""
    if result(session.rows(PLAIN)):
        result(pack_everything(session, _moment))


async def _moment() -> None:
    time.sleep(0.01)  # noqa: ASYNC251 (in a thread of its own)


def result(work: Any) -> Any:
    """Return the result of a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as ended:
        return ended.value
    raise AssertionError("the coroutine waits")


def packed_before_reads(dsn: str) -> AbstractContextManager[None]:
    """Pack everything in the database before each read: see :func:`done_before_reads`."""
    return done_before_reads(dsn, pack)


@contextmanager
def done_before_reads(dsn: str, work: Callable[[BlockingSession], object]) -> Iterator[None]:
    """Do ``work`` in the database before each statement of a pool, and each transaction of one that does not write samples."""
    execute, run = Pool.rows, Pool.run
    session, one_at_a_time = BlockingSession(dsn), Lock()

    def work_now() -> None:
        with one_at_a_time:
            work(session)

    async def rows(pool: Pool, *args: Any) -> Any:
        await deferToThread(work_now)
        return await execute(pool, *args)

    async def transaction(pool: Pool, *args: Any, **kwargs: Any) -> Any:
        if pool.name not in ("store writers", "store maintenance"):
            await deferToThread(work_now)
        return await run(pool, *args, **kwargs)

    try:
        with patch.object(Pool, "rows", rows), patch.object(Pool, "run", transaction):
            yield
    finally:
        session.close()
