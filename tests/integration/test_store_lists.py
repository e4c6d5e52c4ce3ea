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
from meter.store.query import runner
from meter.testing import MemoryStore
from tests.integration.test_store_minute_totals import START
from tests.integration.test_store_minute_totals import written
from tests.integration.test_store_rollups import DAY
from tests.integration.test_store_rollups import HOUR
from tests.integration.test_store_rollups import Usage
from tests.integration.test_store_rollups import finalized
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
        meters, read = await count_rows_read(store._readers, lambda: store.meters(SampleFilter(), MANY, False))
        assert len(meters) == resources
        assert read.tables["sample"] == 0
        listed, read = await count_rows_read(store._readers, lambda: store.resources(SampleFilter(), MANY))
        assert {(each.first_sample, each.last_sample) for each in listed} == {(start - 2 * HOUR, at)}
        assert read.tables["sample"] <= resources
        assert read.tables["rollup"] <= 4 * resources
