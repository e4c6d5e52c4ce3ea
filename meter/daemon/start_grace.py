"""StartGrace: the time after the start in which it is normal that something does not work yet."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

START_SECONDS = 15.0
"""How long a connection may take to be made after the start before that is a warning."""


class StartGrace:
    """Is active from ``begin`` until ``end`` is called, because what starts has worked once, or until ``seconds`` are over.

    While it is active, a failure is logged at level info: the embedded PostgreSQL server is still being created, or the host
    boots and its services start in any order.
    """

    def __init__(self, clock: IReactorTime, seconds: float = START_SECONDS) -> None:
        self._clock = clock
        self._seconds = seconds
        self._until: float | None = None

    def begin(self) -> None:
        """Begin to count the seconds."""
        self._until = self._clock.seconds() + self._seconds

    def end(self) -> None:
        """End it: from now on a failure is a loss."""
        self._until = None

    @property
    def active(self) -> bool:
        """Whether a failure is still normal."""
        return self._until is not None and self._clock.seconds() < self._until
