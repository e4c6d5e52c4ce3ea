"""How many statements archived weeks cost on the archive server: a number that does not grow with series, samples or ids."""

from __future__ import annotations

from datetime import timedelta

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from meter.query import Order
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from tests.archived import add_server
from tests.archived import archive_all
from tests.integration.test_store_packing import NOW
from tests.integration.test_store_packing import OLD
from tests.integration.test_store_rollups import running
from tests.packed import pack_all_blocking
from tests.remote_statements import log_statements
from tests.remote_statements import read_statements
from tests.store_messages import message

pytestmark = pytest.mark.timeout(240)

OLDEST_FIRST = (Order("timestamp", descending=False),)
MIDDLE = OLD + timedelta(minutes=102)
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
}
"""Statements on the archive server that a question of one week may take: more than one where spans of time are read until a page is full."""


def questions(store, stored):
    """Return functions that ask for archived samples, by name."""
    cpu = {"meter": "cpu"}

    async def samples(*args, **fields):
        return list(await store.samples(SampleFilter(**fields), *args))

    async def statistics(**fields):
        filter = SampleFilter(equals=cpu, start=OLD + timedelta(minutes=7), end=MIDDLE)
        return await store.statistics(StatisticsQuery(filter=filter, **fields))

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
        "late samples": late,
    }


@pytest_twisted.ensureDeferred
async def test_samples_of_many_series_in_an_archived_week_come_with_a_few_statements(postgresql, archive_postgresql):
    dsn, archive_dsn = postgresql.dsn_with_schema(), archive_postgresql.dsn()
    add_server(dsn, archive_dsn)
    log_statements(archive_postgresql, archive_dsn)
    stored = [
        message(volume=n, at=OLD + timedelta(minutes=5 * n), resource_id=f"r{r}", name=("cpu", "disk")[r % 2])
        for n in range(POLLS)
        for r in range(SERIES)
    ]
    async with running(dsn) as store:
        for n in range(0, len(stored), 1000):
            await store.write(stored[n : n + 1000])
        await store.maintenance.finalize(NOW)
        asked = questions(store, stored)
        asked.pop("late samples")
        before = {name: await ask() for name, ask in asked.items()}
    await deferToThread(pack_all_blocking, dsn)
    await deferToThread(archive_all, dsn)
    counts = {}
    async with running(dsn) as store:
        for name, ask in questions(store, stored).items():
            with read_statements(archive_postgresql) as found:
                answer = await ask()
            counts[name] = len(found)
            assert answer == before.get(name, 50), name

    assert {name: count for name, count in counts.items() if count > MOST[name]} == {}
    assert sum(counts.values()) >= 8
