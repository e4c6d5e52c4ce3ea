"""An archive server that was restored from a backup older than the last archiving: what is not the row that was moved there is refused, and found."""

from __future__ import annotations

from datetime import timedelta

import psycopg2
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from meter.query import SampleFilter
from meter.store import Act
from meter.store import Administration
from meter.store import Selection
from meter.store.archive.archiver import Archiver
from meter.store.archive.archiver import NotArchived
from meter.store.maintenance.verification import Verification
from tests.archived import add_server
from tests.archived import archive_all
from tests.integration.test_store_archive import WEEK
from tests.integration.test_store_packing import NOW
from tests.integration.test_store_packing import OLD
from tests.integration.test_store_packing import all_samples
from tests.integration.test_store_rollups import running
from tests.packed import pack_all_blocking
from tests.packing import session_of
from tests.store_messages import KEYS
from tests.store_messages import message

TABLE = "meter_archive.packed_samples"
POLL = timedelta(minutes=5)


async def damage_of(dsn):
    """Return what verification says about packed weeks as such."""
    verification = Verification(reactor, dsn, clock=reactor)
    await verification.open()
    try:
        return [text async for texts in verification.packed_damage(None, None) for text in texts]
    finally:
        verification.close()


@pytest_twisted.ensureDeferred
async def test_rows_of_an_older_backup_are_an_error_though_their_number_of_samples_is_right(
    postgresql, archive_postgresql
):
    dsn, archive_dsn = postgresql.dsn_with_schema(), archive_postgresql.dsn()
    add_server(dsn, archive_dsn)
    async with running(dsn) as store:
        await store.write([message(at=OLD + n * POLL, resource_id=f"r{r}") for n in range(40) for r in range(3)])
        await store.maintenance.finalize(NOW)
        await deferToThread(pack_all_blocking, dsn)
        await deferToThread(archive_all, dsn)
        archive_postgresql.execute(f"CREATE TABLE backup AS SELECT * FROM {TABLE}", archive_dsn)
        async with session_of(dsn) as session:
            await Archiver(session).unarchive(WEEK)
        administration = Administration(reactor, dsn, clock=reactor)
        await administration.open()
        wrong = Selection(meter="cpu", resource_id="r1", start=OLD + 20 * POLL, end=OLD + 21 * POLL)
        voided = await administration.void(wrong, Act(who="me", reason="wrong", keys=KEYS.keys))
        administration.close()
        assert voided.samples == 1
        corrected = message(volume=1000, at=OLD + 20 * POLL, resource_id="r1")
        await store.write([corrected])
        await store.maintenance.finalize(NOW)
    await deferToThread(pack_all_blocking, dsn)
    await deferToThread(archive_all, dsn)
    assert await damage_of(dsn) == []

    archive_postgresql.execute(f"DELETE FROM {TABLE}; INSERT INTO {TABLE} SELECT * FROM backup", archive_dsn)

    with pytest.raises(
        psycopg2.errors.DataCorrupted, match=r"does not have the 40 samples .* as they were moved there"
    ):
        all_samples(postgresql, dsn)
    refused = r"the archive server cold does not have .* as they were moved there"
    at_the_time = {"start": wrong.start, "end": wrong.end}
    async with running(dsn) as store:
        for asked in (
            {"equals": {"resource_id": "r1"}, **at_the_time},
            {"equals": {"meter": "cpu"}, **at_the_time},
            {"equals": {"message_id": corrected.message_id}},
        ):
            with pytest.raises(Exception, match=refused):
                await store.samples(SampleFilter(**asked), 10)
        others = await store.samples(SampleFilter(equals={"resource_id": "r2"}, **at_the_time), 10)
        assert [each.volume for each in others] == [1]
    async with session_of(dsn) as session:
        with pytest.raises(NotArchived, match=r"has 2 of 3 rows of packed_samples_.* as they were moved there"):
            await Archiver(session).unarchive(WEEK)
    [found] = await damage_of(dsn)
    assert (f"packed week {WEEK}, meter cpu, resource r1" in found, "archive server cold" in found) == (True, True)
    archive_postgresql.execute(f"DELETE FROM {TABLE}", archive_dsn)
    assert len(await damage_of(dsn)) == 3
