"""Order, timeouts and repetition of services, with a clock that the test advances."""

from contextlib import suppress

import pytest
from twisted.application.service import Service
from twisted.internet.defer import CancelledError
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.task import Clock

from meter.daemon.services import Backoff
from meter.daemon.services import InFlight
from meter.daemon.services import Periodic
from meter.daemon.services import StagedService
from meter.daemon.services import sleep
from meter.daemon.services import within


class Part(Service):
    def __init__(self, name, diary, stopping=None):
        self.name = name
        self.diary = diary
        self.stopping = stopping

    def startService(self):
        super().startService()
        self.diary.append(f"start {self.name}")

    def stopService(self):
        super().stopService()
        self.diary.append(f"stop {self.name}")
        return self.stopping


def test_children_stop_one_after_another_in_reverse_order():
    diary, polls_end = [], Deferred()
    whole = StagedService(Clock())
    Part("bus", diary).setServiceParent(whole)
    Part("polling", diary, polls_end).setServiceParent(whole)
    whole.startService()

    stopped = whole.stopService()

    assert diary == ["start bus", "start polling", "stop polling"]
    assert not stopped.called
    polls_end.callback(None)
    assert diary[-1] == "stop bus"
    assert stopped.called


def test_child_that_never_stops_times_out_and_is_counted():
    clock, diary = Clock(), []
    whole = StagedService(clock, patience=5)
    Part("bus", diary).setServiceParent(whole)
    Part("stuck", diary, Deferred(lambda _: None)).setServiceParent(whole)
    whole.startService()

    stopped = whole.stopService()
    clock.advance(5)

    assert diary[-1] == "stop bus"
    assert stopped.called
    assert whole.timed_out == 1


def test_children_have_a_common_time_limit():
    clock, diary = Clock(), []
    whole = StagedService(clock, patience=5, max_seconds=8)
    for name in ("a", "b", "c", "d"):
        Part(name, diary, Deferred(lambda _: None)).setServiceParent(whole)
    whole.startService()

    stopped = whole.stopService()
    clock.pump([5, 3, 0, 0])

    assert stopped.called
    assert diary[-4:] == ["stop d", "stop c", "stop b", "stop a"]
    assert whole.timed_out == 4


def test_timeouts_of_nested_services_are_included():
    clock = Clock()
    whole = StagedService(clock, patience=5)
    bus = StagedService(clock, patience=2)
    bus.setServiceParent(whole)
    Part("stuck", [], Deferred(lambda _: None)).setServiceParent(bus)
    whole.startService()

    stopped = whole.stopService()
    clock.advance(2)

    assert stopped.called
    assert whole.timed_out == 1


def periodic(clock, work, **more):
    service = Periodic(work, 10.0, clock, name="work", **more)
    service.startService()
    return service


def test_periodic_work_repeats_at_its_interval():
    clock, runs = Clock(), []

    async def work():
        runs.append(clock.seconds())

    service = periodic(clock, work, first_after=1.0)
    for _ in range(30):
        clock.advance(1)

    assert runs == [1, 11, 21]
    service.stopService()
    clock.advance(100)
    assert len(runs) == 3
    assert clock.getDelayedCalls() == []


def test_periodic_work_repeats_at_another_interval_once_it_is_set():
    clock, runs = Clock(), []
    wait = Deferred()

    async def work():
        runs.append(clock.seconds())
        if len(runs) == 4:
            await wait

    service = periodic(clock, work)  # every 10 s
    clock.advance(0)
    clock.advance(1)
    service.set_interval(3.0)
    assert runs == [0]  # the change itself runs nothing
    for _ in range(6):
        clock.advance(1)
    assert runs == [0, 4, 7]
    service.set_interval(100.0)
    for _ in range(3):
        clock.advance(1)
    assert runs == [0, 4, 7, 10]
    service.set_interval(5.0)  # during a run
    wait.callback(None)
    for _ in range(12):
        clock.advance(1)
    assert runs[4:] == [15, 20]
    service.stopService()


def test_periodic_failure_is_counted_and_not_the_end(logged_errors):
    clock, runs = Clock(), []

    async def work():
        runs.append(1)
        raise RuntimeError("no")

    service = periodic(clock, work)
    clock.advance(10)

    assert len(runs) == 2
    assert service.failures == 2
    assert len(logged_errors.flush(RuntimeError)) == 1  # the second is the same
    service.stopService()


def test_late_periodic_work_does_not_overlap_and_skips_missed_runs():
    clock, runs = Clock(), []

    async def work():
        runs.append(clock.seconds())
        await sleep(clock, 25 if len(runs) == 1 else 0)

    service = periodic(clock, work)
    clock.advance(0)
    for _ in range(50):
        clock.advance(1)

    assert runs == [0, 30, 40, 50]
    assert service.skipped == 2
    service.stopService()


def test_stop_waits_for_the_run_in_progress():
    clock, ending = Clock(), Deferred()

    async def work():
        await ending

    service = periodic(clock, work)
    clock.advance(0)
    stopped = service.stopService()

    assert not stopped.called
    ending.callback(None)
    assert stopped.called


def test_timeout_holds_for_work_that_ignores_cancellation():
    clock, failures = Clock(), []

    async def stubborn():
        for _ in range(3):
            with suppress(CancelledError):
                await sleep(clock, 5)

    within(clock, 3, stubborn()).addErrback(failures.append)
    clock.advance(3)

    assert failures[0].check(DeferredTimeout)
    clock.pump([5, 5])


def test_work_within_its_time_leaves_no_timer():
    clock = Clock()
    results = []
    within(clock, 3, sleep(clock, 1)).addCallback(results.append)

    clock.advance(1)

    assert results == [None]
    assert clock.getDelayedCalls() == []


def test_backoff_doubles_up_to_its_maximum_and_starts_again():
    backoff = Backoff(1.0, 8.0, rng=lambda: 1.0)

    assert [backoff.next() for _ in range(5)] == [1, 2, 4, 8, 8]
    backoff.reset()
    assert backoff.next() == 1


@pytest.mark.parametrize("chance", [0.0, 0.999])
def test_backoff_jitter_is_within_the_second_half(chance):
    assert 0.5 <= Backoff(1.0, rng=lambda: chance).next() <= 1.0


def test_idle_fires_when_the_last_work_ends():
    in_flight, idle = InFlight(), []
    with in_flight:
        in_flight.idle().addCallback(lambda _: idle.append("now"))
        assert idle == []
    assert idle == ["now"]
    in_flight.idle().addCallback(lambda _: idle.append("at once"))
    assert idle == ["now", "at once"]
