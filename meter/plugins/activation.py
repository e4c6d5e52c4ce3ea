"""Activation: calls ``enabled()`` of each installed plugin at start, then starts a service with the active ones."""

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
    """Starts the service that ``make`` returns for the active plugins, once ``enabled()`` of all ``candidates`` has returned.

    ``decisions`` has the present state of each plugin, for the manhole. ``context`` is passed to their ``enabled()``.
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
        self._service: IService | None = None
        self.decisions = tuple(candidates)

    def startService(self) -> None:
        """Begin to call ``enabled()`` of the plugins; return at once."""
        super().startService()
        self._asking = Deferred.fromCoroutine(self._activate())

    async def _activate(self) -> None:
        self.decisions = tuple(await decide(self.decisions, self.context, self.context.clock))
        self._log.info(
            "{name}: installed plugins and their states\n{report}", name=self.name, report=report(self.decisions)
        )
        if self.running:
            self._service = self._make([each for each in self.decisions if each.state == "active"])
            self._service.startService()

    def stopService(self) -> Deferred[None]:
        """Return a Deferred that fires when the started service has stopped."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            with contextlib.suppress(CancelledError, FirstError):
                await self._asking
        service, self._service = self._service, None
        if service is not None:
            await maybeDeferred(service.stopService)
