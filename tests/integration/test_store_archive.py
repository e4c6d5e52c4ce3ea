"""Archived weeks on a second PostgreSQL server: every sample is there once, exactly as it was, and nothing is left out in silence."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from meter.interfaces import ArchiveUnavailable
from meter.query import Order
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.sample_identity import week_of
from meter.store import Administration
from meter.store.archive.archiver import Archiver
from tests.archived import add_server
from tests.archived import archive_all
from tests.integration.test_store_packing import NOW
from tests.integration.test_store_packing import OLD
from tests.integration.test_store_packing import all_samples
from tests.integration.test_store_packing import counts
from tests.integration.test_store_packing import varied
from tests.integration.test_store_rollups import running
from tests.packed import pack_all
from tests.packing import session_of
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
    await deferToThread(pack_all, dsn)
    return await deferToThread(archive_all, dsn)


@pytest_twisted.ensureDeferred
async def test_every_column_of_every_sample_comes_from_the_archive_and_back_as_it_was(
    postgresql, archive_postgresql, archive
):
    dsn, archive_dsn = archive
    async with running(dsn) as store:
        await store.write(varied())
        before = all_samples(postgresql, dsn)
        await deferToThread(pack_all, dsn)

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


EVERYTHING = SampleFilter()


async def answers(store, filter=EVERYTHING):
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

        async def not_needing():
            return [
                listed(await store.samples(SampleFilter(), 50)),
                listed(await store.samples(recent, 1000)),
                [dataclasses.astuple(each) for each in await store.resources(SampleFilter(), 100)],
                await store.meters(SampleFilter(), 100, unique=False),
                await store.statistics(StatisticsQuery(filter=recent, period=3600)),
                await store.statistics(StatisticsQuery(filter=SampleFilter(end=NOW - timedelta(hours=3)), period=3600)),
                await store.arrivals(None, NOW + timedelta(hours=1), 60, 100),
            ]

        before, needed = await not_needing(), await answers(store, old)
        await deferToThread(pack_all, dsn)
        await deferToThread(archive_all, dsn, before=WEEK + timedelta(weeks=1))
        await deferToThread(archive_postgresql.stop)
        try:
            assert await not_needing() == before
            for question in (
                store.samples(SampleFilter(), 1000),
                store.samples(SampleFilter(), 7, OLDEST_FIRST),
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
