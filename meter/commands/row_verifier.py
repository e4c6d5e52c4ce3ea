"""Verifies stored rows and their signed batches, for ``meter-verify``."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from datetime import datetime
from typing import Literal

import msgspec
from cachetools import LRUCache
from twisted.internet.interfaces import IReactorTime

from meter.ceilometer_signature import BadSignature
from meter.daemon.services import sleep
from meter.message import BadMessage
from meter.message import MeteringMessage
from meter.message import parse
from meter.message import read
from meter.sample import utc_text
from meter.sample import volume_is_valid
from meter.sample_identity import WEEK
from meter.sample_identity import start_of_week
from meter.signing_keys import Keyring
from meter.signing_keys import SignatureScheme
from meter.signing_keys import SigningKey
from meter.store import BatchRows
from meter.store import StoredRow
from meter.store import Verification
from meter.stored_batch import KeyFindings
from meter.stored_batch import StoredBatch
from meter.stored_batch import verify_with_keyring

State = Literal["verified", "unsigned", "voided", "failed", "missing", "lost"]

Explain = Callable[[int, str], Awaitable[str | None]]
"""Returns why the audit log does not explain that a sample is voided, by the number of the entry and the message id."""

FIRST_PAUSE_SECONDS = 1.0
BATCH_WRITING_SECONDS = 4.0
"""An incomplete batch is read again, after pauses that grow to this: a collector may write it in several transactions."""

MAX_CACHED_BATCHES = 10_000
"""Signed batches whose verification is remembered, because further pages can have rows of them."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result for a row, or for a message that is missing.

    ``reason`` says why it is reported. ``key_id`` is the id of the key that verified the signature of ``scheme``. ``count`` is the
    number of rows or messages that it is about, 0 if they are counted otherwise.
    """

    state: State
    key_id: str | None = None
    reason: str | None = None
    scheme: SignatureScheme | None = None
    count: int = 1


Finding = tuple[StoredRow | None, Verdict]
"""A verdict and the row that it is about, or a row that stands for a missing message; ``None`` if there is no row."""


async def never_explained(audit_seq: int, _message_id: str) -> str | None:
    """Explain no voided sample: without the audit log."""
    return f"voided under audit entry {audit_seq}, and the audit log was not read"


@dataclass(frozen=True, slots=True)
class _VerifiedRows:
    """The verification of a signed batch. ``reasons`` has what is wrong with rows of it, by their id and timestamp."""

    key: SigningKey | None
    key_id: str
    first: str
    last: str
    reasons: Mapping[tuple[str, datetime], str]


@dataclass(frozen=True, slots=True)
class _CheckedBatch:
    """A signed batch with its rows, compared with the keys; ``found`` is ``None`` if no key is known to have signed it."""

    batch: StoredBatch
    rows: Sequence[StoredRow]
    found: KeyFindings | None

    @property
    def is_incomplete(self) -> bool:
        """Whether messages of it are missing."""
        return self.found is not None and bool(self.found.findings.missing)


class RowVerifier:
    """Verifies stored rows with ``keys``, which must accept unsigned messages.

    Signed batches are read from ``verification`` as a whole, when the first of their rows is verified. ``batches`` is the
    number of those that were verified.
    """

    def __init__(
        self,
        verification: Verification,
        keys: Keyring,
        clock: IReactorTime,
        *,
        accept_unsigned: bool,
        explain: Explain = never_explained,
    ) -> None:
        self._explain = explain
        self._verification = verification
        self._clock = clock
        self._keys = keys
        self._accept_unsigned = accept_unsigned
        self._known: LRUCache[int, _VerifiedRows] = LRUCache(MAX_CACHED_BATCHES)
        self._cutoffs: Mapping[str, datetime] | None = None
        self._lost: Sequence[tuple[str, str]] | None = None
        self._longest_pause = BATCH_WRITING_SECONDS
        self.batches = 0

    async def verdicts(self, rows: Sequence[StoredRow]) -> list[Finding]:
        """Return the verdict on each of ``rows``, and a verdict on each message that is missing in one of their batches.

        A missing message is represented by a row of its batch.
        """
        found: list[Finding] = []
        known: dict[int, _VerifiedRows | None] = {}
        for id in sorted({row.batch_id for row in rows} - {0}):
            if id in self._known:
                known[id] = self._known[id]
        wanted = {row.batch_id for row in rows} - {0} - known.keys()
        read = await self._verification.batches(wanted) if wanted else {}
        checked = {id: self._check(each) for id, each in read.items()}
        pause = FIRST_PAUSE_SECONDS
        while incomplete := [id for id, each in checked.items() if each.is_incomplete]:
            if pause > self._longest_pause:
                # Something is missing for good, and the remaining rows are read without such delays.
                self._longest_pause = min(self._longest_pause, FIRST_PAUSE_SECONDS)
                break
            await sleep(self._clock, pause)
            again = await self._verification.batches(incomplete)
            checked |= {id: self._check(each) for id, each in again.items()}
            pause *= 2
        for id in wanted:
            known[id] = None
            if id in checked:
                verified, missing = await self._batch_verdicts(checked[id])
                known[id] = self._known[id] = verified
                found += missing
        return found + [(row, await self._verdict(row, known.get(row.batch_id))) for row in rows]

    def _check(self, read: BatchRows) -> _CheckedBatch:
        return _CheckedBatch(read.batch, read.rows, verify_with_keyring(read.batch, self._keys))

    async def _batch_verdicts(self, checked: _CheckedBatch) -> tuple[_VerifiedRows, list[Finding]]:
        batch, rows, found = checked.batch, checked.rows, checked.found
        shown = rows[0] if rows else None  # its rows may have been moved out of the times of the batch
        row_of_it = ", of which this is a row," if rows else ""
        if found is None:
            return _VerifiedRows(None, batch.key_id, batch.first, batch.last, {}), []
        self.batches += 1
        key, findings = found.key, found.findings
        reasons = {
            (row.message_id, row.timestamp): problem
            for row, problem in zip(rows, findings.problems, strict=True)
            if problem is not None
        }
        if findings.signature_matches is False and findings.damage is not None:
            reasons = {(row.message_id, row.timestamp): findings.damage for row in rows}
        verdicts: list[Finding] = []
        if findings.damage is not None and findings.signature_matches is not False:
            verdicts.append((shown, Verdict("failed", reason=f"{findings.damage} (batch {batch.id})")))
        if findings.missing and not await self._expired(batch.first, rows) and not await self._is_lost(batch):
            verdicts += [
                (
                    shown,
                    Verdict("missing", reason=f"message {position} of the batch {batch.id}{row_of_it} is gone"),
                )
                for position in findings.missing
            ]
        return _VerifiedRows(key, batch.key_id, batch.first, batch.last, reasons), verdicts

    async def _expired(self, first: str, rows: Sequence[StoredRow] | None) -> bool:
        """Return whether the retention has deleted samples that are as old as ``first``, the earliest of the batch of ``rows``.

        Without rows nobody knows the meter of the batch: it may have been that with the latest cutoff.
        """
        if self._cutoffs is None:
            self._cutoffs = await self._verification.retention_cutoffs()
        meters = self._cutoffs if rows is None else {"", *(row.meter or "" for row in rows)}
        cutoffs = [self._cutoffs[meter] for meter in meters if meter in self._cutoffs]
        return any(utc_text(cutoff) > first for cutoff in cutoffs)

    async def _is_lost(self, batch: StoredBatch) -> bool:
        """Return whether the batch has times in a week whose samples are lost."""
        if self._lost is None:
            weeks = [start_of_week(each.week) for each in await self._verification.lost_weeks(None, None)]
            self._lost = [(utc_text(week), utc_text(week + WEEK)) for week in weeks]
        return any(batch.last >= begin and batch.first < end for begin, end in self._lost)

    def is_known(self, batch_id: int) -> bool:
        """Return whether rows of this batch are known to be in the store."""
        return batch_id in self._known

    async def verdicts_without_rows(self, ids: Sequence[int]) -> list[Finding]:
        """Return a verdict on each of the batches ``ids``, which have no rows, unless it is known why they have none."""
        found: list[Finding] = []
        for each in (await self._verification.batches(ids)).values():
            if not each.rows and (verdict := await self._verdict_without_rows(each.batch)) is not None:
                found.append((None, verdict))
        return found

    async def _verdict_without_rows(self, batch: StoredBatch) -> Verdict | None:
        found = verify_with_keyring(batch, self._keys)
        self.batches += 1
        if found is not None and found.findings.damage is not None:
            return Verdict("failed", reason=f"{found.findings.damage} (batch {batch.id})", count=0)
        missing = batch.count if found is None else len(found.findings.missing)
        if not missing or await self._expired(batch.first, None) or await self._is_lost(batch):
            return None
        return Verdict(
            "missing",
            reason=f"all rows of the batch {batch.id} are gone: {missing} messages from {batch.first} to {batch.last}",
            count=missing,
        )

    async def _verdict(self, row: StoredRow, batch: _VerifiedRows | None) -> Verdict:
        """Return the verdict on a row; that on a voided one is *voided* if nothing is wrong with it and the log explains it."""
        found = self._signature_verdict(row, batch)
        if row.audit_seq is None or found.state == "failed":
            return found
        reason = None if row.audit_seq == 0 else await self._explain(row.audit_seq, row.message_id)
        if row.audit_seq == 0 and not _out_of_bounds(row):
            reason = "voided without an entry of the audit log, and its volume is in the bounds"
        return Verdict("voided") if reason is None else Verdict("failed", reason=reason)

    def _signature_verdict(self, row: StoredRow, batch: _VerifiedRows | None) -> Verdict:
        """Return the verdict on a row; ``batch`` is the verification of its signed batch.

        A row fails if the signature does not match its message, or if its columns differ from its message. A row that arrived
        unsigned does not fail, but is reported if unsigned samples are not accepted.
        """
        if row.fields is None:
            return Verdict("failed", reason=row.damage)
        try:
            if row.audit_seq == 0 and _out_of_bounds(row):
                message, row = self._read_out_of_bounds(row)
            else:
                message = read(row.fields, self._keys, row.key_id) if row.batch_id == 0 else parse(row.fields)
        except (BadMessage, BadSignature) as error:
            return Verdict("failed", reason=str(error))
        key_id, scheme = message.key_id, message.scheme
        reason = row.damage or row.difference(message)
        if row.batch_id:
            key_id, scheme = None if batch is None or batch.key is None else batch.key.id, "meter"
            reason = self._batch_problem(row, message, batch) or reason
        elif key_id is None and row.key_id is not None:
            reason = f"the signature that key {row.key_id} verified on arrival is missing"
        if reason is not None:
            return Verdict("failed", reason=reason)
        if key_id is not None:
            return Verdict("verified", key_id, scheme=scheme)
        return Verdict(
            "unsigned",
            reason=None if self._accept_unsigned else "unsigned, and [signing] does not accept unsigned samples",
        )

    def _read_out_of_bounds(self, row: StoredRow) -> tuple[MeteringMessage, StoredRow]:
        """Return the message of a row whose volume the upgrade of the schema found out of the bounds, and the row.

        Both have the volume 0 if the column has that of the message.
        """
        fields, record = dict(row.fields or {}), row.record
        volume = fields["counter_volume"]
        message = parse({**fields, "counter_volume": 0})
        if row.batch_id == 0:
            key_id = self._keys.verify_message(fields, message.timestamp, message.name, message.source, row.key_id)
            msgspec.structs.force_setattr(message, "key_id", key_id)
        if record is not None and record.volume == volume:
            record = msgspec.structs.replace(record, volume=0.0)
        return message, replace(row, record=record)

    def _batch_problem(self, row: StoredRow, message: MeteringMessage, batch: _VerifiedRows | None) -> str | None:
        """Return what is wrong with a row of the signed ``batch``, which is ``None`` if the store does not have it."""
        if batch is None:
            return "the record of its signed batch is missing"
        key = batch.key
        if key is None:
            return f"its batch is signed with the key {batch.key_id}, which [signing] does not have"
        if not batch.first <= utc_text(row.timestamp) <= batch.last:
            # Rows of a batch are looked for within its times: this one was not compared with its digest.
            return "the row was altered or added: its timestamp is outside the times of its batch"
        if reason := batch.reasons.get((row.message_id, row.timestamp)):
            return reason
        if not self._is_id_of(key, batch.key_id):
            return f"the record of its batch names the key {batch.key_id}, and the key {key.id} signed the batch"
        if not self._is_id_of(key, row.key_id) or (
            row.key_id != batch.key_id and None in (self._keys.get(batch.key_id), self._keys.get(row.key_id or ""))
        ):
            return f"its batch is signed with the key {batch.key_id}, and its row names {row.key_id}"
        if "meter" not in key.schemes:
            return f'key {key.id}, which signed the batch, may not sign batches: its schemes do not include "meter"'
        problem = key.problem(message.timestamp, message.name, message.source)
        return problem and f"key {key.id}, which signed the batch, {problem}"

    def _is_id_of(self, key: SigningKey, key_id: str | None) -> bool:
        """Return whether ``key_id`` can be an id that ``key`` has or had: that of no other secret."""
        if key_id is None:
            return False
        named = self._keys.get(key_id)
        return named is None or named.secret == key.secret


def _out_of_bounds(row: StoredRow) -> bool:
    """Return whether the volume in the message of ``row`` is out of the bounds."""
    volume = None if row.fields is None else row.fields.get("counter_volume")
    return isinstance(volume, int | float) and not isinstance(volume, bool) and not volume_is_valid(volume)
