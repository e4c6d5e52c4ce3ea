"""The API gives the same responses over PostgreSQL as over the in-memory store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater

from meter.store import PostgresStore
from tests.api_client import SAMPLES
from tests.api_client import ApiClient
from tests.api_client import message

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
    "/v2/meters?as_of=2026-01-01",
    "/v2/resources?as_of=2026-01-01",
    "/v2/meters/cpu/statistics?aggregate.func=increase&aggregate.func=rate&groupby=resource_id",
    "/v2/meters/cpu/statistics?aggregate.func=percentile&aggregate.param=95&period=60",
    "/v2/meters/disk.size/statistics?aggregate.func=integral",
    "/v2/meters/cpu/statistics?aggregate.func=integral",
    "/v2/samples/s0/proof",
    "/v2/resources?limit=1",
    "/v2/resources?marker=WyJhL2IgYyJd",
    "/v2/meters?marker=WyJjcHUiLCJhL2IgYyIsImN1bXVsYXRpdmUiLCJucyJd",
    "/v2/meters?marker=WyJjcHUiLCJhL2IgYyIsImN1bXVsYXRpdmUiLCJucyJd&q.field=metadata.size&q.value=None",
    "/v2/meters/cpu?q.field=metadata.size&q.value=None",
    "/v2/meters/cpu?q.field=metadata.on&q.value=None",
    "/v2/meters/cpu?q.field=metadata.flavor&q.value=None&q.field=metadata.flavor.name&q.value=m1",
    "/v2/meters/cpu/statistics?q.field=metadata.on&q.value=None&groupby[0]=resource_id",
    "/v2/resources?q.field=metadata.size&q.value=None",
    "/v2/meters/cpu/statistics?aggregate.func=avg&aggregate.func=count",
    "/v2/samples?q.field=timestamp&q.op=lt&q.value=2027",
    "/v2/meters?unique=1&marker=WyJjcHUiLCJjdW11bGF0aXZlIiwibnMiXQ",
    "/v1/users",
    "/v1/sources/test/projects",
    "/v1/sources/test/meters/cpu?metadata.size=0",
    "/v1/resources/vm-1/meters/cpu/duration",
    "/v1/projects/red/meters/cpu/volume/max",
]

QUERIES: list[dict[str, Any]] = [
    {},
    {"filter": '{"and": [{"=": {"meter": "cpu"}}, {"not": {"=~": {"resource": "^vm"}}}]}'},
    {
        "filter": '{"or": [{"in": {"metadata.size": [0, "x"]}}, {">": {"volume": 50}}]}',
        "orderby": '[{"volume": "asc"}]',
    },
    {"filter": '{"<": {"recorded_at": "2020-01-01"}}'},
    {"filter": '{"=~": {"meter": "("}}'},
    {"orderby": '[{"resource": "desc"}, {"timestamp": "asc"}]', "limit": 3},
]


async def request(api: ApiClient, path: str, query: Any = None) -> tuple[int, Any]:
    """Return status and body of the response, without ``recorded_at`` and the error texts of pattern libraries."""
    pending = api.pending(path) if query is None else api.pending(path, **posted(query))
    while not pending.called:
        await deferLater(reactor, 0.005)
        api.flush()
    response = await pending
    if query is not None and response.status == 400:
        return response.status, None
    return response.status, _without_recorded_at(response.json)


def posted(query: Any) -> dict[str, Any]:
    headers = {"Content-Type": "application/json"}
    return {"method": "POST", "body": msgspec.json.encode(query), "headers": headers}


def _without_recorded_at(body: Any) -> Any:
    if isinstance(body, list):
        return [_without_recorded_at(one) for one in body]
    return {name: value for name, value in body.items() if name != "recorded_at"}


@pytest_twisted.async_yield_fixture
async def stored(postgresql: Any) -> AsyncIterator[ApiClient]:
    store = PostgresStore(reactor, postgresql.dsn_with_schema(), clock=reactor, migrate=True, readers=1, writers=1)
    store.startService()
    while not store.readiness().ready:
        await deferLater(reactor, 0.05)
    await store.write(SAMPLES)
    api = ApiClient(store=store)
    api.store = store  # type: ignore[assignment]
    yield api
    await store.stopService()


@pytest_twisted.ensureDeferred
async def test_both_stores_give_the_same_responses(stored: ApiClient) -> None:
    in_memory = ApiClient()
    for path in PATHS:
        assert (path, await request(stored, path)) == (path, await request(in_memory, path))
    for query in QUERIES:
        path = "/v2/query/samples"
        assert (query, await request(stored, path, query)) == (query, await request(in_memory, path, query))


@pytest_twisted.ensureDeferred
async def test_export_of_many_pages_has_every_sample_once(stored: ApiClient) -> None:
    await stored.store.write([message(n / 600, message_id=f"n{n}") for n in range(2500)])
    response = stored.pending("/v2/meters/cpu", headers={"Accept": "application/x-ndjson"})
    while not response.called:
        await deferLater(reactor, 0.005)
        stored.flush()
    ids = [msgspec.json.decode(line)["message_id"] for line in (await response).body.splitlines()]
    assert len(ids) == len(set(ids)) == 2503
