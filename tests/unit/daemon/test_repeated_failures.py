"""What fails again and again is logged when it begins, when it changes, and when it ends."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.logger import formatEvent
from twisted.python.failure import Failure

from meter.daemon.repeated_failures import RepeatedFailures
from meter.interfaces import Unavailable


@pytest.fixture
def work():
    """Return a function that does work, at a second each, and the events that were logged."""
    events, clock = [], Clock()
    failures = RepeatedFailures(Logger(observer=events.append), clock)

    def done(error=None):
        clock.advance(1)
        if error is None:
            failures.succeeded("maintenance")
        else:
            failures.failed("maintenance", Failure(error))

    return done, events


def test_a_failure_is_logged_once_and_so_is_its_end(work):
    done, events = work
    done()
    for _ in range(5):
        done(OSError("the disk is full"))
    done()
    done()
    assert [formatEvent(event) for event in events] == [
        "maintenance failed; it is repeated",
        "maintenance succeeds again; it failed 5 times in 5 s",
    ]
    assert "log_failure" in events[0]


def test_dependency_that_is_unavailable_is_a_state_without_a_traceback(work):
    done, events = work
    done(Unavailable("the store is away"))
    done(Unavailable("the store is away"))
    done(OSError("the disk is full"))
    done(Unavailable("the store is away"))
    assert [formatEvent(event) for event in events] == [
        "maintenance is not possible now: the store is away",
        "maintenance still fails, now for another reason",
        "maintenance is not possible now: the store is away",
    ]
    assert ["log_failure" in event for event in events] == [False, True, False]


def test_another_reason_is_logged(work):
    done, events = work
    done(OSError("the disk is full"))
    done(OSError("permission denied"))
    assert formatEvent(events[1]) == "maintenance still fails, now for another reason"
    assert events[1]["log_failure"].getErrorMessage() == "permission denied"


def test_another_number_is_not_another_reason(work):
    done, events = work
    done(OSError("batch 17 took 3.5 s"))
    done(OSError("batch 18 took 12.25 s"))
    assert len(events) == 1
