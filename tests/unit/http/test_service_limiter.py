"""What a service may be asked: the rate, the places, the pauses it wants, and when it is left alone."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
import pytest_twisted
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from meter.daemon.metrics import RequestMetrics
from meter.http import HttpRequest
from meter.http import LimitedHttpClient
from meter.http import Limits
from meter.http.exchange import BadResponse
from meter.http.exchange import ErrorResponse
from meter.interfaces import Unavailable
from tests.openstack_stub import JsonResponse
from tests.openstack_stub import StubCloud
from tests.openstack_stub import http
from tests.openstack_stub import reply

IMAGES = HttpRequest(method="GET", url="http://glance/v2/images")


class Setting:
    """A stub cloud, a clock, and a web between them."""

    def __init__(self, **limits: Any) -> None:
        self.cloud, self.clock, self.registry = StubCloud(), Clock(), CollectorRegistry()
        self.http = http(self.cloud, self.clock)
        self.web = LimitedHttpClient(
            self.http,
            self.clock,
            limits=Limits(**{"requests_per_second": inf, "attempts": 1, **limits}),
            by_service={"slow": Limits(requests_per_second=2, in_flight=100)},
            account=RequestMetrics(self.registry),
        )

    def ask(self, service: str = "image") -> Deferred[Any]:
        return Deferred.fromCoroutine(self.web.exchange(service, IMAGES))

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    def answer(self, *replies: JsonResponse) -> None:
        self.cloud.on("GET", "/v2/images", *replies)


def test_a_service_gets_no_more_requests_a_second_than_its_budget() -> None:
    it = Setting()
    it.answer(reply({}))
    for _ in range(50):
        it.ask("slow")
    for _ in range(100):
        it.clock.advance(0.1)
    assert 18 <= len(it.cloud.asked) <= 23
    assert it.metric("meter_request_waited_seconds_total", service="slow") > 10


def test_no_more_are_in_flight_than_there_are_places() -> None:
    it = Setting(in_flight=3)
    it.answer(JsonResponse(silent=True))
    for _ in range(10):
        it.ask()
    assert len(it.cloud.asked) == 3
    assert it.metric("meter_requests_in_flight", service="image") == 3


def test_silence_ends_after_the_time_limit_and_frees_its_place() -> None:
    it = Setting(in_flight=1, timeout_seconds=30)
    it.answer(JsonResponse(silent=True), reply({}))
    silent, next_ = it.ask(), it.ask()
    it.clock.advance(29)
    assert not silent.called
    it.clock.advance(1)
    assert "GET http://glance/v2/images: no whole answer within 30 s" in silent.result.getErrorMessage()
    silent.addErrback(lambda _: None)
    assert next_.result.status == 200
    assert it.metric("meter_requests_total", service="image", outcome="timeout") == 1
    assert it.metric("meter_requests_in_flight", service="image") == 0


def test_a_pause_that_the_service_asks_for_is_kept_by_all_who_ask_it() -> None:
    it = Setting(attempts=3)
    it.answer(reply({}, 429, Retry_After="7"), reply({}))
    first, second = it.ask(), it.ask("other")
    assert not first.called
    assert second.result.status == 200  # another service
    third = it.ask()
    it.clock.advance(6.9)
    assert not first.called
    assert not third.called
    it.clock.pump([0.2, 0.1])
    assert first.result.status == third.result.status == 200


def test_a_pause_may_be_a_date() -> None:
    it = Setting(attempts=2)
    it.answer(reply({}, 503, Retry_After="Thu, 01 Jan 1970 00:00:09 GMT"), reply({}))
    asked = it.ask()
    it.clock.advance(8.9)
    assert not asked.called
    it.clock.advance(0.2)
    assert asked.result.status == 200


@pytest_twisted.ensureDeferred
async def test_a_pause_that_is_too_long_leaves_the_service_alone() -> None:
    it = Setting(attempts=3, longest_pause_seconds=30)
    it.answer(reply({}, 429, Retry_After="500"), reply({}))
    assert (await it.ask()).status == 429
    with pytest.raises(Unavailable, match=r"image is left alone for 500 s more.*Retry-After: 500"):
        await it.ask()
    it.clock.advance(500)
    assert (await it.ask()).status == 200


@pytest_twisted.ensureDeferred
async def test_a_service_that_fails_again_and_again_is_left_alone_and_then_tried_once() -> None:
    it = Setting(breaker_failures=3, breaker_seconds=60)
    it.answer(reply({}, 500))
    with capturedLogs() as logs:
        for _ in range(3):
            assert (await it.ask()).status == 500
        with pytest.raises(Unavailable, match="image is left alone for 60 s more, because of 3 failures in a row"):
            await it.ask()
        assert len(it.cloud.asked) == 3
        assert it.metric("meter_request_circuit_open", service="image") == 1
        assert it.metric("meter_requests_total", service="image", outcome="held") == 1
        it.clock.advance(60)
        assert (await it.ask()).status == 500  # the trial
        with pytest.raises(Unavailable):
            await it.ask()
        it.answer(reply({}))
        it.clock.advance(60)
        assert (await it.ask()).status == 200
    assert (await it.ask()).status == 200
    assert it.metric("meter_request_circuit_open", service="image") == 0
    assert len([each for each in logs if "left alone" in each["log_format"]]) == 1


def test_one_request_tries_a_service_that_was_left_alone_and_the_others_share_its_fate() -> None:
    it = Setting(breaker_failures=1, breaker_seconds=60, timeout_seconds=30)
    it.answer(reply({}, 500), JsonResponse(silent=True))
    it.ask()
    it.clock.advance(60)
    trial, *others = (it.ask() for _ in range(6))
    assert len(it.cloud.asked) == 2
    it.clock.advance(30)
    for each in others:
        assert "left alone for 60 s more" in each.result.getErrorMessage()
        each.addErrback(lambda _: None)
    trial.addErrback(lambda _: None)
    assert len(it.cloud.asked) == 2


def test_a_service_that_works_again_costs_nobody_an_answer() -> None:
    it = Setting(breaker_failures=1, breaker_seconds=60, in_flight=2)
    it.answer(reply({}, 500), reply({}))
    it.ask()
    it.clock.advance(59.8)  # a cycle that begins a moment early
    asked = [it.ask() for _ in range(6)]
    assert len(it.cloud.asked) == 1
    it.clock.advance(0.2)
    assert [each.result.status for each in asked] == [200] * 6


def test_a_trial_that_is_given_up_has_failed_and_nobody_waits_for_it_any_more() -> None:
    it = Setting(breaker_failures=1, breaker_seconds=60)
    it.answer(reply({}, 500), JsonResponse(silent=True), reply({}))
    it.ask()
    it.clock.advance(60)
    trial, second, third = it.ask(), it.ask(), it.ask()
    third.cancel()
    trial.cancel()
    assert "left alone for 60 s more" in second.result.getErrorMessage()
    assert it.cloud.asked[1:] == it.cloud.asked[1:2]
    for each in (trial, second, third):
        each.addErrback(lambda _: None)


def test_what_a_service_does_not_implement_is_no_failure_of_it() -> None:
    it = Setting(breaker_failures=1, attempts=3)
    it.answer(reply({}, 501), reply({}))
    assert it.ask().result.status == 501
    assert it.ask().result.status == 200
    assert len(it.cloud.asked) == 2


def test_a_failure_of_the_service_is_tried_again_but_only_for_questions() -> None:
    it = Setting(attempts=3)
    it.answer(reply({}, 502), reply({}, 503), reply({}))
    asked = it.ask()
    it.clock.pump([3] * 4)
    assert asked.result.status == 200
    it.cloud.on("POST", "/v2/images", reply({}, 502), reply({}))
    posted = Deferred.fromCoroutine(it.web.exchange("image", HttpRequest(method="POST", url=IMAGES.url)))
    assert posted.result.status == 502


@pytest_twisted.ensureDeferred
async def test_a_body_that_is_too_large_is_not_taken() -> None:
    it = Setting()
    it.answer(JsonResponse(200, b"x" * 1001))
    small = http(it.cloud, it.clock, largest_body_bytes=1000)
    with pytest.raises(BadResponse, match="more than 1000 bytes"):
        await small.exchange(IMAGES)
    it.answer(JsonResponse(200, b"x" * 1000))
    assert len((await small.exchange(IMAGES)).body) == 1000


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (JsonResponse(200, b"<html>hello</html>", {"Content-Type": "text/html"}), "is no JSON"),
        (JsonResponse(200, b'{"images": [{"id": ', {"Content-Type": "application/json"}), "is no JSON"),
        (JsonResponse(200, b'{"name": "\xff"}'), "is no JSON"),
        (JsonResponse(200, b""), "is no JSON"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_is_no_json_is_a_bad_answer(wrong: JsonResponse, said: str) -> None:
    it = Setting()
    it.answer(wrong)
    with pytest.raises(BadResponse, match=said):
        (await it.ask()).json()


@pytest_twisted.ensureDeferred
async def test_an_error_page_is_shown_in_part_and_a_password_in_the_url_never() -> None:
    it = Setting()
    it.answer(JsonResponse(403, b"<p>no</p>" * 1000))
    request = HttpRequest(method="GET", url="http://me:secret@glance/v2/images", headers={"X-Auth-Token": "gAAA"})
    with pytest.raises(ErrorResponse, match=r"GET http://glance/v2/images: 403 <p>no</p>") as caught:
        (await it.web.exchange("image", request)).checked()
    assert len(str(caught.value)) < 300
    assert "gAAA" not in repr(request)


@pytest_twisted.ensureDeferred
async def test_json_in_spite_of_its_content_type_is_read() -> None:
    it = Setting()
    it.answer(JsonResponse(200, '{"name": "Ünïcödé 😀 图像"}'.encode(), {"Content-Type": "text/plain"}))
    assert (await it.ask()).json() == {"name": "Ünïcödé 😀 图像"}
