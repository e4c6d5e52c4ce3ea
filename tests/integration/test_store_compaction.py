"""Weeks that are over take less room, and nobody notices."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.defer import DeferredList

from meter.interfaces import Unavailable
from meter.query import SampleFilter
from meter.sample_identity import WEEK
from meter.sample_identity import week_of
from meter.store.maintenance.compaction import LOCK
from meter.store.maintenance.partitions import partition_name
from tests.integration.test_store_rollups import running
from tests.signed import stored_message
from tests.store_messages import message
from tests.waiting import until

NOW = datetime.now(UTC)
THREE_WEEKS_AGO = NOW - 3 * WEEK
OLD = partition_name(week_of(THREE_WEEKS_AGO))


def batch(count, at):
    """Return messages whose ids come in any order."""
    return [message(volume=n, at=at + timedelta(milliseconds=n), resource_id=f"r{n % 50}") for n in range(count)]


def index_bytes(postgresql, dsn, table):
    return postgresql.execute(f"SELECT pg_indexes_size('{table}')", dsn)[0][0]


@pytest_twisted.ensureDeferred
async def test_past_week_takes_less_space_after_compaction_and_still_accepts_samples(postgresql):
    dsn = postgresql.dsn_with_schema()
    old, new = batch(3000, THREE_WEEKS_AGO), batch(500, NOW)
    async with running(dsn) as store:
        for first in range(0, 3000, 500):
            await store.write(old[first : first + 500])
        await store.write(new)
        before = [index_bytes(postgresql, dsn, partition_name(week_of(at))) for at in (THREE_WEEKS_AGO, NOW)]

        made = await store.maintenance.compact(week_of(NOW - timedelta(days=2)))

        after = [index_bytes(postgresql, dsn, partition_name(week_of(at))) for at in (THREE_WEEKS_AGO, NOW)]
        assert made >= 3
        assert after[0] < 0.85 * before[0]
        assert after[1] == before[1]
        late = batch(100, THREE_WEEKS_AGO)
        assert (await store.write(old[:500] + late)).stored == 100
        assert await stored_message(store, old[7].message_id) == old[7].fields
        assert await stored_message(store, late[7].message_id) == late[7].fields
        store.maintenance._compacted_until = None
        assert await store.maintenance.compact(week_of(NOW - timedelta(days=2))) == 0


@pytest_twisted.ensureDeferred
async def test_compaction_runs_in_one_collector_and_blocks_neither_readers_nor_writers(postgresql):
    dsn = postgresql.dsn_with_schema()
    async with running(dsn) as one, running(dsn) as other:
        await one.write(batch(2000, THREE_WEEKS_AGO))
        work = [one.maintenance.compact(week_of(NOW)), other.maintenance.compact(week_of(NOW))]
        work += [one.write(batch(50, THREE_WEEKS_AGO)) for _ in range(5)]
        work += [other.samples(SampleFilter(), 100) for _ in range(5)]
        results = await DeferredList([Deferred.fromCoroutine(each) for each in work], consumeErrors=True)
        two, others = results[:2], results[2:]
        [made] = [result for done, result in two if done]
        [refused] = [result for done, result in two if not done]
        assert made >= 3
        assert refused.check(Unavailable)
        assert all(done for done, _ in others)
        assert postgresql.execute("SELECT count(*) FROM sample", dsn) == [(2250,)]
    invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
    assert postgresql.execute(invalid, dsn) == [(0,)]


@pytest_twisted.ensureDeferred
async def test_index_left_behind_by_an_interrupted_compaction_is_dropped(postgresql):
    dsn = postgresql.dsn_with_schema()
    async with running(dsn) as store:
        await store.write(batch(10, THREE_WEEKS_AGO))
        with pytest.raises(Exception, match="could not create unique index"):
            postgresql.execute(f"CREATE UNIQUE INDEX CONCURRENTLY left_behind ON {OLD} ((1))", dsn)

        await store.maintenance.compact(week_of(NOW))
    assert postgresql.execute("SELECT to_regclass('left_behind')", dsn) == [(None,)]


@pytest_twisted.ensureDeferred
async def test_stopping_store_aborts_compaction(postgresql):
    dsn = postgresql.dsn_with_schema()
    async with running(dsn) as store:
        await store.write(batch(10, THREE_WEEKS_AGO))
        async with running(dsn) as writer:
            gate, begun = Deferred(), []

            async def slowly(session):
                begun.append(await session.rows(f"SELECT count(*) FROM {OLD}"))
                await gate

            writing = Deferred.fromCoroutine(writer._writers.run(slowly))
            await until(lambda: begun)
            compacting = Deferred.fromCoroutine(store.maintenance.compact(week_of(NOW)))
            await until(lambda: postgresql.execute("SELECT 1 FROM pg_locks WHERE NOT granted", dsn))
            await store.maintenance.stopService()
            with pytest.raises(Unavailable):
                await compacting
            assert not writing.called, "the writer holds up compaction still"
            gate.callback(None)
            await writing
            await until(
                lambda: not postgresql.execute(f"SELECT 1 FROM pg_locks WHERE objid = {LOCK & 0xFFFFFFFF}", dsn)
            )
