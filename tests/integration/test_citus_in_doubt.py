"""Committed samples that a worker does not show yet: no hour becomes final without them, and no answer as of a time lacks them."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from meter.interfaces import Unavailable
from meter.query import Aggregate
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from tests.chaos.cluster import ProxiedCluster
from tests.chaos.cluster import cluster_missing
from tests.integration.test_store_rollups import START
from tests.integration.test_store_rollups import finalized
from tests.integration.test_store_rollups import running
from tests.servers import not_allowed
from tests.servers.postgresql import installed
from tests.spread import spread
from tests.store_messages import message
from tests.waiting import until

SERIES = 40
"""On both workers."""

IN_DOUBT = "SELECT count(*) FROM pg_prepared_xacts WHERE starts_with(gid, 'citus_')"
VISIBLE = "SELECT count(*) FROM sample"
IN_ROLLUPS = (
    "SELECT sum(count)::integer FROM rollup JOIN series x ON x.id = series_id WHERE hours = 1 AND x.resource_id > 0"
)


@pytest.fixture(scope="module")
def cluster(request):
    """Nobody but Meter recovers what is in doubt."""
    if missing := cluster_missing():
        not_allowed(missing)
    cluster = ProxiedCluster(installed(), request.getfixturevalue("server_directory"))
    try:
        cluster.start()
        cluster.execute("ALTER SYSTEM SET citus.recover_2pc_interval = '-1'")
        cluster.execute("SELECT pg_reload_conf()")
        yield cluster
    finally:
        cluster.kill()


async def written_in_doubt(cluster, dsn, store):
    """Write samples of one hour, of which one worker is not told to commit its part."""
    await store.write([message("before", at=START + timedelta(hours=5))])  # makes the partition
    worker = cluster.workers[0]
    line = cluster.line(worker)
    cuts = line.cuts
    line.cut_before(b"COMMIT PREPARED")
    written = await store.write([message(resource_id=f"r{n}", at=START + timedelta(minutes=n)) for n in range(SERIES)])
    line.accept()
    assert (written.stored, line.cuts) == (SERIES, cuts + 1)
    assert worker.execute(IN_DOUBT)[0][0] > 0
    [[visible]] = cluster.execute(VISIBLE, dsn)
    assert visible < SERIES + 1


async def until_available(ask):
    """Return what ``ask`` does, called until the store is available."""
    found = []

    async def asked():
        try:
            found.append(await ask())
        except Unavailable:
            return False
        return True

    while not await asked():
        await until(lambda: True)
    return found[0]


@pytest_twisted.ensureDeferred
async def test_hour_becomes_final_with_all_that_is_committed(cluster):
    dsn = await deferToThread(cluster.dsn_with_schema, spread)
    async with running(dsn, writers=1) as store:
        await written_in_doubt(cluster, dsn, store)
        await until_available(lambda: finalized(store))
        cluster.execute("SELECT recover_prepared_transactions()", dsn)
        assert cluster.execute(VISIBLE, dsn) == [(SERIES + 1,)]
        assert cluster.execute(IN_ROLLUPS, dsn) == [(SERIES + 1,)]


@pytest_twisted.ensureDeferred
async def test_answer_as_of_a_time_has_all_that_was_committed_by_then(cluster):
    dsn = await deferToThread(cluster.dsn_with_schema, spread)
    async with running(dsn, writers=1) as store:
        await written_in_doubt(cluster, dsn, store)
        query = StatisticsQuery(
            filter=SampleFilter(equals={"meter": "cpu"}, as_of=datetime.fromtimestamp(reactor.seconds(), UTC)),
            aggregates=(Aggregate("count"),),
        )
        [found] = await until_available(lambda: store.statistics(query))
    assert found.values["count"] == SERIES
