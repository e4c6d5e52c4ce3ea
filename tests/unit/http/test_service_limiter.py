"""The rate limiter and circuit breaker of a service."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
import pytest_twisted
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from meter.daemon.request_metrics import RequestMetrics
from meter.http import HttpRequest
from meter.http import LimitedHttpClient
from meter.http import ServiceLimits
from meter.interfaces import Unavailable
from tests.openstack_stub import JsonResponse
from tests.openstack_stub import StubCloud
from tests.openstack_stub import http
from tests.openstack_stub import reply

IMAGES = HttpRequest(method="GET", url="http://glance/v2/images")


class Setup:
    """A stub cloud, a clock, and a client of the cloud."""

    def __init__(self, **limits: Any) -> None:
        self.cloud, self.clock, self.registry = StubCloud(), Clock(), CollectorRegistry()
        self.unlimited = http(self.cloud, self.clock)
        self.client = LimitedHttpClient(
            self.unlimited,
            self.clock,
            limits=ServiceLimits(**{"requests_per_second": inf, "attempts": 1, **limits}),
            by_service={"slow": ServiceLimits(requests_per_second=2, max_in_flight=100)},
            metrics=RequestMetrics(self.registry),
        )

    def ask(self, service: str = "image") -> Deferred[Any]:
        return Deferred.fromCoroutine(self.client.send(service, IMAGES))

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    def answer(self, *replies: JsonResponse) -> None:
        self.cloud.on("GET", "/v2/images", *replies)


def test_service_gets_at_most_its_requests_per_second() -> None:
    it = Setup()
    it.answer(reply({}))
    for _ in range(50):
        it.ask("slow")
    for _ in range(100):
        it.clock.advance(0.1)
    assert 18 <= len(it.cloud.requests) <= 23
    assert it.metric("meter_request_waited_seconds_total", service="slow") > 10


def test_requests_in_flight_do_not_exceed_the_limit() -> None:
    it = Setup(max_in_flight=3)
    it.answer(JsonResponse(silent=True))
    for _ in range(10):
        it.ask()
    assert len(it.cloud.requests) == 3
    assert it.metric("meter_requests_in_flight", service="image") == 3


def test_request_without_response_times_out_and_frees_its_slot() -> None:
    it = Setup(max_in_flight=1, timeout_seconds=30)
    it.answer(JsonResponse(silent=True), reply({}))
    silent, next_ = it.ask(), it.ask()
    it.clock.advance(29)
    assert not silent.called
    it.clock.advance(1)
    assert "GET http://glance/v2/images: no complete response within 30 s" in silent.result.getErrorMessage()
    silent.addErrback(lambda _: None)
    assert next_.result.status == 200
    assert it.metric("meter_requests_total", service="image", outcome="timeout") == 1
    assert it.metric("meter_requests_in_flight", service="image") == 0


def test_retry_after_delays_all_requests_to_the_service() -> None:
    it = Setup(attempts=3)
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


def test_retry_after_may_be_a_date() -> None:
    it = Setup(attempts=2)
    it.answer(reply({}, 503, Retry_After="Thu, 01 Jan 1970 00:00:09 GMT"), reply({}))
    pending = it.ask()
    it.clock.advance(8.9)
    assert not pending.called
    it.clock.advance(0.2)
    assert pending.result.status == 200


@pytest_twisted.ensureDeferred
async def test_retry_after_above_the_limit_opens_the_circuit() -> None:
    it = Setup(attempts=3, max_retry_after_seconds=30)
    it.answer(reply({}, 429, Retry_After="500"), reply({}))
    assert (await it.ask()).status == 429
    with pytest.raises(Unavailable, match=r"circuit breaker for image is open for another 500 s: .*Retry-After: 500"):
        await it.ask()
    it.clock.advance(500)
    assert (await it.ask()).status == 200


@pytest_twisted.ensureDeferred
async def test_circuit_opens_after_consecutive_failures_and_then_permits_one_trial() -> None:
    it = Setup(breaker_failures=3, breaker_seconds=60)
    it.answer(reply({}, 500))
    with capturedLogs() as logs:
        for _ in range(3):
            assert (await it.ask()).status == 500
        with pytest.raises(
            Unavailable, match="circuit breaker for image is open for another 60 s: 3 consecutive failures"
        ):
            await it.ask()
        assert len(it.cloud.requests) == 3
        assert it.metric("meter_request_circuit_open", service="image") == 1
        assert it.metric("meter_requests_total", service="image", outcome="rejected") == 1
        it.clock.advance(60)
        assert (await it.ask()).status == 500  # the trial
        with pytest.raises(Unavailable):
            await it.ask()
        it.answer(reply({}))
        it.clock.advance(60)
        assert (await it.ask()).status == 200
    assert (await it.ask()).status == 200
    assert it.metric("meter_request_circuit_open", service="image") == 0
    assert len([each for each in logs if "is open" in each["log_format"]]) == 1


def test_half_open_circuit_sends_one_trial_whose_failure_fails_the_waiting_requests() -> None:
    it = Setup(breaker_failures=1, breaker_seconds=60, timeout_seconds=30)
    it.answer(reply({}, 500), JsonResponse(silent=True))
    it.ask()
    it.clock.advance(60)
    trial, *others = (it.ask() for _ in range(6))
    assert len(it.cloud.requests) == 2
    it.clock.advance(30)
    for each in others:
        assert "is open for another 60 s" in each.result.getErrorMessage()
        each.addErrback(lambda _: None)
    trial.addErrback(lambda _: None)
    assert len(it.cloud.requests) == 2


def test_recovered_service_fails_no_waiting_request() -> None:
    it = Setup(breaker_failures=1, breaker_seconds=60, max_in_flight=2)
    it.answer(reply({}, 500), reply({}))
    it.ask()
    it.clock.advance(59.8)  # a cycle that begins slightly early
    pending = [it.ask() for _ in range(6)]
    assert len(it.cloud.requests) == 1
    it.clock.advance(0.2)
    assert [each.result.status for each in pending] == [200] * 6


def test_cancelled_trial_counts_as_failed_and_releases_the_waiting_requests() -> None:
    it = Setup(breaker_failures=1, breaker_seconds=60)
    it.answer(reply({}, 500), JsonResponse(silent=True), reply({}))
    it.ask()
    it.clock.advance(60)
    trial, second, third = it.ask(), it.ask(), it.ask()
    third.cancel()
    trial.cancel()
    assert "is open for another 60 s" in second.result.getErrorMessage()
    assert it.cloud.requests[1:] == it.cloud.requests[1:2]
    for each in (trial, second, third):
        each.addErrback(lambda _: None)


def test_status_501_does_not_count_as_a_failure() -> None:
    it = Setup(breaker_failures=1, attempts=3)
    it.answer(reply({}, 501), reply({}))
    assert it.ask().result.status == 501
    assert it.ask().result.status == 200
    assert len(it.cloud.requests) == 2


def test_failed_get_is_retried_and_failed_post_is_not() -> None:
    it = Setup(attempts=3)
    it.answer(reply({}, 502), reply({}, 503), reply({}))
    pending = it.ask()
    it.clock.pump([3] * 4)
    assert pending.result.status == 200
    it.cloud.on("POST", "/v2/images", reply({}, 502), reply({}))
    posted = Deferred.fromCoroutine(it.client.send("image", HttpRequest(method="POST", url=IMAGES.url)))
    assert posted.result.status == 502
