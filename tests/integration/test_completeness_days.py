"""Summaries of hours and days: answers from them are those that are computed, and what arrives later makes them invalid."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from meter.completeness_query import CompletenessQuery
from meter.store import PostgresStore
from meter.store.maintenance.voiding import Act
from meter.store.maintenance.voiding import Selection
from meter.store.maintenance.voiding import void
from meter.store.postgres.pool import Pool
from tests.ledger_rows import LedgerRows
from tests.ledger_rows import seconds
from tests.ledger_rows import time
from tests.store_messages import KEYS
from tests.store_messages import NOON
from tests.store_messages import message
from tests.waiting import until

DAY = 86400
END = 3 * DAY + DAY // 2
START = NOON.replace(hour=0)
LATER = NOON + timedelta(days=7)
PERIOD = {"start": START, "end": START + timedelta(days=4)}
QUESTIONS = [
    CompletenessQuery(**PERIOD, **scope, group=group, by=by)
    for scope in ({}, {"project_id": "p2"}, {"agent": "meter-compute@hv1"}, {"meter": "memory"})
    for group in (None, "agent", "project_id", "meter")
    for by in (None, "day")
]


@pytest.fixture
def site(postgresql):
    dsn = postgresql.dsn_with_schema()
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=1, writers=1, maintain=True)
    store.maintenance._periodic.startService = lambda: None  # tests run maintenance themselves
    store.startService()
    pytest_twisted.blockon(
        Deferred.fromCoroutine(until(lambda: store.readiness().ready and store.maintenance._pool.ready))
    )
    yield store, lambda statement: postgresql.execute(statement, dsn)
    pytest_twisted.blockon(store.stopService())


async def fill(store, execute):
    """Half a day and three days of two agents, with missing samples for several causes, finalized and not summarized."""
    rows = LedgerRows()
    first, second = rows.agent("hv1"), rows.agent("hv2")
    rows.run(first, 0, END - 300)
    rows.run(second, 0, DAY)
    rows.run(second, DAY + 3600, END - 300, boot="00000000-0000-0000-0000-000000000002")
    for n in range(4):
        rows.metered(first if n < 2 else second, f"r{n}", project=f"p{n % 3}", meters=("cpu", "memory"))
    rows.exception(first, "poll failed", 7200, 10800, reason="libvirt: timeout")
    for statement in rows.statements():
        execute(statement)
    messages = [
        message(
            meter,
            at=at,
            resource_id=f"r{n}",
            project_id=f"p{n % 3}",
            metadata={"_meter": {"interval": 300}},
        )
        for n in range(4)
        for at in range(0, END, 300)
        for meter in ("cpu", "memory")
        if not (n == 3 and at == 3000) and not (n < 2 and 7200 <= at < 10800) and not (n >= 2 and DAY < at < DAY + 3600)
    ]
    for n in range(0, len(messages), 1000):
        await store.write(messages[n : n + 1000])
    await store.maintenance.finalize(LATER)
    execute("DELETE FROM completeness_day; DELETE FROM completeness_change")


async def answers(store, execute, *, valid):
    """The answers to all questions, while exactly ``valid`` days have valid summaries."""
    assert execute("SELECT count(*) FROM completeness_day WHERE level = 0") >= [(valid,)]
    return [await store.completeness(question, LATER, 1000) for question in QUESTIONS]


@pytest_twisted.ensureDeferred
async def test_answers_from_summaries_are_those_that_are_computed(site):
    store, execute = site
    await fill(store, execute)
    computed = await answers(store, execute, valid=0)

    await store.maintenance.summarize(LATER)

    assert await answers(store, execute, valid=4) == computed
    [total] = await store.completeness(CompletenessQuery(**PERIOD), LATER, 1)
    assert total.causes == {"agent not running": 2 * 2 * 11, "poll failed": 2 * 2 * 12, "unknown": 2}
    # What is read is the summary: without its rows, nothing is expected of a day that has one.
    execute("DELETE FROM completeness_day WHERE level = 4")
    assert await store.completeness(CompletenessQuery(**PERIOD, group="meter"), LATER, 10) == []


@pytest_twisted.ensureDeferred
async def test_late_sample_is_received_when_its_hour_is_final_again(site):
    store, execute = site
    await fill(store, execute)
    await store.maintenance.summarize(LATER)

    await store.write([message(at=3000, resource_id="r3", project_id="p0", metadata={"_meter": {"interval": 300}})])
    [at_once] = await store.completeness(CompletenessQuery(**PERIOD), LATER, 1)
    await store.maintenance.finalize(LATER)
    [reopened] = await store.completeness(CompletenessQuery(**PERIOD), LATER, 1)
    await store.maintenance.summarize(LATER)
    [summarized] = await store.completeness(CompletenessQuery(**PERIOD), LATER, 1)

    # One of two is here; the other may still arrive, as the hour is open again.
    assert at_once.causes["not finalized"] == 1
    assert reopened.causes["unknown"] == summarized.causes["unknown"] == 1
    assert reopened == summarized


@pytest_twisted.ensureDeferred
async def test_sample_that_was_not_late_makes_a_summary_invalid_too(site):
    """It is recorded half an hour after its time, when its day is over and summarized."""
    store, execute = site
    await fill(store, execute)
    await store.maintenance.summarize(LATER)

    await store.write([message(at=3000, resource_id="r3", project_id="p0", metadata={"_meter": {"interval": 300}})])
    execute("DELETE FROM late_sample; DELETE FROM completeness_change")
    await store.maintenance.finalize(LATER)

    [reopened] = await store.completeness(CompletenessQuery(**PERIOD), LATER, 1)
    assert reopened.causes["unknown"] == 1


@pytest_twisted.ensureDeferred
async def test_voided_samples_make_a_summary_invalid(site):
    """All of an hour are voided, which is therefore not finalized again."""
    store, execute = site
    await fill(store, execute)
    await store.maintenance.summarize(LATER)
    hour = NOON + timedelta(hours=5)
    [(chosen,)] = execute(
        f"SELECT array_agg(message_id::text) FROM sample WHERE date_trunc('hour', timestamp, 'UTC') = '{hour.isoformat()}'"
    )
    act = Act(who="admin", reason="wrong", keys=KEYS.keys)

    await store._writers.run(partial(void, selection=Selection(ids=chosen), act=act))
    await store.maintenance.finalize(LATER)
    [at_once] = await store.completeness(CompletenessQuery(**PERIOD), LATER, 1)
    await store.maintenance.summarize(LATER)
    summarized = await answers(store, execute, valid=4)

    assert at_once.causes["voided"] == len(chosen)
    assert execute("SELECT sum(samples) FROM completeness_day_loss WHERE level = 0 AND cause = 'voided'") == [
        (len(chosen),)
    ]
    assert summarized[0] == [at_once]


@pytest.mark.parametrize(
    "statement",
    [
        # A report of the day that was spooled for long: other cycles ran, another cause, another resource, and its end.
        f"UPDATE cycle_run SET last_due = {time(seconds(DAY + 600))}, cycles = cycles + 2 WHERE last_due = {time(seconds(DAY))}",
        "INSERT INTO polling_exception (agent_id, pollster, interval, resource, cause, reason, from_time, until_time, cycles, samples)"
        f" VALUES (2, 'cpu', 300, 'r3', 'domain hung', '', {time(seconds(3000))}, {time(seconds(3300))}, 1, 2)",
        "INSERT INTO metered_resource SELECT agent_id, pollster, interval, 'r9', project, meter_list_id, first_due, until_due"
        " FROM metered_resource WHERE resource = 'r1'",
        f"UPDATE metered_resource SET until_due = {time(seconds(3600))} WHERE resource = 'r1'",
        f"INSERT INTO rejected_sample VALUES ({time(seconds(0))}, 'cpu', 'r3', 'p0', 'conflict', 1)",
        "INSERT INTO inactive_pollster (agent_id, pollster, disabled, reason, meters, since)"
        f" VALUES (2, 'cpu', true, '', '{{}}', {time(seconds(DAY))})",
        "INSERT INTO off_schedule_poll SELECT agent_id, pollster, first_due + interval '100 s', resource, project, meter_list_id"
        " FROM metered_resource WHERE resource = 'r1'",
    ],
    ids=["cycles", "exception", "resource", "end", "rejection", "inactive", "off schedule"],
)
@pytest_twisted.ensureDeferred
async def test_what_becomes_known_later_makes_a_summary_invalid(site, statement):
    store, execute = site
    await fill(store, execute)
    await store.maintenance.summarize(LATER)
    before = await answers(store, execute, valid=4)

    execute(statement)
    at_once = await answers(store, execute, valid=4)
    await store.maintenance.summarize(LATER)

    assert at_once != before
    assert await answers(store, execute, valid=4) == at_once


HOUR_QUESTIONS = [
    CompletenessQuery(**PERIOD, **scope, group=group, by=by)
    for scope, group in (
        ({}, None),
        ({}, "agent"),
        ({}, "meter"),
        ({"project_id": "p2"}, None),
        ({"agent": "meter-compute@hv1"}, None),
    )
    for by in (None, "day", "hour")
]


class Statements:
    """Counts the rows that the statements of a store return."""

    def __init__(self, monkeypatch):
        self.rows = 0
        run = Pool.rows

        async def counted(pool, statement, parameters=None):
            found = await run(pool, statement, parameters)
            self.rows += len(found)
            return found

        monkeypatch.setattr(Pool, "rows", counted)


@pytest_twisted.ensureDeferred
async def test_hours_answer_where_days_are_not_summarized_and_for_the_present_day(site, monkeypatch):
    """It is 23:00 of the fourth day, whose last two hours are not final."""
    store, execute = site
    await fill(store, execute)
    now = NOON + timedelta(seconds=END - 3600)
    execute(f"DELETE FROM final_period WHERE start >= {time(seconds(END - 7200))}")
    computed = [await store.completeness(question, now, 1000) for question in HOUR_QUESTIONS]

    for _ in range(2):
        await store.maintenance.summarize(now)
    execute("DELETE FROM completeness_day; DELETE FROM completeness_hour WHERE start > '2026-11-25'")
    summarized = [await store.completeness(question, now, 1000) for question in HOUR_QUESTIONS]
    statements = Statements(monkeypatch)
    since = START + timedelta(days=2)
    [row] = await store.completeness(CompletenessQuery(start=since, end=now - timedelta(hours=2)), now, 9)
    read = statements.rows

    hours = execute("SELECT count(DISTINCT start), min(start), max(level) FROM completeness_hour")
    assert hours == [(24 + 24 + 22, START + timedelta(days=1), 4)]
    assert summarized == computed
    # Of each hour a row says that it is summarized, and one has the sum; no series is read.
    assert (row.expected, read) == (4 * 2 * 12 * 45, 2 * 45)
    # Summaries at both ends of a day are read, what is in between is computed at once.
    for lost in ([27], [24, 29, 47]):
        starts = ", ".join(f"'{(START + timedelta(hours=each)).isoformat()}'" for each in lost)
        execute(f"DELETE FROM completeness_hour WHERE start IN ({starts})")
        assert [await store.completeness(question, now, 1000) for question in HOUR_QUESTIONS] == computed
    await store.maintenance.summarize(now + timedelta(days=15))
    assert execute("SELECT min(start) >= '2026-11-21T23:00Z' FROM completeness_hour") in ([(True,)], [(None,)])


@pytest_twisted.ensureDeferred
async def test_report_about_an_hour_of_today_makes_its_summary_invalid(site):
    """The hours are relative to the clock of the database, which says what is over."""
    _, execute = site
    rows = LedgerRows()
    agent = rows.agent()
    [[hour]] = execute("SELECT extract(epoch FROM date_trunc('hour', now(), 'UTC'))::float8")
    begin = hour - NOON.timestamp() - 7200
    rows.run(agent, begin, begin + 3300)
    rows.metered(agent, since=begin)
    for statement in rows.statements():
        execute(statement)
    execute("DELETE FROM completeness_change")

    execute(
        f"UPDATE cycle_run SET last_due = last_due + interval '300 s' WHERE last_due = {time(seconds(begin + 3300))}"
    )

    [[first, last]] = execute("SELECT from_time, until_time FROM completeness_change")
    assert (first.timestamp(), last.timestamp()) == (seconds(begin + 3300), seconds(begin + 3600))


@pytest_twisted.ensureDeferred
async def test_day_that_is_not_over_is_not_summarized(site):
    store, execute = site
    await fill(store, execute)

    await store.maintenance.summarize(START + timedelta(days=2))

    assert execute("SELECT max(start) FROM completeness_day") == [(START,)]
