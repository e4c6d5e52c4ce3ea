"""Prometheus metrics of budgets and webhooks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from prometheus_client import CollectorRegistry
from prometheus_client import Counter
from prometheus_client import Gauge

from meter.daemon.metrics import BoundedLabel

BASES = ("used", "forecast")


class BudgetMetrics:
    """What the evaluation of budgets finds, in the collector that did it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._budgets = Gauge("meter_budgets", "Budgets at the last evaluation of this collector.", registry=registry)
        self._incomplete = Gauge(
            "meter_budgets_incomplete",
            "Budgets at the last evaluation of this collector for which some usage is not known.",
            registry=registry,
        )
        self._evaluated_at = Gauge(
            "meter_budgets_evaluated_timestamp_seconds",
            "Time of the last evaluation of budgets by this collector, in seconds since 1970; 0 before the first.",
            registry=registry,
        )
        self._thresholds = Counter(
            "meter_budget_thresholds",
            "Thresholds that were reached, by basis (used, forecast).",
            ["basis"],
            registry=registry,
        )
        for basis in BASES:
            self._thresholds.labels(basis)

    def evaluated(self, budgets: int, incomplete: int, at: datetime) -> None:
        """Record an evaluation of all budgets, and how many of them have gaps."""
        self._budgets.set(budgets)
        self._incomplete.set(incomplete)
        self._evaluated_at.set(at.timestamp())

    def reached(self, basis: str) -> None:
        """Count a threshold that was reached."""
        self._thresholds.labels(basis).inc()


class WebhookMetrics:
    """Attempts to deliver webhooks by this collector, and what waits in the store."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._targets = BoundedLabel()
        self._attempts = Counter(
            "meter_webhook_attempts",
            "Attempts to deliver a webhook, by target and outcome (delivered, retry, failed).",
            ["target", "outcome"],
            registry=registry,
        )
        self._waiting = Gauge(
            "meter_webhooks_waiting",
            "Webhooks in the store that wait for their delivery, by target.",
            ["target"],
            registry=registry,
        )
        self._failed = Gauge(
            "meter_webhooks_failed", "Webhooks in the store that have failed, by target.", ["target"], registry=registry
        )

    def attempted(self, target: str, outcome: str) -> None:
        """Count an attempt."""
        self._attempts.labels(self._targets.bounded(target), outcome).inc()

    def queued(self, queues: Mapping[str, tuple[int, int]]) -> None:
        """Record how many webhooks wait and have failed, by target; targets that are not in ``queues`` have neither."""
        for gauge in (self._waiting, self._failed):
            gauge.clear()
        sums: dict[str, tuple[int, int]] = {}
        for target, (waiting, failed) in queues.items():
            label = self._targets.bounded(target)
            before = sums.get(label, (0, 0))
            sums[label] = before[0] + waiting, before[1] + failed
        for label, (waiting, failed) in sums.items():
            self._waiting.labels(label).set(waiting)
            self._failed.labels(label).set(failed)
