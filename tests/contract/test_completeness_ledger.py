"""The contract of ICompletenessLedger: the same tests for the in-memory store and for PostgreSQL."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from meter.completeness_query import CompletenessQuery
from meter.completeness_query import ICompletenessLedger
from meter.completeness_store import ReceivedCycle
from meter.cycle_report import CycleReport
from meter.cycle_report import PollReport
from meter.cycle_report import SeriesGroup
from meter.cycle_report import SkipReport
from meter.sample import utc_text
from meter.store import PostgresStore
from meter.testing import MemoryStore
from tests.archived import before_reads
from tests.ledger_rows import TABLES
from tests.ledger_rows import LedgerRows
from tests.packed import TABLES as PACKED_TABLES
from tests.spread import server_and_dsn
from tests.store_messages import NOON
from tests.store_messages import after
from tests.store_messages import message
from tests.waiting import until

LATER = after(10 * 86400)
"""When everything is final."""

HOUR = CompletenessQuery(start=NOON, end=after(3600))
OTHER_BOOT = str(uuid.UUID(int=2))


@pytest.fixture(scope="module")
def database(request):
    return request.getfixturevalue("postgresql").dsn_with_schema()


@pytest.fixture(params=["memory", "postgresql", "packed", "archived", "spread"])
def store(request):
    if request.param == "memory":
        memory = MemoryStore(reactor)
        memory.fill = lambda rows: rows.into_memory(memory)
        memory.finalize = _nothing_to_do
        memory.void = lambda times: _void_in_memory(memory, times)
        yield memory
        return
    server, dsn = server_and_dsn(request, request.param)
    with before_reads(request, dsn):
        store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=1, writers=1, maintain=True)
        # Tests finalize themselves: what runs as well would summarize, or forget, by the day on which they run.
        store.maintenance._periodic.startService = lambda: None
        store.startService()
        pytest_twisted.blockon(
            Deferred.fromCoroutine(until(lambda: store.readiness().ready and store.maintenance._pool.ready))
        )
        store.fill = lambda rows: rows.into_postgresql(server, dsn)
        store.finalize = lambda: store.maintenance.finalize(LATER)
        store.void = lambda times: _void_in_postgresql(server, dsn, times)
        yield store
        pytest_twisted.blockon(store.stopService())
    server.execute(
        f'TRUNCATE sample, voided_sample, rollup, final_period, series, meter, resource, project, "user", source, {", ".join((*TABLES, *PACKED_TABLES))} RESTART IDENTITY',
        dsn,
    )


async def write(store, times, *, resource_id="r1", name="cpu", project_id="p1", interval=300):
    metadata = {"_meter": {"interval": interval}} if interval else {}
    messages = [message(name, at=at, resource_id=resource_id, project_id=project_id, metadata=metadata) for at in times]
    await store.write(messages)
    await store.finalize()


def _void_in_memory(store, times):
    for rows in store._rows.values():
        store.voided_samples += [row for row, _ in rows if row.timestamp in map(after, times)]
        rows[:] = [each for each in rows if each[0].timestamp not in map(after, times)]


def _void_in_postgresql(server, dsn, times):
    server.execute(
        "INSERT INTO voided_sample SELECT s.*, now(), 'admin', 'wrong', 1 FROM sample s WHERE timestamp IN ({times});"
        " DELETE FROM sample WHERE timestamp IN ({times});"
        " DELETE FROM rollup; DELETE FROM final_period".format(
            times=", ".join(f"'{after(at).isoformat()}'" for at in times)
        ),
        dsn,
    )


async def _nothing_to_do():
    """Hours are final some time after their end."""


def every_300_seconds(start, end):
    return range(start, end, 300)


async def one_row(store, query=HOUR, now=LATER):
    [row] = await store.completeness(query, now, 10)
    assert row.expected == row.received + row.missing
    return row


@pytest.fixture
def rows():
    return LedgerRows()


@pytest.fixture
def healthy(rows):
    """One agent that measures one resource for a day from noon."""
    agent = rows.agent()
    rows.run(agent, 0, 86100)
    rows.metered(agent)
    return rows


def test_store_provides_the_ledger(store):
    verifyObject(ICompletenessLedger, store)


@pytest_twisted.ensureDeferred
async def test_hour_with_all_samples_is_complete(store, healthy):
    store.fill(healthy)
    await write(store, every_300_seconds(0, 86400))

    row = await one_row(store)

    assert (row.expected, row.received, row.missing, row.percent) == (12, 12, 0, 100)


@pytest_twisted.ensureDeferred
async def test_nothing_is_expected_without_reports(store, rows):
    store.fill(rows)
    await write(store, every_300_seconds(0, 3600))

    row = await one_row(store)

    assert (row.expected, row.received, row.percent) == (0, 0, None)


@pytest_twisted.ensureDeferred
async def test_missing_sample_that_nothing_explains_is_unknown_and_not_complete(store, healthy):
    store.fill(healthy)
    await write(store, [at for at in every_300_seconds(0, 86400) if at != 1200])

    row = await one_row(store)

    assert (row.expected, row.received, row.causes) == (12, 11, {"unknown": 1})
    assert row.percent == 91.6666


@pytest_twisted.ensureDeferred
async def test_samples_from_notifications_are_not_counted(store, healthy):
    store.fill(healthy)
    await write(store, every_300_seconds(0, 3300))
    await write(store, [3300], interval=0)

    assert (await one_row(store)).causes == {"unknown": 1}


@pytest_twisted.ensureDeferred
async def test_surplus_of_one_series_does_not_hide_the_loss_of_another(store, rows):
    agent = rows.agent()
    rows.run(agent, 0, 86100)
    rows.metered(agent, "r1")
    rows.metered(agent, "r2")
    store.fill(rows)
    await write(store, every_300_seconds(0, 3300), resource_id="r1")
    await write(store, [*every_300_seconds(0, 3600), 77], resource_id="r2")

    row = await one_row(store)

    assert (row.expected, row.received, row.unexpected, row.causes) == (24, 23, 1, {"unknown": 1})


@pytest_twisted.ensureDeferred
async def test_missed_cycles_are_the_time_when_the_agent_was_not_running(store, rows):
    agent = rows.agent()
    rows.run(agent, 0, 600)
    rows.run(agent, 1800, 86100, boot=OTHER_BOOT)
    rows.metered(agent)
    store.fill(rows)
    await write(store, [*every_300_seconds(0, 900), *every_300_seconds(1800, 86400)])

    assert (await one_row(store)).causes == {"agent not running": 3}
    [gap] = await store.completeness_gaps(HOUR, LATER, 10)
    assert (gap.start, gap.end, gap.cause, gap.samples) == (after(900), after(1800), "agent not running", 3)
    assert (gap.agent, gap.pollster, gap.resources, gap.exact) == ("meter-compute@hv1", None, ("r1",), True)
    assert gap.reason == "the agent was not stopped in an orderly way, and started again"


@pytest_twisted.ensureDeferred
async def test_restart_within_one_and_a_half_intervals_misses_no_cycle(store, rows):
    agent = rows.agent()
    rows.run(agent, 0, 600)
    rows.run(agent, 1049, 1200, cycles=2, boot=OTHER_BOOT)
    rows.run(agent, 1500, 86100, boot=OTHER_BOOT)
    rows.metered(agent)
    store.fill(rows)
    await write(store, [0, 300, 600, 1049, *every_300_seconds(1200, 86400)])

    row = await one_row(store)

    assert (row.expected, row.missing) == (12, 0)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("cause", ["poll failed", "domain hung", "skipped", "spool dropped"])
async def test_exception_of_the_agent_explains_its_missing_samples(store, healthy, cause):
    healthy.exception(1, cause, 600, 1200, reason="because")
    store.fill(healthy)
    await write(store, [at for at in every_300_seconds(0, 86400) if at not in (600, 900)])

    row = await one_row(store)
    [gap] = await store.completeness_gaps(HOUR, LATER, 10)

    assert row.causes == {cause: 2}
    assert row.skipped == ({"because": 2} if cause == "skipped" else {})
    assert (gap.start, gap.end, gap.cause, gap.reason, gap.pollster) == (
        after(600),
        after(1200),
        cause,
        "because",
        "cpu",
    )


@pytest_twisted.ensureDeferred
async def test_gaps_of_samples_that_were_dropped_soon_and_late_are_apart(store, healthy):
    """Those of 600 s were spooled ten seconds after their cycle was due, those of 1200 s at once."""
    healthy.exception(1, "spool dropped", 610, 611, pollster="", interval=0)
    healthy.exception(1, "spool dropped", 1200, 1201, pollster="", interval=0)
    store.fill(healthy)
    await write(store, [at for at in every_300_seconds(0, 86400) if at not in (600, 1200)])

    gaps = await store.completeness_gaps(HOUR, LATER, 10)

    assert [(gap.start, gap.end, gap.samples) for gap in gaps] == [
        (after(600), after(900), 1),
        (after(1200), after(1500), 1),
    ]


@pytest_twisted.ensureDeferred
async def test_stored_samples_say_of_which_cycles_others_were_dropped(store, rows):
    """The cycle that was due at 900 s began early, and its samples were spooled before 890 s. Cycles that did not run made none."""
    agent = rows.agent()
    rows.run(agent, 0, 1500)
    rows.run(agent, 3000, 86100)
    rows.metered(agent)
    rows.exception(agent, "spool dropped", 590, 890, pollster="", interval=0)
    rows.exception(agent, "spool dropped", 2900, 3001, pollster="", interval=0)
    store.fill(rows)
    await write(store, [0, 300, 605, 1200, 1500, *every_300_seconds(3300, 86400)])

    gaps = await store.completeness_gaps(HOUR, LATER, 10)

    assert [(gap.start, gap.end, gap.samples, gap.cause) for gap in gaps] == [
        (after(900), after(1200), 1, "spool dropped"),
        (after(1800), after(3000), 4, "agent not running"),
        (after(3000), after(3300), 1, "spool dropped"),
    ]


@pytest_twisted.ensureDeferred
async def test_exception_of_one_resource_does_not_explain_the_loss_of_another(store, healthy):
    healthy.metered(1, "r2")
    healthy.exception(1, "domain hung", 600, 900, resource="r2")
    store.fill(healthy)
    await write(store, [at for at in every_300_seconds(0, 86400) if at != 600])
    await write(store, [at for at in every_300_seconds(0, 86400) if at != 600], resource_id="r2")

    rows = await store.completeness(CompletenessQuery(start=NOON, end=after(3600), group="resource_id"), LATER, 10)

    assert [(row.group, row.causes) for row in rows] == [("r1", {"unknown": 1}), ("r2", {"domain hung": 1})]


@pytest_twisted.ensureDeferred
async def test_pollster_that_a_setting_disables_is_off(store, healthy):
    healthy.inactive(1, 1800)
    store.fill(healthy)
    await write(store, every_300_seconds(0, 1800))

    assert (await one_row(store)).causes == {"pollster off": 6}


@pytest_twisted.ensureDeferred
async def test_rejected_samples_are_not_unknown(store, healthy):
    healthy.rejected(0, 2)
    store.fill(healthy)
    await write(store, every_300_seconds(0, 2700))

    assert (await one_row(store)).causes == {"rejected": 2, "unknown": 1}


@pytest_twisted.ensureDeferred
async def test_rejected_samples_explain_those_of_the_project_that_they_stated(store, rows):
    """The resource was transferred to p2 at 12:30; a sample of each project is missing, and those of p2 were rejected."""
    agent = rows.agent()
    rows.run(agent, 0, 86100)
    rows.metered(agent, until=1800)
    rows.metered(agent, since=1800, project="p2")
    rows.rejected(0, 2, project="p2")
    store.fill(rows)
    await write(store, [0, 300, 600, 900, 1200])
    await write(store, [1800, 2100, 2400, 2700, 3000], project_id="p2")

    found = await store.completeness(CompletenessQuery(start=NOON, end=after(3600), group="project_id"), LATER, 10)

    assert [(row.group, row.causes) for row in found] == [("p1", {"unknown": 1}), ("p2", {"rejected": 1})]


@pytest_twisted.ensureDeferred
async def test_rejected_sample_that_stated_no_project_explains_one_of_any_project(store, rows):
    agent = rows.agent()
    rows.run(agent, 0, 86100)
    rows.metered(agent, until=1800)
    rows.metered(agent, since=1800, project="p2")
    rows.rejected(0, 1, project="")
    store.fill(rows)
    await write(store, [0, 300, 600, 900, 1200])
    await write(store, [1800, 2100, 2400, 2700, 3000], project_id="p2")

    assert (await one_row(store)).causes == {"rejected": 1, "unknown": 1}


@pytest_twisted.ensureDeferred
async def test_voided_samples_are_missing_for_that_cause_and_do_not_keep_a_period_open(store, healthy):
    store.fill(healthy)
    await write(store, every_300_seconds(0, 86400))
    store.void([300, 900])
    await store.finalize()

    row = await one_row(store)
    [gap] = await store.completeness_gaps(HOUR, LATER, 10)

    assert (row.expected, row.received, row.causes) == (12, 10, {"voided": 2})
    assert (gap.cause, gap.samples, gap.exact) == ("voided", 2, False)
    assert (await store.closable(HOUR, LATER)).closable


@pytest_twisted.ensureDeferred
async def test_voided_sample_does_not_hide_a_cycle_that_did_not_run_nor_a_loss(store, rows):
    agent = rows.agent()
    rows.run(agent, 0, 600)
    rows.run(agent, 1200, 86100, boot=OTHER_BOOT)
    rows.metered(agent)
    rows.exception(agent, "skipped", 1500, 1800, resource="r1")
    store.fill(rows)
    await write(store, [at for at in every_300_seconds(0, 86400) if at not in (900, 2400)])
    store.void([1500])
    await store.finalize()

    assert (await one_row(store)).causes == {"agent not running": 1, "voided": 1, "skipped": 1}


@pytest.mark.parametrize("by", ["hour", None])
@pytest_twisted.ensureDeferred
async def test_samples_of_a_cycle_just_before_the_end_of_an_hour_belong_to_that_hour(store, rows, by):
    """Cycles begin a second before each hour, and measure two seconds later; one sample of the second hour is missing."""
    agent = rows.agent()
    rows.run(agent, -1, 86399)
    rows.metered(agent, since=-1)
    store.fill(rows)
    await write(store, [at + 1 for at in every_300_seconds(0, 86400) if at != 5400])

    query = CompletenessQuery(start=NOON, end=after(7200), by=by)
    found = await store.completeness(query, LATER, 10)

    expected = [(12, 12, 0, {}), (12, 11, 0, {"unknown": 1})] if by else [(24, 23, 0, {"unknown": 1})]
    assert [(row.expected, row.received, row.unexpected, row.causes) for row in found] == expected


@pytest_twisted.ensureDeferred
async def test_sample_at_the_end_of_an_hour_is_missing_if_it_is_not_stored_in_the_next_hour_either(store, rows):
    agent = rows.agent()
    rows.run(agent, -1, 86399)
    rows.metered(agent, since=-1)
    store.fill(rows)
    await write(store, [at + 1 for at in every_300_seconds(0, 86400) if at != 3600])

    found = await store.completeness(CompletenessQuery(start=NOON, end=after(7200), by="hour"), LATER, 10)

    assert [(row.received, row.unexpected, row.causes) for row in found] == [(11, 0, {"unknown": 1}), (12, 0, {})]


@pytest_twisted.ensureDeferred
async def test_sample_of_a_cycle_without_a_report_does_not_hide_a_missing_one(store, rows):
    """The agent was killed in the cycle of 900 s, after its samples, and started at once; the sample of 2500 s is missing."""
    agent = rows.agent()
    rows.run(agent, 0, 600)
    rows.run(agent, 1000, 86200, boot=OTHER_BOOT)
    rows.metered(agent)
    store.fill(rows)
    await write(store, [0, 300, 600, 900, *(at for at in range(1000, 86400, 300) if at != 2500)])

    row = await one_row(store)

    assert (row.expected, row.received, row.unexpected, row.causes) == (12, 11, 1, {"unknown": 1})


@pytest_twisted.ensureDeferred
async def test_gap_after_a_kill_begins_with_the_first_cycle_whose_sample_is_not_stored(store, rows):
    """It was killed twice between samples and report: in the cycle of 900 s, of which r1 is stored, and that of 2400 s, of which r2 is."""
    agent = rows.agent()
    rows.run(agent, 0, 600)
    rows.run(agent, 1800, 2100, boot=OTHER_BOOT)
    rows.run(agent, 3300, 86100, boot=str(uuid.UUID(int=3)))
    rows.metered(agent)
    rows.metered(agent, "r2")
    store.fill(rows)
    for resource, stored in (("r1", 900), ("r2", 2400)):
        times = [0, 300, 600, stored, 1800, 2100, *every_300_seconds(3300, 86400)]
        await write(store, times, resource_id=resource)

    gaps = [(gap.start, gap.end, gap.resources) for gap in await store.completeness_gaps(HOUR, LATER, 10)]

    assert gaps == [
        (after(900), after(1800), ("r2",)),
        (after(1200), after(1800), ("r1",)),
        (after(2400), after(3300), ("r1",)),
        (after(2700), after(3300), ("r2",)),
    ]


@pytest_twisted.ensureDeferred
async def test_cycles_whose_reports_were_lost_are_not_in_a_gap_if_they_are_stored(store, rows):
    """The reports of 900 to 1500 s were lost, whose samples are stored; then the agent did not run until 2700 s."""
    agent = rows.agent()
    rows.run(agent, 0, 600)
    rows.run(agent, 2700, 86100, boot=OTHER_BOOT)
    rows.metered(agent)
    store.fill(rows)
    await write(store, [*every_300_seconds(0, 1800), *every_300_seconds(2700, 86400)])

    [gap] = await store.completeness_gaps(HOUR, LATER, 10)

    assert (gap.start, gap.end, gap.cause, gap.samples) == (after(1800), after(2700), "agent not running", 3)
    assert (await one_row(store)).unexpected == 0


@pytest_twisted.ensureDeferred
async def test_hour_that_is_not_final_is_neither_unknown_nor_complete(store, healthy):
    store.fill(healthy)
    await write(store, every_300_seconds(0, 2700))

    assert (await one_row(store, now=after(3601))).causes == {"not finalized": 3}


@pytest_twisted.ensureDeferred
async def test_nothing_is_expected_of_the_future(store, rows):
    agent = rows.agent()
    rows.run(agent, 0, 1500)
    rows.metered(agent)
    store.fill(rows)
    await write(store, every_300_seconds(0, 1800))

    row = await one_row(store, now=after(1790))

    assert (row.expected, row.missing) == (6, 0)


@pytest_twisted.ensureDeferred
async def test_agent_that_has_fallen_silent_is_not_running_until_now(store, rows):
    agent = rows.agent()
    rows.run(agent, 0, 600)
    rows.metered(agent)
    store.fill(rows)
    await write(store, every_300_seconds(0, 900))

    row = await one_row(store, now=after(2000))
    [gap, recent] = await store.completeness_gaps(HOUR, after(2000), 10)

    assert row.causes == {"agent not running": 2, "not finalized": 2}
    assert (gap.start, gap.end, gap.cause) == (after(900), after(1500), "agent not running")
    assert (recent.start, recent.end, recent.cause) == (after(1500), None, "not finalized")


@pytest_twisted.ensureDeferred
async def test_resource_that_has_migrated_counts_once(store, rows):
    first, second = rows.agent("hv1"), rows.agent("hv2")
    rows.run(first, 0, 1200)
    rows.run(second, 0, 86100)
    rows.metered(first, until=float("inf"))
    rows.metered(second, since=1500)
    store.fill(rows)
    await write(store, every_300_seconds(0, 86400))

    rows_ = await store.completeness(CompletenessQuery(start=NOON, end=after(3600), group="agent"), LATER, 10)

    assert [(row.group, row.expected, row.received) for row in rows_] == [
        ("meter-compute@hv1", 5, 5),
        ("meter-compute@hv2", 7, 7),
    ]


@pytest_twisted.ensureDeferred
async def test_sample_between_cycles_is_expected_too(store, healthy):
    healthy.off_schedule(1, 410)
    healthy.off_schedule(1, 420, "r2")
    store.fill(healthy)
    await write(store, [*every_300_seconds(0, 86400), 410])

    row = await one_row(store)

    assert (row.expected, row.causes) == (14, {"unknown": 1})


@pytest_twisted.ensureDeferred
async def test_query_selects_by_project_meter_resource_and_agent(store, rows):
    first, second = rows.agent("hv1"), rows.agent("hv2")
    rows.run(first, 0, 86100)
    rows.run(second, 0, 86100)
    rows.metered(first, "r1", meters=("cpu", "memory"))
    rows.metered(second, "r2", project="p2")
    store.fill(rows)

    async def expected(**scope):
        return (await one_row(store, CompletenessQuery(start=NOON, end=after(3600), **scope))).expected

    assert await expected() == 36
    assert await expected(project_id="p1") == 24
    assert await expected(project_id="p1", meter="memory") == 12
    assert await expected(meter="cpu") == 24
    assert await expected(resource_id="r2") == 12
    assert await expected(agent="meter-compute@hv1") == 24
    assert await expected(agent="no such agent") == 0


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("by", [None, "hour", "day"])
async def test_only_the_named_groups_have_rows(store, rows, by):
    for host, project in (("hv1", "p1"), ("hv2", "p2"), ("hv3", "")):
        agent = rows.agent(host)
        rows.run(agent, 0, 86100)
        rows.metered(agent, f"r of {host}", project=project)
    store.fill(rows)

    async def groups(group, *names):
        query = CompletenessQuery(start=NOON, end=after(3600), by=by, group=group, groups=names)
        return [(row.group, row.expected) for row in await store.completeness(query, LATER, 10)]

    named = ("meter-compute@hv1", "meter-compute@hv3")
    assert await groups("agent", *named, "no such agent") == [(each, 12) for each in named]
    assert await groups("project_id", "p2", "") == [("", 12), ("p2", 12)]
    assert await groups("meter", "memory") == []
    assert await groups("resource_id", "r of hv2") == [("r of hv2", 12)]


@pytest_twisted.ensureDeferred
async def test_rows_by_hour_and_by_day(store, healthy):
    store.fill(healthy)
    await write(store, [at for at in every_300_seconds(0, 86400) if not 3600 <= at < 7200])

    by_hour = await store.completeness(CompletenessQuery(start=NOON, end=after(3 * 3600), by="hour"), LATER, 10)
    by_day = await store.completeness(CompletenessQuery(start=NOON, end=after(86400), by="day"), LATER, 10)

    assert [(row.start, row.expected, row.missing) for row in by_hour] == [
        (NOON, 12, 0),
        (after(3600), 12, 12),
        (after(7200), 12, 0),
    ]
    midnight = NOON + timedelta(hours=12)
    assert [(row.start, row.end, row.expected, row.missing) for row in by_day] == [
        (NOON, midnight, 144, 12),
        (midnight, after(86400), 144, 0),
    ]


@pytest_twisted.ensureDeferred
async def test_states_of_agents(store, rows):
    running, silent, stopped = rows.agent("hv1"), rows.agent("hv2"), rows.agent("hv3", stopped=True)
    rows.run(running, 0, 3000)
    rows.run(silent, 0, 600)
    rows.run(stopped, 0, 600)
    rows.metered(silent)
    store.fill(rows)

    states = await store.agent_states(after(3100))

    assert [(each.host, each.state, each.silent_since, each.resources) for each in states] == [
        ("hv1", "running", None, 0),
        ("hv2", "silent", after(900), 1),
        ("hv3", "stopped", after(900), 0),
    ]


@pytest_twisted.ensureDeferred
async def test_complete_period_may_be_closed(store, healthy):
    store.fill(healthy)
    await write(store, every_300_seconds(0, 3600))

    assert (await store.closable(HOUR, LATER)).reasons == []


@pytest_twisted.ensureDeferred
async def test_reasons_against_closing(store, rows):
    agent = rows.agent()
    rows.run(agent, 0, 600)
    rows.metered(agent)
    store.fill(rows)

    answer = await store.closable(HOUR, after(3000))

    assert not answer.closable
    assert {(each.code, each.cause) for each in answer.reasons} == {
        ("period not over", None),
        ("hours not finalized", None),
        ("samples missing", "agent not running"),
        ("samples missing", "not finalized"),
        ("agent silent", None),
    }


@pytest_twisted.ensureDeferred
async def test_period_for_which_no_agent_reported_may_not_be_closed(store, rows):
    store.fill(rows)

    assert [each.code for each in (await store.closable(HOUR, LATER)).reasons] == ["nothing expected"]


@pytest.mark.parametrize("selected", [{"project_id": "typo"}, {"resource_id": "typo"}, {"meter": "typo"}])
@pytest_twisted.ensureDeferred
async def test_period_of_a_mistyped_name_may_not_be_closed(store, healthy, selected):
    store.fill(healthy)
    await write(store, every_300_seconds(0, 3600))

    reasons = (await store.closable(replace(HOUR, **selected), LATER)).reasons

    assert [each.code for each in reasons] == ["nothing expected"]
    assert "typo in the period: whether something is missing is unknown" in reasons[0].text


def reported(sequence, due, *, boot=1, removed=False, **fields):
    """A cycle report of an agent that measures ``cpu`` of r1, or no longer does."""
    group = SeriesGroup(meters=("cpu",), resources=("r1",), project="p1")
    poll = PollReport(
        pollster="cpu",
        interval_seconds=300.0,
        outcome="ok",
        samples=1,
        seconds=0.1,
        whole=not removed,
        series=() if removed else (group,),
        removed=(group,) if removed else (),
    )
    report = CycleReport(
        agent="meter-compute@hv1",
        daemon="meter-compute",
        host="hv1",
        boot=str(uuid.UUID(int=boot)),
        sequence=sequence,
        due=utc_text(after(due)),
        **{"polls": (poll,), **fields},
    )
    return ReceivedCycle(report, uuid.UUID(int=boot), after(due), f"{boot} {sequence}".encode() * 8)


@pytest_twisted.ensureDeferred
async def test_recorded_reports_are_what_is_expected(store):
    reports = [reported(n + 1, 300 * n) for n in range(3)]
    reports += [reported(1, 1800, boot=2), *(reported(n - 5, 300 * n, boot=2) for n in range(7, 10))]
    reports += [reported(5, 3000, boot=2, removed=True)]
    results = await store.record_cycle_reports(reports)
    assert [each.outcome for each in results] == ["applied"] * 8
    await write(store, [0, 300, 600, 1800, 2100, 2400])

    row = await one_row(store)
    [unknown, gap] = await store.completeness_gaps(HOUR, LATER, 10)

    assert (row.expected, row.received, row.causes) == (10, 6, {"agent not running": 3, "unknown": 1})
    assert (gap.start, gap.end, gap.agent, gap.samples) == (after(900), after(1800), "meter-compute@hv1", 3)
    assert (unknown.cause, unknown.exact, unknown.samples) == ("unknown", False, 1)


@pytest_twisted.ensureDeferred
async def test_failed_poll_of_a_report_is_the_cause(store):
    failed = PollReport(
        pollster="cpu", interval_seconds=300.0, outcome="timeout", samples=0, seconds=30.0, error="libvirt: no answer"
    )
    await store.record_cycle_reports(
        [reported(1, 0), reported(2, 300, polls=(failed,)), *(reported(n + 1, 300 * n) for n in range(2, 12))]
    )
    await write(store, [at for at in every_300_seconds(0, 3600) if at != 300])

    assert (await one_row(store)).causes == {"poll failed": 1}
    [gap] = await store.completeness_gaps(HOUR, LATER, 10)
    assert (gap.start, gap.end, gap.pollster) == (after(300), after(600), "cpu")
    assert "libvirt: no answer" in gap.reason


@pytest.mark.parametrize(("resources", "cause"), [((), "unknown"), (("r1",), "skipped"), (("r2",), "unknown")])
@pytest_twisted.ensureDeferred
async def test_skip_explains_only_the_resources_that_it_names(store, resources, cause):
    """What is not measured and not named is not expected any more: it is not why a sample is missing."""
    poll = reported(2, 300).report.polls[0]
    skipping = msgspec.structs.replace(poll, whole=False, series=(), skipped=(SkipReport("missing", 5, resources),))
    await store.record_cycle_reports(
        [reported(1, 0), reported(2, 300, polls=(skipping,)), *(reported(n + 1, 300 * n) for n in range(2, 12))]
    )
    await write(store, [at for at in every_300_seconds(0, 3600) if at != 300])

    assert (await one_row(store)).causes == {cause: 1}


@pytest_twisted.ensureDeferred
async def test_clock_that_was_set_back_explains_no_missed_cycle(store):
    """The cycle of 600 s did not run; after that of 3300 s the clock was set back to 100 s, for two cycles."""
    times = [0, 300, *range(900, 3600, 300), 100, 400, 3600]
    await store.record_cycle_reports([reported(n, at) for n, at in enumerate(times, 1)])
    await write(store, times)

    row = await one_row(store)

    assert (row.expected, row.received, row.causes) == (14, 13, {"agent not running": 1})


@pytest_twisted.ensureDeferred
async def test_agent_that_was_stopped_in_an_orderly_way_says_so(store):
    stopping = reported(4, 700, polls=(), stopping=True)
    await store.record_cycle_reports([*(reported(n + 1, 300 * n) for n in range(3)), stopping])
    await write(store, [0, 300, 600])

    [gap] = await store.completeness_gaps(HOUR, LATER, 10)
    [agent] = await store.agent_states(LATER)

    assert (gap.cause, gap.reason, gap.start) == ("agent not running", "the agent was stopped", after(900))
    assert agent.state == "stopped"
