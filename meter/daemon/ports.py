"""Listening ports: an address in use is a state of the daemon, not an error that ends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
from meter.daemon.supervised import SupervisedService
from meter.interfaces import IDependency
from meter.tls import ServerTls


@implementer(IDependency)
class Port(SupervisedService):
    """Serves ``factory`` on the endpoint ``description``; retries after growing pauses while it cannot listen.

    Stopping closes the port; open connections stay. ``advice`` ends the log line about an address in use.
    ``announce`` is called with the address when the port listens. With ``tls`` the port speaks TLS.
    """

    _log = Logger()
    on_stop = "cancel"

    def __init__(
        self,
        description: str,
        factory: IProtocolFactory,
        *,
        name: str,
        reactor: IReactorCore,
        clock: IReactorTime,
        advice: str = "",
        announce: Callable[[Any], object] = lambda host: None,
        tls: ServerTls | None = None,
    ) -> None:
        super().__init__(clock, backoff=Backoff(1.0, 30.0), reason="not listening yet")
        self.setName(name)
        self._endpoint = serverFromString(reactor, description)
        self._description = description
        self._factory = factory if tls is None else tls.wrapped(factory, clock)
        self._with_tls = "" if tls is None else " with TLS"
        self._advice = advice
        self._announce = announce
        self.port: IListeningPort | None = None

    def stopService(self) -> Deferred[None]:
        """Fire when the port is closed."""
        return Deferred.fromCoroutine(self._stop(super().stopService()))

    async def _attempt(self) -> None:
        self.port = await self._endpoint.listen(self._factory)
        self._set_state(True, f"listens on {address(self.port.getHost())}{self._with_tls}")
        self._log.info("{name} {reason}", name=self.name, reason=self.reason)
        self._announce(self.port.getHost())

    def _attempt_failed(self, error: Exception) -> None:
        if not isinstance(error, CannotListenError):
            super()._attempt_failed(error)
        elif self._set_state(False, f"cannot listen on {self._description}: {error}"):
            self._log.error("{name}: {reason}{advice}", name=self.name, reason=self.reason, advice=self._advice)

    async def _stop(self, loop: Deferred[None] | None) -> None:
        if loop is not None:
            await loop
        port, self.port = self.port, None
        self._set_state(False, "stopped")
        closing: Any = port.stopListening() if port is not None else None
        if closing is not None:
            await closing


def address(host: Any) -> str:
    """Return the text of a Twisted address: ``127.0.0.1:8777``, ``[::1]:8777`` or a path."""
    if hasattr(host, "port"):
        return f"[{host.host}]:{host.port}" if ":" in host.host else f"{host.host}:{host.port}"
    name = host.name
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)
