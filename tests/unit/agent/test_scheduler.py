"""When an agent polls."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from meter.agent.scheduler import AlignedSchedule

NOON = 1_700_006_400  # a multiple of 300, of 60 and of 40
Runs = list[tuple[float, set[float]]]


def timetable(clock: Clock, runs: Runs, *intervals: float, seconds: float = 0.0, **more: object) -> AlignedSchedule:
    async def work(due: frozenset[float]) -> None:
        runs.append((clock.seconds() - NOON, set(due)))
        clock.rightNow += seconds  # a run that takes its time

    service = AlignedSchedule(work, intervals, clock, name="polling", **more)  # type: ignore[arg-type]
    service.startService()
    return service


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.advance(NOON + 7)
    return clock


def test_first_run_is_at_once_and_later_runs_are_aligned(clock: Clock) -> None:
    runs: Runs = []
    timetable(clock, runs, 60)
    clock.pump([0] + [1] * 130)
    assert runs == [(7, {60}), (60, {60}), (120, {60})]


def test_intervals_due_at_the_same_time_run_together(clock: Clock) -> None:
    runs: Runs = []
    timetable(clock, runs, 60, 40)
    clock.pump([0] + [1] * 115)
    assert runs == [(7, {40, 60}), (40, {40}), (60, {60}), (80, {40}), (120, {40, 60})]


def test_offset_moves_all_runs(clock: Clock) -> None:
    runs: Runs = []
    timetable(clock, runs, 60, offset_seconds=2.5)
    clock.pump([0.5] * 240)
    assert [at for at, _ in runs] == [9.5, 62.5, 122.5]


def test_runs_missed_by_a_long_run_are_skipped_and_counted(clock: Clock) -> None:
    runs: Runs = []
    skipped: list[tuple[float, ...]] = []
    timetable(clock, runs, 60, seconds=125, on_skipped=lambda *cycles: skipped.append(cycles))
    clock.advance(0)
    assert skipped == [(60, 2, NOON + 60, NOON + 120)]
    clock.pump([1] * 50)
    assert [at for at, _ in runs] == [7, 180]


def test_fractional_intervals_run_once_per_slot(clock: Clock) -> None:
    runs: Runs = []
    timetable(clock, runs, 0.1)
    clock.pump([0] + [0.01] * 102)
    assert len(runs) == 11


@pytest.mark.parametrize("stop_at", ["waiting", "working"])
def test_stop_waits_for_the_run_in_progress(clock: Clock, stop_at: str) -> None:
    working: Deferred[None] = Deferred()

    async def work(_: object) -> None:
        await working

    service = AlignedSchedule(work, [60], clock, name="polling")
    service.startService()
    clock.advance(0)
    if stop_at == "waiting":
        working.callback(None)
    stopped = service.stopService()
    assert stopped is not None
    if stop_at == "working":
        assert not stopped.called
        working.callback(None)
    assert stopped.called
    assert clock.getDelayedCalls() == []


def test_failed_run_is_not_the_end(clock: Clock, logged_errors: object) -> None:
    runs = []

    async def work(_: object) -> None:
        runs.append(clock.seconds())
        raise RuntimeError("no luck")

    AlignedSchedule(work, [60], clock, name="polling").startService()
    with capturedLogs():
        clock.pump([1] * 120)
    assert len(runs) == 3
    logged_errors.flush(RuntimeError)  # type: ignore[attr-defined]


def test_schedule_without_intervals_does_nothing(clock: Clock) -> None:
    service = AlignedSchedule(lambda _: Deferred(), [], clock, name="polling")
    service.startService()
    stopped = service.stopService()
    assert stopped is not None
    assert stopped.called


def test_other_intervals_begin_at_their_next_multiple_and_those_that_stay_keep_their_time(clock: Clock) -> None:
    runs: Runs = []
    schedule = timetable(clock, runs, 60, 300)
    clock.pump([0] + [1] * 20)  # 27 seconds after noon
    schedule.set_intervals({20, 300})
    clock.pump([1] * 50)
    assert runs == [(7, {60, 300}), (40, {20}), (60, {20})]
    clock.advance(223)
    assert runs[-1] == (300, {20, 300})


def test_schedule_without_intervals_waits_for_some(clock: Clock) -> None:
    runs: Runs = []
    schedule = timetable(clock, runs)
    clock.pump([1] * 10)
    schedule.set_intervals({60})
    clock.pump([1] * 50)
    schedule.set_intervals(())
    clock.pump([1] * 100)
    assert runs == [(60, {60})]
    schedule.stopService()
    assert clock.getDelayedCalls() == []


def test_interval_that_is_removed_during_its_run_does_not_come_back(clock: Clock) -> None:
    runs: list[set[float]] = []
    waiting: Deferred[None] = Deferred()

    async def work(due: frozenset[float]) -> None:
        runs.append(set(due))
        await waiting

    schedule = AlignedSchedule(work, (60,), clock, name="polling")
    schedule.startService()
    clock.advance(0)
    schedule.set_intervals({40})
    waiting.callback(None)
    clock.pump([1] * 80)
    assert runs == [{60}, {40}, {40}]


def test_other_intervals_before_the_first_run_do_not_postpone_it(clock: Clock) -> None:
    runs: Runs = []
    schedule = timetable(clock, runs, 60, offset_seconds=5)
    clock.advance(2)
    schedule.set_intervals({60, 300})
    clock.pump([1] * 4)
    assert runs == [(12, {60})]
