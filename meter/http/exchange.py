"""One HTTP exchange: what was asked, what came back, and every way in which that may go wrong.

Nothing here waits for ever or grows without bound: an exchange has a time limit and its answer a largest size.
Redirects are not followed, because the token would go where they lead.
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
from service_identity import VerificationError
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

SHOWN_CHARACTERS = 200
"""How much of a wrong answer an error text shows."""


class BadResponse(Unavailable):
    """A service answered, but not with what it should; the text says what was asked and what came."""


class ResponseTimedOut(Unavailable):
    """An exchange took too long."""


class ErrorResponse(BadResponse):
    """A service answered with an error; ``status`` is HTTP's, ``retry_after_seconds`` its wish, where it has one."""

    def __init__(self, text: str, status: int, retry_after_seconds: float | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """What is asked. ``headers`` may hold secrets: they are never shown."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.method} {without_userinfo(self.url)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpResponse:
    """What came back, whole, and when: ``received_at`` is an aware ``datetime``."""

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
        """Return the body's JSON value; :class:`BadAnswer` for anything else, whatever its content type says."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            kind = self.header("content-type") or "no content type"
            raise BadResponse(
                f"{self.request}: the answer ({self.status}, {kind}, {len(self.body)} bytes) is no JSON: {error}"
            ) from None

    def checked(self) -> HttpResponse:
        """Return this answer if it is one of success, else raise :class:`Refused` or :class:`BadAnswer`."""
        if 200 <= self.status < 300:
            return self
        if 300 <= self.status < 400:
            raise BadResponse(
                f"{self.request}: redirects ({self.status}) to {self.header('location')}; redirects are not followed,"
                " the endpoint should be what it leads to"
            )
        shown = self.body[:SHOWN_CHARACTERS].decode(errors="replace")
        raise ErrorResponse(
            f"{self.request}: {self.status} {' '.join(shown.split())}".rstrip(), self.status, self.retry_after_seconds()
        )

    def retry_after_seconds(self) -> float | None:
        """Return what Retry-After says, a number or a date, in seconds from now; ``None`` where it says nothing."""
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
    """Exchanges requests for answers through ``treq``, a ``treq.client.HTTPClient`` or one of treq's stubs.

    An exchange, connecting and the whole body included, takes at most ``timeout_seconds``, and a body at most
    ``largest_body_bytes`` after decompression.
    """

    def __init__(
        self, treq: Any, clock: IReactorTime, *, timeout_seconds: float = 30.0, largest_body_bytes: int = 64 * 1024**2
    ) -> None:
        self._treq = treq
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._largest_body_bytes = largest_body_bytes

    async def exchange(self, request: HttpRequest, timeout_seconds: float | None = None) -> HttpResponse:
        """Return the answer, whatever its status; :class:`Unavailable` where there is none."""
        seconds = timeout_seconds or self._timeout_seconds
        try:
            return await within(self._clock, seconds, self._exchange(request))
        except DeferredTimeout:
            raise ResponseTimedOut(f"{request}: no whole answer within {seconds:g} s") from None

    async def _exchange(self, request: HttpRequest) -> HttpResponse:
        try:
            response = await self._treq.request(
                request.method,
                request.url,
                headers=Headers({name: [value] for name, value in request.headers.items()}),
                data=request.body,
                allow_redirects=False,
                unbuffered=True,
                reactor=self._clock,  # or treq takes the global one
            )
            body = b"" if request.method == "HEAD" else await self._body(request, response)
        except (Unavailable, CancelledError):
            raise
        except ValueError as error:
            raise BadResponse(f"{request}: cannot be asked: {error}") from None
        except Exception as error:
            raise Unavailable(f"{request}: {_reason(error)}") from None
        return HttpResponse(
            request=request,
            status=response.code,
            headers=response.headers,
            body=body,
            received_at=datetime.fromtimestamp(wall_seconds(self._clock), UTC),
        )

    def _body(self, request: HttpRequest, response: Any) -> Deferred[bytes]:
        body = _Body(self._largest_body_bytes, f"{request}: the answer has more than {self._largest_body_bytes} bytes")
        response.deliverBody(body)
        return body.whole


_DONE = Failure(ResponseDone())


class _Body(Protocol):
    """Collects a body up to a size."""

    def __init__(self, largest_bytes: int, too_large: str) -> None:
        self._largest_bytes = largest_bytes
        self._too_large = too_large
        self._pieces: list[bytes] = []
        self._bytes = 0
        self.whole: Deferred[bytes] = Deferred(lambda _: self._leave())

    def dataReceived(self, data: bytes) -> None:
        self._bytes += len(data)
        if self._bytes <= self._largest_bytes:
            self._pieces.append(data)
        elif not self.whole.called:
            self._pieces.clear()
            self.whole.errback(BadResponse(self._too_large))
            self._leave()

    def connectionLost(self, reason: Failure = _DONE) -> None:
        if self.whole.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):  # without a length, the end of the connection is the end
            self.whole.callback(b"".join(self._pieces))
        else:
            self.whole.errback(reason)

    def _leave(self) -> None:
        # The decoder of gzip, and treq's stubs, offer no way to abort.
        abort = getattr(self.transport, "abortConnection", None) or getattr(self.transport, "loseConnection", None)
        if abort is not None:
            abort()


def _reason(error: Exception) -> str:
    """Say what went wrong below: Twisted wraps it in a list of failures."""
    failures = getattr(error, "reasons", None)
    return "; ".join(_told(each.value) for each in failures) if failures else _told(error)


def _told(error: BaseException) -> str:
    if isinstance(error, VerificationError):
        return "its certificate is for another host"
    if "certificate verify failed" in str(error):  # OpenSSL's reason goes no further than its callback
        return "its certificate is not believed: it has expired, or no authority that is known here (ca_file) has signed it"
    return f"{type(error).__name__}: {error}"


def without_userinfo(url: str) -> str:
    """Return ``url`` without a name and password in it."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
