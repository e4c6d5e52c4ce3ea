"""Streaming with backpressure: chunks are written as fast as the client reads them, and none is buffered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Awaitable
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IPushProducer
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.server import Request
from zope.interface import implementer

from meter.api.auth.authorization import AuthorizationEnded
from meter.api.errors import ApiError
from meter.api.limits import RequestLimits
from meter.daemon.services import within
from meter.interfaces import Unavailable


@implementer(IPushProducer)
class BackpressureProducer:
    """Tracks whether the connection of ``request`` accepts more data."""

    def __init__(self, request: Request) -> None:
        self._resumed: Deferred[None] | None = None
        request.registerProducer(self, True)

    def pauseProducing(self) -> None:
        """Note that the connection's send buffer is full."""
        if self._resumed is None:
            self._resumed = Deferred()

    def resumeProducing(self) -> None:
        """Note that the connection accepts data again."""
        resumed, self._resumed = self._resumed, None
        if resumed is not None and not resumed.called:
            resumed.callback(None)

    def stopProducing(self) -> None:
        """Do nothing: klein cancels the handler when the client disconnects."""

    async def wait_writable(self, clock: IReactorTime, seconds: float) -> None:
        """Return once the connection accepts data; raise Twisted's ``TimeoutError`` after ``seconds``."""
        if self._resumed is not None:
            await within(clock, seconds, self._resumed)


_log = Logger(namespace="meter.api")


class TooSlow(Exception):
    """The client reads too slowly, or the response takes too long; the text says which."""


class ReadingTime:
    """How long a client may take to read, by ``limits``; ``max_seconds`` is for the whole response.

    The client has to read ``min_bytes_per_second`` on average. One that is faster saves up to ``max_stall_seconds``, in
    which it may read more slowly, or nothing. Only time in which the client is waited for counts towards the average.
    """

    def __init__(self, clock: IReactorTime, limits: RequestLimits, max_seconds: float) -> None:
        self._clock = clock
        self._min_bytes_per_second = limits.min_bytes_per_second
        self._max_stall_seconds = limits.max_stall_seconds
        self._max_seconds = max_seconds
        self._end = clock.seconds() + max_seconds
        self._left = limits.max_stall_seconds

    async def wait(self, producer: BackpressureProducer, written: int) -> None:
        """Return once the connection accepts data after ``written`` bytes; :class:`TooSlow` if that takes too long."""
        began = self._clock.seconds()
        left = min(self._left, self._max_stall_seconds) + written / self._min_bytes_per_second
        if began >= self._end:
            raise TooSlow(f"it has taken more than {self._max_seconds:g} s")
        try:
            await producer.wait_writable(self._clock, min(left, self._end - began))
        except DeferredTimeout:
            if self._clock.seconds() >= self._end:
                raise TooSlow(f"it has taken more than {self._max_seconds:g} s") from None
            raise TooSlow(f"the client reads less than {self._min_bytes_per_second:g} bytes a second") from None
        self._left = left - (self._clock.seconds() - began)


async def stream(
    request: Request,
    chunks: AsyncIterator[bytes],
    time: ReadingTime,
    *,
    client: str,
    authorize: Callable[[], Awaitable[None]],
    last_chunk: Callable[[ApiError], bytes] | None = None,
) -> None:
    """Write ``chunks`` and return once the last one is written. An error, or a client that takes longer than ``time``,
    aborts the connection.

    The status has been sent by then: an incomplete body is the only way to signal an error to the client.
    ``client`` is the address of the client in the log. ``authorize`` is awaited before each chunk. When it, or a query for a chunk, raises
    :class:`~meter.api.auth.authorization.AuthorizationEnded`, nothing more is sent but ``last_chunk`` of it, if there is
    one.
    """
    producer = BackpressureProducer(request)
    try:
        async with aclosing(_closable(chunks)) as closable:
            async for chunk in closable:
                await authorize()
                request.write(chunk)
                await time.wait(producer, len(chunk))
    except CancelledError:
        raise  # the client has disconnected
    except TooSlow as error:
        _log.info("aborting the response to {client}: {error}", client=client, error=error)
    except AuthorizationEnded as error:
        _log.info(
            "response to {uri} for {client} ended: {error} {cause}",
            uri=request.uri.decode("ascii", "replace"),
            client=client,
            error=error,
            cause=error.cause,
        )
        if last_chunk is not None:
            request.write(last_chunk(error))
            request.unregisterProducer()
            return
    except Unavailable as error:
        _log.warn("response to {uri} aborted: {error}", uri=request.uri.decode("ascii", "replace"), error=error)
    except Exception:
        _log.failure("response to {uri} aborted", uri=request.uri.decode("ascii", "replace"))
    else:
        request.unregisterProducer()
        return
    channel: Any = request.channel
    channel.forceAbortClient()
    await Deferred()  # klein cancels it when the connection is lost


def _closable(chunks: AsyncIterator[bytes]) -> Any:
    """Return ``chunks``: an asynchronous generator has ``aclose``, which its type ``AsyncIterator`` lacks."""
    return chunks
