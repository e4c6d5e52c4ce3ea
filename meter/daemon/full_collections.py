"""Full collections of Python's garbage collector, at moments when they take little time."""

from __future__ import annotations

import gc
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from meter.daemon.services import Periodic

NEVER = 2**30
"""A threshold that is not reached."""

CHECK_SECONDS = 10.0
MAX_POSTPONED_SECONDS = 300.0


class FullCollections(Periodic):
    """Runs full collections every ten seconds in which the process is not ``busy``, but at least every five minutes.

    Python starts a full collection when the number of objects has grown by a quarter, which is in the middle of a large
    response, or while a thread decodes a large body: it then visits each of its hundred thousands of objects, in one step
    that takes a tenth of a second or more.
    Collections of young objects remain automatic. What exists when this service starts is excluded from all collections.
    """

    def __init__(self, clock: IReactorTime, busy: Callable[[], bool]) -> None:
        super().__init__(
            self._collect, CHECK_SECONDS, clock, name="full garbage collections", first_after=CHECK_SECONDS
        )
        self._busy = busy
        self._thresholds = gc.get_threshold()
        self._last = clock.seconds()
        self.collections = 0

    def startService(self) -> None:
        """Take over from Python."""
        self._thresholds = gc.get_threshold()
        gc.collect()
        gc.freeze()
        gc.set_threshold(*self._thresholds[:2], NEVER)
        super().startService()

    def stopService(self) -> Deferred[None] | None:
        """Return to what Python does."""
        gc.set_threshold(*self._thresholds)
        gc.unfreeze()
        return super().stopService()

    async def _collect(self) -> None:
        now = self._clock.seconds()
        if self._busy() and now - self._last < MAX_POSTPONED_SECONDS:
            return
        self._last = now
        self.collections += 1
        gc.collect()
