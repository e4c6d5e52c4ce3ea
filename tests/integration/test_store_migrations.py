"""How a database gets its schema, from several processes too."""

from __future__ import annotations

import subprocess
import sys

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from meter.interfaces import Unavailable
from meter.store import PostgresStore
from meter.store.migrations import migrations
from tests.servers.rabbitmq import until
from tests.store_messages import message

pytestmark = pytest.mark.timeout(60)

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


def upgrading(dsn):
    """Start a process that upgrades, uses the store, and ends."""
    return subprocess.Popen([sys.executable, "-c", PROCESS, dsn], stderr=subprocess.PIPE)


@pytest_twisted.ensureDeferred
async def test_two_processes_upgrade_at_once_and_each_step_is_taken_once(postgresql):
    dsn = postgresql.dsn()
    processes = [upgrading(dsn) for _ in range(2)]
    errors = [(await deferToThread(process.communicate))[1] for process in processes]

    assert [process.returncode for process in processes] == [0, 0]
    assert b"applying migration 1" in b"".join(errors)
    assert b"keeps trying" not in b"".join(errors)
    versions = postgresql.execute("SELECT version, name FROM schema_version ORDER BY version", dsn)
    assert versions == [(step.number, step.name) for step in migrations()]


@pytest_twisted.ensureDeferred
async def test_a_reader_waits_for_the_schema_that_a_writer_makes(postgresql):
    dsn = postgresql.dsn()
    reader = PostgresStore(reactor, dsn, clock=reactor, migrate=False, readers=1, writers=0)
    writer = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=0, writers=1)
    reader.startService()
    await until(lambda: "schema version 0" in reader.readiness().reason)
    with pytest.raises(Unavailable, match="schema version 0"):
        await reader.message("x")

    writer.startService()
    await until(lambda: reader.readiness().ready)
    sent = message()
    await writer.write([sent])

    assert await reader.message(sent.message_id) == sent.fields
    await reader.stopService()
    await writer.stopService()


@pytest_twisted.ensureDeferred
async def test_a_schema_from_the_future_is_left_alone(postgresql):
    dsn = postgresql.dsn()
    postgresql.execute(
        "CREATE TABLE schema_version (version int PRIMARY KEY, name text, applied_at timestamptz);"
        "INSERT INTO schema_version VALUES (9999, 'flying cars', now())",
        dsn,
    )
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=0, writers=1)
    store.startService()
    await until(lambda: "install the newer Meter" in store.readiness().reason)

    assert postgresql.execute("SELECT to_regclass('sample')", dsn) == [(None,)]
    await store.stopService()
