"""SIGHUP: a reload, or the end of the terminal that the daemon was started in."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import pytest

from meter.taps.signals import reload_on_hangup


class StartingReactor:
    """A reactor that calls at once, and begins to run when it is told to."""

    def __init__(self) -> None:
        self.at_startup: list[Callable[[], Any]] = []

    def callFromThread(self, function: Callable[[], Any]) -> None:
        function()

    def addSystemEventTrigger(self, phase: str, event: str, function: Callable[[], Any]) -> None:
        assert (phase, event) == ("after", "startup")
        self.at_startup.append(function)

    def start(self) -> None:
        for each in self.at_startup:
            each()


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def hang_up(*, had: bool, has: bool, running: bool = True, before: Any = signal.SIG_DFL) -> tuple[int, int]:
    """Send SIGHUP to this process; return how often it was reloaded and told to stop."""
    reloads: list[int] = []
    stops: list[int] = []
    states = [had]
    reactor = StartingReactor()
    signal.signal(signal.SIGTERM, lambda number, _: stops.append(number))
    signal.signal(signal.SIGHUP, before)
    reload_on_hangup(reactor, lambda: reloads.append(1), has_terminal=lambda: states[-1])
    if running:
        reactor.start()
    states.append(has)
    os.kill(os.getpid(), signal.SIGHUP)
    return len(reloads), len(stops)


@pytest.mark.parametrize(("had", "has"), [(False, False), (True, True)])
def test_sighup_reloads(had: bool, has: bool) -> None:
    assert hang_up(had=had, has=has) == (1, 0)


def test_terminal_that_is_closed_stops_the_daemon() -> None:
    assert hang_up(had=True, has=False) == (0, 1)


def test_daemon_that_leaves_its_terminal_before_the_reactor_runs_is_reloaded() -> None:
    assert hang_up(had=True, has=False, running=False) == (1, 0)


def test_nohup_is_respected_when_the_terminal_is_closed() -> None:
    assert hang_up(had=True, has=False, before=signal.SIG_IGN) == (1, 0)
