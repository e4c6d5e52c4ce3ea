"""The supervised loop and wait_ready, with a clock that the test advances."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from meter.daemon.services import Backoff
from meter.daemon.supervised import SupervisedService
from meter.daemon.supervised import wait_ready
from meter.interfaces import IDependency
from meter.interfaces import Readiness
from meter.interfaces import Unavailable


class Scripted(SupervisedService):
    """Each attempt has the next of ``outcomes``: raises it, waits for it, or returns it."""

    name = "scripted"

    def __init__(self, clock, *outcomes):
        super().__init__(clock, backoff=Backoff(1.0, 4.0, rng=lambda: 1.0))
        self.outcomes = list(outcomes)
        self.attempts = 0
        self.failures = []

    async def _attempt(self):
        self.attempts += 1
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        if isinstance(outcome, Deferred):
            outcome = await outcome
        self._backoff.reset()
        return outcome

    def _attempt_failed(self, error):
        self.failures.append(error)


class Cancelling(Scripted):
    on_stop = "cancel"


class Draining(Scripted):
    on_stop = "drain"


@pytest.fixture
def clock():
    return Clock()


def stop(service):
    stopped = []
    Deferred.fromCoroutine(_stop(service)).addCallback(stopped.append)
    return stopped


async def _stop(service):
    loop = service.stopService()
    if loop is not None:
        await loop


def test_attempts_that_fail_are_repeated_after_growing_pauses(clock):
    service = Scripted(clock, *[Unavailable("away")] * 6)
    service.startService()
    attempts = []
    for _ in range(12):
        attempts.append(service.attempts)
        clock.advance(1)

    assert attempts == [1, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5]
    assert [str(error) for error in service.failures] == ["away"] * 5
    stop(service)


def test_success_resets_the_pause_and_says_when_the_next_attempt_is_due(clock):
    service = Scripted(clock, Unavailable("away"), Unavailable("away"), 10.0, Unavailable("away"), None)
    service.startService()
    clock.pump([1.0, 2.0, 9.0])
    assert service.attempts == 3
    clock.advance(1.0)
    assert service.attempts == 4
    clock.advance(1.0)
    assert service.attempts == 5
    assert not clock.getDelayedCalls()


def test_pause_of_zero_begins_the_next_attempt_at_once(clock):
    service = Scripted(clock, 0.0, 0.0, 5.0)
    service.startService()
    assert service.attempts == 3
    stop(service)


def test_wake_ends_a_pause_and_nothing_else(clock):
    busy = Deferred()
    service = Scripted(clock, 60.0, busy, 60.0)
    service.startService()
    service.wake()
    assert service.attempts == 2
    service.wake()
    assert not busy.called
    busy.callback(60.0)
    assert service.attempts == 2
    stop(service)


def test_stopping_ends_a_pause(clock):
    service = Scripted(clock, Unavailable("away"))
    service.startService()
    assert stop(service)
    assert service.attempts == 1
    assert not clock.getDelayedCalls()


def test_stopping_waits_for_the_attempt_in_progress(clock):
    busy = Deferred()
    service = Scripted(clock, busy)
    service.startService()
    stopped = stop(service)
    assert not stopped
    busy.callback(0.0)
    assert stopped
    assert service.attempts == 1


def test_stopping_cancels_the_attempt_in_progress_without_a_report_where_the_service_says_so(clock):
    service = Cancelling(clock, Deferred())
    service.startService()
    assert stop(service)
    assert service.failures == []


@pytest.mark.parametrize("last", [None, Unavailable("away")])
def test_draining_goes_on_after_stop_until_there_is_nothing_left_or_an_attempt_fails(clock, last):
    service = Draining(clock, 60.0, 0.0, 60.0, last)
    service.startService()
    assert stop(service)
    assert service.attempts == 4
    assert service.failures == [last] * (last is not None)
    assert not clock.getDelayedCalls()


def test_service_can_be_started_again(clock):
    service = Scripted(clock, 60.0, 60.0)
    service.startService()
    stop(service)
    service.startService()
    assert service.attempts == 2
    stop(service)


def test_state_is_news_when_it_or_its_reason_changes(clock):
    service = Scripted(clock)
    assert service.readiness() == Readiness("scripted", False, "not started")
    assert service._set_state(False, "away")
    assert not service._set_state(False, "away")
    assert service._set_state(True, "away")
    assert service.readiness() == Readiness("scripted", True, "away")


class Broken(SupervisedService):
    name = "broken"

    async def _attempt(self):
        raise ZeroDivisionError("by nothing")


def test_defect_in_an_attempt_is_logged_once_and_is_not_the_end(clock, logged_errors):
    service = Broken(clock, backoff=Backoff(1.0, 1.0))
    service.startService()
    clock.pump([1.0] * 3)
    assert len(logged_errors.flush(ZeroDivisionError)) == 1
    assert service.readiness() == Readiness("broken", False, "ZeroDivisionError: by nothing")
    assert clock.getDelayedCalls()
    stop(service)


@implementer(IDependency)
class Dependency:
    ready = False

    def readiness(self):
        return Readiness("bus", self.ready, "connection refused")


def waited(clock, dependency, **options):
    results = []
    Deferred.fromCoroutine(wait_ready(dependency, clock, **options)).addBoth(results.append)
    return results


def test_wait_ready_returns_once_the_dependency_is_ready(clock):
    dependency = Dependency()
    results = waited(clock, dependency)
    clock.pump([0.05] * 10)
    assert not results
    dependency.ready = True
    clock.advance(0.05)
    assert results == [None]


@pytest.mark.parametrize(
    ("name", "text"), [("", "connection refused"), ("the broker", "the broker: connection refused")]
)
def test_wait_ready_gives_up_with_the_reason(clock, name, text):
    results = waited(clock, Dependency(), seconds=1.0, name=name)
    clock.pump([0.05] * 30)
    error = results[0].value
    assert isinstance(error, Unavailable)
    assert str(error) == text
    results[0].cleanFailure()
