"""Rating by itself: steps in order, one process at a time, and what a failing step changes."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from meter.daemon.rating_metrics import RatingMetrics
from meter.interfaces import Unavailable
from meter.rating.rating_service import RatingService


class FakeStep:
    def __init__(self, name, ran):
        self.name = name
        self.ran = ran
        self.error = None

    async def run(self, now):
        self.ran.append((self.name, now))
        if self.error is not None:
            raise self.error


class FakeLock:
    def __init__(self):
        self.free = True
        self.error = None

    async def __call__(self, work):
        if self.error is not None:
            raise self.error
        if self.free:
            await work()
        return self.free


def service(interval=900.0):
    ran, clock, registry, lock = [], Clock(), CollectorRegistry(), FakeLock()
    steps = [FakeStep("usage", ran), FakeStep("budgets", ran)]
    made = RatingService(
        steps, lock, clock, interval_seconds=interval, metrics=RatingMetrics(registry, ["usage", "budgets"])
    )
    return made, steps, ran, clock, registry, lock


def names(ran):
    return [name for name, _ in ran]


def test_steps_run_in_order_at_intervals_with_the_time_of_the_clock():
    made, _, ran, clock, _, _ = service()
    made.startService()
    clock.advance(10)
    assert ran == [(name, datetime.fromtimestamp(10, UTC)) for name in ("usage", "budgets")]
    clock.advance(899)
    assert len(ran) == 2
    clock.advance(1)
    assert names(ran) == ["usage", "budgets"] * 2
    assert made.readiness().ready


def test_a_step_that_fails_stops_no_other_and_is_told_until_it_works(logged_errors):
    made, steps, ran, clock, registry, _ = service()
    steps[0].error = ValueError("the SKU vm has no meter")
    made.startService()
    clock.advance(10)
    clock.advance(900)
    assert names(ran) == ["usage", "budgets"] * 2
    state = made.readiness()
    assert (state.ready, state.needed, state.reason) == (False, False, "usage: the SKU vm has no meter")
    assert len(logged_errors.flush(ValueError)) == 1  # logged once
    assert registry.get_sample_value("meter_rating_step_failures_total", {"step": "usage"}) == 2
    steps[0].error = None
    clock.advance(900)
    assert made.readiness().ready


def test_a_store_that_is_away_is_a_state_and_no_failure_is_logged():
    made, steps, _, clock, _, _ = service()
    steps[1].error = Unavailable("the store is unavailable")
    made.startService()
    clock.advance(10)
    assert made.readiness().reason == "budgets: the store is unavailable"


def test_store_that_is_not_connected_yet_is_no_alarm_at_the_first_run():
    made, _, ran, clock, _, lock = service()
    lock.error = Unavailable("no connection")
    with capturedLogs() as events:
        made.startService()
        clock.advance(10)
        assert (made.readiness().ready, made.readiness().reason) == (True, "it has not run yet: no connection")
        lock.error = None
        clock.advance(900)
    assert names(ran) == ["usage", "budgets"]
    assert [(each["log_level"].name, each["log_format"]) for each in events] == [
        ("info", "rating waits for its next time: {reason}")
    ]


def test_store_that_stays_away_is_told_until_it_is_back():
    made, _, _, clock, _, lock = service()
    lock.error = Unavailable("no connection")
    with capturedLogs() as events:
        made.startService()
        clock.advance(10)
        clock.advance(900)
        assert made.readiness().reason == "lock: no connection"
        lock.error = None
        clock.advance(900)
    assert [each["log_level"].name for each in events] == ["info", "warn", "info"]
    assert made.readiness().ready


def test_while_another_process_rates_nothing_runs():
    made, _, ran, clock, _, lock = service()
    lock.free = False
    made.startService()
    clock.advance(10)
    assert not ran
    assert made.readiness().reason == "another process rates at present"


def test_stopping_waits_for_the_step_and_begins_no_other():
    made, steps, ran, clock, _, _ = service()
    going: Deferred[None] = Deferred()

    async def slow(now):
        ran.append(("usage", now))
        await going

    steps[0].run = slow
    made.startService()
    clock.advance(10)
    stopped = made.stopService()
    assert not stopped.called
    going.callback(None)
    assert stopped.called
    assert names(ran) == ["usage"]
