"""One HTTP request and its response; every kind of failure is an exception.

A request has a time limit and its response body a size limit. Redirects are not followed: they would take the token
to another host.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from datetime import UTC
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit
from urllib.parse import urlunsplit

import msgspec
from twisted.internet.defer import CancelledError
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers

from meter.daemon.services import wall_seconds
from meter.daemon.services import within
from meter.interfaces import Unavailable
from meter.tls import tls_reason

MAX_QUOTED_BYTES = 200
"""How much of an error response's body an exception quotes."""

MAX_BODY_BYTES = 64 * 1024**2
"""The default limit of response bodies."""


class BadResponse(Unavailable):
    """A response that violates the protocol of the service; the text names the request and what is wrong."""


class ResponseTimedOut(Unavailable):
    """No complete response within the time limit."""


class ErrorResponse(BadResponse):
    """A response with an error status; ``retry_after_seconds`` is its Retry-After header, if it has one."""

    def __init__(self, text: str, status: int, retry_after_seconds: float | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """A request. ``headers`` and ``body`` may hold secrets; its ``repr`` omits them."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.method} {without_userinfo(self.url)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpResponse:
    """A complete response; ``received_at`` is an aware ``datetime``."""

    request: HttpRequest
    status: int
    headers: Headers
    body: bytes
    received_at: datetime

    def header(self, name: str) -> str | None:
        """Return the last value of the header ``name``, or ``None``."""
        values = self.headers.getRawHeaders(name)
        return values[-1] if values else None

    def json(self) -> Any:
        """Return the body parsed as JSON, whatever its content type; raise :class:`BadResponse`."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            kind = self.header("content-type") or "no content type"
            raise BadResponse(
                f"{self.request}: the response ({self.status}, {kind}, {len(self.body)} bytes) is not JSON: {error}"
            ) from None

    def checked(self) -> HttpResponse:
        """Return this response if its status is 2xx, else raise :class:`ErrorResponse` or :class:`BadResponse`."""
        if 200 <= self.status < 300:
            return self
        if 300 <= self.status < 400:
            raise BadResponse(
                f"{self.request}: redirected ({self.status}) to {self.header('location')}; redirects are not followed,"
                " configure the URL it redirects to"
            )
        quoted = self.body[:MAX_QUOTED_BYTES].decode(errors="replace")
        raise ErrorResponse(
            f"{self.request}: {self.status} {' '.join(quoted.split())}".rstrip(),
            self.status,
            self.retry_after_seconds(),
        )

    def retry_after_seconds(self) -> float | None:
        """Return the Retry-After header, a number or a date, as seconds from now; ``None`` without a valid one."""
        value = self.header("retry-after")
        if value is None:
            return None
        if value.strip().isdecimal():
            return float(value)
        try:
            until = datetime.strptime(value, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
        except ValueError:
            return None
        return max(0.0, (until - self.received_at).total_seconds())


class HttpClient:
    """Sends requests through ``treq``, a ``treq.client.HTTPClient`` or one of treq's stubs.

    A request takes at most ``timeout_seconds``, from connecting to the end of the response body, which has at most
    ``max_body_bytes`` after decompression.
    """

    def __init__(
        self, treq: Any, clock: IReactorTime, *, timeout_seconds: float = 30.0, max_body_bytes: int = MAX_BODY_BYTES
    ) -> None:
        self._treq = treq
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._max_body_bytes = max_body_bytes

    async def send(self, request: HttpRequest, timeout_seconds: float | None = None) -> HttpResponse:
        """Return the response, whatever its status; raise :class:`Unavailable` without a complete one."""
        seconds = timeout_seconds or self._timeout_seconds
        try:
            return await within(self._clock, seconds, self._send(request))
        except DeferredTimeout:
            raise ResponseTimedOut(f"{request}: no complete response within {seconds:g} s") from None

    async def _send(self, request: HttpRequest) -> HttpResponse:
        try:
            response = await self._treq.request(
                request.method,
                request.url,
                headers=Headers({name: [value] for name, value in request.headers.items()}),
                data=request.body,
                allow_redirects=False,
                unbuffered=True,
                reactor=self._clock,  # without it treq takes the global reactor
            )
            body = b"" if request.method == "HEAD" else await self._read_body(request, response)
        except (Unavailable, CancelledError):
            raise
        except ValueError as error:
            raise BadResponse(f"{request}: cannot be sent: {error}") from None
        except Exception as error:
            raise Unavailable(f"{request}: {_describe_failure(error)}") from None
        return HttpResponse(
            request=request,
            status=response.code,
            headers=response.headers,
            body=body,
            received_at=datetime.fromtimestamp(wall_seconds(self._clock), UTC),
        )

    def _read_body(self, request: HttpRequest, response: Any) -> Deferred[bytes]:
        reader = _BodyReader(
            self._max_body_bytes, f"{request}: the response body has more than {self._max_body_bytes} bytes"
        )
        response.deliverBody(reader)
        return reader.complete


_DONE = Failure(ResponseDone())


class _BodyReader(Protocol):
    """Collects a response body up to a size limit; ``complete`` fires with it."""

    def __init__(self, max_bytes: int, too_large: str) -> None:
        self._max_bytes = max_bytes
        self._too_large = too_large
        self._chunks: list[bytes] = []
        self._bytes = 0
        self.complete: Deferred[bytes] = Deferred(lambda _: self._abort())

    def dataReceived(self, data: bytes) -> None:
        self._bytes += len(data)
        if self._bytes <= self._max_bytes:
            self._chunks.append(data)
        elif not self.complete.called:
            self._chunks.clear()
            self.complete.errback(BadResponse(self._too_large))
            self._abort()

    def connectionLost(self, reason: Failure = _DONE) -> None:
        if self.complete.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):  # without Content-Length, the body ends with the connection
            self.complete.callback(b"".join(self._chunks))
        else:
            self.complete.errback(reason)

    def _abort(self) -> None:
        # The gzip decoder's transport, and that of treq's stubs, have no abortConnection.
        abort = getattr(self.transport, "abortConnection", None) or getattr(self.transport, "loseConnection", None)
        if abort is not None:
            abort()


def _describe_failure(error: Exception) -> str:
    """Describe the cause: Twisted wraps it in an exception with a list of failures, ``reasons``."""
    failures = getattr(error, "reasons", None)
    return "; ".join(_describe(each.value) for each in failures) if failures else _describe(error)


def _describe(error: BaseException) -> str:
    if reason := tls_reason(error):
        return reason
    return f"{type(error).__name__}: {error}"


def without_userinfo(url: str) -> str:
    """Return ``url`` without the user name and password before the host."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
