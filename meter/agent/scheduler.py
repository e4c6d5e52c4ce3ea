"""The timetable of an agent: several intervals, aligned to the clock, and one run for all that are due together."""

from __future__ import annotations

import math
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Collection

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from meter.daemon.services import LoopService

SAME_MOMENT_SECONDS = 0.001


class AlignedSchedule(LoopService):
    """Calls ``work`` with the intervals that are due, for ever: a failure is logged, never the end.

    The first run, of all intervals, is ``offset_seconds`` after the start; later ones are at the multiples of each
    interval since 1970, ``offset_seconds`` later. So an interval of 300 s runs at five past, at ten past, with all
    agents that share the setting, and those of 60 s with it. Runs do not overlap: those that one was too late for are
    left out, and counted through ``tell_skipped``. Stopping waits for the run that is under way.
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
        tell_skipped: Callable[[int], object] = lambda _: None,
    ) -> None:
        super().__init__(clock)
        self.setName(name)
        self._work = work
        self._intervals = tuple(intervals_seconds)
        self._offset = offset_seconds
        self._tell_skipped = tell_skipped
        self._due: dict[float, float] = {}

    def startService(self) -> None:
        """Begin; returns at once."""
        self._due = dict.fromkeys(self._intervals, self._clock.seconds() + self._offset)
        super().startService()

    async def _run(self) -> None:
        while self._due and await self._sleep_until(min(self._due.values())):
            began = self._clock.seconds()
            due = frozenset(each for each, at in self._due.items() if at <= began + SAME_MOMENT_SECONDS)
            try:
                await self._work(due)
            except Exception:
                self._log.failure("{work} failed; it runs again at its next time", work=self.name)
            self._plan(due, began)

    def _plan(self, done: Collection[float], began: float) -> None:
        """Set the next times of what was done: the first after now, of which none may have passed meanwhile."""
        now = self._clock.seconds()
        missed = 0
        for interval in done:
            following, self._due[interval] = self._after(began, interval), self._after(now, interval)
            missed += round((self._due[interval] - following) / interval)
        if missed:
            self._tell_skipped(missed)
            self._log.warn(
                "{work} took longer than its interval: {missed} runs are skipped", work=self.name, missed=missed
            )

    def _after(self, moment: float, interval: float) -> float:
        past = math.floor((moment + SAME_MOMENT_SECONDS - self._offset) / interval)
        return (past + 1) * interval + self._offset
