"""A late sample, which a tenant may submit, makes the rollups of its resource be made again, not those of all others of its hour."""

from __future__ import annotations

import os
import sys
from datetime import timedelta

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.utils import getProcessOutputAndValue

from meter.testing import MemoryStore
from tests.integration.test_store_rollups import HOUR
from tests.integration.test_store_rollups import START
from tests.integration.test_store_rollups import Usage
from tests.integration.test_store_rollups import finalized
from tests.integration.test_store_rollups import running
from tests.integration.test_store_rollups import same_answers
from tests.store_messages import message

# Of hours: where hours of two series begin at one time, their order within the day is free.
ROLLUPS = "SELECT * FROM rollup WHERE hours = 1 ORDER BY start, series_id, metadata_run"
VERSIONS = """
SELECT r.name, ro.xmin::text, ro.start, ro.metadata_run FROM rollup ro JOIN series x ON x.id = ro.series_id
JOIN resource r ON r.id = x.resource_id WHERE ro.hours = 1 AND x.resource_id > 0
"""
CHANGED = "SELECT count(*) FROM changed_series"
COMMAND = ("-c", "from meter.commands.db import main; main()")
NOTHING_FINAL = "TRUNCATE rollup, final_period, changed_series"


def comparable(rows):
    return [
        tuple(pytest.approx(each, rel=1e-9, abs=1e-6) if isinstance(each, float) else each for each in row)
        for row in rows
    ]


async def same_rollups_as_of_all_samples(store, postgresql, dsn):
    made = postgresql.execute(ROLLUPS, dsn)
    postgresql.execute(NOTHING_FINAL, dsn)
    await finalized(store)
    assert made == comparable(postgresql.execute(ROLLUPS, dsn))


def sent(resource, minute, **fields):
    return message(volume=minute, at=START + timedelta(minutes=minute), resource_id=resource, **fields)


@pytest_twisted.ensureDeferred
async def test_only_rollups_of_the_resource_are_made_again(postgresql):
    dsn = postgresql.dsn_with_schema()
    async with running(dsn) as store:
        await store.write([sent(f"vm-{n % 10}", n) for n in range(120)])
        await finalized(store)
        before = set(postgresql.execute(VERSIONS, dsn))
        for late in (sent("vm-3", 30.5), sent("vm-3", 31.5, type="delta", source="other"), sent("new", 90)):
            await store.write([late])
        await finalized(store)
        kept = before & set(postgresql.execute(VERSIONS, dsn))
        assert {name for name, *_ in before - kept} == {"vm-3"}
        assert len(before - kept) == 1
        assert postgresql.execute(CHANGED, dsn) == [(0,)]
        await same_rollups_as_of_all_samples(store, postgresql, dsn)


@pytest.mark.parametrize("seed", range(4))
@pytest_twisted.ensureDeferred
async def test_rollups_are_those_of_all_samples_whatever_comes_late(postgresql, seed):
    dsn, usage, memory = postgresql.dsn_with_schema(), Usage(seed, hours=6), MemoryStore(reactor)
    async with running(dsn) as store:
        for size in (200, 1, 1, 10, 3, 60):
            batch = [usage.message() for _ in range(size)]
            for each in (store, memory):
                await each.write(batch)
            await finalized(store)
        await same_answers(store, memory, usage.query, 10)
        await same_rollups_as_of_all_samples(store, postgresql, dsn)


@pytest.mark.parametrize("void_first", [False, True])
@pytest_twisted.ensureDeferred
async def test_late_and_voided_samples_of_one_hour(postgresql, tmp_path, void_first):
    dsn = postgresql.dsn_with_schema()
    file = tmp_path / "meter.toml"
    file.write_text(f'[store]\ndsn = "{dsn}"\n[signing]\nkey = "k"\n')
    bad = sent("vm-5", 35.5)

    async def void():
        _, errors, status = await getProcessOutputAndValue(
            sys.executable,
            [*COMMAND, "--config", str(file), "void", "--json", "--reason", "test", bad.message_id],
            env=os.environ,
            reactor=reactor,
        )
        assert status == 0, errors

    async with running(dsn) as store:
        await store.write([bad, *(sent(f"vm-{n % 10}", n) for n in range(120))])
        await finalized(store)
        if void_first:
            await void()
        await store.write([sent("vm-3", 30.5)])
        if not void_first:
            await void()
        assert postgresql.execute(CHANGED, dsn) == [(2,)]
        await store.maintenance.finalize(START + 90 * HOUR)
        assert postgresql.execute(CHANGED, dsn) == [(0,)]
        await same_rollups_as_of_all_samples(store, postgresql, dsn)
