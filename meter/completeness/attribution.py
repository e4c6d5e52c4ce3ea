"""Why the samples of one resource and meter are missing: each missing sample gets one cause.

What an agent stated about a cycle explains the sample of that cycle. What no cycle explains is explained by the
collector's rejections, by the retention, or by an hour that is not final; the rest is *unknown*, which is never counted as 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import NamedTuple

from meter.completeness.causes import Cause
from meter.completeness.facts import HOUR_SECONDS
from meter.completeness.facts import AgentFacts
from meter.completeness.facts import Finality
from meter.completeness.facts import InactivePollsterTime
from meter.completeness.facts import MeteredPart
from meter.completeness.facts import Piece
from meter.completeness.facts import PollingException
from meter.completeness.facts import RejectedSamples
from meter.completeness.timeline import CycleRun
from meter.completeness.timeline import Due
from meter.completeness_query import SILENT_INTERVALS


class AttributedCycle(NamedTuple):
    """A cycle whose sample is missing for a known cause; ``whole_agent``: no pollster of the agent has one.

    ``interrupted``: the agent may have been killed in this cycle, between its samples and its report; the samples may be stored.
    """

    due: Due
    cause: Cause
    reason: str
    whole_agent: bool = False
    interrupted: bool = False


class CycleAttribution(NamedTuple):
    """The cycles of a part in a piece that cannot have a sample, and those that should have one.

    ``possible`` explains some of the latter, if their samples are missing.
    """

    attributed: Sequence[AttributedCycle]
    possible: Sequence[AttributedCycle]
    unattributed: Sequence[Due]


def attribute_cycles(part: MeteredPart, facts: AgentFacts, start: float, end: float, now: float) -> CycleAttribution:
    """Return which cycles from ``start`` until before ``end`` cannot have a sample, and why; the others should have one."""
    attributed: list[AttributedCycle] = []
    possible: list[AttributedCycle] = []
    unattributed: list[Due] = []
    exceptions = [each for each in facts.exceptions if each.start <= end + part.interval and each.end >= start]
    inactive = [each for each in facts.inactive if each.pollster == part.pollster and each.start < end]
    for due in _dues(part, facts, start, end):
        found = _attributed(part, due, exceptions, inactive, now)
        if found is not None:
            attributed.append(found)
            continue
        unattributed.append(due)
        possible += [
            AttributedCycle(due, each.cause, each.reason, each.pollster == "")
            for each in exceptions
            if each.may_cover(part, due.at)
        ][:1]
    return CycleAttribution(attributed, possible, unattributed)


def _dues(part: MeteredPart, facts: AgentFacts, start: float, end: float) -> Iterable[Due]:
    if part.is_off_schedule:
        return [Due(part.since, part.since)] if start <= part.since < end else ()
    timeline = facts.timelines.get(part.interval)
    if timeline is None:
        return ()
    return timeline.dues(max(start, timeline.nearest_due(part.since)), min(end, timeline.nearest_due(part.until)))


def _attributed(
    part: MeteredPart,
    due: Due,
    exceptions: Iterable[PollingException],
    inactive: Iterable[InactivePollsterTime],
    now: float,
) -> AttributedCycle | None:
    for exception in exceptions:
        if due.run is not None and exception.is_skipped_cycle:
            continue  # the first cycle after a start comes at once, and may take the place of the one that it makes skip
        if exception.covers(part, due.at):
            return AttributedCycle(due, exception.cause, exception.reason, exception.pollster == "")
    for each in inactive:
        if each.start <= due.at < each.end:
            return AttributedCycle(due, "pollster off", each.reason)
    if due.before is not None and due.run is None:
        if due.after is None and due.at + SILENT_INTERVALS * part.interval > now:
            return AttributedCycle(due, "not finalized", "the report of the cycle may still arrive", whole_agent=True)
        interrupted = (
            due.at < due.before.last + 1.5 * part.interval
            and not due.before.stopped
            and (due.after is None or due.after.boot != due.before.boot)
        )
        return AttributedCycle(due, "agent not running", _absence(due.before, due.after), True, interrupted)
    return None


def _absence(before: CycleRun, after: CycleRun | None) -> str:
    if before.stopped and (after is None or after.boot != before.boot):
        return "the agent was stopped"
    if after is None:
        return "no report of the agent has arrived since"
    if after.boot != before.boot:
        return "the agent was not stopped in an orderly way, and started again"
    return "no report of the cycle has arrived, while the process of the agent went on"


def most_certain(attributed: Sequence[AttributedCycle], count: int) -> list[AttributedCycle]:
    """Return ``count`` of the cycles, in their order: a cycle that was interrupted only if there are no others."""
    if count >= len(attributed):
        return list(attributed)
    order = sorted(range(len(attributed)), key=lambda n: (attributed[n].interrupted, n))
    return [attributed[n] for n in sorted(order[: max(0, count)])]


class OtherLoss(NamedTuple):
    """``samples`` of a piece that are missing for a cause that no cycle explains."""

    cause: Cause
    reason: str
    samples: int


class Rejections:
    """The rejected samples of a resource and meter in a piece, which agents that measured it one after the other share."""

    def __init__(self, rejected: Iterable[RejectedSamples], piece: Piece) -> None:
        self._left = [
            (each.kind, each.samples) for each in rejected if piece.start - HOUR_SECONDS < each.start < piece.end
        ]

    def take(self, count: int) -> Iterator[OtherLoss]:
        """Yield up to ``count`` of them, which are not yielded again."""
        left, self._left = self._left, []
        for kind, samples in left:
            taken = min(count, samples)
            count -= taken
            if taken:
                yield OtherLoss("rejected", kind, taken)
            if samples > taken:
                self._left.append((kind, samples - taken))


def other_losses(
    count: int, meter: str, unattributed: Sequence[Due], rejections: Rejections, finality: Finality
) -> Iterator[OtherLoss]:
    """Yield the causes of ``count`` missing samples whose cycles, among ``unattributed``, took place as far as the agent knows."""
    for loss in rejections.take(count):
        count -= loss.samples
        yield loss
    expired = min(count, sum(finality.is_expired(meter, due.at) for due in unattributed))
    if expired:
        count -= expired
        yield OtherLoss("expired", "", expired)
    pending = min(count, sum(finality.is_open(due.at) for due in unattributed))
    if pending:
        count -= pending
        yield OtherLoss("not finalized", "", pending)
    if count:
        yield OtherLoss("unknown", "", count)
