"""Prometheus metrics of rating: what its steps do in the collector."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from prometheus_client import CollectorRegistry
from prometheus_client import Counter
from prometheus_client import Gauge


class RatingMetrics:
    """Runs of ``steps`` in this collector; another one may have run them."""

    def __init__(self, registry: CollectorRegistry, steps: Iterable[str]) -> None:
        self._failures = Counter(
            "meter_rating_step_failures", "Runs of a step of rating that failed, by step.", ["step"], registry=registry
        )
        self._seconds = Gauge(
            "meter_rating_step_duration_seconds",
            "Duration of the last run of a step of rating that succeeded, by step.",
            ["step"],
            registry=registry,
        )
        self._succeeded_at = Gauge(
            "meter_rating_step_succeeded_timestamp_seconds",
            "Time at which a step of rating last succeeded in this collector, in seconds since 1970; 0 before the first, by step.",
            ["step"],
            registry=registry,
        )
        for step in steps:
            self._failures.labels(step)
            self._seconds.labels(step)
            self._succeeded_at.labels(step)

    def ran(self, step: str, seconds: float, at: datetime) -> None:
        """Record a step that succeeded."""
        self._seconds.labels(step).set(seconds)
        self._succeeded_at.labels(step).set(at.timestamp())

    def failed(self, step: str) -> None:
        """Count a step that failed."""
        self._failures.labels(step).inc()
