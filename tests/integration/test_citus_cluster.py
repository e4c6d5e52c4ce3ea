"""Operating a cluster: what the commands say of workers, shards and transactions in doubt."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from meter.archive_unavailable import ArchiveUnavailable
from meter.commands.db import as_text
from meter.interfaces import Unavailable
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.store import Administration
from meter.store import DatabaseInspection
from meter.store import PostgresStore
from tests.integration.test_store_rollups import START
from tests.integration.test_store_rollups import finalized
from tests.integration.test_store_rollups import running
from tests.servers.citus import CitusCluster
from tests.servers.postgresql import PostgreSQL
from tests.spread import spread
from tests.store_messages import message
from tests.waiting import until

SAMPLES = 1000
INSERT = f"""
INSERT INTO sample SELECT now(), now(), gen_random_uuid(), 1, 1, n, 1, '', '' FROM generate_series(1, {SAMPLES}) n
"""

SERIES_GIVEN = "SELECT setval(pg_get_serial_sequence('series', 'id'), {})"


def in_doubt(citus: CitusCluster, worker: PostgreSQL, dsn: str, number: int, *, committed: bool) -> str:
    """Leave a transaction in doubt at ``worker``, as one that was cut off before it was told to commit; return its name."""
    gid = f"citus_0_1_{number}_1"
    at_worker = citus.dsn_at(worker, dsn)
    worker.execute(f"BEGIN; CREATE TABLE in_doubt_{number} (); PREPARE TRANSACTION '{gid}'", at_worker)
    if committed:
        [[group]] = citus.execute(f"SELECT groupid FROM pg_dist_node WHERE nodeport = {worker.port}", dsn)
        citus.execute(
            f"BEGIN; SET LOCAL allow_system_table_mods = on; INSERT INTO pg_dist_transaction VALUES ({group}, '{gid}'); COMMIT",
            dsn,
        )
    return gid


@asynccontextmanager
async def administration(dsn):
    """Provide what ``meter-db`` has of the database."""
    opened = Administration(reactor, dsn, clock=reactor)
    await opened.open()
    try:
        yield opened
    finally:
        opened.close()


async def seen_by_the_doctor(dsn):
    """Return the cluster as ``meter-doctor`` sees it."""
    inspection = DatabaseInspection(reactor, dsn, clock=reactor)
    await inspection.open()
    try:
        return await inspection.cluster()
    finally:
        inspection.close()


@pytest.fixture
def spread_dsn(citus: CitusCluster) -> str:
    dsn = citus.dsn_with_schema(spread)
    citus.execute(INSERT, dsn)
    return dsn


@pytest_twisted.ensureDeferred
async def test_reports_know_workers_and_shards(citus, spread_dsn):
    citus.execute("ANALYZE sample_default", spread_dsn)
    async with administration(spread_dsn) as database:
        report = await database.status()
        assert report["cluster_problems"] is None
        assert [each["worker"] for each in report["workers"]] == sorted(
            f"127.0.0.1:{worker.port}" for worker in citus.workers
        )
        assert {(each["state"], each["transactions_in_doubt"]) for each in report["workers"]} == {("answers", 0)}
        [shards] = {each["shards"] for each in report["workers"]}
        assert shards > 0
        assert "fsync = off" in report["workers"][0]["unsafe_settings"]  # as the coordinator of the tests
        assert {each["citus_version"] for each in report["workers"]} == {report["extensions"]["citus"]}
        assert "WORKER" in as_text(report)

        size = await database.size()
        of_samples = next(each for each in size["tables"] if each["table"] == "sample")
        assert (of_samples["estimated_rows"], size["estimated_samples"]) == (SAMPLES, SAMPLES)
        assert of_samples["total_bytes"] > SAMPLES * 100

        [partition] = await database.partitions()
        assert (partition["partition"], partition["samples"]) == ("sample_default", SAMPLES)
        assert partition["total_bytes"] == of_samples["total_bytes"]

    cluster = await seen_by_the_doctor(spread_dsn)
    assert (cluster.away, cluster.in_doubt, cluster.disconnected) == ([], 0, [])


@pytest_twisted.ensureDeferred
async def test_worker_that_is_away_is_named_and_no_smaller_total_is_reported(citus, spread_dsn):
    first, second = citus.workers
    name = f"127.0.0.1:{second.port}"
    async with administration(spread_dsn) as database:
        try:
            second.kill()
            report = await database.status()
            states = {each["worker"]: each["state"] for each in report["workers"]}
            assert states[f"127.0.0.1:{first.port}"] == "answers"
            assert states[name].startswith("away: ")
            assert f"worker {name} is away" in report["cluster_problems"]
            assert [worker.name for worker in (await seen_by_the_doctor(spread_dsn)).away] == [name]
            for total in (database.size, database.partitions):
                with pytest.raises(Unavailable, match=f"worker {name} is away"):
                    await total()
        finally:
            await deferToThread(second.start)


@pytest_twisted.ensureDeferred
async def test_committed_transactions_in_doubt_are_reported(citus, spread_dsn):
    first, second = citus.workers
    in_doubt(citus, first, spread_dsn, 1_000_001, committed=True)
    in_doubt(citus, second, spread_dsn, 1_000_002, committed=False)
    async with administration(spread_dsn) as database:
        report = await database.status()
        assert [each["transactions_in_doubt"] for each in report["workers"]] == [1, 1]
        assert report["cluster_problems"].startswith("1 committed transactions are in doubt")

        citus.execute("SELECT recover_prepared_transactions()", spread_dsn)
        report = await database.status()
        assert [each["transactions_in_doubt"] for each in report["workers"]] == [0, 0]
        assert report["cluster_problems"] is None


@pytest_twisted.ensureDeferred
async def test_worker_without_shards_is_to_be_rebalanced(citus, spread_dsn):
    worker = await deferToThread(citus.add_worker)
    try:
        citus.introduce(worker, spread_dsn)
        async with administration(spread_dsn) as database:
            report = await database.status()
        assert (
            f"127.0.0.1:{worker.port} has no shards yet: SELECT citus_rebalance_start()" in report["cluster_problems"]
        )
    finally:
        citus.drop(spread_dsn)
        citus.remove(worker)


@pytest_twisted.ensureDeferred
async def test_coordinator_that_has_forgotten_ids_is_not_written_to(citus):
    """A standby that was not synchronous had not received the last commits when it was promoted."""
    dsn = citus.dsn_with_schema(spread)
    async with running(dsn) as store:
        await store.write([message("cpu"), message("memory")])
    citus.execute(SERIES_GIVEN.format(1), dsn)

    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=0, writers=1)
    store.startService()
    try:
        await until(lambda: "series up to 2 (the last one given is 1)" in store.readiness().reason)
        with pytest.raises(Unavailable):
            await store.write([message("disk")])
        citus.execute(SERIES_GIVEN.format(2), dsn)
        await until(lambda: store.readiness().ready)
        assert (await store.write([message("disk")])).stored == 1
    finally:
        await store.stopService()


@pytest_twisted.ensureDeferred
async def test_store_of_which_nothing_is_distributed_works_as_any_other(citus):
    dsn = citus.dsn()
    async with running(dsn) as store:
        written = [message(volume=n, at=START + timedelta(minutes=n)) for n in range(10)]
        assert (await store.write(written)).stored == len(written)
        assert (await store.write(written)).stored == 0
        await finalized(store)
        [statistics] = await store.statistics(StatisticsQuery(filter=SampleFilter(equals={"meter": "cpu"})))
        assert (statistics.values["count"], statistics.values["sum"]) == (10, 45)
        assert len(await store.samples(SampleFilter(), 100)) == len(written)
    async with administration(dsn) as database:
        report = await database.status()
        assert (list(report["extensions"]), report["schema_problem"], "workers" in report) == (["citus"], None, False)
        assert "sample" in {each["table"] for each in (await database.size())["tables"]}
    assert await seen_by_the_doctor(dsn) is None


@pytest_twisted.ensureDeferred
async def test_write_while_a_worker_is_away_names_the_worker_and_is_tried_once(citus):
    """A batch is cut into halves for an archive server that is away; for a worker that would be a transaction for each sample."""
    worker = citus.workers[1]
    attempts = 0
    async with running(citus.dsn_with_schema(spread), writers=1) as store:
        await store.write([message(at=START)])  # makes the partition
        run = store._sample_writer._pool.run

        def counted(*arguments):
            nonlocal attempts
            attempts += 1
            return run(*arguments)

        store._sample_writer._pool.run = counted
        await deferToThread(worker.kill)
        try:
            with pytest.raises(Unavailable, match=f"127.0.0.1:{worker.port}") as refused:
                await store.write([message(resource_id=f"r{n}", at=START) for n in range(40)])
        finally:
            await deferToThread(worker.start)
            store._sample_writer._pool.run = run
        assert not isinstance(refused.value, ArchiveUnavailable)
        assert attempts == 1
