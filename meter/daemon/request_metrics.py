"""Prometheus metrics of HTTP requests to other services."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client import Counter
from prometheus_client import Gauge
from prometheus_client import Histogram

from meter.daemon.metrics import SECONDS_BUCKETS
from meter.daemon.metrics import BoundedLabel


class RequestMetrics:
    """HTTP requests to other services; a service is a name of the catalogue, or chosen by a pollster."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._services = BoundedLabel()
        self._requests = Counter(
            "meter_requests",
            "HTTP requests, by service and outcome (ok, refused, failed, timeout, rejected: not sent while the circuit breaker is open).",
            ["service", "outcome"],
            registry=registry,
        )
        self._seconds = Histogram(
            "meter_request_seconds",
            "Time from sending a request to receiving the complete response in seconds, by service.",
            ["service"],
            registry=registry,
            buckets=SECONDS_BUCKETS,
        )
        self._waited = Counter(
            "meter_request_waited_seconds",
            "Time that requests have waited for the rate limiter in seconds, by service.",
            ["service"],
            registry=registry,
        )
        self._in_flight = Gauge(
            "meter_requests_in_flight",
            "Requests sent and not answered yet, by service.",
            ["service"],
            registry=registry,
        )
        self._open = Gauge(
            "meter_request_circuit_open",
            "1 while the circuit breaker of the service is open, else 0.",
            ["service"],
            registry=registry,
        )

    def throttled(self, service: str, seconds: float) -> None:
        """Add the time that one request has waited for the rate limiter."""
        self._waited.labels(self._services.bounded(service)).inc(seconds)

    def sent(self, service: str) -> None:
        """Count a request that was sent."""
        self._in_flight.labels(self._services.bounded(service)).inc()

    def ended(self, service: str, outcome: str, seconds: float) -> None:
        """Count the end of a request that was sent."""
        name = self._services.bounded(service)
        self._in_flight.labels(name).dec()
        self._requests.labels(name, outcome).inc()
        self._seconds.labels(name).observe(seconds)

    def rejected(self, service: str) -> None:
        """Count a request that was not sent because the circuit breaker is open."""
        self._requests.labels(self._services.bounded(service), "rejected").inc()

    def circuit_changed(self, service: str, is_open: bool) -> None:
        """Set whether the circuit breaker of the service is open."""
        self._open.labels(self._services.bounded(service)).set(is_open)
