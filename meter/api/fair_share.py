"""Fair shares of what requests compete for: places of which each owner has a limited number, and a queue in rotation."""

from __future__ import annotations

from collections import Counter
from collections import deque
from collections.abc import AsyncIterator
from collections.abc import Hashable
from collections.abc import Iterator
from contextlib import asynccontextmanager
from contextlib import contextmanager
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime

from meter.api.errors import TryLater
from meter.daemon.services import within
from meter.interfaces import Unavailable


class Busy(Unavailable):
    """There was no place for too long; the text, unlike that of others of this kind, is for clients."""


class Places:
    """Places that are taken at once or not at all: ``with places.take(owner): ...``.

    There are ``total``, of which one owner can have ``per_owner`` (by default all). The last ``reserved`` of them are for
    privileged owners, to which ``per_owner`` does not apply. At least one place is for everybody. ``taken`` is how many
    are taken now. ``what`` takes the places, ``owner`` and ``everybody`` are who is limited, in the text of an error.
    """

    def __init__(
        self,
        total: int,
        per_owner: int | None = None,
        reserved: int = 0,
        *,
        what: str,
        owner: str = "one project",
        everybody: str = "all clients together",
    ) -> None:
        self._total = total
        self._per_owner = total if per_owner is None else per_owner
        self._shared = total - min(reserved, total - 1)
        self._what = what
        self._owner = owner
        self._everybody = everybody
        self._by_owner: Counter[Hashable] = Counter()
        self.taken = 0

    @contextmanager
    def take(self, owner: Hashable, *, privileged: bool = False) -> Iterator[None]:
        """Hold a place; :class:`TryLater` 429 if ``owner`` has its share, 503 if all are taken that it could have."""
        if not privileged and self._by_owner[owner] >= self._per_owner:
            raise TryLater(429, f"{_sentence(self._owner)} can have {self._per_owner} {self._what} at the same time")
        limit = self._total if privileged else self._shared
        if self.taken >= limit:
            others = f" ({self._total - limit} more are reserved for administrators)" if limit < self._total else ""
            raise TryLater(503, f"{_sentence(self._everybody)} can have {limit} {self._what} at the same time{others}")
        self._by_owner[owner] += 1
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
            self._by_owner[owner] -= 1
            if not self._by_owner[owner]:
                del self._by_owner[owner]


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]


@dataclass(frozen=True, slots=True)
class _Waiting:
    granted: Deferred[None]
    privileged: bool


class FairQueue:
    """Places for which owners wait in rotation: ``async with queue.place(owner): ...``.

    As :class:`Places`, but who finds none waits for at most ``max_wait_seconds``, with at most ``max_waiting`` others of the
    same owner. A place that becomes free goes to the next owner in the rotation that may have it, privileged owners first:
    an owner with a hundred waiting requests delays another owner's by one request, not by a hundred. No owner can have all
    places that are not reserved, if there are several. ``what`` is what the query waits for, in the text of :class:`Busy`.
    """

    def __init__(
        self,
        clock: IReactorTime,
        *,
        total: int,
        per_owner: int,
        reserved: int,
        max_wait_seconds: float,
        max_waiting: int = 50,
        what: str,
    ) -> None:
        self._clock = clock
        self._total = total
        self._shared = total - min(reserved, total - 1)
        self._per_owner = min(per_owner, max(1, self._shared - 1))
        self._max_wait_seconds = max_wait_seconds
        self._max_waiting = max_waiting
        self._what = what
        self._by_owner: Counter[Hashable] = Counter()
        # In the order of the rotation: an owner that gets a place goes to the end.
        self._waiting: dict[Hashable, deque[_Waiting]] = {}

    @asynccontextmanager
    async def place(
        self, owner: Hashable, *, privileged: bool = False, waited_seconds: float = 0.0
    ) -> AsyncIterator[None]:
        """Hold a place once there is one; :class:`Busy` if that takes too long, with the time waited for another place."""
        await self._take(owner, privileged, waited_seconds)
        try:
            yield
        finally:
            self._release(owner)

    async def _take(self, owner: Hashable, privileged: bool, waited_seconds: float) -> None:
        if owner not in self._waiting and self._is_free(owner, privileged):
            self._by_owner[owner] += 1
            return
        queue = self._waiting.setdefault(owner, deque())
        if len(queue) >= self._max_waiting:
            raise Busy(f"{len(queue)} queries of one project already wait for {self._what}")
        waiting = _Waiting(Deferred(lambda _: self._withdraw(owner, waiting)), privileged)
        queue.append(waiting)
        try:
            await within(self._clock, max(0.0, self._max_wait_seconds - waited_seconds), waiting.granted)
        except DeferredTimeout as error:
            share = "" if privileged else f"one project can use {self._per_owner} of them at the same time, "
            raise Busy(
                f"The query has waited {self._max_wait_seconds:g} s for {self._what}; "
                f"{share}all together {self._total if privileged else self._shared}"
            ) from error

    def _is_free(self, owner: Hashable, privileged: bool) -> bool:
        taken = self._by_owner.total()
        if privileged:
            return taken < self._total
        return taken < self._shared and self._by_owner[owner] < self._per_owner

    def _withdraw(self, owner: Hashable, waiting: _Waiting) -> None:
        self._waiting[owner].remove(waiting)
        if not self._waiting[owner]:
            del self._waiting[owner]

    def _release(self, owner: Hashable) -> None:
        self._by_owner[owner] -= 1
        if not self._by_owner[owner]:
            del self._by_owner[owner]
        self._grant()

    def _grant(self) -> None:
        while (found := self._next()) is not None:
            queue = self._waiting.pop(found)
            waiting = queue.popleft()
            if queue:
                self._waiting[found] = queue
            self._by_owner[found] += 1
            waiting.granted.callback(None)

    def _next(self) -> Hashable | None:
        """Return the owner that gets the next place, ``None`` if nobody can have one."""
        may = [owner for owner, queue in self._waiting.items() if self._is_free(owner, queue[0].privileged)]
        return next((owner for owner in may if self._waiting[owner][0].privileged), next(iter(may), None))
