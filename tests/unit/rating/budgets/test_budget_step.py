"""When thresholds are told: each once in a period, whatever happens."""

import json
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from decimal import Decimal

import pytest

from meter.interfaces import Unavailable
from meter.rating.budgets.account_spending import SpendingCalculation
from meter.rating.budgets.budget_step import BudgetError
from meter.rating.budgets.budget_store import ReachedThreshold
from meter.rating.budgets.budget_sum import BudgetSum
from meter.rating.exact import EXACT
from tests.unit.rating.budgets import conftest as budgets_conftest
from tests.unit.rating.budgets.conftest import budget


def told(site):
    """What was told, in order: budget, period, basis and percent; the queue is emptied."""
    messages = [json.loads(each.body) for each in site.webhooks]
    site.read(site.store.discard_webhooks([each.id for each in site.webhooks]))
    return sorted(
        (m["data"]["budget_id"], m["data"]["period"], m["data"]["basis"], m["data"]["percent"]) for m in messages
    )


@pytest.fixture
def watched(site):
    site.budgets = [budget(amount=100, used=(50, 80, 100), webhooks=("billing",))]
    return site


def test_nothing_is_told_below_a_threshold(watched):
    watched.use("49.99")
    state = watched.run()["b"]
    assert told(watched) == []
    assert [each.reached_at for each in state.thresholds] == [None, None, None]


def test_threshold_is_reached_exactly_and_told_once(watched):
    watched.use(50)
    at = watched.now
    assert [each.reached_at for each in watched.run()["b"].thresholds] == [at, None, None]
    assert told(watched) == [("b", "2026-11", "used", "50")]
    watched.now += timedelta(minutes=15)
    assert [each.reached_at for each in watched.run()["b"].thresholds] == [at, None, None]
    assert told(watched) == []


def test_thresholds_that_are_passed_at_once_are_each_told(watched):
    watched.use(90)
    watched.run()
    assert told(watched) == [("b", "2026-11", "used", "50"), ("b", "2026-11", "used", "80")]


def test_each_target_is_told(site):
    site.budgets = [budget(amount=1, webhooks=("billing", "chat", "billing"))]
    site.use(1)
    site.run()
    assert sorted(each.target for each in site.webhooks) == ["billing", "chat"]
    assert len({each.id for each in site.webhooks}) == 2
    assert {each.next_attempt_at for each in site.webhooks} == {site.now}


def test_budget_without_targets_has_thresholds_too(site):
    site.budgets = [budget(amount=1)]
    site.use(1)
    assert site.run()["b"].thresholds[0].reached_at == site.now
    assert site.webhooks == []


def test_restart_tells_nothing_again(watched):
    watched.use(60)
    watched.run()
    told(watched)
    watched.run(watched.new_step())
    assert told(watched) == []


def test_of_two_collectors_one_tells(watched):
    """The other one has told the threshold after this one has read what was told."""
    watched.use(60)
    other = ReachedThreshold(budget_id="b", period="2026-11", basis="used", percent=Decimal(50), at=watched.now)
    reach = watched.store.reach

    async def late(threshold, webhooks):
        await reach(other, [])
        return await reach(threshold, webhooks)

    watched.store.reach = late
    assert watched.run()["b"].thresholds[0].reached_at == watched.now
    assert told(watched) == []


def test_usage_that_falls_and_rises_again_is_not_told_twice(watched):
    watched.use(60)
    watched.run()
    watched.atoms[0] = replace(watched.atoms[0], quantity=Decimal(40))
    assert watched.run()["b"].used == 40
    watched.atoms[0] = replace(watched.atoms[0], quantity=Decimal(60))
    watched.run()
    assert told(watched) == [("b", "2026-11", "used", "50")]


def test_threshold_that_is_added_later_is_told(watched):
    watched.use(60)
    watched.run()
    told(watched)
    watched.budgets = [replace(watched.budgets[0], used_percent=(Decimal("50.0"), Decimal(55)))]
    watched.run()
    assert told(watched) == [("b", "2026-11", "used", "55")]


def test_edited_budget_does_not_tell_again_what_was_told(watched):
    watched.use(60)
    watched.run()
    told(watched)
    watched.budgets = [replace(watched.budgets[0], amount=Decimal(60))]
    watched.run()
    assert told(watched) == [("b", "2026-11", "used", "100"), ("b", "2026-11", "used", "80")]
    watched.budgets = [replace(watched.budgets[0], amount=Decimal(1000))]
    watched.run()
    watched.budgets = [replace(watched.budgets[0], amount=Decimal(60))]
    watched.run()
    assert told(watched) == []


def test_deleted_budget_tells_and_shows_nothing(watched):
    watched.use(60)
    watched.run()
    told(watched)
    watched.budgets = []
    watched.use(100, day=2)
    assert watched.run() == {}
    assert told(watched) == []


def test_forecast_threshold_is_told_before_the_usage_reaches_it(site):
    site.budgets = [budget(amount=100, sku="disk", forecast=(80, 100), webhooks=("billing",))]
    for day in range(1, 11):
        site.use(300, sku="disk", day=day)
    state = site.run()["b"]
    assert (str(state.used), str(state.forecast)) == ("30.00", "90.00")
    assert told(site) == [("b", "2026-11", "forecast", "80")]


def test_nothing_is_told_of_the_forecast_of_a_period_that_is_over(site):
    site.budgets = [budget(amount=100, forecast=(10,), webhooks=("billing",))]
    site.use(50, month=10)
    site.now = datetime(2026, 11, 1, 6, tzinfo=UTC)
    site.run()
    assert told(site) == []


def test_period_changes_at_the_midnight_of_the_book(watched):
    watched.use(60, day=30)
    watched.now = datetime(2026, 11, 30, 22, 59, tzinfo=UTC)
    assert watched.run()["b"].period == "2026-11"
    told(watched)
    watched.use(80, month=12)
    watched.now = datetime(2026, 11, 30, 23, 0, tzinfo=UTC)
    state = watched.run()["b"]
    assert (state.period, state.used) == ("2026-12", 80)
    assert told(watched) == [("b", "2026-12", "used", "50"), ("b", "2026-12", "used", "80")]


def test_usage_of_the_last_minutes_of_a_period_is_told_after_its_end(watched):
    watched.now = datetime(2026, 11, 30, 22, 59, tzinfo=UTC)
    watched.use(49)
    watched.run()
    watched.use(5, day=30)
    watched.now = datetime(2026, 11, 30, 23, 14, tzinfo=UTC)
    assert watched.run()["b"].period == "2026-12"
    assert told(watched) == [("b", "2026-11", "used", "50")]
    before = watched.read(watched.store.states(period="2026-11"))
    assert [(str(each.used), each.forecast) for each in before] == [("54.00", 54)]


def test_usage_that_arrives_after_the_days_of_grace_is_not_told(watched):
    watched.now = datetime(2026, 12, 3, 22, 59, tzinfo=UTC)
    watched.use(60)
    watched.run()
    assert told(watched) == [("b", "2026-11", "used", "50")]
    watched.use(100, day=2)
    watched.now = datetime(2026, 12, 3, 23, 0, tzinfo=UTC)
    watched.run()
    assert told(watched) == []


def test_new_year(watched):
    watched.use(60, month=12)
    watched.now = datetime(2027, 1, 1, 6, tzinfo=UTC)
    assert watched.run()["b"].period == "2027-01"
    assert told(watched) == [("b", "2026-12", "used", "50")]


def test_old_thresholds_are_forgotten_and_those_of_last_year_are_not(watched):
    watched.use(60)
    watched.run()
    told(watched)
    watched.now = datetime(2027, 12, 31, 12, tzinfo=UTC)
    watched.run()
    assert watched.read(watched.store.reached("2026-11")) != []
    watched.now = datetime(2028, 1, 1, 12, tzinfo=UTC)
    watched.run()
    assert watched.read(watched.store.reached("2026-11")) == []


def test_message_says_what_is_not_known(watched):
    watched.use(60, unmetered=7200)
    watched.run()
    [webhook] = watched.webhooks
    message = json.loads(webhook.body)
    assert message["type"] == "budget.threshold_reached"
    assert message["timestamp"] == "2026-11-11T12:00:00Z"
    data = message["data"]
    gap = data.pop("gaps")[0]
    assert (gap["code"], gap["seconds"]) == ("unmetered", 7200)
    assert data.pop("forecast")
    assert data.pop("forecast_percent")
    assert data == {
        "budget_id": "b",
        "budget_name": "Budget b",
        "project_id": "red",
        "account_id": None,
        "domain_id": None,
        "sku": None,
        "period": "2026-11",
        "period_start": "2026-10-31T23:00:00Z",
        "period_end": "2026-11-30T23:00:00Z",
        "basis": "used",
        "percent": "50",
        "limit": "100.00",
        "used": "60.00",
        "used_percent": "60.00",
        "left": "40.00",
        "currency": "EUR",
        "unit": None,
        "complete": False,
        "evaluated_at": "2026-11-11T12:00:00Z",
    }


def test_id_of_a_webhook_is_that_of_its_threshold(watched):
    watched.use(60)
    watched.run()
    [first] = watched.webhooks
    watched.store.__init__()
    watched.now += timedelta(hours=1)
    watched.run(watched.new_step())
    [again] = watched.webhooks
    assert first.id == again.id
    assert first.body != again.body


def test_nothing_is_done_without_a_price_directory(watched):
    watched.use(60)
    watched.no_directory = True
    with pytest.raises(Unavailable, match="no price directory"):
        watched.run()
    assert told(watched) == []


def test_delivery_is_woken_when_there_is_something_to_deliver(watched):
    watched.run()
    assert watched.woken == []
    watched.use(60)
    watched.run()
    watched.run()
    assert watched.woken == [watched.now]


def test_unavailable_store_is_told_and_the_next_run_tells_the_threshold(watched):
    watched.use(60)

    def fail():
        raise Unavailable("no database")

    watched.store._check = fail
    with pytest.raises(Unavailable, match="no database"):
        watched.run()
    watched.store._check = lambda: None
    watched.run()
    assert told(watched) == [("b", "2026-11", "used", "50")]


@pytest.fixture
def two_budgets(site):
    """Budgets of two projects of one account, and one of a project of another."""
    site.accounts = (
        *site.accounts,
        replace(site.accounts[0], id="other", projects=(replace(site.accounts[0].projects[0], id="green"),)),
    )
    site.budgets = [
        budget("a", amount=5, webhooks=("billing",)),
        budget("b", amount=5, scope={"project": "green"}, webhooks=("billing",)),
    ]
    return site


def test_a_hostile_number_is_a_state_and_stops_no_budget(two_budgets):
    two_budgets.use(Decimal("1e308"))
    two_budgets.use(6, project="green")
    states = two_budgets.run()
    assert states["a"].used_percent == EXACT.add(Decimal("1e309"), Decimal(1000))  # 100 hours cost 1.00, not 0.50
    assert states["b"].used_percent == 120
    assert [each[0] for each in told(two_budgets)] == ["a", "b"]


def test_a_number_with_too_many_digits_stops_only_the_budgets_that_count_it(two_budgets):
    two_budgets.use(6)
    two_budgets.use(6, project="green")
    before = two_budgets.run()["a"]
    two_budgets.use(Decimal("1e2000"), day=2)
    two_budgets.use(1, project="green", day=2)
    two_budgets.now += timedelta(hours=1)
    with pytest.raises(BudgetError, match="1 budgets are not evaluated and keep their last states, first a of 2026-11"):
        two_budgets.run()
    states = {each.budget_id: each for each in two_budgets.read(two_budgets.store.states())}
    assert states["a"] == before
    assert (states["b"].used, states["b"].evaluated_at) == (7, two_budgets.now)


@pytest.mark.parametrize("failing", ["calculation", "sum", "state"])
def test_an_error_of_one_budget_does_not_stop_the_others(two_budgets, monkeypatch, failing):
    two_budgets.use(6)
    two_budgets.use(6, project="green")

    def fails(original, is_hostile):
        def work(self, *args):
            if is_hostile(self, *args):
                raise RuntimeError("hostile")
            return original(self, *args)

        return work

    result, add, state = SpendingCalculation.results, BudgetSum.add, BudgetSum.state
    if failing == "calculation":
        monkeypatch.setattr(SpendingCalculation, "results", fails(result, lambda self: self._account.id == "acme"))
    elif failing == "sum":
        monkeypatch.setattr(BudgetSum, "add", fails(add, lambda self, *_: self.budget.id == "a"))
    else:
        monkeypatch.setattr(BudgetSum, "state", fails(state, lambda self, *_: self.budget.id == "a"))
    with pytest.raises(BudgetError, match="first a of 2026-11: hostile"):
        two_budgets.run()
    assert [each.budget_id for each in two_budgets.read(two_budgets.store.states())] == ["b"]
    assert told(two_budgets) == [("b", "2026-11", "used", "100")]


def test_budgets_are_evaluated_until_long_days_of_grace_are_over(watched, monkeypatch):
    monkeypatch.setattr(budgets_conftest, "EUR", replace(budgets_conftest.EUR, grace_days=45))
    watched.now = datetime(2027, 1, 10, 12, tzinfo=UTC)
    watched.use(60)
    watched.run()
    assert told(watched) == [("b", "2026-11", "used", "50")]
