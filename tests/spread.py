"""Spreads the store of a test over the cluster of the tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from meter.store.cluster.spreading import Spreading
from tests.packed import BlockingSession
from tests.packed import result


def spread(dsn: str, shards_per_worker: int = 1) -> None:
    """Spread the store in the database at ``dsn`` over the workers that it knows."""
    session: Any = BlockingSession(dsn)
    try:
        result(_spread(session, shards_per_worker))
    finally:
        session.close()


async def _spread(session: Any, shards_per_worker: int) -> None:
    spreading = Spreading(session, shards_per_worker=shards_per_worker)
    await spreading.check()
    async for _ in spreading.spread():
        pass


@contextmanager
def spread_database(request: pytest.FixtureRequest) -> Iterator[tuple[Any, str]]:
    """Provide the cluster of the tests, and the DSN of a database of it with a spread store, which is dropped in the end."""
    cluster = request.getfixturevalue("citus_cluster")
    dsn = cluster.dsn_with_schema(spread)
    try:
        yield cluster, dsn
    finally:
        cluster.drop(dsn)


def server_and_dsn(request: pytest.FixtureRequest, kind: str) -> tuple[Any, str]:
    """Return the server and the DSN of the module's database: ``spread`` over a cluster, or on one server."""
    if kind == "spread":
        found: tuple[Any, str] = request.getfixturevalue("spread_store")
        return found
    return request.getfixturevalue("postgresql"), request.getfixturevalue("database")
