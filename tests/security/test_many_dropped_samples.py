"""An agent that reports any number of drops does not hold the daemon that computes completeness."""

from __future__ import annotations

import time

from meter.completeness.ledger.drop_times import EDGE_CYCLES
from meter.completeness.ledger.drop_times import MAX_CYCLES
from meter.completeness.ledger.drop_times import DropTimes
from meter.completeness.ledger.ledger_source import AgentReports
from meter.completeness.ledger.ledger_source import MeteredPeriod
from meter.completeness.ledger.ledger_source import PollingException

DROPS = 100_000
RESOURCES = 200
MOST_SECONDS = 3.0
"""Reading all drops for each resource would take some ten seconds."""


def drop(at: float) -> PollingException:
    return PollingException("", 0.0, "", "spool dropped", "the spool is full", at, at + 1e-6, False)


def test_no_more_drops_are_read_than_are_looked_up() -> None:
    reports = AgentReports("hv1", exceptions=[drop(3.0 * number) for number in range(DROPS)])
    times = DropTimes({1: reports}, 0.0, 3.0 * DROPS)
    began = time.process_time()
    for number in range(RESOURCES):
        period = MeteredPeriod(1, "cpu", 1.0, f"vm-{number}", "p", ("cpu",), 0.0, 3.0 * DROPS)
        assert EDGE_CYCLES < len(times.of_resource([period])) < MAX_CYCLES
    assert time.process_time() - began < MOST_SECONDS
