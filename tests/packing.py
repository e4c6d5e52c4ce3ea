"""Packing of a store of the tests, over a connection of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from twisted.internet import reactor

from meter.daemon.services import sleep
from meter.store.packing.packer import pack_everything
from meter.store.postgres.connection import Connection
from meter.store.postgres.dsn import connection_parameters
from meter.store.postgres.pool import Session

PAUSE = partial(sleep, reactor, 0.02)


@asynccontextmanager
async def session_of(dsn: str) -> AsyncIterator[Session]:
    """Provide a connection to the database at ``dsn``, outside of a transaction."""
    parameters = connection_parameters(dsn, statement_timeout_seconds=60, application_name="packer of the tests")
    session = Connection(reactor, reactor, parameters, answer_seconds=60)
    await session.open()
    try:
        yield session
    finally:
        session.close()


async def pack_all(dsn: str) -> int:
    """Pack all weeks that have a partition, whatever their age; return how many samples."""
    async with session_of(dsn) as session:
        return await pack_everything(session, PAUSE)
