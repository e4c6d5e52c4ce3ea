"""Garbage collection: unused rows of the dimension tables are deleted while others write."""

from __future__ import annotations

import random
from contextlib import closing
from datetime import UTC
from datetime import datetime
from datetime import timedelta

import psycopg2
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults

from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.sample_identity import WEEK
from meter.sample_identity import start_of_week
from meter.sample_identity import week_of
from meter.store.maintenance import garbage_collection
from meter.store.maintenance.garbage_collection import collect
from meter.store.maintenance.garbage_collection import delete_names
from meter.store.maintenance.garbage_collection import unused_names
from meter.store.maintenance.maintenance import Retention
from meter.store.write.dimensions import LOCK
from meter.store.write.record import record_of
from tests.integration.test_store_rollups import running
from tests.signed import stored_message
from tests.store_messages import message
from tests.waiting import until

NOW = datetime.now(UTC).replace(hour=12)
FOUR_WEEKS = Retention(days=28, rollup_days=28)
DIMENSION_TABLES = (
    "signed_batch",
    "series",
    "metadata",
    "wire_format",
    "meter",
    "resource",
    '"user"',
    "project",
    "source",
    "run",
)

DANGLING = """
SELECT count(*) FROM sample s LEFT JOIN series x ON x.id = s.series_id LEFT JOIN metadata d ON d.id = s.metadata_id
LEFT JOIN wire_format f ON f.id = s.wire_format_id LEFT JOIN meter m ON m.id = x.meter_id LEFT JOIN resource r ON r.id = x.resource_id
LEFT JOIN "user" u ON u.id = x.user_id LEFT JOIN project p ON p.id = x.project_id LEFT JOIN source o ON o.id = x.source_id
LEFT JOIN run ON run.id = x.run_id
WHERE x.id IS NULL OR d.id IS NULL OR f.id IS NULL OR m.id IS NULL OR r.id IS NULL OR u.id IS NULL OR p.id IS NULL
OR o.id IS NULL OR run.id IS NULL
"""


def of(who, weeks_ago=0.0, seconds=0.0, **options):
    """Return a message whose names and metadata no other message has, except those of the same ``who``."""
    return message(
        f"meter of {who}",
        at=NOW - weeks_ago * WEEK + timedelta(seconds=seconds),
        resource_id=f"resource {who}",
        user_id=f"user {who}",
        project_id=f"project {who}",
        metadata={"who": who, "_meter": {"run": f"run {who}", "interval": 300}},
        source=f"source {who}",
        **options,
    )


async def time_passes(store, weeks=0.0):
    """Finalize, expire and collect garbage as if it were ``weeks`` later."""
    now = NOW + weeks * WEEK
    await store.maintenance.finalize(now)
    await store.maintenance.expire(now)
    days = store.maintenance._retention.days
    oldest = week_of(now - timedelta(days=days))
    while days and await store.maintenance._pool.rows("SELECT FROM sample WHERE timestamp < %s LIMIT 1", [oldest]):
        await store.maintenance.expire(now)  # autovacuum had a partition locked: the next run of maintenance drops it
    await store.maintenance.collect_garbage()


def rows(postgresql, dsn):
    return {
        table.strip('"'): postgresql.execute(f"SELECT count(*) FROM {table}", dsn)[0][0] for table in DIMENSION_TABLES
    }


@pytest_twisted.ensureDeferred
async def test_garbage_collection_deletes_the_rows_of_expired_samples_and_no_others(postgresql):
    dsn = postgresql.dsn_with_schema()
    async with running(dsn, retention=FOUR_WEEKS) as store:
        both = [of("both", 10), of("both")]
        # What the samples of a batch refer to is retained as long as the newest of them.
        await store.write([of("gone", 10), both[0]])
        await store.write([of("kept"), both[1]])
        await store.maintenance.collect_garbage()
        assert rows(postgresql, dsn)["metadata"] == 3

        await time_passes(store)

        # The additional series is the owner series of the sample of ten weeks ago.
        assert rows(postgresql, dsn) == dict.fromkeys(rows(postgresql, dsn), 2) | {"wire_format": 1, "series": 3}
        assert await stored_message(store, both[1].message_id) == both[1].fields
        assert {each.resource_id for each in await store.resources(SampleFilter(), 10)} == {
            "resource kept",
            "resource both",
        }
    collected = dict(postgresql.execute("SELECT dimension, rows FROM garbage_collected", dsn))
    assert collected == dict.fromkeys(("metadata", "meter", "resource", "user", "project", "source", "run"), 1) | {
        "series": 2,
        "signed_batch": 2,
    }


@pytest_twisted.ensureDeferred
async def test_rows_of_the_newest_week_that_has_expired_are_deleted_with_it(postgresql):
    dsn = postgresql.dsn_with_schema()
    async with running(dsn, retention=FOUR_WEEKS) as store:
        oldest_kept = start_of_week(week_of(NOW - 4 * WEEK))
        weeks_ago = (NOW - oldest_kept) / WEEK
        await store.write([of("gone", weeks_ago, seconds=-1), of("also gone", weeks_ago, seconds=-0.001)])
        await store.write([of("kept", weeks_ago)])

        await time_passes(store)

        assert rows(postgresql, dsn) == dict.fromkeys(rows(postgresql, dsn), 1) | {"series": 2}
        assert {each.resource_id for each in await store.resources(SampleFilter(), 10)} == {"resource kept"}


@pytest_twisted.ensureDeferred
async def test_rows_in_use_are_looked_at_once_each_time_that_something_expires(postgresql, monkeypatch):
    monkeypatch.setattr(garbage_collection, "BATCH_ROWS", 4)
    monkeypatch.setattr(garbage_collection, "EXAMINED_ROWS", 10)
    dsn = postgresql.dsn_with_schema()
    async with running(dsn, retention=FOUR_WEEKS) as store:
        await store.write([of(f"kept {n}") for n in range(40)])
        await store.write([of(f"gone {n}", 10) for n in range(20)])
        pool, batches = store.maintenance._pool, []

        async def counted(work, *arguments, **named):
            if "after" in named:
                batches.append(work.keywords.get("dimension"))
            return await type(pool).run(pool, work, *arguments, **named)

        monkeypatch.setattr(pool, "run", counted)
        await store.maintenance.finalize(NOW)
        found = rows(postgresql, dsn)
        await time_passes(store)
        left = rows(postgresql, dsn)
        assert left["resource"] == 40
        # Each transaction looks at ten rows, or deletes four.
        for table in ("metadata", "series"):
            assert batches.count(table) <= found[table] / 10 + (found[table] - left[table]) / 4 + 2, table

        batches.clear()
        await store.maintenance.collect_garbage()
        assert batches == []


@pytest_twisted.ensureDeferred
async def test_rollups_retain_the_names_of_their_series(postgresql):
    dsn = postgresql.dsn_with_schema()
    async with running(dsn, retention=Retention(days=28)) as store:
        await store.write([of("old", 10), of("kept")])
        await time_passes(store)

        assert [sample.resource_id for sample in await store.samples(SampleFilter(), 10)] == ["resource kept"]
        found = await store.statistics(StatisticsQuery(filter=SampleFilter(equals={"resource_id": "resource old"})))
        assert [row.values["count"] for row in found] == [1]


@pytest_twisted.ensureDeferred
async def test_collector_with_cached_ids_of_deleted_rows_stores_later_samples_exactly(postgresql):
    dsn = postgresql.dsn_with_schema()
    async with running(dsn, retention=FOUR_WEEKS) as one, running(dsn, retention=FOUR_WEEKS) as other:
        for store in (one, other):
            await store.write([of("a", 10), of("b", 10)])
        await time_passes(one)
        assert rows(postgresql, dsn)["series"] == 0

        again, refused = of("a"), of("b", 10)
        result = await other.write([again, refused])

        assert (result.stored, [refusal.index for refusal in result.refused]) == (1, [1])
        assert await stored_message(one, again.message_id) == again.fields
    assert rows(postgresql, dsn) == dict.fromkeys(rows(postgresql, dsn), 1)


@pytest_twisted.ensureDeferred
async def test_retention_of_rows_in_use_is_extended_once_a_week(postgresql):
    dsn = postgresql.dsn_with_schema()
    moves = "SELECT sum(n_tup_upd) FROM pg_stat_user_tables WHERE relname IN ('series', 'metadata', 'wire_format')"
    async with running(dsn) as store:
        for days in (14, 13.9, 7, 6.9, 6.8, 0):
            await store.write([of("a", days / 7)])
        assert (await store.write([of("a", 1.01)])).stored == 1

    weeks = {(NOW - timedelta(days=days)).date().isocalendar().week for days in (14, 13.9, 7, 6.9, 6.8, 0)}
    await until(lambda: postgresql.execute(moves, dsn) == [(3 * (len(weeks) - 1),)])
    [[until_when]] = postgresql.execute("SELECT min(retained_until) FROM series", dsn)
    assert NOW < until_when <= NOW + WEEK


@pytest.mark.parametrize("finalized", [False, True])
@pytest_twisted.ensureDeferred
async def test_series_that_ended_before_the_start_are_left_out_and_no_others(postgresql, finalized):
    monday = start_of_week(week_of(NOW - 2 * WEEK))
    microsecond, hour = timedelta(microseconds=1), timedelta(hours=1)
    times = [monday - WEEK, monday - hour, monday - microsecond, monday, monday + microsecond, monday + hour]
    async with running(postgresql.dsn_with_schema()) as store:
        for n, at in enumerate(times):
            await store.write([message("cpu", at=at, resource_id=f"ended {n}", metadata={"n": n % 2})])
            await store.write([message("cpu", at=each, resource_id=f"until {n}") for each in times[: n + 1]])
        if finalized:
            await store.maintenance.finalize(NOW)
        for start in [*times, monday - 2 * WEEK, monday + 2 * microsecond, monday + WEEK]:
            filter = SampleFilter(equals={"meter": "cpu"}, start=start)
            found = await store.statistics(StatisticsQuery(filter=filter, groupby=("resource_id",)))
            expected = {f"ended {n}": 1 for n, at in enumerate(times) if at >= start}
            for n in range(len(times)):
                if count := sum(at >= start for at in times[: n + 1]):
                    expected[f"until {n}"] = count
            assert {row.group["resource_id"]: row.values["count"] for row in found} == expected, start


@pytest_twisted.ensureDeferred
async def test_row_that_a_writer_is_extending_is_not_collected(postgresql):
    dsn = postgresql.dsn_with_schema()
    gate, begun = Deferred(), []
    async with running(dsn, retention=FOUR_WEEKS) as store:
        await store.write([of("a", 10)])
        await store.maintenance.finalize(NOW)
        await store.maintenance.expire(NOW)

        async def slowly(session):
            begun.append(await store._sample_writer._store(session, [record_of(of("a"))]))
            await gate

        writing = Deferred.fromCoroutine(store._writers.run(slowly))
        await until(lambda: begun)
        await store.maintenance.collect_garbage()
        gate.callback(None)
        await writing

        assert (rows(postgresql, dsn)["series"], postgresql.execute(DANGLING, dsn)) == (1, [(0,)])


@pytest_twisted.ensureDeferred
async def test_writer_waits_for_a_row_that_is_being_collected_and_inserts_it_again(postgresql):
    dsn = postgresql.dsn_with_schema()
    gate, begun = Deferred(), []
    async with running(dsn, retention=FOUR_WEEKS) as store:
        await store.write([of("a", 10)])

        async def slowly(session):
            for dimension in ("wire_format", "metadata", "series"):
                begun.append((await collect(session, dimension, NOW - 5 * WEEK)).deleted)
            await gate

        collecting = Deferred.fromCoroutine(store.maintenance._pool.run(slowly))
        await until(lambda: len(begun) == 3)
        assert begun == [1, 1, 1]
        sent = of("a")
        writing = Deferred.fromCoroutine(store.write([sent]))
        await until(lambda: postgresql.execute("SELECT 1 FROM pg_locks WHERE NOT granted", dsn))
        gate.callback(None)
        await collecting
        await writing

        assert await stored_message(store, sent.message_id) == sent.fields


@pytest_twisted.ensureDeferred
async def test_names_that_a_new_series_refers_to_are_not_collected(postgresql):
    dsn = postgresql.dsn_with_schema()
    gate, begun = Deferred(), []
    async with running(dsn) as store:
        postgresql.execute("INSERT INTO resource (name) VALUES ('resource a')", dsn)

        async def slowly(session):
            begun.append(await store._sample_writer._store(session, [record_of(of("a"))]))
            await gate

        writing = Deferred.fromCoroutine(store._writers.run(slowly))
        await until(lambda: begun)
        pool = store.maintenance._pool
        ids = await pool.run(unused_names, "resource")
        assert len(ids) == 1
        collecting = Deferred.fromCoroutine(pool.run(delete_names, "resource", ids))
        await until(lambda: postgresql.execute("SELECT 1 FROM pg_locks WHERE NOT granted", dsn))
        gate.callback(None)
        await writing

        assert await collecting == 0
        assert (rows(postgresql, dsn)["resource"], postgresql.execute(DANGLING, dsn)) == (1, [(0,)])


@pytest_twisted.ensureDeferred
async def test_garbage_is_collected_in_batches_and_the_rest_in_the_next_run(postgresql, monkeypatch):
    dsn = postgresql.dsn_with_schema()
    monkeypatch.setattr(garbage_collection, "BATCH_ROWS", 5)
    monkeypatch.setattr(garbage_collection, "MAX_BATCHES", 2)
    async with running(dsn, retention=FOUR_WEEKS) as store:
        await store.write([of(n, 10) for n in range(23)])
        await time_passes(store)
        # No table waits for another: many signed batches do not keep metadata from being deleted.
        assert (rows(postgresql, dsn)["signed_batch"], rows(postgresql, dsn)["metadata"]) == (13, 13)
        for _ in range(2):
            await store.maintenance.collect_garbage()
        assert (rows(postgresql, dsn)["signed_batch"], rows(postgresql, dsn)["metadata"]) == (0, 0)

        for _ in range(30):
            await store.maintenance.collect_garbage()
        assert rows(postgresql, dsn) == dict.fromkeys(rows(postgresql, dsn), 0)


@pytest_twisted.ensureDeferred
async def test_names_stay_for_the_next_run_while_a_writer_makes_series_for_long(postgresql):
    dsn = postgresql.dsn_with_schema()
    async with running(dsn, retention=FOUR_WEEKS) as store:
        await store.write([of("gone", 10)])
        await store.write([of("kept")])
        with closing(psycopg2.connect(dsn)) as writer:
            writer.cursor().execute("SELECT pg_advisory_xact_lock_shared(%s)", [LOCK])
            await time_passes(store)

            assert store.maintenance.garbage_collection.unfinished
            assert (rows(postgresql, dsn)["metadata"], rows(postgresql, dsn)["meter"]) == (1, 2)

        await store.maintenance.collect_garbage()
        assert not store.maintenance.garbage_collection.unfinished
        assert rows(postgresql, dsn)["meter"] == 1


@pytest.mark.parametrize("seed", range(3))
@pytest_twisted.ensureDeferred
async def test_samples_written_while_garbage_is_collected_come_back_exactly(postgresql, seed):
    drawn = random.Random(seed)
    dsn = postgresql.dsn_with_schema()
    sent = []
    async with (
        running(dsn, retention=FOUR_WEEKS, cached_ids=8) as one,
        running(dsn, retention=FOUR_WEEKS) as other,
    ):
        for cycle in range(15):
            weeks = 2 * cycle  # rows used some cycles ago are collected, and made again later
            batches = [
                [of((3 * cycle + drawn.randrange(5)) % 15, drawn.randrange(6) - weeks) for _ in range(20)]
                for _ in range(6)
            ]
            sent += [each for batch in batches for each in batch]
            await one.maintenance.finalize(NOW + weeks * WEEK)
            await one.maintenance.expire(NOW + weeks * WEEK)
            work = [(one, other)[n % 2].write(batch) for n, batch in enumerate(batches)]
            work += [one.maintenance.collect_garbage(), other.maintenance.collect_garbage(), time_passes(other, weeks)]
            drawn.shuffle(work)
            await gatherResults([Deferred.fromCoroutine(each) for each in work], consumeErrors=True)
            assert postgresql.execute(DANGLING, dsn) == [(0,)]

        stored = {sample.message_id: sample for sample in await one.samples(SampleFilter(), 10_000)}
        for each in sent:
            if each.message_id in stored:
                assert await stored_message(other, each.message_id) == each.fields
        assert len(stored) > 100

        await time_passes(one, 60)
        await one.maintenance.collect_garbage()
        assert rows(postgresql, dsn) == dict.fromkeys(rows(postgresql, dsn), 0)
    assert dict(postgresql.execute("SELECT dimension, rows FROM garbage_collected", dsn))["metadata"] > 20
