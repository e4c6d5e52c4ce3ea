"""NotificationConsumer: a port that is taken is a state to wait out, not the end of the daemon."""

from __future__ import annotations

import contextlib
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.interfaces import IReactorCore
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from meter.daemon.services import Backoff
from meter.daemon.services import sleep
from meter.interfaces import IDependency
from meter.interfaces import Readiness


@implementer(IDependency)
class Port(Service):
    """Serves ``factory`` on the endpoint ``description``; tries again with growing pauses while it cannot.

    Stopping takes no new connections; it fires when the port is closed.
    """

    _log = Logger()

    def __init__(
        self,
        description: str,
        factory: IProtocolFactory,
        *,
        name: str,
        reactor: IReactorCore,
        clock: IReactorTime,
        advice: str = "",
    ) -> None:
        self.setName(name)
        self._endpoint = serverFromString(reactor, description)
        self._description = description
        self._factory = factory
        self._clock = clock
        self._advice = advice
        self._backoff = Backoff(1.0, 30.0)
        self._loop: Deferred[None] | None = None
        self._reason = "not listening yet"
        self.port: IListeningPort | None = None

    def readiness(self) -> Readiness:
        """Ready while it listens."""
        return Readiness(str(self.name), self.port is not None, self._reason)

    def startService(self) -> None:
        """Begin to listen; returns at once."""
        super().startService()
        self._loop = Deferred.fromCoroutine(self._listen())

    async def _listen(self) -> None:
        told = ""
        while self.running:
            try:
                self.port = await self._endpoint.listen(self._factory)
            except CannotListenError as error:
                self._reason = f"cannot listen on {self._description}: {error}"
                if self._reason != told:
                    told = self._reason
                    self._log.error("{name}: {reason}{advice}", name=self.name, reason=told, advice=self._advice)
                await sleep(self._clock, self._backoff.next())
            else:
                self._reason = f"listens on {address(self.port.getHost())}"
                self._log.info("{name} {reason}", name=self.name, reason=self._reason)
                return

    def stopService(self) -> Deferred[None]:
        """Fire when nothing listens any more."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.cancel()
            with contextlib.suppress(CancelledError):
                await loop
        port, self.port = self.port, None
        self._reason = "stopped"
        closing: Any = port.stopListening() if port is not None else None
        if closing is not None:
            await closing


def address(host: Any) -> str:
    """Return an address of Twisted's for people: ``127.0.0.1:8777``, ``[::1]:8777`` or a path."""
    if hasattr(host, "port"):
        return f"[{host.host}]:{host.port}" if ":" in host.host else f"{host.host}:{host.port}"
    name = host.name
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)
