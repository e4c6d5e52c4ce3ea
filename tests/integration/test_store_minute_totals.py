"""Totals by minute: questions whose windows and ends cut hours have the answers of the samples, and read few of these."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest
import pytest_twisted
from twisted.internet import reactor

from meter.query import Aggregate
from meter.query import Comparison
from meter.query import In
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.store.maintenance import minute_totals
from meter.store.maintenance.maintenance import Retention
from meter.store.maintenance.minute_totals import MIN_SAMPLES_PER_MINUTE
from meter.store.maintenance.minute_totals import RETAINED_DAYS
from meter.store.maintenance.partitions import WEEK
from meter.store.maintenance.partitions import week_of
from meter.testing import MemoryStore
from tests.integration import test_store_rollups
from tests.integration.test_store_rollups import Usage
from tests.integration.test_store_rollups import comparable
from tests.integration.test_store_rollups import running
from tests.integration.test_store_rollups import same_answers
from tests.plans import count_rows_read
from tests.store_messages import message

HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)
START = datetime.combine(week_of(datetime.now(UTC)) - WEEK, datetime.min.time(), UTC)
"""The Monday of the week before: totals are made of the newest hours only."""

COUNT = (Aggregate("count"), Aggregate("min"), Aggregate("max"), Aggregate("sum"), Aggregate("stddev"))
TOTALS = "SELECT * FROM minute_totals ORDER BY start, meter_id, series_id"
RESOURCES, PROJECTS = 12, 2
AFTER = START + timedelta(days=4)


class UsageOfMinutes(Usage):
    """Draws samples of a few minutes of some hours, and questions that name no resource and no metadata."""

    def moment(self):
        moment = super().moment()
        within = self.random.choice([0, 1, 29_999_999, 59_999_999, self.random.randrange(60_000_000)])
        minute = moment.replace(minute=moment.minute % 3 * 7, second=0, microsecond=0)
        return self.random.choice([moment, minute + timedelta(microseconds=within)])

    def query(self):
        pick = self.random.choice
        drawn = super().query()
        return replace(
            drawn,
            filter=replace(
                drawn.filter,
                equals=pick(
                    [{"meter": "cpu"}, {"meter": "ram"}, {"meter": "ram", "project_id": "pa"}, {"source": "one"}]
                ),
                metadata=(),
                expression=pick([None, None, Comparison("project_id", "!=", "pb"), In("unit", ("MB", "ns"))]),
            ),
            period=pick([None, 60, 61, 420, 600, 3600, 3600, 7200, 36_000]),
            groupby=pick([(), (), ("project_id",), ("source", "user_id")]),
            aggregates=pick([COUNT, (*COUNT, Aggregate("cardinality", "project_id"))]),
        )


async def finalized(store):
    await store.maintenance.finalize(AFTER)


@pytest.mark.parametrize("seed", range(3))
@pytest_twisted.ensureDeferred
async def test_answers_are_those_of_the_samples_whatever_comes_late(postgresql, monkeypatch, seed):
    monkeypatch.setattr(test_store_rollups, "START", START)
    monkeypatch.setattr(minute_totals, "MIN_SAMPLES_PER_MINUTE", seed)
    monkeypatch.setattr(minute_totals, "MAX_SAMPLES_AGGREGATED_AGAIN", 50 if seed == 2 else 1000)
    dsn, usage, memory = postgresql.dsn(), UsageOfMinutes(seed, hours=20), MemoryStore(reactor)
    async with running(dsn) as store:
        for size in (600, 30):
            batch = [usage.message() for _ in range(size)]
            for each in (store, memory):
                await each.write(batch)
            await same_answers(store, memory, usage.query, 5)
            await finalized(store)
            assert postgresql.execute("SELECT count(*) > 20 FROM minute_totals", dsn) == [(True,)]
            await same_answers(store, memory, usage.query, 25)


def polled(minutes, *, resources=range(RESOURCES), meter="cpu", start=START):
    """Return a sample a minute of each resource, which are half a second apart and begin 20 s after the minute."""
    return [
        message(
            meter,
            minute % 7,
            at=start + minute * MINUTE + (20 + resource / 2) * SECOND,
            type="gauge",
            resource_id=f"vm-{resource:03}",
            project_id=f"project-{resource % PROJECTS}",
        )
        for minute in minutes
        for resource in resources
    ]


async def written(store, messages):
    for first in range(0, len(messages), 500):
        await store.write(messages[first : first + 500])


def asked(period=None, *, start=None, end=None, groupby=(), **equals):
    return StatisticsQuery(
        filter=SampleFilter(equals={"meter": "cpu", **equals}, start=start, end=end),
        period=period,
        groupby=groupby,
        aggregates=COUNT,
    )


@pytest_twisted.ensureDeferred
async def test_late_sample_makes_totals_of_its_meter_again_if_they_are_few(postgresql, monkeypatch):
    dsn = postgresql.dsn()
    async with running(dsn) as store:
        await written(store, [*polled(range(60)), *polled(range(60), meter="ram")])
        await finalized(store)
        before = postgresql.execute(TOTALS, dsn)
        assert len(before) == 2 * (1 + PROJECTS)
        await store.write([_late(START + 5 * MINUTE)])
        await finalized(store)
        again = postgresql.execute(TOTALS, dsn)
        assert [_elements(a) == _elements(b) for a, b in zip(before, again, strict=True)] == [
            False,
            False,
            True,
            True,
            True,
            True,
        ]
        postgresql.execute("TRUNCATE rollup, final_period, minute_totals", dsn)
        await finalized(store)
        assert sorted(map(_elements, again)) == sorted(map(_elements, postgresql.execute(TOTALS, dsn)))

        monkeypatch.setattr(minute_totals, "MAX_SAMPLES_AGGREGATED_AGAIN", 60 * RESOURCES)
        await store.write([_late(START + 6 * MINUTE)])
        await finalized(store)
        # The meter and the project of the late sample have no totals in this hour any more.
        assert len(postgresql.execute(TOTALS, dsn)) == len(before) - 2
        [statistics] = await store.statistics(asked(start=START + SECOND))
        assert statistics.values["count"] == 60 * RESOURCES + 2


def _late(at):
    return message("cpu", 99, at=at, type="gauge", resource_id="vm-000", project_id="project-0")


def _elements(row):
    start, meter, series, *arrays = row
    return start, meter, series, sorted(zip(*arrays, strict=True))


@pytest_twisted.ensureDeferred
async def test_totals_are_made_and_retained_of_the_newest_days(postgresql):
    dsn = postgresql.dsn()
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    old, recent = now - timedelta(days=RETAINED_DAYS, hours=2), now - timedelta(days=RETAINED_DAYS, hours=-2)
    hours = "SELECT DISTINCT start FROM minute_totals"
    async with running(dsn) as store:
        await store.maintenance._partitions.ensure([old, recent])
        await written(store, polled(range(5), start=old))
        await written(store, polled(range(5), start=recent))
        await store.maintenance.finalize(now)
        assert postgresql.execute(hours, dsn) == [(recent,)]
        await store.maintenance.expire(now)
        assert postgresql.execute(hours, dsn) == [(recent,)]
        await store.maintenance.expire(now + 3 * HOUR)
        assert postgresql.execute(hours, dsn) == []


@pytest_twisted.ensureDeferred
async def test_windows_that_cut_hours_have_no_expired_samples(postgresql):
    dsn = postgresql.dsn()
    async with running(dsn, retention=Retention(meter_days={"cpu": 1})) as store:
        await written(store, polled(range(0, 240, 2)))
        await finalized(store)
        await store.maintenance.expire(START + timedelta(days=1, hours=2))
        odd = await store.statistics(asked(3600, start=START + 7 * MINUTE, end=START + 4 * HOUR))
        assert [each.period_start - START for each in odd] == [
            HOUR + 7 * MINUTE,
            2 * HOUR + 7 * MINUTE,
            3 * HOUR + 7 * MINUTE,
        ]
        assert sum(each.values["count"] for each in odd) == RESOURCES * 60
        without_start = await store.statistics(asked(3600))
        assert [(each.period_start, each.values["count"]) for each in without_start] == [
            (START + (2 + n) * HOUR + 20 * SECOND, RESOURCES * 30) for n in range(2)
        ]


async def counted(store, query):
    return await count_rows_read(store._readers, lambda: store.statistics(query))


@pytest_twisted.ensureDeferred
async def test_only_samples_of_cut_minutes_are_read(postgresql):
    dsn = postgresql.dsn()
    async with running(dsn) as store:
        await written(store, polled(range(8 * 60)))
        await finalized(store)
        postgresql.execute("VACUUM ANALYZE", dsn)
        memory = MemoryStore(reactor)
        await written(memory, polled(range(8 * 60)))
        shifted = START + 7 * MINUTE
        within = shifted + 22 * SECOND
        for query, samples in [
            (asked(3600, start=shifted, end=shifted + 6 * HOUR), 0),
            (asked(600, start=START, end=START + 8 * HOUR), 0),
            (asked(600, start=START, end=START + 8 * HOUR, groupby=("project_id",)), 0),
            (asked(start=shifted, end=START + 7 * HOUR + 13 * MINUTE), 0),
            (asked(start=shifted, end=START + 7 * HOUR + 13 * MINUTE, project_id="project-1"), 0),
            # The first sample of a minute begins the windows.
            (asked(3600), 0),
            # Two ends and five windows begin while samples of their minute are taken.
            (asked(3600, start=within, end=within + 6 * HOUR), 7 * RESOURCES),
            (asked(3600, start=within, end=within + 6 * HOUR, groupby=("project_id",)), 7 * RESOURCES),
        ]:
            found, read = await counted(store, query)
            assert comparable(found) == comparable(await memory.statistics(query)), query
            assert read.tables["sample"] <= samples, read.text()


@pytest_twisted.ensureDeferred
async def test_as_many_windows_over_more_time_read_as_many_samples(postgresql):
    dsn = postgresql.dsn()
    async with running(dsn) as store:
        await written(store, [_late(START - SECOND), *polled(range(10 * 60))])
        await finalized(store)
        postgresql.execute("VACUUM ANALYZE", dsn)
        read = {}
        for hours in (1, 5):
            query = asked(3600 * hours, end=START + 2 * hours * HOUR)
            found, counts = await counted(store, query)
            assert len(found) == 2
            read[hours] = counts.tables["sample"]
        assert read[1] == read[5] <= 4 * RESOURCES


def test_totals_are_worthwhile_where_they_stand_for_several_samples():
    assert RESOURCES / PROJECTS >= MIN_SAMPLES_PER_MINUTE
