"""``meter-import`` into a spread store: each sample once, however often it is repeated."""

from __future__ import annotations

import json
from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest_twisted

from meter.commands.command import EXIT_OK
from meter.query import SampleFilter
from tests.ceilometer_tables import SqliteTables
from tests.importing import meter_import as meter_import
from tests.importing import stored_ids
from tests.integration.test_store_rollups import running
from tests.spread import spread

START = datetime(2026, 11, 6, 12, tzinfo=UTC)
RESOURCES = 6
SAMPLES = 40
"""Of each resource, one every eight hours: three weeks."""


@pytest_twisted.ensureDeferred
async def test_each_sample_is_imported_once_and_a_repetition_changes_nothing(meter_import, citus, tmp_path):
    tables = SqliteTables(tmp_path / "ceilometer.sqlite", empty=True)
    for n in range(RESOURCES):
        volumes = [(START + timedelta(hours=8 * each), each) for each in range(SAMPLES)]
        tables.samples(tables.resource(f"vm{n}"), volumes, meter="memory")
    meter_import.dsn = citus.dsn_with_schema(spread)

    async def imported(*options):
        status, out, errors = await meter_import("ceilometer", "--json", "--until", "2026-11-25", *options, tables.url)
        assert (status, errors) == (EXIT_OK, "")
        return json.loads(out)["samples"]

    assert await imported() == RESOURCES * SAMPLES
    ids = stored_ids(citus, meter_import.dsn)
    assert len(set(ids)) == len(ids) == RESOURCES * SAMPLES
    async with running(meter_import.dsn) as store:
        before = await store.samples(SampleFilter(), 1000)
        assert await imported() == 0
        await imported("--restart")
        assert stored_ids(citus, meter_import.dsn) == ids
        assert await store.samples(SampleFilter(), 1000) == before
    assert {(each.resource_id, each.timestamp, each.volume) for each in before} == {
        (f"vm{n}", START + timedelta(hours=8 * each), each) for n in range(RESOURCES) for each in range(SAMPLES)
    }
    placed = (
        "SELECT count(*) FROM run_command_on_shards('sampled_series', 'SELECT count(*) FROM %s') WHERE result::int > 0"
    )
    assert citus.execute(placed, meter_import.dsn)[0][0] > 1
