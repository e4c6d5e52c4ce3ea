"""What the HTTP servers of all daemons have in common: bounded requests, errors in JSON, and headers of every response.

Twisted 26.10 answers malformed requests with a bare status line, a too long line not at all, and its own errors in HTML.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.interfaces import IHalfCloseableDescriptor
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.http_headers import Headers
from twisted.web.server import Request
from twisted.web.server import Site

from meter.daemon.http_connections import OpenConnections
from meter.daemon.http_connections import TooManyConnections

JSON = "application/json"

RESPONSE_HEADERS: Mapping[str, str] = {
    "Server": "Meter",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of every response. ``Server`` has no version: it would tell an attacker which defects to try."""

MAX_HEAD_BYTES = 64 * 1024
"""Maximum size of the request line and the headers together; enough for a query with a hundred long terms."""

LINGER_SECONDS = 5
"""How long the rest of a rejected request is read and discarded."""

MAX_LENGTH_DIGITS = 18
"""Digits of a ``Content-Length``; Python 3.11 refuses to convert thousands of them, with an exception."""

SINGLE_HEADERS = ("Host", "Origin", "Content-Type", "Content-Encoding", "X-Auth-Token", "Authorization")
"""Headers that may be given only once: otherwise a proxy and Meter could use different values."""

MAX_LOGGED_BYTES = 2000
"""Bytes of a request target in the log: a client chooses up to 64 KiB."""

_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_TARGET = re.compile(rb"\*|/[\x21-\x7e]*")


def error_body(status: int, text: str) -> bytes:
    """Return the JSON body of an error in the form of WSME, which Ceilometer used."""
    side = "Server" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "Client"
    return json.dumps({"error_message": {"debuginfo": None, "faultcode": side, "faultstring": text}}).encode()


def request_problem(request: Any) -> str | None:
    """Return why ``request`` is refused with 400, ``None`` if its request line and its headers are well-formed.

    A well-formed request target is a path in ASCII. The values of all headers are UTF-8 without control characters, so
    that no reader of a header has to expect an undecodable one.
    """
    if not _TARGET.fullmatch(request.uri):
        return "The request target must be a path, percent-encoded where it is not ASCII."
    for name, values in request.requestHeaders.getAllRawHeaders():
        for value in values:
            try:
                value.decode()
            except UnicodeDecodeError:
                return f"The header {name.decode('ascii', 'replace')} is not valid UTF-8."
            if _CONTROL.search(value):
                return f"The header {name.decode('ascii', 'replace')} contains a control character."
    for single in SINGLE_HEADERS:
        if len(request.requestHeaders.getRawHeaders(single, ())) > 1:
            return f"The header {single} was given several times."
    return None


def set_response_headers(headers: Headers) -> None:
    """Set the headers of every response, except for those that a handler has set; ``Server`` is always replaced."""
    for name, value in RESPONSE_HEADERS.items():
        if name == "Server" or not headers.hasHeader(name):
            headers.setRawHeaders(name, [value])


class ServerChannel(HTTPChannel):
    """A connection that answers malformed requests in JSON, and limits how long a request takes to arrive.

    Twisted's own time limit starts again with each byte, so a client could send a request without end.
    """

    MAX_LENGTH = MAX_HEAD_BYTES
    totalHeadersSize = MAX_HEAD_BYTES  # noqa: N815 - Twisted's name
    too_long = f"Request line and headers can have at most {MAX_HEAD_BYTES} bytes."
    connections: OpenConnections
    _log = Logger()
    _rejected = False
    _error_written = False
    _close_timer: IDelayedCall | None = None
    _closed: Callable[[], None] | None = None
    _requests_read = 0
    _arriving: tuple[str, int] | None = None
    _arrival_timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Begin, unless the client address, or all together, have too many connections."""
        transport: Any = self.transport
        try:
            self._closed = self.connections.open(transport.getPeer())
        except TooManyConnections as refused:
            self._refuse(refused)
        else:
            super().connectionMade()

    def _refuse(self, refused: TooManyConnections) -> None:
        transport: Any = self.transport
        self._rejected = True
        if self.isSecure():
            # No response: a client that never ends its TLS handshake could keep the connection open.
            transport.abortConnection()
            return
        self.write_error(refused.status, str(refused))
        transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        """Parse ``data``; reject a request that Twisted's parser fails at, and ignore what follows a rejected one."""
        if self._rejected:
            return
        try:
            super().dataReceived(data)
        except Exception:
            self._log.failure("a request could not be parsed")
            self.reject(400, "Malformed HTTP request.")
        self._time_arrival()

    def allContentReceived(self) -> None:
        """Process the request, which has arrived."""
        self._requests_read += 1
        super().allContentReceived()

    def _time_arrival(self) -> None:
        """Start or stop the timer of what is arriving: the head or the body of a request, which are timed separately."""
        part: str | None = None
        if not self._rejected and not self._error_written and not self._handlingRequest:
            if not self.line_mode:
                part = "body"
            elif self._buffer or self.requests:
                part = "head"
        arriving = None if part is None else (part, self._requests_read)
        if arriving == self._arriving:
            return
        self._arriving = arriving
        if self._arrival_timer is not None and self._arrival_timer.active():
            self._arrival_timer.cancel()
        if part is not None:
            limits = self.connections.limits
            seconds = limits.max_head_seconds if part == "head" else limits.max_body_seconds
            self._arrival_timer = self.callLater(seconds, lambda: self._arrived_too_slowly(part, seconds))

    def _arrived_too_slowly(self, part: str, seconds: float) -> None:
        self.connections.count(part)
        named = "request line and the headers" if part == "head" else "request body"
        self.reject(408, f"The {named} did not arrive within {seconds:g} seconds.")

    def headerReceived(self, line: bytes) -> bool:
        """Store a header. An absurd ``Content-Length`` is rejected: ``int()`` raises an exception for it."""
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length" and len(value.strip()) > MAX_LENGTH_DIGITS:
            self.reject(400, "Content-Length is not a valid length.")
        return not self._rejected and bool(super().headerReceived(line))

    def lineReceived(self, line: bytes) -> None:
        """Parse a line, unless the request has been rejected."""
        if not self._rejected:
            super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        """Reject a line that exceeds the limit for all headers together."""
        self.reject(414, self.too_long)

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Any) -> None:
        """Write the head of a response: every response of a request passes here."""
        if isinstance(headers, Headers):
            set_response_headers(headers)
        super().writeHeaders(version, code, reason, headers)

    def _respondToBadRequestAndDisconnect(self) -> None:
        self.reject(400, "Malformed HTTP request, or too many or too long headers.")

    def reject(self, status: int, text: str) -> None:
        """Write an error response and close the connection; the request is not processed.

        Closing at once would reset the connection of a client that still sends, before it reads the response. So only the
        sending side is closed, and what the client sends is discarded until it closes the connection, for a limited time.
        """
        if self._rejected:
            return
        self._rejected = True
        self.setTimeout(None)  # the timer of this method closes the connection
        self.write_error(status, text)
        transport: Any = self.transport
        can_half_close: bool = IHalfCloseableDescriptor.providedBy(transport) and not self.isSecure()
        if can_half_close:
            transport.loseWriteConnection()
        self._close_timer = self.callLater(LINGER_SECONDS, self._end_linger)

    def _end_linger(self) -> None:
        # Without the second timer, a client that does not read, or does not end TLS, would keep the connection open.
        self._abortingCall = self.callLater(self.abortTimeout, self.forceAbortClient)
        self.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Cancel the timers, and count the connection no longer."""
        for timer in (self._close_timer, self._arrival_timer):
            if timer is not None and timer.active():
                timer.cancel()
        if self._closed is not None:
            self._closed()
            self._closed = None
        super().connectionLost(reason)

    def write_error(self, status: int, text: str) -> None:
        """Write an error response to the connection, whatever the state of the request, whose arrival is timed no longer."""
        self._error_written = True
        self._time_arrival()
        body = error_body(status, text)
        lines = {
            **RESPONSE_HEADERS,
            "Content-Type": JSON,
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        transport: Any = self.transport
        transport.write(f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{head}\r\n".encode() + body)


class ServerRequest(Request):
    """A request whose errors outside of any resource are answered in JSON."""

    def __repr__(self) -> str:
        """Return a description for the log; Twisted's own raises an exception if the target is not ASCII."""
        target = self.uri[:MAX_LOGGED_BYTES].decode("ascii", "backslashreplace")
        return f"<{type(self).__name__} {self.method.decode('ascii', 'backslashreplace')} {target}>"

    def processingFailed(self, reason: Failure) -> Failure:
        """Log ``reason``, which no resource has handled, and answer 500 without it."""
        self._log.failure("{method} {path} failed", reason, method=self.method, path=self.path[:200])
        if self.startedWriting:
            channel: Any = self.channel
            channel.forceAbortClient()
        else:
            self._answer(500, "Internal Server Error: the server log has details.")
        return reason

    def _handleStar(self) -> None:
        # OPTIONS * asks about the server as a whole; Twisted answers other methods without a body.
        if self.method == b"OPTIONS":
            self.setHeader("Content-Length", "0")
            self.finish()
        else:
            self.setHeader("Allow", "OPTIONS")
            self._answer(405, "The method is not allowed for this resource.")

    def _answer(self, status: int, text: str) -> None:
        body = error_body(status, text)
        self.setResponseCode(status)
        self.setHeader("Content-Type", JSON)
        self.setHeader("Content-Length", str(len(body)))
        self.write(b"" if self.method == b"HEAD" else body)
        self.finish()


class LimitedSite(Site):
    """A site whose connections are limited by ``connections``."""

    protocol: Any = ServerChannel
    connections: OpenConnections

    def buildProtocol(self, addr: Any) -> Any:
        """Return the channel of a new connection."""
        channel: Any = super().buildProtocol(addr)
        channel.connections = self.connections
        return channel
