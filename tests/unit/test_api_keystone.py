"""Who may see what by Keystone's tokens: as the service answers, remembered for a while, forgotten in time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from meter.api import IAuth
from meter.api import KeystoneTokens
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
        self.settings = settings
        self.ask = Asking(auth=self)

    async def requester(self, request: Any) -> Any:
        if "_auth" not in self.__dict__:
            self._auth = KeystoneTokens(
                self.validate, self.ask.clock, uri="https://keystone.example.org", **self.settings
            )
        return await self._auth.requester(request)

    async def validate(self, token: str) -> Token | None:
        self.asked.append(token)
        if self.slow is not None:
            await self.slow
        if self.failure is not None:
            raise self.failure
        return self.tokens.get(token)

    def __call__(self, token: str, path: str = "/v2/samples") -> Answer:
        return self.ask(path, headers={"X-Auth-Token": token})


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


def test_it_is_an_auth(cloud: Cloud) -> None:
    verifyObject(IAuth, KeystoneTokens(cloud.validate, cloud.ask.clock, uri=""))


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
