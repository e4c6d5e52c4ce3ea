"""The statements of docs/cluster.rst, executed on real nodes."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from meter.query import SampleFilter
from meter.store import PostgresStore
from tests.integration.test_store_rollups import START
from tests.integration.test_store_rollups import finalized
from tests.integration.test_store_rollups import running
from tests.servers.citus import OWN_DATABASE
from tests.servers.postgresql import upgrade
from tests.spread import spread
from tests.store_messages import message
from tests.waiting import until

PAGE = (Path(__file__).parents[2] / "docs/cluster.rst").read_text()
ALL = SampleFilter()
SHARDS = "SELECT count(*) FROM citus_shards WHERE nodeport = {}"
JOB = "SELECT state FROM pg_dist_background_job ORDER BY job_id DESC LIMIT 1"
HOST = "'db3.example.org', 5432"


def statements(*beginnings):
    """Return those of the page with these beginnings, as the page has them."""
    found = []
    for beginning in beginnings:
        matches = re.findall(rf"(?:``|    )({re.escape(beginning)}[^`;\n]*)", PAGE)
        [statement] = set(matches)
        found.append(statement)
    return found


@pytest_twisted.ensureDeferred
async def test_a_worker_is_added_drained_and_removed_and_a_restore_point_is_made(citus):
    dsn = citus.dsn()
    upgrade(dsn)
    # More shards than workers, as meter-db spread makes them by default.
    await deferToThread(spread, dsn, 4)
    add, rebalance, drain, restore_point = statements(
        "SELECT citus_add_node('db3",
        "SELECT citus_rebalance_start",
        "SELECT citus_drain_node",
        "SELECT citus_create_restore_point",
    )
    async with running(dsn) as store:
        await store.write([message(resource_id=f"r{n}", at=START + timedelta(minutes=n)) for n in range(200)])
        before = await store.samples(ALL, 1000)
        worker = await deferToThread(citus.add_worker)
        try:
            worker.execute(f"CREATE DATABASE {dsn.rpartition('/')[2]}")
            worker.execute("CREATE EXTENSION citus", citus.dsn_at(worker, dsn))
            there = f"'127.0.0.1', {citus.known_port(worker)}"

            async def execute(statement):
                return await deferToThread(citus.execute, statement.replace(HOST, there), dsn)

            await execute(OWN_DATABASE)
            await execute(add)
            await execute(rebalance)
            await until(lambda: citus.execute(JOB, dsn) in ([], [("finished",)]))
            assert citus.execute(SHARDS.format(citus.known_port(worker)), dsn)[0][0] > 0
            assert await store.samples(ALL, 1000) == before

            await execute(restore_point)
            await execute(drain)
            assert citus.execute(SHARDS.format(citus.known_port(worker)), dsn) == [(0,)]
            await execute(f"SELECT citus_remove_node({there})")
            assert await store.samples(ALL, 1000) == before
        finally:
            await store.stopService()
            citus.drop(dsn)
            citus.remove(worker)


@pytest_twisted.ensureDeferred
async def test_a_coordinator_that_has_forgotten_ids_is_repaired(citus):
    dsn = citus.dsn_with_schema(spread)
    async with running(dsn) as store:
        for n in range(5):
            await store.write([message(resource_id=f"r{n}", at=START + timedelta(minutes=n))])
        await finalized(store)
        [kept] = [each for each in await store.samples(ALL, 10) if each.resource_id == "r0"]
    [[highest]] = citus.execute("SELECT max(series_id) FROM sample", dsn)
    [[known]] = citus.execute(
        "SELECT x.id FROM series x JOIN resource r ON r.id = x.resource_id WHERE r.name = 'r0'", dsn
    )
    citus.execute(f"DELETE FROM rollup WHERE series_id > {known}; DELETE FROM series WHERE id > {known}", dsn)
    citus.execute(f"SELECT setval(pg_get_serial_sequence('series', 'id'), {known})", dsn)

    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=1, writers=1, maintain=True)
    store.maintenance._periodic.startService = lambda: None
    store.startService()
    try:
        await until(lambda: f"series up to {highest} (the last one given is {known})" in store.readiness().reason)
        for statement in statements("SELECT setval(", "DELETE FROM sample", "DELETE FROM final_period"):
            ours = re.sub(r"\b100\b", str(known), re.sub(r"\b164\b", str(highest), statement))
            citus.execute(ours.replace("2026-11-28 12:00Z", START.isoformat()), dsn)
        await until(lambda: store.readiness().ready and store.maintenance._pool.ready)
        assert await store.samples(ALL, 10) == [kept]
        assert (await store.write([message(resource_id="new", at=START + timedelta(minutes=9))])).stored == 1
        [[given]] = citus.execute("SELECT max(series_id) FROM sample", dsn)
        assert given > highest
        await finalized(store)
        totals = "SELECT sum(count) FROM rollup JOIN series x ON x.id = series_id WHERE hours = 1 AND x.resource_id > 0"
        assert citus.execute(totals, dsn) == [(2,)]
        [count] = citus.execute(
            "SELECT count(*) FROM rollup WHERE hours = 1 AND series_id NOT IN (SELECT id FROM series)", dsn
        )
        assert count == (0,)
    finally:
        await store.stopService()
