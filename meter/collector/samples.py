"""Consumes metering messages: verifies each delivery, writes it to the store, and acknowledges it after the commit.

Deliveries that arrive together are written in one transaction. A sample that cannot be stored is dead-lettered alone,
with the reason; the other samples of its delivery are stored. A delivery is acknowledged once each of its samples is
committed or dead-lettered.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.interfaces import IReactorTime

from meter.batch_signature import BatchEntry
from meter.bus.dead_letters import DeadLetterPublisher
from meter.ceilometer_signature import BadSignature
from meter.collector.rejection import Rejection
from meter.daemon.metrics import CollectingMetrics
from meter.daemon.services import sleep
from meter.interfaces import Delivery
from meter.interfaces import IStore
from meter.message import BadMessage
from meter.message import MeteringMessage
from meter.message import cast_verbatim
from meter.message import metering_messages
from meter.message import open_envelope
from meter.message import read
from meter.message import verified_batch
from meter.query import Refusal
from meter.query import WriteResult
from meter.signing_keys import Keyring
from meter.signing_keys import VerifiedBatch

SAMPLES_PER_TURN = 200
"""Samples verified before the reactor runs other work: about 5 ms."""


@dataclass(frozen=True, slots=True)
class _Waiter:
    """The part of a batch that one delivery contributed: ``first`` to ``end``, exclusive."""

    first: int
    end: int
    refusals: Deferred[Sequence[Refusal]] = field(default_factory=Deferred)
    """Fires after the commit with the store's refusals in this part, indexed from its beginning."""


@dataclass(slots=True)
class _Batch:
    """Messages of several deliveries that are written in one transaction."""

    messages: list[MeteringMessage] = field(default_factory=list)
    refused_entries: list[BatchEntry] = field(default_factory=list)
    waiters: list[_Waiter] = field(default_factory=list)


class SampleConsumer:
    """Stores metering messages: :meth:`receive` is a :data:`meter.interfaces.Receiver`.

    A batch has at most ``batch_samples`` and is written when it is full or ``batch_seconds`` old; a larger delivery is
    split. ``after_commit`` is called with the messages of each committed batch and the store's result.
    """

    def __init__(
        self,
        store: IStore,
        keys: Keyring,
        dead_letters: DeadLetterPublisher,
        clock: IReactorTime,
        *,
        batch_samples: int,
        batch_seconds: float,
        metrics: CollectingMetrics,
        after_commit: Callable[[Sequence[MeteringMessage], WriteResult], object] = lambda _messages, _result: None,
    ) -> None:
        self._store = store
        self._keys = keys
        self._dead_letters = dead_letters
        self._clock = clock
        self._batch_samples = batch_samples
        self._batch_seconds = batch_seconds
        self._metrics = metrics
        self._after_commit = after_commit
        self._batch = _Batch()
        self._timer: IDelayedCall | None = None

    async def receive(self, delivery: Delivery) -> None:
        """Return once each sample of one delivery is committed, known as a duplicate, or dead-lettered.

        Raises :class:`meter.interfaces.Unavailable` while the store or the bus is unavailable: the delivery is requeued.
        """
        try:
            content = open_envelope(delivery.body)
            entries = metering_messages(content)
        except BadMessage as error:
            await Rejection(kind="undecodable", reason=str(error)).dead_letter(self._dead_letters, delivery)
            return
        try:
            batch = verified_batch(content, len(entries), self._keys)
        except BadSignature as error:
            await Rejection(kind="unverified", reason=str(error)).dead_letter(self._dead_letters, delivery)
            return
        messages, rejected = await self._verify(entries, batch)
        refused_entries = () if batch is None else tuple(batch.place(index) for index, _ in rejected)
        for first in range(0, len(messages), self._batch_samples):
            part = messages[first : first + self._batch_samples]
            refusals = await self._enqueue([message for _, message in part], refused_entries if first == 0 else ())
            for refusal in refusals:
                index, message = part[refusal.index]
                reason = f"the store refuses it: {refusal.reason}"
                rejected.append((index, _rejection(refusal.kind, reason, message.fields)))
        for index, rejection in rejected:
            body = (
                delivery.body
                if len(entries) == 1
                else cast_verbatim(entries[index], None if batch is None else batch.only(index))
            )
            await rejection.dead_letter(self._dead_letters, delivery, body)

    async def _verify(
        self, entries: Sequence[Any], batch: VerifiedBatch | None
    ) -> tuple[list[tuple[int, MeteringMessage]], list[tuple[int, Rejection]]]:
        """Return the valid messages with a good signature, and the rejections of the other entries, each with its index."""
        messages: list[tuple[int, MeteringMessage]] = []
        rejected: list[tuple[int, Rejection]] = []
        for index, entry in enumerate(entries):
            try:
                messages.append((index, read(entry, self._keys, batch=batch, index=index)))
            except BadMessage as error:
                rejected.append((index, _rejection("invalid", str(error), entry)))
            except BadSignature as error:
                rejected.append((index, _rejection("unverified", str(error), entry)))
            if (index + 1) % SAMPLES_PER_TURN == 0:
                await sleep(self._clock, 0)
        return messages, rejected

    def _enqueue(
        self, messages: list[MeteringMessage], refused_entries: Sequence[BatchEntry]
    ) -> Deferred[Sequence[Refusal]]:
        """Add ``messages`` to the current batch; fire after its commit with the store's refusals among them.

        ``refused_entries`` are those of the same signed batch that are not to be stored.
        """
        if self._batch.messages and len(self._batch.messages) + len(messages) > self._batch_samples:
            self._flush()
        first = len(self._batch.messages)
        waiter = _Waiter(first, first + len(messages))
        self._batch.messages += messages
        self._batch.refused_entries += refused_entries
        self._batch.waiters.append(waiter)
        if len(self._batch.messages) >= self._batch_samples:
            self._flush()
        elif self._timer is None:
            self._timer = self._clock.callLater(self._batch_seconds, self._flush)
        return waiter.refusals

    def _flush(self) -> None:
        batch, self._batch = self._batch, _Batch()
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        Deferred.fromCoroutine(self._write(batch))

    async def _write(self, batch: _Batch) -> None:
        """Commit a batch and fire its waiters, with the error if the store raises."""
        began = self._clock.seconds()
        try:
            result = await self._store.write(batch.messages, batch.refused_entries)
        except Exception as error:
            for waiter in batch.waiters:
                waiter.refusals.errback(error)
            return
        self._metrics.written(result, self._clock.seconds() - began)
        self._after_commit(batch.messages, result)
        for waiter in batch.waiters:
            waiter.refusals.callback(
                [
                    replace(refusal, index=refusal.index - waiter.first)
                    for refusal in result.refused
                    if waiter.first <= refusal.index < waiter.end
                ]
            )


def _rejection(kind: str, reason: str, entry: Any) -> Rejection:
    meter = entry.get("counter_name") if isinstance(entry, dict) else None
    return Rejection(kind=kind, reason=reason, meter=meter if isinstance(meter, str) else None)
