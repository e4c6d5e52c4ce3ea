"""Makes the cycle reports of an agent (:mod:`meter.cycle_report`) and puts them into its spool.

A report gets its number when it is written to disk. A report that cannot be written waits in memory, and the next ones
behind it: a full disk causes no gap in the numbers. When too many wait the oldest is given up, and the next report says so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from datetime import UTC
from datetime import datetime
from typing import NamedTuple
from typing import Protocol

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from meter.agent.listing_handover import ListingHandover
from meter.agent.measured_series import Changes
from meter.agent.measured_series import KnownSeries
from meter.agent.measured_series import MeasuredSeries
from meter.agent.measured_series import decoded_groups
from meter.agent.measured_series import encoded_groups
from meter.agent.measured_series import listed_parts
from meter.agent.measured_series import parts_of
from meter.agent.skip_notes import SkipNotes
from meter.agent.skip_notes import clean_text
from meter.agent.spooled_reports import ReportState
from meter.agent.spooled_reports import ReportToSpool
from meter.ceilometer_signature import BadSignature
from meter.cycle_report import REPORTS_LOST
from meter.cycle_report import WHOLE_SECONDS
from meter.cycle_report import ConfirmedReport
from meter.cycle_report import CycleReport
from meter.cycle_report import DroppedSamples
from meter.cycle_report import InactivePollster
from meter.cycle_report import OffSchedulePoll
from meter.cycle_report import PollOutcome
from meter.cycle_report import PollReport
from meter.cycle_report import SeriesGroup
from meter.cycle_report import SkippedCycles
from meter.cycle_report import SkipReport
from meter.daemon.heartbeats import report_key
from meter.daemon.locks import Lock
from meter.daemon.report_metrics import CycleReportMetrics
from meter.daemon.services import wall_seconds
from meter.interfaces import Publication
from meter.interfaces import Unavailable
from meter.report import report_publication
from meter.sample import utc_text
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey

MAX_WAITING = 50
"""Reports that wait in memory because they cannot be written."""

MAX_OFF_SCHEDULE = 1000
"""Polls between two cycles that one report names; more of them are in the reports that follow at once."""

PART_BYTES = 1024 * 1024
"""About how many bytes of polls one report has at most; the others are in the reports that follow at once."""

MAX_SKIPPED = 2000
"""Skipped resources in one part of such a report."""

MAX_LOSSES = 100


class ReportSpool(Protocol):
    """What a :class:`CycleReporter` needs of :class:`meter.agent.outbox.Outbox`."""

    def put_report(self, report: ReportToSpool) -> Awaitable[bool]:
        """Write a report to disk; return whether all earlier ones were kept."""

    def report_state(self) -> Awaitable[ReportState]:
        """Return what is known of earlier reports."""


class AgentIdentity(NamedTuple):
    """An agent: its daemon, its host, and the life of its process, a UUID."""

    daemon: str
    host: str
    boot: str


@dataclass(slots=True)
class PollRecord:
    """One poll, while it runs: what :class:`meter.agent.polling.Polling` tells of it. ``samples`` are those on disk."""

    pollster: str
    interval_seconds: float | None
    outcome: PollOutcome = "ok"
    error: str = ""
    asked: bool = True
    samples: int = 0
    seconds: float = 0.0
    measured: MeasuredSeries = field(default_factory=MeasuredSeries)


class _UnwrittenReport(NamedTuple):
    """A report that is not on disk yet, without its number, and the changed series, as JSON, by pollster."""

    report: CycleReport
    series: Mapping[str, bytes]


class CycleReporter:
    """Makes the reports of one agent.

    ``inactive`` returns the pollsters that are not active. ``keys`` sign the reports. ``metrics`` counts them. :attr:`handover` has
    the lists of earlier leaders, if the agent takes part in an election.
    """

    _log = Logger()

    def __init__(
        self,
        agent: AgentIdentity,
        spool: ReportSpool,
        keys: Keyring,
        clock: IReactorTime,
        *,
        metrics: CycleReportMetrics,
        inactive: Callable[[], Sequence[InactivePollster]] = lambda: (),
    ) -> None:
        self._agent = agent
        self.handover = ListingHandover(f"{agent.daemon}@{agent.host}")
        self._spool = spool
        self._keys = keys
        self._clock = clock
        self._metrics = metrics
        self._inactive = inactive
        self._sequence = 0
        self._confirmed: ConfirmedReport | None = None
        self._state: ReportState | None = None
        self._series: dict[str, KnownSeries] = {}
        self._whole_at: dict[str, float] = {}
        self._waiting: deque[_UnwrittenReport] = deque()
        self._off_schedule: list[OffSchedulePoll] = []
        self._skipped_cycles: list[SkippedCycles] = []
        self._losses: dict[str, DroppedSamples] = {}
        self._is_delayed = False
        self._lock = Lock()

    # --- what happened

    def lost(self, samples: int, first: datetime, last: datetime, reason: str) -> None:
        """Take samples that could not be written to disk or signed; the times are those of the samples."""
        reason = clean_text(reason)
        if reason not in self._losses and len(self._losses) >= MAX_LOSSES:
            reason = "various reasons"
        before = self._losses.get(reason, DroppedSamples(0, utc_text(first), utc_text(last), reason))
        self._losses[reason] = DroppedSamples(
            before.samples + samples, min(before.first, utc_text(first)), max(before.last, utc_text(last)), reason
        )

    def cycles_skipped(self, interval_seconds: float, cycles: int, first: float, last: float) -> None:
        """Take cycles that were not run; the times are the first and the last due time, in seconds since 1970."""
        self._skipped_cycles.append(SkippedCycles(interval_seconds, cycles, _text(first), _text(last)))

    def polled_off_schedule(self, polls: Sequence[PollRecord]) -> None:
        """Take polls between two cycles."""
        for poll in polls:
            for at, groups in poll.measured.groups_by_time().items():
                self._off_schedule.append(OffSchedulePoll(poll.pollster, utc_text(at), groups))

    async def cycle_ended(self, due: datetime, polls: Sequence[PollRecord], notes: SkipNotes) -> None:
        """Spool the report of a cycle, whose samples are on disk; ``due`` is its time."""
        async with self._lock:
            state = await self._restored()
            reports, series = [], {}
            for poll in polls:
                report, changed = await self._poll_report(poll, notes, state)
                reports.append(report)
                if changed is not None:
                    series[poll.pollster] = changed
                for at, groups in poll.measured.repeated_groups().items():
                    self._off_schedule.append(OffSchedulePoll(poll.pollster, utc_text(at), groups))
            await self._spool_parts(self._report(utc_text(due), polls=tuple(reports)), series)
            if not self._waiting:
                for each in reports:
                    if each.outcome == "ok" and (each.whole or self.handover.predecessor(each.pollster) is None):
                        self.handover.listed(each.pollster, utc_text(due))

    async def tell(self, *, standby: bool = False, stopping: bool = False) -> None:
        """Spool a report without polls: that this agent stands by, that it stops, or that it runs and has no pollsters."""
        async with self._lock:
            await self._restored()
            if standby:  # the leader measures these series; this agent begins anew when it becomes the leader
                self._series.clear()
                self._whole_at.clear()
                self._state = ReportState()
            now = _text(wall_seconds(self._clock))
            await self._spool_parts(self._report(now, standby=standby, stopping=stopping), {})

    # --- the report

    async def _restored(self) -> ReportState:
        if self._state is None:
            try:
                state = await self._spool.report_state()
            except Unavailable as error:
                self._log.warn("the state of earlier cycle reports cannot be read: {error}", error=error)
                return ReportState()
            self._state = state
            self._confirmed = state.confirmed
        return self._state

    async def _poll_report(
        self, poll: PollRecord, notes: SkipNotes, state: ReportState
    ) -> tuple[PollReport, bytes | None]:
        """Return the report of a poll, and all its series, as JSON, if they have changed."""
        name, said = poll.pollster, notes.of(poll.pollster)
        known = self._series.get(name)
        if known is None:
            stored = state.series.get(name)
            known = self._series[name] = KnownSeries(None if stored is None else decoded_groups(stored))
        successful = poll.outcome in ("ok", "not stored")  # what the pollster measures is known in both cases
        changes: Changes = await known.update(poll.measured, said.missing, self._clock, successful=successful)
        now = self._clock.seconds()
        predecessor = self.handover.predecessor(name)
        whole_is_due = now - self._whole_at.get(name, -WHOLE_SECONDS) >= WHOLE_SECONDS or predecessor is not None
        whole = poll.outcome == "ok" and known.known and whole_is_due
        every: tuple[SeriesGroup, ...] = known.groups() if whole or changes.any else ()
        if whole:
            self._whole_at[name] = now
        return PollReport(
            pollster=name,
            interval_seconds=poll.interval_seconds or 0.0,
            outcome=poll.outcome,
            samples=poll.samples,
            seconds=round(poll.seconds, 6),
            error=clean_text(poll.error),
            asked=poll.asked,
            whole=whole,
            series=every if whole else changes.added,
            removed=changes.removed,
            skipped=said.skip_reports(changes),
            succeeds=predecessor if whole else None,
        ), encoded_groups(every) if whole or changes.any else None

    def _report(
        self, due: str, *, polls: tuple[PollReport, ...] = (), standby: bool = False, stopping: bool = False
    ) -> CycleReport:
        """Return a report with everything that happened since the one before, and without a number."""
        first = not self._sequence and not self._waiting
        off_schedule, self._off_schedule = tuple(self._off_schedule), []
        skipped, self._skipped_cycles = tuple(self._skipped_cycles), []
        return CycleReport(
            agent=f"{self._agent.daemon}@{self._agent.host}",
            daemon=self._agent.daemon,
            host=self._agent.host,
            boot=self._agent.boot,
            sequence=0,
            due=due,
            polls=polls,
            off_schedule=off_schedule,
            skipped_cycles=skipped,
            inactive=tuple(self._inactive()) if first or any(poll.whole for poll in polls) else (),
            stopping=stopping,
            standby=standby,
        )

    # --- writing

    async def _spool_parts(self, report: CycleReport, series: Mapping[str, bytes]) -> None:
        for part in _parts(report):
            self._waiting.append(_UnwrittenReport(part, series))
            series = {}
        while self._waiting:
            losses, self._losses = self._losses, {}
            try:
                now = datetime.fromtimestamp(wall_seconds(self._clock), UTC)
                numbered = self._numbered(
                    self._waiting[0], tuple(losses.values()), report_key(self._keys, now, self._waiting[0].report.agent)
                )
            except BadSignature as error:
                self._losses = losses | self._losses
                self._delay(str(error))
                return
            try:
                kept = await self._spool.put_report(numbered)
            except Unavailable as error:
                self._losses = losses | self._losses
                self._delay(str(error))
                return
            except Exception as error:
                self._log.failure("a cycle report cannot be made")
                self._losses = losses | self._losses
                self._abandon(f"they cannot be made: {type(error).__name__}")
                continue
            self._waiting.popleft()
            self._sequence += 1
            self._metrics.spooled()
            if not kept:
                self._whole_at.clear()
        if self._is_delayed:
            self._log.info("cycle reports are written to disk again")
        self._is_delayed = False

    def _numbered(self, waiting: _UnwrittenReport, losses: Sequence[DroppedSamples], key: SigningKey) -> ReportToSpool:
        sequence = self._sequence + 1
        earlier = self._confirmed
        confirmed = earlier if sequence == 1 and earlier is not None and earlier.boot != self._agent.boot else None

        def publication(dropped: Sequence[DroppedSamples]) -> Publication:
            report = msgspec.structs.replace(
                waiting.report, sequence=sequence, dropped=(*dropped, *losses), confirmed=confirmed
            )
            return report_publication("cycle", report, key)

        return ReportToSpool(self._agent.boot, sequence, publication, waiting.series, waiting.report.standby)

    def _delay(self, reason: str) -> None:
        """Keep the reports that wait in memory; give up the oldest if there are too many."""
        self._metrics.delayed()
        if not self._is_delayed:
            self._log.error("cycle reports cannot be written and wait in memory: {reason}", reason=reason)
        self._is_delayed = True
        while len(self._waiting) > MAX_WAITING:
            self._abandon(reason)

    def _abandon(self, reason: str) -> None:
        """Give up the oldest report that waits; the next one says so, and lists all series."""
        due = datetime.fromisoformat(self._waiting.popleft().report.due).replace(tzinfo=UTC)
        self.lost(0, due, due, f"{REPORTS_LOST}: {reason}")
        self._whole_at.clear()


class CycleReportService(Service):
    """Reports that the agent stops, and at the start that it runs if it has no pollster and therefore no cycles."""

    _log = Logger()

    def __init__(self, reports: CycleReporter, *, has_cycles: bool) -> None:
        self.setName("cycle reports")
        self._reports = reports
        self._has_cycles = has_cycles

    def startService(self) -> None:
        """Report that the agent runs, if no cycle will; return at once."""
        super().startService()
        if not self._has_cycles:
            Deferred.fromCoroutine(self._reports.tell()).addErrback(self._failed)

    def stopService(self) -> Deferred[None]:
        """Fire when the last report is on disk."""
        super().stopService()
        return Deferred.fromCoroutine(self._reports.tell(stopping=True)).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        self._log.failure("a cycle report could not be made", failure)


def _parts(report: CycleReport) -> Iterator[CycleReport]:
    """Yield ``report``, or several with the same due time if it has very many series or polls between cycles."""
    if len(report.off_schedule) <= MAX_OFF_SCHEDULE and len(msgspec.json.encode(report.polls)) <= PART_BYTES:
        yield report
        return
    polls: list[PollReport] = []
    continued: list[PollReport] = []
    room = PART_BYTES
    for poll in report.polls:
        size = len(msgspec.json.encode(poll))
        room -= size
        if room >= 0:
            polls.append(poll)
            continue
        room += size
        polls.append(msgspec.structs.replace(poll, whole=False, series=(), removed=(), skipped=(), succeeds=None))
        more = PollReport(poll.pollster, poll.interval_seconds, poll.outcome, 0, 0.0, continued=True)
        if poll.removed:
            continued += [msgspec.structs.replace(more, removed=part) for part in parts_of(poll.removed, PART_BYTES)]
        if poll.whole:
            continued += [
                msgspec.structs.replace(more, series=part, listed_from=begin, listed_before=end, succeeds=poll.succeeds)
                for begin, end, part in listed_parts(poll.series, PART_BYTES)
            ]
        elif poll.series:
            continued += [msgspec.structs.replace(more, series=part) for part in parts_of(poll.series, PART_BYTES)]
        continued += [msgspec.structs.replace(more, skipped=(part,)) for part in _skip_parts(poll)]
    yield msgspec.structs.replace(report, polls=tuple(polls), off_schedule=report.off_schedule[:MAX_OFF_SCHEDULE])
    bare = CycleReport(report.agent, report.daemon, report.host, report.boot, 0, report.due)
    for part in continued:
        yield msgspec.structs.replace(bare, polls=(part,))
    for begin in range(MAX_OFF_SCHEDULE, len(report.off_schedule), MAX_OFF_SCHEDULE):
        yield msgspec.structs.replace(bare, off_schedule=report.off_schedule[begin : begin + MAX_OFF_SCHEDULE])


def _skip_parts(poll: PollReport) -> Iterator[SkipReport]:
    for skip in poll.skipped:
        for begin in range(0, max(1, len(skip.resources)), MAX_SKIPPED):
            some = skip.resources[begin : begin + MAX_SKIPPED]
            yield SkipReport(skip.reason, 0 if begin else skip.samples, some)


def _text(seconds: float) -> str:
    return utc_text(datetime.fromtimestamp(seconds, UTC))
