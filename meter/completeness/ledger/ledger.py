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
from meter.completeness.ledger.facts import AgentFacts
from meter.completeness.ledger.facts import Finality
from meter.completeness.ledger.facts import MeteredPart
from meter.completeness.ledger.facts import Piece
from meter.completeness.ledger.facts import RejectedSamples
from meter.completeness.ledger.facts import ResourceFacts
from meter.completeness.ledger.timeline import Due


class PartResult(NamedTuple):
    """The samples of one meter of one resource in one piece, as far as one agent measured them.

    ``attributed`` has the missing samples whose cycle is known, ``others`` the other missing ones.
    """

    agent_id: int
    pollster: str
    resource: str
    project: str
    meter: str
    piece: int
    expected: int
    received: int
    unexpected: int
    late: int
    attributed: Sequence[AttributedCycle]
    others: Sequence[OtherLoss]


class _Expectation(NamedTuple):
    part: MeteredPart
    expected: int


class _Shortage(NamedTuple):
    """What a series lacks in a piece: ``missing`` samples, although ``unexpected`` ones of unreported cycles are stored."""

    missing: int
    unexpected: int
    late: int
    voided: int
    shared: SharedLosses
    is_stored: Callable[[Due, float], bool | None]


class Ledger:
    """Compares what was expected with what is stored, in the ``pieces`` of a period, for the resources given one after the other.

    Nothing is expected after ``now``. ``agents`` may grow meanwhile.
    """

    def __init__(
        self,
        pieces: Sequence[Piece],
        agents: Mapping[int, AgentFacts],
        rejected: Mapping[tuple[str, str], Sequence[RejectedSamples]],
        finality: Finality,
        now: float,
    ) -> None:
        self._pieces = pieces
        self._agents = agents
        self._rejected = rejected
        self._finality = finality
        self._now = now
        self._samples = CycleSamples(pieces, agents, finality)

    def results(self, parts: Sequence[MeteredPart], facts: ResourceFacts) -> Iterator[PartResult]:
        """Yield the results of one resource, whose ``parts`` are given; ``facts`` may have those of others too."""
        series: dict[tuple[str, str], list[MeteredPart]] = defaultdict(list)
        for part in consecutive(parts):
            for meter in part.meters:
                series[meter, part.project].append(part)
        attributed: dict[tuple[MeteredPart, int], CycleAttribution] = {}
        counts: dict[MeteredPart, list[int]] = {}
        rejections: dict[tuple[str, int], Rejections] = {}
        borders: dict[tuple[tuple[int, ...], int], Border] = {}
        for (meter, project), measured in series.items():
            for part in measured:
                if part not in counts:
                    counts[part] = [self._expected(part, piece) for piece in self._pieces]
            sums = [sum(each) for each in zip(*(counts[part] for part in measured), strict=True)]
            samples = self._samples.of_series(meter, measured, sums, facts, borders)
            for n in range(len(self._pieces)):
                key = parts[0].resource, meter, project, n
                late = facts.late.get(key, 0)
                expected, received = sums[n], samples.received[n]
                if not expected and not received and not samples.unreported[n]:
                    continue
                expectations = [_Expectation(part, counts[part][n]) for part in measured]
                if received >= expected:
                    surplus = received - expected + samples.unreported[n]
                    yield from self._complete(meter, n, expectations, surplus, late)
                    continue
                if (meter, n) not in rejections:
                    of_series = self._rejected.get((parts[0].resource, meter), ())
                    rejections[meter, n] = Rejections(of_series, self._pieces[n])
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

    def lack_at_end(self, parts: Sequence[MeteredPart], facts: ResourceFacts) -> bool:
        """Return whether a resource lacks samples in the last piece, while its last cycle may have been measured after it."""
        last = len(self._pieces) - 1
        end = self._pieces[last].end
        if end >= self._now:
            return False
        expected: dict[tuple[str, str], int] = defaultdict(int)
        for part in consecutive(parts):
            if count := self._expected(part, self._pieces[last]):
                for meter in part.meters:
                    expected[meter, part.project] += count
        return any(
            facts.received.get((parts[0].resource, meter, project, last), 0) < count
            for (meter, project), count in expected.items()
        )

    def unreported(self, parts: Iterable[MeteredPart]) -> Iterator[tuple[str, float, float]]:
        """Yield the times of resources in which agents may have measured without a report."""
        for part in parts:
            for each in self._samples.unreported_times(part):
                yield part.resource, each.start, each.end

    def _expected(self, part: MeteredPart, piece: Piece) -> int:
        if part.is_off_schedule:
            return int(piece.start <= part.since < min(piece.end, self._now))
        timeline = self._agents[part.agent_id].timelines.get(part.interval)
        if timeline is None:
            return 0
        since, until = timeline.nearest_due(part.since), timeline.nearest_due(part.until)
        return timeline.count(max(since, piece.start), min(until, piece.end, self._now))

    def _complete(
        self, meter: str, n: int, expectations: Sequence[_Expectation], surplus: int, late: int
    ) -> Iterator[PartResult]:
        last = max((i for i, each in enumerate(expectations) if each.expected), default=len(expectations) - 1)
        for i, (part, expected) in enumerate(expectations):
            unexpected, late_here = (surplus, late) if i == last else (0, 0)
            if expected or unexpected:
                yield PartResult(
                    part.agent_id,
                    part.pollster,
                    part.resource,
                    part.project,
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
        known: dict[tuple[MeteredPart, int], CycleAttribution],
    ) -> Iterator[PartResult]:
        """Yield the results of a series that lacks samples: those of known cycles, of all agents, are attributed first."""
        piece = self._pieces[n]
        reasons = []
        for part, _ in expectations:
            found = known.get((part, n))
            if found is None:
                end = min(piece.end, self._now)
                found = known[part, n] = attribute_cycles(
                    part, self._agents[part.agent_id], piece.start, end, self._now
                )
            reasons.append(without_stored(found, part.interval, lack.is_stored))
        missing, late, unexpected = lack.missing, lack.late, lack.unexpected
        taken = surest(reasons, missing, lack.voided)
        missing -= sum(map(len, taken))
        dropped = max(0, missing - lack.voided)
        for found, attributed in zip(reasons, taken, strict=True):
            possible = found.possible[:dropped]
            attributed += possible
            dropped -= len(possible)
            missing -= len(possible)
        for i, (part, expected) in reversed(list(enumerate(expectations))):
            others: list[OtherLoss] = []
            lost = min(missing, expected - len(taken[i]))
            if lost:
                missing -= lost
                others = list(other_losses(lost, meter, reasons[i].unattributed, lack.shared, self._finality))
            if expected:
                yield PartResult(
                    part.agent_id,
                    part.pollster,
                    part.resource,
                    part.project,
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


def consecutive(parts: Sequence[MeteredPart]) -> Sequence[MeteredPart]:
    """Return the parts of one resource so that no meter of a pollster is measured by two agents at one time.

    The part of an agent that is silent has no end. It is ended where the part of the next agent begins.
    """
    if len(parts) < 2:
        return parts
    by_meter: dict[tuple[str, str], list[MeteredPart]] = defaultdict(list)
    between = [part for part in parts if part.is_off_schedule]
    for part in (part for part in parts if not part.is_off_schedule):
        for meter in part.meters:
            by_meter[part.pollster, meter].append(part)
    if all(len(each) == 1 for each in by_meter.values()):
        return parts
    found: dict[MeteredPart, list[str]] = defaultdict(list)
    for (_, meter), measured in by_meter.items():
        measured.sort(key=lambda part: (part.since, part.until))
        for part, after in zip(measured, [*measured[1:], None], strict=True):
            until = part.until if after is None else min(part.until, after.since)
            if until > part.since:
                found[part._replace(until=until, meters=())].append(meter)
    return [*(part._replace(meters=tuple(meters)) for part, meters in found.items()), *between]
