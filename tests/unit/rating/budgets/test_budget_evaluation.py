"""What a budget counts: of whom, in which currency or unit, and what is told of usage that is not known."""

from dataclasses import replace
from datetime import UTC
from datetime import date
from datetime import datetime
from decimal import Decimal

import pytest

from meter.rating.book.price_book import Membership
from meter.rating.book.price_book import Validity
from meter.rating.budgets.budget_sum import BudgetSum
from tests.unit.rating.budgets.conftest import ACCOUNTS
from tests.unit.rating.budgets.conftest import budget


def gaps(state):
    return {each.code: each for each in state.gaps}


def test_amount_of_a_project_is_net_of_taxes_and_priced_in_its_account(site):
    site.budgets = [budget(amount=50)]
    site.use(90, project="blue", day=1)
    site.use(20, project="red", day=2)
    state = site.run()["b"]
    assert str(state.used) == "15.00"  # 10 at 1.00, then 10 at 0.50: the tiers count both projects of the account
    assert (str(state.limit), str(state.left), state.used_percent) == ("50.00", "35.00", Decimal(30))
    assert (state.currency, state.unit, state.period) == ("EUR", None, "2026-11")
    assert state.start == datetime(2026, 10, 31, 23, tzinfo=UTC)
    assert state.end == datetime(2026, 11, 30, 23, tzinfo=UTC)
    assert state.evaluated_at == site.now
    assert state.gaps == ()


def test_scopes_add_up(site):
    scopes = {
        "red": {"project": "red"},
        "blue": {"project": "blue"},
        "acme": {"account": "acme"},
        "own": {"account": "green"},
        "d1": {"domain": "d1"},
        "all": {},
        "nobody": {"project": "nobody"},
    }
    site.budgets = [budget(id, amount=1000, scope=scope) for id, scope in scopes.items()]
    for project, hours in (("red", 10), ("blue", 20), ("green", 30), ("grey", 40), ("other", 50), ("", 5)):
        site.use(hours, project=project)
    used = {id: state.used for id, state in site.run().items()}
    assert used == {
        "red": 10,
        "blue": 20,
        "acme": 30,
        "own": 30,
        "d1": 70,
        "all": 180,
        "nobody": 0,
    }  # 30 are the charge of a project without usage


def test_sku_budget_counts_its_sku_alone(site):
    site.budgets = [budget("amount", amount=100, sku="disk"), budget("quantity", quantity="2000.50", sku="disk")]
    site.use(10)
    site.use("1000.25", sku="disk")
    states = site.run()
    assert str(states["amount"].used) == "10.00"
    quantity = states["quantity"]
    assert (str(quantity.used), str(quantity.limit), str(quantity.left)) == ("1000.25", "2000.5", "1000.25")
    assert (quantity.currency, quantity.unit) == (None, "GB-Hours")


def test_unpriced_usage_is_a_gap_of_amounts_and_counts_as_quantity(site):
    site.budgets = [budget("amount", amount=100), budget("quantity", quantity=100, sku="unpriced")]
    site.use(7, sku="unpriced")
    states = site.run()
    assert states["amount"].used == 0
    assert gaps(states["amount"])["unpriced"].text == "7 Hours of SKU unpriced have no price"
    assert states["quantity"].used == 7
    assert states["quantity"].gaps == ()


def test_fixed_charge_of_a_project_without_usage_counts(site):
    site.budgets = [budget(amount=100, scope={"project": "idle"})]
    assert str(site.run()["b"].used) == "30.00"


def test_forecast_continues_the_usage_of_the_days_that_are_over(site):
    site.budgets = [budget(amount=10, sku="disk"), budget("hours", quantity=1000, sku="disk")]
    for day in range(1, 11):
        site.use(24, sku="disk", day=day)
    states = site.run()
    assert str(states["b"].used) == "2.40"
    assert str(states["b"].forecast) == "7.20"
    assert states["b"].forecast_percent == 72
    assert str(states["hours"].forecast) == "720"


def test_no_forecast_is_made_of_the_first_hours(site):
    site.budgets = [budget(amount=10)]
    site.use(1)
    site.now = datetime(2026, 11, 1, 12, tzinfo=UTC)
    assert site.run()["b"].forecast is None
    site.now = datetime(2026, 11, 2, 12, tzinfo=UTC)
    assert site.run()["b"].forecast is not None


def test_unmetered_time_is_a_gap_of_the_budgets_that_it_concerns(site):
    site.budgets = [
        budget("red", amount=9),
        budget("disk", quantity=9, sku="disk"),
        budget("blue", amount=9, scope={"project": "blue"}),
        budget("acme", amount=9, scope={"account": "acme"}),
    ]
    site.use(1, unmetered=3000)
    site.use(1, unmetered=600, day=2)
    states = site.run()
    assert gaps(states["red"])["unmetered"].seconds == gaps(states["acme"])["unmetered"].seconds == 3600
    assert "3600 s" in gaps(states["red"])["unmetered"].text
    assert states["disk"].gaps == states["blue"].gaps == ()


def test_missing_samples_are_a_gap(site):
    site.budgets = [
        budget("red", amount=9),
        budget("disk", quantity=9, sku="disk"),
        budget("acme", amount=9, scope={"account": "acme"}),
        budget("d1", amount=9, scope={"domain": "d1"}),
    ]
    site.missing = {("red", "vm"): 3, ("red", "disk"): 2, ("blue", "vm"): 4, (None, "vm"): 8}
    states = site.run()
    samples = {id: sum(each.samples for each in state.gaps) for id, state in states.items()}
    assert samples == {"red": 5, "disk": 2, "acme": 9, "d1": 0}
    assert {(each.start, each.end) for each in site.queries} == {
        (datetime(2026, 10, 31, 23, tzinfo=UTC), datetime(2026, 11, 11, 11, tzinfo=UTC))
    }


def test_usage_in_another_currency_is_a_gap(site):
    site.domains["green"] = "jp"
    site.budgets = [budget("all", amount=1000, scope={}), budget("jp", amount=1000, scope={"domain": "jp"})]
    site.use(3, project="red")
    site.use(5, project="kyoto")
    states = site.run()
    assert (str(states["all"].used), states["all"].currency) == ("33.00", "EUR")
    assert gaps(states["all"])["other currency"].text == "usage that is billed in JPY is not counted"
    assert (str(states["jp"].used), states["jp"].currency) == ("500", "JPY")
    assert states["jp"].gaps == ()
    assert states["jp"].start == datetime(2026, 10, 31, 15, tzinfo=UTC)


def test_project_that_changes_its_account_counts_with_both(site):
    site.accounts = [
        replace(ACCOUNTS[0], projects=(Membership(id="red", validity=Validity(until=date(2026, 11, 5))),)),
        replace(ACCOUNTS[0], id="new", projects=(Membership(id="red", validity=Validity(since=date(2026, 11, 5))),)),
    ]
    site.budgets = [
        budget("red", amount=1000),
        budget("acme", amount=1000, scope={"account": "acme"}),
        budget("new", amount=1000, scope={"account": "new"}),
    ]
    for day in (1, 4, 5, 6, 7):
        site.use(10, day=day)
    assert {id: state.used for id, state in site.run().items()} == {"red": 50, "acme": 20, "new": 30}


def test_project_that_returns_to_its_account_counts_once(site):
    ranges = (Validity(until=date(2026, 11, 5)), Validity(since=date(2026, 11, 7)))
    site.accounts = [
        replace(ACCOUNTS[0], projects=tuple(Membership(id="red", validity=each) for each in ranges)),
    ]
    site.budgets = [budget("red", amount=1000), budget("acme", amount=1000, scope={"account": "acme"})]
    for day in (1, 4, 5, 6, 7):
        site.use(10, day=day)
    assert {id: state.used for id, state in site.run().items()} == {"red": 50, "acme": 30}


def test_sku_that_the_book_does_not_have_is_a_gap(site):
    site.budgets = [budget(quantity=9, sku="gpu")]
    state = site.run()["b"]
    assert (state.used, state.unit) == (0, "")
    assert gaps(state).keys() == {"no sku"}


def test_many_accounts_are_rated_in_turns_of_the_reactor(site):
    site.budgets = [budget(amount=10_000, scope={})]
    for number in range(250):
        site.use(1, project=f"p{number:03}")
    assert site.run()["b"].used == 250 + 30


def test_account_is_compared_with_the_budgets_that_count_it_alone(site, monkeypatch):
    added = []
    add = BudgetSum.add
    monkeypatch.setattr(
        BudgetSum, "add", lambda self, spending, *rest: (added.append(self), add(self, spending, *rest))
    )
    projects = [f"p{number:03}" for number in range(60)]
    for project in projects:
        site.use(1, project=project)
    site.budgets = [budget(project, amount=10, scope={"project": project}) for project in projects]
    assert {state.used for state in site.run().values()} == {1}
    assert len(added) == 60


@pytest.mark.parametrize("amount", ["0.00", "0"])
def test_budget_of_nothing_has_no_percentage(site, amount):
    site.budgets = [replace(budget(), amount=Decimal(amount))]
    site.use(1)
    state = site.run()["b"]
    assert (state.used_percent, str(state.left)) == (None, "-1.00")
    assert state.thresholds[0].reached_at == site.now
