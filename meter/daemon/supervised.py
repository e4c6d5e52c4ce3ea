"""Supervised services: a loop that keeps a connection, a server or a port open; and waiting until it is ready."""

from __future__ import annotations

from typing import ClassVar
from typing import Literal

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from meter.daemon.services import Backoff
from meter.daemon.services import LoopService
from meter.daemon.services import sleep
from meter.interfaces import IDependency
from meter.interfaces import Readiness
from meter.interfaces import Unavailable

READY_SECONDS = 20.0
"""How long a command waits for a dependency to become ready."""

READY_CHECK_SECONDS = 0.05


class SupervisedService(LoopService):
    """Repeats ``_attempt`` from start to stop; an exception is reported, and the next attempt follows.

    An attempt does the work for as long as it lasts and returns the seconds until the next attempt: 0 for one at once,
    ``None`` when there is nothing left to do. After one that raises, ``_attempt_failed`` is called and the loop sleeps for the
    next pause of ``backoff``; an attempt that succeeds calls ``self._backoff.reset()``. ``wake`` ends the sleep.

    ``on_stop`` says what stopping does to an attempt in progress. ``finish``: stopping waits until it has returned.
    ``cancel``: it is cancelled, and what it raises is not reported. ``drain``: stopping waits, and further attempts
    follow until one raises or returns ``None``.
    """

    _log = Logger()
    on_stop: ClassVar[Literal["finish", "cancel", "drain"]] = "finish"

    def __init__(self, clock: IReactorTime, *, backoff: Backoff | None = None, reason: str = "not started") -> None:
        super().__init__(clock)
        self._backoff = backoff or Backoff()
        self._ready = False
        self._reason = reason

    @property
    def ready(self) -> bool:
        """Whether the service can be used now."""
        return self._ready

    @property
    def reason(self) -> str:
        """Why the service cannot be used, or what it is connected to."""
        return self._reason

    def readiness(self) -> Readiness:
        """Return the state for ``/readyz``."""
        return Readiness(str(self.name), self.ready, self.reason)

    def stopService(self) -> Deferred[None] | None:
        """Fire when the loop has ended."""
        loop = super().stopService()
        if loop is not None and self.on_stop == "cancel":
            loop.cancel()
        return loop

    async def _attempt(self) -> float | None:
        """Do the work once."""
        raise NotImplementedError

    def _attempt_failed(self, error: Exception) -> None:
        """Report what an attempt raised."""
        if self._set_state(False, f"{type(error).__name__}: {error}"):
            self._log.failure("{service} failed; retrying", service=self.name)

    def _set_state(self, ready: bool, reason: str) -> bool:
        """Set ``ready`` and ``reason``; return whether either is new, so that the caller logs each state once."""
        is_new = (ready, reason) != (self._ready, self._reason)
        self._ready, self._reason = ready, reason
        return is_new

    async def _run(self) -> None:
        while self.running or self.on_stop == "drain":
            try:
                seconds = await self._attempt()
            except Exception as error:
                if self.running or self.on_stop != "cancel":
                    self._attempt_failed(error)
                seconds = self._backoff.next() if self.running else None
            if seconds is None:
                return
            if seconds > 0 and self.running:
                await self._sleep(seconds)


async def wait_ready(
    dependency: IDependency, clock: IReactorTime, *, seconds: float = READY_SECONDS, name: str = ""
) -> None:
    """Return once ``dependency`` is ready; after ``seconds`` raise :class:`Unavailable` with ``name`` and its reason."""
    deadline = clock.seconds() + seconds
    while not (state := dependency.readiness()).ready:
        if clock.seconds() >= deadline:
            raise Unavailable(f"{name}: {state.reason}" if name else state.reason)
        await sleep(clock, READY_CHECK_SECONDS)
