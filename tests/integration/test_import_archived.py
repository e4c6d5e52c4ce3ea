"""``meter-import`` into weeks that are archived, away or lost, and into months whose statements are closed."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import EXIT_OK
from meter.commands.command import UNAVAILABLE
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.rating.statements.statement import read_statement
from meter.rating.statements.statement import statement_sha256
from meter.sample import utc_text
from meter.sample_identity import start_of_week
from meter.sample_identity import week_of
from tests.archived import add_server
from tests.archived import archive_all
from tests.ceilometer_tables import SqliteTables
from tests.importing import meter_import as meter_import
from tests.importing import rejected
from tests.integration import test_rate_command
from tests.integration.test_rate_command import FIRST
from tests.integration.test_rate_command import GAPS
from tests.integration.test_rate_command import SECOND
from tests.integration.test_rate_command import rate as rate
from tests.integration.test_rate_command import requests
from tests.integration.test_rate_command import written
from tests.integration.test_store_archive import HELD
from tests.integration.test_store_packing import NOW
from tests.integration.test_store_packing import OLD
from tests.integration.test_store_packing import all_samples
from tests.integration.test_store_packing import counts
from tests.integration.test_store_rollups import running
from tests.packed import pack_all_blocking

pytestmark = pytest.mark.timeout(240)

HOURLY = StatisticsQuery(filter=SampleFilter(), period=3600)
LOSE = "UPDATE archived_week SET lost_at = now(), lost_entry = 1"
UNTIL = ("--until", utc_text(NOW))

CPU = """
[[sku]]
id = "cpu"
service = "Compute"
category = "Compute"
usage = "increase"
meter = "cpu"
unit = "Requests"
factor = "1/1000"

[[price]]
sku = "cpu"
tiers = [{price = "0.20"}]
mode = "graduated"

[[account]]
"""


def at(minutes):
    return OLD + timedelta(minutes=minutes)


async def archived(dsn, archive_dsn):
    """Archive all weeks of the store."""
    add_server(dsn, archive_dsn)
    async with running(dsn) as store:
        await store.maintenance.run()  # which makes the partitions of imported weeks
        await store.maintenance.finalize(NOW)
    await deferToThread(pack_all_blocking, dsn)
    await deferToThread(archive_all, dsn)


async def counted(dsn):
    """Finalize all hours; return the number of samples that statistics count."""
    async with running(dsn) as store:
        await store.maintenance.finalize(NOW)
        return sum(each.values["count"] for each in await store.statistics(HOURLY))


async def imported_and_archived(meter_import, postgresql, archive_postgresql, tmp_path):
    """Import thirty samples of a resource, and archive their week; return the tables they are from, and the resource."""
    tables = SqliteTables(tmp_path / "ceilometer.sqlite", empty=True)
    resource = tables.resource("vm1")
    tables.samples(resource, [(at(5 * n), n) for n in range(30)])
    assert (await meter_import("ceilometer", *UNTIL, tables.url))[0] == EXIT_OK
    await archived(meter_import.dsn, archive_postgresql.dsn())
    assert postgresql.execute(HELD, meter_import.dsn) == [(1, 1)]
    return tables, resource


@pytest_twisted.ensureDeferred
async def test_each_sample_is_imported_into_an_archived_week_once(
    meter_import, postgresql, archive_postgresql, tmp_path
):
    tables, resource = await imported_and_archived(meter_import, postgresql, archive_postgresql, tmp_path)
    dsn = meter_import.dsn
    before = all_samples(postgresql, dsn)
    tables.samples(resource, [(at(5 * n + 1), n) for n in range(20)])

    # While the archive is away, the import stops at what may be there, and goes on later.
    await deferToThread(archive_postgresql.stop)
    try:
        status, _, errors = await meter_import("ceilometer", "--restart", *UNTIL, tables.url)
        assert (status, "archive server cold" in errors) == (UNAVAILABLE, True)
    finally:
        await deferToThread(archive_postgresql.start)
    for options in ((), ("--restart",), ("--restart",)):
        assert (await meter_import("ceilometer", *options, *UNTIL, tables.url))[0] == EXIT_OK
        assert counts(postgresql, dsn) == (20, 30)
        assert [row for row in all_samples(postgresql, dsn) if row in before] == before
        assert await counted(dsn) == 50
    assert rejected(tmp_path) == []


@pytest_twisted.ensureDeferred
async def test_import_says_which_samples_are_of_a_week_that_is_lost(
    meter_import, postgresql, archive_postgresql, tmp_path
):
    tables, resource = await imported_and_archived(meter_import, postgresql, archive_postgresql, tmp_path)
    dsn = meter_import.dsn
    postgresql.execute(LOSE, dsn)
    tables.samples(resource, [(at(1), 1), (at(60 * 24 * 8), 2)])

    status, out, _ = await meter_import("ceilometer", "--json", "--restart", *UNTIL, tables.url)

    report = json.loads(out)
    assert (status, report["samples"], report["not_imported"]) == (EXIT_FOUND_PROBLEMS, 31, 1)
    assert "are lost" in rejected(tmp_path)[0]["reason"]
    assert counts(postgresql, dsn) == (1, 30)
    assert await counted(dsn) == 31


@pytest_twisted.ensureDeferred
async def test_samples_imported_into_the_month_of_a_closed_statement_are_corrected_on_the_next_one(
    rate, meter_import, archive_postgresql, tmp_path
):
    meter_import.dsn = rate.dsn
    book = test_rate_command.BOOK.replace("[[account]]\n", CPU)
    (rate.directory / "prices.d" / "list.toml").write_text(book)
    monday = start_of_week(week_of(FIRST + timedelta(days=10)))
    await written(rate, requests(monday, 4_000), requests(SECOND + timedelta(days=3), 1_000))
    assert (await rate("keys", "generate"))[0] == 0
    months = first, second = f"{FIRST:%Y-%m}", f"{SECOND:%Y-%m}"
    status, [acme] = await rate("close", first, "--account", "acme", *GAPS, "--output", str(rate.directory))
    assert (status, acme["total"]) == (0, "0.80")
    closed = (rate.directory / f"{first}.acme.json").read_bytes()
    await archived(rate.dsn, archive_postgresql.dsn())

    tables = SqliteTables(tmp_path / "ceilometer.sqlite", empty=True)
    resource = tables.resource("vm1", {"instance_host": "hv1"}, project_id="shop")
    tables.samples(resource, [(monday + timedelta(hours=n), 5_000 * n) for n in range(3)])
    until = ("--until", utc_text(SECOND))
    prices, key = rate.directory / "prices.d", rate.directory / "statement.pem"
    settings = f'[rating]\nprice_directory = "{prices}"\nsigning_key_file = "{key}"\n'
    for options in ((), ("--restart",)):
        assert (await meter_import("ceilometer", *options, *until, tables.url, settings=settings))[0] == EXIT_OK
        await written(rate)

    assert await rate("close", first, "--account", "acme", *GAPS) == (0, [{**acme, "result": "already closed"}])
    status, [acme] = await rate("close", second, "--account", "acme", *GAPS, "--output", str(rate.directory))
    assert (status, acme["total"]) == (0, "2.20")
    assert (rate.directory / f"{first}.acme.json").read_bytes() == closed
    before, after = (read_statement((rate.directory / f"{each}.acme.json").read_bytes()).statement for each in months)
    assert after.previous_sha256 == statement_sha256(before)
    assert [(line.kind, line.sku, line.quantity, line.amount) for line in after.lines] == [
        ("usage", "requests", Decimal(1), Decimal("0.20")),
        ("correction", "cpu", Decimal(10), Decimal("2.00")),
    ]
    for month in months:
        status, [found] = await rate("reproduce", f"{month}.acme")
        assert (status, found["differences"]) == (0, [])
