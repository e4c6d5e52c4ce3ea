"""Who may see what by Keystone's tokens: as the service answers, remembered for a while, forgotten in time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from meter.api import LOOK_SECONDS
from meter.api import IAuth
from meter.api import KeystoneTokens
from meter.http.exchange import ErrorResponse
from meter.interfaces import IDependency
from meter.interfaces import Readiness
from meter.interfaces import Unavailable
from tests.asking import RECORDED
from tests.asking import Answer
from tests.asking import Asking


class Token:
    """What Keystone says of a token."""

    def __init__(self, project_id: str | None, *roles: str, minutes: float = 60) -> None:
        self.project_id = project_id
        self.user_id = "ann"
        self.roles = roles
        self.expires_at = RECORDED + timedelta(minutes=minutes)


class Cloud:
    """An API that asks a Keystone which knows ``tokens``; ``asked`` has what it was asked about."""

    def __init__(self, **settings: Any) -> None:
        self.tokens = {
            "blue": Token("blue", "member"),
            "short": Token("blue", "member", minutes=0.5),
            "old": Token("blue", "member", minutes=-1),
            "admin": Token("red", "reader", "admin"),
            "unscoped": Token(None, "member"),
        }
        self.asked: list[str] = []
        self.failure: Exception | None = None
        self.slow: Deferred[None] | None = None
        self.checks = 0
        self.check_failure: Exception | None = None
        self.forbidden: Exception | None = None
        self.ask = Asking(auth=self)
        self.auth = KeystoneTokens(
            self.validate, self.ask.clock, uri="https://keystone.example.org", check=self.check, **settings
        )

    async def requester(self, request: Any) -> Any:
        return await self.auth.requester(request)

    async def check(self) -> None:
        self.checks += 1
        if (failure := self.check_failure or self.failure) is not None:
            raise failure

    def look(self, seconds: float = 0.0) -> Readiness:
        """Let ``seconds`` pass, look every five, and return the readiness."""
        for _ in range(int(seconds / LOOK_SECONDS) or 1):
            self.ask.clock.advance(min(seconds, LOOK_SECONDS))
            Deferred.fromCoroutine(self.auth.look())
        return self.auth.readiness()

    async def validate(self, token: str) -> Token | None:
        self.asked.append(token)
        if self.slow is not None:
            await self.slow
        if (failure := self.forbidden or self.failure) is not None:
            raise failure
        return self.tokens.get(token)

    def __call__(self, token: str, path: str = "/v2/samples") -> Answer:
        return self.ask(path, headers={"X-Auth-Token": token})


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


def test_it_is_an_auth_and_a_dependency(cloud: Cloud) -> None:
    tokens = KeystoneTokens(cloud.validate, cloud.ask.clock, uri="")
    verifyObject(IAuth, tokens)
    verifyObject(IDependency, tokens)


def test_a_token_shows_its_project_and_an_admins_everything(cloud: Cloud) -> None:
    assert {sample["id"] for sample in cloud("blue").json} == {"s0", "s1"}
    assert len(cloud("admin").json) == 4
    assert cloud("unscoped").status == 403


@pytest.mark.parametrize("token", ["", "wrong", "old", "x" * 9000])
def test_who_has_no_good_token_is_told_where_to_get_one(cloud: Cloud, token: str) -> None:
    answer = cloud(token)
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == 'Keystone uri="https://keystone.example.org"'
    assert answer.json["error"]["title"] == "Unauthorized"


def test_an_answer_is_remembered_and_asked_for_again_in_time(cloud: Cloud) -> None:
    cloud("blue"), cloud("blue"), cloud("wrong"), cloud("wrong")
    assert cloud.asked == ["blue", "wrong"]
    cloud.ask.clock.advance(61)
    del cloud.tokens["blue"]  # revoked
    assert cloud("blue").status == 401


def test_a_token_is_remembered_no_longer_than_it_lasts(cloud: Cloud) -> None:
    assert cloud("short").status == 200
    cloud.ask.clock.advance(31)
    assert cloud("short").status == 401


def test_no_more_tokens_are_remembered_than_may_be() -> None:
    cloud = Cloud(most=2)
    for token in ("blue", "a", "b", "blue", "blue"):
        cloud(token)
    assert cloud.asked == ["blue", "a", "b", "blue"]


def test_a_keystone_that_is_away_is_503_and_not_remembered(cloud: Cloud) -> None:
    cloud.failure = Unavailable("keystone does not answer")
    answer = cloud("blue")
    assert (answer.status, "keystone does not answer" in answer.fault) == (503, True)
    cloud.failure = None
    assert cloud("blue").status == 200


def test_clients_that_come_together_wait_for_one_answer(cloud: Cloud) -> None:
    cloud.slow = Deferred()
    answers: list[Any] = []
    for _ in range(3):
        cloud.ask.pending("/v2/samples", headers={"X-Auth-Token": "blue"}).addBoth(answers.append)
    cloud.ask.flush()
    cloud.slow.callback(None)
    cloud.ask.flush()
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert cloud.asked == ["blue"]


# --- whether Keystone is there -------------------------------------------------------------------------------------

AWAY = Unavailable("keystone does not answer")


def test_it_is_ready_once_keystone_has_answered(cloud: Cloud) -> None:
    before = cloud.auth.readiness()
    assert (before.name, before.ready, before.needed) == ("keystone", False, True)
    assert "not been asked" in before.reason
    assert cloud.look().ready


def test_a_keystone_that_is_away_at_the_start_is_no_ready_api_and_is_noticed_when_it_comes(cloud: Cloud) -> None:
    cloud.check_failure = AWAY
    assert cloud.look() == Readiness("keystone", False, "keystone does not answer")
    cloud.check_failure = None
    assert cloud.look(5).ready


def test_an_idle_api_notices_that_keystone_went_away_and_asks_it_no_more_than_it_must(cloud: Cloud) -> None:
    cloud.look()
    cloud.look(300)
    assert cloud.checks == 1 + 300 / 30
    cloud.failure = AWAY
    assert not cloud.look(30).ready


def test_clients_that_are_answered_save_the_checks(cloud: Cloud) -> None:
    cloud.look()
    for _ in range(20):
        cloud.ask.clock.advance(61)
        cloud("blue")
        cloud.look()
    assert cloud.checks == 1


def test_while_remembered_clients_are_let_in_it_is_degraded_and_not_dead(cloud: Cloud) -> None:
    cloud.look()
    cloud("blue")
    cloud.failure = AWAY
    assert cloud("admin").status == 503
    state = cloud.look(5)
    assert (state.ready, state.needed) == (False, False)
    assert "not remembered are refused with 503: keystone does not answer" in state.reason
    assert cloud("blue").status == 200
    state = cloud.look(60)
    assert (state.ready, state.needed) == (False, True)
    assert cloud("blue").status == 503


def test_only_clients_that_are_let_in_make_it_degraded_rather_than_away(cloud: Cloud) -> None:
    cloud("wrong")
    cloud.failure = AWAY
    assert cloud.look(30).needed


def test_a_client_that_is_let_in_again_shows_that_keystone_is_back(cloud: Cloud) -> None:
    cloud.failure = AWAY
    cloud.look()
    cloud.failure = None
    cloud("blue")
    assert cloud.auth.readiness().ready


def test_no_token_of_a_client_makes_the_api_look_away(cloud: Cloud) -> None:
    cloud.look()
    cloud.failure = ErrorResponse("Keystone answers 400: this is no token", 400)
    assert cloud("strange").status == 503
    cloud.failure = None
    assert cloud.look().ready
    assert cloud.checks == 2


def test_an_account_that_is_refused_is_not_tried_until_it_is_locked(cloud: Cloud) -> None:
    cloud.check_failure = ErrorResponse("Keystone does not accept our credentials", 401)
    assert "our credentials" in cloud.look(600).reason
    assert cloud.checks == 600 / 60


def test_an_account_that_may_not_ask_about_tokens_is_not_ready_until_it_may(cloud: Cloud) -> None:
    cloud.look()
    cloud.forbidden = ErrorResponse("Keystone answers 403", 403)
    assert cloud("blue").status == 503
    assert not cloud.look(120).ready
    cloud.forbidden = None
    assert cloud.look(60).ready


def test_doubt_asks_once_and_an_outage_every_few_seconds(cloud: Cloud) -> None:
    cloud.look()
    cloud.failure = AWAY
    for _ in range(50):
        cloud("blue")
    cloud.look()
    assert cloud.checks == 2
    cloud.look(60)
    assert cloud.checks == 2 + 60 / 5
