"""Rows of the completeness ledger for tests: written into the store in memory, or into the tables in PostgreSQL."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from datetime import UTC
from datetime import datetime
from typing import Any

from meter.completeness.ledger.ledger_changes import AgentState
from meter.completeness.ledger.ledger_changes import BootState
from meter.completeness.ledger.ledger_changes import CycleRunRow
from meter.completeness.ledger.ledger_changes import PollingExceptionRow
from meter.completeness.ledger.ledger_source import InactivePollsterTime
from meter.completeness.ledger.ledger_source import MeteredPeriod
from meter.completeness.ledger.ledger_source import PollingException
from meter.completeness.ledger.ledger_source import RejectedSamples
from meter.completeness.ledger.timeline import CycleRun
from meter.testing import MemoryStore
from meter.testing.memory_completeness import FOREVER as NO_END
from meter.testing.memory_completeness import InactiveRow
from meter.testing.memory_completeness import MeteredResourceRow
from meter.testing.memory_completeness import OffScheduleRow
from meter.testing.memory_completeness import _KnownAgent
from tests.store_messages import NOON

TABLES = (
    "agent",
    "agent_boot",
    "waiting_report",
    "cycle_run",
    "meter_list",
    "metered_resource",
    "polling_exception",
    "off_schedule_poll",
    "inactive_pollster",
    "late_sample",
    "rejected_sample",
    "completeness_day",
    "completeness_day_loss",
    "completeness_hour",
    "completeness_hour_loss",
    "completeness_change",
)
BOOT = str(uuid.UUID(int=1))
FOREVER = float("inf")
INTERVAL = 300.0


def seconds(after_noon: float) -> float:
    return NOON.timestamp() + after_noon


@dataclass(slots=True)
class ReportedAgent:
    """What an agent reported. ``runs`` are by interval; the last boot ``stopped`` in an orderly way, or not."""

    name: str
    daemon: str
    host: str
    runs: dict[float, list[CycleRun]] = field(default_factory=dict)
    exceptions: list[PollingException] = field(default_factory=list)
    inactive: list[InactivePollsterTime] = field(default_factory=list)
    stopped: bool = False


class LedgerRows:
    """What agents reported; times are seconds after noon. ``polled`` is the pollster of all periods."""

    def __init__(self) -> None:
        self.agents: dict[int, ReportedAgent] = {}
        self.periods: list[MeteredPeriod] = []
        self.rejections: list[RejectedSamples] = []

    def agent(self, host: str = "hv1", *, daemon: str = "meter-compute", stopped: bool = False) -> int:
        id_ = len(self.agents) + 1
        self.agents[id_] = ReportedAgent(f"{daemon}@{host}", daemon, host, stopped=stopped)
        return id_

    def run(
        self,
        agent: int,
        first: float,
        last: float,
        *,
        interval: float = INTERVAL,
        pollsters: Sequence[str] = ("cpu",),
        boot: str = BOOT,
        stopped: bool = False,
        cycles: int | None = None,
    ) -> None:
        run = CycleRun(
            seconds(first),
            seconds(last),
            round((last - first) / interval) + 1 if cycles is None else cycles,
            frozenset(pollsters),
            boot,
            stopped,
        )
        self.agents[agent].runs.setdefault(interval, []).append(run)

    def metered(
        self,
        agent: int,
        resource: str = "r1",
        since: float = 0,
        until: float = FOREVER,
        *,
        project: str = "p1",
        meters: Sequence[str] = ("cpu",),
        pollster: str = "cpu",
        interval: float = INTERVAL,
    ) -> None:
        period = MeteredPeriod(
            agent, pollster, interval, resource, project, tuple(meters), seconds(since), seconds(until)
        )
        self.periods.append(period)

    def off_schedule(self, agent: int, at: float, resource: str = "r1", *, project: str = "p1") -> None:
        self.periods.append(MeteredPeriod(agent, "cpu", 0.0, resource, project, ("cpu",), seconds(at), seconds(at)))

    def exception(
        self,
        agent: int,
        cause: Any,
        since: float,
        until: float,
        *,
        reason: str = "why",
        pollster: str = "cpu",
        resource: str = "",
        interval: float = INTERVAL,
    ) -> None:
        self.agents[agent].exceptions.append(
            PollingException(pollster, interval, resource, cause, reason, seconds(since), seconds(until))
        )

    def inactive(self, agent: int, since: float, until: float = FOREVER, *, reason: str = "[plugins] disable") -> None:
        self.agents[agent].inactive.append(InactivePollsterTime("cpu", reason, seconds(since), seconds(until)))

    def rejected(
        self, hour: float, samples: int, *, resource: str = "r1", project: str = "p1", kind: str = "bad_signature"
    ) -> None:
        self.rejections.append(RejectedSamples(seconds(hour), "cpu", resource, project, kind, samples))

    def into_memory(self, store: MemoryStore) -> None:
        for id_, agent in self.agents.items():
            boots = {}
            for interval, runs in agent.runs.items():
                for sequence, run in enumerate(runs, 1):
                    boot = uuid.UUID(run.boot)
                    first, last = moment(run.first), moment(run.last)
                    state = boots.setdefault(boot, BootState(boot, first, last, applied=1))
                    state.first_due, state.last_due = min(state.first_due, first), max(state.last_due, last)
                    state.stopped |= run.stopped
                    store.cycle_runs.append(
                        CycleRunRow(
                            id_, boot, interval, sequence, first, last, run.cycles, tuple(sorted(run.pollsters))
                        )
                    )
            newest = max(boots.values(), key=lambda state: state.last_due)
            newest.stopped |= agent.stopped
            state = AgentState(id_, newest.boot, newest.last_due)
            store._agents[agent.name] = _KnownAgent(agent.name, agent.daemon, agent.host, state, boots, {})
            store.polling_exceptions += [
                PollingExceptionRow(
                    id_, e.pollster, e.interval, e.resource, e.cause, e.reason, moment(e.start), moment(e.end)
                )
                for e in agent.exceptions
            ]
            store.inactive_pollsters += [
                InactiveRow(agent.name, e.pollster, True, e.reason, (), moment(e.start), moment(e.end))
                for e in agent.inactive
            ]
        for period in self.periods:
            name = self.agents[period.agent_id].name
            if period.is_off_schedule:
                at = moment(period.since)
                store.off_schedule_polls.add(
                    OffScheduleRow(name, period.pollster, at, period.resource, period.project, period.meters)
                )
            else:
                store.metered_resources.append(
                    MeteredResourceRow(
                        name,
                        period.pollster,
                        period.interval,
                        period.resource,
                        period.project,
                        period.meters,
                        moment(period.since),
                        moment(period.until),
                    )
                )
        for each in self.rejections:
            key = moment(each.start), each.meter, each.resource, each.project, each.kind
            store.rejected_samples[key] = each.samples

    def into_postgresql(self, server: Any, dsn: str) -> None:
        for statement in self.statements():
            server.execute(statement, dsn)

    def statements(self) -> Sequence[str]:
        statements = []
        for id_, agent in self.agents.items():
            statements.append(
                "INSERT INTO agent (id, name, daemon, host) OVERRIDING SYSTEM VALUE"
                f" VALUES ({id_}, {text(agent.name)}, {text(agent.daemon)}, {text(agent.host)})"
            )
            boots: dict[str, list[CycleRun]] = {}
            for run in (run for of_interval in agent.runs.values() for run in of_interval):
                boots.setdefault(run.boot, []).append(run)
            last = max(runs[-1].last for runs in boots.values())
            for boot, runs in boots.items():
                stopped = any(run.stopped for run in runs) or (agent.stopped and runs[-1].last == last)
                statements.append(
                    "INSERT INTO agent_boot (agent_id, boot, first_due, last_due, applied, stopped)"
                    f" VALUES ({id_}, '{boot}', {time(min(run.first for run in runs))}, {time(max(run.last for run in runs))}, 1, {stopped})"
                )
            statements += [
                "INSERT INTO cycle_run (agent_id, boot, interval, first_sequence, first_due, last_due, cycles, pollsters)"
                f" VALUES ({id_}, '{run.boot}', {interval}, {sequence}, {time(run.first)}, {time(run.last)}, {run.cycles}, {texts(sorted(run.pollsters))})"
                for interval, runs in agent.runs.items()
                for sequence, run in enumerate(runs, 1)
            ]
            statements += [
                "INSERT INTO polling_exception (agent_id, pollster, interval, resource, cause, reason, from_time, until_time, cycles, samples)"
                f" VALUES ({id_}, {text(e.pollster)}, {e.interval}, {text(e.resource)}, {text(e.cause)}, {text(e.reason)},"
                f" {time(e.start)}, {time(e.end)}, 1, 0)"
                for e in agent.exceptions
            ]
            statements += [
                "INSERT INTO inactive_pollster (agent_id, pollster, disabled, reason, meters, since, until)"
                f" VALUES ({id_}, {text(e.pollster)}, true, {text(e.reason)}, '{{}}', {time(e.start)}, {time(e.end)})"
                for e in agent.inactive
            ]
        for period in self.periods:
            hash_ = hashlib.sha256("\0".join(period.meters).encode()).hexdigest()
            statements.append(
                f"INSERT INTO meter_list (hash, meters) VALUES ('\\x{hash_}', {texts(period.meters)}) ON CONFLICT DO NOTHING"
            )
            place = f"(SELECT id FROM meter_list WHERE hash = '\\x{hash_}')"
            if period.is_off_schedule:
                statements.append(
                    "INSERT INTO off_schedule_poll (agent_id, pollster, at, resource, project, meter_list_id) VALUES"
                    f" ({period.agent_id}, {text(period.pollster)}, {time(period.since)}, {text(period.resource)}, {text(period.project)}, {place})"
                )
            else:
                statements.append(
                    "INSERT INTO metered_resource (agent_id, pollster, interval, resource, project, meter_list_id, first_due, until_due)"
                    f" VALUES ({period.agent_id}, {text(period.pollster)}, {period.interval}, {text(period.resource)}, {text(period.project)},"
                    f" {place}, {time(period.since)}, {time(period.until)})"
                )
        statements += [
            "INSERT INTO rejected_sample (start, meter, resource, project, kind, samples) VALUES"
            f" ({time(each.start)}, {text(each.meter)}, {text(each.resource)}, {text(each.project)}, {text(each.kind)}, {each.samples})"
            for each in self.rejections
        ]
        return statements


def moment(value: float) -> datetime:
    return NO_END if value == FOREVER else datetime.fromtimestamp(value, UTC)


def text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def texts(values: Sequence[str]) -> str:
    return f"ARRAY[{', '.join(map(text, values))}]::text[]"


def time(value: float) -> str:
    return "'infinity'" if value == FOREVER else f"'{datetime.fromtimestamp(value, UTC).isoformat()}'"
