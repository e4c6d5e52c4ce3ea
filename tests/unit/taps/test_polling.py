"""The agent as it is composed: which pollsters its reports call inactive, and what an agent that stands by reports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meter.agent.cycle_reports import CycleReportService
from meter.cycle_report import InactivePollster
from meter.plugins.registry import COMPUTE
from meter.plugins.registry import Decision
from meter.sample import MeterDefinition
from meter.taps.parts.polling import inactive_pollsters
from meter.taps.parts.polling import run_or_stand_by
from tests.reporting_agent import ReportingAgent
from tests.reporting_agent import ScriptedPollster


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[ReportingAgent]:
    agent = ReportingAgent(tmp_path)
    yield agent
    agent.close()


def decision(state: Any, reason: str = "", meters_off: tuple[str, ...] = (), **more: Any) -> Decision:
    meters = (MeterDefinition("lamp.power", "gauge", "W"), MeterDefinition("lamp.heat", "gauge", "W"))
    plugin = ScriptedPollster(meters=meters)
    fields: dict[str, Any] = {"plugin": plugin} | more
    return Decision(
        kind=COMPUTE, name="lamp", origin="test", state=state, reason=reason, meters_off=meters_off, **fields
    )


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (decision("active"), []),
        (
            decision("disabled", "[plugins] disable has lamp"),
            [InactivePollster("lamp", True, "[plugins] disable has lamp", ("lamp.heat", "lamp.power"))],
        ),
        (
            decision("active", "without *.heat", meters_off=("*.heat",)),
            [InactivePollster("lamp", True, "[plugins] disable has *.heat", ("lamp.heat",))],
        ),
        (
            decision("not applicable", "no hypervisor is configured"),
            [InactivePollster("lamp", False, "no hypervisor is configured", ("lamp.heat", "lamp.power"))],
        ),
        (
            decision("broken", "enabled() failed: password=hunter2", plugin=None),
            [InactivePollster("lamp", False, "enabled() failed: password=***", ())],
        ),
    ],
    ids=["active", "disabled", "without a meter", "not applicable", "broken"],
)
def test_inactive_pollsters_are_told_with_the_setting_or_reason(found: Decision, told: list[InactivePollster]) -> None:
    assert inactive_pollsters([found]) == told


class Election:
    """An election whose result the test decides."""

    def __init__(self) -> None:
        self.is_leader = False
        self.ran: list[frozenset[float]] = []

    async def run_if_leader(self, due: frozenset[float]) -> None:
        self.ran.append(due)


def test_agent_that_is_not_the_leader_reports_that_it_stands_by(agent: ReportingAgent) -> None:
    election: Any = Election()
    run = run_or_stand_by(election, agent.reports)
    agent.run(run(frozenset([60.0])))
    election.is_leader = True
    agent.run(run(frozenset([60.0])))
    reports, _ = agent.take()
    assert [(report.sequence, report.standby, report.polls) for report in reports] == [(1, True, ())]
    agent.run(run_or_stand_by(election, None)(frozenset([60.0])))
    assert len(election.ran) == 3


def test_agent_without_pollsters_reports_that_it_runs_and_that_it_stops(agent: ReportingAgent) -> None:
    service = CycleReportService(agent.reports, has_cycles=False)
    service.startService()
    agent.run(service.stopService())
    reports, _ = agent.take()
    assert [(report.sequence, report.stopping) for report in reports] == [(1, False), (2, True)]
