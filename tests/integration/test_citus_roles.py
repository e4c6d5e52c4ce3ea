"""The three roles of docs/install.rst in a cluster: a superuser spreads the store, and each role can do afterwards what it could before."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from meter.query import Aggregate
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.sample_identity import week_of
from meter.store import PostgresStore
from meter.store.maintenance.partitions import partition_name
from tests.integration.test_database_roles import statements
from tests.integration.test_store_rollups import running
from tests.servers.citus import CitusCluster
from tests.servers.postgresql import upgrade
from tests.spread import spread
from tests.store_messages import message
from tests.waiting import until

ROLES = "meter_owner", "meter_writer", "meter_reader"
OWNERS = """
SELECT DISTINCT tableowner::text FROM pg_tables WHERE tablename IN ('spread_store', 'sampled_series')
UNION SELECT pg_get_userbyid(proowner) FROM pg_proc WHERE proname LIKE 'spread\\_%'
UNION SELECT pg_get_userbyid(typowner) FROM pg_type WHERE typname IN ('spread_sample', 'spread_partial', 'spread_volumes')
"""
LATE = datetime.now(UTC) - timedelta(days=30)


@pytest.fixture
def address(citus: CitusCluster) -> Iterator[str]:
    """Make roles and database of the page on every node; return the coordinator's address, without a user."""
    on_server, on_database = statements()
    dsn = f"postgresql://meter@127.0.0.1:{citus.port}/meter"
    try:
        for node in citus.nodes:
            for statement in on_server:
                node.execute(statement)
            for statement in on_database:
                node.execute(statement, citus.dsn_at(node, dsn))
        citus._introduce(dsn)
        yield dsn.partition("@")[2]
    finally:
        citus.drop(dsn)
        for node in citus.nodes:
            node.execute(f"DROP ROLE IF EXISTS {', '.join(ROLES)}")


def dsn_of(role: str, address: str) -> str:
    return f"postgresql://{role}@{address}"


@pytest_twisted.ensureDeferred
async def test_each_role_suffices_for_its_daemon_in_a_spread_store(citus, address):
    owner, superuser = dsn_of("meter_owner", address), dsn_of("meter", address)
    upgrade(owner)
    async with running(owner) as store:
        await store.write([message(resource_id=f"r{n}") for n in range(20)])
    await deferToThread(spread, superuser)
    assert citus.execute(OWNERS, superuser) == [("meter_owner",)]

    writer = PostgresStore(
        reactor, dsn_of("meter_writer", address), clock=reactor, migrate=False, readers=0, writers=1, maintain=False
    )
    reader = PostgresStore(
        reactor, dsn_of("meter_reader", address), clock=reactor, migrate=False, readers=1, writers=0, maintain=False
    )
    for store in (writer, reader):
        store.startService()
    try:
        await until(lambda: writer.readiness().ready and reader.readiness().ready)
        assert (await writer.write([message(resource_id=f"r{n}", at=60) for n in range(20)])).stored == 20
        assert (await writer.write([message(resource_id=f"r{n}", at=LATE) for n in range(20)])).stored == 20
        # The owner, who is no superuser, makes a partition on all workers, and moves samples of others into it.
        async with running(owner) as store:
            await store.write([message(at=LATE)])
            await store.maintenance.finalize(datetime.now(UTC))
        week = f"SELECT count(*) FROM {partition_name(week_of(LATE))}"
        assert citus.execute(week, superuser) == [(21,)]

        assert len(await reader.samples(SampleFilter(), 100)) == 61
        assert len(await reader.resources(SampleFilter(), 100)) == 20
        for aggregate in ("count", "increase"):
            assert await reader.statistics(StatisticsQuery(filter=SampleFilter(), aggregates=(Aggregate(aggregate),)))
    finally:
        for store in (writer, reader):
            await store.stopService()
