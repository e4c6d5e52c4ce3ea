"""Auth mode ``keystone``: validation, its cache, and the readiness of Keystone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from meter.api import PROBE_SECONDS
from meter.api import AdminRule
from meter.api import IAuth
from meter.api import KeystoneTokens
from meter.http.client import ErrorResponse
from meter.interfaces import IDependency
from meter.interfaces import Readiness
from meter.interfaces import Unavailable
from tests.api_client import RECORDED
from tests.api_client import ApiClient
from tests.api_client import Response


class Token:
    """The result of a successful validation."""

    def __init__(
        self,
        project_id: str | None,
        *roles: str,
        minutes: float = 60,
        domain_id: str | None = None,
        system: bool = False,
    ) -> None:
        self.project_id = project_id
        self.user_name = self.project_name = ""
        self.domain_id = domain_id
        self.system = system
        self.user_id = "ann"
        self.roles = roles
        self.expires_at = RECORDED + timedelta(minutes=minutes)


class Cloud:
    """An API and a fake Keystone with ``tokens``; ``validated`` lists the tokens it was asked to validate."""

    def __init__(self, **settings: Any) -> None:
        self.tokens = {
            "blue": Token("blue", "member"),
            "short": Token("blue", "member", minutes=0.5),
            "old": Token("blue", "member", minutes=-1),
            "admin": Token("red", "reader", "admin"),
            "unscoped": Token(None, "member"),
        }
        self.validated: list[str] = []
        self.failure: Exception | None = None
        self.slow: Deferred[None] | None = None
        self.checks = 0
        self.check_failure: Exception | None = None
        self.forbidden: Exception | None = None
        self.api = ApiClient(auth=self)
        self.auth = KeystoneTokens(
            self.validate, self.api.clock, uri="https://keystone.example.org", check=self.check, **settings
        )

    async def requester(self, request: Any) -> Any:
        return await self.auth.requester(request)

    async def check(self) -> None:
        self.checks += 1
        if (failure := self.check_failure or self.failure) is not None:
            raise failure

    def probe(self, seconds: float = 0.0) -> Readiness:
        """Advance the clock by ``seconds``, probing every five, and return the readiness."""
        for _ in range(int(seconds / PROBE_SECONDS) or 1):
            self.api.clock.advance(min(seconds, PROBE_SECONDS))
            Deferred.fromCoroutine(self.auth.probe())
        return self.auth.readiness()

    async def validate(self, token: str) -> Token | None:
        self.validated.append(token)
        if self.slow is not None:
            await self.slow
        if (failure := self.forbidden or self.failure) is not None:
            raise failure
        return self.tokens.get(token)

    def __call__(self, token: str, path: str = "/v2/samples") -> Response:
        return self.api(path, headers={"X-Auth-Token": token})


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


def test_keystone_tokens_provide_auth_and_dependency(cloud: Cloud) -> None:
    tokens = KeystoneTokens(cloud.validate, cloud.api.clock, uri="")
    verifyObject(IAuth, tokens)
    verifyObject(IDependency, tokens)


def test_token_shows_its_project_and_an_admin_token_everything(cloud: Cloud) -> None:
    assert {sample["id"] for sample in cloud("blue").json} == {"s0", "s1"}
    assert len(cloud("admin").json) == 4
    assert cloud("unscoped").status == 403


@pytest.mark.parametrize(
    ("token", "everything", "status"),
    [
        (Token("red", "admin"), True, 200),
        (Token("red", "reader"), False, 200),
        (Token(None, "admin", system=True), True, 200),
        (Token(None, "admin", domain_id="default"), False, 403),
        (Token(None, "admin"), False, 403),
    ],
)
def test_admin_role_counts_in_the_scopes_of_projects_and_of_the_system(
    cloud: Cloud, token: Token, everything: bool, status: int
) -> None:
    cloud.tokens["x"] = token
    response = cloud("x")
    assert response.status == status
    assert (len(response.json) == 4) == everything


def test_scopes_and_projects_of_administrators_are_settings() -> None:
    cloud = Cloud(admins=AdminRule(("boss",), ("domain", "project"), ("service",)))
    cloud.tokens = {
        "domain": Token(None, "boss", domain_id="default"),
        "system": Token(None, "boss", system=True),
        "service": Token("service", "boss"),
        "other": Token("red", "boss"),
        "admin": Token("service", "admin"),
    }
    seen = {name: cloud(name) for name in cloud.tokens}
    assert {name: response.status for name, response in seen.items() if response.status != 200} == {"system": 403}
    counts = {name: len(response.json) for name, response in seen.items() if response.status == 200}
    assert counts == {"domain": 4, "service": 4, "other": 1, "admin": 0}


def test_expiry_is_compared_with_the_system_clock(cloud: Cloud) -> None:
    def wall_seconds() -> float:
        return cloud.api.clock.seconds() + 7200  # the system clock was set forward after the start

    cloud.api.clock.wall_seconds = wall_seconds  # type: ignore[attr-defined]
    assert cloud("blue").status == 401


@pytest.mark.parametrize("token", ["", "wrong", "old", "x" * 9000])
def test_missing_or_invalid_token_is_401_with_the_public_address_of_keystone(token: str) -> None:
    for settings, challenge in (
        ({}, "Keystone"),
        ({"public_uri": "https://public.example.org"}, 'Keystone uri="https://public.example.org"'),
    ):
        response = Cloud(**settings)(token)
        assert response.status == 401
        assert response.headers["www-authenticate"] == challenge
    assert response.json["error"]["title"] == "Unauthorized"


def test_validation_is_cached_and_repeated_after_its_lifetime(cloud: Cloud) -> None:
    cloud("blue"), cloud("blue"), cloud("wrong"), cloud("wrong")
    assert cloud.validated == ["blue", "wrong"]
    cloud.api.clock.advance(61)
    del cloud.tokens["blue"]  # revoked
    assert cloud("blue").status == 401


def test_token_is_not_cached_beyond_its_expiry(cloud: Cloud) -> None:
    assert cloud("short").status == 200
    cloud.api.clock.advance(31)
    assert cloud("short").status == 401


def test_cache_is_limited_in_size() -> None:
    cloud = Cloud(max_cached_tokens=2)
    for token in ("blue", "admin", "short", "blue", "blue"):
        cloud(token)
    assert cloud.validated == ["blue", "admin", "short", "blue"]


def test_unavailable_keystone_is_503_and_not_cached(cloud: Cloud) -> None:
    cloud.failure = Unavailable("keystone does not respond")
    response = cloud("blue")
    assert (response.status, b"keystone" in response.body.lower()) == (503, False)
    cloud.failure = None
    assert cloud("blue").status == 200


def test_concurrent_requests_share_one_validation(cloud: Cloud) -> None:
    cloud.slow = Deferred()
    responses: list[Any] = []
    for _ in range(3):
        cloud.api.pending("/v2/samples", headers={"X-Auth-Token": "blue"}).addBoth(responses.append)
    cloud.api.flush()
    cloud.slow.callback(None)
    cloud.api.flush()
    assert [response.status for response in responses] == [200, 200, 200]
    assert cloud.validated == ["blue"]


# --- readiness -----------------------------------------------------------------------------------------------------

AWAY = Unavailable("keystone does not respond")


def test_keystone_is_ready_after_its_first_response(cloud: Cloud) -> None:
    before = cloud.auth.readiness()
    assert (before.name, before.ready, before.needed) == ("keystone", False, True)
    assert "not been contacted" in before.reason
    assert cloud.probe().ready


def test_keystone_that_is_unavailable_at_start_is_ready_once_it_responds(cloud: Cloud) -> None:
    cloud.check_failure = AWAY
    assert cloud.probe() == Readiness("keystone", False, "keystone does not respond")
    cloud.check_failure = None
    assert cloud.probe(5).ready


def test_idle_api_checks_keystone_every_30_seconds(cloud: Cloud) -> None:
    cloud.probe()
    cloud.probe(300)
    assert cloud.checks == 1 + 300 / 30
    cloud.failure = AWAY
    assert not cloud.probe(30).ready


def test_validations_replace_checks(cloud: Cloud) -> None:
    cloud.probe()
    for _ in range(20):
        cloud.api.clock.advance(61)
        cloud("blue")
        cloud.probe()
    assert cloud.checks == 1


def test_outage_is_degraded_while_cached_tokens_are_valid(cloud: Cloud) -> None:
    cloud.probe()
    cloud("blue")
    cloud.failure = AWAY
    assert cloud("admin").status == 503
    state = cloud.probe(5)
    assert (state.ready, state.needed) == (False, False)
    assert "not cached are refused with 503: keystone does not respond" in state.reason
    assert cloud("blue").status == 200
    state = cloud.probe(60)
    assert (state.ready, state.needed) == (False, True)
    assert cloud("blue").status == 503


def test_cached_invalid_tokens_do_not_make_an_outage_degraded(cloud: Cloud) -> None:
    cloud("wrong")
    cloud.failure = AWAY
    assert cloud.probe(30).needed


def test_successful_validation_ends_an_outage(cloud: Cloud) -> None:
    cloud.failure = AWAY
    cloud.probe()
    cloud.failure = None
    cloud("blue")
    assert cloud.auth.readiness().ready


def test_token_that_keystone_rejects_does_not_make_the_api_unready(cloud: Cloud) -> None:
    cloud.probe()
    cloud.failure = ErrorResponse("Keystone returned 400: this is no token", 400)
    assert cloud("strange").status == 503
    cloud.failure = None
    assert cloud.probe().ready
    assert cloud.checks == 2


def test_refused_account_is_checked_once_a_minute(cloud: Cloud) -> None:
    cloud.check_failure = ErrorResponse("Keystone does not accept our credentials", 401)
    assert "our credentials" in cloud.probe(600).reason
    assert cloud.checks == 600 / 60


def test_account_without_permission_to_validate_is_not_ready(cloud: Cloud) -> None:
    cloud.probe()
    cloud.forbidden = ErrorResponse("Keystone returned 403", 403)
    assert cloud("blue").status == 503
    assert not cloud.probe(120).ready
    cloud.forbidden = None
    assert cloud.probe(60).ready


def test_failed_validation_is_followed_by_one_check_and_an_outage_by_one_every_5_seconds(cloud: Cloud) -> None:
    cloud.probe()
    cloud.failure = AWAY
    for _ in range(50):
        cloud("blue")
    cloud.probe()
    assert cloud.checks == 2
    cloud.probe(60)
    assert cloud.checks == 2 + 60 / 5


def test_other_settings_apply_to_tokens_that_were_validated_before(cloud: Cloud) -> None:
    assert cloud("admin", "/v2/audit-log").status == 200
    other = Cloud(admins=AdminRule(roles=("auditor",)), max_cached_tokens=1)
    cloud.auth.replace(other.auth)
    other.failure = Unavailable("Keystone is away")
    assert not cloud.probe(PROBE_SECONDS).ready  # the new account is checked at the next probe, not half a minute later
    other.failure = None
    assert cloud("admin", "/v2/audit-log").status == 403
    assert (cloud.validated, other.validated) == (["admin"], ["admin"])


def test_other_settings_apply_to_tokens_whose_validation_has_begun_before(cloud: Cloud) -> None:
    cloud.slow = Deferred()
    asked = Deferred.fromCoroutine(cloud.auth.owner("admin", "192.0.2.1"))
    other = Cloud(admins=AdminRule(roles=("auditor",)))
    cloud.auth.replace(other.auth)
    cloud.slow.callback(None)
    owners: list[Any] = []
    asked.addCallback(owners.append)
    assert [each.is_admin for each in owners] == [False]
    assert (cloud.validated, other.validated) == (["admin"], ["admin"])


def test_other_credentials_are_checked_at_the_next_probe_after_a_refusal(cloud: Cloud) -> None:
    cloud.check_failure = ErrorResponse("Keystone does not accept the old password", 401)
    assert not cloud.probe().ready
    cloud.auth.replace(Cloud().auth)
    assert cloud.probe(PROBE_SECONDS).ready


@pytest.mark.parametrize("token", ["admin", "unknown"])
def test_validation_by_former_settings_does_not_count(cloud: Cloud, token: str) -> None:
    other = Cloud(admins=AdminRule(roles=("auditor",)))
    other.tokens["unknown"] = other.tokens["admin"]
    cloud.slow = Deferred()
    answers: list[Any] = [Deferred.fromCoroutine(cloud.auth.owner(token, "192.0.2.1")) for _ in range(2)]
    cloud.auth.replace(other.auth)
    other.failure = Unavailable("Keystone is away")
    during: Any = Deferred.fromCoroutine(cloud.auth.owner(token, "192.0.2.1"))
    assert isinstance(during.result, Failure)  # it does not wait for the former Keystone
    during.addErrback(lambda _: None)
    other.failure = None
    cloud.slow.callback(None)
    assert [(each.result.is_admin, each.result.project_id) for each in answers] == [(False, "red")] * 2
    assert (cloud.validated, other.validated) == ([token], [token, token])
