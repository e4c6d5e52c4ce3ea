"""What ``/readyz`` says of dead letters: how many there were of which kind, and whether their queue is full."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from meter.daemon.services import wall_seconds
from meter.interfaces import IDependency
from meter.interfaces import Readiness

FORGED = ("unverified", "conflict")
"""Kinds of dead letters that may be forged messages: they are named first."""


@dataclass(slots=True)
class _Kind:
    count: int = 0
    last: str = ""


@implementer(IDependency)
class DeadLetterStatus:
    """Counts dead letters by kind: :meth:`count` is the ``count`` of a dead letter publisher, and calls ``then`` too.

    ``queued`` returns the number of dead letters in the queue, ``None`` if it is unknown, and whether the queue is full.
    Dead letters do not affect readiness; while their queue is full the daemon is degraded.
    """

    def __init__(
        self,
        clock: IReactorTime,
        then: Callable[[str], object],
        queued: Callable[[], tuple[int | None, bool]] = lambda: (None, False),
    ) -> None:
        self._clock = clock
        self._then = then
        self._queued = queued
        self._kinds: dict[str, _Kind] = {}

    def count(self, kind: str) -> None:
        """Count a dead letter."""
        found = self._kinds.setdefault(kind, _Kind())
        found.count += 1
        found.last = datetime.fromtimestamp(wall_seconds(self._clock), UTC).isoformat(timespec="seconds")
        self._then(kind)

    def readiness(self) -> Readiness:
        """Return ready unless the queue is full; the reason has each kind with its number and the time of the last one."""
        order = sorted(self._kinds, key=lambda kind: (kind not in FORGED, kind))
        seen = ", ".join(f"{kind} {self._kinds[kind].count} (last {self._kinds[kind].last})" for kind in order)
        reason = f"since the start: {seen}" if seen else "none since the start"
        queued, full = self._queued()
        if full:
            reason = f"the queue is full with {queued}, so bad messages wait; {reason}"
        elif queued is not None:
            reason = f"{queued} in the queue; {reason}"
        return Readiness("dead letters", not full, reason, needed=False)
