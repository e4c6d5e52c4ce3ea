"""Packed weeks: every sample is there once, exactly as it was, while others write, void and expire."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest_twisted

from meter.sample_identity import week_of
from meter.store.packing.packed_rows import SAMPLE_COLUMNS
from meter.store.packing.packed_rows import unpacked
from tests.integration.test_store_rollups import running
from tests.packing import pack_all
from tests.signed import received_together
from tests.store_messages import KEYS
from tests.store_messages import message
from tests.store_messages import sample

NOW = datetime.now(UTC)
OLD = datetime.combine(week_of(NOW - timedelta(weeks=4)), datetime.min.time(), UTC) + timedelta(days=2)
"""A Wednesday of a week that is over for longer than samples are late."""

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
