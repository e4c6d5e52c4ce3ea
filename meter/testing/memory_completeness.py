"""The part of the store in memory that keeps what daemons report: the readable reference for the tables of the ledger."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from typing import Any

import msgspec
from twisted.internet.interfaces import IReactorTime

from meter.completeness.ledger.cycle_effects import apply_cycle
from meter.completeness.ledger.cycle_effects import follows_earlier_boot
from meter.completeness.ledger.cycle_effects import follows_predecessors
from meter.completeness.ledger.cycle_effects import give_up_before
from meter.completeness.ledger.cycle_effects import gives_up
from meter.completeness.ledger.cycle_effects import order_of_batch
from meter.completeness.ledger.cycle_effects import outcome_by_number
from meter.completeness.ledger.ledger_changes import AgentState
from meter.completeness.ledger.ledger_changes import BootState
from meter.completeness.ledger.ledger_changes import CycleEffects
from meter.completeness.ledger.ledger_changes import CycleRunRow
from meter.completeness.ledger.ledger_changes import PollingExceptionRow
from meter.completeness.ledger.ledger_changes import SeriesEdit
from meter.completeness.ledger.ledger_changes import Succession
from meter.completeness.ledger.ledger_changes import WaitingReport
from meter.completeness_store import MAX_EARLIER_BOOTS
from meter.completeness_store import MAX_REJECTED_ROWS
from meter.completeness_store import ReceivedCycle
from meter.completeness_store import ReceivedHeartbeat
from meter.completeness_store import RejectedCount
from meter.completeness_store import ReportResult
from meter.completeness_store import StoredAgent
from meter.completeness_store import StoredBoot
from meter.completeness_store import StoredHeartbeat
from meter.completeness_store import WaitingRules
from meter.cycle_report import SeriesGroup
from meter.interfaces import Unavailable
from meter.query import StoredSample

FOREVER = datetime.max.replace(tzinfo=UTC)


@dataclass(slots=True)
class MeteredResourceRow:
    """A row of ``metered_resource``: ``until_due`` is :data:`FOREVER` while it lasts."""

    agent: str
    pollster: str
    interval: float
    resource: str
    project: str
    meters: tuple[str, ...]
    first_due: datetime
    until_due: datetime = FOREVER
    ended: str = ""

    @property
    def series(self) -> tuple[Any, ...]:
        """What is measured."""
        return self.pollster, self.interval, self.resource, self.project, self.meters


@dataclass(frozen=True, slots=True)
class OffScheduleRow:
    """A row of ``off_schedule_poll``."""

    agent: str
    pollster: str
    at: datetime
    resource: str
    project: str
    meters: tuple[str, ...]


@dataclass(slots=True)
class InactiveRow:
    """A row of ``inactive_pollster``: ``until`` is :data:`FOREVER` while it lasts."""

    agent: str
    pollster: str
    disabled: bool
    reason: str
    meters: tuple[str, ...]
    since: datetime
    until: datetime = FOREVER


@dataclass(slots=True)
class _WaitingCycle:
    received: ReceivedCycle
    since: float


@dataclass(slots=True)
class _KnownAgent:
    name: str
    daemon: str
    host: str
    state: AgentState
    boots: dict[uuid.UUID, BootState]
    waiting: dict[uuid.UUID, dict[int, _WaitingCycle]]


class MemoryCompletenessStore:
    """Keeps the rows of the ledger in lists, which are public: tests and the ledger in memory read them."""

    def __init__(self, clock: IReactorTime, waiting_rules: WaitingRules = WaitingRules()) -> None:  # noqa: B008 (frozen)
        self._clock = clock
        self._waiting_rules = waiting_rules
        self._agents: dict[str, _KnownAgent] = {}
        self._effects = CycleEffects()
        self._heartbeats: dict[str, tuple[ReceivedHeartbeat, datetime]] = {}
        self._earlier_boots: dict[str, list[uuid.UUID]] = {}
        self.unavailable: str | None = None
        self.cycle_runs: list[CycleRunRow] = []
        self.metered_resources: list[MeteredResourceRow] = []
        self.polling_exceptions: list[PollingExceptionRow] = []
        self.off_schedule_polls: set[OffScheduleRow] = set()
        self.inactive_pollsters: list[InactiveRow] = []
        self.rejected_samples: dict[tuple[datetime, str, str, str, str], int] = {}
        self.voided_samples: list[StoredSample] = []
        self._rejected_rows: Counter[tuple[datetime, bool]] = Counter()

    @property
    def agent_names(self) -> dict[int, str]:
        """The names of agents by the ids in the rows."""
        return {agent.state.id: agent.name for agent in self._agents.values()}

    @property
    def agent_hosts(self) -> dict[str, str]:
        """The hosts of agents by their names."""
        return {agent.name: agent.host for agent in self._agents.values()}

    def _check(self) -> None:
        if self.unavailable is not None:
            raise Unavailable(self.unavailable)

    # --- cycle reports ---

    async def record_cycle_reports(self, reports: Sequence[ReceivedCycle]) -> Sequence[ReportResult]:
        """Apply each report, in the order of their numbers; see ``ICompletenessStore.record_cycle_reports``."""
        self._check()
        results: list[ReportResult | None] = [None] * len(reports)
        order = order_of_batch(reports)
        for n in order:
            results[n] = self._record(reports[n])
        return [result for result in results if result is not None]

    def _record(self, received: ReceivedCycle) -> ReportResult:
        report = received.report
        agent = self._agents.get(report.agent)
        if agent is None:
            state = AgentState(len(self._agents) + 1, None, None)
            agent = self._agents[report.agent] = _KnownAgent(report.agent, report.daemon, report.host, state, {}, {})
        boot = agent.boots.setdefault(received.boot, BootState(received.boot, received.due, received.due))
        waiting = agent.waiting.setdefault(received.boot, {})
        result = outcome_by_number(received, boot)
        other = waiting.get(report.sequence)
        if other is not None and other.received.mac != received.mac:
            return ReportResult("conflict", f"another report with the number {report.sequence} waits")
        if result.outcome == "late":
            self._apply(received, agent, boot, late=True)
        elif result.outcome == "applied" and not self._follows(received, agent):
            result = ReportResult("waiting", "reports of an earlier boot or leader have not come yet")
        if result.outcome == "applied":
            self._apply(received, agent, boot)
        elif result.outcome == "waiting" and other is not None:
            result = ReportResult("repeated")
        elif result.outcome == "waiting":
            waiting[report.sequence] = _WaitingCycle(received, self._clock.seconds())
        self._drain(agent)
        return result

    def _follows(self, received: ReceivedCycle, agent: _KnownAgent) -> bool:
        confirmed = received.report.confirmed
        boot = agent.boots.get(uuid.UUID(confirmed.boot)) if confirmed is not None else None
        applied = boot.applied if boot is not None else 0
        return follows_earlier_boot(received, applied) and follows_predecessors(received, self._states())

    def _states(self) -> dict[str, AgentState]:
        return {name: agent.state for name, agent in self._agents.items()}

    def _drain(self, agent: _KnownAgent) -> int:
        """Apply what waits no longer, until nothing changes; return how many reports."""
        applied = 0
        while True:
            before = applied
            for boot in agent.boots.values():
                waiting = agent.waiting.get(boot.boot, {})
                while waiting:
                    first = waiting[min(waiting)].received
                    ready = first.report.sequence == boot.applied + 1 and self._follows(first, agent)
                    if first.report.sequence <= boot.applied:
                        del waiting[first.report.sequence]
                        continue
                    if not ready and not gives_up(self._waiting_rules, self._waited(waiting)):
                        break
                    give_up_before(first, agent.state, boot, self._effects)
                    self._apply(first, agent, boot)
                    del waiting[first.report.sequence]
                    applied += 1
            if applied == before:
                return applied

    def _waited(self, waiting: Mapping[int, _WaitingCycle]) -> list[WaitingReport]:
        now = self._clock.seconds()
        return [
            WaitingReport(
                sequence,
                now - each.since,
                len(msgspec.json.encode(each.received.report)),
                each.received.whole,
            )
            for sequence, each in waiting.items()
        ]

    async def apply_waiting_reports(self) -> int:
        """Apply what has waited long enough; see ``ICompletenessStore.apply_waiting_reports``."""
        self._check()
        return sum(self._drain(agent) for agent in self._agents.values())

    def _apply(self, received: ReceivedCycle, agent: _KnownAgent, boot: BootState, *, late: bool = False) -> None:
        apply_cycle(received, self._states(), boot, self._effects, late=late)
        name, effects = agent.name, self._effects
        for run in effects.changed_runs.values():
            if not any(run is each for each in self.cycle_runs):
                self.cycle_runs.append(run)
        for exception in effects.changed_exceptions.values():
            if not any(exception is each for each in self.polling_exceptions):
                self.polling_exceptions.append(exception)
        for edits in effects.series:
            for edit in edits:
                self._edit(edit, name)
        for off in effects.off_schedule:
            for resource, project, meters in _listed(off.series):
                self.off_schedule_polls.add(OffScheduleRow(name, off.pollster, off.at, resource, project, meters))
        for inactive in effects.inactive:
            given = {each.pollster: each for each in inactive.pollsters}
            for row in self.inactive_pollsters:
                if row.agent == name and row.until == FOREVER:
                    now = given.get(row.pollster)
                    if now and (now.disabled, now.reason, now.meters) == (row.disabled, row.reason, row.meters):
                        del given[row.pollster]
                    else:
                        row.until = inactive.at
            self.inactive_pollsters += [
                InactiveRow(name, each.pollster, each.disabled, each.reason, each.meters, inactive.at)
                for each in given.values()
            ]
        self._effects = CycleEffects(effects.runs, effects.exceptions)

    def _edit(self, edit: SeriesEdit, name: str) -> None:
        listed = {(edit.pollster, edit.interval, *series) for series in _listed(edit.series)}
        removed = {series: group.reason for group in edit.removed for series in _listed([group])}
        if edit.succeeds is not None:
            self._succeed(edit, edit.succeeds)
        for row in self.metered_resources:
            if row.agent != name or row.until_due != FOREVER or edit.pollster not in ("", row.pollster):
                continue
            ended = (
                row.series not in listed and edit.covers(row.resource)
                if edit.complete
                else (row.resource, row.project, row.meters) in removed and row.series not in listed
            )
            if ended:
                row.until_due = edit.at
                row.ended = removed.get((row.resource, row.project, row.meters), "")
            else:
                listed.discard(row.series)
        for pollster, interval, resource, project, meters in sorted(listed):
            row = MeteredResourceRow(name, pollster, interval, resource, project, meters, edit.at)
            self.metered_resources.append(row)

    def _succeed(self, edit: SeriesEdit, succession: Succession) -> None:
        name, listed = self.agent_names[succession.agent_id], {resource for resource, _, _ in _listed(edit.series)}
        for row in self.metered_resources:
            if (
                (row.agent, row.pollster, row.until_due) == (name, edit.pollster, FOREVER)
                and edit.covers(row.resource)
                and row.first_due < succession.at
            ):
                row.until_due = succession.at
                row.ended = "gone" if succession.gone and row.resource not in listed else ""

    async def agents(self, names: Collection[str] | None = None) -> Sequence[StoredAgent]:
        """Return agents by name; see ``ICompletenessStore.agents``."""
        self._check()
        return [
            StoredAgent(
                name=agent.name,
                daemon=agent.daemon,
                host=agent.host,
                last_due=agent.state.last_due,
                newest_boot=agent.state.newest_boot,
                boots=tuple(
                    StoredBoot(
                        boot.boot,
                        boot.first_due,
                        boot.last_due,
                        boot.applied,
                        boot.stopped,
                        tuple(boot.missing),
                        len(agent.waiting.get(boot.boot, {})),
                    )
                    for boot in sorted(agent.boots.values(), key=lambda boot: (boot.first_due, boot.boot))
                ),
            )
            for name, agent in sorted(self._agents.items())
            if names is None or name in names
        ]

    # --- heartbeats, rejected samples ---

    async def record_heartbeats(self, heartbeats: Sequence[ReceivedHeartbeat]) -> Sequence[ReportResult]:
        """Keep the last heartbeat of each daemon; see ``ICompletenessStore.record_heartbeats``."""
        self._check()
        return [self._beat(each) for each in heartbeats]

    def _beat(self, received: ReceivedHeartbeat) -> ReportResult:
        name = received.heartbeat.name
        earlier = self._earlier_boots.setdefault(name, [])
        if received.boot in earlier:
            return ReportResult("repeated", "a newer process of the daemon has reported")
        if (last := self._heartbeats.get(name)) is not None:
            before = last[0]
            if before.boot != received.boot:
                earlier.insert(0, before.boot)
                del earlier[MAX_EARLIER_BOOTS:]
            elif received.heartbeat.sequence <= before.heartbeat.sequence:
                return ReportResult("repeated", "a newer heartbeat is stored")
        self._heartbeats[name] = received, datetime.fromtimestamp(self._clock.seconds(), UTC)
        return ReportResult("applied")

    async def heartbeats(self) -> Sequence[StoredHeartbeat]:
        """Return the last heartbeat of each daemon; see ``ICompletenessStore.heartbeats``."""
        self._check()
        return [
            StoredHeartbeat(received.heartbeat, received.clock, at)
            for _, (received, at) in sorted(self._heartbeats.items())
        ]

    async def record_rejected_samples(self, counts: Sequence[RejectedCount]) -> None:
        """Add to the numbers of dead-lettered samples; see ``ICompletenessStore.record_rejected_samples``."""
        self._check()
        for count in counts:
            key = count.start, count.meter, count.resource, count.project, count.kind
            if key not in self.rejected_samples:
                claimed = count.kind == "unverified"
                self._rejected_rows[count.start, claimed] += 1
                if self._rejected_rows[count.start, claimed] > MAX_REJECTED_ROWS:
                    key = count.start, "", "", "", count.kind
            self.rejected_samples[key] = self.rejected_samples.get(key, 0) + count.samples


def _listed(groups: Sequence[SeriesGroup]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    for group in groups:
        for resource in group.resources:
            yield resource, group.project or "", group.meters
