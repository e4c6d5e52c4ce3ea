"""The Twisted site of the API: limits on request sizes and idle connections, and the access log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.logger import LogLevel
from twisted.python.failure import Failure
from twisted.web.server import Site

from meter.api.application import Api
from meter.api.client_address import ClientAddresses
from meter.api.root_resource import REQUEST_ID_HEADER
from meter.daemon.http_connections import ConnectionLimits
from meter.daemon.http_connections import OpenConnections
from meter.daemon.http_server import LINGER_SECONDS
from meter.daemon.http_server import MAX_LOGGED_BYTES
from meter.daemon.http_server import LimitedSite
from meter.daemon.http_server import ServerChannel
from meter.daemon.http_server import ServerRequest

IDLE_SECONDS = 60


def _ignore(reason: str) -> None:
    """Do not count."""


def make_site(
    api: Api,
    reactor: IReactorTime,
    *,
    max_body_bytes: int = 1024 * 1024,
    idle_seconds: int = IDLE_SECONDS,
    access_log: bool = False,
    limits: ConnectionLimits | None = None,
    count: Callable[[str], object] = _ignore,
) -> Site:
    """Return the site that serves ``api``.

    A request with a larger body is rejected with 413, before the body is read if ``Content-Length`` announces it. A
    connection without data for ``idle_seconds`` is closed. ``limits`` apply to connections and to the time in which a
    request arrives; connections of trusted proxies are not counted, because those of all their clients are theirs.
    ``count`` is called with the reason of each rejection because of ``limits``. Requests are logged at level *info* with ``access_log``, at
    *debug* without.
    """

    class BoundedRequest(_BoundedRequest):
        max_bytes = max_body_bytes
        clock = reactor

    site = _LoggingSite(
        api.resource(),
        BoundedRequest,
        parsePOSTFormSubmission=False,
        timeout=idle_seconds,
        reactor=reactor,
    )
    site.addresses = api.addresses
    site.connections = OpenConnections(limits, address_of=api.addresses.address_of_peer, count=count)
    site.level = LogLevel.info if access_log else LogLevel.debug
    return site


class _Channel(ServerChannel):
    """A connection of a client."""

    too_long = f"{ServerChannel.too_long[:-1]}; use POST /v2/query/samples."


class _BoundedRequest(ServerRequest):
    """A request whose body is limited to ``max_bytes``."""

    max_bytes: int
    clock: IReactorTime
    _received = 0
    _close_timer: IDelayedCall | None = None

    def gotLength(self, length: int | None) -> None:
        """Reject a body whose announced length is too large, before ``100 Continue`` is sent."""
        super().gotLength(length)
        if length is not None and length > self.max_bytes:
            self.requestHeaders.removeHeader(b"expect")
            self._reject()

    def handleContentChunk(self, data: bytes) -> None:
        """Reject a body that becomes too large, if its length was not announced."""
        self._received += len(data)
        if self._received > self.max_bytes and self._close_timer is None:
            self._reject()
        if self._close_timer is None:
            super().handleContentChunk(data)

    def _reject(self) -> None:
        # Twisted sends a response only after the whole body is received, so this one is written to the channel directly.
        # Closing at once would reset the connection before the client reads it: the rest of the body is discarded.
        channel: Any = self.channel
        channel.write_error(413, f"The request body can have at most {self.max_bytes} bytes.")
        self._close_timer = self.clock.callLater(LINGER_SECONDS, self.channel.loseConnection)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Process the request, unless it has been rejected."""
        if self._close_timer is None:
            super().requestReceived(command, path, version)
        else:
            self.channel.loseConnection()

    def connectionLost(self, reason: Failure) -> None:
        """Cancel the timer that closes the connection."""
        if self._close_timer is not None and self._close_timer.active():
            self._close_timer.cancel()
        super().connectionLost(reason)


class _LoggingSite(LimitedSite):
    """A site that logs requests as structured events, with the client addresses that ``addresses`` finds."""

    protocol: Any = _Channel
    addresses: ClientAddresses
    level = LogLevel.debug
    _log = Logger(namespace="meter.api")

    def log(self, request: Any) -> None:
        """Log a finished ``request``."""
        self._log.emit(
            self.level,
            "{client} {user} {method} {uri} {status} {bytes} {request_id}",
            client=self.addresses.exact_address_of(request),
            user=getattr(request, "user_id", None) or "-",
            method=request.method.decode("ascii", "replace"),
            uri=request.uri[:MAX_LOGGED_BYTES].decode("ascii", "replace"),
            status=request.code,
            bytes=request.sentLength,
            request_id="".join(request.responseHeaders.getRawHeaders(REQUEST_ID_HEADER, [])),
        )
