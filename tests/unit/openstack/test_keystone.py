"""Keystone: our token, its renewal, and validation of other tokens."""

from __future__ import annotations

import json
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from meter.http.client import BadResponse
from meter.http.client import ErrorResponse
from meter.interfaces import Unavailable
from meter.openstack import Credentials
from meter.openstack import Keystone
from tests.openstack_stub import DATA
from tests.openstack_stub import JsonResponse
from tests.openstack_stub import StubCloud
from tests.openstack_stub import captured
from tests.openstack_stub import http
from tests.openstack_stub import reply

TOKENS = "/v3/auth/tokens"
PASSWORD = Credentials(
    auth_url="http://keystone:5000",
    username="ceilometer",
    user_domain_name="Default",
    password="xxxxxx",
    project_name="service",
    project_domain_name="Default",
)


def keystone(cloud: StubCloud, credentials: Credentials = PASSWORD, clock: Clock | None = None) -> Keystone:
    clock = clock or Clock()
    return Keystone(http(cloud, clock).send, credentials, clock)


def cloud_with_tokens() -> StubCloud:
    cloud = StubCloud()
    cloud.on("POST", TOKENS, captured("keystone-01-auth-tokens-scoped"))
    return cloud


def token_of(seconds: int, name: str) -> JsonResponse:
    body = {"token": {"issued_at": "2026-11-22T16:40:16Z", "expires_at": f"2026-11-22T16:40:{16 + seconds}.000000Z"}}
    return reply(body, 201, X_Subject_Token=name)


@pytest_twisted.ensureDeferred
async def test_password_request_equals_that_of_openstack_clients() -> None:
    cloud = cloud_with_tokens()
    await keystone(cloud).token()
    [request] = cloud.requests
    wanted = json.loads((DATA / "keystone-01-auth-tokens-scoped.json").read_text())["request_body"]
    assert request.json() == wanted


@pytest_twisted.ensureDeferred
async def test_token_has_user_project_roles_and_catalogue() -> None:
    token = await keystone(cloud_with_tokens()).token()
    assert token.user_id == "faa434f8468e4f24848d1cdc1a61bcc6"
    assert token.project_id == "28d7e332c3534141a51842ce497e19ac"
    assert "admin" in token.roles
    assert token.catalogue.url("image", interface="public", region="RegionOne") == "http://127.0.0.1:19292"
    assert token.id not in repr(token)


@pytest_twisted.ensureDeferred
async def test_concurrent_callers_share_one_token() -> None:
    cloud = StubCloud()
    cloud.on("POST", TOKENS, JsonResponse(silent=True))
    clock = Clock()
    client = http(cloud, clock)
    ours = Keystone(client.send, PASSWORD, clock)
    waiting = [Deferred.fromCoroutine(ours.token()) for _ in range(20)]
    [request] = cloud.waiting
    good = captured("keystone-01-auth-tokens-scoped")
    request.setResponseCode(201)
    request.setHeader("X-Subject-Token", "abc")
    request.write(good.body)
    request.finish()
    client._treq.flush()
    assert {(await each).id for each in waiting} == {"abc"}
    assert ours.authentications == 1


@pytest_twisted.ensureDeferred
async def test_token_is_renewed_before_it_expires() -> None:
    cloud, clock = StubCloud(), Clock()
    cloud.on("POST", TOKENS, token_of(20, "first"), token_of(20, "second"))
    ours = keystone(cloud, clock=clock)
    assert (await ours.token()).id == "first"
    clock.advance(14)
    assert (await ours.token()).id == "first"
    clock.advance(2)
    assert (await ours.token()).id == "second"


@pytest_twisted.ensureDeferred
async def test_rejected_token_is_replaced_once_for_many_rejections() -> None:
    cloud = StubCloud()
    cloud.on("POST", TOKENS, token_of(20, "first"), token_of(20, "second"), token_of(20, "third"))
    ours = keystone(cloud)
    first = await ours.token()
    ours.reject(first)
    assert (await ours.token()).id == "second"
    ours.reject(first)
    assert (await ours.token()).id == "second"


@pytest_twisted.ensureDeferred
async def test_error_for_wrong_credentials_names_them_as_the_cause() -> None:
    cloud = StubCloud()
    cloud.on("POST", TOKENS, captured("keystone-06-auth-tokens-401"))
    with pytest.raises(ErrorResponse, match=r"Keystone rejects our credentials.*401.*requires authentication"):
        await keystone(cloud).token()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            JsonResponse(201, b"<html>welcome</html>", {"Content-Type": "text/html", "X-Subject-Token": "x"}),
            "is not JSON",
        ),
        (JsonResponse(201, b'{"token": {"issued', {"X-Subject-Token": "x"}), "is not JSON"),
        (reply({"token": {}}, 201), "no X-Subject-Token"),
        (reply({"token": {"issued_at": "now"}}, 201, X_Subject_Token="x"), "is not a Keystone v3 token"),
        (reply([], 201, X_Subject_Token="x"), "is not a Keystone v3 token"),
        (JsonResponse(302, b"", {"Location": "http://elsewhere/"}), "redirected.*elsewhere"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_response_that_is_not_a_token_is_a_bad_response(wrong: JsonResponse, message: str) -> None:
    cloud = StubCloud()
    cloud.on("POST", TOKENS, wrong)
    with pytest.raises(BadResponse, match=message):
        await keystone(cloud).token()


@pytest_twisted.ensureDeferred
async def test_validated_token_has_the_project_and_roles_from_keystone() -> None:
    cloud = cloud_with_tokens()
    cloud.on("GET", TOKENS, captured("keystone-07-validate"))
    token = await keystone(cloud).validate("gAAAA")
    assert token is not None
    assert token.project_id == "b6e8cc20ee9c457e83f13218eca89c43"
    assert token.roles == {"reader", "member"}
    assert cloud.requests[-1].header("X-Subject-Token") == "gAAAA"


@pytest.mark.parametrize("name", ["keystone-09-validate-invalid-subject-404", "keystone-31-validate-revoked-404"])
@pytest_twisted.ensureDeferred
async def test_invalid_token_is_none(name: str) -> None:
    cloud = cloud_with_tokens()
    cloud.on("GET", TOKENS, captured(name))
    assert await keystone(cloud).validate("gAAAA") is None


@pytest.mark.parametrize("nonsense", ["", "a\r\nX-Evil: 1", "ключ", "a\0b"])
@pytest_twisted.ensureDeferred
async def test_token_that_cannot_be_a_header_value_is_invalid_without_a_request(nonsense: str) -> None:
    cloud = cloud_with_tokens()
    assert await keystone(cloud).validate(nonsense) is None
    assert cloud.requests == []


@pytest_twisted.ensureDeferred
async def test_validation_renews_a_rejected_own_token_once() -> None:
    cloud = cloud_with_tokens()
    refusal = captured("keystone-10-validate-bad-auth-401")
    cloud.on("GET", TOKENS, refusal, captured("keystone-07-validate"))
    assert await keystone(cloud).validate("gAAAA") is not None
    cloud.on("GET", TOKENS, refusal)
    with pytest.raises(Unavailable, match="401"):
        await keystone(cloud).validate("gAAAA")


@pytest.mark.parametrize(
    ("given", "auth"),
    [
        (
            {"application_credential_id": "id", "application_credential_secret": "s", "project_name": "ignored"},
            {
                "identity": {
                    "methods": ["application_credential"],
                    "application_credential": {"id": "id", "secret": "s"},
                }
            },
        ),
        (
            {"application_credential_name": "n", "application_credential_secret": "s", "user_id": "u"},
            {
                "identity": {
                    "methods": ["application_credential"],
                    "application_credential": {"name": "n", "secret": "s", "user": {"id": "u"}},
                }
            },
        ),
        (
            {"token": "t", "domain_name": "d"},
            {"identity": {"methods": ["token"], "token": {"id": "t"}}, "scope": {"domain": {"name": "d"}}},
        ),
        (
            {"user_id": "u", "password": "p", "system_scope": "all"},
            {
                "identity": {"methods": ["password"], "password": {"user": {"id": "u", "password": "p"}}},
                "scope": {"system": {"all": True}},
            },
        ),
        (
            {"username": "u", "password": "p"},
            {
                "identity": {
                    "methods": ["password"],
                    "password": {"user": {"name": "u", "domain": {"id": "default"}, "password": "p"}},
                }
            },
        ),
        (
            {"user_id": "u", "password": "p", "project_id": "x"},
            {
                "identity": {"methods": ["password"], "password": {"user": {"id": "u", "password": "p"}}},
                "scope": {"project": {"id": "x"}},
            },
        ),
    ],
)
def test_authentication_request_is_as_keystone_documents_it(given: dict[str, str], auth: dict[str, Any]) -> None:
    assert Credentials(auth_url="https://keystone/v3", **given).request() == {"auth": auth}
