"""Swift with thousands of accounts: within the rate limit and the cycle, or in a round-robin over several cycles."""

from __future__ import annotations

import json
from datetime import UTC
from datetime import datetime
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.web.http_headers import Headers

import meter.pollsters.openstack as family
from meter.daemon.services import sleep
from meter.http import HttpRequest
from meter.http import HttpResponse
from meter.http import LimitedHttpClient
from meter.http import ServiceLimits
from meter.interfaces import ISkippedSamples
from meter.openstack import Cloud
from meter.openstack import Credentials
from meter.openstack import IOpenStack
from meter.openstack import Keystone
from meter.sample import Sample
from meter.settings.config_file import parse
from meter.testing import FakeCycle
from tests.openstack_stub import document
from tests.unit.pollsters.openstack.test_pollster import SkippedSamples

CONFIG = """
[signing]
key = "k"
[polling]
interval_seconds = {interval}
"""


class Swift:
    """Keystone and Swift, which respond after ``seconds``; ``requests`` has the time of each request and its account."""

    def __init__(self, clock: Clock, accounts: int, seconds: float = 0.0) -> None:
        self.clock = clock
        self.accounts = [f"{number:032x}" for number in range(accounts)]
        self.requests: list[tuple[float, str]] = []
        self._seconds = seconds

    async def send(self, request: HttpRequest, timeout_seconds: float | None = None) -> HttpResponse:
        """Stand in for :class:`meter.http.client.HttpClient`."""
        headers, content = Headers(), b""
        if request.url.endswith("/auth/tokens"):
            headers.addRawHeader("X-Subject-Token", "t")
            content = json.dumps(document("keystone-01-auth-tokens-scoped")).encode()
        elif "/projects" in request.url:
            content = json.dumps({"projects": [{"id": each} for each in self.accounts]}).encode()
        else:
            self.requests.append((self.clock.seconds(), request.url.partition("AUTH_")[2].partition("?")[0]))
            if self._seconds:
                await sleep(self.clock, self._seconds)
            headers.addRawHeader("X-Account-Bytes-Used", "7")
        now = datetime.fromtimestamp(self.clock.seconds(), UTC)
        return HttpResponse(request=request, status=200, headers=headers, body=content, received_at=now)

    def max_per_second(self) -> int:
        """The highest number of requests within one second."""
        times = [moment for moment, _ in self.requests]
        most = first = 0
        for number, moment in enumerate(times):
            while times[first] <= moment - 1:
                first += 1
            most = max(most, number - first + 1)
        return most


def cycle_of(swift: Swift, interval: float, **limits: Any) -> FakeCycle:
    web = LimitedHttpClient(
        swift, swift.clock, limits=ServiceLimits(**limits), by_service={"identity": ServiceLimits()}
    )  # type: ignore[arg-type]

    async def send(request: HttpRequest) -> HttpResponse:
        return await web.send("identity", request)

    keystone = Keystone(send, Credentials(auth_url="http://k", token="t"), swift.clock)
    providers = {IOpenStack: Cloud(web, keystone), ISkippedSamples: SkippedSamples()}
    config = parse(CONFIG.format(interval=interval), "meter-central", "test")
    return FakeCycle(providers, clock=swift.clock, config=config, daemon="meter-central")


def polled(cycle: FakeCycle) -> list[Sample]:
    polling = Deferred.fromCoroutine(family.storage.poll(cycle))
    while not polling.called:
        cycle.clock.advance(0.01)
    found: list[Sample] = []
    polling.addCallback(found.extend)
    assert polling.result is None, polling.result.getTraceback()
    return [sample for sample in found if sample.name == "storage.objects.size"]


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.advance(1000)
    return clock


def test_five_thousand_accounts_are_polled_within_rate_limit_and_cycle(clock: Clock) -> None:
    swift = Swift(clock, 5000)
    cycle = cycle_of(swift, 300, requests_per_second=20, max_in_flight=4)
    began = clock.seconds()
    assert {each.resource_id for each in polled(cycle)} == set(swift.accounts)
    assert 250 <= clock.seconds() - began <= 270
    assert swift.max_per_second() <= 20
    assert not [each for each in cycle.provider(ISkippedSamples).counted if each[1] == "no-time"]


def test_cycle_ends_in_time_with_a_low_rate_limit_and_the_next_continues(clock: Clock) -> None:
    swift = Swift(clock, 1000)
    cycle = cycle_of(swift, 60, requests_per_second=10, max_in_flight=4)
    began = clock.seconds()
    with capturedLogs() as logs:
        first = {each.resource_id for each in polled(cycle)}
    assert clock.seconds() - began < 60
    assert 500 <= len(first) < 550
    assert cycle.provider(ISkippedSamples).counted["storage", "no-time"] == 1000 - len(first)
    [example] = [each["example"] for each in logs if each.get("kind") == "no-time"]
    assert "the rate limit of object-store needs 105 s for 1000 projects, a cycle has 54 s" in example
    assert "requests_per_second in [openstack.by_service.object-store] 1.9 times as high" in example
    with capturedLogs() as logs:
        second = {each.resource_id for each in polled(cycle.following())}
    assert set(swift.accounts) == first | second
    assert min(second - first) == min(set(swift.accounts) - first)
    assert not [each for each in logs if each.get("kind") == "no-time"]  # logged once


def test_slow_service_is_named_as_the_reason(clock: Clock) -> None:
    swift = Swift(clock, 100, seconds=5)
    cycle = cycle_of(swift, 60, requests_per_second=100, max_in_flight=4)
    with capturedLogs() as logs:
        found = polled(cycle)
    assert 40 <= len(found) <= 50
    [example] = [each["example"] for each in logs if each.get("kind") == "no-time"]
    assert "the service did not respond for all 100 projects within 54 s" in example
