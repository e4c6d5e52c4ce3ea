"""A lock and a semaphore for any number of waiters.

Twisted's ``release`` calls the next waiter, whose ``release`` calls the one after it, and so on: when some 200 waiters have
nothing to wait for inside, Python's limit of recursion is exceeded, the error is lost in a Deferred, and the lock stays
locked for ever (Twisted 25.5; tests/unit/daemon/test_locks.py). Here a ``release`` within a ``release`` is done after it.
"""

from __future__ import annotations

from twisted.internet.defer import DeferredLock
from twisted.internet.defer import DeferredSemaphore


class Lock(DeferredLock):
    """A :class:`~twisted.internet.defer.DeferredLock` whose waiters run one after another, not inside each other."""

    _releases = 0

    def release(self) -> None:
        """Release the lock; the first waiter gets it."""
        self._releases += 1
        if self._releases > 1:
            return
        while self._releases:
            try:
                super().release()
            finally:
                self._releases -= 1


class Semaphore(DeferredSemaphore):
    """A :class:`~twisted.internet.defer.DeferredSemaphore` whose waiters run one after another, not inside each other."""

    _releases = 0

    def release(self) -> None:
        """Return one token; the first waiter gets it."""
        self._releases += 1
        if self._releases > 1:
            return
        while self._releases:
            try:
                super().release()
            finally:
                self._releases -= 1
