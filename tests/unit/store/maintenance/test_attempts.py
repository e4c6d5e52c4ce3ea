"""What has failed is tried again soon, and then ever more seldom; what is done or gone is forgotten."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from meter.interfaces import Unavailable
from meter.store.maintenance.attempts import FailedAttempts
from meter.store.maintenance.attempts import RetriedWork

MINUTE, HOUR = 60.0, 3600.0


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def attempts(clock):
    return FailedAttempts[str](clock, MINUTE, HOUR)


def pauses(attempts, clock, count, took=0.0):
    """Return the pauses after ``count`` attempts that fail, in seconds."""
    found = []
    for _ in range(count):
        began = clock.seconds()
        clock.advance(took)
        attempts.failed("hour", began)
        failed = clock.seconds()
        while attempts.wait("hour"):
            clock.advance(1)
        found.append(clock.seconds() - failed)
    return found


def test_pauses_begin_short_and_double_up_to_the_longest(attempts, clock):
    found = pauses(attempts, clock, 12)
    for number, pause in enumerate(found):
        length = min(HOUR, MINUTE * 2**number)
        assert length / 2 <= pause <= length + 1
    attempts.succeeded("hour")
    [again] = pauses(attempts, clock, 1)
    assert again <= MINUTE + 1


def test_no_pause_is_shorter_than_the_attempt(attempts, clock):
    assert all(pause >= 900 for pause in pauses(attempts, clock, 5, took=900.0))


def test_each_key_waits_for_itself(attempts, clock):
    assert not attempts.wait("hour")
    attempts.failed("hour", clock.seconds())
    assert (attempts.wait("hour"), attempts.wait("day"), list(attempts.pending())) == (True, False, ["hour"])
    attempts.succeeded("hour")
    attempts.succeeded("never failed")
    assert (attempts.wait("hour"), list(attempts.pending())) == (False, [])


def test_what_was_not_tried_for_long_is_forgotten(attempts, clock):
    attempts.failed("hour", clock.seconds())
    clock.advance(HOUR)
    attempts.forget_abandoned()
    assert list(attempts.pending()) == ["hour"]
    clock.advance(MINUTE + 1)
    attempts.forget_abandoned()
    assert list(attempts.pending()) == []


class Work:
    """Takes ``seconds`` of the clock and raises ``error``, if there is one; ``began`` are the times at which it was done."""

    def __init__(self, clock):
        self._clock = clock
        self.seconds = 0.0
        self.error = None
        self.began = []

    async def __call__(self):
        self.began.append(self._clock.seconds())
        self._clock.rightNow += self.seconds
        if self.error:
            raise self.error


def pass_time(clock, seconds):
    """Let time pass second by second, so that work is done when it is due."""
    clock.pump([1.0] * int(seconds))


@pytest.mark.parametrize(("seconds", "error"), [(0.0, Unavailable("locked")), (900.0, OSError("cancelled"))], ids=str)
def test_work_that_fails_is_done_again_soon_and_then_at_its_interval(clock, logged_errors, seconds, error):
    work = Work(clock)
    work.seconds, work.error = seconds, error
    periodic = RetriedWork(work, HOUR, clock, name="store packing", retry_seconds=MINUTE)
    periodic.startService()
    pass_time(clock, HOUR)
    assert work.began == [HOUR]
    pass_time(clock, 12 * HOUR)
    ends = [began + seconds for began in work.began]
    found = [began - end for end, began in zip(ends, work.began[1:], strict=False)]
    for number, pause in enumerate(found):
        length = min(HOUR, MINUTE * 2**number)
        assert length / 2 <= pause <= length + 1
    assert len(found) >= 10
    work.error, work.seconds = None, 0.0
    pass_time(clock, 4 * HOUR)
    last, before = work.began[-1], work.began[-2]
    assert HOUR - 1 <= last - before <= HOUR + 1
    assert periodic.skipped == 0
    periodic.stopService()
    logged_errors.flush(OSError)
