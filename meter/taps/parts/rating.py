"""Rating in the collector: the price directory, and the steps that run by themselves."""

from __future__ import annotations

from pathlib import Path

from meter.daemon.rating_metrics import RatingMetrics
from meter.daemon.statement_metrics import StatementMetrics
from meter.rating.book.book_text import directory_from_text
from meter.rating.book.watched_directory import WatchedPriceDirectory
from meter.rating.rating_service import RatingService
from meter.rating.rating_service import RatingStep
from meter.rating.statements.statements_step import StatementsStep
from meter.rating.usage.usage_step import UsageStep
from meter.store import PostgresStore
from meter.taps.daemon import Daemon

RATING_CONNECTIONS = 3
"""One holds the lock of whoever rates, one works, one is for transactions beside it."""


def add_rating(daemon: Daemon, store: PostgresStore) -> None:
    """Add rating, if there is a price directory. The daemon is ready without it, but degraded while it does not work."""
    settings = daemon.config.rating
    if not settings.price_directory:
        return
    directory = WatchedPriceDirectory(
        Path(settings.price_directory), daemon.reactor, webhooks=[each.name for each in settings.webhooks]
    )
    daemon.dependencies.append(directory)
    # In this order: budgets are evaluated from the usage that was computed before.
    steps: list[RatingStep] = [
        UsageStep(store.rating.usage, directory.current),
        StatementsStep(
            store.rating,
            store,
            directory.current,
            directory_from_text,
            StatementMetrics(daemon.registry),
            correct_periods=settings.correct_periods,
        ),
    ]
    daemon.add(
        RatingService(
            steps,
            store.rating.exclusively,
            daemon.reactor,
            interval_seconds=settings.interval_seconds,
            metrics=RatingMetrics(daemon.registry, [step.name for step in steps]),
        )
    )
