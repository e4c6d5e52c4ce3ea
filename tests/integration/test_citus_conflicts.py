"""Different facts under one id in a spread store: refused one after the other, and found by verification if two writers stored them at once."""

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
from meter.store import Verification
from tests.integration.test_store_rollups import running
from tests.spread import spread
from tests.store_messages import KEYS
from tests.store_messages import NOON
from tests.store_messages import message

OTHERS = "SELECT x.id FROM series x JOIN resource r ON r.id = x.resource_id WHERE r.name IN ('first', 'same time', 'other time')"
WRITERS = 2
IDS = 30


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
async def test_facts_that_are_written_at_once_are_refused_or_found(dsn):
    ids = [str(uuid.uuid4()) for _ in range(IDS)]
    async with running(dsn, writers=WRITERS) as store:
        results = await gatherResults(
            [
                Deferred.fromCoroutine(
                    store.write(
                        [
                            message(resource_id=f"{writer}-{n}", at=60 * writer, message_id=id)
                            for n, id in enumerate(ids)
                        ]
                    )
                )
                for writer in range(WRITERS)
            ]
        )
    stored = sum(each.stored for each in results)
    refused = sum(len(each.refused) for each in results)
    assert stored + refused == WRITERS * IDS
    found = await reasons(dsn)
    assert len(found) == stored - IDS
    assert set(found.values()) <= {EARLIER_ID.format(NOON.isoformat())}
