"""PublicationBatcher: signed messages of several notifications share casts, as those of one polling cycle do.

A notification makes one or two samples of each of a few meters. Cast by themselves they cost the bus and whoever reads
it three messages for every notification; gathered for a few milliseconds they cost a tenth of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Any

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

GATHERED_BATCHES = 10
"""Samples that are gathered, in full casts: with one, the meters of a busy cloud share it, and casts hold four samples."""


class Unpublishable(ValueError):
    """What the bus can never take; the text says what and why."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Messages of one origin, signed with one key, and who waits for them."""

    messages: Sequence[Mapping[str, Any]]
    key_id: str
    published: Deferred[None] = field(default_factory=Deferred)


class PublicationBatcher:
    """Publishes signed messages in common casts of at most ``batch_samples``, gathered for ``batch_seconds``.

    A cast holds one meter, and what is gathered is of many: it is sent before the time when it is
    ``GATHERED_BATCHES * batch_samples``. With 0 seconds every origin is cast by itself and at once.
    """

    def __init__(
        self, publisher: IPublisher, clock: IReactorTime | None, *, batch_samples: int, batch_seconds: float
    ) -> None:
        self._publisher = publisher
        self._clock = clock
        self._batch_samples = batch_samples
        self._batch_seconds = batch_seconds
        self._parts: list[_Part] = []
        self._gathered = 0
        self._timer: IDelayedCall | None = None

    async def publish(self, messages: Sequence[Mapping[str, Any]], key_id: str) -> None:
        """Return once the bus has confirmed ``messages``, all signed with the key ``key_id``.

        Raises :class:`~meter.interfaces.Unavailable` when that is not certain, :class:`Unpublishable`, or what
        :func:`meter.bus.batches.batch_publications` raises for messages that are no JSON. What is wrong with others is not theirs.
        """
        if self._clock is None or not self._batch_seconds:
            await self._cast([_Part(messages, key_id)])
            return
        part = _Part(messages, key_id)
        self._parts.append(part)
        self._gathered += len(messages)
        if self._gathered >= GATHERED_BATCHES * self._batch_samples:
            self._flush()
        elif self._timer is None:
            self._timer = self._clock.callLater(self._batch_seconds, self._flush)
        await part.published

    def _flush(self) -> None:
        parts, self._parts, self._gathered = self._parts, [], 0
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        Deferred.fromCoroutine(self._send(parts))

    async def _send(self, parts: Sequence[_Part]) -> None:
        """Cast ``parts`` together; where something is wrong with one, by halves until it is alone."""
        try:
            await self._cast(parts)
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

    async def _cast(self, parts: Sequence[_Part]) -> None:
        """Wait for all confirms, whatever becomes of single ones, then raise what is worst."""
        by_key: dict[str, list[Mapping[str, Any]]] = {}
        for part in parts:
            by_key.setdefault(part.key_id, []).extend(part.messages)
        publications = [
            publication
            for key_id, messages in by_key.items()
            for publication in batch_publications(messages, key_id, batch_samples=self._batch_samples)
        ]
        sent = await DeferredList([Deferred.fromCoroutine(self._confirmed(each)) for each in publications])
        failures = [error for _, error in sent if error is not None]
        for failure in failures:
            if isinstance(failure, Unavailable):
                raise failure
        if failures:
            raise Unpublishable("; ".join(map(str, failures)))

    async def _confirmed(self, publication: Publication) -> Exception | None:
        try:
            await self._publisher.publish(publication)
        except Unavailable as error:
            return error
        except CancelledError:
            return Unavailable("the bus: publishing was cancelled")
        except Exception as error:
            return Unpublishable(f"samples for {publication.routing_key}: {safe_str(error)}")
        return None
