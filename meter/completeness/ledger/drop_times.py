"""About when an agent's spool dropped samples of a resource: there the stored samples say which ones.

A report says when the dropped samples were spooled, not of which cycles and pollsters they were. A busy agent spools them late, and
begins cycles earlier or later than at the multiples of their interval from which the ledger computes them.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from itertools import chain

from meter.completeness.ledger.ledger_source import AgentReports
from meter.completeness.ledger.ledger_source import MeteredPeriod

MAX_CYCLES = 100
"""Cycles of a resource whose samples are looked up for one answer, to bound it."""

EDGE_CYCLES = 8
"""If there are more cycles, only the first and the last ones of each time are looked up: those in between are hardly in doubt."""


class DropTimes:
    """The times from ``start`` until before ``end`` in which samples may have been dropped or not. ``agents`` may grow meanwhile."""

    def __init__(self, agents: Mapping[int, AgentReports], start: float, end: float) -> None:
        self._agents = agents
        self._start = start
        self._end = end
        self._of_agents: dict[tuple[int, float], list[tuple[float, float]]] = {}

    def of_resource(self, periods: Sequence[MeteredPeriod]) -> list[tuple[float, float]]:
        """Return them in order, for the ``periods`` of one resource.

        They are half an interval longer on both sides: which cycle a sample belongs to is decided by the nearest one.
        """
        interval = max(period.interval for period in periods)
        most, edge = MAX_CYCLES * interval, EDGE_CYCLES * interval
        # No more are read than are looked up: an agent can report any number.
        times = _together(heapq.merge(*map(self._of_period, periods)))
        whole: list[tuple[float, float]] = []
        total = 0.0
        for begins, ends in times:
            whole.append((begins, ends))
            total += ends - begins
            if total > most:
                break
        else:
            return whole
        found: list[tuple[float, float]] = []
        for begins, ends in chain(whole, times):
            for part in (
                [(begins, begins + edge), (ends - edge, ends)] if ends - begins > 2 * edge else [(begins, ends)]
            ):
                most -= part[1] - part[0]
                if most < 0:
                    return found
                found.append(part)
        return found

    def _of_period(self, period: MeteredPeriod) -> Iterator[tuple[float, float]]:
        if period.is_off_schedule:
            return
        first, last = max(self._start, period.since), min(self._end, period.until)
        half = period.interval / 2
        of_agent = self._of_agent(period.agent_id, period.interval)
        for n in range(bisect_right(of_agent, first, key=lambda each: each[1]), len(of_agent)):
            begins, ends = max(of_agent[n][0], first), min(of_agent[n][1], last)
            if begins >= last:
                return
            if begins < ends:
                yield begins - half, ends + half

    def _of_agent(self, agent_id: int, interval: float) -> list[tuple[float, float]]:
        """Return those of all that an agent measures with an interval: what was dropped has no pollster and no resource."""
        known = self._of_agents.get((agent_id, interval))
        if known is None:
            times = [
                (each.may_begin(interval), each.may_end(interval))
                for each in self._agents[agent_id].exceptions
                if each.is_drop
            ]
            known = self._of_agents[agent_id, interval] = list(_together(sorted(times)))
        return known


def _together(times: Iterable[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Yield ``times``, which are in order, those that touch or overlap as one."""
    begins, ends = 0.0, -1.0
    for first, last in times:
        if first > ends:
            if begins < ends:
                yield begins, ends
            begins, ends = first, last
        ends = max(ends, last)
    if begins < ends:
        yield begins, ends
