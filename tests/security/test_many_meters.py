"""A tenant who submits samples of very many meters does not slow down the finalization of every hour."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
import pytest_twisted

from meter.store.maintenance.rollups import COUNTERS
from meter.store.maintenance.rollups import HOURS_OF_PERIOD
from meter.store.maintenance.rollups import SAMPLES_OF_PERIOD
from tests.integration.test_store_rollups import running
from tests.signed import received_together
from tests.store_messages import KEYS
from tests.store_messages import NOON
from tests.store_messages import sample

METERS = 20_000
PERIOD = {"start": f"'{NOON.isoformat()}'::timestamptz", "hours": "1"}


@pytest.fixture(scope="module")
def database(request):
    return request.getfixturevalue("postgresql").dsn_with_schema()


def nodes(plan):
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


@pytest.mark.parametrize("of_period", [SAMPLES_OF_PERIOD, HOURS_OF_PERIOD], ids=["samples", "hours"])
@pytest.mark.parametrize("expired", [False, True], ids=["", "expired"])
@pytest_twisted.ensureDeferred
async def test_finalization_reads_no_meters_but_those_of_the_period(postgresql, database, of_period, expired):
    """``expired``: the samples of another meter are expired."""
    sent = [sample("cpu", n, at=NOON + timedelta(minutes=n), resource_id=f"vm-{n}") for n in range(50)]
    async with running(database) as store:
        await store.write(received_together(sent, KEYS))
        await store.maintenance.finalize(NOON + timedelta(hours=2))
        postgresql.execute(
            "INSERT INTO meter (name, type, unit)"
            f" SELECT 'custom.' || n, 'gauge', 'x' FROM generate_series(1, {METERS}) n ON CONFLICT DO NOTHING;"
            " ANALYZE meter, series, sample, rollup",
            database,
        )
        postgresql.execute("TRUNCATE retention_cutoff", database)
        if expired:
            postgresql.execute("INSERT INTO retention_cutoff VALUES ('custom.7', 'infinity')", database)
        statement = f"WITH of_period AS MATERIALIZED ({of_period}) {COUNTERS}" % PERIOD
        [[plan]] = postgresql.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", database)
    plan = plan if isinstance(plan, list) else json.loads(plan)
    rows = {}
    for node in nodes(plan[0]["Plan"]):
        if relation := node.get("Relation Name"):
            read = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
            rows[relation] = rows.get(relation, 0) + read * node["Actual Loops"]
    assert 1 <= rows["meter"] <= 3
    assert sum(rows.values()) < 500
