"""Budgets and webhooks: the step that evaluates budgets, and the service that delivers to the targets that ``[rating]`` names."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

from meter.daemon.budget_metrics import BudgetMetrics
from meter.daemon.budget_metrics import WebhookMetrics
from meter.http import BadTlsFile
from meter.http import TlsOptions
from meter.http.factory import create_client
from meter.rating.book.price_book import PriceDirectory
from meter.rating.budgets.budget_evaluation import BudgetEvaluation
from meter.rating.budgets.budget_step import BudgetStep
from meter.rating.budgets.budget_store import IBudgetStore
from meter.rating.budgets.webhook_delivery import MAX_RESPONSE_BYTES
from meter.rating.budgets.webhook_delivery import TIMEOUT_SECONDS
from meter.rating.budgets.webhook_delivery import WebhookDelivery
from meter.rating.budgets.webhook_delivery import WebhookTarget
from meter.rating.budgets.webhook_service import WebhookService
from meter.rating.budgets.webhook_signature import webhook_keys
from meter.settings.rating import RatingSection
from meter.store import PostgresStore
from meter.taps.daemon import Daemon


def add_webhooks(daemon: Daemon, store: IBudgetStore) -> WebhookService:
    """Add the delivery of webhooks, and return its service; wake it to deliver at once what was added."""
    metrics = WebhookMetrics(daemon.registry)
    targets, problems = webhook_targets(daemon.reactor, daemon.config.rating)
    daemon.problems += problems
    delivery = WebhookDelivery(store, targets, daemon.reactor, metrics=metrics)
    service = WebhookService(store, delivery, daemon.reactor, metrics)
    daemon.add(service)
    return service


def budget_step(
    daemon: Daemon, store: PostgresStore, directory: Callable[[], Awaitable[PriceDirectory]], webhooks: WebhookService
) -> BudgetStep:
    """Return the step that evaluates the budgets of ``directory``, and wakes ``webhooks`` when there is something to tell."""
    return BudgetStep(
        store.rating.budgets,
        BudgetEvaluation(store.rating.usage, store, store, daemon.reactor),
        directory,
        metrics=BudgetMetrics(daemon.registry),
        told=webhooks.wake,
    )


def webhook_targets(reactor: Any, settings: RatingSection) -> tuple[Mapping[str, WebhookTarget], list[str]]:
    """Return the targets by name, and a text for each whose CA certificates cannot be used."""
    targets: dict[str, WebhookTarget] = {}
    problems: list[str] = []
    for number, each in enumerate(settings.webhooks):
        try:
            client = create_client(
                reactor,
                TlsOptions(ca_file=each.ca_file),
                timeout_seconds=TIMEOUT_SECONDS,
                max_body_bytes=MAX_RESPONSE_BYTES,
            )
        except BadTlsFile as error:
            problems.append(f"[rating.webhooks.{number}] {error}")
            continue
        keys = webhook_keys(each.secret.get_secret_value())
        targets[each.name] = WebhookTarget(name=each.name, url=each.url, keys=keys, client=client)
    return targets, problems
