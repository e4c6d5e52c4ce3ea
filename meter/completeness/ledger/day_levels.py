"""Which sums the summary of a day has: for each agent, project or meter, and each pair of these, so that few rows answer a query.

A *level* says by which of these fields the sums of a day are divided: it is a bit set of :data:`AGENT`, :data:`PROJECT` and :data:`METER`. Sums for all three together would be as many as the series.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from meter.completeness.ledger.answers import Tally
from meter.completeness_query import CompletenessQuery

AGENT, PROJECT, METER = 1, 2, 4
ALL_FIELDS = AGENT | PROJECT | METER
DAY_LEVELS = tuple(range(ALL_FIELDS))
HOUR_LEVELS = (0, AGENT, PROJECT, METER)
"""The levels of which days and hours have sums."""


class DaySumKey(NamedTuple):
    """What a sum of a day is for. Fields that are not in ``level`` are 0 or empty."""

    level: int
    agent_id: int
    project: str
    meter: str


class LevelSums:
    """The sums of one level, of tallies by agent, project and meter; level 0 has a sum even where there are none."""

    def __init__(self, level: int) -> None:
        self._level = level
        self.found: dict[DaySumKey, Tally] = defaultdict(Tally)
        if level == 0:
            self.found[DaySumKey(0, 0, "", "")] = Tally()

    def add(self, tallies: Iterable[tuple[tuple[int, str, str], Tally]]) -> None:
        """Add ``tallies`` to the sums."""
        level = self._level
        for (agent_id, project, meter), tally in tallies:
            key = DaySumKey(
                level,
                agent_id if level & AGENT else 0,
                project if level & PROJECT else "",
                meter if level & METER else "",
            )
            self.found[key].merge(tally)


def level_of(query: CompletenessQuery) -> int | None:
    """Return the level of the sums that answer ``query``, ``None`` if none does: :data:`DAY_LEVELS` or :data:`HOUR_LEVELS` have it."""
    if query.resource_id is not None or query.group == "resource_id":
        return None
    level = 0
    for field, filter, group in (
        (AGENT, query.agent, "agent"),
        (PROJECT, query.project_id, "project_id"),
        (METER, query.meter, "meter"),
    ):
        if filter is not None or query.group == group:
            level |= field
    return None if level == ALL_FIELDS else level
