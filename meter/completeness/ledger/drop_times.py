"""About when an agent's spool dropped samples of a resource: there the stored samples say which ones.

A report says when the dropped samples were spooled, not of which cycles and pollsters they were. A busy agent spools them late, and
begins cycles earlier or later than at the multiples of their interval from which the ledger computes them.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

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
        times = list(_together(sorted(self._of_periods(periods))))
        if not times:
            return times
        interval = max(period.interval for period in periods)
        most, edge = MAX_CYCLES * interval, EDGE_CYCLES * interval
        if sum(ends - begins for begins, ends in times) <= most:
            return times
        found: list[tuple[float, float]] = []
        for begins, ends in times:
            for part in (
                [(begins, begins + edge), (ends - edge, ends)] if ends - begins > 2 * edge else [(begins, ends)]
            ):
                most -= part[1] - part[0]
                if most < 0:
                    return found
                found.append(part)
        return found

    def _of_periods(self, periods: Iterable[MeteredPeriod]) -> Iterator[tuple[float, float]]:
        for period in periods:
            if period.is_off_schedule:
                continue
            first, last = max(self._start, period.since), min(self._end, period.until)
            half = period.interval / 2
            for begins, ends in self._of_agent(period.agent_id, period.interval):
                if max(begins, first) < min(ends, last):
                    yield max(begins, first) - half, min(ends, last) + half

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
