"""SIGHUP: a reload, or the end of the terminal that the daemon was started in."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import pytest

from meter.taps.signals import reload_on_hangup


class Thread:
    """A reactor that calls at once."""

    def callFromThread(self, function: Callable[[], Any]) -> None:
        function()


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def hang_up(*, had: bool, has: bool) -> tuple[int, int]:
    """Send SIGHUP to this process; return how often it was reloaded and told to stop."""
    reloads: list[int] = []
    stops: list[int] = []
    answers = iter([had, has])
    signal.signal(signal.SIGTERM, lambda number, _: stops.append(number))
    reload_on_hangup(Thread(), lambda: reloads.append(1), has_terminal=lambda: next(answers))
    os.kill(os.getpid(), signal.SIGHUP)
    return len(reloads), len(stops)


@pytest.mark.parametrize(("had", "has"), [(False, False), (True, True)])
def test_sighup_reloads(had: bool, has: bool) -> None:
    assert hang_up(had=had, has=has) == (1, 0)


def test_terminal_that_is_closed_stops_the_daemon() -> None:
    assert hang_up(had=True, has=False) == (0, 1)
