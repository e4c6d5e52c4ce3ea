"""The API answers from PostgreSQL what it answers from memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater

from meter.store import PostgresStore
from tests.asking import SAMPLES
from tests.asking import Asking

pytestmark = pytest.mark.timeout(120)

SINCE = "q.field=timestamp&q.op=ge&q.value=2026-11-22T12:01:00"
PATHS = [
    "/v2/meters",
    "/v2/meters?unique=True",
    "/v2/meters/cpu",
    "/v2/meters/cpu?q.field=project_id&q.value=None",
    "/v2/meters/cpu?q.field=metadata.size&q.value=0",
    "/v2/meters/cpu?q.field=metadata.size&q.value=0&q.type=string",
    "/v2/meters/cpu?q.field=metadata.on&q.value=True",
    "/v2/meters/cpu?q.field=metadata.flavor.name&q.value=m1",
    "/v2/meters/cpu/statistics",
    "/v2/meters/cpu/statistics?period=60&groupby=resource_id&groupby=source",
    f"/v2/meters/cpu/statistics?period=90&{SINCE}",
    f"/v2/meters/cpu/statistics?{SINCE}&q.field=search_offset&q.op=eq&q.value=1",
    "/v2/meters/cpu/statistics?groupby=resource_metadata.flavor.name",
    "/v2/meters/cpu/statistics?aggregate.func=cardinality&aggregate.param=user_id&aggregate.func=stddev",
    "/v2/meters/cpu/statistics?period=9999999999",
    "/v2/samples?limit=2",
    f"/v2/samples?{SINCE}",
    "/v2/samples/s3",
    "/v2/samples/nope",
    "/v2/resources",
    f"/v2/resources?{SINCE}",
    "/v2/resources/a/b%20c",
    "/v2/resources/nope",
]


async def asked(asking: Asking, path: str) -> tuple[int, Any]:
    """Return status and body of the answer, but for when samples were recorded."""
    answer = asking.pending(path)
    while not answer.called:
        await deferLater(reactor, 0.005)
        asking.flush()
    response = await answer
    return response.status, _without_recorded_at(response.json)


def _without_recorded_at(body: Any) -> Any:
    if isinstance(body, list):
        return [_without_recorded_at(one) for one in body]
    return {name: value for name, value in body.items() if name != "recorded_at"}


@pytest_twisted.async_yield_fixture
async def stored(postgresql: Any) -> AsyncIterator[Asking]:
    store = PostgresStore(reactor, postgresql.dsn(), clock=reactor, migrate=True, readers=1, writers=1)
    store.startService()
    while not store.readiness().ready:
        await deferLater(reactor, 0.05)
    await store.write(SAMPLES)
    yield Asking(store=store)
    await store.stopService()


@pytest_twisted.ensureDeferred
async def test_both_stores_give_the_same_answers(stored: Asking) -> None:
    in_memory = Asking()
    for path in PATHS:
        assert (path, await asked(stored, path)) == (path, await asked(in_memory, path))
