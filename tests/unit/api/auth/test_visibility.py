"""Visibility: in every operation, tenants see their own project, administrators everything."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from meter.api import IAuth
from meter.api import NoAuth
from meter.api import Requester
from meter.api import StaticToken
from meter.api import StaticTokens
from meter.api.auth.visibility import VisibleStore
from meter.api.operation import Operation
from meter.api.operations import OPERATIONS
from meter.identity_report import IdentityName
from meter.identity_report import IdentityReport
from tests.api_client import ApiClient
from tests.api_client import Response
from tests.api_client import message

INSTANCE = message(
    2,
    name="instance",
    type="gauge",
    unit="instance",
    resource_id="a/b c",
    project_id="red",
    user_id="bob",
    resource_metadata={"event_type": "compute.instance.create.end", "state": "active"},
)
"""A sample with segments; :mod:`tests.api_client` has none."""

NAMES = IdentityReport(
    "keystone",
    "m",
    "1970-01-01T00:00:00",
    (
        IdentityName("project", "red", "bob's", "1970-01-01T00:00:00", domain="one"),
        IdentityName("domain", "one", "bob's, too", "1970-01-01T00:00:00"),
        IdentityName("user", "bob", "bob", "1970-01-01T00:00:00", domain="one"),
    ),
)

WITHOUT_SAMPLES = (
    "versions",
    "capabilities",
    "prices",
    "statements",
    "statement",
    "statement_annex",
    "statement_keys",
    "summary",
    "dataframes",
    "budgets",
    "unpriced_usage",
    "prometheus_buildinfo",
    "prometheus_runtimeinfo",
    "prometheus_targets",
    "prometheus_rules",
    "prometheus_alerts",
    "prometheus_exemplars",
    "prometheus_exemplars_by_post",
)
"""Operations that return nothing about samples; those of rating have tests of their own in tests/unit/api/handlers."""

ADMIN_OPERATIONS = ("audit_log", "completeness_agents", "completeness_audits", "completeness_unmetered")
"""Operations that answer nobody but administrators."""

READ_OPERATIONS = [
    operation
    for operation in OPERATIONS
    if operation.name not in ADMIN_OPERATIONS
    and not operation.public
    and not operation.streaming
    and operation.status == 200
    and operation.name not in WITHOUT_SAMPLES
]
RED = {"resources": "a/b%20c", "users": "bob", "projects": "red", "sources": "test", "samples": "s2"}
"""An id in project *red* for each collection of a path."""


CPU = "ceilometer_cpu%7Bresource!=%22%22%7D"
ARGUMENTS = {
    "query": f"?query={CPU}",
    "query_range": f"?query={CPU}&start=2026-11-22T12:00:00Z&end=2026-11-22T12:10:00Z&step=1m",
    "series": f"?match[]={CPU}",
    "federate": f"?match[]={CPU}",
}
"""The query string of operations that need one, by the last part of their path."""


def names(operations: Sequence[Operation]) -> list[str]:
    return [operation.name for operation in operations]


def token(text: str, requester: Requester) -> StaticToken:
    return StaticToken(hashlib.sha256(text.encode()).hexdigest(), requester)


TOKENS = StaticTokens(
    [
        token("blue-token", Requester(is_admin=False, project_id="blue", user_id="ann")),
        token("green-token", Requester(is_admin=False, project_id="green")),
        token("unscoped-token", Requester(is_admin=False)),
        token("admin-token", Requester(is_admin=True)),
    ]
)


@pytest.fixture(scope="module")
def api() -> ApiClient:
    return ApiClient(auth=TOKENS)


def request_as(api: ApiClient, who: str, path: str, **request: Any) -> Response:
    return api(path, **request, headers={"X-Auth-Token": f"{who}-token", "Content-Type": "application/json"})


def request_red(api: ApiClient, who: str, operation: Operation) -> Response:
    """Send a request of ``operation`` for data of project *red*."""
    owners = operation.path.split("/")[2] if operation.path.count("/") > 1 else ""
    path = operation.path.format(meter="cpu", id=RED.get(owners), name="project")
    path += ARGUMENTS.get(path.rpartition("/")[2], "")
    body = b"{}" if operation.body is not None else None
    return request_as(api, who, path, method=operation.method, body=body)


def test_no_auth_and_static_tokens_provide_auth() -> None:
    verifyObject(IAuth, NoAuth())
    verifyObject(IAuth, TOKENS)


@pytest.mark.parametrize("headers", [{}, {"X-Auth-Token": ""}, {"X-Auth-Token": "wrong"}, {"X-Auth-Token": "café"}])
def test_missing_or_unknown_token_is_401(api: ApiClient, headers: dict[str, str]) -> None:
    response = api("/v2/samples", headers=headers)
    assert response.status == 401
    assert response.headers["www-authenticate"] == 'Token realm="meter"'
    assert response.json == {
        "error": {
            "code": 401,
            "title": "Unauthorized",
            "message": "The request you have made requires authentication.",
        }
    }


@pytest.mark.parametrize("operation", OPERATIONS, ids=names(OPERATIONS))
def test_only_public_operations_need_no_token(api: ApiClient, operation: Operation) -> None:
    headers = {"Content-Type": "application/json"}
    response = api(re.sub("{.*?}", "s2", operation.path), method=operation.method, headers=headers)
    assert response.status == (200 if operation.public else 401)
    assert b"s2" not in response.body


@pytest.mark.parametrize("operation", READ_OPERATIONS, ids=names(READ_OPERATIONS))
def test_operation_shows_nothing_of_other_projects(api: ApiClient, operation: Operation) -> None:
    if operation.name == "segments":
        api = ApiClient(auth=TOKENS)
        Deferred.fromCoroutine(api.store.write([INSTANCE]))
    if operation.name == "identities":
        api = ApiClient(auth=TOKENS)
        Deferred.fromCoroutine(api.store.record_identities(NAMES))
    visible = request_red(api, "admin", operation)
    assert visible.status == 200
    if operation.name.startswith("completeness"):
        return  # tests/unit/api/handlers/test_completeness.py: they answer with numbers
    assert any(
        text in visible.body
        for text in (b"a/b c", b"bob", b"red", b"60.0", b"12:02:00", b"test", b'"resource"', b"_cpu")
    )
    response = request_red(api, "green", operation)
    assert response.status in (200, 404)
    assert not any(text in response.body for text in (b"bob", b"60.0", b"12:02:00", b"signature", b"cumulative"))
    assert (
        response.status == 404 or not response.body or not any(isinstance(one, dict) for one in entries(response.json))
    )


def entries(response: Any) -> Sequence[Any]:
    """Return the entries of a response, which v1 has under its only key."""
    if isinstance(response, list):
        return response
    return [each for value in response.values() for each in (value if isinstance(value, list) else [])]


@pytest.mark.parametrize("name", ADMIN_OPERATIONS)
def test_operation_for_administrators_is_403_for_anyone_else(api: ApiClient, name: str) -> None:
    [operation] = [each for each in OPERATIONS if each.name == name]
    assert request_red(api, "admin", operation).status == 200
    for token in ("blue", "green", "unscoped"):
        assert request_red(api, token, operation).status == 403


@pytest.mark.parametrize("media_type", ["text/csv", "application/x-ndjson"])
def test_export_shows_nothing_of_other_projects(api: ApiClient, media_type: str) -> None:
    headers = {"X-Auth-Token": "green-token", "Accept": media_type}
    assert len(api("/v2/samples", headers=headers).body.splitlines()) == (media_type == "text/csv")
    assert b"s1" in api("/v2/samples", headers={**headers, "X-Auth-Token": "blue-token"}).body
    assert b"s2" not in api("/v2/samples", headers={**headers, "X-Auth-Token": "blue-token"}).body


@pytest.mark.parametrize("operation", READ_OPERATIONS, ids=names(READ_OPERATIONS))
def test_token_without_a_project_is_403(api: ApiClient, operation: Operation) -> None:
    assert request_red(api, "unscoped", operation).status == 403


def test_live_stream_with_a_token_without_a_project_is_403(api: ApiClient) -> None:
    assert request_as(api, "unscoped", "/v2/live").status == 403


@pytest.mark.parametrize(
    "expression",
    [
        {"=": {"project_id": "red"}},
        {"!=": {"project": "red"}},
        {"in": {"project_id": ["blue", "red"]}},
        {"not": {"or": [{"=": {"meter": "cpu"}}, {"and": [{"=~": {"project_id": "r.*"}}, {"=": {"unit": "ns"}}]}]}},
    ],
)
def test_expression_that_names_another_project_is_401(api: ApiClient, expression: Any) -> None:
    body = msgspec.json.encode({"filter": msgspec.json.encode(expression).decode()})
    response = request_as(api, "blue", "/v2/query/samples", method="POST", body=body)
    assert response.status == 401
    assert response.faultstring.startswith("Not Authorized to access project r")
    assert request_as(api, "admin", "/v2/query/samples", method="POST", body=body).status == 200


def test_expression_is_restricted_to_the_own_project(api: ApiClient) -> None:
    body = msgspec.json.encode({"filter": '{"or": [{"=": {"meter": "cpu"}}, {"=": {"user_id": "bob"}}]}'})
    found = request_as(api, "blue", "/v2/query/samples", method="POST", body=body).json
    assert {sample["id"] for sample in found} == {"s0", "s1"}


def test_tenant_sees_their_own_project(api: ApiClient) -> None:
    assert {sample["id"] for sample in request_as(api, "blue", "/v2/samples").json} == {"s0", "s1"}
    assert request_as(api, "blue", "/v2/samples/s0").status == 200
    (row,) = request_as(api, "blue", "/v2/meters/cpu/statistics").json
    assert row["sum"] == 30.0
    (resource,) = request_as(api, "blue", "/v2/resources").json
    assert [link["rel"] for link in resource["links"]] == ["self", "cpu"]


def test_administrator_sees_all_projects(api: ApiClient) -> None:
    assert len(request_as(api, "admin", "/v2/samples").json) == 4


@pytest.mark.parametrize("field", ["project", "project_id"])
@pytest.mark.parametrize("value", ["red", "None", ""])
def test_query_that_names_another_project_is_401(api: ApiClient, field: str, value: str) -> None:
    response = request_as(api, "blue", f"/v2/samples?q.field={field}&q.value={value}")
    assert response.status == 401
    assert response.faultstring == f"Not Authorized to access project {None if value == 'None' else value}"


def test_query_can_name_the_own_project(api: ApiClient) -> None:
    assert len(request_as(api, "blue", "/v2/samples?q.field=project&q.value=blue").json) == 2


@pytest_twisted.ensureDeferred
async def test_signed_message_is_visible_to_its_project_only() -> None:
    store = ApiClient().store
    assert await VisibleStore(store, Requester(is_admin=False, project_id="blue")).proof("s0") is not None
    assert await VisibleStore(store, Requester(is_admin=False, project_id="green")).proof("s0") is None
