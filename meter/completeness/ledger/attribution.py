"""Attributes each missing sample of a resource and meter to one cause.

The cause is what the agent reported about the cycle of the sample. If it reported nothing, the cause is that an administrator has
voided samples, that the collector rejected them, that the retention deleted them, or that the hour is not final; otherwise it is *unknown*.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import NamedTuple

from meter.completeness.ledger.causes import STILL_RUNNING
from meter.completeness.ledger.causes import Cause
from meter.completeness.ledger.ledger_source import HOUR_SECONDS
from meter.completeness.ledger.ledger_source import AgentReports
from meter.completeness.ledger.ledger_source import Finality
from meter.completeness.ledger.ledger_source import InactivePollsterTime
from meter.completeness.ledger.ledger_source import MeteredPeriod
from meter.completeness.ledger.ledger_source import PollingException
from meter.completeness.ledger.ledger_source import RejectedSamples
from meter.completeness.ledger.ledger_source import TimeBucket
from meter.completeness.ledger.timeline import EPSILON
from meter.completeness.ledger.timeline import CycleRun
from meter.completeness.ledger.timeline import Due
from meter.completeness.ledger.timeline import Timeline
from meter.completeness_query import FOLLOWING_INTERVALS
from meter.completeness_query import NO_PROJECT
from meter.completeness_query import SILENT_INTERVALS

NO_SAMPLE, NOT_OF_RESOURCE, NOT_OF_SOME = range(3)
"""How much a cause explains of a cycle: no sample was made, some of a resource were not, or some of any resources were not."""


class AttributedCycle(NamedTuple):
    """A cycle whose sample is missing for a known cause; ``whole_agent``: no pollster of the agent has one.

    ``interrupted``: the agent may have been killed in this cycle, between its samples and its report; the samples may be stored.
    ``dropped``: samples were dropped that were spooled about that time; ``if_known``: the cause is this only if it is known that the
    sample is not stored. ``doubt``: whether the cycle may have a sample of a meter all the same, one of the constants above.
    """

    due: Due
    cause: Cause
    reason: str
    whole_agent: bool = False
    interrupted: bool = False
    doubt: int = NO_SAMPLE
    dropped: bool = False
    if_known: bool = False

    @property
    def is_missed(self) -> bool:
        """Whether no report has the cycle."""
        return self.due.run is None and self.due.before is not None


class CycleAttribution(NamedTuple):
    """The cycles of a period in a bucket that lack samples, of all its meters or of some, and those that should have all.

    ``possible`` has the causes of cycles in ``unattributed`` whose samples may have been dropped: they apply if samples are missing.
    """

    attributed: Sequence[AttributedCycle]
    possible: Sequence[AttributedCycle]
    unattributed: Sequence[Due]


def surest(attributions: Sequence[CycleAttribution], missing: int, voided: int = 0) -> list[list[AttributedCycle]]:
    """Return, for each of the periods of a series, the attributed cycles of up to ``missing`` samples: those without doubt first.

    What an agent skipped is stated without the meters, and sometimes without the resources: it must not take the place of a
    cycle that did not run, of whichever period, nor that of a sample that was stored and is ``voided``.
    """
    cycles = [(i, each) for i, found in enumerate(attributions) for each in found.attributed]
    cycles.sort(key=lambda cycle: (cycle[1].doubt, cycle[1].interrupted))
    certain = sum(each.doubt == NO_SAMPLE and not each.interrupted for _, each in cycles)
    chosen = cycles[: max(min(certain, missing), missing - voided)]
    return [
        sorted((each for n, each in chosen if n == i), key=lambda each: each.due.at) for i in range(len(attributions))
    ]


def without_stored(
    found: CycleAttribution, period: MeteredPeriod, is_stored: Callable[[Due, MeteredPeriod], bool | None]
) -> CycleAttribution:
    """Return ``found`` without the missed cycles, and those of dropped samples, whose samples are stored.

    Those that are not stored are missing: among them those whose samples may have been dropped.
    """
    if not found.possible and not any(each.is_missed or each.dropped for each in found.attributed):
        return found
    attributed = []
    for each in found.attributed:
        stored = is_stored(each.due, period) if each.is_missed or each.dropped else None
        if not stored:
            attributed.append(each if stored is None else each._replace(interrupted=False))
    possible = []
    for each in found.possible:
        stored = is_stored(each.due, period)
        if stored is None and not each.if_known:
            possible.append(each)
        elif stored is False:
            attributed.append(each)
    return found._replace(attributed=sorted(attributed, key=lambda each: each.due.at), possible=possible)


def attribute_cycles(
    period: MeteredPeriod, facts: AgentReports, start: float, end: float, now: float
) -> CycleAttribution:
    """Return which cycles from ``start`` until before ``end`` lack samples, and why; the others should have all."""
    attributed: list[AttributedCycle] = []
    possible: list[AttributedCycle] = []
    unattributed: list[Due] = []
    timeline = facts.timelines.get(period.interval)
    exceptions = [
        _on_timeline(each, period, timeline)
        for each in facts.exceptions
        if each.start <= end + period.interval and each.end >= start - period.interval
    ]
    inactive = [each for each in facts.inactive if each.pollster == period.pollster and each.start < end]
    for due in _dues(period, facts, start, end):
        found = _attributed(period, due, exceptions, inactive, now)
        if found is not None:
            attributed.append(found)
            continue
        unattributed.append(due)
        possible += [
            AttributedCycle(
                due,
                each.cause,
                each.reason,
                each.pollster == "",
                doubt=_doubt(each),
                dropped=True,
                if_known=due.at >= each.end,
            )
            for each in exceptions
            if each.may_cover(period, due.at)
        ][:1]
    return CycleAttribution(attributed, possible, unattributed)


def _dues(period: MeteredPeriod, facts: AgentReports, start: float, end: float) -> Iterable[Due]:
    if period.is_off_schedule:
        return [Due(period.since, period.since)] if start <= period.since < end else ()
    timeline = facts.timelines.get(period.interval)
    if timeline is None:
        return ()
    return timeline.dues(max(start, timeline.nearest_due(period.since)), min(end, timeline.nearest_due(period.until)))


def _on_timeline(exception: PollingException, period: MeteredPeriod, timeline: Timeline | None) -> PollingException:
    """Return what is said of polls with the times that the timeline has of their cycles.

    It begins with one cycle and ends one interval after another, at times that may be some milliseconds off those of the timeline,
    and at more if the agent had much to do.
    """
    if timeline is None or period.is_off_schedule or not exception.pollster or exception.interval != period.interval:
        return exception
    first, last = timeline.nearest_due(exception.start), timeline.nearest_due(exception.end - period.interval)
    return exception._replace(start=first, end=max(first, last) + period.interval * EPSILON)


def _attributed(
    period: MeteredPeriod,
    due: Due,
    exceptions: Iterable[PollingException],
    inactive: Iterable[InactivePollsterTime],
    now: float,
) -> AttributedCycle | None:
    is_missed = due.before is not None and due.run is None
    covering = [
        AttributedCycle(
            due,
            each.cause,
            each.reason,
            each.pollster == "",
            doubt=NO_SAMPLE if is_missed else _doubt(each),
            dropped=each.is_drop,
        )
        for each in exceptions
        # What is said of a poll is about a cycle that ran, although its time may reach into one that did not. What is said of a
        # skipped cycle is about one that did not run: the first cycle after a start comes at once, and may take its place.
        if (each.may_concern_missed_cycles if is_missed else not each.is_skipped_cycle) and each.covers(period, due.at)
    ]
    for off in inactive:
        if off.start <= due.at < off.end:
            covering.append(AttributedCycle(due, "pollster off", off.reason))
    if covering:
        return min(covering, key=lambda each: each.doubt)
    if is_missed:
        assert due.before is not None
        if due.after is None and due.at + SILENT_INTERVALS * period.interval > now:
            return AttributedCycle(due, "not finalized", "the report of the cycle may still arrive", whole_agent=True)
        interrupted = (
            due.at < due.before.last + FOLLOWING_INTERVALS * period.interval
            and not due.before.stopped
            and (due.after is None or due.after.boot != due.before.boot)
        )
        return AttributedCycle(due, "agent not running", _absence(due.before, due.after), True, interrupted)
    return None


def _doubt(exception: PollingException) -> int:
    if exception.cause == "poll failed" or exception.reason == STILL_RUNNING:
        return NO_SAMPLE
    return NOT_OF_SOME if exception.pollster and not exception.resource else NOT_OF_RESOURCE


def _absence(before: CycleRun, after: CycleRun | None) -> str:
    if before.stopped and (after is None or after.boot != before.boot):
        return "the agent was stopped"
    if after is None:
        return "no report of the agent has arrived since"
    if after.boot != before.boot:
        return "the agent was not stopped in an orderly way, and started again"
    return "no report of the cycle has arrived, while the process of the agent went on"


class OtherLoss(NamedTuple):
    """``samples`` of a bucket that are missing for a cause that no cycle explains."""

    cause: Cause
    reason: str
    samples: int


class Rejections:
    """The rejected samples of a resource and meter in a bucket: agents that measured it one after the other share them, and its projects.

    Each is of the project that its message stated. One that stated none may be of any.
    """

    def __init__(self, rejected: Iterable[RejectedSamples], bucket: TimeBucket) -> None:
        self._left: dict[str, list[tuple[str, int]]] = {}
        for each in rejected:
            if bucket.start - HOUR_SECONDS < each.start < bucket.end:
                self._left.setdefault(each.project, []).append((each.kind, each.samples))

    def take(self, count: int, project: str) -> Iterator[OtherLoss]:
        """Yield up to ``count`` of those of ``project``, which are not yielded again."""
        for stated in dict.fromkeys((project, NO_PROJECT)):
            left = self._left.pop(stated, [])
            for n, (kind, samples) in enumerate(left):
                taken = min(count, samples)
                count -= taken
                left[n] = kind, samples - taken
                if taken:
                    yield OtherLoss("rejected", kind, taken)
            self._left[stated] = [each for each in left if each[1]]


class SharedLosses:
    """Samples of a series in a bucket that are known not to be stored, without their cycles: ``voided`` ones and rejected ones."""

    def __init__(self, voided: int, rejections: Rejections, project: str) -> None:
        self._voided = voided
        self._rejections = rejections
        self._project = project

    def take(self, count: int) -> Iterator[OtherLoss]:
        """Yield up to ``count`` of them, which are not yielded again."""
        if voided := min(count, self._voided):
            self._voided -= voided
            yield OtherLoss("voided", "", voided)
        yield from self._rejections.take(count - voided, self._project)


def other_losses(
    count: int, meter: str, unattributed: Sequence[Due], shared: SharedLosses, finality: Finality
) -> Iterator[OtherLoss]:
    """Yield the causes of ``count`` missing samples whose cycles, among ``unattributed``, took place as far as the agent knows."""
    for loss in shared.take(count):
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
