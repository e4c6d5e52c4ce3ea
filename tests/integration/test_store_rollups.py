"""Rollups: whatever is final, or has expired, answers are those that the samples themselves give."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults

from meter.interfaces import Unavailable
from meter.query import Aggregate
from meter.query import Comparison
from meter.query import In
from meter.query import MetadataMatch
from meter.query import Not
from meter.query import Or
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.store import PostgresStore
from meter.store.maintenance.maintenance import Retention
from meter.store.maintenance.rollups import finalize
from meter.store.write.record import record_of
from meter.testing import MemoryStore
from tests.store_messages import message
from tests.waiting import until

START = datetime(2026, 11, 16, tzinfo=UTC)
"""A Monday."""

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
EVERYTHING = tuple(
    Aggregate(*each)
    for each in (
        *((name,) for name in ("max", "min", "avg", "sum", "count", "stddev", "rate", "increase", "integral")),
        ("polling_interval",),
        *(("cardinality", name) for name in ("resource_id", "project_id")),
    )
)


@asynccontextmanager
async def running(dsn, **options):
    store = PostgresStore(
        reactor, dsn, clock=reactor, **{"migrate": True, "readers": 1, "writers": 2, "maintain": True, **options}
    )
    store.maintenance._periodic.startService = lambda: None  # tests run maintenance themselves
    store.startService()
    try:
        await until(lambda: store.readiness().ready and store.maintenance._pool.ready)
        yield store
    finally:
        await store.stopService()


RUNS = [
    *({"_meter": {"run": run, "interval": 600}} for run in ("one", "two")),
    {"_meter": {"run": "two", "interval": 1200}},
    {"_meter": {"interval": 600}},
    {"instance_host": "one", "host": "digest"},
    {"instance_host": "two", "_meter": {"run": 7}},
    {"host": "one"},
]


class Usage:
    """Draws messages and queries within ``hours``. Volumes are such that sums of them are exact in any order."""

    def __init__(self, seed, hours=60):
        self.random = random.Random(seed)
        self.hours = hours

    def moment(self):
        edge = START + self.random.randrange(self.hours) * HOUR
        return edge + timedelta(
            microseconds=self.random.choice([0, 0, -1, 1, 3_599_999_999, self.random.randrange(3_600_000_000)])
        )

    def message(self):
        pick = self.random.choice
        name, type, unit = pick(
            [("cpu", "cumulative", "ns"), ("ram", "gauge", "MB"), ("ram", "delta", "MB"), ("ram", "gauge", "B")]
        )
        resource = pick("abc")
        return message(
            name,
            self.random.randrange(1000) / 4,
            at=self.moment(),
            type=type,
            unit=unit,
            resource_id=resource,
            project_id=pick([f"p{resource}"] * 9 + ["moved", None]),
            source=pick(["one"] * 9 + ["two"]),
            metadata=pick([{}, *RUNS])
            | pick([{"size": 1}] * 9 + [{"size": 2}, {"size": "1", "host": {"name": "h"}}, {"host.name": "h"}]),
        )

    def query(self):
        pick = self.random.choice
        bounds = {
            name: pick(
                [
                    *(None, self.moment(), START + self.random.randrange(4) * DAY),
                    START + self.random.randrange(self.hours) * HOUR,
                ]
            )
            for name in ("start", "end")
        }
        equals = {
            **pick([{}, {"meter": "cpu"}, {"meter": "ram"}]),
            **pick([{}, {}, {"resource_id": "a"}, {"project_id": "moved"}, {"source": "one"}]),
        }
        return StatisticsQuery(
            filter=SampleFilter(
                equals=equals,
                **bounds,
                after_start=pick([False, True]),
                through_end=pick([False, True]),
                metadata=pick([(), (), (MetadataMatch("size", 1),), (MetadataMatch("host.name", "h"),)]),
                expression=pick(
                    [
                        *(None, None, None),
                        Comparison("project_id", "!=", "pb"),
                        Comparison("volume", "<", 200),
                        Not(In("metadata.size", (2, "1"))),
                        Or((Comparison("metadata.size", "<", 2), Comparison("resource_id", "=", "a"))),
                    ]
                ),
            ),
            period=pick([None, None, 3600, 7200, 86400, 1000]),
            groupby=pick(
                [
                    *((), ()),
                    ("resource_id",),
                    ("project_id",),
                    ("source", "resource_id"),
                    ("metadata.size", "project_id"),
                ]
            ),
            aggregates=pick(
                [EVERYTHING, EVERYTHING[:6], (Aggregate("count"),), (*EVERYTHING[:2], Aggregate("percentile", "50"))]
            ),
        )

    def query_of_whole_hours(self):
        """Draw a query that needs no samples."""
        query = self.query()
        hour = START + self.random.randrange(self.hours) * HOUR
        start = self.random.choice([None, START, hour])
        return replace(
            query,
            period=None if start is None or query.period == 1000 else query.period,
            filter=replace(
                query.filter,
                start=start,
                end=self.random.choice([None, hour + 24 * HOUR]),
                after_start=False,
                through_end=False,
                expression=None,
            ),
            aggregates=EVERYTHING[:6],
        )


class UsageWithoutTies(Usage):
    """Draws messages with distinct times, so that one sample of each window is the first one, and one the last."""

    def __init__(self, seed):
        super().__init__(seed)
        self._taken = set()

    def message(self):
        while True:
            drawn = super().message()
            if drawn.timestamp not in self._taken:
                self._taken.add(drawn.timestamp)
                return drawn

    def query(self):
        return replace(
            super().query(), aggregates=(Aggregate("first"), Aggregate("last"), Aggregate("polling_interval"))
        )


async def finalized(store):
    await store.maintenance.finalize(START + 90 * HOUR)


async def same_answers(one, other, draw_query, count):
    for _ in range(count):
        query = draw_query()
        assert comparable(await one.statistics(query)) == comparable(await other.statistics(query)), query


def comparable(rows):
    return [
        (
            *(row.unit, dict(row.group), row.period_start, row.period_end, row.first, row.last),
            {label: pytest.approx(value, rel=1e-9, abs=1e-6) for label, value in row.values.items()},
        )
        for row in rows
    ]


@pytest.mark.parametrize("seed", range(6))
@pytest_twisted.ensureDeferred
async def test_statistics_are_the_same_whichever_periods_are_final(postgresql, seed):
    usage, memory = Usage(seed), MemoryStore(reactor)
    dsn = postgresql.dsn_with_schema()
    async with running(dsn) as store:
        for size in (300, 1, 30, 300):
            batch = [usage.message() for _ in range(size)]
            for each in (store, memory):
                await each.write(batch + batch[:3])
            await same_answers(store, memory, usage.query, 5)  # some hours have late samples now
            await finalized(store)
            await same_answers(store, memory, usage.query, 15)
        [[hours, days]] = postgresql.execute(
            "SELECT count(*) FILTER (WHERE hours = 1), count(*) FILTER (WHERE hours = 24) FROM final_period", dsn
        )
        assert hours > 40
        assert days >= 3


@pytest_twisted.ensureDeferred
async def test_first_and_last_volumes_are_the_same_from_rollups_and_from_samples(postgresql):
    usage, memory = UsageWithoutTies(7), MemoryStore(reactor)
    async with running(postgresql.dsn_with_schema()) as store:
        for _ in range(2):
            batch = [usage.message() for _ in range(300)]
            for each in (store, memory):
                await each.write(batch)
            await finalized(store)
            await same_answers(store, memory, usage.query, 30)


@pytest.mark.parametrize("seed", range(3))
@pytest_twisted.ensureDeferred
async def test_whole_hours_answer_the_same_after_their_samples_expired(postgresql, seed):
    usage, memory = Usage(seed), MemoryStore(reactor)
    async with running(postgresql.dsn_with_schema(), retention=Retention(meter_days={"cpu": 2})) as store:
        for _ in range(3):
            batch = [usage.message() for _ in range(200)]
            refused = {refusal.index for refusal in (await store.write(batch)).refused}
            await memory.write([each for index, each in enumerate(batch) if index not in refused])
            await same_answers(
                store, memory, usage.query_of_whole_hours, 10
            )  # late samples of other meters make hours not final
            await finalized(store)
            await store.maintenance.expire(START + 90 * HOUR)
            await same_answers(store, memory, usage.query_of_whole_hours, 10)
        gone = SampleFilter(equals={"meter": "cpu"}, end=START + 42 * HOUR)
        assert not await store.samples(gone, 1)
        assert refused


@pytest.mark.parametrize("seed", range(3))
@pytest_twisted.ensureDeferred
async def test_statistics_are_the_same_however_often_metadata_change(postgresql, seed):
    usage, memory = Usage(seed, hours=3), MemoryStore(reactor)
    dsn = postgresql.dsn_with_schema()
    async with running(dsn) as store:
        for size in (300, 300):
            batch = [usage.message() for _ in range(size)]
            for each in (store, memory):
                await each.write(batch)
            await finalized(store)
            await same_answers(store, memory, usage.query, 25)
        metadata_runs = postgresql.execute(
            "SELECT DISTINCT hours, least(metadata_run, 5), metadata_id = 0 FROM rollup", dsn
        )
        expected = {*((hours, n, False) for hours in (1, 24) for n in range(1, 5)), (24, 5, False)}
        assert {*metadata_runs} >= {*expected, (1, 0, True), (24, 1, True)}


@pytest.mark.parametrize("seed", range(3))
@pytest_twisted.ensureDeferred
async def test_statistics_are_the_same_however_runs_and_sources_alternate(postgresql, seed):
    """Regular polls of two runs of each meter, with notifications in between: some hours have too many metadata runs."""
    drawn, memory = random.Random(seed), MemoryStore(reactor)
    usage = Usage(seed, hours=6)
    dsn = postgresql.dsn_with_schema()
    batch = [
        message(
            name,
            drawn.randrange(1000) / 4,
            at=START + drawn.choice([0, 1]) * timedelta(seconds=1) + n * timedelta(minutes=minutes),
            type=type,
            unit=unit,
            resource_id=resource,
            source=source,
            metadata=metadata,
        )
        for name, type, unit in (("cpu", "cumulative", "ns"), ("ram", "gauge", "MB"))
        for resource, minutes in (("a", 2), ("b", 20))
        for source, metadata in (("one", RUNS[0]), ("one", RUNS[1]), ("two", RUNS[1]), ("one", {}))
        for n in range(360 // minutes)
        if drawn.random() < 0.8
    ]
    async with running(dsn) as store:
        for each in (store, memory):
            await each.write(batch)
        await finalized(store)
        await same_answers(store, memory, usage.query, 25)
        overlaps = postgresql.execute("SELECT DISTINCT hours, overlap FROM rollup", dsn)
        assert {*overlaps} == {(hours, overlap) for hours in (1, 24) for overlap in (0, 1, 2)}


LATER = [{"interval": 900, "run": "r"}, {"interval": 900, "run": "exists"}]


class Existence(Usage):
    """Draws samples of resources that are switched off, are polled and notified of in two units, migrate, and are deleted."""

    def message(self):
        pick = self.random.choice
        name, resource, at = pick(["cpu", "ram", "ram"]), pick("abcd"), self.moment()
        if name == "cpu":
            volume, metadata = pick([0, 0, 1, 2, 5, 9]), {"instance_host": pick(["one", "two"])}
        elif self.random.randrange(20) == 0 and resource in "ab" and at > START + (self.hours - 5) * HOUR:
            volume, metadata = 0, {"_meter": {"run": "deleted"}}
        elif self.random.random() < 0.4:
            volume, metadata = pick([0, 0, 512]), {"_meter": pick([{"interval": 1800}, *LATER])}
        else:
            volume, metadata = 512, pick([{}, {"size": 1}])  # the size is in the metadata of notifications
        return message(
            name,
            volume,
            at=at,
            type="cumulative" if name == "cpu" else "gauge",
            unit="ns" if name == "cpu" else pick(["MB"] * 5 + ["MiB"]),
            resource_id=resource,
            project_id=pick([f"p{resource}"] * 9 + ["moved"]),
            source=pick(["one"] * 9 + ["two"]),
            metadata=metadata,
        )


@pytest.mark.parametrize("seed", range(4))
@pytest_twisted.ensureDeferred
async def test_steps_are_the_same_where_resources_are_off_deleted_or_elsewhere(postgresql, seed):
    existence, memory = Existence(seed, hours=30), MemoryStore(reactor)
    async with running(postgresql.dsn_with_schema()) as store:
        for size in (150, 20):
            batch = [existence.message() for _ in range(size)]
            for each in (store, memory):
                await each.write(batch)
            await same_answers(store, memory, existence.query, 15)
            await finalized(store)
            await same_answers(store, memory, existence.query, 30)


@pytest_twisted.ensureDeferred
async def test_live_migration_is_answered_from_rollups_alone(postgresql):
    """Both hosts list the domain for half an hour: increases are right after the samples have expired."""
    polls = [(n, "hv1", 1000 + n) for n in range(6)] + [(n + 0.1, "hv2", 0) for n in range(2, 6)] + [(6, "hv2", 1)]
    dsn = postgresql.dsn_with_schema()
    async with running(dsn) as store:
        await store.write(
            [
                message(name, volume, at=START + n * timedelta(minutes=5), type=type, metadata={"instance_host": host})
                for n, host, volume in polls
                for name, type in (("cpu", "cumulative"), ("ram", "gauge"))
            ]
        )
        await finalized(store)
        before = {}
        for name in ("cpu", "ram"):
            query = StatisticsQuery(filter=SampleFilter(equals={"meter": name}), aggregates=EVERYTHING)
            before[name] = comparable(await store.statistics(query))
        postgresql.execute("DELETE FROM sample", dsn)
        for name, expected in before.items():
            query = StatisticsQuery(filter=SampleFilter(equals={"meter": name}), aggregates=EVERYTHING)
            [row] = await store.statistics(query)
            assert comparable([row]) == expected
            assert name == "ram" or row.values["increase"] == 5 + 1


@pytest_twisted.ensureDeferred
async def test_late_sample_makes_its_hour_and_day_not_final_and_a_duplicate_does_not(postgresql):
    dsn = postgresql.dsn_with_schema()
    batch = [message(volume=n, at=START + n * HOUR) for n in range(24)]
    marks = "SELECT count(*) FROM final_period"
    async with running(dsn) as store:
        await store.write(batch)
        await finalized(store)
        assert postgresql.execute(marks, dsn) == [(25,)]

        await store.write(batch)
        assert postgresql.execute(marks, dsn) == [(25,)]

        await store.write([message(at=START + 2 * HOUR)])
        assert postgresql.execute(marks, dsn) == [(23,)]

        await finalized(store)
        assert postgresql.execute(marks, dsn) == [(25,)]


@pytest_twisted.ensureDeferred
async def test_hour_is_not_finalized_while_its_samples_are_being_written(postgresql):
    dsn = postgresql.dsn_with_schema()
    written, gate = Deferred(), Deferred()

    async with running(dsn) as store:
        await store.write([message(at=START)])

        async def slowly(session):
            await store._sample_writer._store(session, [record_of(message(at=START))])
            written.callback(None)
            await gate

        writing = Deferred.fromCoroutine(store._writers.run(slowly))
        await written
        settling = Deferred.fromCoroutine(finalized(store))
        await until(lambda: postgresql.execute("SELECT 1 FROM pg_locks WHERE NOT granted", dsn))
        assert postgresql.execute("SELECT count(*) FROM final_period", dsn) == [(0,)]

        gate.callback(None)
        await writing
        await settling
        assert postgresql.execute("SELECT hours, count FROM rollup WHERE metadata_run = 1 ORDER BY hours", dsn) == [
            (1, 2),
            (24, 2),
        ]


@pytest_twisted.ensureDeferred
async def test_finalizing_has_a_longer_timeout_than_queries(postgresql):
    dsn = postgresql.dsn_with_schema()
    async with running(dsn, statement_timeout_seconds=1.0) as store:
        await store.write([message(at=START)])

        async def slowly(session):
            await session.rows("SELECT pg_sleep(1.5)")
            return await finalize(session, START, 1)

        assert await store.maintenance._pool.run(slowly)


@pytest_twisted.ensureDeferred
async def test_finalizing_beside_writers_overlooks_no_sample(postgresql):
    usage, memory = Usage(77), MemoryStore(reactor)
    dsn = postgresql.dsn_with_schema()
    async with running(dsn) as store, running(dsn) as other:
        batches = [[usage.message() for _ in range(40)] for _ in range(30)]
        for batch in batches:
            await memory.write(batch)
        work = [Deferred.fromCoroutine((store, other)[n % 2].write(batch)) for n, batch in enumerate(batches)]
        work += [Deferred.fromCoroutine(finalized(each)) for each in (store, other, store, other)]
        await gatherResults(work, consumeErrors=True)

        await same_answers(store, memory, usage.query, 20)
        await finalized(store)
        await same_answers(other, memory, usage.query, 20)


@pytest_twisted.ensureDeferred
async def test_finalizing_takes_no_new_ids_for_existing_owner_series_and_retains_them_with_their_resources(
    postgresql,
):
    dsn = postgresql.dsn_with_schema()
    last_number = "SELECT last_value FROM pg_sequences WHERE sequencename = 'series_id_seq'"
    async with running(dsn) as store:
        await store.write([message(at=START, resource_id=each) for each in "ab"])
        await finalized(store)
        before = postgresql.execute(last_number, dsn)
        await store.write([message(at=START + n * HOUR, resource_id=each) for n in range(1, 9) for each in "ab"])
        await finalized(store)
        assert postgresql.execute(last_number, dsn) == before

        postgresql.execute("UPDATE series SET retained_until = 'infinity' WHERE resource_id > 0", dsn)
        await store.write([message(at=START)])
        await finalized(store)
        assert postgresql.execute("SELECT retained_until::text FROM series WHERE resource_id = 0", dsn) == [
            ("infinity",)
        ]


@pytest_twisted.ensureDeferred
async def test_crash_while_finalizing_leaves_nothing_final(postgresql):
    dsn = postgresql.dsn_with_schema()

    async def crash(session):
        await finalize(session, START, 1)
        session.close()
        await session.rows("SELECT 1")

    async with running(dsn) as store:
        await store.write([message(volume=3, at=START)])
        with pytest.raises(Unavailable):
            await store.maintenance._pool.run(crash)

        assert (
            postgresql.execute("SELECT count(*) FROM final_period UNION ALL SELECT count(*) FROM rollup", dsn)
            == [(0,)] * 2
        )
        [row] = await store.statistics(StatisticsQuery(filter=SampleFilter()))
        assert row.values["sum"] == 3


OVERFLOW = """
ALTER TABLE sample DROP CONSTRAINT volume_in_bounds;
UPDATE sample SET volume = sign(volume) * 1e200 WHERE abs(volume) = 1e29
"""
"""Makes the squares of the volumes 1e29 exceed double precision, which the database refuses otherwise."""


@pytest_twisted.ensureDeferred
async def test_hour_that_cannot_be_finalized_is_answered_from_its_samples(postgresql):
    dsn = postgresql.dsn_with_schema()
    async with running(dsn) as store:
        await store.write([message(volume=volume, at=START) for volume in (1e29, -1e29)])
        postgresql.execute(OVERFLOW, dsn)
        await store.write([message(volume=1, at=START + n * HOUR, resource_id="b") for n in (1, 2)])
        await finalized(store)
        [(period, (_, retried_at))] = store.maintenance._unfinalized._failed.items()
        assert period == (START, 1)
        in_a_minute = reactor.seconds() + 60
        assert retried_at <= in_a_minute

        assert postgresql.execute("SELECT count(*) FROM final_period", dsn) == [(2,)]
        [row] = await store.statistics(StatisticsQuery(filter=SampleFilter()))
        assert (row.values["max"], row.values["count"]) == (1e200, 4)


@pytest.mark.parametrize(
    ("options", "from_rollups"),
    [
        ({}, {1, 24}),
        ({"groupby": ("project_id",)}, {1, 24}),
        ({"period": 3600}, {1}),
        ({"period": 86400}, {1, 24}),
        ({"period": 1800}, set()),
        ({"groupby": ("metadata.size",)}, {1, 24}),
        ({"filter": SampleFilter(start=START, metadata=(MetadataMatch("size", 1),))}, {1, 24}),
        ({"filter": SampleFilter(start=START, expression=Comparison("volume", ">", 0))}, set()),
        ({"aggregates": (Aggregate("max"), Aggregate("percentile", "50"))}, set()),
    ],
    ids=str,
)
@pytest_twisted.ensureDeferred
async def test_rollups_are_read_where_they_are_exact(postgresql, options, from_rollups):
    dsn = postgresql.dsn_with_schema()
    query = StatisticsQuery(**{"filter": SampleFilter(start=START), **options})
    async with running(dsn) as store:
        await store.write([message(volume=1, at=START + n * HOUR, metadata={"size": 1}) for n in (1, 25)])
        await store.maintenance.finalize(START + 30 * HOUR)  # a day, and an hour of the next one
        for table in ("rollup", "meter_totals"):
            postgresql.execute(f"UPDATE {table} SET max_volume = 1000 + hours", dsn)

        rows = await store.statistics(query)

        assert {row.values["max"] - 1000 for row in rows if row.values["max"] > 1} <= from_rollups
        assert any(row.values["max"] > 1 for row in rows) is bool(from_rollups)


OF_A = Comparison("resource_id", "=", "a")
OF_OWNER, OF_METER = 5000, 6000


@pytest.mark.parametrize(
    ("filter", "options", "volume"),
    [
        ({}, {}, OF_METER),
        ({"equals": {"meter": "cpu"}}, {"period": 3600}, OF_METER),
        ({}, {"groupby": ("project_id", "source")}, OF_OWNER),
        ({"expression": Not(Comparison("project_id", "=", "p2"))}, {"period": 3600}, OF_OWNER),
        ({}, {"aggregates": (Aggregate("max"), Aggregate("cardinality", "project_id"))}, OF_OWNER),
        ({}, {"aggregates": (Aggregate("max"), Aggregate("cardinality", "resource_id"))}, 1),
        ({}, {"aggregates": (Aggregate("max"), Aggregate("increase"))}, 1),
        ({}, {"groupby": ("resource_id",)}, 1),
        ({}, {"groupby": ("metadata.size",)}, 1),
        ({"equals": {"resource_id": "a"}}, {}, 1),
        ({"expression": Or((OF_A, Comparison("project_id", "=", "p1")))}, {}, 1),
        ({"metadata": (MetadataMatch("size", 1),)}, {}, 1),
    ],
    ids=str,
)
@pytest_twisted.ensureDeferred
async def test_query_that_names_no_resource_reads_totals_of_owners_or_meters(postgresql, filter, options, volume):
    dsn = postgresql.dsn_with_schema()
    async with running(dsn) as store:
        await store.write([message(at=START, resource_id=each, metadata={"size": 1}) for each in "ab"])
        await finalized(store)
        postgresql.execute(
            f"UPDATE rollup SET max_volume = {OF_OWNER} FROM series x WHERE x.id = series_id AND x.resource_id = 0", dsn
        )
        postgresql.execute(f"UPDATE meter_totals SET max_volume = {OF_METER}", dsn)

        rows = await store.statistics(StatisticsQuery(filter=SampleFilter(start=START, **filter), **options))

        assert {row.values["max"] for row in rows} == {volume}
