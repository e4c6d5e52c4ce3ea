"""The agent: a spool and its outbox, polling cycles, their schedule, and leader election where agents share the work."""

from __future__ import annotations

import random
import socket
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any
from typing import Literal

from twisted.application.service import IService
from twisted.logger import Logger

from meter.agent.clock_runs import ClockRuns
from meter.agent.cycle_reports import AgentIdentity
from meter.agent.cycle_reports import CycleReporter
from meter.agent.cycle_reports import CycleReportService
from meter.agent.destination import decoded
from meter.agent.destination import encoded
from meter.agent.leader import LeaderElection
from meter.agent.outbox import Outbox
from meter.agent.polling import CycleResult
from meter.agent.polling import Polling
from meter.agent.scheduler import AlignedSchedule
from meter.agent.skip_notes import clean_text
from meter.agent.spool import Spool
from meter.cycle_report import InactivePollster
from meter.daemon.heartbeats import free_bytes
from meter.daemon.metrics import PollingMetrics
from meter.daemon.metrics import PublishingMetrics
from meter.daemon.report_metrics import CycleReportMetrics
from meter.daemon.services import StagedService
from meter.daemon.threads import CallThread
from meter.heartbeat import SpoolState
from meter.interfaces import IBus
from meter.interfaces import Unavailable
from meter.openstack import IDependsOnIntervals
from meter.plugins.activation import Activation
from meter.plugins.registry import CENTRAL
from meter.plugins.registry import Decision
from meter.plugins.registry import Kind
from meter.settings import Config
from meter.settings.agent import PollingSection
from meter.skipped_samples import ISkippedSamples
from meter.taps.daemon import Daemon
from meter.taps.parts.process_locks import destination
from meter.taps.parts.process_locks import spool_destination

_log = Logger()


def add_polling(
    daemon: Daemon,
    bus: IBus,
    kinds: Sequence[Kind],
    providers: Mapping[Any, Any] | None = None,
    after_cycle: Callable[[CycleResult], object] = lambda _: None,
    *,
    leader_group: str = "",
    section: Literal["polling", "central"] = "polling",
) -> Outbox:
    """Add the outbox and the polling cycles of the pollsters of ``kinds``; return the outbox.

    Of the agents with the same ``leader_group`` on the bus only the elected leader polls. ``timeout_seconds`` of the
    ``section`` limits one pollster.
    """

    def timeout_seconds(config: Config) -> float:
        return config.central.timeout_seconds if section == "central" else config.polling.timeout_seconds

    settings = daemon.config.polling
    timetable = PollingTimetable(settings)
    thread = CallThread(daemon.reactor, "spool")
    path = daemon.state_dir / f"{daemon.name}.spool"
    spool = Spool(
        path,
        filled_for=spool_destination(daemon, path),
        max_bytes=daemon.config.spool.max_bytes,
        max_age_seconds=daemon.config.spool.max_age_seconds,
        clock=daemon.reactor,
        run=lambda function, *arguments: thread.call(lambda: function(*arguments)),
    )
    publishing = PublishingMetrics(daemon.registry)

    async def set_spool_destination(config: Config) -> None:
        present = destination(config, daemon.keys)
        before = decoded(spool.filled_for)
        if spool.rows and before is not None and before.difference(present):
            _log.warn(
                "the spool holds {messages} messages that are signed with former keys only: collectors must still accept these",
                messages=spool.rows,
            )
        try:
            await spool.set_destination(encoded(present))
        except Unavailable as error:
            _log.warn("the spool cannot store its new destination: {reason}", reason=str(error))

    daemon.key_changes.append(set_spool_destination)
    daemon.spool_state = lambda: SpoolState(
        spool.rows, spool.bytes, daemon.config.spool.max_bytes, spool.oldest_seconds, free_bytes(path.parent)
    )
    publishing.watch_spool(lambda: spool.rows, lambda: spool.bytes, lambda: spool.oldest_seconds)
    report_metrics = CycleReportMetrics(daemon.registry)
    outbox = Outbox(
        spool,
        bus,
        daemon.reactor,
        metrics=publishing,
        report_metrics=report_metrics,
        batch=daemon.config.bus.window,
    )
    daemon.add(outbox)
    metrics = PollingMetrics(daemon.registry)
    reports = _cycle_reporter(daemon, outbox, kinds, report_metrics) if settings.cycle_reports else None
    context = daemon.plugin_context({ISkippedSamples: metrics, IBus: bus, **(providers or {})})
    polling = Polling(
        context,
        outbox.put,
        daemon.keys,
        source=daemon.config.meter.source,
        timeout_seconds=timeout_seconds(daemon.config),
        batch_samples=settings.batch_samples,
        metrics=metrics,
        after_cycle=after_cycle,
        interval_of=timetable.interval_of,
        unit_name=daemon.config.units.name_of,
        reports=reports,
        clock_runs=ClockRuns(daemon.state_dir / f"{daemon.name}.clock", thread.call),
    )

    def begin(active: Sequence[Decision]) -> IService:
        polling.pollsters = tuple(active)

        async def cycle(due: frozenset[float]) -> None:
            await polling.cycle(timetable.due(polling.pollsters, due))

        def skipped(interval: float, cycles: int, first: float, last: float) -> None:
            metrics.cycles_skipped(cycles)
            if reports is not None:
                reports.cycles_skipped(interval, cycles, first, last)

        agent = StagedService(daemon.reactor)
        if reports is not None:
            CycleReportService(reports, has_cycles=bool(active)).setServiceParent(agent)
        handover = None if reports is None else reports.handover
        election = LeaderElection(bus, leader_group, cycle, daemon.reactor, handover=handover) if leader_group else None
        if election:
            election.setServiceParent(agent)
        timetable.schedule = AlignedSchedule(
            run_or_stand_by(election, reports) if election else cycle,
            timetable.intervals(active),
            daemon.reactor,
            name="polling cycle",
            offset_seconds=random.random() * settings.jitter_seconds,
            on_skipped=skipped,
        )
        timetable.schedule.setServiceParent(agent)
        return agent

    def change(active: Sequence[Decision]) -> None:
        polling.pollsters = tuple(active)
        timetable.change(polling.pollsters)

    def change_intervals(config: Config) -> None:
        _check_intervals(daemon, config.polling)
        timetable.settings = config.polling
        timetable.change(polling.pollsters)

    def change_limits(config: Config) -> None:
        polling.set_limits(timeout_seconds=timeout_seconds(config), batch_samples=config.polling.batch_samples)

    daemon.reload.add(["polling.interval_seconds", "polling.intervals"], change_intervals)
    daemon.reload.add([f"{section}.timeout_seconds", "polling.batch_samples"], change_limits)
    candidates = daemon.plugins(*kinds)
    for pattern in settings.intervals:
        if not any(fnmatchcase(each.name, pattern) for each in candidates):
            daemon.warnings.append(f"[polling] intervals: {pattern!r} matches no installed pollster")
    daemon.activate(Activation(candidates, context, begin, name="pollsters", change=change))
    daemon.polling = polling
    return outbox


class PollingTimetable:
    """The intervals of pollsters as ``settings`` have them, which can change, and the schedule that follows them."""

    def __init__(self, settings: PollingSection) -> None:
        self.settings = settings
        self.schedule: AlignedSchedule | None = None

    def interval_of(self, pollster: str) -> float:
        """Return the interval of a pollster in seconds."""
        return self.settings.interval_of(pollster)

    def intervals(self, active: Iterable[Decision]) -> set[float]:
        """Return the intervals of ``active`` pollsters."""
        return {self.interval_of(each.name) for each in active}

    def due(self, active: Iterable[Decision], intervals: frozenset[float]) -> list[Decision]:
        """Return the ``active`` pollsters that have one of ``intervals``."""
        return [each for each in active if self.interval_of(each.name) in intervals]

    def change(self, active: Iterable[Decision]) -> None:
        """Let the schedule follow the present settings and ``active`` pollsters."""
        if self.schedule is not None:
            self.schedule.set_intervals(self.intervals(active))


def _check_intervals(daemon: Daemon, settings: PollingSection) -> None:
    """Raise ``ValueError`` if a pollster cannot have the interval that ``settings`` give it."""
    for each in daemon.plugins(CENTRAL):
        depends = each.state == "pending" and IDependsOnIntervals.providedBy(each.plugin)
        if depends and (conflicts := each.plugin.interval_conflicts(settings.interval_of)):
            raise ValueError("; ".join(f"[pollsters.{each.name}] {text}" for text in conflicts))


def run_or_stand_by(
    election: LeaderElection, reports: CycleReporter | None
) -> Callable[[frozenset[float]], Awaitable[object]]:
    """Return what the schedule calls: the elected agent polls, and reports its cycle; another one reports that it stands by."""

    async def run(due: frozenset[float]) -> None:
        await election.run_if_leader(due)
        if reports is not None and not election.is_leader:
            await reports.tell(standby=True)

    return run


def _cycle_reporter(
    daemon: Daemon, outbox: Outbox, kinds: Sequence[Kind], metrics: CycleReportMetrics
) -> CycleReporter:
    return CycleReporter(
        AgentIdentity(daemon.name, socket.gethostname(), daemon.boot),
        outbox,
        daemon.keys,
        daemon.reactor,
        metrics=metrics,
        inactive=lambda: inactive_pollsters(daemon.decisions(*kinds)),
    )


def inactive_pollsters(decisions: Iterable[Decision]) -> list[InactivePollster]:
    """Return the pollsters that are not active, and those of which a setting disables some meters."""
    found = []
    for each in decisions:
        meters = [] if each.plugin is None else [definition.name for definition in each.plugin.meters]
        if each.state == "active":
            off = tuple(sorted(meter for meter in meters if not each.takes(meter)))
            if off:
                why = f"[plugins] disable has {', '.join(each.meters_off)}"
                found.append(InactivePollster(each.name, True, why, off))
        else:
            reason = clean_text(each.reason)
            found.append(InactivePollster(each.name, each.state == "disabled", reason, tuple(sorted(meters))))
    return found
