"""An agent that reports any number of drops does not hold the daemon that computes completeness."""

from __future__ import annotations

from collections.abc import Iterator

from meter.completeness.ledger.drop_times import EDGE_CYCLES
from meter.completeness.ledger.drop_times import MAX_CYCLES
from meter.completeness.ledger.drop_times import DropTimes
from meter.completeness.ledger.ledger_source import AgentReports
from meter.completeness.ledger.ledger_source import MeteredPeriod
from meter.completeness.ledger.ledger_source import PollingException

DROPS = 100_000


class CountedDropTimes(DropTimes):
    """Counts the times that are read."""

    read = 0

    def _of_period(self, period: MeteredPeriod) -> Iterator[tuple[float, float]]:
        for each in super()._of_period(period):
            self.read += 1
            yield each


def drop(at: float) -> PollingException:
    return PollingException("", 0.0, "", "spool dropped", "the spool is full", at, at + 1e-6, False)


def test_no_more_drops_are_read_than_are_looked_up() -> None:
    reports = AgentReports("hv1", exceptions=[drop(3.0 * number) for number in range(DROPS)])
    times = CountedDropTimes({1: reports}, 0.0, 3.0 * DROPS)
    period = MeteredPeriod(1, "cpu", 1.0, "vm-1", "p", ("cpu",), 0.0, 3.0 * DROPS)
    assert EDGE_CYCLES < len(times.of_resource([period])) < MAX_CYCLES
    assert times.read < MAX_CYCLES
