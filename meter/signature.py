"""Signs and verifies metering messages.

The algorithm is Ceilometer's, so that each can verify the other's messages: HMAC-SHA256 over the names and values of a
message, sorted by name, without separators; names in nested mappings are joined with ``:``, values are written as
Python's ``str`` writes them, and the text is encoded as UTF-8. ``message_signature`` itself is not covered.
"""

from __future__ import annotations

import functools
import hmac
import math
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from datetime import datetime
from typing import Any

import msgspec

SIGNATURE_FIELD = "message_signature"
METADATA_FIELD = "resource_metadata"

CACHED_METADATA = 4096
"""Number of metadata whose covered text is cached: about one per resource of a collector."""

MAX_CACHED_METADATA = 4096
"""Maximum size of cached metadata, in bytes; larger ones are not cached, which limits the memory to some tens of megabytes."""


class BadSignature(ValueError):
    """A message that cannot be signed, or that no accepted key verifies; the text says why."""


def signed_bytes(message: Mapping[str, Any], metadata_text: str | None = None) -> bytes:
    """Return the bytes that the signature of ``message`` covers; ``metadata_text`` is their part for the metadata, if known.

    Metadata are covered as they are after encoding to JSON and decoding, because that is how they arrive; other values must be of
    JSON's types. Raises :class:`BadSignature` for an unpaired surrogate, and for an integer or a nesting too large for
    Python to write.
    """
    parts: list[str] = []
    try:
        for name in sorted(message):
            value = message[name]
            if name == METADATA_FIELD and metadata_text is not None:
                parts.append(metadata_text)
            elif name == METADATA_FIELD and isinstance(value, Mapping):
                parts.append(_metadata_text(msgspec.json.encode(value)))
            elif name != SIGNATURE_FIELD:
                _append_pair(parts, name, value)
        return "".join(parts).encode()
    except (UnicodeEncodeError, RecursionError, ValueError, TypeError) as error:
        raise BadSignature(f"the message cannot be signed: {error}") from error


def _metadata_text(encoded: bytes) -> str:
    """Return the covered text of metadata; cached, because it repeats in the samples of a resource and is their largest part."""
    return _cached_text(encoded) if len(encoded) <= MAX_CACHED_METADATA else _text_of_metadata(encoded)


def _text_of_metadata(encoded: bytes) -> str:
    parts: list[str] = []
    _append_pair(parts, METADATA_FIELD, msgspec.json.decode(encoded))
    return "".join(parts)


_cached_text = functools.lru_cache(maxsize=CACHED_METADATA)(_text_of_metadata)


def _append_pair(parts: list[str], name: str, value: Any) -> None:
    if type(value) is str:
        parts.append(name)
        parts.append(value)
    elif isinstance(value, dict):
        for inner in sorted(value):
            _append_pair(parts, f"{name}:{inner}", value[inner])
    else:
        parts.append(name)
        parts.append(str(_in_list(value)) if isinstance(value, list | tuple) else str(_scalar(value)))


def _scalar(value: Any) -> Any:
    """Return ``value`` if JSON carries it unchanged, else raise: a value different from the signed one would arrive."""
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None or (kind is float and math.isfinite(value)):
        return value
    raise TypeError(f"{value!r:.60} is not a JSON value")


def _in_list(value: Any) -> Any:
    """Return ``value`` as Ceilometer writes it inside a list: texts as ``bytes``, mappings in key order."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, list | tuple):
        return [_in_list(element) for element in value]
    if isinstance(value, dict):
        return {_in_list(key): _in_list(value[key]) for key in sorted(value)}
    return _scalar(value)


def signature(message: Mapping[str, Any], secret: bytes, metadata_text: str | None = None) -> str:
    """Return the hexadecimal signature of ``message``: 64 lower-case digits."""
    return hmac.digest(secret, signed_bytes(message, metadata_text), "sha256").hex()


def encoded_metadata(metadata: Mapping[str, Any]) -> tuple[msgspec.Raw, str]:
    """Return metadata as JSON, and the text that a signature covers of them; raises :class:`BadSignature`."""
    try:
        encoded = msgspec.json.encode(metadata)
        return msgspec.Raw(encoded), _metadata_text(encoded)
    except (UnicodeEncodeError, RecursionError, ValueError, TypeError) as error:
        raise BadSignature(f"the message cannot be signed: {error}") from error


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One shared secret. It signs samples with timestamps from ``not_before`` to ``not_after``, exclusive."""

    id: str
    secret: bytes = field(repr=False)
    not_before: datetime | None = None
    not_after: datetime | None = None

    def covers(self, timestamp: datetime) -> bool:
        """Return whether this key may sign a sample with this timestamp."""
        return (self.not_before is None or self.not_before <= timestamp) and (
            self.not_after is None or timestamp < self.not_after
        )


class Keyring:
    """The accepted keys, in order of preference; the first that covers the timestamp signs."""

    def __init__(self, keys: Sequence[SigningKey], *, accept_unsigned: bool = False) -> None:
        self._keys = tuple(keys)
        self._by_claim: dict[str | None, tuple[SigningKey, ...]] = {
            claimed.id: (claimed, *(key for key in keys if key is not claimed)) for claimed in keys
        }
        self._accept_unsigned = accept_unsigned

    @property
    def keys(self) -> Sequence[SigningKey]:
        """The accepted keys, in order of preference."""
        return self._keys

    def key_for(self, timestamp: datetime) -> SigningKey:
        """Return the key that signs samples with this timestamp; raises :class:`BadSignature` if there is none."""
        for key in self._keys:
            if key.covers(timestamp):
                return key
        raise BadSignature(
            f"no signing key covers {timestamp.isoformat()}: check not_before and not_after of [signing]"
        )

    def verify(self, message: Mapping[str, Any], timestamp: datetime, key_id: str | None = None) -> str | None:
        """Return the id of the key that signed ``message``, ``None`` for an unsigned one if those are accepted.

        The key ``key_id``, claimed by the sender, is tried first, then the others. Raises :class:`BadSignature`.
        """
        claimed = message.get(SIGNATURE_FIELD)
        if not claimed:
            if self._accept_unsigned:
                signed_bytes(message)  # raises for values that are not JSON and cannot be stored
                return None
            raise BadSignature("the message is not signed")
        if not isinstance(claimed, str) or not claimed.isascii():
            raise BadSignature(f"{SIGNATURE_FIELD} must be 64 hexadecimal digits")
        covered = signed_bytes(message)
        outside: list[str] = []
        for key in self._by_claim.get(key_id) or self._keys:
            if hmac.compare_digest(hmac.digest(key.secret, covered, "sha256").hex(), claimed):
                if key.covers(timestamp):
                    return key.id
                outside.append(key.id)
        if outside:
            raise BadSignature(f"signed with key {outside[0]}, which does not cover {timestamp.isoformat()}")
        raise BadSignature("the signature does not match: the message was changed, or signed with another key")


def keyring(secrets: Iterable[str]) -> Keyring:
    """Return a keyring of secrets without time limits, with ids ``key-1``, ``key-2``…"""
    return Keyring([SigningKey(f"key-{n}", text.encode()) for n, text in enumerate(secrets, 1)])
