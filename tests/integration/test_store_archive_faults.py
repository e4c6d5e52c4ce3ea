"""The archiver killed at any statement, an archive server that ends or is altered meanwhile: no sample is lost, doubled or wrong."""

from __future__ import annotations

import itertools

import psycopg2
import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from meter.archive_unavailable import ArchiveUnavailable
from meter.interfaces import Unavailable
from meter.query import SampleFilter
from meter.sample_identity import week_of
from meter.store import NotArchived
from meter.store.archive.archiver import Archiver
from tests.archived import SERVER
from tests.archived import add_server
from tests.archived import archive_all
from tests.integration.test_store_archive import HELD
from tests.integration.test_store_archive import REMOTE
from tests.integration.test_store_archive import WEEK
from tests.integration.test_store_packing import OLD
from tests.integration.test_store_packing import all_samples
from tests.integration.test_store_packing import counts
from tests.integration.test_store_packing import varied
from tests.integration.test_store_packing_faults import Watched
from tests.integration.test_store_rollups import running
from tests.packed import pack_all_blocking
from tests.packing import session_of

REMAINING = "SELECT count(*) FROM packed_samples WHERE archived"


async def packed_week(postgresql, archive_postgresql, samples=100):
    """Return the DSNs of a database with a packed week and of its archive, and all its samples."""
    dsn, archive_dsn = postgresql.dsn_with_schema(), archive_postgresql.dsn()
    add_server(dsn, archive_dsn)
    async with running(dsn) as store:
        await store.write(varied(samples))
    await deferToThread(pack_all_blocking, dsn)
    return dsn, archive_dsn, all_samples(postgresql, dsn)


@pytest.mark.parametrize("direction", ["archive", "unarchive"])
@pytest_twisted.ensureDeferred
async def test_archiver_killed_before_any_of_its_statements_loses_and_doubles_nothing_and_goes_on(
    postgresql, archive_postgresql, direction
):
    dsn, archive_dsn, before = await packed_week(postgresql, archive_postgresql)
    if direction == "unarchive":
        await deferToThread(archive_all, dsn)
    killed, progress = 0, set()
    for fatal in itertools.count(1):
        async with session_of(dsn) as session:
            [[pid]] = await session.rows("SELECT pg_backend_pid()")

            async def kill(number, statement, fatal=fatal, pid=pid):
                if number == fatal:
                    postgresql.execute(f"SELECT pg_terminate_backend({pid}, 5000)")

            archiver = Archiver(Watched(session, kill), max_group_samples=45)
            try:
                await (archiver.archive(WEEK, SERVER) if direction == "archive" else archiver.unarchive(WEEK))
            except Unavailable:
                killed += 1
            except NotArchived:  # it was brought back, and the last statement was killed
                assert (direction, postgresql.execute("SELECT FROM archived_week", dsn)) == ("unarchive", [])
                break
            else:
                if fatal > 40:
                    break
            [[left]] = postgresql.execute(REMAINING, dsn)
            progress.add(left)
            assert all_samples(postgresql, dsn) == before, fatal
    assert killed > 10
    assert len(progress) > 2
    assert all_samples(postgresql, dsn) == before
    expected = [(5, 100)] if direction == "archive" else [(0, 5)]
    if direction == "archive":
        assert archive_postgresql.execute(REMOTE, archive_dsn) == expected
    else:
        assert postgresql.execute(HELD, dsn) == expected


@pytest_twisted.ensureDeferred
async def test_archive_server_killed_while_a_week_is_moved_loses_nothing_and_the_same_command_does_the_rest(
    postgresql, archive_postgresql
):
    dsn, archive_dsn, before = await packed_week(postgresql, archive_postgresql)
    for fatal in ("INSERT INTO archive_cold", "archive_cold_checksums", "COMMIT"):
        seen = itertools.count()

        async def kill(number, statement, fatal=fatal, seen=seen):
            if fatal in statement and next(seen) == 1:
                await deferToThread(archive_postgresql.kill)

        try:
            async with session_of(dsn) as session:
                with pytest.raises(ArchiveUnavailable, match="archive server cold"):
                    await Archiver(Watched(session, kill), max_group_samples=25).archive(WEEK, SERVER)
        finally:
            await deferToThread(archive_postgresql.start)
        assert all_samples(postgresql, dsn) == before
    async with session_of(dsn) as session:
        await Archiver(session).archive(WEEK, SERVER)
    assert all_samples(postgresql, dsn) == before
    assert archive_postgresql.execute(REMOTE, archive_dsn) == [(5, 100)]


@pytest_twisted.ensureDeferred
async def test_copy_that_differs_is_not_relied_upon_and_a_row_that_is_gone_is_an_error(postgresql, archive_postgresql):
    dsn, archive_dsn, before = await packed_week(postgresql, archive_postgresql)

    async def alter(number, statement):
        if "archive_cold_checksums" in statement:
            archive_postgresql.execute(
                "UPDATE meter_archive.packed_samples SET volumes[3] = -volumes[3] WHERE series_id % 5 = 1", archive_dsn
            )

    async with session_of(dsn) as session:
        with pytest.raises(NotArchived, match="1 of 5 rows"):
            await Archiver(Watched(session, alter)).archive(WEEK, SERVER)
        assert postgresql.execute(REMAINING, dsn) == [(0,)]
        await Archiver(session).archive(WEEK, SERVER)
    assert all_samples(postgresql, dsn) == before

    archive_postgresql.execute("DELETE FROM meter_archive.packed_samples WHERE series_id % 5 = 2", archive_dsn)
    with pytest.raises(psycopg2.errors.DataCorrupted, match="the archive server cold does not have the 20 samples"):
        all_samples(postgresql, dsn)
    async with session_of(dsn) as session:
        with pytest.raises(NotArchived, match="has 4 of 5 rows"):
            await Archiver(session).unarchive(WEEK)
    assert postgresql.execute(REMAINING, dsn) == [(5,)]


@pytest_twisted.ensureDeferred
async def test_two_stores_in_one_archive_do_not_see_each_other(postgresql, archive_postgresql):
    dsn, archive_dsn, before = await packed_week(postgresql, archive_postgresql)
    other, _, of_other = await packed_week(postgresql, archive_postgresql)
    postgresql.execute("UPDATE store_identity SET id = gen_random_uuid()", other)
    add_server(other, archive_dsn, "shared")
    await deferToThread(archive_all, dsn)
    await deferToThread(archive_all, other, "shared")
    assert archive_postgresql.execute(REMOTE, archive_dsn) == [(10, 200)]
    assert (all_samples(postgresql, dsn), all_samples(postgresql, other)) == (before, of_other)

    async with running(other) as store, session_of(other) as session:
        await Archiver(session).unarchive(WEEK)
        await store.maintenance.remove_from_archives()
    assert archive_postgresql.execute(REMOTE, archive_dsn) == [(5, 100)]
    assert all_samples(postgresql, dsn) == before


@pytest_twisted.ensureDeferred
async def test_week_that_is_archived_again_before_its_old_copy_is_removed_keeps_its_new_copy(
    postgresql, archive_postgresql
):
    dsn, archive_dsn, before = await packed_week(postgresql, archive_postgresql)
    await deferToThread(archive_all, dsn)
    async with session_of(dsn) as session:
        await Archiver(session).unarchive(WEEK)
        await Archiver(session).archive(WEEK, SERVER)
    async with running(dsn) as store:
        await store.maintenance.remove_from_archives()
        assert len(await store.samples(SampleFilter(), 1000)) == 100
    assert archive_postgresql.execute(REMOTE, archive_dsn) == [(5, 100)]
    assert all_samples(postgresql, dsn) == before
    assert (counts(postgresql, dsn), week_of(OLD)) == ((0, 100), WEEK)
