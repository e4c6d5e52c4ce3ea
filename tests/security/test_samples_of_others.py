"""A sample of another project is shown in no way, even if it has the same id as one of the asker, and is newer."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from meter.api.auth.requester import Requester
from meter.api.auth.static_tokens import StaticTokens
from meter.api.auth.visibility import VisibleStore
from meter.api.streaming.live import live
from meter.daemon.shared_slices import SharedSlices
from meter.query import SampleFilter
from meter.store import PostgresStore
from meter.testing import MemoryStore
from tests.api_client import NOON
from tests.api_client import ApiClient
from tests.api_client import Response
from tests.api_client import message
from tests.unit.api.auth.test_visibility import token
from tests.waiting import until

SHARED = "0195d3f0-1111-7abc-8def-000000000001"
FOREIGN = "0195d3f0-1111-7abc-8def-000000000002"
MINE = Requester(is_admin=False, project_id="mine")
AUTH = StaticTokens([token("mine-token", MINE)])
OWN = message(message_id=SHARED, project_id="mine", resource_id="own", volume=1)
THEIRS = [
    message(
        message_id=SHARED, project_id="theirs", resource_id="secret", timestamp=NOON + timedelta(days=30), volume=7
    ),
    message(message_id=SHARED, project_id=None, resource_id="secret", timestamp=NOON - timedelta(days=30), volume=7),
    message(message_id=FOREIGN, project_id="theirs", resource_id="secret", volume=7),
]
"""Ids are unique within three weeks only, so the store holds an id with several times."""


@pytest.fixture(params=["memory", "postgresql"])
def store(request: Any) -> Any:
    if request.param == "memory":
        store: Any = MemoryStore(reactor)  # type: ignore[arg-type]
        close = lambda: None  # noqa: E731
    else:
        dsn = request.getfixturevalue("postgresql").dsn_with_schema()
        store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=1, writers=1)  # type: ignore[arg-type]
        store.startService()
        pytest_twisted.blockon(Deferred.fromCoroutine(until(lambda: store.readiness().ready)))
        close = lambda: pytest_twisted.blockon(store.stopService())  # noqa: E731
    for each in (OWN, *THEIRS):
        result = pytest_twisted.blockon(Deferred.fromCoroutine(store.write([each])))
        assert result.stored == 1
    yield store
    close()


async def asked(store: Any, path: str, body: Any = None) -> Response:
    api = ApiClient(store=store, auth=AUTH)
    headers = {"X-Auth-Token": "mine-token", "Content-Type": "application/json"}
    options: Any = {} if body is None else {"method": "POST", "body": json.dumps(body).encode()}
    pending = api.pending(path, headers=headers, **options)
    await until(lambda: (api.flush(), pending.called)[1])
    return await pending


def matching(expression: Any) -> Any:
    return {"filter": json.dumps(expression)}


@pytest_twisted.ensureDeferred
async def test_shared_id_shows_the_sample_of_the_asker(store: Any) -> None:
    assert (await asked(store, f"/v2/samples/{SHARED}")).json["resource_id"] == "own"
    proof = (await asked(store, f"/v2/samples/{SHARED}/proof")).json
    assert (proof["message"]["project_id"], proof["message"]["counter_volume"]) == ("mine", 1)


@pytest.mark.parametrize("suffix", ["", "/proof"])
@pytest_twisted.ensureDeferred
async def test_sample_of_another_is_not_found(store: Any, suffix: str) -> None:
    for sample_id in (FOREIGN, FOREIGN.upper()):
        assert (await asked(store, f"/v2/samples/{sample_id}{suffix}")).status == 404


@pytest.mark.parametrize(
    "expression",
    [
        {"=": {"message_id": SHARED}},
        {"in": {"message_id": [SHARED, FOREIGN]}},
        {"=~": {"message_id": "^0195d3f0"}},
        {"or": [{"=": {"message_id": FOREIGN}}, {">": {"volume": 0}}]},
        {"not": {"=": {"resource_id": "own, no"}}},
        {"not": {"and": [{"=": {"meter": "none"}}, {"=": {"message_id": SHARED}}]}},
        {">=": {"recorded_at": "2020-01-01"}},
        {"!=": {"user_id": "none"}},
    ],
    ids=str,
)
@pytest_twisted.ensureDeferred
async def test_no_expression_reaches_a_sample_of_another(store: Any, expression: Any) -> None:
    found = (await asked(store, "/v2/query/samples", matching(expression))).json
    assert [(each["id"], each["resource_id"]) for each in found] == [(SHARED, "own")]


@pytest.mark.parametrize("field", ["project", "project_id"])
@pytest_twisted.ensureDeferred
async def test_naming_another_project_is_refused_wherever_it_stands(store: Any, field: str) -> None:
    for expression in (
        {"=": {field: "theirs"}},
        {"not": {"=": {field: "theirs"}}},
        {"or": [{"=": {field: "mine"}}, {"=~": {field: "^t"}}]},
        {"in": {field: ["mine", "theirs"]}},
    ):
        assert (await asked(store, "/v2/query/samples", matching(expression))).status == 401


@pytest_twisted.ensureDeferred
async def test_live_stream_has_the_samples_of_the_asker_only(store: Any) -> None:
    events = live(
        VisibleStore(store, MINE),
        SampleFilter(),
        lambda row: {"resource": row.resource_id},
        reactor,
        SharedSlices(reactor).of("mine"),
    )  # type: ignore[arg-type, return-value]
    received = b""
    async for event in events:
        received += event
        if b"own" in received:
            break
    await events.aclose()  # type: ignore[attr-defined]
    assert received.count(b"event: sample") == 1
    assert b"secret" not in received
