"""``meter-db spread`` that is stopped by a signal in the middle of each long step, and called again, while samples are written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from contextlib import suppress

import psycopg2
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from meter.daemon.services import sleep
from meter.interfaces import Unavailable
from meter.store import PostgresStore
from tests.chaos.final_hours import FINAL
from tests.chaos.final_hours import SAMPLES
from tests.integration.test_db_command import command_on
from tests.integration.test_store_rollups import START
from tests.integration.test_store_rollups import finalized
from tests.servers.postgresql import upgrade
from tests.store_messages import message
from tests.waiting import until

COMMAND = [sys.executable, "-c", "from meter.commands.db import main; main()", "--config"]
OF_BATCH = 40

MAKES_A_KEY = """
SELECT 1 FROM pg_stat_activity WHERE application_name = 'meter-db' AND wait_event = 'virtualxid' AND query LIKE 'CREATE UNIQUE INDEX CONCURRENTLY%'
"""
COPIES = """
SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'transactionid' AND EXISTS (
    SELECT FROM pg_stat_activity WHERE application_name = 'meter-db' AND query LIKE '%create_distributed_table_concurrently%'
)
"""
AT_WORK = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'meter-db' AND datname = current_database()"
IDS = "SELECT count(*), count(DISTINCT message_id) FROM sample"
PLACED = "SELECT count(DISTINCT nodeport) FROM citus_shards WHERE table_name = 'sample'::regclass"

OLD_SNAPSHOT = ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1", MAKES_A_KEY)
OLD_TRANSACTION = ("SELECT pg_current_xact_id()", COPIES)
"""What a session does for which the command then waits, and how that is seen."""

STOPS = tuple(
    (waits, number) for waits in (OLD_SNAPSHOT, OLD_TRANSACTION) for number in (signal.SIGTERM, signal.SIGKILL)
)


class Writer:
    """Writes batches, each until it is stored, while :attr:`going` is true: Citus 12.1 may crash when its copying is stopped."""

    def __init__(self, store):
        self._store = store
        self.going = True
        self.batches = 0

    async def run(self):
        while self.going:
            batch = [
                message(
                    resource_id=f"r{n}",
                    at=60 * self.batches,
                    message_id=f"{self.batches:08x}-{n:04x}-7000-8000-000000000000",
                )
                for n in range(OF_BATCH)
            ]
            while True:
                with suppress(Unavailable):
                    await self._store.write(batch)
                    break
                await sleep(reactor, 0.1)
            self.batches += 1
            await sleep(reactor, 0.05)


def rows(cluster, statement, dsn):
    """Return the rows, or none while the server does not answer."""
    with suppress(psycopg2.OperationalError):
        return cluster.execute(statement, dsn)
    return []


async def stopped(cluster, dsn, file, waits, number):
    """Call the command, and stop it by the signal when it waits for another session."""
    statement, sign = waits
    with closing(psycopg2.connect(dsn)) as session:
        session.cursor().execute(statement)
        with subprocess.Popen([*COMMAND, str(file), "spread"], stderr=subprocess.PIPE, env=os.environ) as process:  # noqa: ASYNC220
            try:
                await until(lambda: process.poll() is not None or rows(cluster, sign, dsn))
                assert process.poll() is None, process.stderr.read()
            except BaseException:
                process.kill()
                raise
            process.send_signal(number)
            _, errors = await deferToThread(process.communicate)
    await until(lambda: rows(cluster, "SELECT 1", dsn) and not rows(cluster, AT_WORK, dsn))
    return process.returncode, errors.decode()


@pytest.mark.timeout(600)
@pytest_twisted.ensureDeferred
async def test_spread_that_is_stopped_anywhere_goes_on_and_loses_nothing(citus, tmp_path):
    dsn = await deferToThread(citus.dsn)
    await deferToThread(upgrade, dsn)
    file = tmp_path / "meter.toml"
    meter_db = command_on(dsn, file)
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=1, writers=1, maintain=True)
    store.maintenance._periodic.startService = lambda: None
    store.startService()
    writer = Writer(store)
    try:
        await until(lambda: store.readiness().ready)
        await store.write([message("first", at=START)])
        writing = Deferred.fromCoroutine(writer.run())
        await until(lambda: writer.batches > 3)
        for waits, number in STOPS:
            status, errors = await stopped(citus, dsn, file, waits, number)
            if number == signal.SIGTERM:
                assert (status, "the same command goes on" in errors) == (130, True), errors
            before = writer.batches
            await until(lambda before=before: writer.batches > before + 2)
        status, errors = 1, ""
        for _ in range(5):
            status, out, errors = await meter_db("spread", "--json")
            if status == 0:
                break
            assert "the same command goes on" in errors or "another session" in errors, errors
            await until(lambda: rows(citus, "SELECT 1", dsn))
        assert (status, json.loads(out)["spread"]) == (0, "done"), errors
        before = writer.batches
        await until(lambda: writer.batches > before + 2)
        writer.going = False
        await writing
        await until(lambda: store.maintenance._pool.ready)
        await finalized(store)
    finally:
        writer.going = False
        await store.stopService()
    sent = writer.batches * OF_BATCH + 1
    assert citus.execute(IDS, dsn) == [(sent, sent)]
    assert sorted(citus.execute(FINAL, dsn)) == sorted(citus.execute(SAMPLES, dsn))
    assert citus.execute(PLACED, dsn) == [(2,)]
