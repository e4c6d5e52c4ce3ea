"""Prometheus metrics of reports: those that an agent makes, and those that a collector receives."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client import Counter
from prometheus_client import Histogram

from meter.daemon.metrics import SECONDS_BUCKETS


class CycleReportMetrics:
    """Cycle reports of an agent."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._reports = Counter(
            "meter_cycle_reports",
            "Cycle reports, by outcome (spooled, delayed, confirmed, refused).",
            ["outcome"],
            registry=registry,
        )

    def spooled(self) -> None:
        """Count a report that is on disk."""
        self._reports.labels("spooled").inc()

    def delayed(self) -> None:
        """Count an attempt to write a report to disk that failed: it waits in memory."""
        self._reports.labels("delayed").inc()

    def published(self, confirmed: int, *, refused: int = 0) -> None:
        """Count reports that the bus has confirmed, and those that it refuses for ever."""
        self._reports.labels("confirmed").inc(confirmed)
        self._reports.labels("refused").inc(refused)


class ReportMetrics:
    """Reports of agents and daemons that a collector received."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._reports = Counter(
            "meter_reports",
            "Reports, by kind (cycle, heartbeat, identities, unknown) and outcome (applied, repeated, waiting, late, or the kind of its dead letter).",
            ["kind", "outcome"],
            registry=registry,
        )
        for kind in ("cycle", "heartbeat", "identities"):
            self._reports.labels(kind, "applied")
        self._seconds = Histogram(
            "meter_report_seconds",
            "Duration of verifying and storing a report, with its waiting for others of the same transaction, in seconds, by kind.",
            ["kind"],
            registry=registry,
            buckets=SECONDS_BUCKETS,
        )

    def reported(self, kind: str, outcome: str) -> None:
        """Count a report."""
        self._reports.labels(kind, outcome).inc()

    def took(self, kind: str, seconds: float) -> None:
        """Count how long a stored report took."""
        self._seconds.labels(kind).observe(seconds)
