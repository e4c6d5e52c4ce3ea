"""A test leaves nothing behind: no delayed call, no open socket or pipe, no error in the log that it did not expect.

Under pytest-twisted every test runs inside one reactor, which forgives all three. Here they fail the test that did it,
and are cleared away so that the next test starts clean. A test that provokes errors asks for ``logged_errors``
and takes them::

    def test_a_poll_that_raises_is_logged(logged_errors):
        ...
        [event] = logged_errors.flush(ZeroDivisionError)
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.error import ConnectionAborted
from twisted.internet.task import deferLater
from twisted.logger import LogEvent
from twisted.logger import LogLevel
from twisted.logger import eventAsText
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

GRACE_SECONDS = 10.0
"""How long a closed connection may take to go: its last events need some turns of the reactor, and its other end may be
a process that waits for a processor."""

CLEARING_ATTEMPTS = 500


class LoggedErrors:
    """What was logged at level *error* or above during a test and not yet taken."""

    def __init__(self) -> None:
        self._events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        """Observe one event; unhandled errors of Deferreds come this way too."""
        # Deferred logs a headline, then the failure itself.
        headline = event.get("log_namespace") == "twisted.internet.defer" and "log_failure" not in event
        if event.get("log_level", LogLevel.info) >= LogLevel.error and not headline:
            self._events.append(event)

    def flush(self, *types: type[BaseException]) -> list[LogEvent]:
        """Take and return the events whose failure is one of ``types``; without types, all events."""
        # An unhandled error of a Deferred is logged when the Deferred is collected.
        gc.collect()
        taken = [event for event in self._events if not types or _is_about(event, types)]
        self._events = [event for event in self._events if event not in taken]
        return taken


def _is_about(event: LogEvent, types: tuple[type[BaseException], ...]) -> bool:
    failure = event.get("log_failure")
    return failure is not None and failure.check(*types) is not None


class _Belongings:
    """The delayed calls and the readers and writers that the reactor has beyond those it had at first."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._delayed = set(reactor.getDelayedCalls())
        self._selectables = self._all_selectables()

    def _all_selectables(self) -> set[Any]:
        return {*self._reactor.getReaders(), *self._reactor.getWriters()}

    def delayed(self) -> list[Any]:
        return [call for call in self._reactor.getDelayedCalls() if call not in self._delayed and call.active()]

    def selectables(self) -> list[Any]:
        return [each for each in self._all_selectables() if each not in self._selectables]

    def finalize(self) -> None:
        """Turn the reactor until nothing is left, or until the grace is over."""
        for _ in range(CLEARING_ATTEMPTS):
            if not (self.delayed() or self.selectables()):
                return
            pytest_twisted.blockon(deferLater(self._reactor, GRACE_SECONDS / CLEARING_ATTEMPTS))

    def clear(self) -> list[str]:
        """Cancel and close what is left, and return a line for each."""
        lines = []
        for call in self.delayed():
            lines.append(f"left a delayed call: {call}")
            call.cancel()
        for selectable in self.selectables():
            lines.append(f"left open: {selectable!r}")
            self._reactor.removeReader(selectable)
            self._reactor.removeWriter(selectable)
            with suppress(Exception):
                selectable.connectionLost(Failure(ConnectionAborted("left open by a test")))
        return lines


@pytest.fixture(autouse=True)
def logged_errors() -> Iterator[LoggedErrors]:
    """Errors logged during this test; whatever is not flushed fails it, as does anything it leaves in the reactor."""
    from twisted.internet import reactor

    # The first turn starts the reactor and makes what it needs for itself.
    pytest_twisted.blockon(deferLater(reactor, 0))
    errors = LoggedErrors()
    belongings = _Belongings(reactor)
    globalLogPublisher.addObserver(errors)
    try:
        yield errors
        belongings.finalize()
        lines = belongings.clear()
        lines += [
            f"logged an error: {eventAsText(event, includeTimestamp=False, includeSystem=False)}"
            for event in errors.flush()
        ]
    finally:
        globalLogPublisher.removeObserver(errors)
        # What outlives a test is out of the collector's sight from now on: the next test only pays for its own.
        gc.freeze()
    if lines:
        pytest.fail("The test " + "\nThe test ".join(lines), pytrace=False)


def pytest_collection_finish() -> None:
    """Take all that was imported out of the garbage collector's sight, which makes a collection per test affordable."""
    gc.collect()
    gc.freeze()
