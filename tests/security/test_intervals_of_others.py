"""A polling interval of a year, which an agent may state, does not make rating read weeks of the samples of others, nor any of them twice."""

from __future__ import annotations

from datetime import timedelta

import pytest_twisted
from twisted.internet.threads import deferToThread

from meter.counter_runs import MAX_INTERVAL
from meter.store.rating.usage_samples import BESIDE_OTHERS
from meter.store.rating.usage_samples import INTERVAL_AFTER
from meter.store.rating.usage_samples import WANTED
from tests.archived import add_server
from tests.archived import archive_all
from tests.integration.test_store_archive import OLD
from tests.integration.test_store_rollups import running
from tests.packed import BlockingSession
from tests.packed import pack_all_blocking
from tests.packed import result
from tests.plans import EXPLAIN
from tests.plans import RowsRead
from tests.store_messages import message

AFTER = f"WITH {WANTED}, {BESIDE_OTHERS} {INTERVAL_AFTER}"
POLL = timedelta(minutes=5)
RESOURCES, POLLS = 5, 400


def polled(resource, interval, polls):
    metadata = {"_meter": {"interval": interval}}
    return [
        message("traffic", n, at=OLD + n * POLL, type="delta", resource_id=resource, metadata=metadata)
        for n in range(polls)
    ]


def rows_after(dsn, finish):
    """Return how many samples of the interval after ``finish`` there are, and how many archived ones are read for it."""
    parameters = {
        **{"meter": "traffic", "after": 0, "through": 2**31 - 1, "resources": None},
        **{"start": finish - timedelta(hours=1), "finish": finish, "as_of": "infinity"},
    }
    session = BlockingSession(dsn)
    try:
        rows = result(session.rows(AFTER, parameters))
        [[[plan]]] = result(session.rows(f"{EXPLAIN}{AFTER}", parameters))
    finally:
        session.close()
    read = RowsRead()
    read.add(plan["Plan"])
    return len(rows), read.intermediate["u"]


@pytest_twisted.ensureDeferred
async def test_samples_of_others_are_read_for_their_own_interval(postgresql, archive_postgresql):
    dsn = postgresql.dsn_with_schema()
    add_server(dsn, archive_postgresql.dsn())
    names = [f"vm-{number}" for number in range(RESOURCES)]
    async with running(dsn) as store:
        for name in names:
            await store.write(polled(name, POLL.total_seconds(), POLLS))
        await store.write(polled("forged", MAX_INTERVAL, 3))
        told = [message("traffic", 1, at=OLD, type="delta", resource_id=name) for name in (*names, "forged")]
        await store.write(told)
        await store.maintenance.finalize(OLD + timedelta(weeks=4))
    await deferToThread(pack_all_blocking, dsn)
    await deferToThread(archive_all, dsn)
    found, read = await deferToThread(rows_after, dsn, OLD + 1 * POLL)
    assert found == RESOURCES + 2
    assert read < 20 * RESOURCES
