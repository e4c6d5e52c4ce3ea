"""Which weeks are packed: those that ended long enough ago, do not expire soon, and have not just been merged with late samples."""

from __future__ import annotations

from datetime import UTC
from datetime import date
from datetime import datetime
from datetime import timedelta

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.defer import succeed

from meter.interfaces import Unavailable
from meter.store.maintenance.packing import WeekPacking
from meter.store.maintenance.packing import weeks_due

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
"""A Wednesday."""

WEEKS = [date(2026, 10, 19) + timedelta(weeks=n) for n in range(7)]


class Session:
    """A session of a database with the partitions of ``WEEKS``, of which ``packed`` are packed."""

    def __init__(self, packed=()):
        self.packed = packed
        self.statements = []
        self.closed = False
        self.opening = succeed(None)

    async def open(self):
        await self.opening

    def disable_timeout(self):
        pass

    async def count(self, statement, parameters=None):
        self.statements.append(statement)
        return 0

    async def rows(self, statement, parameters=None):
        self.statements.append(statement)
        if "FROM packed_week" in statement:
            return list(self.packed)
        if "pg_class WHERE relname" in statement:
            return []  # the store is on one server
        if "pg_inherits" in statement:
            return [[f"sample_{week:%Y_%m_%d}"] for week in WEEKS]
        return [[statement.startswith("SELECT pg_try_advisory_lock")]]  # nothing to pack in any week

    def close(self):
        self.closed = True
        if not self.opening.called:
            self.opening.errback(Unavailable("closed"))


def due(session=None, *, after_days=14, retention_days=0.0):
    [weeks] = results(weeks_due(session or Session(), NOW, after_days=after_days, retention_days=retention_days))
    return weeks


def results(coroutine):
    found = []
    Deferred.fromCoroutine(coroutine).addCallback(found.append)
    return found


def test_week_is_due_when_it_ended_long_enough_ago():
    assert due() == WEEKS[:3]
    assert due(after_days=2.5) == WEEKS[:5]
    assert due(after_days=2.6) == WEEKS[:4]


def test_week_that_expires_within_a_week_is_not_packed():
    assert due(retention_days=30) == [WEEKS[2]]
    assert due(retention_days=400) == WEEKS[:3]


@pytest.mark.parametrize(
    ("packed_at", "is_due"), [(None, True), (NOW - timedelta(hours=23), False), (NOW - timedelta(hours=24), True)]
)
def test_late_samples_of_a_packed_week_are_merged_once_a_day(packed_at, is_due):
    assert due(Session([(WEEKS[1], packed_at)])) == [week for week in WEEKS[:3] if is_due or week != WEEKS[1]]


def test_nothing_is_packed_after_0_days():
    packing = WeekPacking(lambda: pytest.fail("a connection"), lambda: succeed(None), after_days=0, retention_days=0)
    assert results(packing.run(NOW)) == [0]


def test_every_week_that_is_due_is_looked_at_over_a_session_without_time_limits():
    session = Session()
    packing = WeekPacking(lambda: session, lambda: succeed(None), after_days=14, retention_days=0)
    assert results(packing.run(NOW)) == [0]
    assert "SET statement_timeout = 0" in session.statements
    read = [statement for statement in session.statements if statement.startswith("SELECT EXISTS")]
    assert [f"sample_{week:%Y_%m_%d}" in statement for week, statement in zip(WEEKS[:3], read, strict=True)] == [
        True
    ] * 3
    assert session.closed


def test_aborted_run_closes_its_session_and_the_next_one_opens_another():
    sessions = [Session(), Session()]
    sessions[0].opening = Deferred()
    made = iter(sessions)
    packing = WeekPacking(lambda: next(made), lambda: succeed(None), after_days=14, retention_days=0)
    failed = []
    Deferred.fromCoroutine(packing.run(NOW)).addErrback(failed.append)
    packing.abort()
    [failure] = failed
    assert failure.check(Unavailable)
    assert sessions[0].closed
    packing.abort()
    assert results(packing.run(NOW)) == [0]
