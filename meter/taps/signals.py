"""Signals: the first asks a daemon to stop in order, a second one stops it at once."""

from __future__ import annotations

import signal
from typing import Any

ENDING = (signal.SIGTERM, signal.SIGINT)


def exit_on_second_signal(reactor: Any) -> None:
    """From the moment ``reactor`` begins to stop, let SIGTERM and SIGINT end the process the way they end any other.

    Twisted would ignore them until every part has stopped. Nothing is lost by it, no more than by SIGKILL.
    """
    reactor.addSystemEventTrigger("after", "startup", _heed_one_alone)
    reactor.addSystemEventTrigger("before", "shutdown", _let_signals_end_the_process)


def _heed_one_alone() -> None:
    """Let nothing follow the first signal before the reactor has seen it: Twisted 26.10 logs a traceback for each.

    Who stops a daemon by its process group and by its number sends two in one moment, and means one.
    """
    for number in ENDING:
        stop = signal.getsignal(number)
        if callable(stop):  # it is the reactor's: SIGINT is not where it was ignored from the start
            signal.signal(number, _ignoring_others(stop))


def _ignoring_others(stop: Any) -> Any:
    def heed(number: int, frame: Any) -> None:
        for each in ENDING:
            signal.signal(each, signal.SIG_IGN)
        stop(number, frame)

    return heed


def _let_signals_end_the_process() -> None:
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)
