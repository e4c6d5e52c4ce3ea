"""What imported samples mean: for usage, and for the completeness ledger."""

from __future__ import annotations

import uuid
from datetime import timedelta
from decimal import Decimal

import pytest
import pytest_twisted

from meter.commands.command import EXIT_OK
from meter.completeness_query import CompletenessQuery
from meter.cycle_report import SeriesGroup
from meter.query import Aggregate
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.sample import utc_text
from tests.ceilometer_tables import SqliteTables
from tests.importing import meter_import as meter_import
from tests.integration.test_store_usage import NOON
from tests.integration.test_store_usage import NOW
from tests.integration.test_store_usage import PERIOD
from tests.integration.test_store_usage import PRICES
from tests.integration.test_store_usage import rating
from tests.ledger_tables import agent_life
from tests.store_messages import message

UNTIL = ("--until", utc_text(NOON + timedelta(days=2)))
HOUR = 3600


@pytest.fixture
def tables(tmp_path):
    return SqliteTables(tmp_path / "ceilometer.sqlite", empty=True)


def at(minutes):
    return NOON + timedelta(minutes=minutes)


async def quantity(store, sku):
    """The quantity in the period, of integrals in hours."""
    await store.rating.usage.refresh(PRICES, PERIOD, NOW)
    atoms = [each async for each in store.rating.usage.atoms(PRICES, PERIOD, ["p1"], skus=[sku])]
    return sum((each.quantity for each in atoms), Decimal(0))


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ((), 7200),  # as of Ceilometer's agents: a volume holds until the next one, however long that takes
        (("--interval", "300"), 300 + 900 + 900),  # for three intervals at most, before and after the gap
    ],
)
@pytest_twisted.ensureDeferred
async def test_polling_interval_limits_how_long_an_imported_volume_holds(meter_import, tables, options, seconds):
    tables.samples(tables.resource("vm1"), [(at(0), 2), (at(5), 2), (at(120), 2)], meter="memory")

    assert (await meter_import("ceilometer", *UNTIL, *options, tables.url))[0] == EXIT_OK

    async with rating(meter_import.dsn) as store:
        assert await quantity(store, "memory") == round(Decimal(2 * seconds) / HOUR, 9)


@pytest_twisted.ensureDeferred
async def test_imported_counter_is_counted_on_each_host_and_no_step_leads_to_that_of_meters_agent(meter_import, tables):
    here = tables.resource("vm1", {"instance_host": "hv1"})
    there = tables.resource("vm1", {"instance_host": "hv2"})
    tables.samples(here, [(at(0), 1000), (at(5), 1010), (at(10), 1030)])  # 30 steps
    tables.samples(here, [(at(15), 4)])  # reset: 4
    tables.samples(there, [(at(20), 7), (at(25), 9)])  # from 0 on another host: 9
    async with rating(meter_import.dsn) as store:
        meters_own = {"instance_host": "hv2", "_meter": {"interval": 300, "run": "hv2/1"}}
        await store.write(
            [
                message("cpu", volume, at=at(minutes), type="cumulative", resource_id="vm1", metadata=meters_own)
                for minutes, volume in ((30, 50), (35, 51))
            ]
        )

        assert (await meter_import("ceilometer", *UNTIL, tables.url))[0] == EXIT_OK

        assert await quantity(store, "cpu") == 30 + 4 + 9 + 1


@pytest_twisted.ensureDeferred
async def test_where_an_agent_of_meter_measured_too_the_imported_samples_are_not_billed(meter_import, tables):
    """The page says so. Statistics of the API add up the counters of both."""
    resource = tables.resource("vm1", {"instance_host": "hv1"})
    tables.samples(resource, [(at(n + 1), 1000 + n) for n in range(0, 61, 10)])
    tables.samples(resource, [(at(n + 1), 4096) for n in range(0, 61, 10)], meter="memory")
    async with rating(meter_import.dsn) as store:
        own = {"instance_host": "hv1", "_meter": {"interval": 300, "run": "hv1/1"}}
        await store.write(
            [
                message(meter, volume, at=at(n), type=kind, unit=unit, resource_id="vm1", metadata=own)
                for n in range(0, 61, 5)
                for meter, volume, kind, unit in (("cpu", 1000 + n, "cumulative", "ns"), ("memory", 2, "gauge", "MiB"))
            ]
        )
        before = [await quantity(store, sku) for sku in ("cpu", "memory")]

        assert (await meter_import("ceilometer", *UNTIL, tables.url))[0] == EXIT_OK

        after = [await quantity(store, sku) for sku in ("cpu", "memory")]
        increase = StatisticsQuery(filter=SampleFilter(equals={"meter": "cpu"}), aggregates=(Aggregate("increase"),))
        [row] = await store.statistics(increase)
        assert (before, after) == ([Decimal(60), Decimal("2.5")], before)
        assert row.values["increase"] == 60 + 60


@pytest_twisted.ensureDeferred
async def test_imported_times_are_not_claimed_as_complete_and_imported_samples_hide_no_missing_ones(
    meter_import, tables
):
    tables.samples(tables.resource("r"), [(at(-60 + n), n) for n in range(120)])  # also in the hour of the agent
    async with rating(meter_import.dsn) as store:
        series = SeriesGroup(("cpu",), ("r",), "p1")
        for report in agent_life(uuid.UUID(int=1), NOON, 61, lambda n: ((series,), ()) if n == 0 else ((), ())):
            await store.record_cycle_reports([report])
        # The agent's own samples of half an hour are lost.
        metadata = {"_meter": {"interval": 60, "run": "a"}}
        await store.write(
            [message("cpu", n, at=at(n), type="cumulative", resource_id="r", metadata=metadata) for n in range(30)]
        )

        assert (await meter_import("ceilometer", *UNTIL, tables.url))[0] == EXIT_OK

        await store.maintenance.finalize(NOON + timedelta(days=1))
        query = CompletenessQuery(start=at(-60), end=at(60), by="hour")
        before, hour = await store.completeness(query, NOW, 10)
        assert (before.expected, before.received, before.unexpected, before.percent) == (0, 0, 0, None)
        assert (hour.expected, hour.received, hour.missing, hour.unexpected) == (60, 30, 30, 0)


@pytest_twisted.ensureDeferred
async def test_samples_with_an_interval_are_for_times_without_an_agent_of_meter(meter_import, tables):
    tables.samples(tables.resource("r"), [(at(n), n) for n in range(60)])
    async with rating(meter_import.dsn) as store:
        assert (await meter_import("ceilometer", *UNTIL, "--interval", "60", tables.url))[0] == EXIT_OK

        [row] = await store.completeness(CompletenessQuery(start=at(0), end=at(60)), NOW, 10)

        assert (row.expected, row.received, row.missing, row.unexpected, row.percent) == (0, 0, 0, 0, None)
