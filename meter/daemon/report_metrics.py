"""Prometheus metrics of cycle reports."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client import Counter


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
