"""Schema upgrades: numbered steps, applied once, by several processes at the same time too."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import asynccontextmanager

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThread

from meter.interfaces import Unavailable
from meter.store import PostgresStore
from meter.store.migrations import Migration
from meter.store.migrations import Schema
from meter.store.migrations import migrations
from meter.store.postgres.connection import Connection
from meter.store.postgres.dsn import connection_parameters
from meter.store.postgres.pool import Pool
from tests.signed import stored_message
from tests.store_messages import message
from tests.waiting import until

UPGRADE_SECONDS = 120.0
"""Time limit of a process that upgrades; the test's own limit cannot end it."""

NEXT = len(migrations()) + 1
FURTHER_STEP = Migration(NEXT, "invoice", "CREATE TABLE invoice (id integer PRIMARY KEY)")
"""A step of a later Meter."""

BEFORE_THE_FIRST_RELEASE = """
CREATE TABLE schema_version (version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());
INSERT INTO schema_version (version, name) VALUES (1, 'samples'), (2, 'moments'), (3, 'rollups');
CREATE TABLE sample (message_id uuid)
"""
"""What such a Meter left in a database, as far as it matters here."""

PROCESS = """
import sys
from twisted.internet import reactor
from twisted.logger import globalLogBeginner, textFileLogObserver
from meter.store import PostgresStore
globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
store = PostgresStore(reactor, sys.argv[1], clock=reactor, migrate=True, readers=0, writers=4)
store.startService()

def look():
    if not store.readiness().ready:
        return reactor.callLater(0.01, look)
    store.stopService().addBoth(lambda _: reactor.stop())

reactor.callLater(0, look)
reactor.run()
"""


@asynccontextmanager
async def pool_at(dsn):
    """A pool with one connection, which prepares nothing."""
    parameters = connection_parameters(dsn, statement_timeout_seconds=30, application_name="test")
    pool = Pool(lambda: Connection(reactor, reactor, parameters), reactor, name="pool", size=1)
    pool.startService()
    await until(lambda: pool.ready)
    try:
        yield pool
    finally:
        await pool.stopService()


def applied(postgresql, dsn):
    """The recorded steps."""
    return postgresql.execute("SELECT version, name FROM schema_version ORDER BY version", dsn)


def start_upgrade(dsn):
    """Start a process that upgrades the database, opens the store, and ends."""
    return subprocess.Popen([sys.executable, "-c", PROCESS, dsn], stderr=subprocess.PIPE)


def errors_of(process, seconds=UPGRADE_SECONDS):
    """Return what a process wrote to its standard error until it ended; kill it after ``seconds``.

    Blocks, for a limited time only: a thread of the reactor's pool that waits for ever keeps pytest from ending.
    """
    try:
        return process.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        written = process.communicate()[1].decode(errors="replace")
        raise AssertionError(f"the process did not end within {seconds} s:\n{written[-4000:]}") from None


@pytest_twisted.ensureDeferred
async def test_two_processes_upgrade_at_once_and_each_step_is_applied_once(postgresql):
    dsn = postgresql.dsn()
    processes = [start_upgrade(dsn) for _ in range(2)]
    errors = await gatherResults([deferToThread(errors_of, process) for process in processes], consumeErrors=True)

    assert [process.returncode for process in processes] == [0, 0]
    assert b"applying step 1 of the schema" in b"".join(errors)
    assert b"; retrying" not in b"".join(errors)
    assert applied(postgresql, dsn) == [(step.number, step.name) for step in migrations()]


def test_process_that_never_ends_is_killed_and_its_output_shown():
    process = subprocess.Popen(["/bin/sh", "-c", "echo keeps trying >&2; exec sleep 1000"], stderr=subprocess.PIPE)
    with pytest.raises(AssertionError, match=r"did not end within 1 s:\nkeeps trying"):
        errors_of(process, 1)
    assert process.returncode == -signal.SIGKILL


@pytest_twisted.ensureDeferred
async def test_reader_waits_for_the_schema_that_a_writer_makes(postgresql):
    dsn = postgresql.dsn()
    reader = PostgresStore(reactor, dsn, clock=reactor, migrate=False, readers=1, writers=0)
    writer = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=0, writers=1)
    reader.startService()
    await until(lambda: "schema version 0" in reader.readiness().reason)
    with pytest.raises(Unavailable, match="schema version 0"):
        await stored_message(reader, "x")

    writer.startService()
    await until(lambda: reader.readiness().ready)
    sent = message()
    await writer.write([sent])

    assert await stored_message(reader, sent.message_id) == sent.fields
    await reader.stopService()
    await writer.stopService()


@pytest_twisted.ensureDeferred
async def test_schema_of_a_newer_meter_is_left_alone(postgresql):
    dsn = postgresql.dsn()
    postgresql.execute(
        "CREATE TABLE schema_version (version int PRIMARY KEY, name text, applied_at timestamptz);"
        "INSERT INTO schema_version VALUES (9999, 'flying_cars', now())",
        dsn,
    )
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=0, writers=1)
    store.startService()
    await until(lambda: "install the newer Meter" in store.readiness().reason)

    assert postgresql.execute("SELECT to_regclass('sample')", dsn) == [(None,)]
    await store.stopService()


@pytest_twisted.ensureDeferred
async def test_database_of_another_application_is_refused_and_left_alone(postgresql):
    dsn = postgresql.dsn()
    postgresql.execute("CREATE TABLE invoice (id int); CREATE TABLE customer (id int); CREATE VIEW v AS SELECT 1", dsn)
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=0, writers=1)
    store.startService()
    await until(lambda: "another application (customer, invoice)" in store.readiness().reason)

    assert postgresql.execute("SELECT to_regclass('sample')", dsn) == [(None,)]
    await store.stopService()


@pytest_twisted.ensureDeferred
async def test_further_step_is_applied_to_a_database_in_use_and_keeps_its_samples(postgresql):
    dsn = postgresql.dsn()
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=1, writers=1)
    store.startService()
    await until(lambda: store.readiness().ready)
    sent = message()
    await store.write([sent])
    next_version = Schema([*migrations(), FURTHER_STEP])

    async with pool_at(dsn) as pool:
        with pytest.raises(
            Unavailable,
            match=f"has schema version {NEXT - 1}, and this Meter needs version {NEXT}: start meter-collector",
        ):
            await pool.run(next_version.check)
        await pool.run(next_version.upgrade)
        await pool.run(next_version.upgrade)
        await pool.run(next_version.check)

    assert applied(postgresql, dsn) == [(step.number, step.name) for step in (*migrations(), FURTHER_STEP)]
    assert await stored_message(store, sent.message_id) == sent.fields
    await store.stopService()


@pytest_twisted.ensureDeferred
async def test_step_that_fails_leaves_nothing_behind(postgresql):
    dsn = postgresql.dsn()
    broken = Schema([*migrations(), Migration(NEXT, "broken", "CREATE TABLE invoice (id integer); SELECT 1 / 0")])

    async with pool_at(dsn) as pool:
        with pytest.raises(ValueError, match="division by zero"):
            await pool.run(broken.upgrade)

    assert postgresql.execute("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace", dsn) == []


@pytest.mark.parametrize("migrate", [True, False], ids=["collector", "api"])
@pytest_twisted.ensureDeferred
async def test_database_from_before_the_first_release_is_refused_and_left_alone(postgresql, migrate):
    dsn = postgresql.dsn()
    postgresql.execute(BEFORE_THE_FIRST_RELEASE, dsn)
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=migrate, readers=1, writers=int(migrate))
    store.startService()
    await until(lambda: "before the first release" in store.readiness().reason)

    reason = store.readiness().reason
    assert "its step 1 is samples" in reason
    assert "export its samples with that Meter" in reason
    assert "name an empty database in dsn of [store]" in reason
    with pytest.raises(Unavailable, match="before the first release"):
        await (store.write([message()]) if migrate else store.proof("x"))
    tables = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1"
    assert postgresql.execute(tables, dsn) == [("sample",), ("schema_version",)]
    await store.stopService()
