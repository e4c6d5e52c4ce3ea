"""Prometheus metrics of statements: what waits to be corrected, and what could be closed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from prometheus_client import CollectorRegistry
from prometheus_client import Gauge

from meter.rating.statements.statements_step import WaitingCorrections


class StatementMetrics:
    """The state of statements, as this collector found it last; another one may have looked later."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._lines = Gauge(
            "meter_rating_pending_corrections",
            "Correction lines of closed periods that the next close will bill, by currency.",
            ["currency"],
            registry=registry,
        )
        self._amount = Gauge(
            "meter_rating_pending_correction_amount",
            "Sum of these corrections in the currency's main unit, negative if less is owed.",
            ["currency"],
            registry=registry,
        )
        self._accounts = Gauge(
            "meter_rating_closable_accounts",
            "Accounts with usage in the last period whose days of grace are over that have no closed statement of it.",
            registry=registry,
        )
        self._last_close = Gauge(
            "meter_rating_last_close_timestamp_seconds",
            "Time at which the newest statement was closed, in seconds since 1970; 0 if none is.",
            registry=registry,
        )

    def corrections(self, waiting: Mapping[str, WaitingCorrections]) -> None:
        """Show the corrections that wait, by currency."""
        self._lines.clear()
        self._amount.clear()
        for currency, each in waiting.items():
            self._lines.labels(currency).set(each.lines)
            self._amount.labels(currency).set(float(each.amount))

    def closing(self, accounts: int, last_close: datetime | None) -> None:
        """Show how many accounts could be closed, and when the last one was."""
        self._accounts.set(accounts)
        self._last_close.set(0 if last_close is None else last_close.timestamp())
