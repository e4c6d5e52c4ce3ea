"""``meter-db retire-agent``: nothing is expected of an agent that will not report again, from its last cycle on."""

from __future__ import annotations

import json
from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest
import pytest_twisted
from twisted.internet import reactor

from meter.completeness_query import CompletenessQuery
from meter.cycle_report import InactivePollster
from meter.cycle_report import SeriesGroup
from meter.signing_keys import SigningKey
from meter.store import Act
from meter.store import Administration
from meter.store import NotRetirable
from tests.integration.test_store_completeness import boot_number
from tests.integration.test_store_completeness import ledger_of
from tests.integration.test_store_rollups import running
from tests.ledger_tables import cycle
from tests.ledger_tables import poll

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
"""The time of the agent's first cycle; it has two."""

LAST = NOON + timedelta(seconds=60)
AGENT = "meter-compute@old"
ACT = Act(who="alice", reason="scrapped", keys=[SigningKey("k", b"k")])


def group(host="old"):
    return SeriesGroup(("cpu", "memory"), (f"r1-{host}", f"r2-{host}"), "p1")


async def measured(store, host="old", boot=1, first=NOON):
    whole = poll(whole=True, series=(group(host),))
    await store.record_cycle_reports(
        [
            cycle(boot_number(boot), 1, first, whole, host=host, inactive=(InactivePollster("gpu", True, "off", ()),)),
            cycle(boot_number(boot), 2, first + timedelta(seconds=60), poll(), host=host),
        ]
    )


async def expected(store, hours, agent=AGENT):
    """The number of expected samples of so many hours from noon on."""
    query = CompletenessQuery(start=NOON, end=NOON + timedelta(hours=hours), agent=agent)
    return sum(row.expected for row in await store.completeness(query, datetime.now(UTC), 100))


@pytest.fixture
def administration(postgresql):
    dsn = postgresql.dsn_with_schema()
    made = Administration(reactor, dsn, clock=reactor)
    made.dsn = dsn
    yield made
    made.close()


@pytest_twisted.ensureDeferred
async def test_nothing_is_expected_of_a_retired_agent_after_its_last_cycle(postgresql, administration):
    async with running(administration.dsn) as store:
        await administration.open()
        await measured(store)
        await measured(store, host="other")
        assert await expected(store, 2) == 120 * 4

        counted = await administration.retire_agent(AGENT, None, Act(**{**vars_of(ACT), "dry_run": True}))
        assert (counted.resources, counted.entry, await expected(store, 2)) == (2, None, 120 * 4)
        done = await administration.retire_agent(AGENT, None, ACT)

        assert (done.resources, done.last_cycle) == (2, LAST)
        assert (done.entry.action, done.entry.who, done.entry.reason) == ("retire-agent", "alice", "scrapped")
        assert json.loads(done.entry.details)["agent"] == AGENT
        assert await expected(store, 2) == 2 * 4
        assert await expected(store, 2, "meter-compute@other") == 120 * 4
        tables = await ledger_of(store, postgresql, administration.dsn)
        assert {(row[0], row[-1] is None) for row in tables["inactive_pollster"]} == {
            (AGENT, False),
            ("meter-compute@other", True),
        }
        states = {each.agent: each.state for each in await store.agent_states(datetime.now(UTC))}
        assert states == {AGENT: "stopped", "meter-compute@other": "silent"}

        again = await administration.retire_agent(AGENT, None, ACT)
        assert (again.resources, again.entry) == (0, None)


@pytest_twisted.ensureDeferred
async def test_samples_are_expected_until_the_given_time(administration):
    async with running(administration.dsn) as store:
        await administration.open()
        await measured(store)
        await administration.retire_agent(AGENT, NOON + timedelta(minutes=10), ACT)
        assert await expected(store, 2) == 10 * 4


@pytest_twisted.ensureDeferred
async def test_retired_agent_that_returns_begins_with_its_next_list(postgresql, administration):
    async with running(administration.dsn) as store:
        await administration.open()
        await measured(store)
        until = NOON + timedelta(hours=1)
        await administration.retire_agent(AGENT, until, ACT)
        # A report that was on its way tells of its cycle, and expects nothing twice.
        late = cycle(boot_number(1), 3, NOON + timedelta(minutes=30), poll(whole=True, series=(group(),)), host="old")
        [result] = await store.record_cycle_reports([late])
        assert result.outcome == "applied"
        await measured(store, boot=2, first=NOON + timedelta(hours=2))
        rows = (await ledger_of(store, postgresql, administration.dsn))["metered_resource"]
        assert sorted({(row[6], row[7], row[8]) for row in rows}) == [(NOON, until, "retired"), (until, None, "")]


@pytest.mark.parametrize(
    ("agent", "until", "problem"),
    [
        ("meter-compute@nobody", None, "no agent"),
        (AGENT, NOON + timedelta(seconds=30), "measured until"),
        (AGENT, datetime(2999, 1, 1, tzinfo=UTC), "in the future"),
        ("meter-compute@alive", None, "still runs"),
        ("meter-compute@waits", None, "1 reports of meter-compute@waits wait"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_agent_that_may_still_measure_is_not_retired(administration, agent, until, problem):
    async with running(administration.dsn) as store:
        await administration.open()
        await measured(store)
        await measured(store, host="alive", first=datetime.now(UTC) - timedelta(seconds=90))
        await measured(store, host="waits")
        await store.record_cycle_reports([cycle(boot_number(1), 9, LAST + timedelta(hours=1), poll(), host="waits")])
        with pytest.raises(NotRetirable, match=problem):
            await administration.retire_agent(agent, until, ACT)
        assert await expected(store, 2) == 120 * 4


def vars_of(act):
    return {"who": act.who, "reason": act.reason, "keys": act.keys}
