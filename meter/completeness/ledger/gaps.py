"""Gaps: consecutive missing samples with one cause, of one agent and pollster, and of all resources that lack them at the same times."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from meter.completeness.ledger.attribution import AttributedCycle
from meter.completeness.ledger.ledger import SeriesResult
from meter.completeness.ledger.ledger_source import TimeBucket
from meter.completeness.ledger.ledger_source import at
from meter.completeness_query import Gap
from meter.interfaces import RequestError

MAX_LISTED_RESOURCES = 100
"""Resources that a gap lists; it states the number of all."""

MAX_COLLECTED = 200_000
"""Gaps of single resources that are put together; a query with more must be narrower."""

JOINED_SECONDS = 1.0
"""A missing sample that is due at most this long after the end of a gap continues the gap."""


class _GapKey(NamedTuple):
    agent: str
    pollster: str
    cause: str
    reason: str
    exact: bool


@dataclass(slots=True)
class _Lack:
    """Missing samples of one resource in one time; ``lasts``: the agent has reported no later cycle."""

    lasts: bool = False
    samples: int = 0


@dataclass(slots=True)
class _Together:
    resources: set[str] = field(default_factory=set)
    samples: int = 0


class GapCollector:
    """Joins missing samples to gaps, at most ``limit`` of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._found: dict[tuple[_GapKey, str], dict[tuple[float, float], _Lack]] = defaultdict(dict)
        self._collected = 0

    def add(self, result: SeriesResult, agent: str, bucket: TimeBucket) -> None:
        """Add what is missing of one meter of one resource in ``bucket``."""
        for (cause, reason, whole_agent), cycles in groupby(result.attributed, _cause_of):
            key = _GapKey(agent, "" if whole_agent else result.pollster, cause, reason, exact=True)
            start, end, lasts, samples = 0.0, -1.0, False, 0
            for each in cycles:
                if samples and each.due.at > end + JOINED_SECONDS:
                    self._add(key, result.resource, start, end, lasts, samples)
                    samples = 0
                if not samples:
                    start = each.due.at
                end, lasts, samples = each.due.until, _lasts(each), samples + 1
            self._add(key, result.resource, start, end, lasts, samples)
        for loss in result.others:
            key = _GapKey(agent, result.pollster, loss.cause, loss.reason, exact=False)
            self._add(key, result.resource, bucket.start, bucket.end, loss.cause == "not finalized", loss.samples)

    def _add(self, key: _GapKey, resource: str, start: float, end: float, lasts: bool, samples: int) -> None:
        times = self._found[key, resource]
        lack = times.get((start, end))
        if lack is None:
            lack = times[start, end] = _Lack()
            self._collected += 1
            if self._collected > MAX_COLLECTED:
                raise RequestError(
                    "there are too many gaps: narrow the period, or select one project, agent or resource"
                )
        lack.lasts |= lasts
        lack.samples += samples

    def gaps(self, now: float) -> list[Gap]:
        """Return the first gaps by start; one that lasts at ``now`` has no end."""
        together: dict[tuple[float, _GapKey, float], _Together] = defaultdict(_Together)
        for (key, resource), times in self._found.items():
            for start, end, lack in _joined(times):
                lasts = lack.lasts and end >= now
                found = together[start, key, math.inf if lasts else end]
                found.resources.add(resource)
                found.samples += lack.samples
        return [
            Gap(
                start=at(start),
                end=None if end == math.inf else at(end),
                cause=key.cause,
                reason=key.reason,
                agent=key.agent,
                pollster=key.pollster or None,
                resources=tuple(sorted(found.resources)[:MAX_LISTED_RESOURCES]),
                resource_count=len(found.resources),
                samples=found.samples,
                exact=key.exact,
            )
            for (start, key, end), found in sorted(together.items(), key=itemgetter(0))[: self._limit]
        ]


def _joined(times: Mapping[tuple[float, float], _Lack]) -> Iterator[tuple[float, float, _Lack]]:
    """Yield the times in order, those that touch or overlap together."""
    start, end, sum_ = 0.0, -math.inf, _Lack()
    for (first, last), lack in sorted(times.items(), key=itemgetter(0)):
        if first > end + JOINED_SECONDS:
            if sum_.samples:
                yield start, end, sum_
            start, end, sum_ = first, last, _Lack()
        end = max(end, last)
        sum_.lasts |= lack.lasts
        sum_.samples += lack.samples
    if sum_.samples:
        yield start, end, sum_


def _cause_of(each: AttributedCycle) -> tuple[str, str, bool]:
    return each.cause, each.reason, each.whole_agent


def _lasts(each: AttributedCycle) -> bool:
    """Return whether no later cycle of the agent is known."""
    return each.due.before is not None and each.due.run is None and each.due.after is None
