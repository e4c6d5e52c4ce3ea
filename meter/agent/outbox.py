"""The outbox of an agent: samples are written to disk, published oldest first, and removed when confirmed."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from meter.agent.spool import Spool
from meter.agent.spool import SpooledMessage
from meter.bus.batches import SAMPLES_HEADER
from meter.daemon.metrics import PublishingMetrics
from meter.daemon.services import Backoff
from meter.daemon.services import within
from meter.daemon.supervised import SupervisedService
from meter.interfaces import IDependency
from meter.interfaces import IPublisher
from meter.interfaces import Publication
from meter.interfaces import Readiness
from meter.interfaces import Unavailable

MAX_PAUSE_SECONDS = 5.0
"""Longest pause between two attempts. An attempt while the bus is down does not leave this process."""

IDLE_SECONDS = 60.0
"""How often an empty spool is read without a ``put``: another process may write to its file."""


@implementer(IDependency)
class Outbox(SupervisedService):
    """Publishes the messages of the spool, oldest first, and removes those that the bus has confirmed.

    While the bus is unavailable it retries after growing pauses. Stopping publishes what it can within ``patience``
    seconds and leaves the rest on disk for the next start.
    """

    name = "outbox"
    _log = Logger()
    on_stop = "drain"

    def __init__(
        self,
        spool: Spool,
        publisher: IPublisher,
        clock: IReactorTime,
        *,
        metrics: PublishingMetrics,
        batch: int = 100,
        patience: float = 5.0,
        backoff: Backoff | None = None,
    ) -> None:
        super().__init__(clock, backoff=backoff or Backoff(most=MAX_PAUSE_SECONDS), reason="nothing has been sent yet")
        self._spool = spool
        self._publisher = publisher
        self._metrics = metrics
        self._batch = batch
        self._patience = patience
        self._when_empty: list[Deferred[None]] = []
        self._kicked = False
        self._ready = True
        self._counted_losses = 0
        self.confirmed_samples = 0

    async def put(self, publications: Sequence[Publication]) -> None:
        """Write publications to disk, to be sent; returns when they are on disk.

        Raises :class:`Unavailable`, and counts the samples as dropped, when they cannot be written.
        """
        try:
            await self._spool.put(publications)
        except Unavailable:
            self._metrics.dropped(sum(map(_samples, publications)))
            raise
        self._count_losses()
        self.kick()

    def kick(self) -> None:
        """Read the spool now."""
        self._kicked = True
        if self.ready:
            self.wake()

    def when_empty(self) -> Deferred[None]:
        """Fire when the spool is empty: everything in it has been confirmed."""
        waiting: Deferred[None] = Deferred(lambda d: self._when_empty.remove(d) if d in self._when_empty else None)
        self._when_empty.append(waiting)
        self.kick()
        return waiting

    def readiness(self) -> Readiness:
        """Ready while the bus confirms."""
        return Readiness(self.name, self.ready, f"{self._spool.rows} messages in the spool; {self.reason}")

    def stopService(self) -> Deferred[None]:
        """Fire when sending has ended and the spool is closed."""
        return Deferred.fromCoroutine(self._stop(super().stopService()))

    async def _stop(self, loop: Deferred[None] | None) -> None:
        if loop is not None:
            try:
                await within(self._clock, self._patience, loop)
            except Exception as error:
                self._log.info(
                    "stopped with {rows} messages left in the spool: {error}",
                    rows=self._spool.rows,
                    error=error,
                )
        await self._spool.close()

    async def _attempt(self) -> float | None:
        """Send the oldest messages; when stopping, ``None`` once the spool is empty."""
        self._kicked = False
        sent = await self._send_some()
        self._note_success()
        if sent:
            return 0.0
        if not self.running:
            return None
        waiters, self._when_empty = self._when_empty, []
        for waiting in waiters:
            waiting.callback(None)
        return 0.0 if self._kicked else IDLE_SECONDS

    async def _send_some(self) -> int:
        waiting = await self._spool.oldest(self._batch)
        self._count_losses()
        done: list[int] = []
        errors: list[Unavailable] = []

        async def send(one: SpooledMessage) -> None:
            samples = _samples(one.publication)
            try:
                await self._publisher.publish(one.publication)
            except Unavailable as error:
                errors.append(error)
                self._metrics.published("unavailable")
            except ValueError as error:
                self._metrics.published("refused")
                self._metrics.dropped(samples)
                done.append(one.id)  # it can never be published, and must not block the messages behind it
                self._log.error(
                    "LOST {samples} samples with routing key {key}: {error}",
                    samples=samples,
                    key=one.publication.routing_key,
                    error=error,
                )
            else:
                done.append(one.id)
                self.confirmed_samples += samples
                self._metrics.published("confirmed", samples)

        try:
            await gatherResults([Deferred.fromCoroutine(send(one)) for one in waiting], consumeErrors=True)
        finally:
            # Also when stopping has cancelled sending: confirmed messages must not be sent again.
            if done:
                await self._spool.remove(done)
        if errors:
            raise errors[0]
        return len(done)

    def _count_losses(self) -> None:
        lost, self._counted_losses = self._spool.lost_samples - self._counted_losses, self._spool.lost_samples
        self._metrics.dropped(lost)

    def _attempt_failed(self, error: Exception) -> None:
        if not isinstance(error, Unavailable):
            if self.running:
                super()._attempt_failed(error)
            return
        if self.ready:
            self._log.warn("samples cannot be published now and stay in the spool: {reason}", reason=str(error))
        self._set_state(False, str(error))

    def _note_success(self) -> None:
        if not self.ready:
            self._log.info("samples are published again; {rows} messages are in the spool", rows=self._spool.rows)
        self._set_state(True, "the last messages were confirmed")
        self._backoff.reset()


def _samples(publication: Publication) -> int:
    """Return the number of samples in a publication."""
    return int(publication.headers.get(SAMPLES_HEADER, 1))
