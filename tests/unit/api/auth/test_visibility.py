"""Who may see what: tenants their own project, in every operation; administrators everything."""

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

from meter.api import Everyone
from meter.api import IAuth
from meter.api import Requester
from meter.api import StaticToken
from meter.api import StaticTokens
from meter.api.auth.visibility import VisibleStore
from meter.api.operations import OPERATIONS
from meter.api.operations import Operation
from tests.asking import Answer
from tests.asking import Asking
from tests.asking import message

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
"""What segments are made of; the samples of :mod:`tests.asking` have no instance."""

PUBLIC = ("versions", "capabilities")
"""What says nothing of anybody's samples."""

READING = [
    operation
    for operation in OPERATIONS
    if not operation.open and not operation.time_weighted and operation.status == 200 and operation.name not in PUBLIC
]
RED = {"resources": "a/b%20c", "users": "bob", "projects": "red", "sources": "test", "samples": "s2"}
"""What belongs to project *red*, by what stands before it in a path."""


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
def ask() -> Asking:
    return Asking(auth=TOKENS)


def asked_by(ask: Asking, who: str, path: str, **request: Any) -> Answer:
    return ask(path, **request, headers={"X-Auth-Token": f"{who}-token", "Content-Type": "application/json"})


def walked(ask: Asking, who: str, operation: Operation) -> Answer:
    """Ask ``operation`` about what belongs to project *red*."""
    owners = operation.path.split("/")[2] if operation.path.count("/") > 1 else ""
    path = operation.path.format(meter="cpu", id=RED.get(owners))
    body = b"{}" if operation.body is not None else None
    return asked_by(ask, who, path, method=operation.method, body=body)


def test_both_modes_find_out_who_asks() -> None:
    verifyObject(IAuth, Everyone())
    verifyObject(IAuth, TOKENS)


@pytest.mark.parametrize("headers", [{}, {"X-Auth-Token": ""}, {"X-Auth-Token": "wrong"}, {"X-Auth-Token": "café"}])
def test_who_has_no_known_token_is_told_to_get_one(ask: Asking, headers: dict[str, str]) -> None:
    answer = ask("/v2/samples", headers=headers)
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == 'Token realm="meter"'
    assert answer.json == {
        "error": {
            "code": 401,
            "title": "Unauthorized",
            "message": "The request you have made requires authentication.",
        }
    }


@pytest.mark.parametrize("operation", OPERATIONS, ids=names(OPERATIONS))
def test_no_operation_answers_a_stranger_but_what_describes_it(ask: Asking, operation: Operation) -> None:
    headers = {"Content-Type": "application/json"}
    answer = ask(re.sub("{.*?}", "s2", operation.path), method=operation.method, headers=headers)
    assert answer.status == (200 if operation.open else 401)
    assert b"s2" not in answer.body


@pytest.mark.parametrize("operation", READING, ids=names(READING))
def test_no_operation_shows_anything_of_other_projects(ask: Asking, operation: Operation) -> None:
    if operation.name == "segments":
        ask = Asking(auth=TOKENS)
        Deferred.fromCoroutine(ask.store.write([INSTANCE]))
    shown = walked(ask, "admin", operation)
    assert shown.status == 200
    assert any(text in shown.body for text in (b"a/b c", b"bob", b"red", b"60.0", b"12:02:00", b"test"))
    answer = walked(ask, "green", operation)
    assert answer.status in (200, 404)
    assert not any(text in answer.body for text in (b"bob", b"60.0", b"12:02:00", b"signature", b"cumulative"))
    assert answer.status == 404 or not any(isinstance(one, dict) for one in empty_or_listed(answer.json))


def empty_or_listed(answer: Any) -> Sequence[Any]:
    """What an answer holds: of v1's, what is under its one key."""
    if isinstance(answer, list):
        return answer
    return [each for value in answer.values() for each in (value if isinstance(value, list) else [])]


@pytest.mark.parametrize("media_type", ["text/csv", "application/x-ndjson"])
def test_no_export_shows_anything_of_other_projects(ask: Asking, media_type: str) -> None:
    headers = {"X-Auth-Token": "green-token", "Accept": media_type}
    assert len(ask("/v2/samples", headers=headers).body.splitlines()) == (media_type == "text/csv")
    assert b"s1" in ask("/v2/samples", headers={**headers, "X-Auth-Token": "blue-token"}).body
    assert b"s2" not in ask("/v2/samples", headers={**headers, "X-Auth-Token": "blue-token"}).body


@pytest.mark.parametrize("operation", READING, ids=names(READING))
def test_a_token_without_a_project_sees_not_even_what_has_none(ask: Asking, operation: Operation) -> None:
    assert walked(ask, "unscoped", operation).status == 403


def test_nobody_follows_without_a_project(ask: Asking) -> None:
    assert asked_by(ask, "unscoped", "/v2/live").status == 403


@pytest.mark.parametrize(
    "expression",
    [
        {"=": {"project_id": "red"}},
        {"!=": {"project": "red"}},
        {"in": {"project_id": ["blue", "red"]}},
        {"not": {"or": [{"=": {"meter": "cpu"}}, {"and": [{"=~": {"project_id": "r.*"}}, {"=": {"unit": "ns"}}]}]}},
    ],
)
def test_no_expression_reaches_another_project(ask: Asking, expression: Any) -> None:
    body = msgspec.json.encode({"filter": msgspec.json.encode(expression).decode()})
    answer = asked_by(ask, "blue", "/v2/query/samples", method="POST", body=body)
    assert answer.status == 401
    assert answer.fault.startswith("Not Authorized to access project r")
    assert asked_by(ask, "admin", "/v2/query/samples", method="POST", body=body).status == 200


def test_an_expression_is_asked_of_the_own_project_only(ask: Asking) -> None:
    body = msgspec.json.encode({"filter": '{"or": [{"=": {"meter": "cpu"}}, {"=": {"user_id": "bob"}}]}'})
    found = asked_by(ask, "blue", "/v2/query/samples", method="POST", body=body).json
    assert {sample["id"] for sample in found} == {"s0", "s1"}


def test_a_tenant_sees_their_own(ask: Asking) -> None:
    assert {sample["id"] for sample in asked_by(ask, "blue", "/v2/samples").json} == {"s0", "s1"}
    assert asked_by(ask, "blue", "/v2/samples/s0").status == 200
    (row,) = asked_by(ask, "blue", "/v2/meters/cpu/statistics").json
    assert row["sum"] == 30.0
    (resource,) = asked_by(ask, "blue", "/v2/resources").json
    assert [link["rel"] for link in resource["links"]] == ["self", "cpu"]


def test_an_administrator_sees_all(ask: Asking) -> None:
    assert len(asked_by(ask, "admin", "/v2/samples").json) == 4


@pytest.mark.parametrize("field", ["project", "project_id"])
@pytest.mark.parametrize("value", ["red", "None", ""])
def test_a_tenant_who_names_another_project_is_refused(ask: Asking, field: str, value: str) -> None:
    answer = asked_by(ask, "blue", f"/v2/samples?q.field={field}&q.value={value}")
    assert answer.status == 401
    assert answer.fault == f"Not Authorized to access project {None if value == 'None' else value}"


def test_a_tenant_may_name_their_own_project(ask: Asking) -> None:
    assert len(asked_by(ask, "blue", "/v2/samples?q.field=project&q.value=blue").json) == 2


@pytest_twisted.ensureDeferred
async def test_a_signed_message_is_shown_to_its_project_only() -> None:
    store = Asking().store
    assert await VisibleStore(store, Requester(is_admin=False, project_id="blue")).message("s0") is not None
    assert await VisibleStore(store, Requester(is_admin=False, project_id="green")).message("s0") is None
