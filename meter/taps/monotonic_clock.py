"""Timers that do not notice when somebody sets the clock.

Twisted (26.10, its ticket 2424) counts the time of its timers by ``time.time()``. When a clock is set back by an hour, nothing that
is due happens for an hour: no poll, no heartbeat, no time-out. Shown by the campaign's fault "the clock set back".
"""

from __future__ import annotations

import time
from typing import Any


def use_monotonic_clock(reactor: Any) -> None:
    """Have ``reactor.seconds`` count on from now whatever becomes of the clock; ``reactor.wall_seconds`` is the clock's.

    The two agree until the clock is set; :func:`meter.daemon.services.wall_seconds` is for whoever means the time of day.
    """
    ahead = time.time() - time.monotonic()
    reactor.seconds = lambda: time.monotonic() + ahead
    reactor.wall_seconds = time.time
