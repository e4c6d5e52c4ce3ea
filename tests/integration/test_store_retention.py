"""Retention: old samples expire, and statistics of them are still answered from rollups."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest
import pytest_twisted

from meter.query import Aggregate
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.sample_identity import week_of
from meter.store.maintenance import maintenance
from meter.store.maintenance.maintenance import Retention
from meter.store.maintenance.partitions import partition_name
from meter.store.maintenance.rollups import MAX_METADATA_RUNS
from tests.integration.test_store_rollups import OVERFLOW
from tests.integration.test_store_rollups import comparable
from tests.integration.test_store_rollups import running
from tests.store_messages import message

ALL = SampleFilter()
EVERYTHING = StatisticsQuery(
    filter=ALL, aggregates=tuple(Aggregate(name) for name in ("sum", "count", "increase", "integral", "stddev"))
)
BY_SIZE = StatisticsQuery(filter=ALL, groupby=("metadata.size",))


@pytest.fixture
def now():
    """When the test began: what expires depends on the day on which it runs."""
    return datetime.now(UTC)


@pytest.fixture
def days_ago(now):
    """Times of today and of every fifth day before."""
    return [now - timedelta(days=n) for n in range(0, 40, 5)]


@pytest_twisted.ensureDeferred
async def test_expired_weeks_are_dropped_and_their_rollups_answer(postgresql, now, days_ago):
    dsn = postgresql.dsn_with_schema()
    async with running(dsn, retention=Retention(days=14)) as store:
        await store.write([message(volume=n, at=at, metadata={"size": n % 3}) for n, at in enumerate(days_ago)])
        await store.write([message(volume=9, at=datetime(1999, 1, 1, tzinfo=UTC))])
        before = [await store.statistics(query) for query in (EVERYTHING, BY_SIZE)]
        await store.maintenance.run()

        for query, rows in zip((EVERYTHING, BY_SIZE), before, strict=True):
            assert comparable(await store.statistics(query)) == comparable(rows)
        cutoff = week_of(now - timedelta(days=14))
        stored = {sample.timestamp for sample in await store.samples(ALL, 100)}
        assert stored == {at for at in days_ago if at.date() >= cutoff}
        tables = {
            name for [name] in postgresql.execute("SELECT relname FROM pg_class WHERE relname ~ '^sample_2'", dsn)
        }
        assert partition_name(week_of(now)) in tables
        assert partition_name(week_of(days_ago[-1])) not in tables


@pytest_twisted.ensureDeferred
async def test_expired_hour_whose_metadata_changed_often_keeps_its_totals_and_loses_its_metadata(postgresql, now):
    hour = (now - timedelta(days=30)).replace(minute=0, second=0, microsecond=0)
    async with running(postgresql.dsn_with_schema(), retention=Retention(days=14)) as store:
        changes = [
            message(at=hour + timedelta(minutes=n), metadata={"size": n % 2}) for n in range(MAX_METADATA_RUNS + 1)
        ]
        await store.write([*changes, message(at=now, metadata={"size": 1})])
        await store.maintenance.run()

        [row] = await store.statistics(EVERYTHING)
        assert row.values["count"] == MAX_METADATA_RUNS + 2
        [row] = await store.statistics(BY_SIZE)
        assert (row.group["metadata.size"], row.values["count"]) == ("1", 1)


@pytest_twisted.ensureDeferred
async def test_writers_do_not_wait_and_rollups_are_not_read_until_more_has_expired(
    postgresql, now, days_ago, monkeypatch
):
    calls = []
    for name in ("lock_all_hours", "_delete_rollups"):
        whole = getattr(maintenance, name)

        async def counted(session, *arguments, name=name, whole=whole):
            calls.append(name)
            await whole(session, *arguments)

        monkeypatch.setattr(maintenance, name, counted)
    retention = Retention(days=14, meter_days={"disk.*": 7}, rollup_days=14)
    dsn = postgresql.dsn_with_schema()
    async with running(dsn, retention=retention) as store:
        await store.write([message(name, at=at) for at in days_ago for name in ("disk.read", "cpu")])
        await store.maintenance.finalize(now)
        await store.maintenance.expire(now)
        assert sorted(calls) == ["_delete_rollups", "lock_all_hours", "lock_all_hours"]
        assert len(await store.samples(ALL, 100)) < 2 * len(days_ago)
        [(oldest,)] = postgresql.execute("SELECT min(start) FROM rollup", dsn)
        assert oldest.date() >= week_of(now - timedelta(days=14))

        calls.clear()
        for _ in range(3):
            await store.maintenance.expire(now)
        assert calls == []

        await store.maintenance.finalize(now + timedelta(days=8))
        await store.maintenance.expire(now + timedelta(days=8))
        assert sorted(calls) == ["_delete_rollups", "lock_all_hours", "lock_all_hours"]


@pytest_twisted.ensureDeferred
async def test_sample_older_than_the_retention_is_refused_and_the_others_are_stored(postgresql, now, days_ago):
    async with running(postgresql.dsn_with_schema(), retention=Retention(days=14)) as store:
        await store.write([message(at=days_ago[-1])])
        await store.maintenance.run()

        result = await store.write([message(at=now), message(at=days_ago[-1]), message(at=now)])

        assert result.stored == 2
        [refusal] = result.refused
        assert refusal.index == 1
        assert "older than the retention" in refusal.reason


@pytest_twisted.ensureDeferred
async def test_meter_with_a_shorter_retention_answers_the_same_when_samples_of_others_are_late(postgresql, days_ago):
    dsn = postgresql.dsn_with_schema()
    async with running(dsn, retention=Retention(meter_days={"disk.*": 7, "*": 0})) as store:
        await store.write(
            [message(name, volume=n, at=at) for n, at in enumerate(days_ago) for name in ("disk.read", "cpu")]
        )
        disk = StatisticsQuery(filter=SampleFilter(equals={"meter": "disk.read"}), aggregates=EVERYTHING.aggregates)
        before = await store.statistics(disk)
        await store.maintenance.run()
        assert len(await store.samples(disk.filter, 100)) == 2
        assert len(await store.samples(ALL, 100)) == 2 + len(days_ago)
        assert comparable(await store.statistics(disk)) == comparable(before)

        late = await store.write([message("cpu", at=days_ago[3]), message("disk.read", at=days_ago[3])])
        assert (late.stored, len(late.refused)) == (1, 1)
        assert comparable(await store.statistics(disk)) == comparable(before)

        await store.maintenance.run()
        assert comparable(await store.statistics(disk)) == comparable(before)


@pytest_twisted.ensureDeferred
async def test_rollups_expire_after_their_own_retention(postgresql, now, days_ago):
    dsn = postgresql.dsn_with_schema()
    async with running(dsn, retention=Retention(days=14, rollup_days=21)) as store:
        await store.write([message(at=at) for at in days_ago])
        await store.maintenance.run()

        [row] = await store.statistics(EVERYTHING)
        assert row.first > now - timedelta(days=22)


@pytest_twisted.ensureDeferred
async def test_rollups_do_not_expire_before_their_samples(postgresql, now, days_ago):
    async with running(postgresql.dsn_with_schema(), retention=Retention(rollup_days=7)) as store:
        await store.write([message(at=at) for at in days_ago])
        before = await store.statistics(EVERYTHING)
        await store.maintenance.run()

        assert await store.maintenance.finalize(now) == 0
        assert comparable(await store.statistics(EVERYTHING)) == comparable(before)


@pytest_twisted.ensureDeferred
async def test_hour_that_can_never_be_finalized_does_not_prevent_expiry(postgresql, days_ago):
    dsn = postgresql.dsn_with_schema()
    async with running(dsn, retention=Retention(days=14)) as store:
        await store.write([message(volume=volume, at=days_ago[-1]) for volume in (1e29, -1e29)])
        postgresql.execute(OVERFLOW, dsn)
        await store.write([message(volume=1, at=days_ago[-2])])
        await store.maintenance.run()

        assert list(await store.samples(ALL, 10)) == []
        [row] = await store.statistics(EVERYTHING)
        assert row.values["count"] == 1
