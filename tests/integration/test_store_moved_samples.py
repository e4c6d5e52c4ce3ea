"""Samples that are moved into a new partition: whoever reads meanwhile finds all of them, above all who makes their hour final."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from meter.daemon.supervised import wait_ready
from meter.store import PostgresStore
from meter.store.maintenance.partitions import _ensure
from meter.store.maintenance.rollups import HOUR
from meter.store.maintenance.rollups import finalize
from meter.store.postgres.transaction import in_transaction
from tests.integration.test_store_rollups import START
from tests.packed import BlockingSession
from tests.packed import result
from tests.spread import spread_database
from tests.store_messages import message
from tests.waiting import until

SAMPLES = 40
IN_DEFAULT = "SELECT count(*) FROM sample_default"
IS_SPREAD = "SELECT to_regclass('spread_store') IS NOT NULL"
WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND wait_event_type = 'Lock'
"""
IN_ROLLUPS = (
    "SELECT sum(count)::bigint FROM rollup JOIN series x ON x.id = series_id WHERE hours = 1 AND x.resource_id > 0"
)
COUNT = "SELECT count(*) FROM sample WHERE timestamp < '2026-11-17 00:00Z'"


@pytest.fixture(params=["one server", "spread"])
def server_and_dsn(request: pytest.FixtureRequest) -> Iterator[tuple[Any, str]]:
    if request.param == "spread":
        with spread_database(request) as found:
            yield found
    else:
        server = request.getfixturevalue("postgresql")
        yield server, server.dsn_with_schema()


async def without_partition(dsn: str) -> None:
    """Write samples of one hour as a collector does that may not make partitions."""
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=False, maintain=False, readers=0, writers=1)
    store.startService()
    try:
        await wait_ready(store, reactor)
        of_hour = [message(resource_id=f"r{n}", at=START + timedelta(minutes=n)) for n in range(SAMPLES)]
        assert (await store.write(of_hour)).stored == SAMPLES
    finally:
        await store.stopService()


@pytest_twisted.ensureDeferred
async def test_who_reads_while_samples_are_moved_waits_and_finds_all(server_and_dsn):
    server, dsn = server_and_dsn
    await without_partition(dsn)
    assert server.execute(IN_DEFAULT, dsn) == [(SAMPLES,)]
    mover, finalizer, reader = sessions = [BlockingSession(dsn) for _ in range(3)]
    for session in sessions:
        session.spread = bool(server.execute(IS_SPREAD, dsn)[0][0])
    try:
        result(mover.count("BEGIN"))
        assert result(_ensure(mover, START.date()))
        # Both begin before others see the samples in the new partition.
        final = deferToThread(result, in_transaction(finalizer, finalize, finalizer, START, HOUR))
        found = deferToThread(result, reader.rows(COUNT))
        await until(lambda: server.execute(WAITING, dsn) == [(2,)])
        result(mover.count("COMMIT"))
        assert await final
        assert await found == [(SAMPLES,)]
    finally:
        for session in sessions:
            session.close()
    assert server.execute(IN_DEFAULT, dsn) == [(0,)]
    assert server.execute(IN_ROLLUPS, dsn) == [(SAMPLES,)]
