"""Rating in the collector: the price directory, and the steps that run by themselves."""

from __future__ import annotations

from meter.daemon.rating_metrics import RatingMetrics
from meter.daemon.services import Slices
from meter.daemon.statement_metrics import StatementMetrics
from meter.rating.book.book_text import directory_from_text
from meter.rating.rating_service import RatingService
from meter.rating.rating_service import RatingStep
from meter.rating.statements.statements_step import StatementsStep
from meter.rating.usage.usage_step import UsageStep
from meter.store import PostgresStore
from meter.taps.daemon import Daemon
from meter.taps.parts.budgets import add_webhooks
from meter.taps.parts.budgets import budget_step
from meter.taps.parts.prices import add_prices


def add_rating(daemon: Daemon, store: PostgresStore) -> None:
    """Add rating, if there is a price directory. The daemon is ready without it, but degraded while it does not work."""
    prices = add_prices(daemon)
    if prices is None:
        return
    webhooks = add_webhooks(daemon, store.rating.budgets)
    # In this order: budgets are evaluated from the usage that was computed before.
    steps: list[RatingStep] = [
        UsageStep(store.rating.usage, prices.current),
        budget_step(daemon, store, prices.current, webhooks),
        StatementsStep(
            store.rating,
            store,
            prices.current,
            directory_from_text,
            StatementMetrics(daemon.registry),
            correct_periods=daemon.config.rating.correct_periods,
            slices=Slices(daemon.reactor),
        ),
    ]
    service = RatingService(
        steps,
        store.rating.exclusively,
        daemon.reactor,
        interval_seconds=daemon.config.rating.interval_seconds,
        metrics=RatingMetrics(daemon.registry, [step.name for step in steps]),
    )
    daemon.reload.add(["rating.interval_seconds"], lambda config: service.set_interval(config.rating.interval_seconds))
    daemon.add(service)
