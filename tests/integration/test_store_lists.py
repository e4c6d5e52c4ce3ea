"""Lists of meters and resources find the ends of series by their rollups: the answers are those of the samples, of which few are read."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest
import pytest_twisted
from twisted.internet import reactor

from meter.query import SampleFilter
from meter.store.maintenance.maintenance import Retention
from meter.store.query import meters
from meter.store.query import runner
from meter.testing import MemoryStore
from tests.integration.test_store_minute_totals import START
from tests.integration.test_store_minute_totals import finalized
from tests.integration.test_store_minute_totals import written
from tests.integration.test_store_rollups import DAY
from tests.integration.test_store_rollups import HOUR
from tests.integration.test_store_rollups import Usage
from tests.integration.test_store_rollups import running
from tests.packed import pack_all_blocking
from tests.plans import count_rows_read
from tests.store_messages import message

FILTERS = (SampleFilter(), SampleFilter(equals={"project_id": "pa"}), SampleFilter(equals={"resource_id": "b"}))
MANY = 10_000


async def same_lists(store, memory):
    for filter in FILTERS:
        for unique in (False, True):
            assert await store.meters(filter, MANY, unique) == await memory.meters(filter, MANY, unique)
        assert await store.resources(filter, MANY) == await memory.resources(filter, MANY)


@pytest.mark.parametrize("recent_days", [1, 36_500])
@pytest_twisted.ensureDeferred
async def test_lists_are_those_of_the_samples_whichever_hours_are_final(postgresql, monkeypatch, recent_days):
    monkeypatch.setattr(runner, "RECENT", timedelta(days=recent_days))
    usage, memory, dsn = Usage(recent_days), MemoryStore(reactor), postgresql.dsn()
    async with running(dsn) as store:
        for size in (40, 3, 3, 40):
            batch = [usage.message() for _ in range(size)]
            for each in (store, memory):
                await each.write(batch)
            await same_lists(store, memory)  # some hours have late samples now
            await finalized(store)
            await same_lists(store, memory)
        pack_all_blocking(dsn)
        await same_lists(store, memory)


@pytest_twisted.ensureDeferred
async def test_series_whose_samples_have_expired_is_not_listed(postgresql):
    async with running(postgresql.dsn(), retention=Retention(meter_days={"cpu": 1})) as store:
        await written(store, [message(name, 1, at=START, resource_id="a", type="gauge") for name in ("cpu", "ram")])
        await finalized(store)
        await store.maintenance.expire(START + 2 * DAY)
        assert [each.name for each in await store.meters(SampleFilter(), MANY, False)] == ["ram"]
        assert [each.meters for each in await store.resources(SampleFilter(), MANY)] == [("ram",)]


@pytest.mark.parametrize("few_series", [0, 3, 5000])
@pytest.mark.parametrize("spare", [0, 3, 50])
@pytest_twisted.ensureDeferred
async def test_page_of_meters_is_the_beginning_of_the_whole_list(postgresql, monkeypatch, few_series, spare):
    monkeypatch.setattr(meters, "FEW_SERIES", few_series)
    monkeypatch.setattr(runner, "candidates_of", lambda _, limit, *, unique: None if unique else limit + spare)
    names = {"cpu": ["ns"], "disk": ["B", "MB"], "memory": ["MiB"], "rare": ["x"], "voided": ["B"]}
    async with running(postgresql.dsn(), retention=Retention(meter_days={"voided": 1})) as store:
        sent = [
            message(name, n, at=START, resource_id=f"vm-{7 * n % 12:02}", unit=unit, type="gauge")
            for name, units in names.items()
            for n in range(2 if name == "rare" else 12)
            for unit in units
            if (n + len(unit)) % 4 or name in ("rare", "voided")
        ]
        await written(store, sent)
        await finalized(store)
        await store.maintenance.expire(START + 2 * DAY)
        every = await store.meters(SampleFilter(), MANY, False)
        expected = {
            (each.fields["counter_name"], each.fields["resource_id"], each.fields["counter_unit"]) for each in sent
        }
        assert {(each.name, each.resource_id, each.unit) for each in every} == {
            each for each in expected if each[0] != "voided"
        }
        assert every == sorted(every, key=lambda each: (each.name, each.resource_id, each.unit))
        for limit in (1, 2, 3, 5, 8, 13, 30, len(every), len(every) + 1):
            assert await store.meters(SampleFilter(), limit, False) == every[:limit], limit


@pytest_twisted.ensureDeferred
async def test_page_of_meters_does_not_read_all_series(postgresql, monkeypatch):
    monkeypatch.setattr(meters, "FEW_SERIES", 20)
    dsn = postgresql.dsn()
    async with running(dsn) as store:
        for first in range(0, 1200, 300):
            await written(
                store,
                [
                    message(name, n, at=START, resource_id=f"vm-{n}", type="gauge")
                    for n in range(first, first + 300)
                    for name in ("cpu", "memory", "disk")
                ],
            )
        await finalized(store)
        postgresql.execute("VACUUM ANALYZE", dsn)
        page, read = await count_rows_read(store._readers, lambda: store.meters(SampleFilter(), 10, False))
        assert [each.name for each in page] == ["cpu"] * 10
        assert read.tables["series"] < 600  # of 3600


@pytest_twisted.ensureDeferred
async def test_lists_read_a_sample_of_each_series_at_most_however_many_weeks_there_are(postgresql):
    weeks, resources, dsn = 5, 8, postgresql.dsn()
    now = datetime.now(UTC)
    start = now - timedelta(weeks=weeks)
    async with running(dsn) as store:
        await store.maintenance._partitions.ensure([start + n * timedelta(weeks=1) for n in range(weeks)])
        for n in range(weeks + 1):
            at = start + n * timedelta(weeks=1) - 2 * HOUR
            await written(store, [message("cpu", n, at=at, resource_id=f"vm-{each}") for each in range(resources)])
        await store.maintenance.finalize(now)
        postgresql.execute("VACUUM ANALYZE", dsn)
        listed, read = await count_rows_read(store._readers, lambda: store.meters(SampleFilter(), MANY, False))
        assert len(listed) == resources
        assert read.tables["sample"] == 0
        listed, read = await count_rows_read(store._readers, lambda: store.resources(SampleFilter(), MANY))
        assert {(each.first_sample, each.last_sample) for each in listed} == {(start - 2 * HOUR, at)}
        assert read.tables["sample"] <= resources
        assert read.tables["rollup"] <= 4 * resources
