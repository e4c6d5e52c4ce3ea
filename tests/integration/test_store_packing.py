"""Packed weeks: every sample is there once, exactly as it was, while others write, void and expire."""

from __future__ import annotations

import io
from contextlib import closing
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from datetime import timedelta

import psycopg2
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from meter.interfaces import Unavailable
from meter.query import SampleFilter
from meter.sample_identity import week_of
from meter.store import Act
from meter.store import Administration
from meter.store import DatabaseInspection
from meter.store import Retention
from meter.store import Selection
from meter.store.maintenance.partitions import _create as create_partition
from meter.store.maintenance.partitions import partition_name
from meter.store.migrations import Schema
from meter.store.migrations import migrations
from meter.store.packing.packed_partitions import LOCK
from meter.store.packing.packed_partitions import packed_partition_name
from meter.store.packing.packed_rows import SAMPLE_COLUMNS
from meter.store.packing.packed_rows import unpacked
from tests.integration.test_store_rollups import running
from tests.packing import pack_all
from tests.packing import session_of
from tests.signed import received_together
from tests.signed import stored_message
from tests.store_messages import KEYS
from tests.store_messages import message
from tests.store_messages import sample

NOW = datetime.now(UTC)
OLD = datetime.combine(week_of(NOW - timedelta(weeks=4)), datetime.min.time(), UTC) + timedelta(days=2)
"""A Wednesday of a week that is over for longer than samples are late."""

MONDAY = datetime.combine(week_of(NOW), datetime.min.time(), UTC)
"""Of this week: samples of a minute that begins now may be of two weeks."""

EVERYWHERE = f"""
SELECT {", ".join(SAMPLE_COLUMNS)}, float8send(volume) FROM sample
UNION ALL SELECT *, float8send(volume) FROM
({unpacked(SAMPLE_COLUMNS, first="'-infinity'::timestamptz", last="'infinity'::timestamptz")}) AS packed
"""


def all_samples(postgresql, dsn):
    """Return all samples, plain and packed, each column as the database has it."""
    return sorted(postgresql.execute(EVERYWHERE, dsn), key=lambda row: (row[2], row[0]))


def counts(postgresql, dsn):
    """Return how many samples are plain, and how many are packed."""
    [[plain]] = postgresql.execute("SELECT count(*) FROM sample", dsn)
    [[packed]] = postgresql.execute("SELECT coalesce(sum(count), 0)::integer FROM packed_samples", dsn)
    return plain, packed


def varied(count=300, *, at=OLD, **fields):
    """Return messages of several series, some at one time, with volumes that are equal, small and large."""
    return [
        message(
            volume=(0.0, -0.0, 1, 1e-90, -(2**53) - 1, 0.1 + n)[n % 6],
            at=at + timedelta(seconds=60 * (n // 10), microseconds=n % 7),
            resource_id=f"r{n % 5}",
            metadata={"n": n % 3},
            **fields,
        )
        for n in range(count)
    ]


@pytest_twisted.ensureDeferred
async def test_every_column_of_every_sample_comes_back_as_it_was(postgresql):
    dsn = postgresql.dsn()
    async with running(dsn) as store:
        assert (await store.write(varied())).stored == 300
        before = all_samples(postgresql, dsn)

        assert await pack_all(dsn) == 300

        assert counts(postgresql, dsn) == (0, 300)
        assert all_samples(postgresql, dsn) == before
        assert await pack_all(dsn) == 0


@pytest_twisted.ensureDeferred
async def test_late_samples_stay_plain_until_the_week_is_packed_again(postgresql):
    dsn = postgresql.dsn()
    async with running(dsn) as store:
        await store.write(varied(100))
        await pack_all(dsn)
        await store.write(varied(50, at=OLD + timedelta(seconds=7)))
        before = all_samples(postgresql, dsn)
        assert counts(postgresql, dsn) == (50, 100)

        assert await pack_all(dsn) == 50

        assert counts(postgresql, dsn) == (0, 150)
        assert all_samples(postgresql, dsn) == before


@pytest_twisted.ensureDeferred
async def test_repeat_of_a_packed_sample_is_a_duplicate_and_another_fact_with_its_id_a_conflict(postgresql):
    dsn = postgresql.dsn()
    async with running(dsn) as store:
        stored = varied(100)
        await store.write(stored)
        await pack_all(dsn)
        before = all_samples(postgresql, dsn)

        again = await store.write(stored)

        assert (again.stored, again.duplicates, again.refused) == (0, 100, ())
        for days in (0, 7, -7):
            other = message(volume=77, at=OLD + timedelta(days=days, hours=5), message_id=stored[7].message_id)
            [refusal] = (await store.write([other, *varied(3, at=OLD + timedelta(days=days, seconds=1))])).refused
            assert refusal.kind == "conflict"
            assert "volume 77.0" in refusal.reason
        far = message(volume=77, at=OLD + timedelta(days=14), message_id=stored[7].message_id)
        assert (await store.write([far])).stored == 1
        left = [row for row in all_samples(postgresql, dsn) if row in before]
        assert left == before


@pytest_twisted.ensureDeferred
async def test_repeated_batches_of_packed_samples_leave_nothing_behind(postgresql):
    dsn = postgresql.dsn()
    async with running(dsn) as store:
        together = received_together([sample(volume=n, at=OLD, resource_id=f"r{n}") for n in range(20)], KEYS)
        await store.write(together[:15])
        await pack_all(dsn)
        batches = "SELECT count(*), (SELECT count(*) FROM unstored_entry) FROM signed_batch"
        alone = received_together([sample(volume=3, at=OLD, resource_id="r3", message_id=together[3].message_id)], KEYS)

        await store.write(together)
        assert (await store.write(alone)).duplicates == 1
        await store.write([], [together[2].entry])

        assert postgresql.execute(batches, dsn) == [(1, 0)]
        assert counts(postgresql, dsn) == (5, 15)
        assert await pack_all(dsn) == 5
        lists = "SELECT count(*), max(cardinality(series_ids)) FROM packed_batch b JOIN series_list l ON l.id = b.series_list_id"
        assert postgresql.execute(lists, dsn) == [(1, 20)]


ACT = Act(who="operator", reason="a test", keys=KEYS.keys)


async def changed(dsn, change, selection, **act):
    """Void or restore the selected samples, as ``meter-db`` does."""
    administration = Administration(reactor, dsn, clock=reactor)
    await administration.open()
    try:
        return await getattr(administration, change)(selection, replace(ACT, **act))
    finally:
        administration.close()


@pytest_twisted.ensureDeferred
async def test_packed_samples_are_voided_and_restored_exactly_and_their_ids_stay_known(postgresql):
    dsn = postgresql.dsn()
    async with running(dsn) as store:
        stored = varied(100)
        await store.write(stored)
        await pack_all(dsn)
        before = all_samples(postgresql, dsn)
        selections = [
            (Selection(ids=[each.message_id for each in stored[10:13]]), 3),
            (Selection(resource_id="r4", meter="cpu", end=OLD + timedelta(minutes=5)), 10),
            (Selection(key_id="key-1", start=OLD + timedelta(minutes=9)), 10),
        ]
        for selection, samples in selections:
            dry = await changed(dsn, "void", selection, dry_run=True)
            assert dry.samples == samples
            assert all_samples(postgresql, dsn) == before

            voiding = await changed(dsn, "void", selection)

            assert voiding.samples == samples
            left = all_samples(postgresql, dsn)
            assert len(left) == 100 - samples
            assert [row for row in before if row in left] == left
            assert (await store.write(stored)).duplicates == 100
            await pack_all(dsn)
            assert all_samples(postgresql, dsn) == left

            restored = await changed(dsn, "unvoid", selection)

            assert (restored.samples, restored.problems) == (samples, [])
            assert all_samples(postgresql, dsn) == before
            await pack_all(dsn)
            assert counts(postgresql, dsn) == (0, 100)
            assert all_samples(postgresql, dsn) == before
            assert (await store.write(stored)).duplicates == 100


@pytest_twisted.ensureDeferred
async def test_sample_that_was_voided_when_its_week_was_packed_is_found_after_it_is_restored_and_packed(postgresql):
    dsn = postgresql.dsn()
    async with running(dsn) as store:
        stored = varied(40)
        await store.write(stored)
        selection = Selection(ids=[each.message_id for each in stored[:10]])
        await changed(dsn, "void", selection)
        await pack_all(dsn)
        await changed(dsn, "unvoid", selection)
        await pack_all(dsn)
        assert counts(postgresql, dsn) == (0, 40)

        assert (await store.write(stored)).duplicates == 40


@pytest_twisted.ensureDeferred
async def test_sample_is_not_restored_while_a_packed_one_has_its_id(postgresql):
    dsn = postgresql.dsn()
    async with running(dsn) as store:
        first, second = varied(2)
        await store.write([first, second])
        await changed(dsn, "void", Selection(ids=[first.message_id]))
        postgresql.execute(f"UPDATE sample SET message_id = '{first.message_id}'", dsn)
        await pack_all(dsn)

        restored = await changed(dsn, "unvoid", Selection(ids=[first.message_id]))

        assert restored.samples == 0
        assert "has been stored meanwhile" in restored.problems[0][1]


@pytest_twisted.ensureDeferred
async def test_retention_drops_packed_weeks_with_all_that_belongs_to_them(postgresql):
    dsn = postgresql.dsn()
    async with running(dsn, retention=Retention(days=15)) as store:
        await store.write(varied(20))
        await store.write(varied(20, at=MONDAY))
        await pack_all(dsn)
        await store.maintenance.run()

        kept = [row[0] >= MONDAY for row in all_samples(postgresql, dsn)]

        assert kept == [True] * 20
        for table in ("packed_week", "packed_message_id", "series_list", "packed_batch"):
            weeks = postgresql.execute(f"SELECT DISTINCT week FROM {table}", dsn)
            assert weeks == [(week_of(NOW),)], table
        assert postgresql.execute(f"SELECT to_regclass('{packed_partition_name(week_of(OLD))}')", dsn) == [(None,)]


@pytest_twisted.ensureDeferred
async def test_retention_of_a_meter_deletes_packed_rows_and_shortens_those_that_have_partly_expired(postgresql):
    dsn = postgresql.dsn()
    monday = datetime.combine(week_of(NOW - timedelta(weeks=1)), datetime.min.time(), UTC)
    async with running(dsn) as store:
        for name in ("disk.reads", "cpu"):
            await store.write([message(name, n, at=monday + timedelta(hours=n)) for n in range(-48, 168)])
        await store.maintenance.finalize(NOW)
        await pack_all(dsn)
        before = all_samples(postgresql, dsn)
        disk = postgresql.execute(
            "SELECT x.id FROM series x JOIN meter m ON m.id = x.meter_id WHERE m.name = 'disk.reads'", dsn
        )
        cutoff = monday + timedelta(hours=53)

        store.maintenance._retention = Retention(meter_days={"disk.*": 1.0})
        with closing(psycopg2.connect(dsn)) as indexing_a_large_week:
            indexing_a_large_week.cursor().execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
            await store.maintenance.expire(cutoff + timedelta(days=1))
        assert all_samples(postgresql, dsn) == before
        await store.maintenance.expire(cutoff + timedelta(days=1))

        of_day = cutoff.replace(hour=0)
        assert all_samples(postgresql, dsn) == [row for row in before if (row[5],) not in disk or row[0] >= of_day]


TABLES_OF_SAMPLES = (
    "meter", "resource", "project", '"user"', "source", "run", "series", "metadata", "wire_format", "signed_batch", "sample",
)  # fmt: skip
BEFORE_PACKING = 14
"""The version of the schema before packed weeks."""


def copy_samples(dsn, other):
    """Copy the samples, and what they refer to, from one database into another."""
    with closing(psycopg2.connect(dsn)) as source, closing(psycopg2.connect(other)) as target:
        for table in TABLES_OF_SAMPLES:
            rows = io.StringIO()
            source.cursor().copy_expert(f"COPY (SELECT * FROM {table}) TO STDOUT", rows)
            rows.seek(0)
            target.cursor().copy_expert(f"COPY {table} FROM STDIN", rows)
        target.commit()


@pytest_twisted.ensureDeferred
async def test_store_of_the_schema_before_packed_weeks_is_upgraded_and_packed_with_the_same_samples(postgresql):
    dsn, old_dsn = postgresql.dsn(), postgresql.dsn()
    async with running(dsn) as store:
        stored = varied(200)
        await store.write(stored)
        expected = await store.samples(SampleFilter(), 300)
    async with session_of(old_dsn) as session:
        await session.count("BEGIN")
        await Schema(migrations()[:BEFORE_PACKING]).upgrade(session)
        await create_partition(session, week_of(OLD))
        await session.count("COMMIT")
    copy_samples(dsn, old_dsn)
    before = all_samples(postgresql, dsn)

    async with running(old_dsn) as upgraded:
        assert all_samples(postgresql, old_dsn) == before
        assert await pack_all(old_dsn) == 200

        assert counts(postgresql, old_dsn) == (0, 200)
        assert all_samples(postgresql, old_dsn) == before
        assert await upgraded.samples(SampleFilter(), 300) == expected
        assert await stored_message(upgraded, stored[5].message_id) == stored[5].fields


@pytest_twisted.ensureDeferred
async def test_maintenance_packs_old_weeks_gives_their_space_back_and_goes_on_after_it_was_stopped(postgresql):
    dsn = postgresql.dsn()
    async with running(dsn, pack_after_days=14) as store:
        for first in range(0, 20):
            await store.write(varied(500, at=OLD + timedelta(minutes=first)))
        await store.write(varied(20, at=NOW))
        await store.maintenance.finalize(NOW)
        before = all_samples(postgresql, dsn)
        size = f"SELECT pg_total_relation_size('{partition_name(week_of(OLD))}')"
        [[plain_bytes]] = postgresql.execute(size, dsn)

        interrupted = Deferred.fromCoroutine(store.maintenance.packing.run(NOW))
        store.maintenance.packing.abort()
        with pytest.raises(Unavailable):
            await interrupted
        assert await store.maintenance.packing.run(NOW) == 10_000

        assert counts(postgresql, dsn) == (20, 10_000)
        assert all_samples(postgresql, dsn) == before
        assert postgresql.execute(size, dsn)[0][0] < plain_bytes / 10
        assert await store.maintenance.packing.run(NOW) == 0


@pytest_twisted.ensureDeferred
async def test_newest_sample_of_a_store_that_gets_none_any_more_is_a_packed_one(postgresql):
    dsn = postgresql.dsn()
    async with running(dsn) as store:
        inspection = DatabaseInspection(reactor, dsn, clock=reactor)
        await inspection.open()
        try:
            assert await inspection.newest_sample() is None
            await store.write([message(at=OLD), message(at=OLD + timedelta(hours=1))])
            await pack_all(dsn)
            assert counts(postgresql, dsn) == (0, 2)
            assert await inspection.newest_sample() == OLD + timedelta(hours=1)
        finally:
            inspection.close()
