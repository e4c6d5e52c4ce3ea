"""Somebody without a valid token cannot take the API, or Keystone, from those who have one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from meter.api import ClientAddresses
from meter.api import KeystoneTokens
from meter.http.client import ErrorResponse
from meter.interfaces import Unavailable
from tests.api_client import ApiClient
from tests.api_client import Response
from tests.unit.api.auth.test_keystone import Token


class AttackedApi:
    """An API behind a trusted proxy, and a Keystone that counts what it is asked; while it is ``slow`` it does not answer."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.slow: Deferred[None] | None = None
        self.failure: Exception | None = None
        self.api = ApiClient(auth=self)
        self.auth = KeystoneTokens(
            self.validate, self.api.clock, uri="https://keystone.example.org", addresses=ClientAddresses(["127.0.0.1"])
        )

    async def requester(self, request: Any) -> Any:
        return await self.auth.requester(request)

    async def validate(self, token: str) -> Token | None:
        self.asked.append(token)
        if self.slow is not None:
            await self.slow
        if self.failure is not None:
            raise self.failure
        return Token("blue", "member") if token.startswith("good") else None

    def ask(self, token: str, address: str = "198.51.100.1") -> list[Response]:
        """Send a request; the list has its response once there is one."""
        responses: list[Any] = []
        headers = {"X-Auth-Token": token, "X-Forwarded-For": address}
        self.api.pending("/v2/samples", headers=headers).addBoth(responses.append)
        self.api.flush()
        return responses


@pytest.fixture
def attacked() -> Iterator[AttackedApi]:
    attacked = AttackedApi()
    yield attacked
    if attacked.slow is not None and not attacked.slow.called:
        attacked.slow.callback(None)


def test_validated_token_is_served_while_keystone_is_slow_and_made_up_tokens_wait(attacked: AttackedApi) -> None:
    assert attacked.ask("good")[0].status == 200
    attacked.slow = Deferred()
    for n in range(110):
        attacked.ask(f"made-up-{n}", f"203.0.113.{n}")
    for _ in range(10):
        assert attacked.ask("good")[0].status == 200


def test_new_token_of_a_known_address_is_validated_while_others_hold_their_half_of_the_places(
    attacked: AttackedApi,
) -> None:
    attacked.ask("good")
    attacked.slow = Deferred()
    waiting = [attacked.ask(f"made-up-{n}", f"203.0.113.{n}") for n in range(110)]
    refused = [responses[0] for responses in waiting if responses]
    assert {each.status for each in refused} == {503}
    assert len(refused) == 60
    assert all(int(each.headers["retry-after"]) > 0 for each in refused)
    assert attacked.ask("good-2") == []
    attacked.slow.callback(None)
    assert attacked.asked[-1] == "good-2"


def test_one_address_cannot_hold_all_places_of_validations(attacked: AttackedApi) -> None:
    attacked.slow = Deferred()
    waiting = [attacked.ask("made-up") for _ in range(40)]
    assert [responses[0].status for responses in waiting if responses] == [429] * 15
    assert attacked.ask("other", "203.0.113.9") == []
    assert attacked.asked == ["made-up", "other"]


def test_made_up_tokens_of_one_address_make_few_questions(attacked: AttackedApi) -> None:
    answers = [attacked.ask(f"made-up-{n}")[0] for n in range(150)]
    assert len(attacked.asked) == 20
    assert [each.status for each in answers] == [401] * 20 + [429] * 130
    assert int(answers[-1].headers["retry-after"]) == 1
    attacked.api.clock.advance(5)
    for n in range(100):
        attacked.ask(f"later-{n}")
    assert len(attacked.asked) == 25


def test_made_up_tokens_of_many_addresses_make_a_bounded_number_of_questions(attacked: AttackedApi) -> None:
    attacked.ask("good", "192.0.2.7")
    for n in range(600):
        attacked.ask(f"made-up-{n}", f"203.0.{n // 250}.{n % 250}")
    assert len(attacked.asked) == 1 + 400
    # An address that has sent a valid token does not depend on the others.
    assert attacked.ask("good-2", "192.0.2.7")[0].status == 200


def test_addresses_of_one_ipv6_network_share_a_budget(attacked: AttackedApi) -> None:
    for n in range(60):
        attacked.ask(f"made-up-{n}", f"2001:db8:1:2::{n + 1:x}")
    assert len(attacked.asked) == 20


def test_valid_tokens_cost_no_budget(attacked: AttackedApi) -> None:
    assert {attacked.ask(f"good-{n}")[0].status for n in range(150)} == {200}


def test_refused_tokens_do_not_displace_valid_ones(attacked: AttackedApi) -> None:
    attacked.auth = KeystoneTokens(
        attacked.validate,
        attacked.api.clock,
        uri="",
        max_cached_tokens=2,
        max_refused_tokens=2,
        addresses=ClientAddresses(["127.0.0.1"]),
    )
    attacked.ask("good")
    for n in range(10):
        attacked.ask(f"made-up-{n}")
    attacked.ask("good")
    assert attacked.asked.count("good") == 1


def test_refused_token_is_asked_once_in_half_a_minute(attacked: AttackedApi) -> None:
    for _ in range(10):
        assert attacked.ask("made-up")[0].status == 401
    assert attacked.asked == ["made-up"]
    attacked.api.clock.advance(31)
    attacked.ask("made-up")
    assert attacked.asked == ["made-up", "made-up"]


def test_failure_of_keystone_is_that_of_all_requests_with_the_same_token(attacked: AttackedApi) -> None:
    attacked.slow = Deferred()
    waiting = [attacked.ask("good") for _ in range(10)]
    attacked.failure = Unavailable("Keystone does not respond")
    attacked.slow.callback(None)
    attacked.api.flush()
    assert [responses[0].status for responses in waiting] == [503] * 10
    assert attacked.asked == ["good"]


def test_tokens_that_keystone_could_not_be_asked_about_cost_no_budget(attacked: AttackedApi) -> None:
    attacked.failure = Unavailable("Keystone does not respond")
    assert {attacked.ask(f"good-{n}", f"203.0.113.{n % 2}")[0].status for n in range(450)} == {503}
    attacked.failure = None
    assert attacked.ask("good", "203.0.113.1")[0].status == 200
    assert attacked.ask("good-too", "203.0.113.2")[0].status == 200


@pytest.mark.parametrize(("status", "paid"), [(400, True), (403, False), (413, True), (429, False), (502, False)])
def test_token_that_makes_the_question_to_keystone_malformed_is_paid(
    attacked: AttackedApi, status: int, paid: bool
) -> None:
    attacked.failure = ErrorResponse("Keystone answers with an error", status)
    assert attacked.ask("made-up-0")[0].status == 503
    for n in range(1, 40):
        attacked.ask(f"made-up-{n}")
    assert len(attacked.asked) == (20 if paid else 40)


def test_requests_that_are_given_up_do_not_make_more_questions(attacked: AttackedApi) -> None:
    attacked.slow = Deferred()
    for n in range(60):
        leaving = attacked.api.pending("/v2/samples", headers={"X-Auth-Token": f"made-up-{n}"})
        leaving.addErrback(lambda _: None)
        attacked.api.flush()
        leaving.cancel()
        attacked.api.flush()
    assert len(attacked.asked) == 20


def test_requests_that_wait_for_keystone_are_limited_in_total(attacked: AttackedApi) -> None:
    known = [f"192.0.2.{n}" for n in range(4)]
    for n, address in enumerate(known):
        assert attacked.ask(f"good-{n}", address)[0].status == 200
    attacked.slow = Deferred()
    waiting = [attacked.ask("slow", address) for address in known for _ in range(25)]
    waiting += [attacked.ask("slow", f"203.0.113.{n}") for n in range(50)]
    refused = [responses[0] for responses in waiting if responses]
    assert (len(waiting) - len(refused), {each.status for each in refused}) == (100, {503})
    text = "All clients together can have 100 requests that wait for the validation of a token at the same time"
    assert {each.faultstring for each in refused} == {f"{text}: try again later."}


def test_text_of_a_refusal_says_whose_tokens_were_too_many(attacked: AttackedApi) -> None:
    of_one = [attacked.ask(f"made-up-{n}")[0] for n in range(21)][-1]
    assert of_one.faultstring.startswith("Too many tokens from this client address were not valid")
    for n in range(600):
        attacked.ask(f"others-{n}", f"203.0.{n // 250}.{n % 250}")
    of_all = attacked.ask("last", "192.0.2.99")[0]
    assert of_all.faultstring.startswith("Too many tokens from client addresses without a valid token in the last hour")


@pytest.mark.parametrize("token", ["two words", "tab\there", "a" * 8193, "caf\xe9"])
def test_keystone_is_not_asked_about_what_cannot_be_a_token(attacked: AttackedApi, token: str) -> None:
    assert attacked.ask(token)[0].status == 401
    assert attacked.asked == []


def test_client_that_repeats_refused_requests_is_answered_later_and_later_requests_of_others_are_not(
    attacked: AttackedApi,
) -> None:
    attacked.ask("made-up")
    at_once = sum(bool(attacked.ask("made-up")) for _ in range(300))
    assert at_once < 300
    assert attacked.ask("good", "192.0.2.7")[0].status == 200
    delayed = attacked.ask("made-up")
    assert delayed == []
    attacked.api.clock.advance(1)
    attacked.api.flush()
    assert delayed[0].status == 401
