"""Metrics of the reports of agents and daemons."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client import Counter
from prometheus_client import Histogram

from meter.daemon.metrics import SECONDS_BUCKETS


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
