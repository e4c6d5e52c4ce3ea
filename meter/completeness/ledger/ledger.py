"""Computes the numbers of expected, received and missing samples of resources, from what a store has about them.

Each combination of resource, meter and project is compared separately: unexpected samples of one do not hide missing samples of another.
Where several agents measured a resource one after the other, the samples of each are expected for its own time only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple

from meter.completeness.ledger.attribution import AttributedCycle
from meter.completeness.ledger.attribution import CycleAttribution
from meter.completeness.ledger.attribution import OtherLoss
from meter.completeness.ledger.attribution import Rejections
from meter.completeness.ledger.attribution import attribute_cycles
from meter.completeness.ledger.attribution import other_losses
from meter.completeness.ledger.attribution import surest
from meter.completeness.ledger.facts import AgentFacts
from meter.completeness.ledger.facts import Finality
from meter.completeness.ledger.facts import MeteredPart
from meter.completeness.ledger.facts import Piece
from meter.completeness.ledger.facts import RejectedSamples
from meter.completeness.ledger.facts import ResourceFacts


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

    def results(self, parts: Sequence[MeteredPart], facts: ResourceFacts) -> Iterator[PartResult]:
        """Yield the results of one resource, whose ``parts`` are given; ``facts`` may have those of others too."""
        series: dict[tuple[str, str], list[MeteredPart]] = defaultdict(list)
        for part in consecutive(parts):
            for meter in part.meters:
                series[meter, part.project].append(part)
        attributed: dict[tuple[MeteredPart, int], CycleAttribution] = {}
        counts: dict[MeteredPart, list[int]] = {}
        for (meter, project), measured in series.items():
            for part in measured:
                if part not in counts:
                    counts[part] = [self._expected(part, piece) for piece in self._pieces]
            for n in range(len(self._pieces)):
                key = parts[0].resource, meter, project, n
                received, late = facts.received.get(key, 0), facts.late.get(key, 0)
                expectations = [_Expectation(part, counts[part][n]) for part in measured]
                expected = sum(each.expected for each in expectations)
                if not expected and not received:
                    continue
                if received >= expected:
                    yield from self._complete(meter, n, expectations, received - expected, late)
                else:
                    yield from self._incomplete(meter, n, expectations, expected - received, late, attributed)

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
        missing: int,
        late: int,
        known: dict[tuple[MeteredPart, int], CycleAttribution],
    ) -> Iterator[PartResult]:
        """Yield the results of a series that lacks ``missing`` samples: those of known cycles, of all agents, are attributed first."""
        piece = self._pieces[n]
        reasons = []
        for part, _ in expectations:
            found = known.get((part, n))
            if found is None:
                end = min(piece.end, self._now)
                found = known[part, n] = attribute_cycles(
                    part, self._agents[part.agent_id], piece.start, end, self._now
                )
            reasons.append(found)
        taken = surest(reasons, missing)
        missing -= sum(map(len, taken))
        for found, attributed in zip(reasons, taken, strict=True):
            possible = found.possible[:missing]
            attributed += possible
            missing -= len(possible)
        rejections = Rejections(self._rejected.get((expectations[0].part.resource, meter), ()), piece)
        for i, (part, expected) in reversed(list(enumerate(expectations))):
            others: list[OtherLoss] = []
            lost = min(missing, expected - len(taken[i]))
            if lost:
                missing -= lost
                others = list(other_losses(lost, meter, reasons[i].unattributed, rejections, self._finality))
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
                    0,
                    late,
                    taken[i],
                    others,
                )
                late = 0


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
