"""Who may see what: tenants their own project, in every operation; administrators everything."""

from __future__ import annotations

import hashlib
import re

import pytest
import pytest_twisted
from zope.interface.verify import verifyObject

from meter.api import Everyone
from meter.api import IAuth
from meter.api import Requester
from meter.api import StaticToken
from meter.api import StaticTokens
from meter.api.declarations import OPERATIONS
from meter.api.visibility import VisibleStore
from tests.asking import Answer
from tests.asking import Asking

TENANT_PATHS = [operation.path for operation in OPERATIONS if operation.path not in ("/", "/v2/capabilities")]


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


def asked_by(ask: Asking, who: str, path: str) -> Answer:
    return ask(path, headers={"X-Auth-Token": f"{who}-token"})


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


@pytest.mark.parametrize("path", [operation.path for operation in OPERATIONS])
def test_no_operation_answers_a_stranger(ask: Asking, path: str) -> None:
    assert ask(re.sub("{.*?}", "s2", path)).status == 401


@pytest.mark.parametrize("path", TENANT_PATHS)
def test_no_operation_shows_anything_of_other_projects(ask: Asking, path: str) -> None:
    filled = path.format(meter="cpu", id="s2" if "samples" in path else "a/b c".replace(" ", "%20"))
    assert b"a/b c" in asked_by(ask, "admin", filled).body or "statistics" in path
    answer = asked_by(ask, "green", filled)
    assert answer.status == (404 if "{id}" in path else 200)
    assert answer.status == 404 or answer.json == []


@pytest.mark.parametrize("path", TENANT_PATHS)
def test_a_token_without_a_project_sees_not_even_what_has_none(ask: Asking, path: str) -> None:
    answer = asked_by(ask, "unscoped", path.format(meter="disk.size", id="s3"))
    assert answer.status == 403


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
