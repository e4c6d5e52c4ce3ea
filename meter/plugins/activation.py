"""Activation: asks installed plugins at start whether they are enabled here, then starts what works with those that are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from collections.abc import Sequence

from twisted.application.service import IService
from twisted.application.service import Service
from twisted.internet.defer import CancelledError
from twisted.internet.defer import Deferred
from twisted.internet.defer import FirstError
from twisted.internet.defer import maybeDeferred
from twisted.logger import Logger

from meter.interfaces import IPluginContext
from meter.plugins.registry import Decision
from meter.plugins.registry import decide
from meter.plugins.registry import report


class Activation(Service):
    """Starts ``make(active decisions)``, a service, once every candidate has answered; stops it when stopped.

    ``decisions`` is what is known of each plugin so far: for the manhole, and for whoever wonders why one is silent;
    ``here`` is what they are asked about.
    """

    _log = Logger()

    def __init__(
        self,
        candidates: Sequence[Decision],
        context: IPluginContext,
        make: Callable[[Sequence[Decision]], IService],
        *,
        name: str,
    ) -> None:
        self.setName(name)
        self.context = context
        self._make = make
        self._asking: Deferred[None] | None = None
        self._made: IService | None = None
        self.decisions = tuple(candidates)

    def startService(self) -> None:
        """Begin to ask; returns at once."""
        super().startService()
        self._asking = Deferred.fromCoroutine(self._activate())

    async def _activate(self) -> None:
        self.decisions = tuple(await decide(self.decisions, self.context, self.context.clock))
        self._log.info(
            "{name}: what is installed, and what works here\n{report}", name=self.name, report=report(self.decisions)
        )
        if self.running:
            self._made = self._make([each for each in self.decisions if each.state == "active"])
            self._made.startService()

    def stopService(self) -> Deferred[None]:
        """Fire when the service that was made has stopped."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            with contextlib.suppress(CancelledError, FirstError):
                await self._asking
        made, self._made = self._made, None
        if made is not None:
            await maybeDeferred(made.stopService)
