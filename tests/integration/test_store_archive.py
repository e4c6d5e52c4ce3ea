"""Archived weeks on a second PostgreSQL server: every sample is there once, exactly as it was, and nothing is left out in silence."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from meter.archive_unavailable import ArchiveUnavailable
from meter.archive_unavailable import PartlyStored
from meter.query import Order
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.query import WriteResult
from meter.sample_identity import week_of
from meter.store import Act
from meter.store import Administration
from meter.store import Retention
from meter.store import Selection
from meter.store import WeekIsArchived
from meter.store.archive import archiver
from meter.store.archive.archiver import Archiver
from meter.store.packing.packed_partitions import packed_partition_name
from tests.archived import SERVER
from tests.archived import add_server
from tests.archived import archive_all
from tests.integration.test_store_packing import NOW
from tests.integration.test_store_packing import OLD
from tests.integration.test_store_packing import all_samples
from tests.integration.test_store_packing import counts
from tests.integration.test_store_packing import varied
from tests.integration.test_store_rollups import running
from tests.packed import pack_all_blocking
from tests.packing import session_of
from tests.store_messages import KEYS
from tests.store_messages import message

WEEK = week_of(OLD)
OLDEST_FIRST = (Order("timestamp", descending=False),)
REMOTE = "SELECT count(*), coalesce(sum(count), 0)::integer FROM meter_archive.packed_samples"
HELD = "SELECT count(*) FILTER (WHERE archived), count(*) FROM packed_samples"


@pytest.fixture
def archive(postgresql, archive_postgresql):
    """The DSNs of a store's database and of a database on another server, which is its archive server ``cold``."""
    dsn, archive_dsn = postgresql.dsn_with_schema(), archive_postgresql.dsn()
    add_server(dsn, archive_dsn)
    return dsn, archive_dsn


async def moved(dsn, *, samples=300):
    """Store samples of an old week, and archive them."""
    async with running(dsn) as store:
        await store.write(varied(samples))
    await deferToThread(pack_all_blocking, dsn)
    return await deferToThread(archive_all, dsn)


@pytest_twisted.ensureDeferred
async def test_space_that_a_reader_kept_is_given_back_by_the_next_archiving_of_the_week(
    postgresql, archive, monkeypatch
):
    monkeypatch.setattr(archiver, "RELEASE_LOCK_SECONDS", 1)
    dsn, _ = archive
    async with running(dsn) as store:
        await store.write(varied(300))
    await deferToThread(pack_all_blocking, dsn)
    table = packed_partition_name(WEEK)
    size = f"SELECT pg_table_size('{table}')"
    [[packed]] = postgresql.execute(size, dsn)
    async with session_of(dsn) as session, session_of(dsn) as reader:
        await reader.count("BEGIN")
        await reader.rows(f"SELECT count(*) FROM {table}")
        assert await Archiver(session).archive(WEEK, SERVER) == 300
        assert postgresql.execute(size, dsn) >= [(packed,)]
        await reader.count("COMMIT")

        assert await Archiver(session).archive(WEEK, SERVER) == 0

    assert postgresql.execute(size, dsn) < [(packed,)]


@pytest_twisted.ensureDeferred
async def test_every_column_of_every_sample_comes_from_the_archive_and_back_as_it_was(
    postgresql, archive_postgresql, archive
):
    dsn, archive_dsn = archive
    async with running(dsn) as store:
        await store.write(varied())
        before = all_samples(postgresql, dsn)
        await deferToThread(pack_all_blocking, dsn)

        assert await deferToThread(archive_all, dsn) == 300

        assert all_samples(postgresql, dsn) == before
        assert counts(postgresql, dsn) == (0, 300)
        assert postgresql.execute(HELD, dsn) == [(5, 5)]
        assert archive_postgresql.execute(REMOTE, archive_dsn) == [(5, 300)]
        assert await deferToThread(archive_all, dsn) == 0
        assert postgresql.execute(
            "SELECT week, server, rows, samples, archived_at IS NULL FROM archived_week", dsn
        ) == [(WEEK, "cold", 5, 300, False)]

        async with session_of(dsn) as session:
            assert await Archiver(session, max_group_samples=70).unarchive(WEEK) == 300
        assert all_samples(postgresql, dsn) == before
        assert postgresql.execute(HELD, dsn) == [(0, 5)]
        await store.maintenance.remove_from_archives()
        assert archive_postgresql.execute(REMOTE, archive_dsn) == [(0, 0)]
        assert postgresql.execute("SELECT FROM archive_removal UNION ALL SELECT FROM archived_week", dsn) == []


def listed(samples):
    return [(each.message_id, each.timestamp, each.volume) for each in samples]


async def paged(store, filter, limit):
    """Return the markers of the samples of a page for rendering in bulk."""
    page = await store.sample_page(filter, limit)
    return [page.marker(n) for n in range(len(page.rows))]


async def answers(store, filter):
    """Return the answers of questions that read old samples."""
    return [
        listed(await store.samples(filter, 1000)),
        listed(await store.samples(filter, 7, OLDEST_FIRST)),
        await store.statistics(StatisticsQuery(filter=filter, period=600)),
    ]


@pytest_twisted.ensureDeferred
async def test_archive_that_is_away_is_an_error_that_names_it_and_questions_that_do_not_need_it_are_answered(
    postgresql, archive_postgresql, archive
):
    dsn, _ = archive
    async with running(dsn, readers=1) as store:
        gone = [message(at=OLD + timedelta(minutes=n), resource_id="gone", metadata={"n": n}) for n in range(30)]
        await store.write([*varied(), *gone])
        await store.write(varied(100, at=NOW - timedelta(days=1)))
        await store.maintenance.finalize(NOW)
        old = SampleFilter(end=OLD + timedelta(days=1))
        recent = SampleFilter(start=NOW - timedelta(days=2))
        of_a_meter = SampleFilter(equals={"meter": "cpu"})

        async def not_needing():
            return [
                listed(await store.samples(SampleFilter(), 50)),
                listed(await store.samples(of_a_meter, 50)),
                await paged(store, of_a_meter, 50),
                listed(await store.samples(recent, 1000)),
                [dataclasses.astuple(each) for each in await store.resources(SampleFilter(), 100)],
                await store.meters(SampleFilter(), 100, unique=False),
                await store.statistics(StatisticsQuery(filter=recent, period=3600)),
                await store.statistics(StatisticsQuery(filter=SampleFilter(end=NOW - timedelta(hours=3)), period=3600)),
                await store.arrivals(None, NOW + timedelta(hours=1), 60, 100),
            ]

        before, needed = await not_needing(), await answers(store, old)
        await deferToThread(pack_all_blocking, dsn)
        await deferToThread(archive_all, dsn, before=WEEK + timedelta(weeks=1))
        await deferToThread(archive_postgresql.stop)
        try:
            assert await not_needing() == before
            for question in (
                store.samples(SampleFilter(), 1000),
                store.samples(SampleFilter(), 7, OLDEST_FIRST),
                store.sample_page(SampleFilter(), 1000),
                store.statistics(StatisticsQuery(filter=SampleFilter(end=OLD + timedelta(minutes=5)), period=600)),
                store.samples(SampleFilter(equals={"message_id": gone[9].message_id}), 1),
            ):
                with pytest.raises(ArchiveUnavailable) as away:
                    await question
                assert (away.value.server, str(WEEK) in away.value.public_text) == ("cold", True)
                assert "127.0.0.1" not in away.value.public_text
            assert store.readiness().ready
            await store.maintenance.run()
            assert (await store.write(varied(3, at=NOW - timedelta(days=1, hours=1)))).stored == 3
            administration = Administration(reactor, dsn, clock=reactor)
            await administration.open()
            status, partitions = await administration.status(), await administration.partitions()
            size = await administration.size()
            administration.close()
            assert [(each["server"], each["weeks"]) for each in status["archive_servers"]] == [("cold", 1)]
            assert [each["archive"] for each in partitions if each["archive"]] == ["cold"]
            assert size["archived_samples"] == 330
        finally:
            await deferToThread(archive_postgresql.start)
        assert await answers(store, old) == needed


@pytest_twisted.ensureDeferred
async def test_repeats_of_archived_samples_are_found_and_late_samples_stay_beside_them(postgresql, archive):
    dsn, _ = archive
    stored = varied(300)
    async with running(dsn) as store:
        await store.write(stored)
        await deferToThread(pack_all_blocking, dsn)
        await deferToThread(archive_all, dsn)
        before = all_samples(postgresql, dsn)

        assert (await store.write(stored)).duplicates == 300
        other = message(volume=77, at=OLD + timedelta(hours=5), message_id=stored[107].message_id)
        [refusal] = (await store.write([other])).refused
        assert (refusal.kind, "volume 77.0" in refusal.reason) == ("conflict", True)
        late = varied(50, at=OLD + timedelta(seconds=7))
        assert (await store.write(late)).stored == 50

        assert counts(postgresql, dsn) == (50, 300)
        assert len(await store.samples(SampleFilter(), 1000)) == 350
        await deferToThread(pack_all_blocking, dsn)
        assert await deferToThread(archive_all, dsn) == 0
        assert counts(postgresql, dsn) == (50, 300)
        assert [row for row in all_samples(postgresql, dsn) if row in before] == before
        async with session_of(dsn) as session:
            await Archiver(session).unarchive(WEEK)
        await deferToThread(pack_all_blocking, dsn)
        assert counts(postgresql, dsn) == (0, 350)


@pytest_twisted.ensureDeferred
async def test_messages_that_do_not_need_the_archive_are_stored_while_it_is_away(
    postgresql, archive_postgresql, archive
):
    dsn, _ = archive
    stored = varied(100)
    async with running(dsn) as store:
        await store.write(stored)
        await deferToThread(pack_all_blocking, dsn)
        await deferToThread(archive_all, dsn)
        batch = [
            *varied(20, at=NOW - timedelta(days=1)),
            stored[40],
            *varied(5, at=OLD + timedelta(seconds=3)),
            stored[41],
        ]
        await deferToThread(archive_postgresql.stop)
        try:
            with pytest.raises(PartlyStored) as partly:
                await store.write(batch)
        finally:
            await deferToThread(archive_postgresql.start)
        assert (partly.value.postponed, partly.value.server) == ({20, 26}, "cold")
        assert partly.value.result == WriteResult(stored=25, duplicates=0)
        assert await store.write(batch) == WriteResult(stored=0, duplicates=27)


@pytest_twisted.ensureDeferred
async def test_samples_of_an_archived_week_cannot_be_voided_and_those_voided_before_can_be_restored(
    postgresql, archive
):
    dsn, _ = archive
    async with running(dsn) as store:
        await store.write(varied(300))
        await store.maintenance.finalize(NOW)
        act = Act(who="me", reason="wrong", keys=KEYS.keys)
        administration = Administration(reactor, dsn, clock=reactor)
        await administration.open()
        first = Selection(meter="cpu", resource_id="r1", end=OLD + timedelta(minutes=3))
        assert (await administration.void(first, act)).samples == 6
        await store.maintenance.finalize(NOW)
        await deferToThread(pack_all_blocking, dsn)
        await deferToThread(archive_all, dsn)
        before = all_samples(postgresql, dsn)

        with pytest.raises(WeekIsArchived, match=f"meter-db unarchive {WEEK}"):
            await administration.void(Selection(meter="cpu", resource_id="r2"), act)
        assert all_samples(postgresql, dsn) == before
        assert await administration.voided(100) != []
        assert (await administration.unvoid(first, act)).samples == 6
        administration.close()
        assert counts(postgresql, dsn) == (6, 294)
        assert len(await store.samples(SampleFilter(), 1000)) == 300


@pytest_twisted.ensureDeferred
async def test_retention_deletes_archived_weeks_on_their_server_too_as_soon_as_it_is_there(
    postgresql, archive_postgresql, archive
):
    dsn, archive_dsn = archive
    async with running(dsn, retention=Retention(days=14)) as store:
        await store.write(varied(300))
        await store.write(varied(20, at=NOW - timedelta(days=1)))
        await store.maintenance.finalize(NOW)
        await deferToThread(pack_all_blocking, dsn)
        await deferToThread(archive_all, dsn, before=WEEK + timedelta(weeks=1))
        await deferToThread(archive_postgresql.stop)
        try:
            await store.maintenance.run()
            assert counts(postgresql, dsn) == (0, 20)
            assert postgresql.execute("SELECT server, week, series_ids FROM archive_removal", dsn) == [
                ("cold", WEEK, None)
            ]
        finally:
            await deferToThread(archive_postgresql.start)
        assert archive_postgresql.execute(REMOTE, archive_dsn) == [(5, 300)]
        store.maintenance.failed_removals.succeeded("cold")
        await store.maintenance.run()
        assert archive_postgresql.execute(REMOTE, archive_dsn) == [(0, 0)]
        assert postgresql.execute("SELECT FROM archive_removal UNION ALL SELECT FROM archived_week", dsn) == []


@pytest_twisted.ensureDeferred
async def test_retention_of_a_meter_deletes_its_archived_rows_and_no_others(postgresql, archive_postgresql, archive):
    dsn, archive_dsn = archive
    async with running(dsn, retention=Retention(meter_days={"disk*": 7})) as store:
        await store.write([*varied(100), *varied(100, name="disk.read.bytes", type="cumulative")])
        await store.maintenance.finalize(NOW)
        await deferToThread(pack_all_blocking, dsn)
        await deferToThread(archive_all, dsn)
        assert archive_postgresql.execute(REMOTE, archive_dsn) == [(10, 200)]

        await store.maintenance.run()

        assert archive_postgresql.execute(REMOTE, archive_dsn) == [(5, 100)]
        assert counts(postgresql, dsn) == (0, 100)
        assert {each.name for each in await store.samples(SampleFilter(), 1000)} == {"cpu"}
