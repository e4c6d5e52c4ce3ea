"""Signals: the first SIGTERM or SIGINT stops a daemon in order, a second one ends the process at once; SIGHUP reloads."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

ENDING = (signal.SIGTERM, signal.SIGINT)


def exit_on_second_signal(reactor: Any) -> None:
    """Restore the default action of SIGTERM and SIGINT as soon as ``reactor`` begins to stop.

    Twisted would ignore both until every service has stopped. Like SIGKILL, a second signal loses no samples.
    """
    reactor.addSystemEventTrigger("after", "startup", _handle_first_signal)
    reactor.addSystemEventTrigger("before", "shutdown", _restore_default_actions)


def _handle_first_signal() -> None:
    """Ignore further signals until the reactor has handled the first: Twisted 26.10 logs a traceback for each.

    Stopping a daemon by its process group and by its process id sends two signals at once that mean one.
    """
    for number in ENDING:
        stop = signal.getsignal(number)
        if callable(stop):  # the reactor's handler; SIGINT has none if it was ignored when the process started
            signal.signal(number, _ignore_others_after(stop))


def _ignore_others_after(stop: Any) -> Any:
    def handle(number: int, frame: Any) -> None:
        for each in ENDING:
            signal.signal(each, signal.SIG_IGN)
        stop(number, frame)

    return handle


def _restore_default_actions() -> None:
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)


def reload_on_hangup(
    reactor: Any, reload: Callable[[], object], *, has_terminal: Callable[[], bool] | None = None
) -> None:
    """Call ``reload`` in the reactor's thread at each SIGHUP, already before ``reactor`` runs.

    A terminal that is closed sends SIGHUP as well: a daemon that runs in its foreground stops then, as before. Not one that ``nohup``
    has started, which made SIGHUP ignored.
    """
    terminal = has_terminal or _has_terminal
    in_terminal: list[bool] = []

    def handle(number: int, frame: Any) -> None:
        if any(in_terminal) and not terminal():
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            reactor.callFromThread(reload)

    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        # Not now: twistd may leave the terminal, as a daemon, before it runs the reactor.
        reactor.addSystemEventTrigger("after", "startup", lambda: in_terminal.append(terminal()))
    signal.signal(signal.SIGHUP, handle)


def _has_terminal() -> bool:
    """Return whether this process has a controlling terminal, which it loses when that is closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
