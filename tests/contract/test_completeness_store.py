"""The contract of ICompletenessStore: the same tests for the in-memory store and for PostgreSQL."""

from __future__ import annotations

import hashlib
import random
import uuid
from datetime import UTC
from datetime import datetime
from datetime import timedelta

import msgspec
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from meter.agent import cycle_reports
from meter.completeness_store import ICompletenessStore
from meter.completeness_store import ReceivedCycle
from meter.completeness_store import RejectedCount
from meter.completeness_store import WaitingRules
from meter.cycle_report import ConfirmedReport
from meter.cycle_report import DroppedSamples
from meter.cycle_report import InactivePollster
from meter.cycle_report import OffSchedulePoll
from meter.cycle_report import SeriesGroup
from meter.cycle_report import SkippedCycles
from meter.cycle_report import SkipReport
from meter.cycle_report import SucceededListing
from meter.message import parse_timestamp
from meter.store import PostgresStore
from meter.testing import MemoryStore
from tests.ledger_tables import LEDGER_TABLES
from tests.ledger_tables import agent_life
from tests.ledger_tables import beat
from tests.ledger_tables import cycle
from tests.ledger_tables import ledger_tables
from tests.ledger_tables import poll
from tests.reporting_agent import ReportingAgent
from tests.reporting_agent import ScriptedPollster
from tests.waiting import until

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
BOOT = uuid.UUID("11111111-1111-4111-8111-111111111111")
OTHER = uuid.UUID("22222222-2222-4222-8222-222222222222")
AT_ONCE = WaitingRules(seconds=0.0, max_seconds=3600.0)
"""Numbers that do not come are given up as soon as a waiting report lists all series."""


@pytest.fixture(scope="module")
def database(request):
    return request.getfixturevalue("postgresql").dsn_with_schema()


@pytest.fixture
def rules():
    return WaitingRules()


@pytest.fixture(params=["memory", "postgresql"])
def store(request, rules):
    if request.param == "memory":
        yield MemoryStore(reactor, rules)
        return
    server, dsn = request.getfixturevalue("postgresql"), request.getfixturevalue("database")
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=1, writers=2, waiting_rules=rules)
    store.startService()
    pytest_twisted.blockon(Deferred.fromCoroutine(until(lambda: store.readiness().ready)))
    store.rows_of = lambda statement: server.execute(statement, dsn)
    store.clear = lambda: server.execute(f"TRUNCATE {LEDGER_TABLES} CASCADE", dsn)
    yield store
    pytest_twisted.blockon(store.stopService())
    store.clear()


def at(seconds):
    return NOON + timedelta(seconds=seconds)


GROUP = SeriesGroup(("cpu", "memory"), ("r1", "r2"), "p1")
SMALLER = SeriesGroup(("cpu", "memory"), ("r1",), "p1")


async def told(store, *reports):
    return [result.outcome for each in reports for result in await store.record_cycle_reports([each])]


def test_store_provides_icompletenessstore(store):
    verifyObject(ICompletenessStore, store)


@pytest_twisted.ensureDeferred
async def test_healthy_agent_has_one_run_a_day(store):
    sent = [
        cycle(BOOT, n, at(60 * (n - 1)), poll(whole=n == 1, series=(GROUP,) if n == 1 else ())) for n in range(1, 11)
    ]

    assert await told(store, *sent) == ["applied"] * 10

    tables = await ledger_tables(store)
    assert tables["cycle_run"] == [("meter-compute@h1", str(BOOT), 60.0, 1, at(0), at(540), 10, ("cpu",))]
    assert tables["polling_exception"] == []
    assert tables["metered_resource"] == [
        ("meter-compute@h1", "cpu", 60.0, resource, "p1", ("cpu", "memory"), at(0), None, "")
        for resource in ("r1", "r2")
    ]


@pytest_twisted.ensureDeferred
async def test_run_ends_with_the_day_a_gap_or_other_pollsters(store):
    midnight = at(43200)
    dues = [midnight - timedelta(seconds=60), midnight, midnight + timedelta(seconds=120)]
    sent = [cycle(BOOT, n, due, poll()) for n, due in enumerate(dues, 1)]
    sent.append(cycle(BOOT, 4, dues[-1] + timedelta(seconds=60), poll(), poll("disk")))
    sent.append(cycle(OTHER, 1, dues[-1] + timedelta(seconds=70), poll(), poll("disk")))

    assert await told(store, *sent) == ["applied"] * 5

    runs = (await ledger_tables(store))["cycle_run"]
    assert sorted(run[4:] for run in runs) == [
        (dues[0], dues[0], 1, ("cpu",)),
        (dues[1], dues[1], 1, ("cpu",)),
        (dues[2], dues[2], 1, ("cpu",)),
        (dues[2] + timedelta(seconds=60), dues[2] + timedelta(seconds=60), 1, ("cpu", "disk")),
        (dues[2] + timedelta(seconds=70), dues[2] + timedelta(seconds=70), 1, ("cpu", "disk")),
    ]


@pytest_twisted.ensureDeferred
async def test_series_end_when_a_complete_list_lacks_them_but_not_when_the_poll_failed(store):
    await told(
        store,
        cycle(BOOT, 1, at(0), poll(whole=True, series=(GROUP,))),
        cycle(BOOT, 2, at(60), poll(whole=True, outcome="error", error="no libvirt")),
    )
    assert [row[7] for row in (await ledger_tables(store))["metered_resource"]] == [None, None]

    await told(store, cycle(BOOT, 3, at(120), poll(whole=True, series=(SMALLER,))))

    rows = (await ledger_tables(store))["metered_resource"]
    assert [(row[3], row[6], row[7]) for row in rows] == [("r1", at(0), None), ("r2", at(0), at(120))]


@pytest_twisted.ensureDeferred
async def test_differences_add_and_remove_series_with_the_stated_reason(store):
    gone = SeriesGroup(("cpu", "memory"), ("r2",), "p1", reason="gone")
    new = SeriesGroup(("cpu",), ("r3",))
    await told(
        store,
        cycle(BOOT, 1, at(0), poll(whole=True, series=(GROUP,))),
        cycle(BOOT, 2, at(60), poll(series=(new,), removed=(gone,))),
        cycle(BOOT, 3, at(120), poll(series=(new, new), removed=(gone, SeriesGroup(("x",), ("never",))))),
        cycle(BOOT, 4, at(180), poll(series=(gone,))),
    )

    rows = (await ledger_tables(store))["metered_resource"]
    assert [(*row[3:5], *row[6:]) for row in rows] == [
        ("r1", "p1", at(0), None, ""),
        ("r2", "p1", at(0), at(60), "gone"),
        ("r2", "p1", at(180), None, ""),
        ("r3", "", at(60), None, ""),
    ]


@pytest_twisted.ensureDeferred
async def test_silence_and_a_new_boot_end_no_series_and_its_list_does(store):
    await told(store, cycle(BOOT, 1, at(0), poll(whole=True, series=(GROUP,))))
    await told(store, cycle(OTHER, 1, at(7200), poll("disk", whole=True)))
    assert [row[7] for row in (await ledger_tables(store))["metered_resource"]] == [None, None]

    await told(store, cycle(OTHER, 2, at(7260), poll(whole=True, interval=30.0, series=(SMALLER,))))

    rows = (await ledger_tables(store))["metered_resource"]
    assert [(row[2], row[3], row[6], row[7]) for row in rows] == [
        (30.0, "r1", at(7260), None),
        (60.0, "r1", at(0), at(7260)),
        (60.0, "r2", at(0), at(7260)),
    ]


@pytest_twisted.ensureDeferred
async def test_poll_continued_in_other_reports_is_one_poll(store):
    more = [poll(continued=True, series=(SeriesGroup(("cpu",), (f"r{n}",)),)) for n in range(2)]
    skipped = poll(continued=True, outcome="error", skipped=(SkipReport("slow", 1, ("r9",)),))
    sent = [cycle(BOOT, n, at(60), each) for n, each in enumerate([poll(outcome="error"), *more, skipped], 1)]
    await told(store, *sent, cycle(BOOT, 5, at(120), poll()))

    tables = await ledger_tables(store)
    assert [run[4:7] for run in tables["cycle_run"]] == [(at(60), at(120), 2)]
    assert [(row[3], row[6], row[7]) for row in tables["metered_resource"]] == [
        ("r0", at(60), None),
        ("r1", at(60), None),
    ]
    assert sorted(row[3:5] + row[8:9] for row in tables["polling_exception"]) == [
        ("", "poll failed", 1),
        ("r9", "skipped", 1),
    ]


def received_from(agent):
    """Return the reports that an agent has sent, as a collector gives them to a store."""
    reports, _ = agent.take()
    return [
        ReceivedCycle(
            report,
            uuid.UUID(report.boot),
            parse_timestamp(report.due, "due"),
            hashlib.sha256(msgspec.json.encode(report)).digest(),
        )
        for report in reports
    ]


def still_measured(tables):
    return sorted((row[3], row[4], row[5]) for row in tables["metered_resource"] if row[7] is None)


@pytest.mark.parametrize("loses_its_spool", [False, True])
@pytest_twisted.ensureDeferred
async def test_list_of_all_series_in_parts_ends_what_it_does_not_have(store, tmp_path, monkeypatch, loses_its_spool):
    monkeypatch.setattr(cycle_reports, "PART_BYTES", 500)
    names = [f"{letter}-{number:02}" for letter in ("a", "größe", "z", "Я", "😀", "～") for number in range(30)]
    both = [(project, name, "lamp.power") for project in ("acme", "emca") for name in names]
    before = [*both, *((None, name, "lamp.heat") for name in names[::3])]
    first = ReportingAgent(
        tmp_path / "first",
        ScriptedPollster(series=before),
        ScriptedPollster("other", series=before[:3]),
        boot=str(BOOT),
    )
    first.cycle()
    sent = received_from(first)
    first.close()
    assert len(sent) > 10
    assert set(await told(store, *sent)) == {"applied"}
    assert len(still_measured(await ledger_tables(store))) == len(before) + 3

    after = [each for n, each in enumerate(before) if n % 4]
    directory = tmp_path / ("second" if loses_its_spool else "first")
    second = ReportingAgent(
        directory,
        ScriptedPollster(series=after),
        ScriptedPollster("other", series=before[:3]),
        boot=str(OTHER),
        clock=first.clock,
    )
    second.cycle()
    sent = received_from(second)
    second.close()
    assert len(sent) > 10
    assert set(await told(store, *sent)) == {"applied"}
    tables = await ledger_tables(store)
    expected = [(name, project or "", (meter,)) for project, name, meter in (*after, *before[:3])]
    assert still_measured(tables) == sorted(expected)
    assert {row[7] for row in tables["metered_resource"]} == {None, sent[0].due}


@pytest_twisted.ensureDeferred
async def test_part_of_a_list_ends_only_what_it_covers(store):
    names = ("a", "b", "c", "d")
    await told(store, cycle(BOOT, 1, at(0), poll(whole=True, series=(SeriesGroup(("cpu",), names, "p1"),))))
    part = poll(continued=True, listed_from="b", listed_before="d", series=(SeriesGroup(("cpu",), ("c",), "p1"),))
    failed = poll(continued=True, outcome="error", listed_from="")
    await told(store, cycle(BOOT, 2, at(60), poll()), cycle(BOOT, 3, at(60), part), cycle(BOOT, 4, at(60), failed))
    assert [row[0] for row in still_measured(await ledger_tables(store))] == ["a", "c", "d"]

    await told(store, cycle(BOOT, 5, at(120), poll()), cycle(BOOT, 6, at(120), poll(continued=True, listed_from="")))
    assert still_measured(await ledger_tables(store)) == []


@pytest_twisted.ensureDeferred
async def test_standby_agent_measures_nothing(store):
    await told(store, cycle(BOOT, 1, at(0), poll(whole=True, series=(GROUP,))))
    await told(store, cycle(BOOT, 2, at(60), standby=True))

    tables = await ledger_tables(store)
    assert [row[7] for row in tables["metered_resource"]] == [at(60), at(60)]
    assert [row[6] for row in tables["cycle_run"]] == [1]


@pytest_twisted.ensureDeferred
async def test_exceptions_name_their_causes_and_consecutive_ones_are_one_row(store):
    hung = SkipReport("domain hung", 5, ("r1", "r2"))
    bad = poll(outcome="timeout", error="no result within 30 s", samples=0)
    sent = [cycle(BOOT, n, at(60 * n), bad, poll("disk", skipped=(hung,))) for n in (1, 2, 3)]
    sent.append(cycle(BOOT, 4, at(240), poll(), poll("disk", asked=False, samples=0)))
    sent.append(cycle(BOOT, 5, at(300), bad, poll("disk", outcome="not stored", error="disk full")))
    await told(store, *sent)

    assert sorted(row[1:-1] for row in (await ledger_tables(store))["polling_exception"]) == sorted(
        [
            ("cpu", 60.0, "", "poll failed", "timeout: no result within 30 s", at(60), at(240), 3, 0),
            ("cpu", 60.0, "", "poll failed", "timeout: no result within 30 s", at(300), at(360), 1, 0),
            ("disk", 60.0, "r1", "domain hung", "domain hung", at(60), at(240), 3, 9),
            ("disk", 60.0, "r2", "domain hung", "domain hung", at(60), at(240), 3, 6),
            ("disk", 60.0, "", "skipped", "an earlier poll was still running", at(240), at(300), 1, 0),
            ("disk", 60.0, "", "spool dropped", "not stored: disk full", at(300), at(360), 1, 0),
        ]
    )


@pytest_twisted.ensureDeferred
async def test_dropped_samples_and_skipped_cycles_are_exceptions(store):
    dropped = DroppedSamples(70, "2026-11-27T10:00:00", "2026-11-27T11:00:00", "the spool is full")
    skipped = SkippedCycles(60.0, 2, "2026-11-27T11:57:00", "2026-11-27T11:58:00")
    await told(store, cycle(BOOT, 1, at(0), poll(), dropped=(dropped,), skipped_cycles=(skipped,)))

    assert [row[1:-1] for row in (await ledger_tables(store))["polling_exception"]] == [
        ("", 0.0, "", "spool dropped", "the spool is full", at(-7260), at(-3600 + 0.000001), 1, 70),
        ("", 60.0, "", "skipped", "an earlier cycle took longer than its interval", at(-180), at(-60), 2, 0),
    ]


@pytest_twisted.ensureDeferred
async def test_samples_between_cycles_and_inactive_pollsters_are_rows(store):
    off = OffSchedulePoll("cpu", "2026-11-27T11:59:30", (GROUP,))
    inactive = (InactivePollster("ipmi", True, "[plugins] disable", ("temp",)), InactivePollster("gpu", False, "-", ()))
    await told(
        store,
        cycle(BOOT, 1, at(0), poll(whole=True), off_schedule=(off, off), inactive=inactive),
        cycle(BOOT, 2, at(60), poll()),
        cycle(BOOT, 3, at(120), poll(whole=True), inactive=inactive[:1]),
    )

    tables = await ledger_tables(store)
    assert [row[1:] for row in tables["off_schedule_poll"]] == [
        ("cpu", at(-30), resource, "p1", ("cpu", "memory")) for resource in ("r1", "r2")
    ]
    assert [row[1:] for row in tables["inactive_pollster"]] == [
        ("gpu", False, "-", (), at(0), at(120)),
        ("ipmi", True, "[plugins] disable", ("temp",), at(0), None),
    ]


# --- order -----------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_repeated_report_changes_nothing_and_another_with_its_number_is_a_conflict(store):
    first = cycle(BOOT, 1, at(0), poll(whole=True, series=(GROUP,)))
    forged = cycle(BOOT, 1, at(0), poll(whole=True))
    await told(store, first)
    before = await ledger_tables(store)

    assert await told(store, first, forged) == ["repeated", "conflict"]
    assert [result.outcome for result in await store.record_cycle_reports([first, first, forged])] == [
        "repeated",
        "repeated",
        "conflict",
    ]
    assert await ledger_tables(store) == before


@pytest_twisted.ensureDeferred
async def test_report_waits_for_its_predecessor(store):
    sent = [cycle(BOOT, n, at(60 * n), poll()) for n in (1, 2, 3)]

    assert await told(store, sent[2], sent[2], cycle(BOOT, 3, at(999), poll())) == ["waiting", "repeated", "conflict"]
    assert (await ledger_tables(store))["cycle_run"] == []
    [agent] = await store.agents()
    assert ([boot.waiting for boot in agent.boots], agent.last_due) == ([1], None)

    assert await told(store, sent[0], sent[1]) == ["applied", "applied"]
    [run] = (await ledger_tables(store))["cycle_run"]
    assert run[4:7] == (at(60), at(180), 3)
    [agent] = await store.agents(["meter-compute@h1"])
    [boot] = agent.boots
    assert (boot.applied, boot.waiting, boot.first_due, boot.last_due) == (3, 0, at(60), at(180))
    assert (await ledger_tables(store))["polling_exception"] == []


@pytest.mark.parametrize("rules", [AT_ONCE])
@pytest_twisted.ensureDeferred
async def test_number_that_does_not_come_is_an_exception_and_a_late_report_counts_without_its_series(store):
    lost = [cycle(BOOT, n, at(60 * n), poll(series=(SMALLER,))) for n in (2, 3)]
    await told(store, cycle(BOOT, 1, at(60), poll()), cycle(BOOT, 4, at(240), poll()))
    assert await store.apply_waiting_reports() == 0  # no list of all series yet

    assert await told(store, cycle(BOOT, 5, at(300), poll(whole=True, series=(GROUP,)))) == ["waiting"]
    await store.apply_waiting_reports()

    tables = await ledger_tables(store)
    assert [row[4:-1] for row in tables["polling_exception"]] == [
        ("unknown", "reports 2 to 3 are missing", at(60), at(240), 2, 0)
    ]
    [agent] = await store.agents()
    assert [(boot.applied, boot.missing) for boot in agent.boots] == [(5, ((2, 3),))]

    assert await told(store, lost[1], lost[1], cycle(BOOT, 3, at(181), poll())) == ["late", "repeated", "conflict"]
    after = await ledger_tables(store)
    assert after["metered_resource"] == tables["metered_resource"]
    assert sorted(run[3:7] for run in after["cycle_run"]) == [
        (1, at(60), at(60), 1),
        (3, at(180), at(180), 1),
        (4, at(240), at(300), 2),
    ]
    [agent] = await store.agents()
    assert [boot.missing for boot in agent.boots] == [((2, 2),)]


@pytest.mark.parametrize("rules", [WaitingRules(max_reports=3)])
@pytest_twisted.ensureDeferred
async def test_number_of_waiting_reports_is_limited(store):
    await told(store, *[cycle(BOOT, n, at(60 * n), poll()) for n in (2, 3, 4)])

    [agent] = await store.agents()
    assert [(boot.applied, boot.waiting, boot.missing) for boot in agent.boots] == [(4, 0, ((1, 1),))]


@pytest_twisted.ensureDeferred
async def test_first_report_of_a_boot_waits_for_those_of_the_boot_before(store):
    old = [
        cycle(BOOT, n, at(60 * n), poll(whole=n == 1, series=(GROUP,) if n == 1 else (), removed=(SMALLER,) * (n == 2)))
        for n in (1, 2)
    ]
    new = cycle(
        OTHER, 1, at(180), poll(whole=True, series=(GROUP,)), confirmed=ConfirmedReport(boot=str(BOOT), sequence=2)
    )

    assert await told(store, new, *old) == ["waiting", "applied", "applied"]

    rows = (await ledger_tables(store))["metered_resource"]
    assert [(row[3], row[6], row[7]) for row in rows] == [
        ("r1", at(60), at(120)),
        ("r1", at(180), None),
        ("r2", at(60), None),
    ]
    [agent] = await store.agents()
    assert (agent.newest_boot, [boot.boot for boot in agent.boots]) == (OTHER, [BOOT, OTHER])


@pytest_twisted.ensureDeferred
async def test_boots_that_arrive_together_and_do_not_name_each_other_follow_each_other(store):
    """The agent lost its spool between them; what ended in the earlier boot has ended then."""
    later = uuid.UUID(int=1)
    earlier = uuid.UUID(int=2)
    reports = [
        cycle(earlier, 1, at(0), poll(whole=True, series=(GROUP,))),
        cycle(earlier, 2, at(60), poll(removed=(SeriesGroup(("cpu", "memory"), ("r2",), "p1", reason="gone"),))),
        cycle(later, 1, at(600), poll(whole=True, series=(SMALLER,))),
    ]

    await store.record_cycle_reports(reports)

    rows = (await ledger_tables(store))["metered_resource"]
    assert [(row[3], row[6], row[7], row[8]) for row in rows] == [
        ("r1", at(0), None, ""),
        ("r2", at(0), at(60), "gone"),
    ]


@pytest_twisted.ensureDeferred
async def test_late_report_of_an_earlier_boot_does_not_change_the_series(store):
    await told(store, cycle(OTHER, 1, at(180), poll(whole=True, series=(GROUP,))))
    before = await ledger_tables(store)

    assert await told(store, cycle(BOOT, 1, at(60), poll(whole=True, series=(SMALLER,)))) == ["applied"]

    after = await ledger_tables(store)
    assert after["metered_resource"] == before["metered_resource"]
    assert len(after["cycle_run"]) == 2


@pytest_twisted.ensureDeferred
async def test_clock_set_back_alters_nothing_that_was_told(store):
    await told(store, *agent_life(BOOT, at(0), 10, lambda n: ((GROUP,) if n == 0 else (), ())))
    before = await ledger_tables(store)

    back = cycle(BOOT, 11, at(-3600), poll(removed=(SMALLER,), series=(SeriesGroup(("cpu",), ("r9",)),)))
    assert await told(store, back, cycle(BOOT, 12, at(-3540), poll())) == ["applied", "applied"]

    after = await ledger_tables(store)
    assert set(before["cycle_run"]) <= set(after["cycle_run"])
    assert [run[3:7] for run in after["cycle_run"] if run[3] == 11] == [(11, at(-3600), at(-3540), 2)]
    instant = at(540.000001)
    assert [(row[3], row[6], row[7]) for row in after["metered_resource"]] == [
        ("r1", at(0), instant),
        ("r2", at(0), None),
        ("r9", instant, None),
    ]
    assert ("unknown", "the agent's clock was set back by 4140 s", at(-3600), at(540)) in [
        row[4:8] for row in after["polling_exception"]
    ]


@pytest_twisted.ensureDeferred
async def test_boot_id_that_another_process_uses_again_is_a_conflict(store):
    await told(store, *[cycle(BOOT, n, at(60 * n), poll()) for n in range(1, 100)])

    assert await told(store, cycle(BOOT, 1, at(86400), poll()), cycle(BOOT, 99, at(86400), poll())) == [
        "conflict",
        "conflict",
    ]


@pytest_twisted.ensureDeferred
async def test_renamed_agent_is_another_one(store):
    await told(store, cycle(BOOT, 1, at(0), poll(whole=True, series=(GROUP,))))
    await told(store, cycle(BOOT, 1, at(60), poll(whole=True, series=(GROUP,)), host="h2"))

    assert [agent.name for agent in await store.agents()] == ["meter-compute@h1", "meter-compute@h2"]
    assert len((await ledger_tables(store))["metered_resource"]) == 4


@pytest_twisted.ensureDeferred
async def test_stopping_agent_is_known_to_have_stopped(store):
    await told(store, cycle(BOOT, 1, at(0), poll()), cycle(BOOT, 2, at(30), stopping=True))

    [agent] = await store.agents()
    assert [(boot.stopped, boot.last_due) for boot in agent.boots] == [(True, at(30))]


@pytest_twisted.ensureDeferred
async def test_agent_that_was_started_again_with_an_earlier_clock_is_not_stopped(store):
    before = ConfirmedReport(boot=str(BOOT), sequence=2)
    await told(store, cycle(BOOT, 1, at(0), poll()), cycle(BOOT, 2, at(30), stopping=True))
    await told(store, cycle(OTHER, 1, at(-3570), poll(), confirmed=before))

    [agent] = await store.agent_states(at(-3570))
    assert (agent.state, agent.last_due) == ("running", at(30))


GROUPS = tuple(SeriesGroup((meter,), (resource,), "p") for meter in "ab" for resource in "rs")


def made_up_reports(rng):
    """Return the reports of two boots of an agent, with changes of series, failures and skips."""
    reports = []
    for boot, first, confirmed in ((BOOT, at(0), None), (OTHER, at(3600), BOOT)):
        number = rng.randint(2, 8)
        for n in range(1, number + 1):
            added, removed = rng.choices(GROUPS, k=rng.randint(0, 2)), rng.choices(GROUPS, k=rng.randint(0, 2))
            polls = [poll(whole=n == 1 or rng.random() < 0.2, series=tuple(added), removed=tuple(removed))]
            if rng.random() < 0.4:
                polls.append(poll("disk", outcome="error", error="x", skipped=(SkipReport("slow", 3, ("r", "s")),)))
            due = first + timedelta(seconds=60 * n + 300 * (rng.random() < 0.1))
            before = ConfirmedReport(str(confirmed), len(reports)) if confirmed and n == 1 else None
            reports.append(cycle(boot, n, due, *polls, confirmed=before))
    return reports


@pytest.mark.parametrize("seed", range(20))
@pytest_twisted.ensureDeferred
async def test_any_order_and_repetition_of_reports_gives_the_same_tables(store, seed):
    rng = random.Random(seed)
    sent = made_up_reports(rng)
    reference = MemoryStore(reactor)
    assert await told(reference, *sent) == ["applied"] * len(sent)

    shuffled = [*sent, *rng.choices(sent, k=4)]
    rng.shuffle(shuffled)
    size = rng.randint(1, 6)
    for first in range(0, len(shuffled), size):
        await store.record_cycle_reports(shuffled[first : first + size])

    assert await ledger_tables(store) == await ledger_tables(reference)


# --- a new leader succeeds the list of the one before ----------------------------------------------------------------

ALL = SeriesGroup(("cpu",), ("a", "b", "c", "d"), "p1")
LEFT = (SeriesGroup(("cpu",), ("a",), "p2"), SeriesGroup(("memory",), ("c",), "p1"))
BEFORE = SucceededListing("meter-compute@h1", "2026-11-27T12:01:00")
"""What the agent h1 listed at 12:01."""


def first_leader():
    return [
        cycle(BOOT, 1, at(0), poll(whole=True, series=(ALL,)), poll("disk", whole=True, series=(ALL,))),
        cycle(BOOT, 2, at(60), poll(), poll("disk")),
    ]


def second_leader(number=1, due=120, **changes):
    return cycle(
        OTHER, number, at(due), poll(**{"whole": True, "series": LEFT, "succeeds": BEFORE, **changes}), host="h2"
    )


async def ends(store, host="h1", pollster="cpu"):
    """Return until when, and why not longer, a pollster of a host measured each resource."""
    rows = (await ledger_tables(store))["metered_resource"]
    return [(row[3], row[7], row[8]) for row in rows if (row[0], row[1]) == (f"meter-compute@{host}", pollster)]


SUCCEEDED = [("a", at(120), ""), ("b", at(120), "gone"), ("c", at(120), ""), ("d", at(120), "gone")]


@pytest_twisted.ensureDeferred
async def test_what_a_new_leader_does_not_list_of_its_predecessors_resources_is_gone(store):
    await told(store, *first_leader())
    assert await told(store, second_leader(), second_leader()) == ["applied", "repeated"]

    assert await ends(store) == SUCCEEDED
    assert [end for _, end, _ in await ends(store, pollster="disk")] == [None] * 4
    assert await ends(store, "h2") == [("a", None, ""), ("c", None, "")]


@pytest_twisted.ensureDeferred
async def test_failed_list_of_a_new_leader_ends_nothing_and_its_first_good_one_does(store):
    await told(store, *first_leader(), second_leader(outcome="error", whole=False, series=(), error="no answer"))
    assert [end for _, end, _ in await ends(store)] == [None] * 4

    await told(store, second_leader(2, 180))
    assert await ends(store) == [(name, at(180), reason) for name, _, reason in SUCCEEDED]


@pytest_twisted.ensureDeferred
async def test_each_part_of_a_new_leaders_list_ends_what_it_covers(store):
    await told(store, *first_leader(), cycle(OTHER, 1, at(120), poll(), host="h2"))
    part = {"whole": False, "continued": True, "listed_from": "", "listed_before": "c", "series": LEFT[:1]}
    await told(store, second_leader(2, **part))
    assert await ends(store) == [*SUCCEEDED[:2], ("c", None, ""), ("d", None, "")]

    await told(store, second_leader(3, **{**part, "listed_from": "c", "listed_before": "", "series": LEFT[1:]}))
    assert await ends(store) == SUCCEEDED


@pytest_twisted.ensureDeferred
async def test_new_leaders_list_waits_for_the_reports_of_its_predecessor(store):
    first = first_leader()[0]
    late = cycle(BOOT, 2, at(60), poll(series=(SeriesGroup(("cpu",), ("e",)),)), poll("disk"))
    assert await told(store, second_leader(), first, second_leader(2, 180, whole=False, series=(), succeeds=None)) == [
        "waiting",
        "applied",
        "waiting",
    ]
    assert await ends(store, "h2") == []
    assert await told(store, late) == ["applied"]
    assert await store.apply_waiting_reports() == 2
    assert await ends(store) == [*SUCCEEDED, ("e", at(120), "gone")]
    assert await ends(store, "h2") == [("a", None, ""), ("c", None, "")]


@pytest.mark.parametrize("rules", [AT_ONCE])
@pytest_twisted.ensureDeferred
async def test_reports_of_a_predecessor_that_never_come_are_given_up(store):
    await told(store, first_leader()[0], second_leader())
    assert await store.apply_waiting_reports() <= 1
    assert await ends(store) == SUCCEEDED


@pytest_twisted.ensureDeferred
async def test_nothing_is_gone_that_another_leader_lists_later_than_the_new_one(store):
    await told(store, *first_leader(), cycle(BOOT, 3, at(130), poll(), poll("disk")), second_leader())
    instant = timedelta(microseconds=1)
    assert await ends(store) == [(name, at(130) + instant, "") for name in "abcd"]


@pytest_twisted.ensureDeferred
async def test_leader_that_returns_succeeds_its_successor_and_lists_its_own_anew(store):
    await told(store, *first_leader(), second_leader())
    again = SucceededListing("meter-compute@h2", "2026-11-27T12:02:00")
    listed = SeriesGroup(("cpu",), ("a", "b"), "p1")
    await told(store, cycle(BOOT, 3, at(180), poll(whole=True, series=(listed,), succeeds=again)))

    assert await ends(store, "h2") == [("a", at(180), ""), ("c", at(180), "gone")]
    assert await ends(store) == sorted(
        [*SUCCEEDED, ("a", None, ""), ("b", None, "")], key=lambda row: (row[0], row[1] is None)
    )


@pytest.mark.parametrize("seed", range(6))
@pytest_twisted.ensureDeferred
async def test_any_order_of_two_leaders_reports_gives_the_same_tables(store, seed):
    rng = random.Random(seed)
    sent = [*first_leader(), second_leader(), second_leader(2, 180, whole=False, series=(), succeeds=None)]
    reference = MemoryStore(reactor)
    await told(reference, *sent)

    shuffled = [*sent, *rng.choices(sent, k=2)]
    rng.shuffle(shuffled)
    size = rng.randint(1, 3)
    for first in range(0, len(shuffled), size):
        await store.record_cycle_reports(shuffled[first : first + size])
    await store.apply_waiting_reports()

    assert await ledger_tables(store) == await ledger_tables(reference)


# --- heartbeats and rejected samples ---------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_last_heartbeat_of_each_daemon_is_kept(store):
    sent = [beat(BOOT, 2), beat(BOOT, 1), beat(BOOT, 3, at(-3600)), beat(BOOT, 3), beat(BOOT, 9, name="a@b")]

    began = datetime.fromtimestamp(reactor.seconds(), UTC)
    results = await store.record_heartbeats(sent)
    ended = datetime.fromtimestamp(reactor.seconds(), UTC)

    assert [result.outcome for result in results] == ["applied", "repeated", "applied", "repeated", "applied"]
    kept = await store.heartbeats()
    assert [(each.heartbeat.name, each.heartbeat.sequence) for each in kept] == [("a@b", 9), ("meter-api@h1", 3)]
    assert kept[1].clock == at(-3600)
    assert began <= kept[0].received_at <= ended


@pytest_twisted.ensureDeferred
async def test_replayed_heartbeat_of_an_earlier_process_is_ignored(store):
    results = [
        *await store.record_heartbeats([beat(BOOT, 8)]),
        *await store.record_heartbeats([beat(OTHER, 1), beat(BOOT, 9)]),
        *await store.record_heartbeats([beat(OTHER, 2)]),
    ]

    assert [result.outcome for result in results] == ["applied", "applied", "repeated", "applied"]


@pytest_twisted.ensureDeferred
async def test_rejected_samples_are_counted_in_a_limited_number_of_rows(store):
    few = [RejectedCount(NOON, "conflict", "cpu", "r1", "p1", 2), RejectedCount(NOON, "conflict", "cpu", "r1", "p1")]
    await store.record_rejected_samples(few)
    flood = [RejectedCount(NOON, "invalid", f"m{n}", "r", "p") for n in range(2_050)]
    await store.record_rejected_samples(flood)
    await store.record_rejected_samples([*few, *flood[:1], RejectedCount(at(3600), "invalid", "m", "r", "p")])

    if isinstance(store, MemoryStore):
        rows = store.rejected_samples
    else:
        found = store.rows_of("SELECT start, meter, resource, project, kind, samples FROM rejected_sample")
        rows = {tuple(row[:5]): row[5] for row in found}
    assert rows[NOON, "cpu", "r1", "p1", "conflict"] == 6
    assert rows[at(3600), "m", "r", "p", "invalid"] == 1
    assert rows[NOON, "", "", "", "invalid"] >= 50
    assert len(rows) <= 2_003
    assert sum(rows.values()) == 6 + 2_051 + 1
