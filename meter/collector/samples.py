"""The collector's intake: deliveries from the bus → verified metering messages → one commit → acknowledgement.

Deliveries that arrive together are written in one transaction. What cannot be stored is set aside sample by sample
with the reason; its neighbours are stored. Nothing is acknowledged before it is committed or safe among the dead.
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
from twisted.logger import Logger

from meter.bus.dead_letter_publisher import DeadLetterPublisher
from meter.daemon.metrics import CollectingMetrics
from meter.daemon.services import sleep
from meter.interfaces import Delivery
from meter.interfaces import IStore
from meter.message import BadMessage
from meter.message import MeteringMessage
from meter.message import cast_as_it_came
from meter.message import metering_messages
from meter.message import open_envelope
from meter.message import read
from meter.query import WriteResult
from meter.signature import BadSignature
from meter.signature import Keyring

TURN = 200
"""Samples read before other work gets its turn: about 5 ms."""


@dataclass(slots=True)
class _Batch:
    """Messages of several deliveries that are written together, and who waits for them."""

    messages: list[MeteringMessage] = field(default_factory=list)
    parts: list[tuple[int, int, Deferred[WriteResult]]] = field(default_factory=list)


class SampleConsumer:
    """Takes metering messages: :meth:`receive` is a :data:`meter.interfaces.Receiver`.

    A batch has at most ``batch_samples``, and a large delivery is several; it waits ``batch_seconds`` for more, unless it
    is full. ``after_commit`` is called with each
    batch that was committed and what became of it.
    """

    _log = Logger()

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
        """Store the samples of one delivery; returns when each is committed, known already, or set aside.

        Raises :class:`meter.interfaces.Unavailable` when the store or the bus is away: nothing is lost, the delivery
        comes again.
        """
        try:
            entries, key_id = metering_messages(open_envelope(delivery.body))
        except BadMessage as error:
            await self._dead_letters.dead_letter(
                body=delivery.body, reason=str(error), origin=delivery, kind="undecodable"
            )
            return
        good, bad = await self._read(entries, key_id)
        for first in range(0, len(good), self._batch_samples):
            part = good[first : first + self._batch_samples]
            result = await self._written(part)
            for refusal in result.refused:
                bad.append((part[refusal.index].fields, f"the store refuses it: {refusal.reason}", refusal.kind))
        for entry, reason, kind in bad:
            body = delivery.body if len(entries) == 1 else cast_as_it_came(entry, key_id)
            meter = entry.get("counter_name") if isinstance(entry, dict) else None
            await self._dead_letters.dead_letter(
                body=body,
                reason=reason,
                origin=delivery,
                kind=kind,
                meter=meter if isinstance(meter, str) else None,
            )

    async def _read(
        self, entries: Sequence[Any], key_id: str | None
    ) -> tuple[list[MeteringMessage], list[tuple[Any, str, str]]]:
        """Return the messages that are valid and verified, and the others with reason and kind."""
        good: list[MeteringMessage] = []
        bad: list[tuple[Any, str, str]] = []
        for number, entry in enumerate(entries, 1):
            try:
                good.append(read(entry, self._keys, key_id))
            except BadMessage as error:
                bad.append((entry, str(error), "invalid"))
            except BadSignature as error:
                bad.append((entry, str(error), "unverified"))
            if number % TURN == 0:
                await sleep(self._clock, 0)
        return good, bad

    def _written(self, messages: list[MeteringMessage]) -> Deferred[WriteResult]:
        """Write ``messages`` together with what else arrives now; fire with what became of them."""
        if self._batch.messages and len(self._batch.messages) + len(messages) > self._batch_samples:
            self._flush()
        waiting: Deferred[WriteResult] = Deferred()
        first = len(self._batch.messages)
        self._batch.messages += messages
        self._batch.parts.append((first, len(self._batch.messages), waiting))
        if len(self._batch.messages) >= self._batch_samples:
            self._flush()
        elif self._timer is None:
            self._timer = self._clock.callLater(self._batch_seconds, self._flush)
        return waiting

    def _flush(self) -> None:
        batch, self._batch = self._batch, _Batch()
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        Deferred.fromCoroutine(self._write(batch))

    async def _write(self, batch: _Batch) -> None:
        """Commit a batch and tell each delivery what became of its part, a failure included."""
        began = self._clock.seconds()
        try:
            result = await self._store.write(batch.messages)
        except Exception as error:
            for _, _, waiting in batch.parts:
                waiting.errback(error)
            return
        self._metrics.written(result, self._clock.seconds() - began)
        self._after_commit(batch.messages, result)
        for first, end, waiting in batch.parts:
            refused = tuple(
                replace(refusal, index=refusal.index - first)
                for refusal in result.refused
                if first <= refusal.index < end
            )
            # Of a shared batch only the refusals are known per delivery; the counts stand in the metrics.
            waiting.callback(WriteResult(end - first - len(refused), 0, refused))
