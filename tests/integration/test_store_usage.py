"""Kept usage in PostgreSQL: killed in the middle, one process at a time, after samples have expired or were voided."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from decimal import Decimal

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from meter.daemon.services import sleep
from meter.interfaces import RequestError
from meter.rating.period import BillingPeriod
from meter.store.maintenance.maintenance import Retention
from meter.store.maintenance.usage_retention import UsageRetention
from meter.store.rating import usage_refresh
from meter.testing import MemoryStore
from tests.contract.test_usage import OVER
from tests.contract.test_usage import cloud
from tests.contract.test_usage import instance
from tests.contract.test_usage import notified
from tests.contract.test_usage import polled
from tests.integration.test_store_rollups import running
from tests.usage_books import EVERY_KIND
from tests.usage_books import book
from tests.usage_books import october
from tests.usage_books import sku

NOW = datetime.now(UTC)
PRICES = book(sku("cpu", "increase", "cpu"), sku("memory", "integral", "memory"))
PERIOD = BillingPeriod.containing(NOW, PRICES.timezone).previous
NOON = PERIOD.start + timedelta(days=3, hours=12)

VOID = """
WITH moved AS (DELETE FROM sample WHERE volume = %s RETURNING *)
INSERT INTO voided_sample (timestamp, recorded_at, message_id, volume, metadata_id, series_id, wire_format_id, signature, verbatim_json,
    batch_id, batch_position, voided_at, voided_by, reason, audit_seq)
SELECT timestamp, recorded_at, message_id, volume, metadata_id, series_id, wire_format_id, signature, verbatim_json,
    batch_id, batch_position, clock_timestamp(), '', '', 0 FROM moved
"""


@asynccontextmanager
async def rating(dsn, **options):
    """Yield a running store that can rate."""
    async with running(dsn, rating_connections=2, **options) as store:
        while not store.rating.ready:
            await sleep(reactor, 0.01)
        yield store


def counter(volume, hours=0.0, resource="vm1", **fields):
    return polled("cpu", volume, NOON + timedelta(hours=hours), resource, type="cumulative", **fields)


async def quantities(store, project="p1"):
    """Return the kept quantities of counters, by day."""
    atoms = store.rating.usage.atoms(PRICES, PERIOD, [project], skus=["cpu"])
    return {atom.day.day: atom.quantity async for atom in atoms}


async def refreshed(store):
    """Refresh, and return how many days were computed and the quantities."""
    days = await store.rating.usage.refresh(PRICES, PERIOD, NOW)
    return days, await quantities(store)


@pytest_twisted.ensureDeferred
async def test_a_refresh_that_was_killed_is_repeated(postgresql, monkeypatch):
    async with rating(postgresql.dsn_with_schema()) as store:
        await store.write([counter(0), counter(5, 1)])
        assert await refreshed(store) == (PERIOD.until.toordinal() - PERIOD.first.toordinal(), {4: Decimal(5)})
        await store.write([counter(7, 2), counter(20, 30)])

        async def killed(*_, **__):
            raise KeyboardInterrupt("killed")

        with monkeypatch.context() as patched:
            patched.setattr(usage_refresh, "mark_computed", killed)
            with pytest.raises(KeyboardInterrupt):
                await store.rating.usage.refresh(PRICES, PERIOD, NOW)
        # What was committed is right, and the days are still to be computed.
        assert await store.rating.usage.changed_days(PRICES, PERIOD)
        assert (await refreshed(store))[1] == {4: Decimal(7), 5: Decimal(13)}
        assert await refreshed(store) == (0, {4: Decimal(7), 5: Decimal(13)})
        assert await store.rating.usage.changed_days(PRICES, PERIOD) == []


@pytest_twisted.ensureDeferred
async def test_samples_that_are_voided_do_not_count(postgresql):
    dsn = postgresql.dsn_with_schema()
    async with rating(dsn) as store:
        await store.write([counter(0), counter(1000, 1), counter(1004, 2)])
        assert (await refreshed(store))[1] == {4: Decimal(1004)}
        await store.maintenance._pool.run(_execute, VOID, [1000])
        await store.maintenance._pool.run(_execute, VOID, [1004])
        assert await refreshed(store) == (1, {})


async def _execute(session, statement, parameters):
    await session.count(statement, parameters)


@pytest_twisted.ensureDeferred
async def test_one_process_rates_at_a_time_and_the_lock_blocks_no_writer(postgresql):
    dsn = postgresql.dsn_with_schema()
    async with rating(dsn) as one, rating(dsn) as other:
        going: Deferred[None] = Deferred()
        ran = []

        async def work():
            ran.append("one")
            await going

        first = Deferred.fromCoroutine(one.rating.exclusively(work))
        while not ran:
            await sleep(reactor, 0.01)
        assert not await other.rating.exclusively(work)
        assert (await other.write([counter(1)])).stored == 1
        going.callback(None)
        assert await first
        assert await other.rating.exclusively(lambda: refreshed(other))


@pytest_twisted.ensureDeferred
async def test_usage_outlives_its_samples_and_their_names(postgresql):
    async with rating(postgresql.dsn_with_schema(), retention=Retention(days=7, rollup_days=7)) as store:
        await store.write([counter(0), counter(5, 1)])
        _, kept = await refreshed(store)
        later = NOW + timedelta(days=60)
        await store.maintenance.finalize(later)
        await store.maintenance.expire(later)
        await store.maintenance.collect_garbage()
        [[series]] = await store.maintenance._pool.rows("SELECT count(*) FROM series")
        assert series == 0
        assert await quantities(store) == kept == {4: Decimal(5)}
        assert await store.rating.usage.projects(PRICES, PERIOD) == ["p1"]
        # Computing it again would lose it.
        assert (await refreshed(store))[1] == kept


@pytest_twisted.ensureDeferred
async def test_existence_that_was_computed_before_what_told_it_expired_stays(postgresql):
    prices = book(sku("vm", "exists", resource_kind="instance", states=("active",)))
    at = [PERIOD.start + timedelta(days=days) for days in (2, 20)]

    async def existed(store):
        await store.rating.usage.refresh(prices, PERIOD, NOW)
        return [(atom.day, atom.quantity) async for atom in store.rating.usage.atoms(prices, PERIOD, ["p1"])]

    dsn = postgresql.dsn_with_schema()
    async with rating(dsn, retention=Retention(days=7, rollup_days=7)) as store:
        await store.write([instance("active", time) for time in at])
        kept = await existed(store)
        assert kept[0] == (at[0].date(), Decimal(24))
        later = at[1] + timedelta(days=7)
        await store.maintenance.finalize(later)
        await store.maintenance.expire(later)
        [[first]] = await store.maintenance._pool.rows("SELECT min(timestamp) FROM sample")
        assert first == at[1]
    async with rating(dsn) as another:  # has read no lives before
        assert await existed(another) == kept


@pytest_twisted.ensureDeferred
async def test_late_samples_take_nothing_away_that_was_computed_from_samples_that_have_expired(postgresql):
    """One instance is told of on the 3rd and counted again on the 23rd; another one has samples each day, of which some are late."""

    def day(number, hours=0):
        return PERIOD.start + timedelta(days=number - 1, hours=1 + hours)

    def counted(volume, at, resource):
        return polled("cpu", volume, at, resource, type="cumulative")

    async def of_days(store):
        await store.rating.usage.refresh(PRICES, PERIOD, NOW)
        atoms = store.rating.usage.atoms(PRICES, PERIOD, ["p1"])
        return {(atom.resource_id, atom.sku, atom.day.day): atom.quantity async for atom in atoms}

    async with rating(postgresql.dsn_with_schema(), retention=Retention(days=7, rollup_days=0)) as store:
        await store.write(
            [
                *(instance("active", day(n), id) for id, days in DAYS_TOLD.items() for n in days),
                *(notified("memory", 2, day(n), id) for id, days in DAYS_TOLD.items() for n in days),
                *(counted(10 * n, day(n), id) for id, days in DAYS_TOLD.items() for n in (*days, 23)),
                counted(10**9, day(23, 1), "seldom"),
            ]
        )
        before = await of_days(store)
        assert before["seldom", "memory", 23] == 48
        assert before["seldom", "cpu", 23] == 10**9 - 30
        later = day(25)
        await store.maintenance.finalize(later)
        await store.maintenance.expire(later)
        [[first]] = await store.maintenance._pool.rows("SELECT min(timestamp) FROM sample")
        assert day(3) < first < day(23)

        await store.write([notified("memory", 3, day(23, 1), "often"), counted(1000, day(23, 3), "often")])
        after = await of_days(store)
        changed = {("often", "memory", 23): Decimal(2 + 3 * 22 + 2), ("often", "memory", 24): Decimal(2 * 23 + 3)}
        changed["often", "cpu", 23] = Decimal(1000 - 220)
        changed["often", "cpu", 24] = Decimal(0)
        assert {key: value for key, value in after.items() if before.get(key) != value} == {
            key: value for key, value in changed.items() if value
        }

        await store.maintenance._pool.run(_execute, VOID, [10**9])
        assert ("seldom", "cpu", 23) not in await of_days(store)


DAYS_TOLD = {"seldom": (3,), "often": range(3, 27)}


@pytest_twisted.ensureDeferred
async def test_a_day_that_was_not_computed_before_its_samples_expired_is_refused(postgresql):
    async with rating(postgresql.dsn_with_schema(), retention=Retention(days=7, rollup_days=0)) as store:
        await store.write([counter(0), counter(5, 1)])
        later = NOW + timedelta(days=60)
        await store.maintenance.finalize(later)
        await store.maintenance.expire(later)
        for _ in range(2):
            with pytest.raises(RequestError, match="have expired, and the usage of the SKU cpu"):
                await store.rating.usage.refresh(PRICES, PERIOD, NOW)


@pytest_twisted.ensureDeferred
async def test_a_percentile_whose_first_samples_expire_before_its_period_is_over_is_refused(postgresql):
    prices = book(sku("a-p95", "percentile95", "cpu"), sku("cpu", "increase", "cpu"))
    async with rating(postgresql.dsn_with_schema(), retention=Retention(days=7, rollup_days=0)) as store:
        usage = store.rating.usage
        await store.write([counter(0), counter(5, 1)])
        await usage.refresh(prices, PERIOD, NOON + timedelta(days=1))
        await store.maintenance.finalize(NOON + timedelta(days=20))
        await store.maintenance.expire(NOON + timedelta(days=20))
        with pytest.raises(RequestError, match="the SKU a-p95 from that day on"):
            await usage.refresh(prices, PERIOD, NOON + timedelta(days=19))
        assert (await usage.as_of(prices, PERIOD)) is not None


@pytest_twisted.ensureDeferred
async def test_usage_is_deleted_with_rollups_and_then_its_names(postgresql):
    async with rating(postgresql.dsn_with_schema()) as store:
        await store.write([counter(0), counter(5, 1)])
        await refreshed(store)
        pool = store.maintenance._pool
        retention = UsageRetention(pool, 30)
        assert await retention.run(PERIOD.end) == 0
        assert await quantities(store)
        while await retention.run(PERIOD.end + timedelta(days=31)):
            pass
        for table in ("usage_atom", "usage_day", "usage_values", "usage_resource", "usage_project", "usage_sku"):
            assert await pool.rows(f"SELECT count(*) FROM {table}") == [(0,)]


@pytest_twisted.ensureDeferred
async def test_usage_is_computed_in_pages_as_it_is_at_once(postgresql, monkeypatch):
    async with rating(postgresql.dsn_with_schema()) as store:
        messages = [counter(n * h, h, f"vm{n}") for n in range(1, 8) for h in range(3)]
        await store.write(messages)
        monkeypatch.setattr(usage_refresh, "PAGE_RESOURCES", 2)
        await refreshed(store)
        atoms = store.rating.usage.atoms(PRICES, PERIOD, ["p1"], skus=["cpu"])
        assert [(atom.resource_id, atom.quantity) async for atom in atoms] == [(f"vm{n}", 2 * n) for n in range(1, 8)]


@pytest_twisted.ensureDeferred
async def test_pages_without_samples_are_not_computed_and_what_was_kept_of_them_goes(postgresql, monkeypatch):
    dsn = postgresql.dsn_with_schema()
    computed = []
    keep = usage_refresh.keep_measured

    async def counting(session, parts, parameters):
        computed.append(parameters["day"].day)
        return await keep(session, parts, parameters)

    monkeypatch.setattr(usage_refresh, "PAGE_RESOURCES", 2)
    monkeypatch.setattr(usage_refresh, "SAMPLED_RESOURCES", 3)
    monkeypatch.setattr(usage_refresh, "keep_measured", counting)
    prices = book(sku("cpu", "increase", "cpu"))

    async def kept(store):
        atoms = store.rating.usage.atoms(prices, PERIOD, ["p1"])
        return [(atom.day.day, atom.resource_id, int(atom.quantity)) async for atom in atoms]

    async with rating(dsn) as store:
        # Five resources on one day, one of them two days later too; a sixth had samples before the period alone.
        early = polled("cpu", 1, PERIOD.start - timedelta(days=3), "vm0", type="cumulative")
        await store.write([early, *(counter(n * h, h, f"vm{n}") for n in range(1, 6) for h in range(2))])
        await store.write([counter(99, 48, "vm5"), counter(777, 49, "vm5")])
        days = await store.rating.usage.refresh(prices, PERIOD, NOW)
        assert days == (PERIOD.until - PERIOD.first).days
        # The first and the last sample of vm5 are two days apart: the day between is not known to be empty.
        assert computed == [4, 4, 4, 5, 6]
        first = [(4, f"vm{n}", n) for n in range(1, 6)]
        assert await kept(store) == [*first, (6, "vm5", 772)]

        await store.maintenance._pool.run(_execute, VOID, [777])
        await store.maintenance._pool.run(_execute, VOID, [99])
        await store.maintenance._pool.run(_execute, "DELETE FROM usage_day", [])
        computed.clear()
        await store.rating.usage.refresh(prices, PERIOD, NOW)
        assert computed == [4, 4, 4, 6]
        assert await kept(store) == first


@pytest_twisted.ensureDeferred
async def test_usage_is_the_same_from_rollups_of_lives_and_with_late_samples(postgresql):
    memory, messages, period = MemoryStore(reactor), cloud(7), october(EVERY_KIND)
    lives = [sku for sku in EVERY_KIND.skus.values() if sku.usage in ("exists", "integral")]
    prices = book(*lives)
    async with rating(postgresql.dsn_with_schema()) as store:
        late = messages[:30]
        await store.write(messages[30:])
        await store.maintenance.finalize(NOW)
        assert await store.rating.usage.refresh(prices, period, OVER) == 31
        await store.write(late)
        await memory.write([*late, *messages[30:]])
        await memory.rating.usage.refresh(prices, period, OVER)
        for finalized in (False, True):
            if finalized:
                await store.maintenance.finalize(NOW)
            await store.rating.usage.refresh(prices, period, OVER)
            found = [atom async for atom in store.rating.usage.atoms(prices, period, ["p1", "p2", "p3"])]
            assert found == [atom async for atom in memory.rating.usage.atoms(prices, period, ["p1", "p2", "p3"])]
