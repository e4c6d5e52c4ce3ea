"""Streaming: pieces of a body go out as fast as the client takes them, and no faster; none is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
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

from meter.daemon.services import within
from meter.interfaces import Unavailable

PATIENCE_SECONDS = 60.0
"""A client that takes nothing for so long is given up."""


@implementer(IPushProducer)
class Tap:
    """Says when the connection of ``request`` takes more."""

    def __init__(self, request: Request) -> None:
        self._waiting: Deferred[None] | None = None
        request.registerProducer(self, True)

    def pauseProducing(self) -> None:
        """Take no more: what was written has not gone out."""
        if self._waiting is None:
            self._waiting = Deferred()

    def resumeProducing(self) -> None:
        """Go on."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.callback(None)

    def stopProducing(self) -> None:
        """Nothing more to do: klein cancels whoever writes when the client is gone."""

    async def open(self, clock: IReactorTime, seconds: float) -> None:
        """Return when more may be written; fail with ``TimeoutError`` of Twisted's after ``seconds``."""
        if self._waiting is not None:
            await within(clock, seconds, self._waiting)


_log = Logger(namespace="meter.api")


async def stream(
    request: Request, chunks: AsyncIterator[bytes], clock: IReactorTime, patience: float = PATIENCE_SECONDS
) -> None:
    """Write ``chunks``; return when the last one is written. What goes wrong on the way ends the connection.

    By then the status has been sent: a body that ends without its end is how a client learns of it.
    """
    tap = Tap(request)
    try:
        async with aclosing(_closable(chunks)) as pieces:
            async for piece in pieces:
                request.write(piece)
                await tap.open(clock, patience)
    except CancelledError:
        raise  # the client is gone
    except DeferredTimeout:
        _log.info("{client} takes nothing and is given up", client=request.getClientAddress())
    except Unavailable as error:
        _log.warn("{uri} broke off: {error}", uri=request.uri.decode("ascii", "replace"), error=error)
    except Exception:
        _log.failure("{uri} broke off", uri=request.uri.decode("ascii", "replace"))
    else:
        request.unregisterProducer()
        return
    channel: Any = request.channel
    channel.forceAbortClient()
    await Deferred()  # klein cancels this when the connection is gone


def _closable(chunks: AsyncIterator[bytes]) -> Any:
    """Asynchronous generators are closable, which their annotation as iterators does not say."""
    return chunks
