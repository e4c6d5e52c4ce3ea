"""Which agents are running, silent or stopped, from the times of their reports."""

from __future__ import annotations

from typing import NamedTuple

from meter.completeness.ledger.ledger_source import at
from meter.completeness_query import SILENT_INTERVALS
from meter.completeness_query import AgentCondition
from meter.completeness_query import ReportingAgent

DEFAULT_INTERVAL = 300.0
"""The interval of an agent that has not reported a cycle yet, such as one that stands by, in seconds."""


class AgentRow(NamedTuple):
    """What is stored about an agent; times are seconds since 1970. ``stopped``: the last report of its last boot said that it stops."""

    agent: str
    daemon: str
    host: str
    first_due: float
    last_due: float
    stopped: bool
    interval: float | None
    resources: int
    waiting_reports: int


def agent_state(row: AgentRow, now: float) -> ReportingAgent:
    """Return the state of an agent at ``now``."""
    interval = row.interval or DEFAULT_INTERVAL
    state: AgentCondition = "running"
    if row.stopped:
        state = "stopped"
    elif now - row.last_due > SILENT_INTERVALS * interval:
        state = "silent"
    return ReportingAgent(
        agent=row.agent,
        daemon=row.daemon,
        host=row.host,
        state=state,
        first_due=at(row.first_due),
        last_due=at(row.last_due),
        silent_since=None if state == "running" else at(row.last_due + interval),
        interval_seconds=row.interval,
        resources=row.resources,
        waiting_reports=row.waiting_reports,
    )
