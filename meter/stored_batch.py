"""A signed batch as the store has it, and its verification: which of its messages were altered, removed or added.

The digests of stored messages are not stored: they are made again from the rows. The store has the first bytes of each digest,
with which an altered message is told from the others of its batch. An entry that was not stored, because it was a duplicate
or was refused, is a statement that the collector has signed, with the digest of the entry.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Any
from typing import Literal
from typing import NamedTuple

from meter.batch_signature import DIGEST_BYTES
from meter.batch_signature import batch_keys
from meter.batch_signature import message_digest
from meter.ceilometer_signature import BadSignature
from meter.signing_keys import Keyring
from meter.signing_keys import SignatureScheme
from meter.signing_keys import SigningKey

CHECK_BYTES = 4
"""The number of bytes of each digest that the store has."""

UnstoredReason = Literal["duplicate", "refused"]
"""*duplicate*: the sample had been stored with an earlier batch. *refused*: it was dead-lettered."""


class UnstoredEntry(NamedTuple):
    """A collector's signed statement that it did not store the message at ``position`` of a batch."""

    position: int
    digest: bytes
    reason: str
    mac: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBatch:
    """A batch in the store. ``checks`` are the first :data:`CHECK_BYTES` of each digest, concatenated.

    ``messages`` are the position and the fields of each stored message of the batch; the fields are ``None`` where the row
    is so damaged that no message can be restored from it.
    """

    id: str
    key_id: str
    first: str
    last: str
    mac: bytes
    checks: bytes
    messages: Sequence[tuple[int, Mapping[str, Any] | None]]
    unstored: Sequence[UnstoredEntry]

    @property
    def count(self) -> int:
        """The number of messages in the batch when it was signed."""
        return len(self.checks) // CHECK_BYTES

    def check(self, position: int) -> bytes:
        """Return the first bytes of the digest of the message at ``position``; empty if there is none."""
        return self.checks[position * CHECK_BYTES : (position + 1) * CHECK_BYTES] if position >= 0 else b""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredProof:
    """A stored message with all that proves it.

    ``message`` is the message as it was signed; without Ceilometer's signature if ``batch`` is the signed batch in which it
    has the place ``position``. ``key_id`` and ``scheme`` are those of the signature that was verified when it arrived. ``voided``:
    the sample is voided, and no other answer has it.
    """

    message: Mapping[str, Any]
    key_id: str | None
    scheme: SignatureScheme | None
    batch: StoredBatch | None = None
    position: int = 0
    voided: bool = False


@dataclass(slots=True)
class BatchFindings:
    """The result of a verification. ``problems`` has for each of ``StoredBatch.messages`` what is wrong, ``None`` if nothing is.

    ``missing`` are the positions of messages that were signed and are neither stored nor stated to be unstored. ``damage``
    says what is wrong with the batch as a whole. ``digests`` are all digests, concatenated, if all are known;
    ``signature_matches`` says whether the signature of the batch covers them, and is ``None`` if that is unknown. ``fitting`` is
    the number of messages, and of statements that a message was not stored, that fit the key.
    """

    problems: list[str | None]
    missing: list[int] = field(default_factory=list)
    damage: str | None = None
    digests: bytes | None = None
    signature_matches: bool | None = None
    fitting: int = 0


@dataclass(frozen=True, slots=True)
class KeyFindings:
    """The key that signed a batch, and the result of the verification with it."""

    key: SigningKey
    findings: BatchFindings


def verify_with_keyring(batch: StoredBatch, keys: Keyring) -> KeyFindings | None:
    """Return which of ``keys`` signed ``batch``, and what is wrong with it; ``None`` if none of them is known to have signed it.

    The named key is tried first, then the others, as on arrival: the same secret may have had another id. Where messages are
    missing or altered, so that the signature of the whole cannot be compared, it is the key that fits most of the messages.
    """
    best: KeyFindings | None = None
    most = 0
    for key in keys.preferring(batch.key_id):
        found = KeyFindings(key, verify_stored_batch(batch, key))
        if found.findings.signature_matches:
            return found
        if found.findings.fitting > most or (best is None and key.id == batch.key_id):
            best, most = found, found.findings.fitting
    return best


def verify_stored_batch(batch: StoredBatch, key: SigningKey) -> BatchFindings:
    """Return what is wrong with ``batch``, which ``key`` is said to have signed."""
    keys = batch_keys(key.secret)
    salt = keys.salt(batch.id)
    digests: dict[int, bytes] = {}
    findings = BatchFindings([])
    for position, fields in batch.messages:
        findings.problems.append(_problem(batch, salt, position, fields, digests))
    for entry in batch.unstored:
        inside = 0 <= entry.position < batch.count
        if not inside or not hmac.compare_digest(
            keys.unstored_mac(batch.id, entry.position, entry.digest, entry.reason), entry.mac
        ):
            findings.damage = f"the statement that message {entry.position} was not stored is not the collector's"
        else:
            digests.setdefault(entry.position, entry.digest)
    findings.fitting = len(digests)
    present = {position for position, _ in batch.messages}
    findings.missing = [n for n in range(batch.count) if n not in digests and n not in present]
    if len(digests) == batch.count and set(digests) == set(range(batch.count)):
        findings.digests = b"".join(digests[n] for n in range(batch.count))
        mac = keys.mac(batch.id, batch.first, batch.last, findings.digests)
        findings.signature_matches = hmac.compare_digest(mac, batch.mac)
        if not findings.signature_matches:
            findings.damage = "the signature of the batch does not match: the record of the batch was altered"
    return findings


def _problem(
    batch: StoredBatch, salt: bytes, position: int, fields: Mapping[str, Any] | None, digests: dict[int, bytes]
) -> str | None:
    """Return what is wrong with the message at ``position``; add its digest to ``digests`` if nothing is."""
    if fields is None:
        return "no message can be restored from the row"
    if not 0 <= position < batch.count:
        return f"the row was added: the batch was signed with {batch.count} messages, and this is number {position}"
    try:
        digest = message_digest(salt, position, fields)
    except BadSignature as error:
        return str(error)
    if digest[:CHECK_BYTES] != batch.check(position):
        return "the row was altered or added: it is not the message that was signed"
    if position in digests:
        return "the row was added: another row is the same message of the batch"
    digests[position] = digest
    return None


def checks_of(digests: bytes) -> bytes:
    """Return the checks of concatenated ``digests``."""
    return b"".join(digests[n : n + CHECK_BYTES] for n in range(0, len(digests), DIGEST_BYTES))
