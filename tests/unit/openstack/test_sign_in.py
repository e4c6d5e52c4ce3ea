"""Sign-in at Keystone: what its responses mean."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from meter.http.client import BadResponse
from meter.http.client import ErrorResponse
from meter.openstack import Credentials
from meter.openstack.sign_in import KeystoneSignIn
from meter.openstack.sign_in import OwnProject
from meter.openstack.sign_in import SignInRefused
from tests.openstack_stub import StubCloud
from tests.openstack_stub import captured
from tests.openstack_stub import http
from tests.openstack_stub import reply

TOKENS, PROJECTS = "/v3/auth/tokens", "/v3/auth/projects"
URL = "http://keystone:5000"
PASSWORD = Credentials(auth_url=URL, username="ann", password="secret one")
TOKEN = Credentials(auth_url=URL, token="secret two", project_id="red")


def sign_in(cloud: StubCloud) -> KeystoneSignIn:
    return KeystoneSignIn(http(cloud, Clock()).send, URL)


@pytest_twisted.ensureDeferred
async def test_token_is_issued_with_the_names_of_user_and_project() -> None:
    cloud = StubCloud()
    cloud.on("POST", TOKENS, captured("keystone-01-auth-tokens-scoped"))
    token = await sign_in(cloud).token(PASSWORD)
    assert (token.user_name, token.project_name) == ("ceilometer", "service")


@pytest.mark.parametrize(
    ("credentials", "status", "headers", "reason"),
    [
        (PASSWORD, 401, {}, "credentials"),
        (PASSWORD, 400, {}, "credentials"),
        (PASSWORD, 401, {"Openstack_Auth_Receipt": "r"}, "second factor"),
        (TOKEN, 403, {}, "scope"),
        (TOKEN, 401, {}, "scope"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_refusal_has_a_reason_and_no_secret(
    credentials: Credentials, status: int, headers: dict[str, str], reason: str
) -> None:
    cloud = StubCloud()
    cloud.on("POST", TOKENS, reply({"error": {"message": "secret one, secret two"}}, status, **headers))
    with pytest.raises(SignInRefused) as refused:
        await sign_in(cloud).token(credentials)
    assert refused.value.reason == reason
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest_twisted.ensureDeferred
async def test_a_problem_of_keystone_is_no_refusal(status: int) -> None:
    cloud = StubCloud()
    cloud.on("POST", TOKENS, reply({}, status))
    with pytest.raises(ErrorResponse):
        await sign_in(cloud).token(PASSWORD)


@pytest_twisted.ensureDeferred
async def test_enabled_projects_are_listed_by_name() -> None:
    cloud = StubCloud()
    projects = [
        {"id": "2", "name": "b", "domain_id": "d", "enabled": True},
        {"id": "3", "name": "c", "enabled": False},
        {"id": "1", "name": "A"},
    ]
    cloud.on("GET", PROJECTS, reply({"projects": projects}))
    assert await sign_in(cloud).projects("t") == [OwnProject("1", "A", ""), OwnProject("2", "b", "d")]
    cloud.on("GET", PROJECTS, reply({"projects": [1]}))
    with pytest.raises(BadResponse):
        await sign_in(cloud).projects("t")


@pytest.mark.parametrize("status", [204, 401, 404])
@pytest_twisted.ensureDeferred
async def test_a_token_is_ended_also_if_it_has_ended_already(status: int) -> None:
    cloud = StubCloud()
    cloud.on("DELETE", TOKENS, reply({}, status))
    await sign_in(cloud).revoke("t")
    [request] = cloud.requests
    sent = [request.headers.getRawHeaders(name) for name in ("x-subject-token", "x-auth-token")]
    assert sent == [["t"], ["t"]]


@pytest_twisted.ensureDeferred
async def test_sign_in_goes_on_at_another_keystone_once_it_is_replaced() -> None:
    former, present = StubCloud(), StubCloud()
    present.on("POST", TOKENS, captured("keystone-01-auth-tokens-scoped"))
    issuer = sign_in(former)
    issuer.replace(KeystoneSignIn(http(present, Clock()).send, "http://other:5000"))
    assert issuer.auth_url == "http://other:5000"
    assert (await issuer.token(PASSWORD)).user_name == "ceilometer"
