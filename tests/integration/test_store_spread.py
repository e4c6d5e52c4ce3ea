"""``meter-db spread`` on a real cluster: while a store runs, stopped in between, and where something is missing."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from meter.interfaces import Unavailable
from meter.query import Aggregate
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.store import DatabaseInspection
from meter.store import PostgresStore
from meter.store.cluster.spreading import NotSpreadable
from meter.store.cluster.spreading import Spreading
from meter.store.postgres.connection import Unsupported
from tests.integration.test_db_command import command_on
from tests.packed import BlockingSession
from tests.packing import session_of
from tests.servers.postgresql import upgrade
from tests.store_messages import NOON
from tests.store_messages import message
from tests.waiting import until

ALL = SampleFilter()
STATISTICS = StatisticsQuery(filter=ALL, groupby=("resource_id",), aggregates=(Aggregate("sum"), Aggregate("count")))


@pytest_twisted.ensureDeferred
async def test_store_without_the_extension_is_not_changed(postgresql, tmp_path):
    meter_db = command_on(postgresql.dsn_with_schema(), tmp_path / "meter.toml")
    status, _, errors = await meter_db("spread")
    assert (status, "the store was not changed" in errors, "CREATE EXTENSION citus" in errors) == (3, True, True)
    assert postgresql.execute("SELECT to_regclass('spread_store')", meter_db.dsn) == [(None,)]


@pytest_twisted.ensureDeferred
async def test_statement_that_cannot_be_planned_is_no_outage(postgresql):
    async with session_of(postgresql.dsn_with_schema()) as session:
        with pytest.raises(Unsupported, match="FOR UPDATE is not allowed with aggregate functions"):
            await session.rows("SELECT count(*) FROM sample FOR UPDATE")
        assert not isinstance(Unsupported(), Unavailable)  # which would be tried again
        assert await session.rows("SELECT 1") == [(1,)]


@pytest.fixture
def cluster_dsn(citus):
    dsn = citus.dsn()
    upgrade(dsn)
    return dsn


@pytest_twisted.ensureDeferred
async def test_running_store_is_spread_and_answers_as_before(citus, cluster_dsn, tmp_path):
    store = PostgresStore(reactor, cluster_dsn, clock=reactor, migrate=True, readers=1, writers=1, maintain=True)
    store.maintenance._periodic.startService = lambda: None
    store.startService()
    try:
        await until(lambda: store.readiness().ready and store.maintenance._pool.ready)
        sent = [
            message(resource_id=f"r{n % 7}", volume=n, at=60 * n, message_id=f"{n:08x}-0000-7000-8000-000000000000")
            for n in range(200)
        ]
        assert (await store.write(sent)).stored == 200
        await store.maintenance.finalize(NOON + timedelta(hours=2))
        before = await store.samples(ALL, 500), await store.statistics(STATISTICS), await store.resources(ALL, 50)

        status, out, errors = await command_on(cluster_dsn, tmp_path / "meter.toml")("spread", "--json")
        assert (status, json.loads(out)["spread"]) == (0, "done"), errors
        await until(lambda: store.readiness().ready and store._readers.spread and store._writers.spread)
        after = await store.samples(ALL, 500), await store.statistics(STATISTICS), await store.resources(ALL, 50)
        assert after == before

        # The same again is a duplicate, another fact a conflict, whatever shard it would be in.
        again = await store.write(sent)
        assert (again.stored, again.duplicates) == (0, 200)
        other = await store.write([message(resource_id="other", message_id=f"{3:08x}-0000-7000-8000-000000000000")])
        assert (other.stored, [each.kind for each in other.refused]) == (0, ["conflict"])
        late = message(resource_id="r1", volume=1000, at=30)
        assert (await store.write([late])).stored == 1
        await until(lambda: store.maintenance._pool.ready)
        assert await store.maintenance.finalize(NOON + timedelta(hours=2)) > 0
        [total] = await store.statistics(StatisticsQuery(filter=ALL, aggregates=(Aggregate("sum"),)))
        assert total.values["sum"] == sum(range(200)) + 1000

        status, out, _ = await command_on(cluster_dsn, tmp_path / "meter.toml")("spread", "--json")
        assert (status, json.loads(out)) == (0, {"spread": "already", "steps": []})
    finally:
        await store.stopService()
    placed = citus.execute(
        "SELECT count(DISTINCT nodeport) FROM citus_shards WHERE table_name = 'sample'::regclass", cluster_dsn
    )
    assert placed == [(2,)]


@pytest_twisted.ensureDeferred
async def test_server_that_does_not_reach_itself_is_named_before_anything_is_changed(citus, cluster_dsn):
    async with session_of(cluster_dsn) as session:
        await session.count("SET citus.local_hostname = 'nowhere.invalid'")
        with pytest.raises(NotSpreadable, match=r"the coordinator cannot connect to itself at nowhere\.invalid:"):
            await Spreading(session).check()
        await session.count("RESET citus.local_hostname")
        await Spreading(session).check()


def steps(dsn, number):
    """Do that many steps, or all, and return how many were left to do."""
    session = BlockingSession(dsn)
    done = 0

    async def work():
        nonlocal done
        async for _ in Spreading(session, shards_per_worker=1).spread():
            done += 1
            if done == number:
                break

    try:
        with pytest.raises(StopIteration):
            work().send(None)
    finally:
        session.close()
    return done


@pytest_twisted.ensureDeferred
async def test_spreading_goes_on_where_it_was_stopped_and_commands_say_how_far_it_is(citus, cluster_dsn, tmp_path):
    meter_db = command_on(cluster_dsn, tmp_path / "meter.toml")

    async def unfinished():
        status, out, errors = await meter_db("status", "--json")
        assert status == 0, errors
        found = json.loads(out)["unfinished_spread"]
        inspection = DatabaseInspection(reactor, cluster_dsn, clock=reactor)
        await inspection.open()
        try:
            seen_by_the_doctor = await inspection.unfinished_spread()
        finally:
            inspection.close()
        assert found == (str(seen_by_the_doctor) if seen_by_the_doctor else None)
        return found

    assert await unfinished() is None
    for found in (
        "0 of 1 partitions have a key with the series; samples are divided after that",
        "all partitions have their key; 0 samples are copied to workers",
        "samples are divided among the workers; the list of series is not yet",
    ):
        assert await deferToThread(steps, cluster_dsn, 1) == 1
        text = await unfinished()
        assert text.startswith("begun 20")
        assert text.endswith(f"; {found}; nobody is at work: call meter-db spread again, it goes on from here")
    async with session_of(cluster_dsn) as other:
        await Spreading(other).open()
        assert (await unfinished()).endswith("; a process is at work")
    assert citus.execute("SELECT done_at FROM spread_store", cluster_dsn) == [(None,)]
    assert await deferToThread(steps, cluster_dsn, 100) >= 1
    assert await unfinished() is None
    assert citus.execute("SELECT done_at IS NULL FROM spread_store", cluster_dsn) == [(False,)]
    distributed = "SELECT count(*) FROM pg_dist_partition WHERE logicalrelid::text IN ('sample', 'sampled_series') AND partmethod = 'h'"
    assert citus.execute(distributed, cluster_dsn) == [(2,)]
