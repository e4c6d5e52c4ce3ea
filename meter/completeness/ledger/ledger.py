"""Computes the numbers of expected, received and missing samples of resources, from what a store has about them.

Each combination of resource, meter and project is compared separately: unexpected samples of one do not hide missing samples of another.
Where several agents measured a resource one after the other, the samples of each are expected for its own time only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple

from meter.completeness.ledger.attribution import AttributedCycle
from meter.completeness.ledger.attribution import CycleAttribution
from meter.completeness.ledger.attribution import OtherLoss
from meter.completeness.ledger.attribution import Rejections
from meter.completeness.ledger.attribution import SharedLosses
from meter.completeness.ledger.attribution import attribute_cycles
from meter.completeness.ledger.attribution import other_losses
from meter.completeness.ledger.attribution import surest
from meter.completeness.ledger.attribution import without_stored
from meter.completeness.ledger.cycle_samples import Border
from meter.completeness.ledger.cycle_samples import CycleSamples
from meter.completeness.ledger.drop_times import DropTimes
from meter.completeness.ledger.ledger_source import AgentReports
from meter.completeness.ledger.ledger_source import Finality
from meter.completeness.ledger.ledger_source import MeteredPeriod
from meter.completeness.ledger.ledger_source import RejectedSamples
from meter.completeness.ledger.ledger_source import SampleCounts
from meter.completeness.ledger.ledger_source import TimeBucket
from meter.completeness.ledger.timeline import Due


class SeriesResult(NamedTuple):
    """The samples of one meter of one resource in one bucket, as far as one agent measured them.

    ``attributed`` has the missing samples whose cycle is known, ``others`` the other missing ones.
    """

    agent_id: int
    pollster: str
    resource: str
    project: str
    meter: str
    bucket: int
    expected: int
    received: int
    unexpected: int
    late: int
    attributed: Sequence[AttributedCycle]
    others: Sequence[OtherLoss]


class _Expectation(NamedTuple):
    period: MeteredPeriod
    expected: int


class _Shortage(NamedTuple):
    """What a series lacks in a bucket: ``missing`` samples, although ``unexpected`` ones of unreported cycles are stored."""

    missing: int
    unexpected: int
    late: int
    voided: int
    shared: SharedLosses
    is_stored: Callable[[Due, MeteredPeriod], bool | None]


class Ledger:
    """Compares what was expected with what is stored, in the ``buckets`` of a period, for the resources given one after the other.

    Nothing is expected after ``now``. ``agents`` may grow meanwhile.
    """

    def __init__(
        self,
        buckets: Sequence[TimeBucket],
        agents: Mapping[int, AgentReports],
        rejected: Mapping[tuple[str, str], Sequence[RejectedSamples]],
        finality: Finality,
        now: float,
    ) -> None:
        self._buckets = buckets
        self._agents = agents
        self._rejected = rejected
        self._finality = finality
        self._now = now
        self._samples = CycleSamples(buckets, agents, finality)
        self._drop_times = DropTimes(agents, buckets[0].start, buckets[-1].end)

    def results(self, periods: Sequence[MeteredPeriod], facts: SampleCounts) -> Iterator[SeriesResult]:
        """Yield the results of one resource, whose ``periods`` are given; ``facts`` may have those of others too."""
        series: dict[tuple[str, str], list[MeteredPeriod]] = defaultdict(list)
        for period in consecutive(periods):
            for meter in period.meters:
                series[meter, period.project].append(period)
        attributed: dict[tuple[MeteredPeriod, int], CycleAttribution] = {}
        counts: dict[MeteredPeriod, list[int]] = {}
        rejections: dict[tuple[str, int], Rejections] = {}
        borders: dict[tuple[tuple[int, ...], int], Border] = {}
        for (meter, project), measured in series.items():
            for period in measured:
                if period not in counts:
                    counts[period] = [self._expected(period, bucket) for bucket in self._buckets]
            sums = [sum(each) for each in zip(*(counts[period] for period in measured), strict=True)]
            samples = self._samples.of_series(meter, measured, sums, facts, borders)
            for n in range(len(self._buckets)):
                key = periods[0].resource, meter, project, n
                late = facts.late.get(key, 0)
                expected, received = sums[n], samples.received[n]
                if not expected and not received and not samples.unreported[n]:
                    continue
                expectations = [_Expectation(period, counts[period][n]) for period in measured]
                if received >= expected:
                    surplus = received - expected + samples.unreported[n]
                    yield from self._complete(meter, n, expectations, surplus, late)
                    continue
                if (meter, n) not in rejections:
                    of_series = self._rejected.get((periods[0].resource, meter), ())
                    rejections[meter, n] = Rejections(of_series, self._buckets[n])
                voided = facts.voided.get(key, 0)
                yield from self._incomplete(
                    meter,
                    n,
                    expectations,
                    _Shortage(
                        missing=expected - received,
                        unexpected=samples.unreported[n],
                        late=late,
                        voided=voided,
                        shared=SharedLosses(voided, rejections[meter, n], project),
                        is_stored=samples.is_stored,
                    ),
                    attributed,
                )

    def lack_at_end(self, periods: Sequence[MeteredPeriod], facts: SampleCounts) -> bool:
        """Return whether a resource lacks samples in the last bucket, while its last cycle may have been measured after it."""
        last = len(self._buckets) - 1
        return self._buckets[last].end < self._now and self._lacks(periods, facts, last)

    def _lacks(self, periods: Sequence[MeteredPeriod], facts: SampleCounts, n: int) -> bool:
        expected: dict[tuple[str, str], int] = defaultdict(int)
        for period in consecutive(periods):
            if count := self._expected(period, self._buckets[n]):
                for meter in period.meters:
                    expected[meter, period.project] += count
        return any(
            facts.received.get((periods[0].resource, meter, project, n), 0) < count
            for (meter, project), count in expected.items()
        )

    def unreported(self, periods: Iterable[MeteredPeriod]) -> Iterator[tuple[str, float, float]]:
        """Yield the times of resources in which agents may have measured without a report."""
        for period in periods:
            for each in self._samples.unreported_times(period):
                yield period.resource, each.start, each.end

    def drop_times(self, periods: Sequence[MeteredPeriod], facts: SampleCounts) -> Sequence[tuple[float, float]]:
        """Return about when samples of a resource, which lacks some, may have been dropped."""
        found = self._drop_times.of_resource(periods)
        return found if found and any(self._lacks(periods, facts, n) for n in range(len(self._buckets))) else ()

    def _expected(self, period: MeteredPeriod, bucket: TimeBucket) -> int:
        if period.is_off_schedule:
            return int(bucket.start <= period.since < min(bucket.end, self._now))
        timeline = self._agents[period.agent_id].timelines.get(period.interval)
        if timeline is None:
            return 0
        since, until = timeline.nearest_due(period.since), timeline.nearest_due(period.until)
        return timeline.count(max(since, bucket.start), min(until, bucket.end, self._now))

    def _complete(
        self, meter: str, n: int, expectations: Sequence[_Expectation], surplus: int, late: int
    ) -> Iterator[SeriesResult]:
        last = max((i for i, each in enumerate(expectations) if each.expected), default=len(expectations) - 1)
        for i, (period, expected) in enumerate(expectations):
            unexpected, late_here = (surplus, late) if i == last else (0, 0)
            if expected or unexpected:
                yield SeriesResult(
                    period.agent_id,
                    period.pollster,
                    period.resource,
                    period.project,
                    meter,
                    n,
                    expected,
                    expected,
                    unexpected,
                    late_here,
                    (),
                    (),
                )

    def _incomplete(
        self,
        meter: str,
        n: int,
        expectations: Sequence[_Expectation],
        lack: _Shortage,
        known: dict[tuple[MeteredPeriod, int], CycleAttribution],
    ) -> Iterator[SeriesResult]:
        """Yield the results of a series that lacks samples: those of known cycles, of all agents, are attributed first."""
        bucket = self._buckets[n]
        reasons = []
        for period, _ in expectations:
            found = known.get((period, n))
            if found is None:
                end = min(bucket.end, self._now)
                found = known[period, n] = attribute_cycles(
                    period, self._agents[period.agent_id], bucket.start, end, self._now
                )
            reasons.append(without_stored(found, period, lack.is_stored))
        missing, late, unexpected = lack.missing, lack.late, lack.unexpected
        taken = surest(reasons, missing, lack.voided)
        missing -= sum(map(len, taken))
        dropped = max(0, missing - lack.voided)
        for found, attributed in zip(reasons, taken, strict=True):
            possible = found.possible[:dropped]
            attributed += possible
            attributed.sort(key=lambda each: each.due.at)  # consecutive ones are a gap
            dropped -= len(possible)
            missing -= len(possible)
        for i, (period, expected) in reversed(list(enumerate(expectations))):
            others: list[OtherLoss] = []
            lost = min(missing, expected - len(taken[i]))
            if lost:
                missing -= lost
                others = list(other_losses(lost, meter, reasons[i].unattributed, lack.shared, self._finality))
            if expected:
                yield SeriesResult(
                    period.agent_id,
                    period.pollster,
                    period.resource,
                    period.project,
                    meter,
                    n,
                    expected,
                    expected - len(taken[i]) - lost,
                    unexpected,
                    late,
                    taken[i],
                    others,
                )
                late = unexpected = 0


def consecutive(periods: Sequence[MeteredPeriod]) -> Sequence[MeteredPeriod]:
    """Return the periods of one resource so that no meter of a pollster is measured by two agents at one time.

    The period of an agent that is silent has no end. It is ended where the period of the next agent begins.
    """
    if len(periods) < 2:
        return periods
    by_meter: dict[tuple[str, str], list[MeteredPeriod]] = defaultdict(list)
    between = [period for period in periods if period.is_off_schedule]
    for period in (period for period in periods if not period.is_off_schedule):
        for meter in period.meters:
            by_meter[period.pollster, meter].append(period)
    if all(len(each) == 1 for each in by_meter.values()):
        return periods
    found: dict[MeteredPeriod, list[str]] = defaultdict(list)
    for (_, meter), measured in by_meter.items():
        measured.sort(key=lambda period: (period.since, period.until))
        for period, after in zip(measured, [*measured[1:], None], strict=True):
            until = period.until if after is None else min(period.until, after.since)
            if until > period.since:
                found[period._replace(until=until, meters=())].append(meter)
    return [*(period._replace(meters=tuple(meters)) for period, meters in found.items()), *between]
