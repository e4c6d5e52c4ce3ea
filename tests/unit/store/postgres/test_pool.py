"""The pool of connections, with fake connections and a clock that the test advances."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from meter.interfaces import Unavailable
from meter.store.postgres.connection import Conflict
from meter.store.postgres.connection import Lost
from meter.store.postgres.connection import TimedOut
from meter.store.postgres.pool import Pool


class FakeSession:
    """A connection that opens unless ``down``, and answers each statement with what ``answers`` has for it."""

    def __init__(self, down=None):
        self.down = down
        self.closed = False
        self.spread = False
        self.lost = Deferred()
        self.statements = []

    async def open(self):
        if self.down:
            raise Lost(self.down)

    async def rows(self, statement, parameters=None):
        self.statements.append(statement)
        return [(statement,)]

    async def count(self, statement, parameters=None):
        self.statements.append(statement)
        return 1

    def disable_timeout(self):
        pass

    async def cancel_query(self):
        self.statements.append("cancel")

    def close(self):
        if not self.closed:
            self.closed = True
            self.lost.callback(None)


class Server:
    """Makes sessions and remembers them; ``down`` is why it cannot be reached."""

    def __init__(self, down=None):
        self.down = down
        self.sessions = []

    def __call__(self):
        self.sessions.append(FakeSession(self.down))
        return self.sessions[-1]


def pool_of(server, clock=None, **options):
    pool = Pool(server, clock or Clock(), name="pool", rng=lambda: 1.0, **{"size": 1, **options})
    pool.startService()
    return pool


def start(coroutine):
    """Run as far as it goes, and return what comes of it."""
    results = []
    Deferred.fromCoroutine(coroutine).addBoth(results.append)
    return results


def value(results):
    [result] = results
    return getattr(result, "value", result)


async def nothing_much(session):
    await session.count("UPDATE")
    return "done"


def test_transaction_is_begun_and_committed():
    server = Server()

    assert value(start(pool_of(server).run(nothing_much))) == "done"
    assert server.sessions[0].statements == ["BEGIN", "COMMIT", "BEGIN", "UPDATE", "COMMIT"]


def test_transaction_that_raises_is_rolled_back():
    async def wrong(session):
        raise ZeroDivisionError

    server = Server()

    assert isinstance(value(start(pool_of(server).run(wrong))), ZeroDivisionError)
    assert server.sessions[0].statements[-1] == "ROLLBACK"


def test_only_coroutine_functions_are_transactions():
    def at_once(session):
        return Deferred()

    assert isinstance(value(start(pool_of(Server()).run(at_once))), TypeError)


def test_unreachable_server_is_retried_with_growing_pauses():
    server, clock = Server(down="no route to db"), Clock()
    pool = pool_of(server, clock)
    for _ in range(100):
        clock.advance(1)

    assert not pool.ready
    assert pool.reason == "no route to db"
    assert 5 < len(server.sessions) < 12
    assert all(session.closed for session in server.sessions)
    error = value(start(pool.rows("SELECT")))
    assert isinstance(error, Unavailable)
    assert "no route to db" in str(error)

    server.down = None
    clock.advance(30)
    assert pool.ready
    assert value(start(pool.rows("SELECT"))) == [("SELECT",)]


def test_connection_is_not_used_until_it_is_prepared():
    states = ["the schema is missing", None]

    async def prepare(session):
        if reason := states.pop(0):
            raise Unavailable(reason)

    server, clock = Server(), Clock()
    pool = pool_of(server, clock, prepare=prepare)

    assert (pool.ready, pool.reason) == (False, "the schema is missing")
    assert server.sessions[0].closed
    clock.advance(1)
    assert pool.ready


def test_preparation_that_raises_is_logged_and_retried(logged_errors):
    states = [ZeroDivisionError(), None]

    async def prepare(session):
        if error := states.pop(0):
            raise error

    clock = Clock()
    pool = pool_of(Server(), clock, prepare=prepare)
    clock.advance(1)

    assert pool.ready
    assert len(logged_errors.flush(ZeroDivisionError)) == 1


def levels_of(events):
    return [each["log_level"].name for each in events if each["log_namespace"] == "meter.store.postgres.pool.Pool"]


def test_server_that_is_started_too_is_no_alarm():
    clock, server = Clock(), Server("no socket")
    with capturedLogs() as events:
        pool = pool_of(server, clock)
        clock.pump([0.5] * 10)
        server.down = None
        clock.pump([0.5] * 10)
        assert pool.ready
        assert levels_of(events) == ["info", "info"]

        server.down = "restarting"
        server.sessions[-1].close()
    assert levels_of(events)[2:] == ["warn", "warn"], "from the first connection on, each loss is a warning"


def test_server_that_stays_away_after_the_start_is_a_warning():
    clock = Clock()
    with capturedLogs() as events:
        pool_of(Server("no socket"), clock)
        clock.pump([0.5] * 240)
    assert levels_of(events) == ["info", "warn"]


def test_lost_connection_is_replaced_at_once():
    server = Server()
    pool = pool_of(server)

    server.sessions[0].close()

    assert pool.ready
    assert pool.generation == 2
    assert value(start(pool.rows("SELECT"))) == [("SELECT",)]
    assert "SELECT" in server.sessions[1].statements


def test_callers_are_served_one_after_another_in_order():
    first, second, served = Deferred(), Deferred(), []

    async def slow(session, name, until):
        served.append(name)
        await until

    pool = pool_of(Server())
    start(pool.run(slow, "first", first))
    start(pool.run(slow, "second", second))
    assert served == ["first"]

    first.callback(None)
    assert served == ["first", "second"]
    second.callback(None)


def test_number_of_waiting_callers_is_limited():
    async def forever(session):
        await Deferred()

    pool = pool_of(Server(), max_waiting=2)
    waiting = [start(pool.run(forever)) for _ in range(3)]
    assert not any(waiting)

    error = value(start(pool.run(forever)))
    assert isinstance(error, Unavailable)
    assert "2 callers" in str(error)


def test_waiting_callers_fail_when_the_last_connection_is_lost():
    async def forever(session):
        await session.lost

    server, clock = Server(), Clock()
    pool = pool_of(server, clock)
    start(pool.run(forever))
    waiting = start(pool.rows("SELECT"))

    server.down = "gone"
    server.sessions[0].close()

    assert isinstance(value(waiting), Unavailable)


def test_cancelled_caller_loses_only_its_place():
    until = Deferred()

    async def slow(session):
        await until

    server = Server()
    pool = pool_of(server)
    start(pool.run(slow))
    cancelled = Deferred.fromCoroutine(pool.rows("SELECT 1"))
    patient = start(pool.rows("SELECT 2"))
    cancelled.cancel()
    cancelled.addErrback(lambda failure: failure.trap(CancelledError))
    until.callback(None)

    assert value(patient) == [("SELECT 2",)]
    assert "SELECT 1" not in server.sessions[0].statements


def test_caller_waits_for_a_connection_for_a_limited_time():
    until = Deferred()

    async def slow(session):
        await until

    server, clock = Server(), Clock()
    pool = pool_of(server, clock, max_wait_seconds=2)
    start(pool.run(slow))
    first = start(pool.rows("SELECT 1"))
    clock.advance(1)
    second = start(pool.rows("SELECT 2"))
    clock.advance(1)

    assert isinstance(value(first), Unavailable)
    assert "all 1 connections of the pool have been busy for 2 s" in str(value(first))
    until.callback(None)
    assert value(second) == [("SELECT 2",)]
    assert "SELECT 1" not in server.sessions[0].statements
    assert not clock.getDelayedCalls()


class SlowSession(FakeSession):
    """Answers ``SELECT slow``, and completes its cancellation, when the test says so."""

    def __init__(self):
        super().__init__()
        self.answer, self.cancelled = Deferred(), Deferred()

    async def rows(self, statement, parameters=None):
        if statement == "SELECT slow":
            return await self.answer
        return await super().rows(statement, parameters)

    async def cancel_query(self):
        await super().cancel_query()
        await self.cancelled


def abandoned(pool):
    asked = Deferred.fromCoroutine(pool.rows("SELECT slow"))
    asked.cancel()
    asked.addErrback(lambda failure: failure.trap(CancelledError))


def test_abandoned_query_is_cancelled_and_no_other():
    session = SlowSession()
    pool = pool_of(lambda: session)
    abandoned(pool)
    next_one = start(pool.rows("SELECT 1"))
    assert session.statements[-1] == "cancel"

    session.answer.errback(TimedOut("canceling statement due to user request"))
    assert not next_one  # a late cancellation would hit the next query
    session.cancelled.callback(None)
    assert value(next_one) == [("SELECT 1",)]


def test_query_continues_when_cancelling_it_fails(logged_errors):
    for error in (Lost("too many connections"), ZeroDivisionError()):
        session = SlowSession()
        pool = pool_of(lambda session=session: session)
        abandoned(pool)
        session.cancelled.errback(error)
        next_one = start(pool.rows("SELECT 1"))
        assert not next_one

        session.answer.callback([])
        assert value(next_one) == [("SELECT 1",)]
    assert len(logged_errors.flush(ZeroDivisionError)) == 1


def test_abandoned_transaction_is_not_cancelled():
    until = Deferred()

    async def slow(session):
        await until

    server = Server()
    asked = Deferred.fromCoroutine(pool_of(server).run(slow))
    asked.cancel()
    asked.addErrback(lambda failure: failure.trap(CancelledError))
    until.callback(None)
    assert server.sessions[0].statements[-2:] == ["BEGIN", "COMMIT"]


def test_conflict_is_retried_a_few_times():
    tries = []

    async def quarrel(session):
        tries.append(1)
        raise Conflict("deadlock detected")

    clock = Clock()
    results = start(pool_of(Server(), clock, attempts=3).run(quarrel))
    assert len(tries) == 1
    clock.pump([0.1] * 10)

    assert len(tries) == 3
    assert isinstance(value(results), Conflict)


def test_stop_waits_for_transactions_for_a_limited_time(logged_errors):
    async def forever(session):
        await session.lost

    server, clock = Server(), Clock()
    pool = pool_of(server, clock, patience_seconds=5)
    start(pool.run(forever))
    stopped = []
    pool.stopService().addBoth(stopped.append)

    assert isinstance(value(start(pool.rows("SELECT"))), Unavailable)
    assert not stopped
    assert not server.sessions[0].closed
    clock.advance(5)
    assert stopped
    assert server.sessions[0].closed
    assert len(server.sessions) == 1


def test_stop_ends_a_pause_between_attempts():
    clock = Clock()
    pool = pool_of(Server(down="away"), clock)
    stopped = []
    pool.stopService().addBoth(stopped.append)

    assert stopped
    assert not clock.getDelayedCalls()
