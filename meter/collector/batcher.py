"""Batches the messages of several notifications into common casts.

A notification gives one or two samples of each of a few meters: without batching, about three messages on the bus.
Batching for some milliseconds reduces the number of messages to a tenth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from itertools import chain

from twisted.internet.defer import CancelledError
from twisted.internet.defer import Deferred
from twisted.internet.defer import DeferredList
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.interfaces import IReactorTime
from twisted.python.reflect import safe_str

from meter.bus.batches import batch_publications
from meter.interfaces import IPublisher
from meter.interfaces import Publication
from meter.interfaces import Unavailable
from meter.outgoing import OutgoingMessage

BUFFERED_BATCHES = 10
"""Size of the buffer, in full casts. A cast contains one meter; with a buffer of one cast, casts held four samples."""


class Unpublishable(ValueError):
    """Samples that the bus never accepts; the text says which and why."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Messages of one notification; ``published`` fires when they are confirmed."""

    messages: Sequence[OutgoingMessage]
    published: Deferred[None] = field(default_factory=Deferred)


class PublicationBatcher:
    """Publishes messages in signed casts of at most ``batch_samples``, ``batch_seconds`` after the first of a batch.

    A batch of ``BUFFERED_BATCHES * batch_samples`` messages is published at once. With 0 seconds, or without a
    ``clock``, every call of :meth:`add` is a batch of its own.
    """

    def __init__(
        self, publisher: IPublisher, clock: IReactorTime | None, *, batch_samples: int, batch_seconds: float
    ) -> None:
        self._publisher = publisher
        self._clock = clock
        self._batch_samples = batch_samples
        self._batch_seconds = batch_seconds
        self._parts: list[_Part] = []
        self._buffered = 0
        self._timer: IDelayedCall | None = None

    def add(self, messages: Sequence[OutgoingMessage]) -> Deferred[None]:
        """Return a Deferred that fires once the bus has confirmed ``messages``.

        It fails with :class:`~meter.interfaces.Unavailable` if the bus may not have confirmed them, :class:`Unpublishable`, or
        what :func:`meter.bus.batches.batch_publications` raises for messages that are not JSON. Errors of other messages in
        the batch do not affect these.
        """
        part = _Part(messages)
        self._parts.append(part)
        self._buffered += len(messages)
        at_once = self._clock is None or not self._batch_seconds
        if at_once or self._buffered >= BUFFERED_BATCHES * self._batch_samples:
            self._flush()
        elif self._timer is None and self._clock is not None:
            self._timer = self._clock.callLater(self._batch_seconds, self._flush)
        return part.published

    def _flush(self) -> None:
        parts, self._parts, self._buffered = self._parts, [], 0
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        Deferred.fromCoroutine(self._send(parts))

    async def _send(self, parts: Sequence[_Part]) -> None:
        """Publish ``parts`` together; after an error halve them until the bad part is alone, and fail that one only."""
        try:
            await self._publish_together(parts)
        except Unavailable as error:
            for part in parts:
                part.published.errback(Unavailable(str(error)))
        except Exception as error:
            if len(parts) == 1:
                parts[0].published.errback(error)
                return
            half = len(parts) // 2
            await self._send(parts[:half])
            await self._send(parts[half:])
        else:
            for part in parts:
                part.published.callback(None)

    async def _publish_together(self, parts: Sequence[_Part]) -> None:
        """Wait for every confirm, then raise: :class:`Unavailable` before :class:`Unpublishable`."""
        messages = chain.from_iterable(part.messages for part in parts)
        publications = batch_publications(messages, batch_samples=self._batch_samples)
        sent = await DeferredList([Deferred.fromCoroutine(self._publish_one(each)) for each in publications])
        failures = [error for _, error in sent if error is not None]
        for failure in failures:
            if isinstance(failure, Unavailable):
                raise failure
        if failures:
            raise Unpublishable("; ".join(map(str, failures)))

    async def _publish_one(self, publication: Publication) -> Exception | None:
        try:
            await self._publisher.publish(publication)
        except Unavailable as error:
            return error
        except CancelledError:
            return Unavailable("the bus: publishing was cancelled")
        except Exception as error:
            return Unpublishable(f"samples for {publication.routing_key}: {safe_str(error)}")
        return None
