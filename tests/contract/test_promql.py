"""PromQL over both stores: PostgreSQL, with rollups and without, has the answers of the memory store."""

from __future__ import annotations

from datetime import timedelta

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from meter.store import PostgresStore
from meter.testing import MemoryStore
from tests.packed import pack_all_blocking
from tests.promql import instant
from tests.promql import over_range
from tests.promql import source_of
from tests.store_messages import NOON
from tests.store_messages import message
from tests.waiting import until

HOUR = 3600
LABELS = {"flavor": "flavor.name", "name": "display_name"}

EXPRESSIONS = (
    "increase(ceilometer_cpu[1h])",
    "rate(ceilometer_cpu[90m] offset 30m)",
    "sum by (project) (increase(ceilometer_cpu[2h]))",
    'sum by (flavor) (increase(ceilometer_cpu{project=~"p0|p1", flavor!=""}[1h]))',
    "ceilometer_memory",
    'ceilometer_memory{project="p1"}',
    'ceilometer_memory{flavor="large", resource=~"r0|r1"}',
    "delta(ceilometer_memory[2h])",
    "stddev_over_time(ceilometer_memory[2h])",
    "quantile_over_time(0.3, ceilometer_memory[1h])",
    "last_over_time(ceilometer_memory[30m])",
    "timestamp(ceilometer_memory)",
    "topk(1, ceilometer_cpu) / on (resource) ceilometer_memory",
    "absent_over_time(ceilometer_memory{resource='r9'}[1h])",
)


def messages():
    """Return samples of 8 hours of 3 resources, of which one changes its flavor and then its project."""
    for number in range(3):
        for poll in range(96):
            flavor = "small" if number or poll < 40 else "large"
            fields = {
                "at": poll * 300 + number,
                "resource_id": f"r{number}",
                "project_id": f"p{number % 2}" if number or poll < 60 else "p1",
                "metadata": {"flavor": {"name": flavor}, "display_name": f"vm {number}", "_meter": {"interval": 300}},
            }
            yield message("cpu", (poll * (number + 3)) % 170, type="cumulative", **fields)
            yield message("memory", (poll * 31 + number) % 23 - 4, unit="MB", **fields)


async def answers(store):
    source = source_of(store, metadata_labels=LABELS)
    found = {}
    for expression in EXPRESSIONS:
        for at in (4 * HOUR, 5.3 * HOUR, 9 * HOUR):
            found[expression, at] = await instant(expression, at, source)
        for start, step in ((HOUR, HOUR), (90, 1800)):
            found[expression, start, step] = await over_range(expression, start, 9 * HOUR, step, source)
        found[expression, "samples"] = await instant("ceilometer_memory[20m]", 6 * HOUR, source)
    return found


@pytest.fixture
def store(postgresql):
    dsn = postgresql.dsn_with_schema()
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=1, writers=1, maintain=True)
    store.maintenance._periodic.startService = lambda: None  # the test runs maintenance itself
    store.dsn = dsn
    return store


@pytest_twisted.ensureDeferred
async def test_postgresql_has_the_answers_of_the_memory_store_from_samples_from_rollups_and_from_packed_samples(store):
    memory = MemoryStore(reactor)
    store.startService()
    try:
        await until(lambda: store.readiness().ready and store.maintenance._pool.ready)
        for each in (memory, store):
            await each.write(list(messages()))
        expected = await answers(memory)
        assert sum(bool(each) for each in expected.values()) > 0.8 * len(expected)

        for key, found in (await answers(store)).items():
            assert comparable(found) == expected[key], key
        await store.maintenance.finalize(NOON + timedelta(hours=12))
        for key, found in (await answers(store)).items():
            assert comparable(found) == expected[key], key
        await deferToThread(pack_all_blocking, store.dsn)
        for key, found in (await answers(store)).items():
            assert comparable(found) == expected[key], key
    finally:
        await store.stopService()


def comparable(found):
    if isinstance(found, dict):
        return {key: comparable(value) for key, value in found.items()}
    return [comparable(each) for each in found] if isinstance(found, list) else pytest.approx(found, rel=1e-9, abs=1e-9)
