"""The service that delivers webhooks: when it runs, and what it says of targets that do not accept them."""

from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from meter.daemon.budget_metrics import BudgetMetrics
from meter.daemon.budget_metrics import WebhookMetrics
from meter.interfaces import Unavailable
from meter.rating.budgets.budget_store import WebhookQueue
from meter.rating.budgets.webhook_service import INTERVAL_SECONDS
from meter.rating.budgets.webhook_service import WebhookService
from meter.rating.budgets.webhook_service import problem_of

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


class Queues:
    """The store and the delivery: ``queues`` is what waits, ``runs`` when the delivery ran."""

    def __init__(self):
        self.queues = []
        self.runs = []
        self.problem = None
        self.hung = None

    async def run(self, now):
        self.runs.append(now)
        if self.hung is not None:
            await self.hung
        if self.problem:
            raise Unavailable(self.problem)

    def abandon(self):
        if self.hung is not None:
            self.hung.cancel()

    async def webhook_queues(self):
        return self.queues


@pytest.fixture
def queues():
    return Queues()


@pytest.fixture
def clock():
    clock = Clock()
    clock.advance(NOON.timestamp())
    return clock


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def service(queues, clock, registry):
    service = WebhookService(queues, queues, clock, WebhookMetrics(registry))
    service.startService()
    clock.advance(5)
    yield service
    service.stopService()


def queue(target="billing", *, waiting=1, minutes=0, failed=0, error=""):
    since = NOON - timedelta(minutes=minutes) if waiting else None
    return WebhookQueue(target=target, waiting=waiting, waiting_since=since, failed=failed, last_error=error)


def test_delivery_runs_at_intervals_and_when_it_is_woken(service, queues, clock):
    assert len(queues.runs) == 1
    clock.advance(INTERVAL_SECONDS)
    assert len(queues.runs) == 2
    service.wake()
    clock.advance(0)
    assert len(queues.runs) == 3


def test_unavailable_store_does_not_end_it(service, queues, clock):
    queues.problem = "no database"
    clock.advance(INTERVAL_SECONDS)
    queues.problem = None
    clock.advance(INTERVAL_SECONDS)
    assert len(queues.runs) == 3
    assert service.failures == 0


def test_hung_receiver_does_not_delay_the_end_of_the_daemon(service, queues, clock):
    queues.hung = Deferred()
    clock.advance(INTERVAL_SECONDS)
    stopped = []
    service.stopService().addCallback(stopped.append)
    assert stopped == [None]
    assert service.failures == 0
    service.startService()


def test_webhooks_that_wait_for_their_first_attempts_are_no_problem(service, queues, clock):
    queues.queues = [queue(waiting=2, minutes=59)]
    clock.advance(INTERVAL_SECONDS)
    state = service.readiness()
    assert (state.name, state.ready, state.reason) == ("webhooks", True, "2 waiting")


def test_collector_is_degraded_while_a_webhook_waits_long_or_has_failed(service, queues, clock):
    queues.queues = [queue(minutes=61, error="POST: 503"), queue("chat", waiting=0, failed=3), queue("pager")]
    clock.advance(INTERVAL_SECONDS)
    state = service.readiness()
    assert (state.ready, state.needed) == (False, False)
    assert state.reason == (
        "billing: 1 waiting since 2026-11-20T10:59:00: POST: 503; chat: 3 failed (meter-rate webhooks list)"
    )
    queues.queues = []
    clock.advance(INTERVAL_SECONDS)
    assert service.readiness().ready


def test_problem_of_a_queue_names_both():
    text = problem_of(queue(waiting=2, minutes=120, failed=1, error="x"), NOON)
    assert text == "billing: 1 failed (meter-rate webhooks list), 2 waiting since 2026-11-20T10:00:00: x"


def test_metrics_show_what_waits_by_target(service, queues, clock, registry):
    queues.queues = [queue(waiting=2, failed=1), queue("chat", failed=3)]
    clock.advance(INTERVAL_SECONDS)
    queues.queues = queues.queues[:1]
    clock.advance(INTERVAL_SECONDS)
    assert registry.get_sample_value("meter_webhooks_waiting", {"target": "billing"}) == 2
    assert registry.get_sample_value("meter_webhooks_failed", {"target": "billing"}) == 1
    assert registry.get_sample_value("meter_webhooks_waiting", {"target": "chat"}) is None


def test_metrics_of_attempts_and_evaluations(registry):
    metrics, evaluations = WebhookMetrics(registry), BudgetMetrics(registry)
    metrics.attempted("billing", "delivered")
    evaluations.evaluated(5, 2, NOON)
    evaluations.reached("used")
    values = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in registry.collect()
        for sample in metric.samples
    }
    assert values["meter_webhook_attempts_total", "billing", "delivered"] == 1
    assert values["meter_budgets",] == 5
    assert values["meter_budgets_incomplete",] == 2
    assert values["meter_budgets_evaluated_timestamp_seconds",] == NOON.timestamp()
    assert values["meter_budget_thresholds_total", "used"] == 1
    assert values["meter_budget_thresholds_total", "forecast"] == 0
