"""RatingService: what rating does by itself in the collector, at intervals and in one collector at a time."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from typing import Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from meter.daemon.repeated_failures import RepeatedFailures
from meter.daemon.services import Periodic
from meter.daemon.services import wall_seconds
from meter.daemon.start_grace import StartGrace
from meter.interfaces import IDependency
from meter.interfaces import Readiness
from meter.interfaces import Unavailable


class RatingStep(Protocol):
    """A step of rating. It may be killed at any time, and run again."""

    name: str

    async def run(self, now: datetime) -> object:
        """Do what is due; raise ``Unavailable`` while something it depends on is."""


class IRatingMetrics(Protocol):
    """Counts what the steps do: :class:`meter.daemon.rating_metrics.RatingMetrics`."""

    def ran(self, step: str, seconds: float, at: datetime) -> None:
        """Record a step that succeeded."""

    def failed(self, step: str) -> None:
        """Count a step that failed."""


Exclusively = Callable[[Callable[[], Awaitable[object]]], Awaitable[bool]]
"""Does work unless another process does the like, and returns whether it did: ``StoredRating.exclusively``."""

FIRST_AFTER_SECONDS = 10.0


@implementer(IDependency)
class RatingService(Service):
    """Runs ``steps`` in order every ``interval_seconds``. One that fails does not stop the others.

    Its error is logged once, until the step succeeds or fails otherwise, and is told by ``readiness``.
    """

    _log = Logger()

    def __init__(
        self,
        steps: Sequence[RatingStep],
        exclusively: Exclusively,
        clock: IReactorTime,
        *,
        interval_seconds: float,
        metrics: IRatingMetrics,
    ) -> None:
        self.setName("rating")
        self._steps = steps
        self._exclusively = exclusively
        self._clock = clock
        self._metrics = metrics
        self._problems: dict[str, str] = {}
        self._failures = RepeatedFailures(self._log, clock)
        self._state = "it has not run yet"
        self._starting = StartGrace(clock)
        self._periodic = Periodic(
            self.run, interval_seconds, clock, name="rating", first_after=min(interval_seconds, FIRST_AFTER_SECONDS)
        )

    def startService(self) -> None:
        """Begin to run at intervals."""
        super().startService()
        self._starting.begin()
        self._periodic.startService()

    def stopService(self) -> Deferred[None] | None:
        """Fire when the step in progress is done; no other one is begun."""
        super().stopService()
        return self._periodic.stopService()

    def set_interval(self, interval_seconds: float) -> None:
        """Run every ``interval_seconds`` from now on."""
        self._periodic.set_interval(interval_seconds)

    def readiness(self) -> Readiness:
        """Return the state: degraded while a step fails."""
        if self._problems:
            reason = "; ".join(f"{name}: {problem}" for name, problem in self._problems.items())
            return Readiness("rating", False, reason, needed=False)
        return Readiness("rating", True, self._state)

    async def run(self) -> None:
        """Run all steps once, unless another collector does."""
        try:
            if await self._exclusively(self._run_steps):
                self._state = f"last run at {self._now():%Y-%m-%dT%H:%M:%SZ}"
            else:
                self._problems.clear()
                self._state = "another process rates at present"
            self._starting.end()
            self._succeeded("lock")
        except Unavailable as error:
            if self._starting.active:  # the store is not connected yet; what it depends on says so itself
                self._state = f"it has not run yet: {error}"
                self._log.info("rating waits for its next time: {reason}", reason=str(error))
            else:
                self._fail("lock", error)

    async def _run_steps(self) -> None:
        for step in self._steps:
            if not self.running:
                return
            began = self._clock.seconds()
            try:
                await step.run(self._now())
            except Exception as error:
                self._metrics.failed(step.name)
                self._fail(step.name, error)
            else:
                self._metrics.ran(step.name, self._clock.seconds() - began, self._now())
                self._succeeded(step.name)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(wall_seconds(self._clock), UTC)

    def _fail(self, name: str, error: Exception) -> None:
        self._problems[name] = str(error) or type(error).__name__
        self._failures.failed(f"the step {name} of rating", Failure(error))

    def _succeeded(self, name: str) -> None:
        self._problems.pop(name, None)
        self._failures.succeeded(f"the step {name} of rating")
