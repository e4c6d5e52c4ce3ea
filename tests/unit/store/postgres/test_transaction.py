"""A transaction of a session is committed, or rolled back whatever ends it."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.defer import Deferred

from meter.store.postgres.transaction import in_transaction


class Statements:
    """A session that notes its statements; ``fails`` is the one that raises."""

    def __init__(self, fails="", *, closed=False):
        self.fails, self.closed, self.executed = fails, closed, []

    async def count(self, statement, parameters=None):
        self.executed.append(statement)
        if statement == self.fails:
            raise ZeroDivisionError
        return 7


def outcome(session, work):
    found = []
    Deferred.fromCoroutine(in_transaction(session, work, "UPDATE")).addBoth(found.append)
    return getattr(found[0], "type", found[0])


def test_result_is_returned_when_it_is_committed():
    session = Statements()
    assert outcome(session, session.count) == 7
    assert session.executed == ["BEGIN", "UPDATE", "COMMIT"]


@pytest.mark.parametrize("fails", ["UPDATE", "COMMIT"])
def test_what_fails_is_rolled_back(fails):
    session = Statements(fails)
    assert outcome(session, session.count) is ZeroDivisionError
    assert session.executed[-1] == "ROLLBACK"


def test_cancelled_transaction_is_rolled_back():
    async def waits(statement):
        await Deferred()

    session, found = Statements(), []
    work = Deferred.fromCoroutine(in_transaction(session, waits, "UPDATE"))
    work.addBoth(found.append)
    work.cancel()
    assert found[0].type is CancelledError
    assert session.executed == ["BEGIN", "ROLLBACK"]


def test_closed_session_is_not_asked_to_roll_back():
    session = Statements("UPDATE", closed=True)
    assert outcome(session, session.count) is ZeroDivisionError
    assert session.executed == ["BEGIN", "UPDATE"]
