"""Ends of archived rows stay here: what a question of many series reads of them here, and on the archive server, is not counted twice."""

from __future__ import annotations

from datetime import timedelta

import pytest_twisted
from twisted.internet.threads import deferToThread

from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.store.query.completeness_source import StoredLedgerSource
from tests.archived import add_server
from tests.archived import archive_all
from tests.integration.test_store_archive import OLD
from tests.integration.test_store_rollups import running
from tests.packed import pack_all_blocking
from tests.store_messages import message

POLL = timedelta(minutes=5)


@pytest_twisted.ensureDeferred
async def test_times_of_samples_in_ranges_that_overlap(postgresql, archive_postgresql):
    dsn = postgresql.dsn_with_schema()
    add_server(dsn, archive_postgresql.dsn())
    metadata = {"_meter": {"interval": POLL.total_seconds()}}
    stored = [
        message("cpu", n, at=OLD + n * POLL, resource_id=f"r{r}", metadata=metadata)
        for n in range(40)
        for r in range(3)
    ]
    wanted = [
        (f"r{r}", (OLD + first * POLL).timestamp(), (OLD + last * POLL).timestamp())
        for r, (first, last) in enumerate([(0, 2), (1, 30), (38, 40)])
    ]
    async with running(dsn) as store:
        await store.write(stored)
        await store.maintenance.finalize(OLD + timedelta(weeks=4))
        before = await StoredLedgerSource(store.maintenance._pool.rows, 0).sample_times(wanted)
    await deferToThread(pack_all_blocking, dsn)
    await deferToThread(archive_all, dsn)
    async with running(dsn) as store:
        found = await StoredLedgerSource(store.maintenance._pool.rows, 0).sample_times(wanted)
    assert {name: len(times) for name, times in found.items()} == {name: len(times) for name, times in before.items()}
    assert found == before


@pytest_twisted.ensureDeferred
async def test_windows_after_samples_that_have_expired(postgresql, archive_postgresql):
    """Of a row that ends soon after them, the range has but the end."""
    dsn = postgresql.dsn_with_schema()
    add_server(dsn, archive_postgresql.dsn())
    stored = [
        message("cpu", n, at=OLD + n * POLL, resource_id=f"r{r}") for r in range(2) for n in range(36 if r else 60)
    ]
    query = StatisticsQuery(
        filter=SampleFilter(equals={"meter": "cpu"}, start=OLD, end=OLD + timedelta(hours=5)),
        period=600,
    )
    async with running(dsn) as store:
        await store.write(stored)
        await store.maintenance.finalize(OLD + timedelta(weeks=4))
        expired = OLD + 33 * POLL - timedelta(minutes=1)
        postgresql.execute(f"INSERT INTO retention_cutoff (meter, before) VALUES ('cpu', '{expired}')", dsn)
        before = await store.statistics(query)
    await deferToThread(pack_all_blocking, dsn)
    await deferToThread(archive_all, dsn)
    async with running(dsn) as store:
        found = await store.statistics(query)
    assert [row.values["count"] for row in found] == [row.values["count"] for row in before]
    assert sum(row.values["count"] for row in before) == 3 + 27
