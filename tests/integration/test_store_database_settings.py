"""Settings that an administrator has made for a database change no answer: those of the store, and those of an archive server."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.store.maintenance.verification import Verification
from tests.archived import add_server
from tests.archived import archive_all
from tests.integration.test_store_packing import NOW
from tests.integration.test_store_packing import varied
from tests.integration.test_store_rollups import running
from tests.packed import pack_all_blocking

SETTINGS = {
    "extra_float_digits": "-15",
    "quote_all_identifiers": "on",
    "default_transaction_isolation": "'serializable'",
    "datestyle": "'German, DMY'",
    "intervalstyle": "'iso_8601'",
    "timezone": "'Asia/Kathmandu'",
    "bytea_output": "'escape'",
    "array_nulls": "off",
    "standard_conforming_strings": "off",
    "transform_null_equals": "on",
    "client_encoding": "'LATIN1'",
}

ISOLATION = "SHOW transaction_isolation"


def set_all(server, dsn):
    """Set :data:`SETTINGS` for all sessions of a database that begin later."""
    database = dsn.rpartition("/")[2]
    server.execute("; ".join(f"ALTER DATABASE {database} SET {name} = {value}" for name, value in SETTINGS.items()))


async def answers(dsn):
    """Return the samples and statistics of a store, exactly, and what is verified of it."""
    verification = Verification(reactor, dsn, clock=reactor)
    async with running(dsn) as store:
        samples = [(each, repr(each.volume)) for each in await store.samples(SampleFilter(), 1000)]
        statistics = [repr(each) for each in await store.statistics(StatisticsQuery(filter=SampleFilter(), period=420))]
        await verification.open()
        try:
            verified = [repr(row.fields) async for page in verification.pages(None, None) for row in page]
        finally:
            verification.close()
        return samples, sorted(statistics), verified


@pytest.mark.parametrize("where", ["plain", "archived"])
@pytest_twisted.ensureDeferred
async def test_answers_do_not_depend_on_settings_of_the_database(postgresql, archive_postgresql, where):
    dsn, archive_dsn = postgresql.dsn_with_schema(), archive_postgresql.dsn()
    async with running(dsn) as store:
        await store.write(varied(200))
        await store.maintenance.finalize(NOW)
    if where == "archived":
        add_server(dsn, archive_dsn)
        await deferToThread(pack_all_blocking, dsn)
        await deferToThread(archive_all, dsn)
        set_all(archive_postgresql, archive_dsn)
    before = await answers(dsn)

    set_all(postgresql, dsn)

    assert await answers(dsn) == before
    async with running(dsn) as store:
        assert await store.maintenance._pool.rows(ISOLATION) == [("read committed",)]
