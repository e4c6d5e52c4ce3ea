"""Measures the lag of the reactor: how late it makes delayed calls."""

from __future__ import annotations

from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.interfaces import IReactorTime


class ReactorLag(Service):
    """Measures every ``interval`` seconds how late ``clock`` makes a call, and passes the seconds to ``observe``.

    A late reactor is busy: with code that blocks, or with more work than one processor can do.
    """

    def __init__(self, clock: IReactorTime, observe: Callable[[float], None], interval: float = 1.0) -> None:
        self.setName("reactor lag")
        self._clock = clock
        self._observe = observe
        self._interval = interval
        self._call: IDelayedCall | None = None

    def startService(self) -> None:
        """Start measuring."""
        super().startService()
        self._expect()

    def stopService(self) -> None:
        """Stop measuring."""
        super().stopService()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _expect(self) -> None:
        self._call = self._clock.callLater(self._interval, self._measure, self._clock.seconds() + self._interval)

    def _measure(self, due: float) -> None:
        self._observe(max(0.0, self._clock.seconds() - due))
        self._expect()
