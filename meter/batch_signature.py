"""Signs and verifies batches of metering messages with Meter's own signature, which binds every member of every message.

A batch is the messages of one publication. Each message has a *digest*: SHA-256 over a secret salt of the batch, the position
of the message in the batch and its *canonical form*, which is MessagePack and therefore has the type and the length of every
value. The signature is one HMAC-SHA-256 over the id of the batch and all its digests. Salt and HMAC key are derived from the
shared secret by HKDF-SHA-256, each for its own purpose. docs/keys.rst describes the format for other implementations.
"""

from __future__ import annotations

import binascii
import functools
import hashlib
import hmac
import struct
import uuid
from base64 import b64decode
from base64 import b64encode
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from meter.ceilometer_signature import METADATA_FIELD
from meter.ceilometer_signature import SIGNATURE_FIELD
from meter.ceilometer_signature import BadSignature
from meter.message_ids import new_message_id

BATCH_SIGNATURE_FIELD = "_meter_batch_signature"
"""The member of a cast with the signature of its batch. oslo.messaging ignores members that start with an underscore."""

VERSION = 1

DIGEST_BYTES = 32

MAX_ENTRIES = 32_767
"""Maximum number of messages in a batch: the store has their positions as 16-bit integers."""

CACHED_METADATA = 4096
"""Number of metadata whose digest is cached: about one per resource of an agent."""

MAX_CACHED_METADATA = 4096
"""Maximum size of cached metadata, in bytes."""

MAX_BASE64 = 4 * (MAX_ENTRIES * DIGEST_BYTES // 3 + 1)
"""Maximum length of the digests of a batch in base64, in characters."""

MAX_MEMBER = 64
"""Maximum length of a text in a batch signature, in characters."""

LARGE_INTEGER = 1
"""MessagePack extension type of an integer that does not fit into 64 bits: two's complement, big-endian, shortest form."""

_position = struct.Struct(">I").pack

_canonical = msgspec.msgpack.Encoder(order="sorted").encode
_canonical_in_order = msgspec.msgpack.Encoder().encode


class BatchKeys:
    """The keys that are derived from one shared secret."""

    __slots__ = ("_mac", "_salt", "_unstored")

    def __init__(self, secret: bytes) -> None:
        self._mac = derive_key(secret, b"meter batch signature 1")
        self._salt = derive_key(secret, b"meter batch salt 1")
        self._unstored = derive_key(secret, b"meter unstored entry 1")

    def salt(self, batch_id: str) -> bytes:
        """Return the secret salt of a batch, without which nobody can guess a message from its digest."""
        return hmac.digest(self._salt, uuid.UUID(batch_id).bytes, "sha256")

    def mac(self, batch_id: str, first: str, last: str, digests: bytes) -> bytes:
        """Return the signature of a batch, 32 bytes: over its id, its times and the concatenated ``digests``."""
        return hmac.digest(self._mac, _canonical([VERSION, batch_id, first, last, digests]), "sha256")

    def unstored_mac(self, batch_id: str, position: int, digest: bytes, reason: str) -> bytes:
        """Return the collector's signature over the statement that an entry of a batch was not stored."""
        stated = uuid.UUID(batch_id).bytes + _position(position) + digest + reason.encode()
        return hmac.digest(self._unstored, stated, "sha256")


@functools.lru_cache(maxsize=256)
def batch_keys(secret: bytes) -> BatchKeys:
    """Return the keys derived from ``secret``; there are as many secrets as signing keys."""
    return BatchKeys(secret)


def derive_key(secret: bytes, purpose: bytes) -> bytes:
    """Return the key of 32 bytes that is derived from ``secret`` by HKDF-SHA-256, for ``purpose`` alone."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(secret)


class BatchSignature(msgspec.Struct, frozen=True):
    """The signature of a batch. ``id`` is a canonical UUID. ``digests`` are those of all its messages, concatenated.

    ``first`` and ``last`` are the earliest and the latest timestamp of its messages, in UTC, as texts that sort like times.
    ``positions`` are those of the messages that a cast carries, in their order, if it does not carry all of them: a message
    that is sent again by itself keeps the signature of its batch.
    """

    id: str
    key_id: str
    first: str
    last: str
    digests: bytes
    mac: bytes
    positions: tuple[int, ...] | None = None

    @property
    def count(self) -> int:
        """The number of messages in the batch."""
        return len(self.digests) // DIGEST_BYTES

    def digest(self, position: int) -> bytes:
        """Return the digest of the message at ``position``."""
        return self.digests[position * DIGEST_BYTES : (position + 1) * DIGEST_BYTES]

    def only(self, positions: Sequence[int]) -> BatchSignature:
        """Return the signature for a cast of only the messages at ``positions``."""
        return msgspec.structs.replace(self, positions=tuple(positions))

    def under(self, key_id: str) -> BatchSignature:
        """Return this signature with ``key_id`` as the id of its key, which the signature does not cover."""
        return self if key_id == self.key_id else msgspec.structs.replace(self, key_id=key_id)

    def to_json(self) -> dict[str, Any]:
        """Return the value of :data:`BATCH_SIGNATURE_FIELD`."""
        members = {
            "version": VERSION,
            "id": self.id,
            "key_id": self.key_id,
            "first": self.first,
            "last": self.last,
            "digests": b64encode(self.digests).decode(),
            "mac": b64encode(self.mac).decode(),
        }
        return members if self.positions is None else {**members, "positions": list(self.positions)}


class BatchEntry(msgspec.Struct, frozen=True, gc=False):
    """A message's place in a batch whose signature ``keys`` have verified."""

    batch: BatchSignature
    position: int
    keys: BatchKeys

    @property
    def place(self) -> tuple[str, bytes, int]:
        """What identifies the place: the id and the signature of the batch, and the position.

        Entries are compared by it: the signature does not cover all that a :class:`BatchSignature` has, such as ``positions``.
        """
        return self.batch.id, self.batch.mac, self.position

    @property
    def digest(self) -> bytes:
        """The digest of the message."""
        return self.batch.digest(self.position)

    def unstored_mac(self, reason: str) -> bytes:
        """Return the collector's signature over the statement that this entry was not stored."""
        return self.keys.unstored_mac(self.batch.id, self.position, self.digest, reason)


def sign_batch(
    messages: Sequence[Mapping[str, Any]], key_id: str, secret: bytes, canonical_forms: Sequence[bytes] | None = None
) -> BatchSignature:
    """Return the signature of a new batch of ``messages``, whose timestamps are those of :func:`meter.sample.utc_text`.

    ``canonical_forms`` are those of ``messages``, if they are known. Raises :class:`BadSignature` for a message that is not JSON.
    """
    if len(messages) > MAX_ENTRIES:
        raise ValueError(f"a batch can have at most {MAX_ENTRIES} messages, not {len(messages)}")
    keys, batch_id = batch_keys(secret), new_message_id()
    salt = keys.salt(batch_id)
    if canonical_forms is None:
        canonical_forms = [canonical_form(message) for message in messages]
    digests = b"".join(
        # One call for each: to copy a hash that has taken the salt takes longer.
        [hashlib.sha256(salt + _position(n) + form).digest() for n, form in enumerate(canonical_forms)]
    )
    times = [message["timestamp"] for message in messages]
    first, last = min(times), max(times)
    return BatchSignature(batch_id, key_id, first, last, digests, keys.mac(batch_id, first, last, digests))


def message_digest(salt: bytes, position: int, message: Mapping[str, Any]) -> bytes:
    """Return the digest of the ``message`` at ``position`` in the batch with ``salt``."""
    return _digest(_begun(salt), position, canonical_form(message))


def digest_of_canonical_form(salt: bytes, position: int, canonical: bytes) -> bytes:
    """Return the digest of the message at ``position`` in the batch with ``salt`` that has this canonical form."""
    return _digest(_begun(salt), position, canonical)


def _digest(begun: hashlib._Hash, position: int, canonical: bytes) -> bytes:
    digest = begun.copy()
    digest.update(_position(position) + canonical)
    return digest.digest()


@functools.lru_cache(maxsize=64)
def _begun(salt: bytes) -> hashlib._Hash:
    """Return a hash that has taken ``salt``: copying it is faster than making another one."""
    return hashlib.sha256(salt)


def canonical_form(message: Mapping[str, Any]) -> bytes:
    """Return ``message`` in its canonical form: a MessagePack map of all members but Ceilometer's signature.

    That signature can be made again from the other members. Maps are in the order of their keys, integers in their
    shortest form, floats have 64 bits. The value of ``resource_metadata`` is replaced by the SHA-256 of its own
    canonical form, so that metadata that many messages share are encoded once. Raises :class:`BadSignature`.
    """
    members = dict(message)
    members.pop(SIGNATURE_FIELD, None)
    metadata = members.get(METADATA_FIELD)
    if isinstance(metadata, msgspec.Raw):
        members[METADATA_FIELD] = digest_of_encoded_metadata(bytes(metadata))
    elif isinstance(metadata, Mapping):
        members[METADATA_FIELD] = hashlib.sha256(_encode(metadata)).digest()
    return _encode(members)


def canonical_members(members: Mapping[str, Any]) -> bytes:
    """Return the canonical form of at most 15 ``members``, in the order of their names, without that of the map around them.

    :data:`MAP_OF_ELEVEN` and the forms of all members of a message, one after the other, are its canonical form: what several
    messages have in common is encoded once. Metadata must be replaced by their digest. Raises :class:`BadSignature`.
    """
    try:
        return _canonical_in_order(members)[1:]
    except (OverflowError, UnicodeEncodeError, RecursionError, TypeError, ValueError):
        return _encode(members)[1:]


MAP_OF_ELEVEN = b"\x8b"
"""How MessagePack begins a map with the members of a sample."""


def digest_of_encoded_metadata(encoded: bytes) -> bytes:
    """Return the SHA-256 of the canonical form of metadata, given as JSON; cached, because it repeats from cycle to cycle."""
    return _cached_digest(encoded) if len(encoded) <= MAX_CACHED_METADATA else digest_of_json(encoded)


def digest_of_json(encoded: bytes) -> bytes:
    """Return the SHA-256 of the canonical form of metadata, given as JSON; raises :class:`BadSignature`."""
    return hashlib.sha256(_encode(msgspec.json.decode(encoded))).digest()


_cached_digest = functools.lru_cache(maxsize=CACHED_METADATA)(digest_of_json)


def _encode(value: Any) -> bytes:
    try:
        try:
            return _canonical(value)
        except OverflowError:
            return _canonical(_with_large_integers(value))
    except (UnicodeEncodeError, RecursionError, TypeError, ValueError) as error:
        raise BadSignature(f"the message cannot be signed: {error}") from error


def _with_large_integers(value: Any) -> Any:
    """Return ``value`` with each integer that does not fit into 64 bits as a MessagePack extension."""
    match value:
        case bool():
            return value
        case int() if not -(2**63) <= value < 2**64:
            return msgspec.msgpack.Ext(LARGE_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, signed=True))
        case Mapping():
            return {name: _with_large_integers(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_with_large_integers(inner) for inner in value]
    return value


def parse_batch_signature(value: Any, messages: int) -> BatchSignature:
    """Return the signature that a cast of so many ``messages`` has; raises :class:`BadSignature` if it has no valid form."""
    if not isinstance(value, Mapping):
        raise BadSignature(f"{BATCH_SIGNATURE_FIELD} must be a mapping")
    if type(value.get("version")) is not int or value["version"] != VERSION:
        raise BadSignature(
            f"{BATCH_SIGNATURE_FIELD} has version {value.get('version')!r:.40}, and this Meter knows version {VERSION}"
        )
    key_id, first, last = (_member_text(value, name) for name in ("key_id", "first", "last"))
    digests, mac = _bytes(value, "digests"), _bytes(value, "mac")
    count = len(digests) // DIGEST_BYTES
    if not count or len(digests) % DIGEST_BYTES or count > MAX_ENTRIES:
        raise BadSignature(
            f"digests of {BATCH_SIGNATURE_FIELD} must have 32 bytes for each of 1 to {MAX_ENTRIES} messages"
        )
    if len(mac) != DIGEST_BYTES:
        raise BadSignature(f"mac of {BATCH_SIGNATURE_FIELD} must have 32 bytes, not {len(mac)}")
    return BatchSignature(_batch_id(value), key_id, first, last, digests, mac, _positions(value, count, messages))


def _member_text(value: Mapping[str, Any], name: str) -> str:
    text = value.get(name)
    # Half of a surrogate pair is not printable.
    if not isinstance(text, str) or not text or len(text) > MAX_MEMBER or not text.isprintable():
        raise BadSignature(
            f"{name} of {BATCH_SIGNATURE_FIELD} must be a text of 1 to {MAX_MEMBER} printable characters"
        )
    return text


def _bytes(value: Mapping[str, Any], name: str) -> bytes:
    text = value.get(name)
    if isinstance(text, str) and len(text) <= MAX_BASE64:  # nothing longer can be valid, and decoding it takes time
        try:
            return b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            pass
    raise BadSignature(f"{name} of {BATCH_SIGNATURE_FIELD} must be base64, of at most {MAX_BASE64} characters")


def _batch_id(value: Mapping[str, Any]) -> str:
    text = value.get("id")
    try:
        if isinstance(text, str) and str(uuid.UUID(text)) == text:
            return text
    except ValueError:
        pass
    raise BadSignature(f"id of {BATCH_SIGNATURE_FIELD} must be a UUID in lower case")


def _positions(value: Mapping[str, Any], count: int, messages: int) -> tuple[int, ...] | None:
    positions = value.get("positions")
    if positions is None:
        if messages != count:
            raise BadSignature(f"the batch has {count} messages, and the cast has {messages}")
        return None
    # The number is compared first, so that a hostile list is not looked through.
    if isinstance(positions, list) and len(positions) > count:
        raise BadSignature(f"positions of {BATCH_SIGNATURE_FIELD} has {len(positions)} entries, the batch has {count}")
    if not isinstance(positions, list) or not all(type(each) is int and 0 <= each < count for each in positions):
        raise BadSignature(f"positions of {BATCH_SIGNATURE_FIELD} must be a list of numbers from 0 to {count - 1}")
    if len(positions) != messages or len(set(positions)) != messages:
        raise BadSignature(
            f"positions of {BATCH_SIGNATURE_FIELD} must name each of the {messages} messages of the cast once"
        )
    return tuple(positions)
