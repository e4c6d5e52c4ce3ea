"""The contract of IBudgetStore: the same tests for the in-memory store and for PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from decimal import Decimal

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults
from zope.interface.verify import verifyObject

from meter.rating.budgets.budget_state import BudgetGap
from meter.rating.budgets.budget_state import BudgetScope
from meter.rating.budgets.budget_state import BudgetState
from meter.rating.budgets.budget_state import BudgetThreshold
from meter.rating.budgets.budget_store import IBudgetStore
from meter.rating.budgets.budget_store import ReachedThreshold
from meter.rating.budgets.budget_store import WaitingWebhook
from meter.rating.budgets.budget_store import WebhookQueue
from meter.store import PostgresStore
from meter.testing import MemoryStore
from tests.waiting import until

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
TABLES = "budget_state, reached_threshold, webhook"


@pytest.fixture(scope="module")
def database(request):
    return request.getfixturevalue("postgresql").dsn_with_schema()


@pytest.fixture(params=["memory", "postgresql"])
def budgets(request):
    if request.param == "memory":
        yield MemoryStore(reactor).rating.budgets
        return
    server, dsn = request.getfixturevalue("postgresql"), request.getfixturevalue("database")
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=1, writers=1, rating_connections=2)
    store.startService()
    budgets = store.rating.budgets
    pytest_twisted.blockon(Deferred.fromCoroutine(until(lambda: store.readiness().ready)))
    yield budgets
    pytest_twisted.blockon(store.stopService())
    server.execute(f"TRUNCATE {TABLES}", dsn)


def state(budget_id="red-eur", period="2026-11", project_id="red", **fields):
    values = {
        "name": 'Röd „budget“ \0 "1"',
        "scope": BudgetScope(project_id=project_id),
        "sku": None,
        "start": datetime(2026, 10, 31, 23, tzinfo=UTC),
        "end": datetime(2026, 11, 30, 23, tzinfo=UTC),
        "currency": "EUR",
        "unit": None,
        "limit": Decimal("1000.00"),
        "used": Decimal("800.120000000000000000000000000001"),
        "forecast": Decimal("1200.3"),
        "evaluated_at": NOON,
        "thresholds": (
            BudgetThreshold(basis="used", percent=Decimal("80.5"), reached_at=NOON),
            BudgetThreshold(basis="forecast", percent=Decimal(100)),
        ),
        "gaps": (BudgetGap(code="unmetered", text="…", seconds=3600),),
    }
    return BudgetState(budget_id=budget_id, period=period, **{**values, **fields})


def threshold(percent=80, *, budget_id="red-eur", period="2026-11", basis="used", at=NOON):
    return ReachedThreshold(budget_id=budget_id, period=period, basis=basis, percent=Decimal(percent), at=at)


def webhook(id="msg_1", target="billing", *, hours=0.0, due=0.0, attempts=0, last_error=""):
    return WaitingWebhook(
        id=id,
        target=target,
        body=b'{"\xc3\xa9": "\\u0000"}',
        created_at=NOON + hours * HOUR,
        retry_until=NOON + 72 * HOUR,
        attempts=attempts,
        next_attempt_at=None if due is None else NOON + due * HOUR,
        last_error=last_error,
    )


async def queued(budgets, *webhooks):
    for number, each in enumerate(webhooks, 1):
        assert await budgets.reach(threshold(number, budget_id=each.id), [each])


def test_the_interface_is_provided(budgets):
    verifyObject(IBudgetStore, budgets)


@pytest_twisted.ensureDeferred
async def test_state_is_returned_as_it_was_kept(budgets):
    await budgets.keep_states([state()], ["red-eur"])
    assert await budgets.states() == [state()]


@pytest_twisted.ensureDeferred
async def test_later_state_replaces_that_of_the_same_period(budgets):
    later = state(used=Decimal(900), evaluated_at=NOON + HOUR)
    await budgets.keep_states([state()], ["red-eur"])
    await budgets.keep_states([later], ["red-eur"])
    assert await budgets.states() == [later]


@pytest_twisted.ensureDeferred
async def test_states_are_of_the_newest_period_unless_one_is_asked_for(budgets):
    before, now, other = state(period="2026-10"), state(), state("blue", period="2026-10", project_id="blue")
    await budgets.keep_states([now, before, other], ["red-eur", "blue"])
    assert await budgets.states() == [other, now]
    assert await budgets.states(period="2026-10") == [other, before]
    assert await budgets.states(period="2026-09") == []
    assert await budgets.states(limit=1) == [other]


@pytest_twisted.ensureDeferred
async def test_states_are_those_of_a_budget_or_project(budgets):
    mine, also_mine, of_account = state(), state("red-vm"), state("account", project_id=None)
    await budgets.keep_states([of_account, mine, also_mine], ["red-eur", "red-vm", "account"])
    assert await budgets.states(project_id="red") == [mine, also_mine]
    assert await budgets.states(project_id="red", budget_id="red-vm") == [also_mine]
    assert await budgets.states(project_id="red", budget_id="account") == []
    assert await budgets.states(budget_id="account") == [of_account]
    for odd in ("", "RED", "red%", "r\0d", "'; DROP TABLE budget_state; --"):
        assert await budgets.states(project_id=odd) == []
        assert await budgets.states(budget_id=odd) == []
        assert await budgets.states(period=odd) == []


@pytest_twisted.ensureDeferred
async def test_states_of_removed_budgets_are_deleted(budgets):
    await budgets.keep_states([state(), state(period="2026-10"), state("blue")], ["red-eur", "blue"])
    await budgets.keep_states([], ["blue"])
    assert await budgets.states() == [state("blue")]
    await budgets.keep_states([], [])
    assert await budgets.states() == []


@pytest_twisted.ensureDeferred
async def test_threshold_is_reached_once_in_a_period(budgets):
    assert await budgets.reach(threshold(), [webhook("msg_1")])
    assert not await budgets.reach(threshold("80.00", at=NOON + HOUR), [webhook("msg_2")])
    assert await budgets.reach(threshold(period="2026-12"), [])
    assert await budgets.reach(threshold(basis="forecast"), [])
    assert await budgets.reach(threshold("80.01"), [])
    assert await budgets.reach(threshold(budget_id="blue"), [])
    assert [each.id for each in await budgets.webhooks(10)] == ["msg_1"]
    assert await budgets.reached("2026-11") == [
        threshold(budget_id="blue"),
        threshold(basis="forecast"),
        threshold(),
        threshold("80.01"),
    ]
    assert await budgets.reached("2026-12") == [threshold(period="2026-12")]


@pytest_twisted.ensureDeferred
async def test_of_two_at_the_same_time_one_reaches_a_threshold(budgets):
    both = [Deferred.fromCoroutine(budgets.reach(threshold(), [webhook(id)])) for id in ("msg_1", "msg_2")]
    assert sorted(await gatherResults(both)) == [False, True]
    assert len(await budgets.webhooks(10)) == 1


@pytest_twisted.ensureDeferred
async def test_earlier_periods_are_forgotten(budgets):
    await budgets.keep_states([state(period=each) for each in ("2025-12", "2026-10", "2026-11")], ["red-eur"])
    for period in ("2025-12", "2026-10"):
        await budgets.reach(threshold(period=period), [])
    await budgets.forget("2026-10")
    assert await budgets.states(period="2025-12") == []
    assert await budgets.states(period="2026-10") == [state(period="2026-10")]
    assert await budgets.reached("2025-12") == []
    assert await budgets.reached("2026-10") == [threshold(period="2026-10")]


@pytest_twisted.ensureDeferred
async def test_webhooks_are_claimed_oldest_first_by_target(budgets):
    await queued(budgets, webhook("b", hours=2), webhook("a", hours=1), webhook("c", "other"), webhook("d", due=1))
    assert await budgets.due_targets(NOON) == ["billing", "other"]
    later = NOON + HOUR / 2
    claimed = [await budgets.claim("billing", NOON, later) for _ in range(3)]
    assert claimed[:2] == [
        replace(webhook("a", hours=1), attempts=1, next_attempt_at=later),
        replace(webhook("b", hours=2), attempts=1, next_attempt_at=later),
    ]
    assert claimed[2] is None
    assert await budgets.due_targets(NOON) == ["other"]
    assert (await budgets.claim("billing", NOON + HOUR, NOON + 2 * HOUR)).id == "d"


@pytest_twisted.ensureDeferred
async def test_webhook_is_claimed_by_one_of_many(budgets):
    await queued(budgets, webhook())
    claims = [Deferred.fromCoroutine(budgets.claim("billing", NOON, NOON + HOUR)) for _ in range(4)]
    assert sum(each is not None for each in await gatherResults(claims)) == 1


@pytest_twisted.ensureDeferred
async def test_claimed_webhook_without_an_outcome_is_due_again(budgets):
    await queued(budgets, webhook())
    await budgets.claim("billing", NOON, NOON + HOUR)
    assert await budgets.due_targets(NOON + HOUR - timedelta(seconds=1)) == []
    again = await budgets.claim("billing", NOON + HOUR, NOON + 2 * HOUR)
    assert (again.id, again.attempts) == ("msg_1", 2)


@pytest_twisted.ensureDeferred
async def test_delivered_webhook_is_gone(budgets):
    await queued(budgets, webhook(), webhook("msg_2"))
    await budgets.delivered("msg_1")
    await budgets.delivered("unknown")
    assert [each.id for each in await budgets.webhooks(10)] == ["msg_2"]


@pytest_twisted.ensureDeferred
async def test_undelivered_webhook_waits_or_has_failed(budgets):
    await queued(budgets, webhook(), webhook("msg_2"))
    await budgets.not_delivered("msg_1", "503 b\0sy", NOON + HOUR)
    await budgets.not_delivered("msg_2", "410 gone", None)
    await budgets.not_delivered("unknown", "", None)
    assert await budgets.due_targets(NOON) == []
    assert await budgets.due_targets(NOON + 1000 * HOUR) == ["billing"]
    assert await budgets.webhooks(10) == [
        webhook(due=1, last_error="503 bsy"),
        webhook("msg_2", due=None, last_error="410 gone"),
    ]


@pytest_twisted.ensureDeferred
async def test_queues_say_what_waits_since_when_and_why(budgets):
    assert await budgets.webhook_queues() == []
    await queued(
        budgets,
        webhook("a", hours=1, last_error="z"),
        webhook("b", hours=2, due=5, last_error="x"),
        webhook("c", due=None, last_error="zz"),
        webhook("d", "gone", due=None, last_error="410"),
        webhook("e", "new"),
    )
    assert await budgets.webhook_queues() == [
        WebhookQueue(target="billing", waiting=2, waiting_since=NOON + HOUR, failed=1, last_error="z"),
        WebhookQueue(target="gone", waiting=0, waiting_since=None, failed=1, last_error="410"),
        WebhookQueue(target="new", waiting=1, waiting_since=NOON, failed=0, last_error=""),
    ]


@pytest_twisted.ensureDeferred
async def test_webhooks_are_listed_oldest_first(budgets):
    await queued(budgets, webhook("b"), webhook("a", hours=1), webhook("c"))
    assert [each.id for each in await budgets.webhooks(10)] == ["b", "c", "a"]
    assert [each.id for each in await budgets.webhooks(2)] == ["b", "c"]


@pytest_twisted.ensureDeferred
async def test_failed_webhook_is_retried(budgets):
    await queued(budgets, webhook("a", due=None, attempts=20, last_error="410"), webhook("b", due=5))
    retry_until = NOON + 100 * HOUR
    assert await budgets.retry_webhooks(["b", "a", "unknown", "\0"], NOON, retry_until) == ["a", "b"]
    assert await budgets.webhooks(10) == [
        replace(webhook("a", last_error="410"), retry_until=retry_until),
        replace(webhook("b"), retry_until=retry_until),
    ]


@pytest_twisted.ensureDeferred
async def test_discarded_webhooks_are_gone(budgets):
    await queued(budgets, webhook("a"), webhook("b", due=None), webhook("c"))
    assert await budgets.discard_webhooks(["b", "a", "unknown"]) == ["a", "b"]
    assert [each.id for each in await budgets.webhooks(10)] == ["c"]
