"""Services that start and stop in order, periodic services, and timeouts and pauses on an injected clock."""

from __future__ import annotations

import random
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Coroutine
from typing import Any
from typing import TypeVar

from twisted.application.service import IService
from twisted.application.service import MultiService
from twisted.application.service import Service
from twisted.internet.defer import CancelledError
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from meter.daemon.repeated_failures import RepeatedFailures

T = TypeVar("T")


def wall_seconds(clock: IReactorTime) -> float:
    """Return the wall-clock time in seconds since 1970, which administrators and NTP may set back.

    Timers must not be affected by that: ``seconds`` of a daemon's reactor is monotonic, and ``wall_seconds`` is the wall
    clock (:mod:`meter.taps.monotonic_clock`). Any other clock, such as ``task.Clock`` in tests, has one time for both.
    """
    now: float = getattr(clock, "wall_seconds", clock.seconds)()
    return now


def sleep(clock: IReactorTime, seconds: float) -> Deferred[None]:
    """Fire after ``seconds`` of ``clock``; cancelling it frees the delayed call."""
    waiting: Deferred[None] = Deferred(lambda _: call.cancel())
    call = clock.callLater(seconds, waiting.callback, None)
    return waiting


def within(clock: IReactorTime, seconds: float, work: Coroutine[Any, Any, T] | Deferred[T]) -> Deferred[T]:
    """Return the result of ``work``, or fail with :class:`DeferredTimeout` after ``seconds``, whatever ``work`` does.

    After the timeout the work is cancelled and its result is ignored. (``Deferred.addTimeout`` only cancels: it waits
    for ever for a coroutine that ignores the cancellation.)
    """
    deferred = work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)
    answer: Deferred[T] = Deferred(lambda _: deferred.cancel())

    def expire() -> None:
        answer.errback(DeferredTimeout(f"no answer within {seconds} s"))
        deferred.cancel()

    expiry = clock.callLater(seconds, expire)

    def pass_on(outcome: Any) -> None:
        if expiry.active():
            expiry.cancel()
        if not answer.called:
            answer.callback(outcome)  # a Failure makes it fail

    deferred.addBoth(pass_on)
    return answer


class Slices:
    """Cuts long work into slices of ``seconds``, so that the reactor runs in between: ``if s.over: await s.pause()``."""

    def __init__(self, clock: IReactorTime, seconds: float = 0.005) -> None:
        self._clock = clock
        self._seconds = seconds
        self._end = clock.seconds() + seconds

    @property
    def over(self) -> bool:
        """Whether the current slice has ended (or the clock was set back)."""
        return not self._end - self._seconds <= self._clock.seconds() <= self._end

    async def pause(self) -> None:
        """Yield to the reactor once, and begin the next slice."""
        await sleep(self._clock, 0)
        self._end = self._clock.seconds() + self._seconds


class Backoff:
    """Exponential backoff with jitter: pauses of ``first`` seconds, doubling up to ``most``, each cut by up to half.

    The jitter keeps a thousand agents from reconnecting to a restarted broker in the same second.
    """

    def __init__(self, first: float = 0.5, most: float = 30.0, rng: Callable[[], float] = random.random) -> None:
        self._first = first
        self._most = most
        self._rng = rng
        self._attempt = 0

    def reset(self) -> None:
        """Start again from the first pause: an attempt has succeeded."""
        self._attempt = 0

    def next(self) -> float:
        """Return the next pause in seconds: between half of the current length and all of it."""
        length: float = min(self._most, self._first * 2 ** min(self._attempt, 30))
        self._attempt += 1
        return length * (0.5 + self._rng() / 2)


class InFlight:
    """Counts work in progress, so that stopping can wait until there is none: ``with in_flight: ...``."""

    def __init__(self) -> None:
        self.count = 0
        self._idle: list[Deferred[None]] = []

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(self, *_: object) -> None:
        self.count -= 1
        if not self.count:
            idle, self._idle = self._idle, []
            for waiting in idle:
                waiting.callback(None)

    def idle(self) -> Deferred[None]:
        """Fire when no work is in progress."""
        waiting: Deferred[None] = Deferred(lambda d: self._idle.remove(d) if d in self._idle else None)
        if self.count:
            self._idle.append(waiting)
        else:
            waiting.callback(None)
        return waiting


class StagedService(MultiService):
    """Starts its children in the order they were added and stops them one after another, the last added first.

    Each child has ``patience`` seconds to stop, all together have ``max_seconds``. A child that takes longer is logged
    and counted in ``timed_out``, and the next one is stopped. (Twisted's own ``MultiService`` stops all children at
    once: a connection would close before its users have stopped.)
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, patience: float = 20.0, max_seconds: float = float("inf")) -> None:
        super().__init__()
        self._clock = clock
        self._patience = patience
        self._max_seconds = max_seconds
        self._timed_out = 0

    @property
    def timed_out(self) -> int:
        """How many services did not stop in time, or raised an exception; those of children of this class included."""
        return self._timed_out + sum(child.timed_out for child in self if isinstance(child, StagedService))

    def stopService(self) -> Deferred[None]:
        """Fire when the last child has stopped or exceeded its time."""
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop_children())

    async def _stop_children(self) -> None:
        deadline = self._clock.seconds() + self._max_seconds
        for child in reversed(list(self)):
            patience = max(0.0, min(self._patience, deadline - self._clock.seconds()))
            try:
                await within(self._clock, patience, maybeDeferred(child.stopService))
            except DeferredTimeout:
                self._timed_out += 1
                self._log.warn(
                    "{service} did not stop within {patience} s; continuing without it",
                    service=_name(child),
                    patience=patience,
                )
            except Exception:
                self._timed_out += 1
                self._log.failure("{service} did not stop cleanly", service=_name(child))


def _name(service: IService) -> str:
    return service.name or type(service).__name__


class LoopService(Service):
    """Runs the coroutine ``_run`` from start to stop. It sleeps in ``_sleep``, which ``wake`` and stopping end early."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._loop: Deferred[None] | None = None
        self._pause: Deferred[None] | None = None

    def startService(self) -> None:
        """Begin; returns at once."""
        super().startService()
        self._loop = Deferred.fromCoroutine(self._run())

    def stopService(self) -> Deferred[None] | None:
        """Fire when the work in progress has ended; no more is begun."""
        super().stopService()
        self.wake()
        loop, self._loop = self._loop, None
        return loop

    def wake(self) -> None:
        """End the present sleep, if there is one."""
        if self._pause is not None:
            self._pause.cancel()

    async def _run(self) -> None:
        raise NotImplementedError

    async def _sleep(self, seconds: float) -> None:
        """Return after ``seconds``, or when woken."""
        self._pause = sleep(self._clock, seconds)
        try:
            await self._pause
        except CancelledError:
            pass  # woken up, or stopping
        finally:
            self._pause = None

    async def _sleep_until(self, due: float) -> bool:
        """Sleep until ``due``, in seconds of the clock; return whether the service still runs."""
        if self.running:
            await self._sleep(max(0.0, due - self._clock.seconds()))
        return bool(self.running)


class Periodic(LoopService):
    """Calls ``work`` every ``interval`` seconds of ``clock``. A failure is logged and counted, and the calls go on.

    Runs do not overlap: those that fall due during a longer run are skipped and counted in ``skipped``. The first run
    starts after ``first_after`` seconds. Stopping waits for the run in progress.
    (Twisted's ``TimerService`` stops at the first exception.)
    """

    _log = Logger()

    def __init__(
        self,
        work: Callable[[], Awaitable[object]],
        interval: float,
        clock: IReactorTime,
        *,
        name: str,
        first_after: float = 0.0,
    ) -> None:
        super().__init__(clock)
        self.setName(name)
        self._work = work
        self._interval = interval
        self._first_after = first_after
        self._due = 0.0
        self._has_other_interval = False
        self.failures = 0
        self.skipped = 0
        self._repeated_failures = RepeatedFailures(self._log, clock)

    def set_interval(self, interval: float) -> None:
        """Run every ``interval`` seconds from now on; the next run is not later than it would have been."""
        self._interval = interval
        self._due = min(self._due, self._clock.seconds() + interval)
        if self._pause is not None:
            self._has_other_interval = True
            self.wake()

    async def _run(self) -> None:
        self._due = self._clock.seconds() + self._first_after
        while await self._sleep_until(self._due):
            if self._has_other_interval:  # which ended the sleep
                self._has_other_interval = False
                continue
            try:
                await self._work()
            except Exception:
                self.failures += 1
                self._repeated_failures.failed(str(self.name), Failure())
            else:
                self._repeated_failures.succeeded(str(self.name))
            self._due += self._interval
            late = self._clock.seconds() - self._due
            if late > 0:
                missed = int(late // self._interval) + 1
                self.skipped += missed
                self._due += missed * self._interval
                self._log.warn(
                    "{work} took longer than its interval: {missed} runs are skipped", work=self.name, missed=missed
                )
