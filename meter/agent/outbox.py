"""The outbox of an agent: samples and cycle reports are written to disk, published oldest first, and removed when confirmed."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from meter.agent.spool import Spool
from meter.agent.spool import SpooledMessage
from meter.agent.spooled_reports import ReportState
from meter.agent.spooled_reports import ReportToSpool
from meter.agent.spooled_reports import SpooledReport
from meter.bus.batches import SAMPLES_HEADER
from meter.daemon.metrics import PublishingMetrics
from meter.daemon.report_metrics import CycleReportMetrics
from meter.daemon.services import Backoff
from meter.daemon.services import within
from meter.daemon.start_grace import StartGrace
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


REPORTS_AT_ONCE = 16

MAX_REFUSAL = 200
"""Maximum length of the reason why the bus refuses a message, in characters."""


@implementer(IDependency)
class Outbox(SupervisedService):
    """Publishes the messages of the spool, oldest first, and removes those that the bus has confirmed.

    While the bus is unavailable it retries after growing pauses. Stopping publishes what it can within ``patience``
    seconds and leaves the rest on disk for the next start. A cycle report is published when the samples that were spooled before it
    are confirmed; one that cannot be published, as no collector has a queue for reports yet, waits and holds up no samples.
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
        report_metrics: CycleReportMetrics | None = None,
        batch: int = 100,
        patience: float = 5.0,
        backoff: Backoff | None = None,
    ) -> None:
        super().__init__(clock, backoff=backoff or Backoff(most=MAX_PAUSE_SECONDS), reason="nothing has been sent yet")
        self._spool = spool
        self._publisher = publisher
        self._metrics = metrics
        self._report_metrics = report_metrics
        self._batch = batch
        self._patience = patience
        self._when_empty: list[Deferred[None]] = []
        self._kicked = False
        self._ready = True
        self._counted_losses = 0
        self._reports_backoff = Backoff(most=IDLE_SECONDS)
        self._reports_at = 0.0
        self._why_reports_wait = ""
        self._starting = StartGrace(clock)
        self._told_quietly = False
        self.confirmed_samples = 0

    def startService(self) -> None:
        """Begin to publish what is in the spool."""
        self._starting.begin()
        super().startService()

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

    async def put_report(self, report: ReportToSpool) -> bool:
        """Write a cycle report to disk, to be sent; see :meth:`meter.agent.spool.Spool.put_report`."""
        kept = await self._spool.put_report(report)
        self._count_losses()
        self.kick()
        return kept

    async def report_state(self) -> ReportState:
        """Return what is known of earlier cycle reports."""
        return await self._spool.report_state()

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
        """Ready while the bus confirms samples."""
        waiting = (
            f"; {self._spool.reports} cycle reports wait: {self._why_reports_wait}" if self._why_reports_wait else ""
        )
        return Readiness(self.name, self.ready, f"{self._spool.rows} messages in the spool; {self.reason}{waiting}")

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
        sent += await self._send_reports()
        if sent:
            return 0.0
        if not self.running:
            return None
        waiters, self._when_empty = self._when_empty, []
        for waiting in waiters:
            waiting.callback(None)
        if self._kicked:
            return 0.0
        return max(0.0, self._reports_at - self._clock.seconds()) if self._why_reports_wait else IDLE_SECONDS

    async def _send_some(self) -> int:
        waiting = await self._spool.oldest(self._batch)
        self._count_losses()
        done: list[int] = []
        errors: list[Unavailable] = []
        refused: dict[int, str] = {}

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
                # It can never be published, and must not block the messages behind it.
                refused[one.id] = f"they cannot be published: {error!s:.{MAX_REFUSAL}}"
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
            if done or refused:
                await self._spool.remove(done, refused)
        if errors:
            raise errors[0]
        return len(done) + len(refused)

    async def _send_reports(self) -> int:
        """Send the oldest cycle reports whose samples are confirmed; return how many of them were done with.

        If the bus takes none, the next attempt is after a growing pause. The readiness depends on samples alone.
        """
        if self.running and self._clock.seconds() < self._reports_at:
            return 0
        confirmed: list[int] = []
        refused: dict[int, str] = {}
        errors: list[Unavailable] = []

        async def send(one: SpooledReport) -> None:
            try:
                await self._publisher.publish(one.publication)
            except Unavailable as error:
                errors.append(error)
            except ValueError as error:
                refused[one.id] = f"they cannot be published: {error!s:.{MAX_REFUSAL}}"
                self._log.error("LOST a cycle report: it cannot be published: {error}", error=error)
            else:
                confirmed.append(one.id)

        waiting = await self._spool.oldest_reports(REPORTS_AT_ONCE)
        try:
            await gatherResults([Deferred.fromCoroutine(send(one)) for one in waiting], consumeErrors=True)
        finally:
            if confirmed or refused:
                await self._spool.remove_reports(confirmed, refused)
        if self._report_metrics is not None:
            self._report_metrics.published(len(confirmed), refused=len(refused))
        self._note_reports(str(errors[0]) if errors else "")
        return len(confirmed) + len(refused)

    def _note_reports(self, why_waiting: str) -> None:
        if why_waiting and not self._why_reports_wait:
            self._log.warn("cycle reports cannot be published now and stay in the spool: {reason}", reason=why_waiting)
        self._why_reports_wait = why_waiting
        if why_waiting:
            self._reports_at = self._clock.seconds() + self._reports_backoff.next()
        else:
            self._reports_at = 0.0
            self._reports_backoff.reset()

    def _count_losses(self) -> None:
        lost, self._counted_losses = self._spool.lost_samples - self._counted_losses, self._spool.lost_samples
        self._metrics.dropped(lost)

    def _attempt_failed(self, error: Exception) -> None:
        if not isinstance(error, Unavailable):
            if self.running:
                super()._attempt_failed(error)
            return
        starting = self._starting.active
        if self.ready or (self._told_quietly and not starting):
            tell = self._log.info if starting else self._log.warn
            tell("samples cannot be published now and stay in the spool: {reason}", reason=str(error))
            self._told_quietly = starting
        self._set_state(False, str(error))

    def _note_success(self) -> None:
        if not self.ready:
            self._log.info("samples are published again; {rows} messages are in the spool", rows=self._spool.rows)
        self._starting.end()
        self._told_quietly = False
        self._set_state(True, "the last messages were confirmed")
        self._backoff.reset()


def _samples(publication: Publication) -> int:
    """Return the number of samples in a publication."""
    return int(publication.headers.get(SAMPLES_HEADER, 1))
