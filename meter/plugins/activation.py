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

from meter.daemon.locks import Lock
from meter.interfaces import IPluginContext
from meter.plugins.registry import Decision
from meter.plugins.registry import decide
from meter.plugins.registry import report


class Activation(Service):
    """Starts the service that ``make`` returns for the active plugins, once ``enabled()`` of all ``candidates`` has returned.

    ``decisions`` has the present state of each plugin, for the manhole. ``context`` is passed to their ``enabled()``. When the
    configuration has changed, ``change`` is called with the plugins that are active then; without it the service is made again.
    """

    _log = Logger()

    def __init__(
        self,
        candidates: Sequence[Decision],
        context: IPluginContext,
        make: Callable[[Sequence[Decision]], IService],
        *,
        name: str,
        change: Callable[[Sequence[Decision]], object] | None = None,
    ) -> None:
        self.setName(name)
        self._candidates = tuple(candidates)
        self._change = change
        self._lock = Lock()
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
        async with self._lock:
            self.decisions = tuple(await decide(self._candidates, self.context, self.context.clock))
            self._report()
            if self.running:
                self._start()

    async def reconsider(self, candidates: Sequence[Decision]) -> None:
        """Take other candidates. Those that are the same objects as before stay as they are, active or not."""
        async with self._lock:
            known = {id(each): decision for each, decision in zip(self._candidates, self.decisions, strict=True)}
            if not self.running:
                self._candidates = self.decisions = tuple(candidates)
                return
            asked = [each for each in candidates if id(each) not in known]
            decided = await decide(asked, self.context, self.context.clock)
            if not self.running:
                return
            known |= {id(each): decision for each, decision in zip(asked, decided, strict=True)}
            self._candidates = tuple(candidates)
            self.decisions = tuple(known[id(each)] for each in candidates)
            self._report()
            if self._change is not None:
                self._change(self._active())
            else:
                await self._stop_service()
                if self.running:
                    self._start()

    def _report(self) -> None:
        self._log.info(
            "{name}: installed plugins and their states\n{report}", name=self.name, report=report(self.decisions)
        )

    def _active(self) -> list[Decision]:
        return [each for each in self.decisions if each.state == "active"]

    def _start(self) -> None:
        self._service = self._make(self._active())
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
        await self._stop_service()

    async def _stop_service(self) -> None:
        service, self._service = self._service, None
        if service is not None:
            await maybeDeferred(service.stopService)
