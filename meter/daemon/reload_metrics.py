"""Prometheus metrics of reloading the configuration."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client import Counter
from prometheus_client import Gauge

from meter.daemon.reload import RESULTS
from meter.daemon.reload import Result


class ReloadMetrics:
    """Reloads of this process, and what waits for its restart."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._reloads = Counter(
            "meter_configuration_reloads",
            "Reloads of the configuration, by result (ok, partial: a part refused its settings, invalid: nothing was changed).",
            ["result"],
            registry=registry,
        )
        self._waiting = Gauge(
            "meter_configuration_settings_waiting",
            "Settings that have changed in the configuration and take effect after a restart.",
            registry=registry,
        )
        for result in RESULTS:
            self._reloads.labels(result)

    def reloaded(self, result: Result) -> None:
        """Count a reload."""
        self._reloads.labels(result).inc()

    def waiting(self, settings: int) -> None:
        """Set the number of settings that wait for a restart."""
        self._waiting.set(settings)
