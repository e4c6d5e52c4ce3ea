"""Budgets on PostgreSQL: from samples to thresholds that are told once."""

from __future__ import annotations

import json
from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults

from meter.rating.book.price_directory import read_directory
from meter.rating.budgets.budget_evaluation import BudgetEvaluation
from meter.rating.budgets.budget_step import BudgetStep
from meter.rating.period import BillingPeriod
from meter.store import PostgresStore
from tests.store_messages import message
from tests.waiting import until

NOW = datetime(2026, 10, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)

PRICES = """
[[book]]
name = "eur"
currency = "EUR"
timezone = "Europe/Paris"
issuer = "Cloud"
default = true

[[sku]]
id = "requests"
usage = "sum"
meter = "requests"
unit = "Requests"
factor = 1
[[price]]
id = "requests"
sku = "requests"
price = "0.10"

[[sku]]
id = "memory"
usage = "integral"
meter = "memory"
unit = "MB-Hours"
factor = 1
[[price]]
id = "memory"
sku = "memory"
price = "0.01"

[[account]]
id = "acme"
projects = ["red", "blue"]

[[budget]]
id = "acme-eur"
account = "acme"
amount = "100"
used_percent = [50, 80, 100]
webhooks = ["billing"]

[[budget]]
id = "red-requests"
project = "red"
sku = "requests"
quantity = "1000"
used_percent = [50]
webhooks = ["billing"]
"""


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "prices.toml").write_text(PRICES)
    return read_directory(tmp_path, ["billing"])


@pytest.fixture
def store(postgresql):
    store = PostgresStore(
        reactor, postgresql.dsn_with_schema(), clock=reactor, migrate=True, readers=1, writers=1, rating_connections=3
    )
    store.startService()
    pytest_twisted.blockon(Deferred.fromCoroutine(until(lambda: store.readiness().ready)))
    yield store
    pytest_twisted.blockon(store.stopService())


def requests(volume, *, project="red", hour=0):
    return message(
        "requests",
        volume,
        at=NOW - 48 * HOUR + hour * HOUR,
        type="delta",
        resource_id=f"lb-{project}",
        project_id=project,
    )


def memory(minutes, run):
    return message(
        "memory",
        1024,
        at=NOW - 24 * HOUR + timedelta(minutes=minutes),
        type="gauge",
        resource_id="vm",
        project_id="red",
        metadata={"_meter": {"interval": 300, "run": run}},
    )


def step_of(store, directory):
    async def current():
        return directory

    return BudgetStep(store.rating.budgets, BudgetEvaluation(store.rating.usage, store, store, reactor), current)


async def evaluated(store, directory, now=NOW):
    book = directory.books["eur"]
    await store.rating.usage.refresh(book, BillingPeriod.containing(now, book.timezone), now)
    await step_of(store, directory).run(now)
    return {each.budget_id: each for each in await store.rating.budgets.states()}


async def told(store):
    messages = [json.loads(each.body)["data"] for each in await store.rating.budgets.webhooks(100)]
    return sorted((each["budget_id"], each["percent"]) for each in messages)


@pytest_twisted.ensureDeferred
async def test_samples_lead_to_thresholds_and_late_ones_to_further_ones(store, directory):
    await store.write([requests(300), requests(200, project="blue")])
    states = await evaluated(store, directory)
    assert (str(states["acme-eur"].used), str(states["red-requests"].used)) == ("50.00", "300")
    assert await told(store) == [("acme-eur", "50")]
    await store.write([requests(350, hour=1)])
    states = await evaluated(store, directory)
    assert (str(states["acme-eur"].used), states["red-requests"].used_percent) == ("85.00", 65)
    assert await told(store) == [("acme-eur", "50"), ("acme-eur", "80"), ("red-requests", "50")]
    assert states["acme-eur"].gaps == ()


@pytest_twisted.ensureDeferred
async def test_unmetered_time_is_told_as_a_gap(store, directory):
    await store.write(
        [
            *(memory(minutes, "before") for minutes in range(0, 60, 5)),
            *(memory(minutes, "after") for minutes in range(240, 300, 5)),
        ]
    )
    state = (await evaluated(store, directory))["acme-eur"]
    [gap] = state.gaps
    assert gap.code == "unmetered"
    assert gap.seconds >= 2 * 3600
    assert state.used < 10240 * 2 * 100


@pytest_twisted.ensureDeferred
async def test_two_collectors_tell_a_threshold_once(store, directory):
    await store.write([requests(900)])
    await evaluated(store, directory)
    await store.rating.budgets.discard_webhooks([each.id for each in await store.rating.budgets.webhooks(100)])
    await store.write([requests(150, project="blue")])
    book = directory.books["eur"]
    await store.rating.usage.refresh(book, BillingPeriod.containing(NOW, book.timezone), NOW)
    both = [Deferred.fromCoroutine(step_of(store, directory).run(NOW)) for _ in range(2)]
    await gatherResults(both)
    assert await told(store) == [("acme-eur", "100")]


@pytest_twisted.ensureDeferred
async def test_collector_that_is_killed_after_telling_tells_nothing_again(store, directory):
    """What it has stored is the threshold with its webhook, and not the state."""
    await store.write([requests(600)])
    budgets = store.rating.budgets
    keep, budgets.keep_states = budgets.keep_states, None
    with pytest.raises(TypeError):
        await evaluated(store, directory)
    budgets.keep_states = keep
    before = await budgets.webhooks(100)
    assert len(before) == 2
    states = await evaluated(store, directory, NOW + HOUR)
    assert await budgets.webhooks(100) == before
    assert states["acme-eur"].thresholds[0].reached_at == NOW
