"""The hash chain of the audit log: how an entry is hashed, and what is wrong with a sequence of entries.

The hash of an entry covers all of its other members, among them the hash of the entry before it: whoever alters, removes or
inserts an entry must make all later hashes anew. With a key, which is derived from a signing key, that is possible only for
somebody who has this key, and not for somebody who has only the database. What no chain shows is that its newest entries are
missing: to detect that, keep the number and the hash of the newest entry in another place.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import UTC
from typing import Any
from typing import NamedTuple

import msgspec

from meter.batch_signature import derive_key
from meter.query import AuditEntry
from meter.signing_keys import SigningKey

FORMAT = "meter audit log 1"
"""The first text that each hash covers, and the purpose for which its key is derived."""

BEGINNING = "0" * 64
"""``previous`` of the first entry."""


class Anchor(NamedTuple):
    """The number and the hash of an entry, noted outside of the database."""

    seq: int
    hash: str


def canonical_details(details: Mapping[str, Any]) -> str:
    """Return ``details``, mappings, lists and scalars, as JSON with sorted keys that PostgreSQL can store as text."""
    return msgspec.json.encode(_storable(details), order="sorted").decode()


def storable_text(text: str) -> str:
    """Return ``text`` with an escape in place of what PostgreSQL cannot store: NUL characters and halves of surrogate pairs."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, Mapping):
        return {storable_text(name): _storable(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(member) for member in value]
    return value


def entry_hash(entry: AuditEntry, secret: bytes) -> str:
    """Return the hash of ``entry`` in hexadecimal; ``secret`` is that of the signing key ``key_id``.

    It is the HMAC-SHA-256 of :data:`FORMAT` and of the members in the order of the table, each as UTF-8 with its length in 8
    bytes before it. ``at`` is written in UTC with microseconds, ``seq`` in decimal digits.
    """
    covered = b"".join(
        len(encoded).to_bytes(8, "big") + encoded
        for encoded in (
            text.encode()
            for text in (
                FORMAT,
                str(entry.seq),
                entry.at.astimezone(UTC).isoformat(timespec="microseconds"),
                entry.who,
                entry.action,
                entry.reason,
                entry.details,
                entry.key_id,
                entry.previous,
            )
        )
    )
    return hmac.digest(derive_key(secret, FORMAT.encode()), covered, "sha256").hex()


def hash_matches(entry: AuditEntry, keys: Sequence[SigningKey]) -> bool:
    """Return whether one of ``keys`` verifies the hash of ``entry``: the named one first, whose id may be another one by now."""
    ordered = sorted(keys, key=lambda key: key.id != entry.key_id)
    return any(hmac.compare_digest(entry_hash(entry, key.secret), entry.hash) for key in ordered)


class ChainVerifier:
    """Verifies entries in the order of their numbers with ``keys``, the accepted signing keys.

    ``anchors`` are entries that must be in the log. ``referenced`` is the highest number that other tables refer to.
    ``newest`` is the last entry that was verified, ``entries`` their number.
    """

    def __init__(self, keys: Sequence[SigningKey], anchors: Sequence[Anchor] = (), *, referenced: int = 0) -> None:
        self._referenced = referenced
        self._keys = tuple(keys)
        self._anchors = {anchor.seq: anchor.hash.lower() for anchor in anchors}
        self.newest: AuditEntry | None = None
        self.entries = 0

    def problems_of(self, entry: AuditEntry) -> Iterator[str]:
        """Yield what is wrong with the next ``entry``."""
        if entry.seq < 1:
            self.entries += 1
            yield f"entry {entry.seq} is not in the chain, which begins with entry 1: it was inserted"
            return
        expected = 1 if self.newest is None else self.newest.seq + 1
        previous = BEGINNING if self.newest is None else self.newest.hash
        self.newest = entry
        self.entries += 1
        if entry.seq > expected:
            yield f"entries {expected} to {entry.seq - 1} are missing"
        elif entry.seq < expected:
            yield f"entry {entry.seq} has an impossible number"
        if entry.previous != previous:
            yield f"entry {entry.seq} does not follow the entry before it: one of the two was altered, inserted or removed"
        if not hash_matches(entry, self._keys):
            known = any(key.id == entry.key_id for key in self._keys)
            missing = "" if known else f", or the signing key {entry.key_id!r} is missing"
            yield f"entry {entry.seq} was altered{missing}"
        if self._anchors.get(entry.seq, entry.hash) != entry.hash:
            yield f"entry {entry.seq} has another hash than the expected one: the log was rewritten"

    def problems_at_end(self) -> Iterator[str]:
        """Yield what is wrong with the end of the log."""
        newest = 0 if self.newest is None else self.newest.seq
        for seq in sorted(self._anchors):
            if seq > newest:
                yield f"the log ends with entry {newest}, and entry {seq} is expected: newer entries were removed"
        if self._referenced > newest:
            yield f"the log ends with entry {newest}, and samples were voided under entry {self._referenced}: newer entries were removed"
