"""Consumes metering messages: verifies each delivery, writes it to the store, and acknowledges it after the commit.

Deliveries that arrive together are written in one transaction. Samples that cannot be stored are dead-lettered with
the reasons, one dead letter for each kind; the other samples of the delivery are stored. A delivery is acknowledged
once each of its samples is committed or dead-lettered.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.interfaces import IReactorTime

from meter.archive_unavailable import PartlyStored
from meter.batch_signature import BatchEntry
from meter.bus.dead_letters import DeadLetterPublisher
from meter.bus.dead_letters import call_at_once
from meter.ceilometer_signature import BadSignature
from meter.collector.large_bodies import LARGE_BYTES
from meter.collector.large_bodies import Runner
from meter.collector.large_bodies import TooComplex
from meter.collector.large_bodies import Turn
from meter.collector.large_bodies import check_number
from meter.collector.large_bodies import check_sample
from meter.collector.large_bodies import is_large
from meter.collector.large_bodies import opened
from meter.collector.large_bodies import parts
from meter.collector.rejected_counts import UNVERIFIED
from meter.collector.rejected_samples import RejectedEntry
from meter.collector.rejected_samples import dead_letter_samples
from meter.collector.rejection import Rejection
from meter.collector.rejection import rejection_of_body
from meter.daemon.locks import Lock
from meter.daemon.metrics import CollectingMetrics
from meter.daemon.services import sleep
from meter.interfaces import Delivery
from meter.interfaces import IStore
from meter.message import BadMessage
from meter.message import MeteringMessage
from meter.message import metering_messages
from meter.message import read
from meter.message import verified_batch
from meter.query import Refusal
from meter.query import WriteResult
from meter.signing_keys import Keyring
from meter.signing_keys import VerifiedBatch
from meter.standard_fields import MetadataCache
from meter.standard_message import StandardCast
from meter.standard_message import read_standard
from meter.standard_message import standard_cast

VERIFIED_KINDS = frozenset({"conflict", "unstorable"})
"""Kinds of rejections of samples whose signature was verified before; of others it may not have been."""

TRANSACTIONS_AT_ONCE = 2
"""Transactions that are in progress while samples are collected for the next: PostgreSQL commits while others are verified."""

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
    split. While :data:`TRANSACTIONS_AT_ONCE` are in progress, a batch that is not full waits for the end of one: the more samples
    arrive, the fewer transactions they take. ``after_commit`` is called with the messages of each committed batch and the store's result. ``off_reactor`` runs a
    function in a thread, for large deliveries. ``count_rejected`` is called with the kind and message of dead-lettered samples.
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
        off_reactor: Runner = call_at_once,
        count_rejected: Callable[[str, Sequence[Any]], object] = lambda _kind, _messages: None,
    ) -> None:
        self._count_rejected = count_rejected
        self._store = store
        self._keys = keys
        self._dead_letters = dead_letters
        self._clock = clock
        self._batch_samples = batch_samples
        self._batch_seconds = batch_seconds
        self._metrics = metrics
        self._after_commit = after_commit
        self._off_reactor = off_reactor
        self._large = Lock()
        self._metadata = MetadataCache()
        self._batch = _Batch()
        self._timer: IDelayedCall | None = None
        self._transactions = 0

    async def receive(self, delivery: Delivery) -> None:
        """Return once each sample of one delivery is committed, known as a duplicate, or dead-lettered.

        Raises :class:`meter.interfaces.Unavailable` while the store or the bus is unavailable: the delivery is requeued.
        Large deliveries are processed one at a time: decoded, each takes many times the memory of its body.
        """
        if len(delivery.body) <= LARGE_BYTES and (cast := standard_cast(delivery.body)) is not None:
            batch = self._verified_batch(cast)
            verified = None if batch is None else await self._verify_standard(cast, batch)
            if verified is not None:
                await self._store_verified(delivery, len(cast.messages), batch, verified, [], large=False)
                return
        if not is_large(delivery.body):
            await self._receive(delivery, large=False)
            return
        await self._large.acquire()
        try:
            await self._receive(delivery, large=True)
        finally:
            self._large.release()

    def _verified_batch(self, cast: StandardCast) -> VerifiedBatch | None:
        try:
            return verified_batch(cast.content, len(cast.messages), self._keys)
        except (BadMessage, BadSignature):
            return None

    async def _verify_standard(
        self, cast: StandardCast, batch: VerifiedBatch
    ) -> list[tuple[int, MeteringMessage]] | None:
        """Return all messages of ``cast``, each with its index; ``None`` if one of them is not a valid standard message."""
        verified: list[tuple[int, MeteringMessage]] = []
        turn = Turn(self._clock, SAMPLES_PER_TURN)
        for index, fields in enumerate(cast.messages):
            message = read_standard(fields, index, batch, self._metadata)
            if message is None:
                return None
            verified.append((index, message))
            if turn.over():
                await sleep(self._clock, 0)
                turn.begin()
        return verified

    async def _receive(self, delivery: Delivery, *, large: bool) -> None:
        """Receive a delivery that may have anything, and is ``large`` or not."""
        try:
            content = await opened(delivery.body, self._off_reactor)
            entries = metering_messages(content)
            check_number(entries)
        except BadMessage as error:
            await rejection_of_body(error).dead_letter(self._dead_letters, delivery)
            return
        try:
            batch = verified_batch(content, len(entries), self._keys)
        except (BadMessage, BadSignature) as error:
            await Rejection(kind=UNVERIFIED, reason=str(error)).dead_letter(self._dead_letters, delivery)
            self._count_rejected(UNVERIFIED, entries)
            return
        verified, rejected = await self._verify(entries, batch, large)
        await self._store_verified(delivery, len(entries), batch, verified, rejected, large=large)

    async def _store_verified(
        self,
        delivery: Delivery,
        entries: int,
        batch: VerifiedBatch | None,
        verified: Sequence[tuple[int, MeteringMessage]],
        rejected: list[RejectedEntry],
        *,
        large: bool,
    ) -> None:
        """Store the ``verified`` messages of a delivery with so many ``entries``, and dead-letter what is rejected."""
        signed = await self._signed_entries(rejected, batch)
        refused_entries: Sequence[BatchEntry] = list(signed.values())
        first = 0
        for part in parts([message for _, message in verified], self._batch_samples, large):
            for refusal in await self._enqueue(part, refused_entries):
                index, message = verified[first + refusal.index]
                reason = ": ".join(filter(None, ("the store refuses it", refusal.reason, refusal.cause)))
                fields = message.fields
                rejected.append(RejectedEntry(index, fields, _rejection(refusal.kind, reason, fields)))
            first, refused_entries = first + len(part), ()
        if not rejected:
            return
        await dead_letter_samples(
            rejected,
            delivery,
            self._dead_letters,
            entries=entries,
            batch=batch,
            off_reactor=self._off_reactor,
        )
        by_kind: dict[str, list[Any]] = {}
        for each in rejected:
            kind = each.rejection.kind
            verified_kind = kind if kind in VERIFIED_KINDS or each.index in signed else UNVERIFIED
            by_kind.setdefault(verified_kind, []).append(each.entry)
        for kind, messages in by_kind.items():
            self._count_rejected(kind, messages)

    async def _verify(
        self, entries: Sequence[Any], batch: VerifiedBatch | None, large: bool
    ) -> tuple[list[tuple[int, MeteringMessage]], list[RejectedEntry]]:
        """Return the valid messages with a good signature, each with its index, and the other entries with their rejections."""
        verified: list[tuple[int, MeteringMessage]] = []
        rejected: list[RejectedEntry] = []
        turn = Turn(self._clock, SAMPLES_PER_TURN)
        for index, entry in enumerate(entries):
            try:
                if large:
                    check_sample(entry)
                verified.append((index, read(entry, self._keys, batch=batch, index=index)))
            except TooComplex as error:
                rejected.append(RejectedEntry(index, entry, _rejection("too-complex", str(error), entry)))
            except BadMessage as error:
                rejected.append(RejectedEntry(index, entry, _rejection("invalid", str(error), entry)))
            except BadSignature as error:
                rejected.append(RejectedEntry(index, entry, _rejection("unverified", str(error), entry)))
            if turn.over():
                await sleep(self._clock, 0)
                turn.begin()
        return verified, rejected

    async def _signed_entries(
        self, rejected: Sequence[RejectedEntry], batch: VerifiedBatch | None
    ) -> Mapping[int, BatchEntry]:
        """Return the places of the ``rejected`` messages that are in ``batch`` as they were signed, by their index.

        Of an altered message nothing is stated: the one that was signed may be stored, or may still arrive.
        """
        if batch is None or not rejected:
            return {}
        found = {}
        turn = Turn(self._clock, SAMPLES_PER_TURN)
        for each in rejected:
            if each.rejection.kind == "too-complex":
                entry = await self._off_reactor(partial(_entry_as_signed, batch, each))
            else:
                entry = _entry_as_signed(batch, each)
            if entry is not None:
                found[each.index] = entry
            if turn.over():
                await sleep(self._clock, 0)
                turn.begin()
        return found

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
            self._timer = self._clock.callLater(self._batch_seconds, self._flush_if_idle)
        return waiter.refusals

    def _flush_if_idle(self) -> None:
        """Write the current batch, which is old enough, or leave it to the end of a transaction."""
        self._timer = None
        if self._transactions < TRANSACTIONS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        batch, self._batch = self._batch, _Batch()
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        Deferred.fromCoroutine(self._write(batch))

    async def _write(self, batch: _Batch) -> None:
        """Commit a batch and fire its waiters, with the error if the store raises."""
        began = self._clock.seconds()
        self._transactions += 1
        partly = None
        try:
            result = await self._store.write(batch.messages, batch.refused_entries)
        except PartlyStored as error:
            result, partly = error.result, error
        except Exception as error:
            self._end_transaction()
            for waiter in batch.waiters:
                waiter.refusals.errback(error)
            return
        self._end_transaction()
        self._metrics.written(result, self._clock.seconds() - began)
        postponed = partly.postponed if partly else frozenset()
        committed = [message for n, message in enumerate(batch.messages) if n not in postponed]
        self._after_commit(committed if postponed else batch.messages, result)
        for waiter in batch.waiters:
            if partly is not None and any(waiter.first <= n < waiter.end for n in postponed):
                waiter.refusals.errback(partly)
                continue
            waiter.refusals.callback(
                [
                    replace(refusal, index=refusal.index - waiter.first)
                    for refusal in result.refused
                    if waiter.first <= refusal.index < waiter.end
                ]
            )

    def _end_transaction(self) -> None:
        """Write the batch that has waited for the end of a transaction, if there is one."""
        self._transactions -= 1
        if self._batch.waiters and self._timer is None and self._transactions < TRANSACTIONS_AT_ONCE:
            self._flush()


def _entry_as_signed(batch: VerifiedBatch, rejected: RejectedEntry) -> BatchEntry | None:
    try:
        return batch.entry(rejected.index, rejected.entry)
    except BadSignature:
        return None


def _rejection(kind: str, reason: str, entry: Any) -> Rejection:
    meter = entry.get("counter_name") if isinstance(entry, dict) else None
    return Rejection(kind=kind, reason=reason, meter=meter if isinstance(meter, str) else None)
