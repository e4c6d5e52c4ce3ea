"""``meter-rate budgets`` and ``meter-rate webhooks``: what they write, and what they change."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from decimal import Decimal
from types import SimpleNamespace

import pytest
from twisted.internet.defer import Deferred
from twisted.python import usage

from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import EXIT_OK
from meter.commands.rate import budgets
from meter.commands.rate import webhooks
from meter.interfaces import Unavailable
from meter.rating.budgets.budget_state import BudgetGap
from meter.rating.budgets.budget_state import BudgetScope
from meter.rating.budgets.budget_state import BudgetState
from meter.rating.budgets.budget_state import BudgetThreshold
from meter.rating.budgets.budget_store import ReachedThreshold
from meter.rating.budgets.budget_store import WaitingWebhook
from meter.testing.memory_rating_budgets import MemoryBudgets

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


class Context:
    def __init__(self):
        self.budgets = MemoryBudgets()
        self.recorded = []
        self.log_is_away = False

    @asynccontextmanager
    async def recorder(self, options):
        async def record(action, details):
            if self.log_is_away:
                raise Unavailable("the audit log cannot be written")
            waiting = {each.id for each in await self.budgets.webhooks(1000)}
            self.recorded.append((action, [each["id"] for each in details["webhooks"]], waiting))

        yield record

    @asynccontextmanager
    async def store(self):
        yield SimpleNamespace(rating=SimpleNamespace(budgets=self.budgets))

    def now(self):
        return NOON


@pytest.fixture
def context():
    return Context()


def result_of(work):
    outcomes = []
    Deferred.fromCoroutine(work).addBoth(outcomes.append)
    return outcomes[0]


@pytest.fixture
def run(context, capsys):
    def call(module, kind, *words):
        options = kind()
        options.parseOptions(words)
        status = result_of(module.work(context, options))
        return status, capsys.readouterr().out.splitlines()

    return call


def state(budget_id="red", **fields):
    values = {
        "name": "Red",
        "scope": BudgetScope(project_id="red"),
        "sku": None,
        "period": "2026-11",
        "start": NOON,
        "end": NOON,
        "currency": "EUR",
        "unit": None,
        "limit": Decimal("1000.00"),
        "used": Decimal("812.40"),
        "forecast": None,
        "evaluated_at": NOON,
    }
    return BudgetState(budget_id=budget_id, **{**values, **fields})


def queue(context, *ids, target="billing", failed=False, error=""):
    for id in ids:
        webhook = WaitingWebhook(
            id=id,
            target=target,
            body=b'{"type":"x"}',
            created_at=NOON,
            retry_until=NOON,
            attempts=3,
            next_attempt_at=None if failed else NOON,
            last_error=error,
        )
        threshold = ReachedThreshold(budget_id=id, period="2026-11", basis="used", percent=Decimal(1), at=NOON)
        assert result_of(context.budgets.reach(threshold, [webhook]))


def test_budgets_are_shown_with_what_is_not_known(context, run):
    thresholds = (
        BudgetThreshold(basis="used", percent=Decimal(80), reached_at=NOON),
        BudgetThreshold(basis="used", percent=Decimal(100)),
    )
    gaps = (BudgetGap(code="missing", text="3 samples are missing", samples=3),)
    forecast = state("blue", forecast=Decimal("1200.00"), currency=None, unit="Hours")
    states = [state(thresholds=thresholds, gaps=gaps), forecast]
    result_of(context.budgets.keep_states(states, ["red", "blue"]))
    status, lines = run(budgets, budgets.BudgetOptions)
    assert status == EXIT_OK
    assert lines == [
        "blue 2026-11: used 812.40 of 1000.00 Hours (81.24 %), left 187.6, forecast 1200.00; evaluated 2026-11-20T12:00:00",
        "red 2026-11: used 812.40 of 1000.00 EUR (81.24 %), left 187.60, no forecast yet; evaluated 2026-11-20T12:00:00",
        "  80 % used: reached 2026-11-20T12:00:00",
        "  not known: 3 samples are missing",
    ]


def test_one_budget_is_shown_as_json(context, run):
    result_of(context.budgets.keep_states([state(), state("blue")], ["red", "blue"]))
    status, [line] = run(budgets, budgets.BudgetOptions, "red", "--json")
    shown = json.loads(line)
    assert status == EXIT_OK
    assert (shown["budget_id"], shown["used"], shown["left"], shown["used_percent"]) == (
        "red",
        "812.40",
        "187.60",
        "81.24",
    )
    assert run(budgets, budgets.BudgetOptions, "--period", "2026-10")[1] == [budgets.NOTHING]


def test_webhooks_are_listed(context, run):
    queue(context, "msg_1")
    queue(context, "msg_2", target="chat", failed=True, error="POST: 410 gone")
    status, lines = run(webhooks, webhooks.WebhookOptions)
    assert status == EXIT_OK
    assert lines == [
        "msg_1 to billing, waiting since 2026-11-20T12:00:00, 3 attempts, next attempt 2026-11-20T12:00:00",
        "msg_2 to chat, failed since 2026-11-20T12:00:00, 3 attempts: POST: 410 gone",
    ]
    assert len(run(webhooks, webhooks.WebhookOptions, "list", "--target", "chat", "--json")[1]) == 1
    assert run(webhooks, webhooks.WebhookOptions, "list", "--target", "pager")[1] == ["no webhooks"]


def test_failed_webhooks_are_retried(context, run):
    queue(context, "msg_1")
    queue(context, "msg_2", failed=True)
    status, lines = run(webhooks, webhooks.WebhookOptions, "retry", "--failed")
    assert (status, len(lines)) == (EXIT_OK, 1)
    first, second = result_of(context.budgets.webhooks(10))
    assert first.attempts == 3
    assert (second.attempts, second.next_attempt_at) == (0, NOON)
    assert second.retry_until == NOON + timedelta(days=3)


def test_webhook_is_discarded_by_its_id(context, run):
    queue(context, "msg_1", "msg_2")
    assert run(webhooks, webhooks.WebhookOptions, "discard", "msg_2")[0] == EXIT_OK
    assert [each.id for each in result_of(context.budgets.webhooks(10))] == ["msg_1"]


def test_what_is_changed_is_recorded_before_it_is_done(context, run):
    ids = [f"msg_{number:03}" for number in range(webhooks.RECORDED_WEBHOOKS + 1)]
    queue(context, *ids)
    assert run(webhooks, webhooks.WebhookOptions, "list")[0] == EXIT_OK
    assert run(webhooks, webhooks.WebhookOptions, "retry", "msg_404")[0] == EXIT_FOUND_PROBLEMS
    assert context.recorded == []
    assert run(webhooks, webhooks.WebhookOptions, "retry", "msg_001")[0] == EXIT_OK
    assert run(webhooks, webhooks.WebhookOptions, "discard", "--target", "billing")[0] == EXIT_OK
    assert context.recorded == [
        ("webhook.retry", ["msg_001"], set(ids)),
        ("webhook.discard", ids[:-1], set(ids)),
        ("webhook.discard", ids[-1:], {ids[-1]}),
    ]
    assert result_of(context.budgets.webhooks(1000)) == []


def test_nothing_is_changed_while_the_audit_log_is_away(context, run):
    queue(context, "msg_1")
    context.log_is_away = True
    options = webhooks.WebhookOptions()
    options.parseOptions(["discard", "msg_1"])
    assert result_of(webhooks.work(context, options)).check(Unavailable)
    assert [each.id for each in result_of(context.budgets.webhooks(10))] == ["msg_1"]


def test_unknown_id_is_a_problem(context, run):
    queue(context, "msg_1")
    assert run(webhooks, webhooks.WebhookOptions, "retry", "msg_1", "msg_9")[0] == EXIT_FOUND_PROBLEMS


@pytest.mark.parametrize("words", [["retry"], ["discard"], ["delete", "msg_1"]])
def test_change_must_name_what_it_changes(words):
    with pytest.raises(usage.UsageError):
        webhooks.WebhookOptions().parseOptions(words)
