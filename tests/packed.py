"""Packs all samples of a database, of whatever age: what is stored before a read is packed when it is read."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import psycopg2
from twisted.internet.threads import deferToThread

from meter.store import PostgresStore
from meter.store.packing.packer import pack_everything

TABLES = ("packed_samples", "packed_week", "packed_message_id", "packed_batch", "series_list")
"""Tables to truncate, beside those of samples."""

PLAIN = "SELECT FROM sample WHERE tableoid <> 'sample_default'::regclass LIMIT 1"


class BlockingSession:
    """A session of the store whose statements are executed when they are called, so that a coroutine with it never waits."""

    closed = False

    def __init__(self, dsn: str) -> None:
        self._connection = psycopg2.connect(dsn)
        self._connection.autocommit = True

    async def rows(self, statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        """Return the rows of ``statement``."""
        with self._connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall() if cursor.description is not None else []

    async def count(self, statement: str, parameters: Any = None) -> int:
        """Return how many rows ``statement`` changed."""
        with self._connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.rowcount

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()


def pack_all(dsn: str) -> None:
    """Pack all samples in the weekly partitions of the database, those of packed weeks together with what is packed."""
    session: Any = BlockingSession(dsn)
    try:
        session._connection.autocommit = True
        if _result(session.rows(PLAIN)):
            _result(pack_everything(session, _moment))
    finally:
        session.close()


async def _moment() -> None:
    time.sleep(0.01)


def _result(work: Any) -> Any:
    """Return the result of a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as ended:
        return ended.value
    raise AssertionError("the coroutine waits")


def packing_before_reads(store: PostgresStore, dsn: str, *pools: Any) -> PostgresStore:
    """Make the ``pools`` of ``store``, or the one that answers queries, pack everything before each statement."""
    for pool in pools or (store._readers,):
        pool.rows = _packing_first(pool.rows, dsn)
    return store


def _packing_first(execute: Any, dsn: str) -> Any:
    async def rows(statement: str, parameters: Sequence[Any] = ()) -> Any:
        await deferToThread(pack_all, dsn)
        return await execute(statement, parameters)

    return rows
