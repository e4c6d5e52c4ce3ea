"""Hours without samples: they are final, so that a store that is polled seldom reads no more than one that is polled always."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from datetime import timedelta
from itertools import groupby

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from meter.query import Aggregate
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.store.maintenance.empty_hours import MAX_HOURS
from meter.store.maintenance.empty_hours import MAX_LOCKED_HOURS
from meter.store.maintenance.empty_hours import STATEMENT_SECONDS
from meter.store.maintenance.empty_hours import mark_empty_hours
from meter.store.maintenance.maintenance import Retention
from meter.store.maintenance.partitions import week_of
from meter.store.maintenance.rollups import LOCK_HOURS_EXCLUSIVE
from meter.store.maintenance.rollups import finalize
from meter.store.maintenance.rollups import hour_locks
from meter.store.write.record import record_of
from meter.testing import MemoryStore
from tests.integration.test_store_rollups import DAY
from tests.integration.test_store_rollups import HOUR
from tests.integration.test_store_rollups import OVERFLOW
from tests.integration.test_store_rollups import comparable
from tests.integration.test_store_rollups import running
from tests.packed import pack_all_blocking
from tests.plans import count_rows_read
from tests.spread import spread_database
from tests.store_messages import message

START = datetime.combine(week_of(datetime.now(UTC)), datetime.min.time(), UTC) - timedelta(days=14)
"""A Monday. There are totals by minute of the hours since."""

DAYS, RESOURCES = 12, 20
FINAL = "SELECT count(*) FILTER (WHERE hours = 1), count(*) FILTER (WHERE hours = 24) FROM final_period"
NOT_FINAL = (
    "DELETE FROM final_period p WHERE NOT EXISTS (SELECT FROM rollup r WHERE (r.hours, r.start) = (p.hours, p.start))"
)
"""Leaves what an earlier Meter did: hours and days with samples are final."""

KINDS = {
    "by hour": {"period": 3600},
    "by hour and project": {"period": 3600, "groupby": ("project_id",)},
    "by 10 minutes": {"period": 600},
    "by 10 minutes and project": {"period": 600, "groupby": ("project_id",)},
    "increase by hour": {"period": 3600, "aggregates": (Aggregate("increase"),)},
    "in total": {},
}


@pytest.fixture(params=["one server", "spread"])
def server_and_dsn(request):
    if request.param == "spread":
        with spread_database(request) as found:
            yield found
    else:
        postgresql = request.getfixturevalue("postgresql")
        yield postgresql, postgresql.dsn_with_schema()


def polls(days=DAYS, hour=9, meter="cpu", **fields):
    """Return samples of many resources, each of which is polled once: other ones every day."""
    return [
        message(meter, n, at=START + day * DAY + hour * HOUR + timedelta(seconds=n), resource_id=f"{day}-{n}", **fields)
        for day in range(days)
        for n in range(RESOURCES)
    ]


async def maintained(store, at=START + DAYS * DAY):
    store.maintenance._mark_empty_hours_at = 0  # an hour has passed
    await store.maintenance.finalize(at)


def questions(**more):
    return {
        kind: StatisticsQuery(filter=SampleFilter(equals={"meter": "cpu"}, **more), **options)
        for kind, options in KINDS.items()
    }


async def same_answers(store, messages, **more):
    memory = MemoryStore()
    await memory.write(messages)
    for kind, query in questions(**more).items():
        assert comparable(await store.statistics(query)) == comparable(await memory.statistics(query)), kind


@pytest_twisted.ensureDeferred
async def test_hours_between_samples_are_final_and_so_are_days(server_and_dsn):
    postgresql, dsn = server_and_dsn
    messages = [*polls(2), message(at=START + 5 * DAY)]
    async with running(dsn) as store:
        await store.write(messages)
        await maintained(store)
        assert postgresql.execute(FINAL, dsn) == [(5 * 24 - 9 + 1, 6)]
        await maintained(store)
        assert postgresql.execute(FINAL, dsn) == [(5 * 24 - 9 + 1, 6)]
        await same_answers(store, messages)


@pytest.mark.parametrize("final", [True, False], ids=["empty hours are final", "they are not"])
@pytest_twisted.ensureDeferred
async def test_samples_are_looked_for_in_few_gaps_whatever_the_number_of_days(postgresql, final):
    dsn = postgresql.dsn_with_schema()
    messages = polls()
    async with running(dsn) as store:
        await store.write(messages)
        await maintained(store)
        if not final:
            postgresql.execute(NOT_FINAL, dsn)
        for kind, query in questions().items():
            if "increase" not in kind:
                rows, read = await count_rows_read(store._readers, lambda query=query: store.statistics(query))
                assert sum(row.values["count"] for row in rows) == len(messages)
                assert look_ups(read) <= 2, f"{kind}\n{read.text()}"


def look_ups(read):
    """Return how often samples of groups of series were looked up, in all partitions."""

    def of(plan):
        by_series = plan.get("Index Name", "").startswith("sample_") and "series_id" in plan.get("Index Cond", "")
        return plan["Actual Loops"] * by_series + sum(map(of, plan.get("Plans", ())))

    return sum(map(of, read.plans))


def batched_by_week(messages):
    return [list(week) for _, week in groupby(messages, lambda each: week_of(each.timestamp))]


@pytest_twisted.ensureDeferred
async def test_newest_gap_is_read_of_series_that_may_have_samples_so_late(postgresql):
    dsn = postgresql.dsn_with_schema()
    messages = [*polls(), *(message(at=START + days * DAY, resource_id="new") for days in (15, 16))]
    query = StatisticsQuery(filter=SampleFilter(equals={"meter": "cpu"}), groupby=("resource_id",), limit=1000)
    async with running(dsn) as store:
        for week in batched_by_week(messages):  # all series of a batch are retained for the week of its last sample
            await store.write(week)
        await maintained(store, START + 16 * DAY)
        rows, read = await count_rows_read(store._readers, lambda: store.statistics(query))
        assert len(rows) == len(messages) - 1
        assert look_ups(read) <= 6, read.text()


@pytest_twisted.ensureDeferred
async def test_minutes_of_a_meter_are_not_looked_for_in_hours_of_others(postgresql):
    dsn = postgresql.dsn_with_schema()
    often = [message("often", at=START + n * HOUR) for n in range(24 * 3)]
    messages = [*polls(3), *often]
    async with running(dsn) as store:
        await store.write(messages)
        await maintained(store)
        for kind in ("by 10 minutes", "by 10 minutes and project"):
            query = questions(start=START, end=START + 3 * DAY)[kind]
            rows, read = await count_rows_read(store._readers, lambda query=query: store.statistics(query))
            assert sum(row.values["count"] for row in rows) == len(polls(3))
            assert look_ups(read) <= 2, f"{kind}\n{read.text()}"
        await same_answers(store, messages)


@pytest_twisted.ensureDeferred
async def test_late_samples_of_empty_hours_are_counted_and_their_series_not_noted(server_and_dsn):
    postgresql, dsn = server_and_dsn
    late = [message("cpu", n, at=START + 3 * DAY + timedelta(seconds=n), resource_id=f"late-{n}") for n in range(3)]
    async with running(dsn) as store:
        await store.write(polls())
        await maintained(store)
        before = postgresql.execute(FINAL, dsn)
        for n, each in enumerate(late):
            await store.write([each])
            assert postgresql.execute("SELECT count(*) FROM changed_series", dsn) == [(0,)]
            await same_answers(store, polls() + late[: n + 1])
        await maintained(store)
        assert postgresql.execute(FINAL, dsn) == before
        await same_answers(store, polls() + late)

        # Of an hour that has rollups the series are noted, also while it is not final.
        for name in ("other", "another"):
            late.append(message(at=START + 3 * DAY, resource_id=name))
            await store.write(late[-1:])
        assert postgresql.execute("SELECT count(*) FROM changed_series", dsn) == [(2,)]
        await maintained(store)
        await same_answers(store, polls() + late)


@pytest_twisted.ensureDeferred
async def test_hours_that_may_have_samples_and_long_gaps_stay_as_they_are(postgresql):
    dsn = postgresql.dsn_with_schema()
    far = message(at=START + (MAX_HOURS + 2) * HOUR)
    async with running(dsn) as store:
        await store.write([message(at=START), far])
        await maintained(store, far.timestamp + DAY)
        assert postgresql.execute(FINAL, dsn) == [(2, 2)]

        await store.write([message(at=START + HOUR)])
        await maintained(store, far.timestamp + DAY)
        assert postgresql.execute(FINAL, dsn) == [(MAX_HOURS + 3, MAX_HOURS // 24 + 1)]

        overflowing = START - 2 * DAY + timedelta(minutes=1)
        await store.write([message(volume=volume, at=overflowing) for volume in (1e29, -1e29)])
        postgresql.execute(OVERFLOW, dsn)
        await store.write([message(at=START - 3 * DAY)])
        await maintained(store, far.timestamp + DAY)
        assert postgresql.execute(FINAL, dsn) == [(MAX_HOURS + 3 + 3 * 24 - 1, MAX_HOURS // 24 + 3)]


@pytest_twisted.ensureDeferred
async def test_hours_in_which_something_has_changed_stay_as_they_are(postgresql):
    dsn = postgresql.dsn_with_schema()
    messages = [message(volume=n, at=START + n * 5 * HOUR, resource_id=f"{n}") for n in range(3)]
    async with running(dsn) as store:
        await store.write(messages)
        await maintained(store)
        # What is left after the only sample of an hour was voided: the mark of the series that changed.
        at = START + 3 * HOUR
        postgresql.execute(f"INSERT INTO changed_series SELECT '{at}', min(id) FROM series", dsn)
        postgresql.execute(f"DELETE FROM final_period WHERE hours = 1 AND start = '{at}'", dsn)
        await maintained(store)
        assert postgresql.execute(FINAL, dsn) == [(10, 1)]
        await same_answers(store, messages)


@pytest_twisted.ensureDeferred
async def test_late_sample_of_an_hour_of_which_nothing_was_left_is_counted(postgresql):
    dsn = postgresql.dsn_with_schema()
    messages = [message(volume=n, at=START + n * 5 * HOUR, resource_id=f"{n}") for n in range(3)]
    late = message(at=START + 5 * HOUR, resource_id="late")
    of_hour = f"start = '{START + 5 * HOUR}'"
    async with running(dsn) as store:
        await store.write(messages)
        await maintained(store)
        # What is left after the only sample of an hour was voided.
        postgresql.execute(
            f"INSERT INTO changed_series SELECT start, series_id FROM rollup WHERE hours = 1 AND {of_hour} LIMIT 1;"
            f"DELETE FROM final_period WHERE {of_hour} OR hours = 24; DELETE FROM rollup WHERE {of_hour};"
            f"DELETE FROM meter_totals WHERE {of_hour}; DELETE FROM sample WHERE timestamp = '{START + 5 * HOUR}'",
            dsn,
        )
        await store.write([late])
        assert postgresql.execute("SELECT count(*) FROM changed_series", dsn) == [(2,)]
        await maintained(store)
        await same_answers(store, [messages[0], messages[2], late])


@pytest_twisted.ensureDeferred
async def test_hours_before_a_retention_cutoff_are_not_marked(postgresql):
    dsn = postgresql.dsn_with_schema()
    async with running(dsn, retention=Retention(meter_days={"cpu": 1})) as store:
        await store.write([message(at=START), message(at=START + 10 * HOUR)])
        postgresql.execute(f"INSERT INTO retention_cutoff VALUES ('cpu', '{START + 6 * HOUR}')", dsn)
        await maintained(store)
        marked = f"SELECT min(start), count(*) FROM final_period WHERE hours = 1 AND start > '{START}'"
        assert postgresql.execute(marked, dsn) == [(START + 6 * HOUR, 5)]


@pytest_twisted.ensureDeferred
async def test_packed_samples_are_seen(postgresql):
    """Hours of a packed week were final when it was packed; here they were not."""
    dsn = postgresql.dsn_with_schema()
    messages = [message(volume=n, at=START + n * 5 * HOUR) for n in range(5)]
    async with running(dsn) as store:
        await store.write([messages[0], *messages[3:]])
        await maintained(store)
        between = f"start > '{START}' AND start < '{messages[3].timestamp}'"
        postgresql.execute(f"DELETE FROM final_period WHERE hours = 24 OR {between}", dsn)
        await store.write(messages[1:3])
        pack_all_blocking(dsn)
        await maintained(store)
        assert postgresql.execute(FINAL, dsn)[0][0] == 7
        await same_answers(store, messages, start=START, end=START + 20 * HOUR)


@pytest_twisted.ensureDeferred
async def test_empty_hours_of_packed_weeks_are_marked(postgresql):
    dsn = postgresql.dsn_with_schema()
    messages = [message(volume=n, at=START + n * 5 * HOUR) for n in range(5)]
    async with running(dsn) as store:
        await store.write(messages)
        await maintained(store)
        pack_all_blocking(dsn)
        postgresql.execute(NOT_FINAL, dsn)
        await maintained(store)
        await maintained(store)
        assert postgresql.execute(FINAL, dsn) == [(21, 1)]
        await same_answers(store, messages)


@pytest_twisted.ensureDeferred
async def test_hours_that_others_use_are_left_for_another_time_and_nobody_waits(postgresql):
    dsn = postgresql.dsn_with_schema()
    final = f"SELECT start FROM final_period WHERE hours = 1 AND start > '{START}' ORDER BY start"
    written, gate = Deferred(), Deferred()
    async with running(dsn) as store, running(dsn) as other:
        await store.write([message(at=START), message(at=START + 4 * HOUR)])
        await store.maintenance._pool.run(_finalized, START)
        await store.maintenance._pool.run(_finalized, START + 4 * HOUR)

        async def slowly(session):
            await store._sample_writer._store(session, [record_of(message(at=START + HOUR))])
            written.callback(None)
            await gate

        writing = Deferred.fromCoroutine(store._writers.run(slowly))
        await written
        # Both collectors return although the writer does not end.
        assert not await mark_empty_hours(store.maintenance._pool.run, START + HOUR, START + 4 * HOUR)
        assert not await mark_empty_hours(other.maintenance._pool.run, START + HOUR, START + 4 * HOUR)
        gate.callback(None)
        await writing
        assert await mark_empty_hours(store.maintenance._pool.run, START + HOUR, START + 4 * HOUR)
        assert [(start - START) // HOUR for [start] in postgresql.execute(final, dsn)] == [2, 3, 4]


@pytest_twisted.ensureDeferred
async def test_hours_that_could_not_be_looked_at_are_tried_again_soon(postgresql):
    dsn = postgresql.dsn_with_schema()
    async with running(dsn) as store:
        await store.write([message(at=START), message(at=START + 2 * HOUR)])
        held, gate = Deferred(), Deferred()

        async def hold(session):
            await session.rows(LOCK_HOURS_EXCLUSIVE, [hour_locks([START + HOUR])])
            held.callback(None)
            await gate

        holding = Deferred.fromCoroutine(store._writers.run(hold))
        await held
        await store.maintenance.finalize(START + 3 * HOUR)
        gate.callback(None)
        await holding
        assert postgresql.execute(FINAL, dsn) == [(2, 0)]
        in_a_minute = reactor.seconds() + 60  # not in an hour
        assert store.maintenance._mark_empty_hours_at <= in_a_minute
        assert list(store.maintenance._unmarked.pending()) == [(START + HOUR, START + 2 * HOUR)]
        store.maintenance._unmarked.succeeded((START + HOUR, START + 2 * HOUR))
        await maintained(store, START + 3 * HOUR)
        assert postgresql.execute(FINAL, dsn) == [(3, 0)]


@pytest_twisted.ensureDeferred
async def test_few_hours_are_locked_at_once_for_a_short_time(postgresql):
    dsn = postgresql.dsn_with_schema()
    limits, locked = [], []
    async with running(dsn) as store:
        await store.write([message(at=START), message(at=START + 100 * HOUR)])

        async def noted(work, *arguments):
            async def then_look(session):
                done = await work(session, *arguments)
                [[seconds]] = await session.rows(
                    "SELECT extract(epoch FROM current_setting('statement_timeout')::interval)"
                )
                [[locks]] = await session.rows(
                    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND pid = pg_backend_pid()"
                )
                if locks:
                    limits.append(seconds)
                    locked.append(locks)
                return done

            return await store.maintenance._pool.run(then_look)

        assert await mark_empty_hours(noted, START + HOUR, START + 100 * HOUR)
        assert (sum(locked), max(locked)) == (99, MAX_LOCKED_HOURS)
        assert max(limits) <= STATEMENT_SECONDS


async def _finalized(session, start):
    assert await finalize(session, start, 1)
