"""The store while its PostgreSQL starts, stops, hangs, and reports conflicts."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThread
from twisted.logger import globalLogPublisher

from meter.daemon.services import sleep
from meter.interfaces import RequestError
from meter.interfaces import Unavailable
from meter.query import SampleFilter
from meter.store import Administration
from meter.store import PostgresStore
from meter.store.postgres.connection import Connection
from meter.store.postgres.connection import Lost
from meter.store.postgres.connection import Rejected
from meter.store.postgres.connection import TimedOut
from meter.store.postgres.dsn import connection_parameters
from meter.store.postgres.pool import Pool
from tests.store_messages import message
from tests.waiting import until

ALL = SampleFilter()


@asynccontextmanager
async def running(dsn, *, wait=True, **options):
    store = PostgresStore(reactor, dsn, clock=reactor, **{"migrate": True, "readers": 1, "writers": 1, **options})
    store.startService()
    try:
        if wait:
            await until(lambda: store.readiness().ready)
        yield store
    finally:
        await store.stopService()


@asynccontextmanager
async def pooled(dsn, *, size=2, seconds=30.0):
    parameters = connection_parameters(dsn, statement_timeout_seconds=seconds, application_name="test")
    pool = Pool(lambda: Connection(reactor, reactor, parameters), reactor, name="pool", size=size)
    pool.startService()
    try:
        await until(lambda: len(pool._idle) == size)
        yield pool
    finally:
        await pool.stopService()


@pytest_twisted.ensureDeferred
async def test_unsafe_settings_of_the_server_are_logged_once(postgresql):
    dsn = postgresql.dsn()
    server = {"fsync": "off", "full_page_writes": "off"}  # the private server of the tests is in a hurry
    warnings = []

    def observe(event):
        if "a crash of PostgreSQL may lose committed samples" in (event.get("log_format") or ""):
            warnings.append(event["settings"])

    globalLogPublisher.addObserver(observe)
    try:
        async with running(f"{dsn}?options=-c%20synchronous_commit%3Doff", writers=3, maintain=True) as store:
            await until(lambda: len(store._writers._alive) == 3)
        assert warnings == ["fsync = off, full_page_writes = off, synchronous_commit = off"]

        administration = Administration(reactor, f"{dsn}?options=-c%20synchronous_commit%3Dlocal", clock=reactor)
        await administration.open()
        assert (await administration.status())["unsafe_settings"] == server
        administration.close()
    finally:
        globalLogPublisher.removeObserver(observe)


@pytest_twisted.ensureDeferred
async def test_restarted_server_is_used_again_without_logged_errors(postgresql):
    async with running(postgresql.dsn(), readers=3, writers=2) as store:
        await store.write([message()])

        await deferToThread(postgresql.stop)
        await until(lambda: not store.readiness().ready)
        with pytest.raises(Unavailable):
            await store.samples(ALL, 1)
        with pytest.raises(Unavailable):
            await store.write([message()])

        await deferToThread(postgresql.start)
        await until(lambda: store.readiness().ready)
        assert (await store.write([message()])).stored == 1
        assert len(await store.samples(ALL, 10)) == 2


@pytest_twisted.ensureDeferred
async def test_work_in_progress_is_unavailable_when_the_server_is_killed(postgresql):
    async with pooled(postgresql.dsn()) as pool:
        asked = Deferred.fromCoroutine(pool.rows("SELECT pg_sleep(30)"))
        try:
            await deferToThread(postgresql.kill)
            with pytest.raises(Unavailable):
                await asked
        finally:
            await deferToThread(postgresql.start)
        await until(lambda: pool.ready)
        assert await pool.rows("SELECT 1") == [(1,)]


@pytest_twisted.ensureDeferred
async def test_connection_that_the_server_terminates_is_replaced(postgresql):
    async with pooled(postgresql.dsn(), size=1) as pool:
        [[before]] = await pool.rows("SELECT pg_backend_pid()")
        generation = pool.generation
        await deferToThread(postgresql.execute, f"SELECT pg_terminate_backend({before})")
        await until(lambda: pool.generation > generation)

        [[after]] = await pool.rows("SELECT pg_backend_pid()")
        assert after != before


async def answered(store):
    """Ask until there is an answer: limits that are short enough to wait for may be too short for a busy machine."""
    while True:
        try:
            return await store.samples(ALL, 1)
        except (RequestError, Unavailable):
            await sleep(reactor, 0.05)


@pytest_twisted.ensureDeferred
async def test_frozen_server_is_unavailable_after_the_time_limit(postgresql):
    async with running(postgresql.dsn(), statement_timeout_seconds=0.3, silence_seconds=0.3) as store:
        postgresql.freeze()
        try:
            with pytest.raises(Unavailable, match="did not answer in time"):
                await store.samples(ALL, 1)
        finally:
            postgresql.thaw()
        assert list(await answered(store)) == []


@pytest_twisted.ensureDeferred
async def test_store_may_start_before_its_database(postgresql):
    dsn = postgresql.dsn()
    postgresql.stop()
    async with running(dsn, wait=False) as store:
        await until(lambda: "Connection refused" in store.readiness().reason)
        assert not store.readiness().ready
        await deferToThread(postgresql.start)
        await until(lambda: store.readiness().ready)
        assert (await store.write([message()])).stored == 1


@pytest_twisted.ensureDeferred
async def test_replica_answers_while_its_primary_is_down(postgresql):
    dsn = postgresql.dsn()
    async with running(dsn) as store:
        await store.write([message()])
    away = "postgresql://127.0.0.1:1/meter"
    for suffices in (True, False):
        async with running(away, wait=False, replica_dsn=dsn, reading_suffices=suffices) as store:
            await until(lambda: store._readers.ready)
            assert len(await store.samples(ALL, 10)) == 1
            with pytest.raises(Unavailable):
                await store.write([message()])
            state = store.readiness()
            assert (state.ready, state.needed) == (False, not suffices)
            assert "Connection refused" in state.reason


@pytest_twisted.ensureDeferred
async def test_host_name_is_resolved_and_kept(postgresql):
    async with running(postgresql.dsn().replace("127.0.0.1", "localhost")) as store:
        assert (await store.write([message()])).stored == 1


@pytest_twisted.ensureDeferred
async def test_host_without_an_address_is_unavailable(postgresql):
    async with running("postgresql://meter@db.invalid/meter", wait=False) as store:
        await until(lambda: "db.invalid" in store.readiness().reason)
        with pytest.raises(Unavailable):
            await store.samples(ALL, 1)


@pytest_twisted.ensureDeferred
async def test_query_that_takes_too_long_is_a_request_error(postgresql):
    async with running(postgresql.dsn(), statement_timeout_seconds=1.0) as store:
        locks = Connection(
            reactor,
            reactor,
            connection_parameters(postgresql.url, statement_timeout_seconds=9, application_name="lock")
            | {"dbname": store._where.rpartition("/")[2]},
        )
        await locks.open()
        await locks.count("BEGIN")
        await locks.count("LOCK TABLE sample IN ACCESS EXCLUSIVE MODE")

        with pytest.raises(RequestError, match=r"longer than 1 s: narrow"):
            await store.samples(ALL, 1)
        with pytest.raises(Unavailable):
            await store.write([message()])

        await locks.count("ROLLBACK")
        locks.close()
        assert store.readiness().ready
        assert (await store.write([message()])).stored == 1


@pytest_twisted.ensureDeferred
async def test_statement_timeout_keeps_the_connection(postgresql):
    async with pooled(postgresql.dsn(), size=1, seconds=0.5) as pool:
        with pytest.raises(TimedOut):
            await pool.rows("SELECT pg_sleep(5)")

        assert pool.generation == 1
        assert await pool.rows("SELECT 1") == [(1,)]


@pytest_twisted.ensureDeferred
async def test_deadlock_is_retried_and_keeps_the_connection(postgresql):
    dsn = postgresql.dsn()
    postgresql.execute(
        "CREATE TABLE quarrel (id int PRIMARY KEY, n int); INSERT INTO quarrel VALUES (1, 0), (2, 0)", dsn
    )
    tries = []

    async def quarrel(session, first, second):
        tries.append(first)
        await session.count("SET LOCAL deadlock_timeout = '20ms'")
        await session.count("UPDATE quarrel SET n = n + 1 WHERE id = %s", [first])
        await session.rows("SELECT pg_sleep(0.1)")
        await session.count("UPDATE quarrel SET n = n + 1 WHERE id = %s", [second])

    async with pooled(dsn) as pool:
        both = [Deferred.fromCoroutine(pool.run(quarrel, *order)) for order in ((1, 2), (2, 1))]
        await gatherResults(both, consumeErrors=True)

        assert len(tries) > 2
        assert await pool.rows("SELECT n FROM quarrel") == [(2,), (2,)]
        assert pool.generation == 2


@pytest_twisted.ensureDeferred
async def test_cancelled_caller_affects_neither_connection_nor_transaction(postgresql):
    dsn = postgresql.dsn()
    postgresql.execute("CREATE TABLE done (id int)", dsn)

    gate = Deferred()

    async def slow(session):
        await session.count("INSERT INTO done VALUES (1)")
        await gate

    async with pooled(dsn, size=1) as pool:
        asked = Deferred.fromCoroutine(pool.run(slow))
        asked.cancel()
        with pytest.raises(CancelledError):
            await asked

        # The caller is gone, and the transaction goes on.
        next_question = Deferred.fromCoroutine(pool.rows("SELECT id FROM done"))
        assert not next_question.called
        gate.callback(None)
        assert await next_question == [(1,)]
        assert pool.generation == 1


@pytest.mark.parametrize("end", ["interrupted", "killed"])
@pytest_twisted.ensureDeferred
async def test_server_does_not_go_on_with_a_statement_whose_client_is(postgresql, end):
    def asleep():
        return postgresql.execute("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(900)%'")

    parameters = connection_parameters(postgresql.dsn(), statement_timeout_seconds=900, application_name="test")
    connection = Connection(reactor, reactor, parameters)
    await connection.open()
    if end == "killed":  # its socket is closed, and nothing was said
        await connection.remove_time_limits()
    asked = Deferred.fromCoroutine(connection.rows("SELECT pg_sleep(900)"))
    asked.addErrback(lambda failure: failure.check(Lost))
    await until(asleep)

    if end == "killed":
        connection.close()
    else:
        await connection.interrupt()

    assert await asked is Lost
    await until(lambda: not asleep())
    await connection.interrupt()  # there is nothing left to interrupt


@pytest_twisted.ensureDeferred
async def test_abandoned_query_ends_on_the_server_and_keeps_the_connection(postgresql):
    def asleep():
        return postgresql.execute(
            "SELECT pid FROM pg_stat_activity WHERE query ~ '^SELECT pg_sleep' AND state = 'active'"
        )

    async with pooled(postgresql.dsn(), size=1) as pool:
        for _ in range(20):
            asked = Deferred.fromCoroutine(pool.rows("SELECT pg_sleep(30)"))
            await until(asleep)
            asked.cancel()
            with pytest.raises(CancelledError):
                await asked
            # Asked at once, of the same connection: it must not be hit.
            assert await pool.rows("SELECT 1") == [(1,)]
            assert not asleep()
        assert pool.generation == 1


@pytest_twisted.ensureDeferred
async def test_query_answered_during_its_cancellation_affects_no_other(postgresql):
    async with pooled(postgresql.dsn(), size=1) as pool:
        for n in range(60):
            asked = Deferred.fromCoroutine(pool.rows("SELECT pg_sleep(%s)", [n % 15 / 1000]))
            await sleep(reactor, 0.005)
            asked.cancel()
            await asked.addErrback(lambda failure: failure.trap(CancelledError))
            assert await pool.rows("SELECT pg_sleep(0.002), 1") == [("", 1)]
        assert pool.generation == 1


@pytest_twisted.ensureDeferred
async def test_exception_rolls_the_transaction_back(postgresql):
    dsn = postgresql.dsn()
    postgresql.execute("CREATE TABLE done (id int)", dsn)

    async def wrong(session):
        await session.count("INSERT INTO done VALUES (1)")
        raise ZeroDivisionError

    async def refused(session):
        await session.count("INSERT INTO done VALUES (1)")
        await session.count("SELECT 'no number'::int")

    async with pooled(dsn) as pool:
        with pytest.raises(ZeroDivisionError):
            await pool.run(wrong)
        with pytest.raises(Rejected):
            await pool.run(refused)

        assert await pool.rows("SELECT id FROM done") == []


@pytest_twisted.ensureDeferred
async def test_stop_waits_for_work_in_progress(postgresql):
    dsn = postgresql.dsn()
    postgresql.execute("CREATE TABLE done (id int)", dsn)

    async def slow(session):
        await session.rows("SELECT pg_sleep(0.2)")
        await session.count("INSERT INTO done VALUES (1)")

    async with pooled(dsn) as pool:
        asked = Deferred.fromCoroutine(pool.run(slow))
        await pool.stopService()
        await asked
        with pytest.raises(Unavailable):
            await pool.rows("SELECT 1")
    assert postgresql.execute("SELECT id FROM done", dsn) == [(1,)]


@pytest_twisted.ensureDeferred
async def test_readers_can_only_read(postgresql):
    async with running(postgresql.dsn()) as store:
        with pytest.raises(Unavailable, match="read-only"):
            await store._readers.rows("CREATE TABLE t (id int)")


@pytest_twisted.ensureDeferred
async def test_locks_of_a_process_that_hangs_in_a_transaction_are_released(postgresql):
    dsn, gone_on = postgresql.dsn(), Deferred()

    async def hang(session):
        await session.rows("SELECT pg_advisory_xact_lock(1)")
        await gone_on

    async with running(dsn, statement_timeout_seconds=1) as store, pooled(dsn, size=1) as other:
        hanging = Deferred.fromCoroutine(store._writers.run(hang))
        # The lost connection may be replaced at once: that the store is not ready for a moment can be missed.
        await until(lambda: store._writers.generation >= 2)

        assert await other.rows("SELECT pg_try_advisory_lock(1)") == [(True,)]
        gone_on.callback(None)
        with pytest.raises(Unavailable):
            await hanging
        await until(lambda: store.readiness().ready)


@pytest_twisted.ensureDeferred
async def test_transaction_that_keeps_others_from_rating_is_not_ended(postgresql):
    async with running(postgresql.dsn(), statement_timeout_seconds=0.5, rating_connections=1) as store:
        await until(lambda: store.rating.ready)

        assert await store.rating.exclusively(lambda: sleep(reactor, 1.5))
