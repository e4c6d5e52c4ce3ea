"""How many statements archived weeks cost on the archive server: a number that does not grow with series, samples or ids."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from meter.query import MetadataMatch
from meter.query import Order
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.rating.period import BillingPeriod
from meter.store.query.completeness_source import StoredLedgerSource
from tests.archived import add_server
from tests.archived import archive_all
from tests.integration.test_store_packing import NOW
from tests.integration.test_store_packing import OLD
from tests.integration.test_store_rollups import running
from tests.packed import pack_all_blocking
from tests.remote_statements import log_statements
from tests.remote_statements import read_statements
from tests.store_messages import message
from tests.usage_books import book
from tests.usage_books import sku

pytestmark = pytest.mark.timeout(240)

OLDEST_FIRST = (Order("timestamp", descending=False),)
EARLY, MIDDLE = OLD + timedelta(minutes=32), OLD + timedelta(minutes=102)
SERIES, POLLS = 60, 40

MOST = {
    "newest page of all": 1,
    "newest page of a meter": 2,
    "large page of a meter": 4,
    "page of a meter that ends within the week": 4,
    "page of all that ends within the week": 4,
    "page of one resource": 2,
    "oldest page of a meter": 1,
    "statistics that cut hours": 1,
    "statistics by resource that cut hours": 2,
    "sample by its id": 1,
    "repeats of 200 samples": 2,
    "late samples": 1,
    "resources until the middle": 1,
    "resources from the middle": 1,
    "resources of some time": 2,
    "resources on a host until the middle": 1,
    "first resources until the middle": 1,
    "meters until the middle": 1,
    "meters of some time": 1,
    "unique meters until the middle": 0,
    "integrals of days": 4,
    "increases of days": 8,
    "sums of days": 2,
    "usage that is kept": 8,
    "times of samples in two gaps": 2,
}
"""Statements on the archive server that a question of one week may take: more than one where spans of time are read until a page is full.

Usage reads each of two days, and the samples before and after it.
"""

MIDNIGHT_IN_THE_MIDDLE = "Etc/GMT+2"


def one_sku(usage):
    return book(sku(usage, usage, "cpu"), timezone=MIDNIGHT_IN_THE_MIDDLE)


def month(of):
    return BillingPeriod.named(f"{OLD:%Y-%m}", of.timezone)


def questions(store, stored):
    """Return functions that ask for archived samples, by name."""
    cpu = {"meter": "cpu"}

    async def samples(*args, **fields):
        return list(await store.samples(SampleFilter(**fields), *args))

    async def statistics(**fields):
        filter = SampleFilter(equals=cpu, start=OLD + timedelta(minutes=7), end=MIDDLE)
        return await store.statistics(StatisticsQuery(filter=filter, **fields))

    async def resources(limit=100, **fields):
        return list(await store.resources(SampleFilter(**fields), limit))

    async def meters(*, unique=False, **fields):
        return list(await store.meters(SampleFilter(**fields), 100, unique))

    async def usage(of):
        return [atom async for atom in store.rating.usage.computed(of, month(of), {"p1"}, datetime.now(UTC))]

    async def kept():
        of = one_sku("integral")
        await store.rating.usage.refresh(of, month(of), NOW)
        return [atom async for atom in store.rating.usage.atoms(of, month(of), ["p1"])]

    async def times():
        gaps = [(EARLY, MIDDLE - timedelta(minutes=40)), (MIDDLE - timedelta(minutes=20), MIDDLE)]
        wanted = [(f"r{r}", *(each.timestamp() for each in gap)) for r in range(SERIES) for gap in gaps]
        return await StoredLedgerSource(store.maintenance._pool.rows, 0).sample_times(wanted)

    async def late():
        late = [message(volume=n, at=OLD + timedelta(minutes=5 * n, seconds=7), resource_id="r1") for n in range(50)]
        return (await store.write(late)).stored

    return {
        "newest page of all": lambda: samples(100),
        "newest page of a meter": lambda: samples(100, equals=cpu),
        "large page of a meter": lambda: samples(1000, equals=cpu),
        "page of a meter that ends within the week": lambda: samples(100, equals=cpu, end=MIDDLE),
        "page of all that ends within the week": lambda: samples(100, end=MIDDLE),
        "page of one resource": lambda: samples(20, equals={"resource_id": "r1"}, end=MIDDLE),
        "oldest page of a meter": lambda: samples(100, OLDEST_FIRST, equals=cpu),
        "statistics that cut hours": statistics,
        "statistics by resource that cut hours": lambda: statistics(groupby=("resource_id",)),
        "sample by its id": lambda: samples(1, equals={"message_id": stored[1200].message_id}),
        "repeats of 200 samples": lambda: store.write(stored[1200:1400]),
        "resources until the middle": lambda: resources(end=MIDDLE),
        "resources from the middle": lambda: resources(start=MIDDLE),
        "resources of some time": lambda: resources(start=EARLY, end=MIDDLE),
        "resources on a host until the middle": lambda: resources(metadata=(MetadataMatch("host", "h1"),), end=MIDDLE),
        "first resources until the middle": lambda: resources(SERIES // 3, end=MIDDLE),
        "meters until the middle": lambda: meters(end=MIDDLE),
        "meters of some time": lambda: meters(start=EARLY, end=MIDDLE),
        "unique meters until the middle": lambda: meters(unique=True, end=MIDDLE),
        "integrals of days": lambda: usage(one_sku("integral")),
        "increases of days": lambda: usage(one_sku("increase")),
        "sums of days": lambda: usage(one_sku("sum")),
        "usage that is kept": kept,
        "times of samples in two gaps": times,
        "late samples": late,
    }


@pytest_twisted.ensureDeferred
async def test_samples_of_many_series_in_an_archived_week_come_with_a_few_statements(postgresql, archive_postgresql):
    dsn, archive_dsn = postgresql.dsn_with_schema(), archive_postgresql.dsn()
    add_server(dsn, archive_dsn)
    log_statements(archive_postgresql, archive_dsn)
    stored = [
        message(
            volume=n,
            at=OLD + timedelta(minutes=5 * n),
            resource_id=f"r{r}",
            name=("cpu", "disk")[r % 2],
            metadata={"host": f"h{r % 3}", "_meter": {"interval": 300, "run": "boot"}},
        )
        for n in range(POLLS)
        for r in range(SERIES)
    ]
    async with running(dsn, rating_connections=2) as store:
        for n in range(0, len(stored), 1000):
            await store.write(stored[n : n + 1000])
        await store.maintenance.finalize(NOW)
        asked = questions(store, stored)
        for name in ("late samples", "usage that is kept"):
            asked.pop(name)
        before = {name: await ask() for name, ask in asked.items()}
    before |= {"late samples": 50, "usage that is kept": before["integrals of days"]}
    await deferToThread(pack_all_blocking, dsn)
    await deferToThread(archive_all, dsn)
    counts = {}
    async with running(dsn, rating_connections=2) as store:
        for name, ask in questions(store, stored).items():
            with read_statements(archive_postgresql) as found:
                answer = await ask()
            counts[name] = len(found)
            assert answer == before[name], name

    assert {name: count for name, count in counts.items() if count > MOST[name]} == {}
    assert sum(counts.values()) >= 8


@pytest_twisted.ensureDeferred
async def test_lists_that_begin_or_end_anywhere_in_an_archived_row_are_right_and_take_one_statement(
    postgresql, archive_postgresql
):
    dsn, archive_dsn = postgresql.dsn_with_schema(), archive_postgresql.dsn()
    add_server(dsn, archive_dsn)
    log_statements(archive_postgresql, archive_dsn)
    polls = 12
    times = [OLD + timedelta(minutes=10 * n) for n in range(polls)]
    stored = [
        message(volume=n, at=at + late, resource_id=f"r{r}", metadata={"half": str(2 * n // polls)})
        for r in range(4)
        for n, at in enumerate(times)
        # One that is exact, and others that are a little late each time, by any time, and once by more than a poll.
        for late in [timedelta(seconds=(0, 3, n * 37 % 50, 700 if n == 7 else 0)[r])]
    ]
    ends = [times[n] + timedelta(seconds=second) for n in (0, 1, 3, 4, 5, 7, 8, 10, 11) for second in (0, 1)]
    filters = [SampleFilter(**{bound: end}) for end in ends for bound in ("start", "end")]
    filters += [SampleFilter(end=times[5], through_end=True), SampleFilter(start=times[5], after_start=True)]
    filters += [
        SampleFilter(start=start, end=end, metadata=(MetadataMatch("half", half),))
        for end in (times[4], times[9])
        for start, half in ((None, "0"), (times[3], "1"))
    ]
    async with running(dsn) as store:
        await store.write(stored)
        before = [(await store.resources(each, 10), await store.meters(each, 10, False)) for each in filters]
    await deferToThread(pack_all_blocking, dsn)
    await deferToThread(archive_all, dsn)
    async with running(dsn) as store:
        for filter, (resources, meters) in zip(filters, before, strict=True):
            with read_statements(archive_postgresql) as found:
                assert await store.resources(filter, 10) == resources, filter
                assert await store.meters(filter, 10, False) == meters, filter
            # Of a row that does not have the end in its middle, what has other metadata is read by itself.
            assert len(found) <= 1 or filter.metadata, (filter, found)
