"""What ``twistd meter`` logs for who tries it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.defer import succeed
from twisted.logger import capturedLogs
from twisted.logger import formatEvent

from meter.taps.single import StoredSamplesLog


def test_samples_of_two_cycles_that_are_stored_at_once_are_logged_once() -> None:
    tally, empty = StoredSamplesLog(), [Deferred[Any](), Deferred[Any]()]
    waiting = iter(empty)
    outbox = cast(Any, SimpleNamespace(when_empty=lambda: next(waiting)))
    tally.tell(outbox, cast(Any, None))
    tally.tell(outbox, cast(Any, None))
    tally.committed(
        cast(Any, [SimpleNamespace(name="cpu"), SimpleNamespace(name="memory")]), cast(Any, SimpleNamespace(stored=34))
    )
    with capturedLogs() as logs:
        for each in empty:
            each.callback(None)
    assert [formatEvent(each) for each in logs] == ["stored 34 samples of 2 meters"]


def test_samples_that_were_stored_before_are_logged_as_none() -> None:
    tally = StoredSamplesLog()
    tally.committed(cast(Any, [SimpleNamespace(name="cpu")]), cast(Any, SimpleNamespace(stored=0)))
    with capturedLogs() as logs:
        tally.tell(cast(Any, SimpleNamespace(when_empty=lambda: succeed(None))), cast(Any, None))
    assert [formatEvent(each) for each in logs] == ["stored 0 samples of 1 meters"]
