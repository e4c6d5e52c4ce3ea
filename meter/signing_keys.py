"""Signing keys: the shared secrets, what each may sign, and the choice of the key that signs or verifies a message."""

from __future__ import annotations

import functools
import hmac
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any
from typing import Literal
from typing import get_args

from meter.batch_signature import BatchEntry
from meter.batch_signature import BatchKeys
from meter.batch_signature import BatchSignature
from meter.batch_signature import batch_keys
from meter.batch_signature import canonical_form
from meter.batch_signature import digest_of_canonical_form
from meter.batch_signature import message_digest
from meter.ceilometer_reading import check_reading
from meter.ceilometer_signature import SIGNATURE_FIELD
from meter.ceilometer_signature import BadSignature
from meter.ceilometer_signature import signed_bytes

SignatureScheme = Literal["meter", "ceilometer"]
"""*meter* is the signature of a batch (:mod:`meter.batch_signature`), *ceilometer* that of a single message."""

SCHEMES: tuple[SignatureScheme, ...] = get_args(SignatureScheme)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One shared secret, and what it may sign.

    It signs with ``schemes``, samples with timestamps from ``not_before`` to ``not_after``, exclusive, whose meter and source
    match one of the shell patterns in ``meters`` and ``sources``; empty for all. It may report for the agents and other daemons
    that match one of ``agents``, ``daemon@host``; empty for all.
    """

    id: str
    secret: bytes = field(repr=False)
    not_before: datetime | None = None
    not_after: datetime | None = None
    schemes: tuple[SignatureScheme, ...] = ("meter",)
    meters: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()

    @property
    def unlimited(self) -> bool:
        """Whether this key may sign samples of every time, meter and source."""
        return self.not_before is None and self.not_after is None and not self.meters and not self.sources

    def covers(self, timestamp: datetime) -> bool:
        """Return whether this key may sign something of this time."""
        return (self.not_before is None or self.not_before <= timestamp) and (
            self.not_after is None or timestamp < self.not_after
        )

    def may_report_for(self, agent: str) -> bool:
        """Return whether this key may sign reports of an agent or another daemon, ``daemon@host``."""
        return not self.agents or _matches(self.agents, agent)

    def may_report_for_daemon(self, daemon: str) -> bool:
        """Return whether this key may sign reports of a daemon on some host."""
        return not self.agents or any(fnmatchcase(daemon, pattern.partition("@")[0]) for pattern in self.agents)

    def problem(self, timestamp: datetime, meter: str, source: str | None) -> str | None:
        """Return why this key may not sign such a sample, ``None`` if it may."""
        if not self.covers(timestamp):
            return f"does not cover {timestamp.isoformat()}"
        if self.meters and not _matches(self.meters, meter):
            return f"may not sign samples of the meter {meter}"
        if self.sources and not _matches(self.sources, source or ""):
            return f"may not sign samples of the source {source}"
        return None


@functools.lru_cache(maxsize=4096)
def _matches(patterns: tuple[str, ...], name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class VerifiedBatch:
    """A batch whose signature ``key`` has verified. Its messages still have to be compared with their digests."""

    signature: BatchSignature
    key: SigningKey
    keys: BatchKeys
    salt: bytes

    def entry(self, index: int, message: Any) -> BatchEntry:
        """Return the place in the batch of the message ``index`` of the cast.

        Raises :class:`BadSignature` if ``message`` is not the one that was signed there.
        """
        position = self._position(index)
        digest = message_digest(self.salt, position, message) if isinstance(message, Mapping) else b""
        if digest != self.signature.digest(position):
            raise BadSignature(f"message {position} of the batch differs from the one that key {self.key.id} signed")
        return BatchEntry(self.signature, position, self.keys)

    def entry_of_canonical_form(self, index: int, canonical: bytes) -> BatchEntry | None:
        """Return the place of the message ``index`` of the cast, given in its canonical form; ``None`` if it is not the signed one."""
        position = self._position(index)
        if digest_of_canonical_form(self.salt, position, canonical) != self.signature.digest(position):
            return None
        return BatchEntry(self.signature, position, self.keys)

    def only(self, indexes: Sequence[int]) -> BatchSignature:
        """Return the signature for a cast of only the messages with these ``indexes``."""
        return self.signature.only([self._position(index) for index in indexes])

    def _position(self, index: int) -> int:
        positions = self.signature.positions
        return index if positions is None else positions[index]


class Keyring:
    """The accepted keys, in order of preference; the first that may sign a sample signs it.

    With ``ceilometer_signature`` messages get Ceilometer's signature as well.
    """

    def __init__(
        self, keys: Sequence[SigningKey], *, accept_unsigned: bool = False, ceilometer_signature: bool = True
    ) -> None:
        self._set(keys, accept_unsigned, ceilometer_signature)

    def _set(self, keys: Sequence[SigningKey], accept_unsigned: bool, ceilometer_signature: bool) -> None:
        self._keys = tuple(keys)
        self._by_id = {key.id: key for key in keys}
        # Most keyrings have one key without limits: then it does not depend on the sample which one signs.
        first = next((key for key in keys if "meter" in key.schemes), None)
        self._signs_all = first if first is not None and first.unlimited else None
        self._accept_unsigned = accept_unsigned
        self.ceilometer_signature = ceilometer_signature

    def take_over(self, other: Keyring) -> None:
        """Become equal to ``other``, wherever this keyring is in use; what is being signed or verified may still use the old keys."""
        self._set(other._keys, other._accept_unsigned, other.ceilometer_signature)

    @property
    def keys(self) -> Sequence[SigningKey]:
        """The accepted keys, in order of preference."""
        return self._keys

    def get(self, key_id: str) -> SigningKey | None:
        """Return the key with this id, ``None`` if there is none."""
        return self._by_id.get(key_id)

    def preferring(self, key_id: str | None) -> Sequence[SigningKey]:
        """Return all keys, that with this id first: another daemon may have the same secret under another id."""
        return sorted(self._keys, key=lambda key: key.id != key_id)

    def key_for(self, timestamp: datetime, meter: str, source: str | None) -> SigningKey:
        """Return the key that signs such a sample; raises :class:`BadSignature` if there is none."""
        if self._signs_all is not None:
            return self._signs_all
        problem = 'there is no key with schemes = ["meter"]'
        for key in self._keys:
            if "meter" in key.schemes:
                found = key.problem(timestamp, meter, source)
                if found is None:
                    return key
                problem = f"key {key.id} {found}"
        raise BadSignature(f"no key of [signing] may sign the sample: {problem}")

    def verify_batch(self, signature: BatchSignature) -> VerifiedBatch:
        """Return the batch with this signature; raises :class:`BadSignature`.

        The key that the signature names is tried first, then the others: another daemon may have the same secret under another
        id. The returned signature has the id of the key here.
        """
        problem = ""
        for key in self.preferring(signature.key_id):
            keys = batch_keys(key.secret)
            mac = keys.mac(signature.id, signature.first, signature.last, signature.digests)
            if hmac.compare_digest(mac, signature.mac):
                if "meter" in key.schemes:
                    return VerifiedBatch(signature.under(key.id), key, keys, keys.salt(signature.id))
                problem = problem or f'key {key.id} may not sign batches: its schemes do not include "meter"'
        if problem:
            raise BadSignature(problem)
        if signature.key_id not in self._by_id:
            raise BadSignature(
                f"the batch is signed with the key {signature.key_id!r:.80}, which [signing] does not have"
            )
        raise BadSignature(
            f"the signature of the batch does not match: it was changed, or signed with another key than {signature.key_id}"
        )

    def verify_message(
        self, message: Mapping[str, Any], timestamp: datetime, meter: str, source: str | None, key_id: str | None = None
    ) -> str | None:
        """Return the id of the key of Ceilometer's signature of ``message``; ``None`` if it has none and needs none.

        The key ``key_id`` is tried first, then the others with the scheme *ceilometer*; without one the signed text, which can
        be far longer than the message, is not made. Raises :class:`BadSignature`.
        """
        claimed = message.get(SIGNATURE_FIELD)
        if not claimed:
            if self._accept_unsigned:
                canonical_form(message)  # raises for values that are not JSON and cannot be stored
                return None
            raise BadSignature("the message is not signed")
        if not isinstance(claimed, str) or not claimed.isascii():
            raise BadSignature(f"{SIGNATURE_FIELD} must be 64 hexadecimal digits")
        keys = [key for key in self.preferring(key_id) if "ceilometer" in key.schemes]
        if not keys:
            raise BadSignature("no key of [signing] accepts Ceilometer's signature alone: no schemes include it")
        covered = signed_bytes(message)
        problem = ""
        for key in keys:
            if hmac.compare_digest(hmac.digest(key.secret, covered, "sha256").hex(), claimed):
                found = key.problem(timestamp, meter, source)
                if found is None:
                    check_reading(message)
                    return key.id
                problem = problem or f"signed with key {key.id}, which {found}"
        raise BadSignature(
            problem
            or "the signature does not match: the message was changed, or signed with another key than those of [signing]"
            ' with schemes = ["ceilometer"]'
        )


def keyring(secrets: Iterable[str], *, ceilometer_signature: bool = True) -> Keyring:
    """Return a keyring of secrets that may sign everything with both schemes, with ids ``key-1``, ``key-2``…"""
    keys = [SigningKey(f"key-{n}", text.encode(), schemes=SCHEMES) for n, text in enumerate(secrets, 1)]
    return Keyring(keys, ceilometer_signature=ceilometer_signature)


def keys_for_audit(keys: Keyring) -> Sequence[SigningKey]:
    """Return those of ``keys`` that may write the audit log: those that may sign batches of all meters and sources."""
    return [key for key in keys.keys if "meter" in key.schemes and not (key.meters or key.sources)]
