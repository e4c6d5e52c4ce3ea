"""What a client is told when something is unavailable names no host, port or program; the log does, under the request id."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

import meter
from meter.api import KeystoneTokens
from meter.api import SampleIngest
from meter.interfaces import Unavailable
from meter.query import Refusal
from meter.query import SampleFilter
from meter.query import WriteResult
from meter.store.postgres.connection import Rejected
from meter.store.query.runner import QueryRunner
from meter.testing import MemoryStore
from tests.api_client import KEYS
from tests.api_client import ApiClient
from tests.api_client import Response
from tests.unit.api.test_ingest import APPLE
from tests.unit.api.test_ingest import RecordingBus

SECRET_ADDRESS = "https://keystone.internal:5000/v3"


@pytest.fixture
def logged() -> Iterator[list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


def everything(response: Response) -> str:
    return f"{response.headers} {response.body!r}"


def api_without_keystone() -> tuple[ApiClient, Response]:
    async def validate(_: str) -> None:
        raise Unavailable(f"GET {SECRET_ADDRESS}/auth/tokens: connection refused")

    api = ApiClient()
    api = ApiClient(auth=KeystoneTokens(validate, api.clock, uri=SECRET_ADDRESS))
    return api, api("/v2/samples?secret=1", headers={"X-Auth-Token": "any"})


def api_without_store() -> tuple[ApiClient, Response]:
    api = ApiClient()
    api.store.unavailable = f"postgresql://meter@{SECRET_ADDRESS}: connection refused"
    return api, api("/v2/samples")


def api_without_bus() -> tuple[ApiClient, Response]:
    bus = RecordingBus()
    bus.failure = Unavailable(f"amqp://{SECRET_ADDRESS}: connection refused")
    api = ApiClient()
    api = ApiClient(ingest=SampleIngest(KEYS, "test", bus, api.store))
    return api, api.post("/v2/meters/apples", [APPLE])


@pytest.mark.parametrize("ask", [api_without_keystone, api_without_store, api_without_bus])
def test_unavailable_dependency_is_named_in_the_log_only(ask: Any, logged: list[dict[str, Any]]) -> None:
    _, response = ask()
    assert response.status == 503
    assert "internal" not in everything(response)
    assert "refused" not in everything(response)
    assert int(response.headers["retry-after"]) > 0
    request_id = response.headers["x-openstack-request-id"]
    [event] = [event for event in logged if event.get("request_id") == request_id and "error" in event]
    assert SECRET_ADDRESS in event["error"]


OF_ANOTHER_TENANT = 'invalid input syntax for type double precision: "salary of ann"'
OF_THE_SCHEMA = 'index row size 2720 exceeds btree version 4 maximum 2704 for index "resource_external_id_key"'


class RejectingPool:
    """A pool of connections to a PostgreSQL that quotes what it has read in its errors."""

    generation = 1
    spread = False

    async def rows(self, *_: Any) -> Any:
        raise Rejected(OF_ANOTHER_TENANT)


class RejectingStore(MemoryStore):
    """A store whose PostgreSQL rejects every query and every sample."""

    async def samples(self, filter: SampleFilter, limit: int, order: Any = (), after: Any = None) -> Any:
        pool: Any = RejectingPool()
        return await QueryRunner(pool, Clock(), 5.0).samples(filter, limit, order, after)

    async def write(self, messages: Any, refused_entries: Any = ()) -> WriteResult:
        return WriteResult(0, 0, (Refusal(0, "PostgreSQL rejects it", cause=OF_THE_SCHEMA),))


@pytest.mark.parametrize(
    ("path", "body", "secret"),
    [
        ("/v2/samples?q.field=metadata.size&q.value=1", None, OF_ANOTHER_TENANT),
        ("/v2/query/samples", {"filter": '{"=": {"volume": 1}}'}, OF_ANOTHER_TENANT),
        ("/v2/meters/apples?direct=True", [APPLE], OF_THE_SCHEMA),
    ],
)
def test_what_postgresql_says_about_a_rejected_query_or_sample_is_in_the_log_only(
    path: str, body: Any, secret: str, logged: list[dict[str, Any]]
) -> None:
    store = RejectingStore()
    api = ApiClient(store=store, ingest=SampleIngest(KEYS, "test", RecordingBus(), store))
    response = api(path) if body is None else api.post(path, body)
    assert response.status == 400
    assert not [word for word in ("salary", "double precision", "btree", "external_id") if word in response.faultstring]
    request_id = response.headers["x-openstack-request-id"]
    assert [event["error"] for event in logged if event.get("request_id") == request_id and "error" in event] == [
        secret
    ]


def test_missing_token_is_told_no_address_of_keystone() -> None:
    async def validate(_: str) -> None:
        return None

    api = ApiClient(auth=KeystoneTokens(validate, ApiClient().clock, uri=SECRET_ADDRESS))
    for headers in ({}, {"X-Auth-Token": "wrong"}):
        response = api("/v2/samples", headers=headers)
        assert (response.status, response.headers["www-authenticate"]) == (401, "Keystone")
        assert "internal" not in everything(response)


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/v2/capabilities", "/nothing"])
def test_no_page_tells_the_version_of_the_server(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "__version__", "97.31.8")
    response = ApiClient()(path)
    assert "97.31.8" not in everything(response)
    assert "Twisted" not in everything(response)


def test_logged_request_line_is_bounded(logged: list[dict[str, Any]]) -> None:
    api = ApiClient()
    api.store.unavailable = "away"
    response = api(f"/v2/samples?q.field=resource_id&q.value={'a' * 10_000}")
    assert response.status == 503
    [event] = [event for event in logged if "error" in event and "request_id" in event]
    assert len(event["uri"]) <= 200
