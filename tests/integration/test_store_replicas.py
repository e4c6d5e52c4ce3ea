"""Queries on a streaming replica that lags, and over a DSN of two hosts of which one fails."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from types import SimpleNamespace

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs

from meter.api.auth.requester import Requester
from meter.api.auth.visibility import VisibleStore
from meter.api.streaming.live import live
from meter.daemon.services import sleep
from meter.daemon.shared_slices import SharedSlices
from meter.interfaces import Unavailable
from meter.query import SampleFilter
from meter.store.postgres.connection import Connection
from meter.store.postgres.connection import Lost
from meter.store.postgres.dsn import connection_parameters
from meter.store.postgres.dsn import parsed
from tests.integration.test_store_connections import running
from tests.servers.postgresql import PostgreSQL
from tests.servers.postgresql import installed
from tests.store_messages import message
from tests.waiting import until

ALL = SampleFilter()
MARGIN = timedelta(minutes=10)
"""How long after a time the transactions may commit that recorded samples until then."""


@pytest.fixture
def servers(postgresql, server_directory):
    """Return a primary and its streaming replica, for one test."""
    with ExitStack() as ending:
        primary = PostgreSQL(installed(), server_directory("meter-primary-"))
        ending.callback(primary.kill)
        primary.start()
        primary.execute("CREATE DATABASE meter")
        standby = PostgreSQL(installed(), server_directory("meter-standby-"), primary=primary)
        ending.callback(standby.kill)
        standby.start()
        yield primary, standby


def dsn_of(*servers, **parameters):
    hosts, ports = ",".join("127.0.0.1" for _ in servers), ",".join(str(server.port) for server in servers)
    more = " ".join(f"{name}={value}" for name, value in parameters.items())
    return f"host={hosts} port={ports} user=meter dbname=meter {more}"


def has_replayed(standby, primary):
    """Return whether the replica has all that the primary has committed, also what is not written yet: tests commit asynchronously."""
    [[position]] = primary.execute("SELECT pg_current_wal_insert_lsn()::text")
    return standby.execute(f"SELECT pg_last_wal_replay_lsn() >= '{position}'") == [(True,)]


async def committed(store, number):
    await store.write([message(message_id=f"00000000-0000-4000-8000-00000000000{number}")])
    return datetime.now(UTC)


@pytest_twisted.ensureDeferred
async def test_replica_that_lags_refuses_a_time_it_has_not_replayed(servers):
    primary, standby = servers
    async with running(dsn_of(primary), replica_dsn=dsn_of(standby)) as store:
        replayed = await committed(store, 1)
        await until(lambda: has_replayed(standby, primary))
        assert await store.samples(SampleFilter(as_of=replayed - MARGIN - timedelta(seconds=1)), 10) == []

        standby.execute("SELECT pg_wal_replay_pause()")
        await until(lambda: standby.execute("SELECT pg_get_wal_replay_pause_state()") == [("paused",)])
        await committed(store, 2)
        await sleep(reactor, 1.5)
        as_of = datetime.now(UTC) - MARGIN - timedelta(seconds=0.5)  # more than ten minutes ago, but not of the standby
        with pytest.raises(Unavailable, match="may not have replayed"):
            await store.samples(SampleFilter(as_of=as_of), 10)
        assert len(await store.samples(ALL, 10)) == 1  # what it has, to who asks for no time

        standby.execute("SELECT pg_wal_replay_resume()")

        async def answers():
            try:
                return await store.samples(SampleFilter(as_of=as_of), 10) == []
            except Unavailable:
                return False

        while not await answers():
            await sleep(reactor, 0.1)


@pytest_twisted.ensureDeferred
async def test_live_stream_on_a_replica_that_lags_misses_no_sample(servers):
    primary, standby = servers
    async with running(dsn_of(primary), replica_dsn=dsn_of(standby)) as store:
        await until(lambda: store._commit_listener.ready)
        standby.execute("SELECT pg_wal_replay_pause()")
        await until(lambda: standby.execute("SELECT pg_get_wal_replay_pause_state()") == [("paused",)])
        visible = VisibleStore(store, Requester(is_admin=True))
        chunks = []

        async def listen():
            events = live(visible, ALL, lambda row: row.message_id, reactor, SharedSlices(reactor).of("somebody"))
            async for chunk in events:
                chunks.append(chunk)

        listening = Deferred.fromCoroutine(listen())
        listening.addErrback(lambda _: None)
        await until(lambda: chunks)
        await committed(store, 1)
        await sleep(reactor, 0.3)  # the stream has been notified, and has found nothing
        standby.execute("SELECT pg_wal_replay_resume()")
        await until(lambda: has_replayed(standby, primary))
        await committed(store, 2)
        await until(lambda: b"".join(chunks).count(b"event: sample") == 2)
        listening.cancel()


@pytest_twisted.ensureDeferred
async def test_queries_and_writes_go_on_after_a_failover(servers):
    primary, standby = servers
    both = {
        "writers": dsn_of(primary, standby, target_session_attrs="read-write"),
        "any": dsn_of(primary, standby, target_session_attrs="any"),
    }
    async with running(both["writers"], replica_dsn=both["any"]) as store:
        await committed(store, 1)
        page = await store.sample_page(ALL, 10)
        await until(lambda: has_replayed(standby, primary))
        await deferToThread(primary.kill)
        await deferToThread(standby.execute, "SELECT pg_promote()")

        async def works(attempt):
            try:
                return await attempt()
            except Unavailable:
                return None

        while (found := await works(lambda: store.sample_page(ALL, 10))) is None:
            await sleep(reactor, 0.1)
        assert found.rows == page.rows
        assert found.token is not page.token  # ids may mean something else
        assert set(found.series) == set(page.series)
        while await works(lambda: committed(store, 2)) is None:
            await sleep(reactor, 0.1)
        assert len(await store.samples(ALL, 10)) == 2


@pytest_twisted.ensureDeferred
async def test_a_dsn_of_several_hosts_finds_the_primary_whichever_it_is(servers):
    primary, standby = servers
    with socket.create_server(("127.0.0.1", 0)) as silent, capturedLogs() as events:
        refusing, hanging = SimpleNamespace(port=1), SimpleNamespace(port=silent.getsockname()[1])
        orders = [(standby, primary), (refusing, standby, primary), (hanging, primary), (standby, refusing, primary)]
        for order in orders:
            dsn = dsn_of(*order, target_session_attrs="read-write")
            parameters = connection_parameters(dsn, statement_timeout_seconds=5, application_name="test")
            many = [Connection(reactor, reactor, parameters, open_seconds=4) for _ in range(4)]
            await gatherResults([Deferred.fromCoroutine(each.open()) for each in many])
            for each in many:
                assert await each.rows("SELECT inet_server_port()") == [(primary.port,)]
                each.close()
        nobody = Connection(reactor, reactor, {**parameters, **parsed(dsn_of(refusing, standby))}, open_seconds=4)
        with pytest.raises(Lost) as refusal:
            await nobody.open()
    told = str(refusal.value)
    assert "127.0.0.1:1: Connection refused; " in told
    assert f"127.0.0.1:{standby.port}: " in told
    assert "read-only" in told
    assert [event for event in events if "log_failure" in event] == []


@pytest_twisted.ensureDeferred
async def test_readers_of_a_dsn_for_writers_find_the_primary(servers):
    primary, standby = servers
    async with running(dsn_of(standby, primary, target_session_attrs="read-write")) as store:
        await committed(store, 1)
        assert len(await store.samples(ALL, 10)) == 1
