"""The collector shows which corrections wait, and which accounts could be closed."""

from __future__ import annotations

from datetime import UTC
from datetime import date
from datetime import datetime
from datetime import timedelta
from decimal import Decimal

import pytest
import pytest_twisted

from meter.daemon.metrics import metrics_registry
from meter.daemon.statement_metrics import StatementMetrics
from meter.rating.statements.statements_step import StatementsStep
from meter.rating.statements.statements_step import WaitingCorrections
from meter.rating.statements.statements_step import last_period_over
from tests.closing_accounts import IN_DECEMBER
from tests.closing_accounts import Accounting
from tests.closing_accounts import with_text
from tests.price_books import account
from tests.price_books import book
from tests.price_books import directory
from tests.price_books import price
from tests.price_books import used
from tests.unit.daemon.test_metrics import series


class Shown:
    def __init__(self):
        self.waiting = []
        self.closings = []

    def corrections(self, waiting):
        self.waiting.append(dict(waiting))

    def closing(self, accounts, last_close):
        self.closings.append((accounts, last_close))


@pytest.fixture
def accounting():
    accounting = Accounting(directory(with_text(book(price())), account()), "shop", "web", "lab")
    accounting.usage.arrive([used(1, 10), used(30, 1, "lab")], IN_DECEMBER - timedelta(days=3))
    return accounting


def step_of(accounting, shown):
    async def present():
        return accounting.directory

    store = accounting.store
    return StatementsStep(store.rating, store, present, accounting.directories.__getitem__, shown, correct_periods=2)


@pytest_twisted.ensureDeferred
async def test_accounts_that_could_be_closed_are_counted_until_they_are(accounting):
    shown = Shown()
    step = step_of(accounting, shown)
    await accounting.usage.refresh(
        accounting.directory.books["list"],
        last_period_over(accounting.directory.books["list"], accounting.now),
        accounting.now,
    )
    await step.run(accounting.now)
    await accounting.close(accounts=["lab"])
    await step.run(accounting.now)
    await accounting.close()
    await step.run(accounting.now)
    assert shown.closings == [(2, None), (1, IN_DECEMBER), (0, IN_DECEMBER)]


@pytest_twisted.ensureDeferred
async def test_corrections_wait_until_they_are_billed_and_are_computed_once_an_hour(accounting):
    shown = Shown()
    step = step_of(accounting, shown)
    await accounting.close()
    await step.run(accounting.now)
    accounting.usage.arrive([used(9, 100), used(9, 3, "web"), used(date(2026, 12, 1), 1)], accounting.now)
    await step.run(accounting.now)
    accounting.at(accounting.now + timedelta(hours=1))
    await step.run(accounting.now)
    assert shown.waiting == [
        {"EUR": WaitingCorrections(0, Decimal(0))},
        {"EUR": WaitingCorrections(2, Decimal("10.30"))},
    ]
    accounting.at(datetime(2027, 1, 8, tzinfo=UTC))
    await accounting.close("2026-12", ["acme"])
    await step.run(accounting.now)
    assert shown.waiting[-1] == {"EUR": WaitingCorrections(0, Decimal(0))}


def test_period_is_over_when_its_days_of_grace_are():
    prices = book(price())
    assert last_period_over(prices, datetime(2026, 12, 5, 22, 59, tzinfo=UTC)).name == "2026-10"
    assert last_period_over(prices, datetime(2026, 12, 5, 23, tzinfo=UTC)).name == "2026-11"


def test_metrics_show_the_last_state():
    registry = metrics_registry("meter-collector")
    metrics = StatementMetrics(registry)
    metrics.corrections({"EUR": WaitingCorrections(2, Decimal("-10.30"))})
    metrics.corrections({"JPY": WaitingCorrections(1, Decimal(5))})
    metrics.closing(3, IN_DECEMBER)
    found = series(registry)
    assert found["meter_rating_pending_corrections[currency=JPY]"] == 1
    assert found["meter_rating_pending_correction_amount[currency=JPY]"] == 5
    assert "meter_rating_pending_corrections[currency=EUR]" not in found
    assert found["meter_rating_closable_accounts"] == 3
    assert found["meter_rating_last_close_timestamp_seconds"] == IN_DECEMBER.timestamp()
