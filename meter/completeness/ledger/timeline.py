"""When the polling cycles of an agent with one interval were due, which of them ran, and which were missed.

Times are seconds since 1970. Consecutive cycles follow each other after one interval, except that the first one after a start of the
agent comes at once. So a gap between two runs that is shorter than 1.5 intervals misses no cycle.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from bisect import bisect_right
from collections.abc import Iterable
from collections.abc import Iterator
from itertools import accumulate
from itertools import pairwise
from typing import NamedTuple

from meter.completeness_query import FOLLOWING_INTERVALS

EPSILON = 1e-6
"""Fraction of an interval by which two times can differ that are meant to be equal."""


class CycleRun(NamedTuple):
    """Cycles that followed each other; ``pollsters`` were asked in each. ``stopped``: the agent was stopped in an orderly way after it."""

    first: float
    last: float
    cycles: int
    pollsters: frozenset[str]
    boot: str = ""
    stopped: bool = False


class Due(NamedTuple):
    """A cycle that was due ``at``, and ``until`` when it was the newest. ``run`` is the run that has it, ``None`` if it was missed.

    ``before`` is the last run before a missed cycle, ``after`` the next one, ``None`` while there is none. A measurement between
    cycles has none of them.
    """

    at: float
    until: float
    run: CycleRun | None = None
    before: CycleRun | None = None
    after: CycleRun | None = None


class _Span(NamedTuple):
    """A run, or the cycles missed after it: due at ``base + n * interval`` for ``n`` from 1 to ``cycles``.

    Those of a run follow its first one, which is due at ``first``; it is ``None`` for missed cycles.
    """

    first: float | None
    base: float
    cycles: float
    begins: float
    run: CycleRun
    after: CycleRun | None


class Timeline:
    """The cycles of one agent with one ``interval`` in seconds."""

    def __init__(self, interval: float, runs: Iterable[CycleRun]) -> None:
        self.interval = interval
        self._runs = ordered = sorted(runs)
        self._spans: list[_Span] = []
        latest: CycleRun | None = None
        for run, after in pairwise([*ordered, None]):
            assert run is not None
            base = run.last - (run.cycles - 1) * interval
            self._spans.append(_Span(run.first, base, run.cycles - 1, run.first, run, after))
            # After a clock was set back runs overlap: a cycle was missed only after the end of all of them.
            latest = run if latest is None or run.last >= latest.last else latest
            missed = math.inf if after is None else missed_cycles(after.first - latest.last, interval)
            if missed:
                self._spans.append(_Span(None, latest.last, missed, latest.last + interval * EPSILON, latest, after))
        self._spans.sort(key=lambda span: span.begins)
        self._begins = [span.begins for span in self._spans]
        ends = [span.base + (span.cycles + 1) * interval for span in self._spans]
        self._ends = list(accumulate(ends, max))
        """The latest end of each span and those before it."""
        self._counts: dict[tuple[float, float], int] = {}
        self._nearest: dict[float, float] = {}
        self._around: dict[float, tuple[float, float]] = {}

    @property
    def last(self) -> CycleRun | None:
        """The run that ended last."""
        return max(self._runs, key=lambda run: run.last, default=None)

    def count(self, start: float, end: float) -> int:
        """Return how many cycles were due from ``start`` until before ``end``."""
        if end <= start:
            return 0
        known = self._counts.get((start, end))
        if known is None:
            known = self._counts[start, end] = sum(
                int(self._before(span, end) - self._before(span, start)) for span in self._within(start, end)
            )
        return known

    def nearest_due(self, time: float) -> float:
        """Return when the cycle was due that is nearest to ``time``, which is the time of a cycle; ``time`` if none is near.

        Of a run only the first and the last time are known exactly. A cycle in between began some milliseconds before or after the
        multiple of the interval, and what begins or ends with this cycle must be compared with the same time as the cycle.
        """
        known = self._nearest.get(time)
        if known is None:
            is_known = math.isfinite(time)
            near = [each.at for each in self.dues(time - self.interval, time + self.interval)] if is_known else []
            known = min(near, key=lambda at: abs(at - time), default=time)
            if abs(known - time) > self.interval / 2:
                known = time
            self._nearest[time] = known
        return known

    def around(self, time: float) -> tuple[float, float]:
        """Return when the last cycle before ``time`` was due, and the first one then or later; infinite times where there is none.

        Cycles two intervals away are not looked for.
        """
        known = self._around.get(time)
        if known is None:
            near = [each.at for each in self.dues(time - 2 * self.interval, time + 2 * self.interval)]
            earlier = (each for each in near if each < time)
            later = (each for each in near if each >= time)
            known = self._around[time] = max(earlier, default=-math.inf), min(later, default=math.inf)
        return known

    def pairs(self, start: float, end: float) -> Iterator[tuple[CycleRun, CycleRun]]:
        """Yield pairs of runs that follow each other, of which the first has ended before ``end`` and the other begins after ``start``."""
        for before, after in pairwise(self._runs):
            if before.last < end and after.first > start:
                yield before, after

    def dues(self, start: float, end: float) -> Iterator[Due]:
        """Yield the cycles that were due from ``start`` until before ``end``, in order."""
        for span in self._within(start, end):
            step, missed = self.interval, span.first is None
            for n in range(int(self._before(span, start)), int(self._before(span, end))):
                if missed:
                    at = span.base + (n + 1) * step
                    until = at + step
                    if span.after is not None and n + 1 >= span.cycles:
                        until = span.after.first
                    yield Due(at, until, None, span.run, span.after)
                else:
                    at = span.base + n * step if n else span.run.first
                    yield Due(at, at + step, span.run, span.run)

    def _within(self, start: float, end: float) -> list[_Span]:
        return self._spans[bisect_left(self._ends, start) : bisect_right(self._begins, end)]

    def _before(self, span: _Span, time: float) -> float:
        """Return how many cycles of ``span`` were due before ``time``."""
        later = min(max(math.ceil((time - span.base) / self.interval - EPSILON) - 1, 0), span.cycles)
        return (
            later if span.first is None else later + (time > span.first + self.interval * EPSILON if later == 0 else 1)
        )


def missed_cycles(seconds: float, interval: float) -> int:
    """Return how many cycles were missed between two that were due ``seconds`` apart: none in less than 1.5 intervals."""
    return max(0, math.ceil(seconds / interval - FOLLOWING_INTERVALS - EPSILON))
