"""Archived weeks on a second PostgreSQL server: every sample is there once, exactly as it was, and nothing is left out in silence."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from meter.interfaces import ArchiveUnavailable
from meter.query import SampleFilter
from meter.sample_identity import week_of
from meter.store import Act
from meter.store import Administration
from meter.store import NotArchived
from meter.store import Retention
from meter.store import Selection
from meter.store import WeekIsArchived
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
REMOTE = "SELECT count(*), coalesce(sum(count), 0)::integer FROM meter_archive.packed_samples"
HELD = "SELECT count(*) FILTER (WHERE message_ids IS NULL), count(*) FROM packed_samples"


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
