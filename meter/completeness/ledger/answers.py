"""Answers of the completeness ledger: rows of numbers, and gaps, from the facts that a store has.

Resources are read a page at a time, so that memory does not grow with the number of resources, and the work pauses in between.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import AsyncIterator
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from datetime import timedelta
from itertools import groupby
from operator import attrgetter

from meter.completeness.ledger.causes import CAUSES
from meter.completeness.ledger.causes import Cause
from meter.completeness.ledger.gaps import GapCollector
from meter.completeness.ledger.ledger import Ledger
from meter.completeness.ledger.ledger import SeriesResult
from meter.completeness.ledger.ledger_source import DAY_SECONDS
from meter.completeness.ledger.ledger_source import HOUR_SECONDS
from meter.completeness.ledger.ledger_source import AgentReports
from meter.completeness.ledger.ledger_source import ILedgerSource
from meter.completeness.ledger.ledger_source import MeteredPeriod
from meter.completeness.ledger.ledger_source import SampleCounts
from meter.completeness.ledger.ledger_source import TimeBucket
from meter.completeness.ledger.ledger_source import at
from meter.completeness.ledger.ledger_source import by_series
from meter.completeness_query import CompletenessQuery
from meter.completeness_query import CompletenessRow
from meter.interfaces import RequestError

PAGE_RESOURCES = 500
PAGE_BUCKETS = 1_000
"""Resources that are read at a time: at most so many, and so many buckets of all of them, to bound the size of a page."""

RESULTS_PER_STEP = 100
"""Results that are computed before the work may pause."""

MAX_PERIOD_BY_HOUR = timedelta(days=2)
"""The longest period in which gaps without known cycles have the limits of an hour."""

MAX_SUMS = 50_000
"""Buckets and groups of an answer; a query with more must be narrower."""


@dataclass(slots=True)
class Tally:
    """Sums of results."""

    expected: int = 0
    received: int = 0
    unexpected: int = 0
    late: int = 0
    lost: dict[tuple[Cause, str], int] = field(default_factory=dict)
    """Missing samples by cause and reason."""

    def add(self, result: SeriesResult) -> None:
        """Add one result."""
        self.expected += result.expected
        self.received += result.received
        self.unexpected += result.unexpected
        self.late += result.late
        for each in result.attributed:
            self.lose(each.cause, each.reason, 1)
        for other in result.others:
            self.lose(other.cause, other.reason, other.samples)

    def lose(self, cause: Cause, reason: str, samples: int) -> None:
        """Add missing samples."""
        self.lost[cause, reason] = self.lost.get((cause, reason), 0) + samples

    def merge(self, other: Tally) -> None:
        """Add the sums of ``other``."""
        self.expected += other.expected
        self.received += other.received
        self.unexpected += other.unexpected
        self.late += other.late
        for (cause, reason), samples in other.lost.items():
            self.lose(cause, reason, samples)

    def row(self, start: float, end: float, group: str | None) -> CompletenessRow:
        """Return the sums as a row."""
        causes: dict[str, int] = {}
        for cause in CAUSES:
            samples = sum(lost for (each, _), lost in self.lost.items() if each == cause)
            if samples:
                causes[cause] = samples
        skipped = {reason: lost for (cause, reason), lost in sorted(self.lost.items()) if cause == "skipped"}
        return CompletenessRow(
            start=at(start),
            end=at(end),
            group=group,
            expected=self.expected,
            received=self.received,
            unexpected=self.unexpected,
            late=self.late,
            causes=causes,
            skipped=skipped,
        )


def buckets_between(start: float, end: float, seconds: float) -> list[TimeBucket]:
    """Return the hours or days, in UTC, from ``start`` until before ``end``: what of them lies in between."""
    found = []
    while start < end:
        until = min(start - start % seconds + seconds, end)
        found.append(TimeBucket(start, until))
        start = until
    return found


def seconds_of(query: CompletenessQuery) -> float:
    """Return the length of the buckets in which the answer to ``query`` is computed."""
    return HOUR_SECONDS if query.by == "hour" else DAY_SECONDS


def for_gaps(query: CompletenessQuery) -> CompletenessQuery:
    """Return the query whose buckets gaps are looked for in: hours, or days in a long period."""
    return replace(query, by="hour" if query.end - query.start <= MAX_PERIOD_BY_HOUR else "day", group=None)


class LedgerAnswers:
    """Computes answers from ``facts``; ``pause`` is awaited between steps of bounded work."""

    def __init__(self, facts: ILedgerSource, pause: Callable[[], Awaitable[None]]) -> None:
        self._source = facts
        self._pause = pause

    async def results(
        self, query: CompletenessQuery, buckets: Sequence[TimeBucket], now: float
    ) -> AsyncIterator[tuple[SeriesResult, str]]:
        """Yield the results of each series in each of the ``buckets``, with the name of the agent, in order of the resources."""
        start, end = buckets[0].start, buckets[-1].end
        finality = await self._source.finality(start, end, now)
        rejected = by_series(await self._source.rejected(query, start, end))
        agents: dict[int, AgentReports] = {}
        ledger = Ledger(buckets, agents, rejected, finality, now)
        after: str | None = None
        while True:
            limit = max(1, min(PAGE_RESOURCES, PAGE_BUCKETS // len(buckets)))
            periods = await self._source.metered_periods(query, start, end, after, limit)
            if not periods:
                return
            if unknown := {period.agent_id for period in periods} - agents.keys():
                agents.update(await self._source.agents(unknown, start, end))
            facts = await self._sample_counts(query, ledger, periods, buckets)
            for resource, of_resource in groupby(periods, attrgetter("resource")):
                after = resource
                await self._pause()
                for n, result in enumerate(ledger.results(list(of_resource), facts), 1):
                    if not n % RESULTS_PER_STEP:
                        await self._pause()
                    name = agents[result.agent_id].agent_name
                    if (
                        query.agent in (None, name)
                        and query.project_id in (None, result.project)
                        and query.meter in (None, result.meter)
                    ):
                        yield result, name

    async def _sample_counts(
        self, query: CompletenessQuery, ledger: Ledger, periods: Sequence[MeteredPeriod], buckets: Sequence[TimeBucket]
    ) -> SampleCounts:
        """Return what is stored of the resources of ``periods``, also just after the last bucket and after crashes where that matters."""
        facts = await self._source.stored_samples(query, periods, buckets)
        if unreported := sorted(set(ledger.unreported(periods))):
            facts.unreported = await self._source.sample_times(unreported)
        await self._pause()
        by_resource = [(name, list(each)) for name, each in groupby(periods, attrgetter("resource"))]
        dropped = {}
        for n, (name, each) in enumerate(by_resource, 1):
            if found := ledger.drop_times(each, facts):
                dropped[name] = found
            if not n % RESULTS_PER_STEP:
                await self._pause()
        if dropped:
            facts.drop_times = dropped
            facts.near_drops = await self._source.sample_times(
                [(name, start, end) for name, found in dropped.items() for start, end in found]
            )
            await self._pause()
        lacking = [period for _, each in by_resource if ledger.lack_at_end(each, facts) for period in each]
        if lacking:
            end = buckets[-1].end
            after = TimeBucket(end, end + max(period.interval for period in lacking))
            later = await self._source.stored_samples(query, lacking, [after])
            times = {(*key[:3], len(buckets)): at for key, at in later.times.items()}
            facts.times = {**facts.times, **times}
        return facts

    async def tallies(
        self, query: CompletenessQuery, buckets: Sequence[TimeBucket], now: float
    ) -> dict[tuple[int, str | None], Tally]:
        """Return the sums by the index of a bucket and by the group of ``query``."""
        found: dict[tuple[int, str | None], Tally] = defaultdict(Tally)
        async for result, agent in self.results(query, buckets, now):
            group = group_of(query, result, agent)
            if query.has_row_of(group):
                found[result.bucket, group].add(result)
            if len(found) > MAX_SUMS:
                raise RequestError(f"the answer has more than {MAX_SUMS} rows: narrow the period, or what is selected")
        return found

    async def collect_gaps(
        self, query: CompletenessQuery, buckets: Sequence[TimeBucket], now: float, collector: GapCollector
    ) -> None:
        """Add what is missing in the ``buckets`` to ``collector``."""
        async for result, agent in self.results(query, buckets, now):
            collector.add(result, agent, buckets[result.bucket])


def adjacent_buckets(buckets: Sequence[TimeBucket]) -> Iterator[list[TimeBucket]]:
    """Yield ``buckets`` that follow each other without a gap in between, together."""
    together: list[TimeBucket] = []
    for bucket in buckets:
        if together and together[-1].end != bucket.start:
            yield together
            together = []
        together.append(bucket)
    if together:
        yield together


def group_of(query: CompletenessQuery, result: SeriesResult, agent: str) -> str | None:
    """Return the value by which ``query`` groups a result."""
    match query.group:
        case "agent":
            return agent
        case "project_id":
            return result.project
        case "meter":
            return result.meter
        case "resource_id":
            return result.resource
    return None


def rows_of(
    query: CompletenessQuery, tallies: Iterable[tuple[TimeBucket, str | None, Tally]], limit: int
) -> list[CompletenessRow]:
    """Return the rows of the answer: one per bucket and group, or one per group for the whole period."""
    start, end = query.start.timestamp(), query.end.timestamp()
    whole = [TimeBucket(start, end)] if query.by is None else buckets_between(start, end, seconds_of(query))
    # The tallies of the present hour or day end now, and those of an hour are part of a day: their row has its own limits.
    starts = [bucket.start for bucket in whole]
    merged: dict[tuple[TimeBucket, str | None], Tally] = defaultdict(Tally)
    for bucket, group, tally in tallies:
        merged[whole[max(0, bisect_right(starts, bucket.start) - 1)], group].merge(tally)
    if query.group is None:
        for bucket in whole[:limit]:
            merged.setdefault((bucket, None), Tally())
    ordered = sorted(merged.items(), key=lambda item: (item[0][0], item[0][1] or ""))
    return [tally.row(bucket.start, bucket.end, group) for (bucket, group), tally in ordered[:limit]]
