"""Locks with thousands of waiters that have nothing to wait for inside."""

import pytest
from twisted.internet.defer import Deferred

from meter.daemon.locks import Lock
from meter.daemon.locks import Semaphore

WAITERS = 5_000


@pytest.mark.parametrize("lock", [Lock(), Semaphore(1), Semaphore(7)], ids=["lock", "semaphore of 1", "semaphore of 7"])
def test_every_waiter_has_its_turn(lock):
    turns, first_may_go = [], Deferred()

    async def wait(number):
        await lock.acquire()
        try:
            if number < 7:
                await first_may_go
            turns.append(number)
        finally:
            lock.release()

    waiters = [Deferred.fromCoroutine(wait(number)) for number in range(WAITERS)]
    first_may_go.callback(None)

    assert sorted(turns) == list(range(WAITERS))
    assert all(each.called and each.result is None for each in waiters)


def test_waiter_that_is_cancelled_does_not_keep_the_others():
    lock, first_may_go, turns = Lock(), Deferred(), []

    async def wait(number, what=None):
        await lock.acquire()
        try:
            if what is not None:
                await what
            turns.append(number)
        finally:
            lock.release()

    Deferred.fromCoroutine(wait(0, first_may_go))
    second = Deferred.fromCoroutine(wait(1))
    Deferred.fromCoroutine(wait(2))
    second.addErrback(lambda _: None)
    second.cancel()
    first_may_go.callback(None)

    assert turns == [0, 2]
