"""Signals: the first asks a daemon to stop in order, a second one stops it at once."""

from __future__ import annotations

import signal
from typing import Any


def heed_a_second_signal(reactor: Any) -> None:
    """From the moment ``reactor`` begins to stop, let SIGTERM and SIGINT end the process the way they end any other.

    Twisted would ignore them until every part has stopped. Nothing is lost by it, no more than by SIGKILL.
    """
    reactor.addSystemEventTrigger("before", "shutdown", _let_signals_end_the_process)


def _let_signals_end_the_process() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
