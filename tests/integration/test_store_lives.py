"""Lives from PostgreSQL: the same as from memory, whatever is final, and in few statements for many resources."""

from __future__ import annotations

import random
import uuid
from datetime import UTC
from datetime import datetime
from datetime import timedelta

import msgspec
import pytest
import pytest_twisted

from meter.completeness.lives.kinds import KINDS
from meter.completeness.lives.life_store import ILifeStore
from meter.completeness.lives.resource_lives import lives
from meter.cycle_report import SeriesGroup
from meter.cycle_report import SkipReport
from meter.query import SampleFilter
from meter.testing import MemoryStore
from tests.integration.test_store_rollups import running
from tests.ledger_tables import cycle
from tests.ledger_tables import poll as poll_report
from tests.store_messages import message

START = datetime(2026, 11, 16, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
END = START + 3 * DAY
INTERVAL = 600


def polled(meter, when, volume, resource, **metadata):
    return message(
        meter,
        volume,
        at=when,
        unit="GiB",
        resource_id=resource,
        project_id=metadata.pop("project", "p1"),
        metadata={**metadata, "_meter": {"interval": INTERVAL, "run": "exists"}},
    )


def notified(meter, when, volume, resource, event, **metadata):
    project = metadata.pop("project", "p1")
    return message(
        meter,
        volume,
        at=when,
        unit="GiB",
        resource_id=resource,
        project_id=project,
        metadata={**metadata, "event_type": event},
    )


def volumes(seed, count=6):
    """Messages about volumes that are polled, extended, attached, transferred and deleted, by polls and by notifications.

    Some notifications contradict others of the same microsecond; some repeat what was the state before.
    """
    rng = random.Random(seed)
    messages = []
    for n in range(count):
        size, state, project, resource = 10, "available", "p1", f"v{seed}-{n}"
        created = START + timedelta(seconds=rng.randrange(6 * 3600))
        deleted = created + timedelta(seconds=rng.randrange(3600, 60 * 3600))
        heard, listed = n % 3 != 1, n % 3 != 0
        when = created
        while when < min(deleted, END):
            if when == created or rng.random() < 0.02:
                size += rng.choice([0, 0, 10])
                state = rng.choice(["available", "in-use"])
                project = rng.choice(["p1", "p1", "p2"])
                if heard:
                    event = "volume.create.end" if when == created else "volume.update.end"
                    for meter, volume in (("volume", 1), ("volume.size", size)):
                        messages.append(notified(meter, when, volume, resource, event, status=state, project=project))
            if heard and rng.random() < 0.2:
                for status in rng.choice((("in-use",), ("in-use", "available"), ("available", "in-use", "error"))):
                    messages.append(
                        notified("volume", when, 1, resource, "volume.update.end", status=status, project=project)
                    )
            if listed:
                for meter, volume in (("volume", 1), ("volume.size", size)):
                    messages.append(polled(meter, when, volume, resource, status=state, project=project))
            when += timedelta(seconds=INTERVAL)
        if heard and deleted < END:
            for meter in ("volume", "volume.size"):
                messages.append(
                    notified(meter, deleted, 0, resource, "volume.delete.end", status="deleting", project=project)
                )
    return messages


async def found(store, **equals):
    filter = SampleFilter(equals=equals)
    return [each async for each in lives(store, filter, START, END, kinds=KINDS.values())]


async def listed_rows(store, rows):
    """Write rows of cycle reports: agent, resource, first_due, until_due, and the run of cycles from START to the given time."""
    for agent, resource, first, until, cycles_until in rows:
        [[agent_id]] = await store._writers.rows(
            "INSERT INTO agent (name, daemon, host) VALUES (%s, 'meter-compute', %s)"
            " ON CONFLICT (name) DO UPDATE SET host = excluded.host RETURNING id",
            [f"meter-compute@{agent}", agent],
        )
        [[list_id]] = await store._writers.rows(
            "INSERT INTO meter_list (hash, meters) VALUES ('\\x01', ARRAY['instance'])"
            " ON CONFLICT (hash) DO UPDATE SET hash = excluded.hash RETURNING id"
        )
        await store._writers.rows(
            "INSERT INTO metered_resource (agent_id, pollster, interval, resource, project, meter_list_id, first_due, until_due)"
            " VALUES (%s, 'instance', %s, %s, '', %s, %s, coalesce(%s, 'infinity'::timestamptz)) RETURNING 1",
            [agent_id, INTERVAL, resource, list_id, first, until],
        )
        await store._writers.rows(
            "INSERT INTO cycle_run (agent_id, boot, interval, first_due, last_due, first_sequence, cycles, pollsters)"
            " VALUES (%s, %s, %s, %s, %s, 1, 1, ARRAY['instance']) ON CONFLICT DO NOTHING RETURNING 1",
            [agent_id, str(uuid.uuid4()), INTERVAL, START, cycles_until],
        )


@pytest_twisted.ensureDeferred
async def test_lives_are_those_of_a_store_in_memory_whatever_is_final(postgresql):
    memory = MemoryStore()
    async with running(postgresql.dsn_with_schema()) as store:
        assert ILifeStore.providedBy(store)
        messages = [each for seed in range(3) for each in volumes(seed)]
        random.Random(3).shuffle(messages)
        await memory.write(messages)
        await store.write(messages)
        for projects in ({}, {"project_id": "p1"}, {"project_id": "p2"}, {"resource_id": "v0-2"}):
            expected = await found(memory, **projects)
            assert expected
            assert await found(store, **projects) == expected
        await store.maintenance.finalize(END)
        assert await store._readers.rows("SELECT count(*) > 0 FROM rollup WHERE hours = 24") == [(True,)]
        for projects in ({}, {"project_id": "p1"}, {"project_id": "p2"}, {"resource_id": "v0-2"}):
            assert await found(store, **projects) == await found(memory, **projects)


@pytest_twisted.ensureDeferred
async def test_each_notification_counts_though_its_hour_is_final(postgresql):
    """The third of four equal ones takes back what another meter told with the second one."""
    memory = MemoryStore()
    told = [("volume", 0, "in-use"), ("volume", 5, "in-use"), ("volume.size", 5, "maintenance")]
    told += [("volume", 10, "in-use"), ("volume", 50, "in-use")]
    messages = [
        notified(meter, START + n * MINUTE, 1, "v", "volume.update.end", status=status) for meter, n, status in told
    ]
    async with running(postgresql.dsn_with_schema()) as store:
        await memory.write(messages)
        await store.write(messages)
        [expected] = await found(memory)
        assert [(each.state, (each.began - START) / MINUTE) for each in expected.segments] == [
            ("in-use", 0),
            ("maintenance", 5),
            ("in-use", 10),
        ]
        assert await found(store) == [expected]
        await store.maintenance.finalize(END)
        assert await store._readers.rows("SELECT max(count) FROM rollup WHERE hours = 24 AND first_volume > 0") == [
            (4,)
        ]
        assert await found(store) == [expected]
        # What has expired is known by its ends.
        await store._writers.rows("DELETE FROM sample WHERE timestamp > %s RETURNING 1", [START + 20 * MINUTE])
        assert await found(store) == [expected]
        await store._writers.rows("DELETE FROM sample RETURNING 1")
        [left] = await found(store)
        assert [(each.state, (each.began - START) / MINUTE) for each in left.segments] == [
            ("in-use", 0),
            ("maintenance", 5),
            ("in-use", 50),
        ]


@pytest_twisted.ensureDeferred
async def test_domain_ends_when_two_cycles_do_not_list_it(postgresql):
    def domain(hours, resource="vm", host="hv1"):
        metadata = {"state": "active", "instance_host": host, "_meter": {"interval": INTERVAL, "run": f"{host}/1"}}
        return message("instance", 1, at=START + hours * HOUR, unit="instance", resource_id=resource, metadata=metadata)

    steps = [n / 6 for n in range(6, 31)]
    async with running(postgresql.dsn_with_schema()) as store:
        await store.write(
            [domain(hours, resource) for resource in ("gone", "once", "silent", "failed") for hours in steps]
        )
        await store.write([domain(hours, "moved") for hours in steps if hours < 3])
        await store.write([domain(hours, "moved", "hv2") for hours in steps if hours >= 3])
        first, last = START + HOUR, START + 5 * HOUR
        until = last + timedelta(seconds=INTERVAL)
        await listed_rows(
            store,
            [
                ("hv1", "gone", first, until, last + HOUR),
                ("hv1", "moved", first, START + 3 * HOUR, last + HOUR),
                ("hv2", "moved", START + 3 * HOUR, None, END),
                ("hv3", "once", first, until, until),
                ("hv4", "silent", first, None, last),
                ("hv5", "failed", first, until, until + timedelta(seconds=INTERVAL)),
            ],
        )
        # The second cycle was no complete one.
        await store._writers.rows(
            "INSERT INTO polling_exception"
            " (agent_id, pollster, interval, resource, cause, reason, from_time, until_time, cycles, samples)"
            " SELECT id, 'instance', %s, '', 'poll failed', 'x', %s, %s, 1, 0 FROM agent WHERE host = 'hv5' RETURNING 1",
            [INTERVAL, until + timedelta(seconds=INTERVAL), until + timedelta(seconds=2 * INTERVAL)],
        )
        ends = {each.resource_id: each.segments[-1] for each in await found(store)}

    assert (ends["gone"].ended, ends["gone"].ended_told_by) == (until, "report")
    assert ends["gone"].ended_within == INTERVAL
    assert ends["gone"].began_told_by == "report"
    assert ends["gone"].began_within == INTERVAL
    # One cycle without it is no end, and a silent agent ends nothing.
    for name in ("once", "silent", "failed"):
        assert (ends[name].state, ends[name].ended, ends[name].began_told_by) == ("unknown", None, "silence")
    assert ends["moved"].ended is None
    assert ends["moved"].began == first


@pytest_twisted.ensureDeferred
async def test_as_of_excludes_what_was_recorded_later(postgresql):
    async with running(postgresql.dsn_with_schema()) as store:
        await store.write([notified("volume", START, 1, "v", "volume.create.end", status="available")])
        [[as_of]] = await store._readers.rows("SELECT clock_timestamp()")
        await store.write([notified("volume", START + HOUR, 0, "v", "volume.delete.end", status="deleting")])
        filter = SampleFilter(as_of=as_of)
        [before] = [each async for each in lives(store, filter, START, END)]
        [now] = await found(store)

    assert before.segments[-1].ended is None
    assert now.segments[-1].ended == START + HOUR


@pytest_twisted.ensureDeferred
async def test_life_follows_from_the_cycle_reports_of_an_agent(postgresql):
    boot = uuid.UUID("11111111-1111-4111-8111-111111111111")

    def group(*resources):
        return SeriesGroup(("instance",), resources, "p1")

    def domain(minutes, resource):
        metadata = {"state": "active", "instance_host": "h1", "_meter": {"interval": 60, "run": "1"}}
        when = START + timedelta(minutes=minutes, seconds=1)
        return message("instance", 1, at=when, unit="instance", resource_id=resource, metadata=metadata)

    polls = [
        poll_report("instance", whole=True, series=(group("a", "b"),)),
        poll_report(
            "instance",
        ),
        poll_report("instance", removed=(group("a"),)),
        poll_report("instance", series=(group("c"),)),
        poll_report("instance", outcome="error", error="no libvirt"),
        poll_report("instance", removed=(group("c"),)),
    ]
    async with running(postgresql.dsn_with_schema()) as store:
        await store.write([domain(n, "a") for n in range(2)] + [domain(n, "b") for n in range(6)] + [domain(3, "c")])
        for n, poll in enumerate(polls, 1):
            due = START + timedelta(minutes=n - 1)
            [result] = await store.record_cycle_reports([cycle(boot, n, due, poll)])
            assert result.outcome == "applied"
        found = [each async for each in lives(store, SampleFilter(), START, START + HOUR, now=START + 7 * MINUTE)]
    last = {each.resource_id: each.segments[-1] for each in found}

    assert (last["a"].ended, last["a"].ended_told_by, last["a"].ended_within) == (START + 2 * MINUTE, "report", 59)
    assert (last["b"].ended, last["b"].began_within) == (None, None)  # it was there before the agent
    # It was listed by one cycle, and a failed one proves nothing.
    assert (last["c"].ended, last["c"].began_within) == (None, 60)


def silent_agent_reports(begin, cycles):
    """Return the samples and the cycle reports of a domain that is measured each minute in ``cycles`` after ``begin``."""
    boot = uuid.UUID("22222222-2222-4222-8222-222222222222")
    messages, reports = [], []
    for sequence, n in enumerate(cycles, 1):
        due = begin + n * MINUTE
        series = (SeriesGroup(("instance",), ("vm",), "p1"),) if sequence == 1 else ()
        metadata = {"state": "active", "instance_host": "h1", "_meter": {"interval": 60, "run": "1"}}
        messages.append(message("instance", 1, at=due, unit="instance", resource_id="vm", metadata=metadata))
        reports.append(cycle(boot, sequence, due, poll_report("instance", whole=sequence == 1, series=series)))
    return messages, reports


async def segments_of_reports(store, begin, cycles):
    """Return the listed times, and the segments as state, begin and end in minutes after ``begin``."""
    messages, reports = silent_agent_reports(begin, cycles)
    await store.write(messages)
    for report in reports:
        [result] = await store.record_cycle_reports([report])
        assert result.outcome == "applied"
    now = begin + max(cycles) * MINUTE
    [found] = [each async for each in lives(store, SampleFilter(), begin, now + MINUTE, now=now)]
    listed = await store.life_reports(["vm"], ["instance"])
    segments = [
        (each.state, (each.began - begin) / MINUTE, None if each.ended is None else (each.ended - begin) / MINUTE)
        for each in found.segments
    ]
    return listed, segments


@pytest_twisted.ensureDeferred
async def test_state_is_unknown_while_the_agent_is_silent_though_it_reports_again(postgresql):
    silent = [*range(5), *range(8, 13), *range(14, 16), *range(22, 25)]  # for 4, 2 and 7 intervals
    memory = MemoryStore()
    expected, in_memory = await segments_of_reports(memory, START, silent)
    async with running(postgresql.dsn_with_schema()) as store:
        listed, segments = await segments_of_reports(store, START, silent)

    assert segments == in_memory
    assert segments == [
        ("active", 0, 5),
        ("unknown", 5, 8),
        ("active", 8, 16),
        ("unknown", 16, 22),
        ("active", 22, None),
    ]
    assert listed == expected
    minutes = [((each.first - START) / MINUTE, (each.last - START) / MINUTE) for each in listed]
    assert minutes == [(0, 4), (8, 12), (14, 15), (22, 24)]
    assert [each.unlisted_seconds for each in listed] == [None, 240, 120, 420]


@pytest.mark.parametrize("failure", ["poll", "domain", "still running"])
@pytest_twisted.ensureDeferred
async def test_state_is_unknown_while_polls_fail_for_long(postgresql, failure):
    """They fail for 2 intervals, for 6 across midnight and each for another reason, and at the end."""
    begin = START + DAY - 9 * MINUTE
    good = [0, 1, 4, 5, 12, 13]
    reports = []
    for n in range(20):
        _, [report] = silent_agent_reports(begin, [n])
        [told] = report.report.polls
        if n not in good:
            changes = {
                "poll": {"outcome": "error", "error": f"request {n}"},
                "domain": {"skipped": (SkipReport("domain hung", 1, ("vm",)),)},
                "still running": {"asked": False},
            }[failure]
            told = msgspec.structs.replace(told, whole=False, series=(), **changes)
        elif n:
            told = msgspec.structs.replace(told, whole=False, series=())
        reports.append(cycle(report.boot, n + 1, begin + n * MINUTE, told))
    memory = MemoryStore()
    async with running(postgresql.dsn_with_schema()) as store:
        for each in (memory, store):
            await each.write([sample for n in good for sample in silent_agent_reports(begin, [n])[0]])
            for report in reports:
                [result] = await each.record_cycle_reports([report])
                assert result.outcome == "applied"
            now = begin + 19 * MINUTE
            [life] = [found async for found in lives(each, SampleFilter(), begin, now, now=now)]
            assert [(one.state, (one.began - begin) / MINUTE) for one in life.segments] == [
                ("active", 0),
                ("unknown", 6),
                ("active", 12),
                ("unknown", 14),
            ]
            assert life.segments[-1].ended is None
        listed = await store.life_reports(["vm"], ["instance"])
        assert listed == await memory.life_reports(["vm"], ["instance"])
        assert [((each.first - begin) / MINUTE, (each.last - begin) / MINUTE) for each in listed] == [(0, 5), (12, 13)]


@pytest_twisted.ensureDeferred
async def test_midnight_is_no_silence_of_an_agent(postgresql):
    begin = START + DAY - 5 * MINUTE
    memory = MemoryStore()
    expected, in_memory = await segments_of_reports(memory, begin, range(10))
    async with running(postgresql.dsn_with_schema()) as store:
        listed, segments = await segments_of_reports(store, begin, range(10))
        assert await store._readers.rows("SELECT count(*) FROM cycle_run") == [(2,)]

    assert segments == in_memory == [("active", 0, None)]
    assert listed == expected
    assert [(each.first, each.last) for each in listed] == [(begin, begin + 9 * MINUTE)]


@pytest_twisted.ensureDeferred
async def test_change_of_meters_just_before_a_silence_is_no_end(postgresql):
    cycles = [*range(5), *range(10, 15)]
    messages, reports = silent_agent_reports(START, cycles)
    first, then = SeriesGroup(("instance",), ("vm",), "p1"), SeriesGroup(("instance", "power.state"), ("vm",), "p1")
    boot = reports[0].boot
    reports[4] = cycle(boot, 5, START + 4 * MINUTE, poll_report("instance", removed=(first,), series=(then,)))
    memory = MemoryStore()
    async with running(postgresql.dsn_with_schema()) as store:
        for each in (memory, store):
            await each.write(messages)
            for report in reports:
                [result] = await each.record_cycle_reports([report])
                assert result.outcome == "applied"
            now = START + 14 * MINUTE
            [life] = [found async for found in lives(each, SampleFilter(), START, now, now=now)]
            assert [(one.state, one.began, one.ended) for one in life.segments] == [
                ("active", START, START + 5 * MINUTE),
                ("unknown", START + 5 * MINUTE, START + 10 * MINUTE),
                ("active", START + 10 * MINUTE, None),
            ]
        assert await store.life_reports(["vm"], ["instance"]) == await memory.life_reports(["vm"], ["instance"])
        assert [each.gone for each in await store.life_reports(["vm"], ["instance"])].count(None) == 2
