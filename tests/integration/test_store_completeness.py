"""The completeness ledger on PostgreSQL: concurrent collectors, many agents, late samples, and retention."""

from __future__ import annotations

import random
import uuid
from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults

from meter.completeness_store import RejectedCount
from meter.cycle_report import InactivePollster
from meter.cycle_report import OffSchedulePoll
from meter.cycle_report import SeriesGroup
from meter.store import LateSamples
from meter.store.maintenance.maintenance import Retention
from meter.testing import MemoryStore
from tests.integration.test_store_rollups import running
from tests.ledger_tables import agent_life
from tests.ledger_tables import beat
from tests.ledger_tables import cycle
from tests.ledger_tables import ledger_tables
from tests.ledger_tables import poll
from tests.store_messages import message

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
GROUPS = tuple(SeriesGroup((meter,), (resource,), "p") for meter in "ab" for resource in "rs")


def boot_number(n):
    return uuid.UUID(int=n)


def at_once(*coroutines):
    return gatherResults([Deferred.fromCoroutine(each) for each in coroutines], consumeErrors=True)


def ledger_of(store, postgresql, dsn):
    store.rows_of = lambda statement: postgresql.execute(statement, dsn)
    return ledger_tables(store)


@pytest_twisted.ensureDeferred
async def test_two_collectors_at_once_apply_each_report_once_and_in_order(postgresql):
    dsn, rng = postgresql.dsn_with_schema(), random.Random(7)
    lives = [
        cycle(each.boot, each.report.sequence, each.due, *each.report.polls, host=f"h{host}")
        for host in range(5)
        for each in agent_life(
            boot_number(host), NOON, 20, lambda n: (tuple(rng.choices(GROUPS, k=2)), tuple(rng.choices(GROUPS, k=1)))
        )
    ]
    reference = MemoryStore(reactor)
    for each in lives:
        await reference.record_cycle_reports([each])

    async def deliver(store, reports):
        for first in range(0, len(reports), 7):
            await store.record_cycle_reports(reports[first : first + 7])

    async with running(dsn) as one, running(dsn) as other:
        twice = [rng.sample(lives, len(lives)) for _ in range(4)]
        await at_once(*(deliver(store, part) for store, part in zip((one, other, one, other), twice, strict=True)))

        assert await ledger_of(one, postgresql, dsn) == await ledger_tables(reference)
        assert postgresql.execute("SELECT count(*) FROM waiting_report", dsn) == [(0,)]


@pytest_twisted.ensureDeferred
async def test_first_reports_of_ten_thousand_agents_are_applied(postgresql):
    dsn = postgresql.dsn_with_schema()
    meters = ("cpu", "memory.usage")
    async with running(dsn) as store:

        async def deliver(hosts):
            for first in range(hosts.start, hosts.stop, 100):
                reports = [
                    cycle(
                        boot_number(n),
                        1,
                        NOON,
                        poll(whole=True, series=(SeriesGroup(meters, (f"{n}-a", f"{n}-b"), f"p{n % 50}"),)),
                        host=f"h{n}",
                    )
                    for n in range(first, first + 100)
                ]
                told = {result.outcome for result in await store.record_cycle_reports(reports)}
                assert told == {"applied"}

        await at_once(deliver(range(0, 5000)), deliver(range(5000, 10_000)))

        counts = "SELECT (SELECT count(*) FROM agent), (SELECT count(*) FROM cycle_run), (SELECT count(*) FROM metered_resource)"
        assert postgresql.execute(counts, dsn) == [(10_000, 10_000, 20_000)]
        assert postgresql.execute("SELECT count(*) FROM meter_list", dsn) == [(1,)]


@pytest_twisted.ensureDeferred
async def test_list_of_a_hundred_thousand_resources_is_applied(postgresql):
    dsn = postgresql.dsn_with_schema()
    ids = tuple(f"{n:036}" for n in range(100_000))
    async with running(dsn) as store:
        for sequence, resources in ((1, ids), (2, ids), (3, ids[:-1])):
            group = SeriesGroup(("volume.size",), resources)
            sent = cycle(boot_number(1), sequence, NOON + timedelta(hours=sequence), poll(whole=True, series=(group,)))
            [result] = await store.record_cycle_reports([sent])
            assert result.outcome == "applied"

        rows = "SELECT until_due = 'infinity', count(*) FROM metered_resource GROUP BY 1 ORDER BY 1"
        assert postgresql.execute(rows, dsn) == [(False, 1), (True, 99_999)]


@pytest.mark.parametrize("every", [False, True])
@pytest_twisted.ensureDeferred
async def test_late_samples_are_counted_once_by_hour_and_series(postgresql, every):
    dsn = postgresql.dsn_with_schema()
    polled = {"_meter": {"interval": 60}}
    now = datetime.now(UTC)
    hour = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=5)
    late = [message(at=hour + timedelta(minutes=n), metadata=polled) for n in (1, 2)]
    heard = message("instance", at=hour, metadata={"event_type": "x"})
    async with running(dsn, late=LateSamples(3600.0, every=every)) as store:
        await store.write([message(at=now, metadata=polled)])
        await store.write([*late, heard, message(at=now - timedelta(minutes=50), metadata=polled)])
        await store.write([*late, message(at=hour + timedelta(minutes=3), metadata=polled)])
        await store.maintenance.run()
        await store.write([message(at=hour + timedelta(minutes=4), metadata=polled)])

    found = postgresql.execute(
        "SELECT l.start, m.name, l.samples, l.max_seconds BETWEEN 14000 AND 40000 FROM late_sample l"
        " JOIN series x ON x.id = l.series_id JOIN meter m ON m.id = x.meter_id ORDER BY m.name",
        dsn,
    )
    assert found == [(hour, "cpu", 4, True), *([(hour, "instance", 1, True)] if every else [])]


@pytest_twisted.ensureDeferred
async def test_ledger_expires_with_samples_and_rollups_except_what_is_still_measured(postgresql):
    dsn = postgresql.dsn_with_schema()
    now = datetime.now(UTC)
    old = now - timedelta(days=60)
    off = OffSchedulePoll("cpu", (old.replace(tzinfo=None)).isoformat(), (GROUPS[3],))

    def first(host, due):
        return cycle(
            boot_number(1),
            1,
            due,
            poll(whole=True, series=GROUPS[:2], outcome="ok"),
            poll("disk", outcome="error", error="x"),
            host=host,
            off_schedule=(off,),
            inactive=(InactivePollster("gpu", True, "off", ()),),
        )

    async def fill(store):
        await store.record_cycle_reports([first("silent", old), first("alive", old)])
        await store.record_cycle_reports(
            [cycle(boot_number(2), 1, now, poll(whole=True, series=GROUPS[:1]), poll("disk"), host="alive")]
        )
        await store.record_rejected_samples([RejectedCount(old, "conflict"), RejectedCount(now, "conflict")])
        await store.record_heartbeats([beat(boot_number(1), 1, old)])
        postgresql.execute("UPDATE daemon_heartbeat SET received_at = now() - interval '31 days'", dsn)

    async with running(dsn, retention=Retention(days=30)) as store:
        await fill(store)
        before = await ledger_of(store, postgresql, dsn)
        await store.maintenance.run()
        assert await ledger_of(store, postgresql, dsn) == before  # as rollups are retained for ever
        assert postgresql.execute("SELECT count(*) FROM daemon_heartbeat", dsn) == [(0,)]

    async with running(dsn, retention=Retention(days=30, rollup_days=40)) as store:
        await store.maintenance.run()
        tables = await ledger_of(store, postgresql, dsn)
        assert [run[:2] for run in tables["cycle_run"]] == [("meter-compute@alive", str(boot_number(2)))]
        assert [(row[0], row[3], row[5]) for row in tables["metered_resource"] if row[7] is None] == [
            ("meter-compute@alive", "r", ("a",))
        ]
        assert (tables["polling_exception"], tables["off_schedule_poll"]) == ([], [])
        assert {row[0] for row in tables["inactive_pollster"]} == {"meter-compute@alive"}
        [agent] = await store.agents()
        assert (agent.name, [boot.boot for boot in agent.boots]) == ("meter-compute@alive", [boot_number(2)])
        assert len(postgresql.execute("SELECT 1 FROM rejected_sample", dsn)) == 1
        assert len(postgresql.execute("SELECT 1 FROM meter_list", dsn)) == 1
