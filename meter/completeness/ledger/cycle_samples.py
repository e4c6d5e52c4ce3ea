"""Which cycle a stored sample belongs to, where the number of samples in an hour or day does not say it.

A cycle that begins just before the end of an hour measures just after it: its samples have times of the next hour. An agent that was
killed between the samples and the report of a cycle, or whose report was lost, leaves samples of a cycle that nobody reported.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple

from meter.completeness.ledger.ledger_source import AgentReports
from meter.completeness.ledger.ledger_source import Finality
from meter.completeness.ledger.ledger_source import MeteredPeriod
from meter.completeness.ledger.ledger_source import SampleCounts
from meter.completeness.ledger.ledger_source import TimeBucket
from meter.completeness.ledger.timeline import Due
from meter.completeness.ledger.timeline import Timeline
from meter.completeness_query import FOLLOWING_INTERVALS

SAME_SECONDS = 0.001
"""Times that differ by less are equal: they were rounded to microseconds, and are seconds since 1970 in floating point."""

EARLY_SECONDS = 1.0
"""How long before the computed time of its cycle a sample may have been measured."""


class Border(NamedTuple):
    """The cycles next to the beginning of a bucket: the last one before it and the first one in it, of whichever agent.

    ``interval`` is that of the last one before. Where there is none, the times are infinite.
    """

    before: float = -math.inf
    after: float = math.inf
    interval: float = 0.0

    def belongs_before(self, first: float, *, is_surplus: bool) -> bool:
        """Return whether the first sample of the bucket, at ``first``, is of the cycle before its beginning.

        A poll may last nearly as long as its interval. ``is_surplus``: the bucket has more samples than cycles.
        """
        since_cycle, until_cycle = first - self.before, self.after - first
        return until_cycle > SAME_SECONDS and since_cycle < self.interval and (is_surplus or since_cycle < until_cycle)

    def belongs_after(self, last: float) -> bool:
        """Return whether the last sample before the bucket, at ``last``, is of the first cycle in it: that is computed, not exact."""
        return self.after - last < EARLY_SECONDS and last - self.before > self.interval / 2


def border(periods: Sequence[MeteredPeriod], agents: Mapping[int, AgentReports], at: float) -> Border:
    """Return the cycles next to ``at`` of the ``periods`` of a series."""
    before, after, interval = -math.inf, math.inf, 0.0
    for period in periods:
        if period.is_off_schedule:
            if period.since >= at:
                after = min(after, period.since)
            continue
        timeline = agents[period.agent_id].timelines.get(period.interval)
        if timeline is None:
            continue
        since, until = timeline.nearest_due(period.since), timeline.nearest_due(period.until)
        earlier, later = timeline.around(at)
        if since <= earlier < until and earlier > before:
            before, interval = earlier, period.interval
        later = max(later, since)
        if later < until:
            after = min(after, later)
    return Border(before, after, interval)


class UnreportedTime(NamedTuple):
    """The time from a reported cycle, which has a sample, until the next one that was reported."""

    start: float
    end: float

    def samples(self, times: Sequence[float]) -> Sequence[float]:
        """Return those of ``times``, the samples of a series in order, that are of a cycle that was not reported."""
        return [each for each in times if self.start - SAME_SECONDS <= each < self.end - SAME_SECONDS][1:]


def unreported_times(timeline: Timeline, bucket: TimeBucket) -> Iterator[UnreportedTime]:
    """Yield the times, in ``bucket``, in which an agent may have measured without a report: it was killed, or reports were lost."""
    for before, after in timeline.pairs(bucket.start, bucket.end):
        is_missed = after.first - before.last >= FOLLOWING_INTERVALS * timeline.interval
        if not before.stopped and (before.boot != after.boot or is_missed):
            yield UnreportedTime(before.last, after.first)


class SeriesSamples(NamedTuple):
    """The stored samples of a series, by bucket: those of cycles that are expected, and those of cycles that were not reported.

    ``is_stored`` tells of a cycle that may not have been reported, or whose samples may have been dropped, whether its sample is
    stored; ``None`` if that is not known.
    """

    received: Sequence[int]
    unreported: Sequence[int]
    is_stored: Callable[[Due, MeteredPeriod], bool | None]


class CycleSamples:
    """Counts samples by the ``buckets`` in which their cycles were due. ``agents`` may grow meanwhile."""

    def __init__(self, buckets: Sequence[TimeBucket], agents: Mapping[int, AgentReports], finality: Finality) -> None:
        self._buckets = buckets
        self._agents = agents
        self._finality = finality
        self._whole = TimeBucket(buckets[0].start, buckets[-1].end)
        self._unreported: dict[tuple[int, float], list[UnreportedTime]] = {}

    def unreported_times(self, period: MeteredPeriod) -> Iterator[UnreportedTime]:
        """Yield the times in which the agent of ``period`` may have measured without a report, while it was measured."""
        times = self._unreported.get((period.agent_id, period.interval))
        if times is None:
            timeline = self._agents[period.agent_id].timelines.get(period.interval)
            times = [] if timeline is None else list(unreported_times(timeline, self._whole))
            self._unreported[period.agent_id, period.interval] = times
        for each in times:
            if period.since - SAME_SECONDS <= each.start < period.until:
                yield each

    def of_series(
        self,
        meter: str,
        measured: Sequence[MeteredPeriod],
        expected: Sequence[int],
        facts: SampleCounts,
        borders: dict[tuple[tuple[int, ...], int], Border],
    ) -> SeriesSamples:
        """Return the samples of a series by the buckets of their cycles; ``expected`` are their numbers.

        ``borders`` keeps those of the buckets for the series of one resource, most of which have the same periods.
        """
        resource, project = measured[0].resource, measured[0].project
        buckets = len(self._buckets)
        received = [facts.received.get((resource, meter, project, n), 0) for n in range(buckets)]
        surplus = [count - each for count, each in zip(received, expected, strict=True)]
        stored = () if facts.unreported is None else facts.unreported.get((resource, meter, project), ())
        unreported = [0] * buckets
        of_unreported: list[float] = []
        if stored:
            between = {period.since for period in measured if period.is_off_schedule}
            scheduled = [at for at in stored if at not in between]
            for period in measured:
                for time in self.unreported_times(period):
                    of_unreported += time.samples(scheduled)
            for at in set(of_unreported):
                # Where cycles count as missed, it is a sample of one of them; otherwise nothing is expected for it.
                if not any(self._is_missed(period, at) for period in measured):
                    n = self._bucket_of(at)
                    if n is not None and received[n]:
                        received[n] -= 1
                        surplus[n] -= 1
                        unreported[n] += 1
        same_periods = tuple(map(id, measured))

        def border_of(n: int) -> Border:
            found = borders.get((same_periods, n))
            if found is None:
                start = self._buckets[n].start if n < buckets else self._buckets[-1].end
                found = borders[same_periods, n] = border(measured, self._agents, start)
            return found

        for n in range(buckets + 1):
            times = facts.times.get((resource, meter, project, n))
            is_surplus = n < buckets and surplus[n] > 0
            if times and (n == buckets or received[n]) and border_of(n).belongs_before(times[0], is_surplus=is_surplus):
                _move(received, surplus, n, n - 1)
                continue
            if 0 < n < buckets and surplus[n - 1] > 0 > surplus[n]:
                ended = facts.times.get((resource, meter, project, n - 1))
                if ended is not None and border_of(n).belongs_after(ended[1]):
                    _move(received, surplus, n - 1, n)

        near_drops = facts.near_drops.get((resource, meter, project), ())

        def is_stored(due: Due, period: MeteredPeriod) -> bool | None:
            half = period.interval / 2
            if due.run is not None:
                if not any(
                    begins + half <= due.at <= ends - half for begins, ends in facts.drop_times.get(resource, ())
                ):
                    return None
                if any(abs(at - due.at) < half and self._is_of(due, period, at) for at in near_drops):
                    return True
                return None if self._finality.has_no_samples(meter, due.at) else False
            if any(abs(at - due.at) < half for at in of_unreported):
                return True
            return None if facts.unreported is None or self._finality.has_no_samples(meter, due.at) else False

        return SeriesSamples(received, unreported, is_stored)

    def _is_of(self, due: Due, period: MeteredPeriod, at: float) -> bool:
        """Return whether ``due`` is the cycle nearest to a sample: the first one after a start may be just before the next one."""
        timeline = self._agents[period.agent_id].timelines.get(period.interval)
        return timeline is None or timeline.nearest_due(at) == due.at

    def _bucket_of(self, at: float) -> int | None:
        return next((n for n, bucket in enumerate(self._buckets) if bucket.start <= at < bucket.end), None)

    def _is_missed(self, period: MeteredPeriod, at: float) -> bool:
        """Return whether a cycle of ``period`` that was not reported was due near ``at``."""
        timeline = self._agents[period.agent_id].timelines.get(period.interval)
        if timeline is None or period.is_off_schedule:
            return False
        half = period.interval / 2
        return any(due.run is None for due in timeline.dues(at - half, at + half))


def _move(received: list[int], surplus: list[int], source: int, target: int) -> None:
    """Count one sample in another bucket, or in none if the period has no such bucket."""
    for n, change in ((source, -1), (target, 1)):
        if 0 <= n < len(received):
            received[n] += change
            surplus[n] += change
