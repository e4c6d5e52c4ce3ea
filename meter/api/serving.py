"""Serving the API over HTTP: limits on what clients may send and how long they may take, and a line per request."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.logger import LogLevel
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.server import Request
from twisted.web.server import Site

from meter.api.application import REQUEST_ID_HEADER
from meter.api.application import Api
from meter.api.errors import Fault

IDLE_SECONDS = 60

LONGEST_HEAD_BYTES = 64 * 1024
"""Of the request line and the headers together: a query of a hundred long terms fits."""

LINGER_SECONDS = 5
"""How long the rest of a body that was refused is taken, and thrown away."""


def site(
    api: Api,
    reactor: IReactorTime,
    *,
    largest_body_bytes: int = 1024 * 1024,
    idle_seconds: int = IDLE_SECONDS,
    access_log: bool = False,
) -> Site:
    """Return the site to listen with.

    A request with a larger body is refused with 413 before it is read, or as soon as it has grown too large; a
    connection on which nothing comes for ``idle_seconds`` is closed. Requests are logged at level *info* where there is
    to be an ``access_log``, else at *debug*.
    """

    class BoundedRequest(_BoundedRequest):
        most = largest_body_bytes
        clock = reactor

    served = _QuietSite(
        api.resource(),
        BoundedRequest,
        parsePOSTFormSubmission=False,
        timeout=idle_seconds,
        reactor=reactor,
    )
    served.level = LogLevel.info if access_log else LogLevel.debug
    return served


class _Channel(HTTPChannel):
    """A connection that says in JSON what is wrong with a request that is hardly one.

    Twisted 26.10 answers these with a bare status line, or, where a line is too long, not at all; tests in
    ``tests/unit/api/test_serving.py``.
    """

    MAX_LENGTH = LONGEST_HEAD_BYTES
    totalHeadersSize = LONGEST_HEAD_BYTES  # noqa: N815 - Twisted's name

    def lineLengthExceeded(self, line: bytes) -> None:
        """Refuse a line that is longer than all headers may be together."""
        self._refuse(
            Fault(414, f"The request line and headers may have {LONGEST_HEAD_BYTES} bytes; POST /v2/query/samples.")
        )

    def _respondToBadRequestAndDisconnect(self) -> None:
        self._refuse(Fault(400, "This is no HTTP request, or its headers are too many or too long."))

    def _refuse(self, fault: Fault) -> None:
        body = fault.body("")
        transport: Any = self.transport
        transport.write(
            b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
            % (fault.status, HTTPStatus(fault.status).phrase.encode(), len(body), body)
        )
        self.loseConnection()


class _BoundedRequest(Request):
    """A request whose body has at most ``most`` bytes."""

    most: int
    clock: IReactorTime
    _received = 0
    _lingering: IDelayedCall | None = None

    def gotLength(self, length: int | None) -> None:
        """Refuse a body that is announced to be too large, before the client is told to go on."""
        super().gotLength(length)
        if length is not None and length > self.most:
            self.requestHeaders.removeHeader(b"expect")
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:
        """Refuse a body that has become too large without having been announced."""
        self._received += len(data)
        if self._received > self.most and self._lingering is None:
            self._refuse()
        if self._lingering is None:
            super().handleContentChunk(data)

    def _refuse(self) -> None:
        # Twisted answers a request only when its body is complete; until then the answer has to be written by hand.
        # Closing at once would reset the connection, and the client would never read why: so the rest is thrown away.
        body = Fault(413, f"The body of a request may have at most {self.most} bytes.").body("")
        self.channel.write(
            b"HTTP/1.1 413 Request Entity Too Large\r\nContent-Type: application/json\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        self._lingering = self.clock.callLater(LINGER_SECONDS, self.channel.loseConnection)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Answer, unless that has been done."""
        if self._lingering is None:
            super().requestReceived(command, path, version)
        else:
            self.channel.loseConnection()

    def connectionLost(self, reason: Failure) -> None:
        """Forget a client that has gone."""
        if self._lingering is not None and self._lingering.active():
            self._lingering.cancel()
        super().connectionLost(reason)


class _QuietSite(Site):
    """A site that logs requests as events, not as lines of a web server's log."""

    protocol: Any = _Channel
    level = LogLevel.debug
    _log = Logger(namespace="meter.api")

    def log(self, request: Any) -> None:
        """Log that ``request`` has been answered."""
        self._log.emit(
            self.level,
            "{client} {method} {uri} {status} {bytes} {request_id}",
            client=request.getClientAddress().host,
            method=request.method.decode("ascii", "replace"),
            uri=request.uri.decode("ascii", "replace"),
            status=request.code,
            bytes=request.sentLength,
            request_id="".join(request.responseHeaders.getRawHeaders(REQUEST_ID_HEADER, [])),
        )
