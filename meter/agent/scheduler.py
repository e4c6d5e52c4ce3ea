"""The schedule of an agent: several intervals, aligned to the clock, with one run for all that are due at the same time."""

from __future__ import annotations

import math
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Collection

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from meter.daemon.repeated_failures import RepeatedFailures
from meter.daemon.services import LoopService
from meter.daemon.services import wall_seconds

SAME_TIME_SECONDS = 0.001
"""Times that differ by less are the same run."""

IDLE_SECONDS = 3600.0
"""How long a schedule without intervals sleeps; new ones wake it."""


class AlignedSchedule(LoopService):
    """Calls ``work`` with the intervals that are due. A failure is logged, and the calls go on.

    The first run, of all intervals, is ``offset_seconds`` after the start. Later runs are ``offset_seconds`` after the
    multiples of each interval since 1970: an interval of 300 s runs at five past, at ten past, at the same time in all
    agents with the same setting, together with an interval of 60 s. Runs do not overlap: those that fall due during a
    longer run are skipped, and ``on_skipped`` is called with the interval, their number, and the times of the first and the last
    of them in seconds since 1970. Stopping waits for the run in progress.
    """

    _log = Logger()

    def __init__(
        self,
        work: Callable[[frozenset[float]], Awaitable[object]],
        intervals_seconds: Collection[float],
        clock: IReactorTime,
        *,
        name: str,
        offset_seconds: float = 0.0,
        on_skipped: Callable[[float, int, float, float], object] = lambda *_: None,
    ) -> None:
        super().__init__(clock)
        self.setName(name)
        self._work = work
        self._intervals = tuple(intervals_seconds)
        self._offset = offset_seconds
        self._on_skipped = on_skipped
        self._due: dict[float, float] = {}
        self._repeated_failures = RepeatedFailures(self._log, clock)

    def startService(self) -> None:
        """Begin; returns at once."""
        self._due = dict.fromkeys(self._intervals, self._clock.seconds() + self._offset)
        super().startService()

    def set_intervals(self, intervals_seconds: Collection[float]) -> None:
        """Use other intervals from now on: a new one first runs at its next multiple, one that stays keeps its time."""
        now = self._clock.seconds()
        self._intervals = tuple(intervals_seconds)
        self._due = {each: self._due.get(each, self._after(now, each)) for each in self._intervals}
        self.wake()

    async def _run(self) -> None:
        while await self._sleep_until(min(self._due.values(), default=self._clock.seconds() + IDLE_SECONDS)):
            began = self._clock.seconds()
            due = frozenset(each for each, at in self._due.items() if at <= began + SAME_TIME_SECONDS)
            if not due:  # the intervals have changed
                continue
            try:
                await self._work(due)
            except Exception:
                self._repeated_failures.failed(str(self.name), Failure())
            else:
                self._repeated_failures.succeeded(str(self.name))
            self._plan_next(due, began)

    def _plan_next(self, done: Collection[float], began: float) -> None:
        """Set the next time of each interval in ``done`` to its first multiple after now, and report the skipped ones."""
        now = self._clock.seconds()
        clock_was_set = wall_seconds(self._clock) - now
        missed = 0
        for interval in sorted(done):
            if interval not in self._due:  # it was removed meanwhile
                continue
            following, self._due[interval] = self._after(began, interval), self._after(now, interval)
            count = round((self._due[interval] - following) / interval)
            if count:
                last = self._due[interval] - interval
                self._on_skipped(interval, count, following + clock_was_set, last + clock_was_set)
            missed += count
        if missed:
            self._log.warn(
                "{work} took longer than its interval: {missed} runs are skipped", work=self.name, missed=missed
            )

    def _after(self, time: float, interval: float) -> float:
        past = math.floor((time + SAME_TIME_SECONDS - self._offset) / interval)
        return (past + 1) * interval + self._offset
