"""Reactor timers on the monotonic clock, so that setting the system clock does not affect them.

Twisted (26.10, ticket 2424) schedules timers by ``time.time()``. After the system clock is set back by an hour, no timer
fires for an hour: no poll, no heartbeat, no time-out. The fault "the clock set back" of ``make chaos`` shows it.
"""

from __future__ import annotations

import time
from typing import Any


def use_monotonic_clock(reactor: Any) -> None:
    """Make ``reactor.seconds`` monotonic, and add ``reactor.wall_seconds``, the time of the system clock.

    The two are equal until the system clock is set. For the time of day use :func:`meter.daemon.services.wall_seconds`.
    """
    ahead = time.time() - time.monotonic()
    reactor.seconds = lambda: time.monotonic() + ahead
    reactor.wall_seconds = time.time
