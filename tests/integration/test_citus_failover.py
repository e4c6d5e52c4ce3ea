"""A coordinator that fails over to a synchronous standby while samples are written: none is lost, none is stored twice."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from meter.daemon.services import sleep
from meter.interfaces import Unavailable
from meter.store import PostgresStore
from tests.chaos.cluster import SYNCHRONOUS
from tests.chaos.cluster import ProxiedCluster
from tests.chaos.cluster import cluster_missing
from tests.servers import not_allowed
from tests.servers.postgresql import installed
from tests.spread import spread
from tests.store_messages import message
from tests.waiting import until

SAMPLES = 50


@pytest.fixture
def cluster(server_directory):
    if missing := cluster_missing():
        not_allowed(missing)
    cluster = ProxiedCluster(installed(), server_directory)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


class Writing:
    """Writes batches, each until it is stored, while :attr:`going` is true. ``stored`` is what the store counted."""

    def __init__(self, store):
        self._store = store
        self.going = True
        self.batches = self.failures = self.stored = 0

    async def run(self):
        while self.going:
            batch = [message(f"cpu.{self.batches}.{n}") for n in range(SAMPLES)]
            while True:
                try:
                    self.stored += (await self._store.write(batch)).stored
                    break
                except Unavailable:
                    self.failures += 1
                    await sleep(reactor, 0.1)
            self.batches += 1


@pytest.mark.timeout(600)
@pytest_twisted.ensureDeferred
async def test_failover_to_a_synchronous_standby_loses_and_doubles_nothing(cluster):
    dsn = await deferToThread(cluster.dsn_with_schema, spread)
    standby = await deferToThread(cluster.standby_of_coordinator)
    cluster.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
    cluster.execute("SELECT pg_reload_conf()")
    await until(lambda: cluster.execute(SYNCHRONOUS)[0][0])

    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=0, writers=1)
    store.startService()
    writing = Writing(store)
    try:
        await until(lambda: store.readiness().ready)
        done = Deferred.fromCoroutine(writing.run())
        await until(lambda: writing.batches >= 3)
        await deferToThread(cluster.coordinator.kill)
        await deferToThread(cluster.promote, standby)
        before = writing.batches
        await until(lambda: writing.batches >= before + 3)
        writing.going = False
        await done
    finally:
        writing.going = False
        await store.stopService()

    rows = cluster.execute("SELECT count(*), count(DISTINCT message_id), count(DISTINCT series_id) FROM sample", dsn)
    assert rows == [(writing.batches * SAMPLES,) * 3]
    assert writing.failures
    named = "SELECT count(*) FROM series JOIN meter ON meter.id = meter_id WHERE resource_id > 0 AND meter.name LIKE 'cpu.%'"
    assert cluster.execute(named, dsn) == [(writing.batches * SAMPLES,)]
