"""Slices of work that many requests share: a bounded amount per turn of the reactor, divided among their owners."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from collections.abc import Hashable
from collections.abc import Sequence
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

T = TypeVar("T")


class SharedSlices:
    """Bounds the work of all owners together, per turn of the reactor, and lets waiting owners work in rotation.

    (:class:`meter.daemon.services.Slices` bounds one piece of work: with fifty of them, a turn takes fifty slices.) In
    each turn an owner works for at most ``seconds``, and all of them for at most ``total_seconds``; both can be exceeded
    by the step in progress. Of the owners that wait, one is resumed per turn, or more if the first ones finish early.
    ``turns`` counts the turns in which waiting work was resumed.
    """

    def __init__(self, clock: IReactorTime, seconds: float = 0.001, total_seconds: float = 0.003) -> None:
        self._clock = clock
        self._seconds = seconds
        self._total_seconds = total_seconds
        self._turn_began: float | None = None
        self._began: dict[Hashable, float] = {}
        # In the order in which owners are resumed; an owner that waits again goes to the end.
        self._waiting: dict[Hashable, deque[Deferred[None]]] = {}
        self.turns = 0

    def of(self, owner: Hashable) -> OwnedSlices:
        """Return the slices of ``owner``: equal owners share theirs."""
        return OwnedSlices(self, owner)

    def over(self, owner: Hashable) -> bool:
        """Return whether ``owner`` has to pause."""
        now = self._clock.seconds()
        if self._turn_began is None:
            self._turn_began = now
            self._clock.callLater(0, self._next_turn)
        if not 0 <= now - self._turn_began <= self._total_seconds:  # also if the clock was set back
            return True
        return now - self._began.setdefault(owner, now) > self._seconds

    async def pause(self, owner: Hashable) -> None:
        """Return in a later turn, when it is the turn of ``owner``."""
        self.over(owner)  # makes sure that there is a next turn
        queue = self._waiting.setdefault(owner, deque())
        waiting: Deferred[None] = Deferred(lambda cancelled: self._remove(owner, cancelled))
        queue.append(waiting)
        await waiting

    def _remove(self, owner: Hashable, waiting: Deferred[None]) -> None:
        self._waiting[owner].remove(waiting)
        if not self._waiting[owner]:
            del self._waiting[owner]

    def _next_turn(self) -> None:
        self._turn_began = None
        self._began.clear()
        if not self._waiting:
            return
        self.turns += 1
        # What still waits afterwards needs a next turn, even if the process was suspended here and nobody is resumed now.
        self._turn_began = began = self._clock.seconds()
        self._clock.callLater(0, self._next_turn)
        while self._waiting:
            owner, queue = next(iter(self._waiting.items()))
            waiting = queue.popleft()
            del self._waiting[owner]
            if queue:
                self._waiting[owner] = queue
            if not self.over(owner):
                waiting.callback(None)
            else:  # it has resumed several of its pieces of work, which took all of its time
                self._waiting.setdefault(owner, deque()).appendleft(waiting)
                return
            if not 0 <= self._clock.seconds() - began <= self._seconds:
                return


class OwnedSlices:
    """The slices of one owner: ``if s.over: await s.pause()``, or ``async for batch in s.batches(items, size)``."""

    def __init__(self, shared: SharedSlices, owner: Hashable) -> None:
        self._shared = shared
        self._owner = owner

    @property
    def over(self) -> bool:
        """Whether the work has to pause."""
        return self._shared.over(self._owner)

    async def pause(self) -> None:
        """Let the reactor and other owners work, and return in a later turn."""
        await self._shared.pause(self._owner)

    async def batches(self, items: Sequence[T], size: int) -> AsyncIterator[Sequence[T]]:
        """Yield ``items`` in batches of ``size``, pausing between them when it is time to."""
        for start in range(0, len(items), size):
            if self.over:
                await self.pause()
            yield items[start : start + size]

    async def consume(self, items: list[T], size: int) -> AsyncIterator[list[T]]:
        """Yield as :meth:`batches` does, and remove what was yielded: freeing a long list at once takes long too."""
        items.reverse()
        while items:
            if self.over:
                await self.pause()
            batch = items[-size:]
            del items[-size:]
            batch.reverse()
            yield batch
