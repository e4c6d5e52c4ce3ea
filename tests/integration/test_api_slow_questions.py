"""A question that takes the database for ever is stopped, told so, and keeps nobody else waiting."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from meter.store import PostgresStore
from tests.asking import SAMPLES
from tests.asking import Answer
from tests.asking import Asking
from tests.asking import message

pytestmark = pytest.mark.timeout(120)

LIMIT_SECONDS = 1.0
BACKTRACKING = r"^((a+)\2)+$"
"""Has PostgreSQL try every way to divide a text of an odd number of letters into even parts: of a hundred, for years."""


@pytest_twisted.async_yield_fixture
async def stored(postgresql: Any) -> AsyncIterator[Asking]:
    store = PostgresStore(
        reactor,
        postgresql.dsn(),
        clock=reactor,
        migrate=True,
        readers=2,
        writers=1,
        statement_timeout_seconds=LIMIT_SECONDS,
    )
    store.startService()
    while not store.readiness().ready:
        await deferLater(reactor, 0.05)
    await store.write(
        [*SAMPLES, message(4, message_id="s4", resource_id="a" * 101, resource_metadata={"name": "a" * 101})]
    )
    yield Asking(store=store)
    await store.stopService()


def matching(asking: Asking, field: str) -> Deferred[Answer]:
    """Ask for what matches the pattern in ``field``."""
    body = msgspec.json.encode({"filter": msgspec.json.encode({"=~": {field: BACKTRACKING}}).decode()})
    return asking.pending("/v2/query/samples", method="POST", body=body, headers={"Content-Type": "application/json"})


async def answered(asking: Asking, answer: Deferred[Answer]) -> Answer:
    while not answer.called:
        await deferLater(reactor, 0.005)
        asking.flush()
    return await answer


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("field", ["resource_id", "metadata.name"])
async def test_a_pattern_that_backtracks_is_stopped_and_others_are_answered_meanwhile(
    stored: Asking, field: str
) -> None:
    began = time.monotonic()
    slow = matching(stored, field)
    for _ in range(5):
        other = await answered(stored, stored.pending("/v2/samples"))
        assert (other.status, len(other.json)) == (200, 5)
    assert not slow.called
    assert time.monotonic() - began < LIMIT_SECONDS

    refused = await answered(stored, slow)
    assert refused.status == 400
    assert refused.fault.startswith("the question took longer than 1 s")
    assert LIMIT_SECONDS <= time.monotonic() - began < 2 * LIMIT_SECONDS

    # Both connections are as good as before.
    again = [stored.pending("/v2/samples") for _ in range(2)]
    assert [(await answered(stored, each)).status for each in again] == [200, 200]
