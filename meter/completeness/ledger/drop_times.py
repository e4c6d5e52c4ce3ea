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


def drop_times(
    periods: Sequence[MeteredPeriod], agents: Mapping[int, AgentReports], start: float, end: float
) -> list[tuple[float, float]]:
    """Return the times, in order, from ``start`` until before ``end``, in which samples of one resource may have been dropped or not.

    They are half an interval longer on both sides: which cycle a sample belongs to is decided by the nearest one.
    """
    times = list(_together(sorted(_around_drops(periods, agents, start, end))))
    interval = max((period.interval for period in periods), default=0.0)
    most, edge = MAX_CYCLES * interval, EDGE_CYCLES * interval
    if sum(ends - begins for begins, ends in times) <= most:
        return times
    found: list[tuple[float, float]] = []
    for begins, ends in times:
        for part in [(begins, begins + edge), (ends - edge, ends)] if ends - begins > 2 * edge else [(begins, ends)]:
            most -= part[1] - part[0]
            if most < 0:
                return found
            found.append(part)
    return found


def _around_drops(
    periods: Iterable[MeteredPeriod], agents: Mapping[int, AgentReports], start: float, end: float
) -> Iterator[tuple[float, float]]:
    for period in periods:
        if period.is_off_schedule:
            continue
        first, last = max(start, period.since), min(end, period.until)
        half = period.interval / 2
        for each in agents[period.agent_id].exceptions:
            if not each.is_drop or not each.concerns(period):
                continue
            begins, ends = max(each.may_begin(period.interval), first), min(each.may_end(period.interval), last)
            if begins < ends:
                yield begins - half, ends + half


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
