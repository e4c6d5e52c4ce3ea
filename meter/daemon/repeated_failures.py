"""Failures of repeated work in the log: at their start, when they change, and at their end."""

from __future__ import annotations

import re
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from meter.interfaces import Unavailable

_NUMBERS = re.compile(r"\d+")


@dataclass(slots=True)
class _Failing:
    """Work that has failed every time since ``began``."""

    problem: str
    began: float
    times: int = 1


class RepeatedFailures:
    """Logs failures of work that is done again and again, to ``log``.

    The first failure is logged, with its traceback unless a dependency is unavailable, and so is one that differs from the one before it in more than numbers. The
    same failure again is only counted. When the work succeeds again, the count and the duration are logged.
    """

    def __init__(self, log: Logger, clock: IReactorTime) -> None:
        self._log = log
        self._clock = clock
        self._failing: dict[str, _Failing] = {}

    def failed(self, work: str, failure: Failure) -> None:
        """Log or count that ``work`` failed."""
        problem = f"{type(failure.value).__name__}: {_NUMBERS.sub('0', failure.getErrorMessage())}"
        before = self._failing.get(work)
        if before is None:
            self._failing[work] = _Failing(problem, self._clock.seconds())
            self._tell(work, failure, "{work} failed; it is repeated")
            return
        before.times += 1
        if before.problem != problem:
            before.problem = problem
            self._tell(work, failure, "{work} still fails, now for another reason")

    def _tell(self, work: str, failure: Failure, text: str) -> None:
        if failure.check(Unavailable):
            self._log.warn("{work} is not possible now: {reason}", work=work, reason=failure.getErrorMessage())
        else:
            self._log.failure(text, failure, work=work)

    def succeeded(self, work: str) -> None:
        """Log that ``work`` succeeds again, if it failed the last time."""
        if (before := self._failing.pop(work, None)) is not None:
            self._log.info(
                "{work} succeeds again; it failed {times} times in {seconds:.0f} s",
                work=work,
                times=before.times,
                seconds=self._clock.seconds() - before.began,
            )
