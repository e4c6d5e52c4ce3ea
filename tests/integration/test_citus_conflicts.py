"""Different facts under one id in a spread store: refused, also if they are written at once; verification finds what was stored all the same."""

from __future__ import annotations

import uuid

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults

from meter.commands.range_verifier import EARLIER_ID
from meter.commands.range_verifier import REPEATED_ID
from meter.commands.range_verifier import RangeVerifier
from meter.commands.range_verifier import VerifiedRange
from meter.commands.row_verifier import RowVerifier
from meter.sample_identity import WEEK
from meter.store import Verification
from tests.integration.test_store_rollups import running
from tests.spread import spread
from tests.store_messages import KEYS
from tests.store_messages import NOON
from tests.store_messages import message

OTHERS = "SELECT x.id FROM series x JOIN resource r ON r.id = x.resource_id WHERE r.name IN ('first', 'same time', 'other time')"
IDS = 30
ROUNDS = 3


@pytest.fixture
def dsn(citus):
    return citus.dsn_with_schema(spread)


async def reasons(dsn):
    """Return why rows of the store fail, by their resources."""
    verification = Verification(reactor, dsn, clock=reactor)
    await verification.open()
    try:
        verifier = RangeVerifier(
            verification, RowVerifier(verification, KEYS, reactor, accept_unsigned=False), VerifiedRange(), 7
        )
        found = [each async for page in verifier.findings() for each in page]
    finally:
        verification.close()
    return {row.resource_id: verdict.reason for row, verdict in found if verdict.state == "failed"}


@pytest_twisted.ensureDeferred
async def test_rows_with_an_id_that_is_stored_already_fail_whatever_their_time_and_series(citus, dsn):
    id = str(uuid.uuid4())
    async with running(dsn, writers=1) as store:
        await store.write([message(resource_id=f"r{n}", at=n) for n in range(20)])
        for resource, at in (("first", 0), ("same time", 0), ("other time", 3600)):
            assert (await store.write([message(resource_id=resource, at=at, message_id=id)])).stored == 1
            # As for a writer that does not see what another one stores at that moment.
            citus.execute(f"UPDATE sample SET message_id = '{uuid.uuid4()}' WHERE message_id = '{id}'", dsn)
    for [series] in citus.execute(OTHERS, dsn):
        citus.execute(f"UPDATE sample SET message_id = '{id}' WHERE series_id = {series}", dsn)
    assert sorted((await reasons(dsn)).values()) == sorted([REPEATED_ID, EARLIER_ID.format(NOON.isoformat())])


@pytest_twisted.ensureDeferred
async def test_of_facts_that_are_written_at_once_under_one_id_one_is_stored_and_the_other_refused(dsn):
    """Their times, series, workers and weeks differ, and each writer has the ids in another order."""
    starts = (0, 60, WEEK.total_seconds())
    async with running(dsn, writers=len(starts)) as store:
        for round in range(ROUNDS):
            ids = [str(uuid.uuid4()) for _ in range(IDS)]
            batches = [
                [
                    message(resource_id=f"{round}-{writer}-{n}", at=start + (n if writer else -n), message_id=id)
                    for n, id in enumerate(ids)
                ]
                for writer, start in enumerate(starts)
            ]
            results = await gatherResults([Deferred.fromCoroutine(store.write(batch)) for batch in batches])
            assert sum(each.stored for each in results) == IDS
            refused = [each for result in results for each in result.refused]
            assert [each.kind for each in refused] == ["conflict"] * (len(starts) - 1) * IDS
    assert await reasons(dsn) == {}


@pytest_twisted.ensureDeferred
async def test_sample_that_is_written_at_once_by_several_is_stored_once(dsn):
    batch = [message(resource_id=f"r{n}", at=n) for n in range(IDS)]
    async with running(dsn, writers=3) as store:
        writing = [Deferred.fromCoroutine(store.write(each)) for each in (batch, batch[::-1], batch)]
        results = await gatherResults(writing)
    assert sum(each.stored for each in results) == IDS
    assert [each.refused for each in results] == [(), (), ()]
