"""Signatures of metering messages: what is signed, with which key, and whether it verifies.

The algorithm is Ceilometer's, so that its consumers can verify what Meter sends and Meter what its agents send:
HMAC-SHA256 over the names and values of a message in sorted order, without separators, names of nested mappings
joined with ``:``, everything written as Python writes it and encoded as UTF-8. ``message_signature`` is left out.
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

REMEMBERED = 4096
"""Metadata whose covered text is remembered: as many resources as one collector sees again and again."""

LARGEST_REMEMBERED = 4096
"""Bytes of metadata that may be remembered, which bounds the memory to some tens of megabytes."""


class BadSignature(ValueError):
    """A message that no accepted key verifies; the text says why."""


def signed_bytes(message: Mapping[str, Any], metadata_text: str | None = None) -> bytes:
    """Return the bytes that the signature of ``message`` covers; ``metadata_text`` is what it covers of the metadata, if known.

    The metadata of the resource is covered as JSON carries it, for that is how it arrives; the other fields must be
    what JSON knows. Raises :class:`BadSignature` when the message has something that has no such bytes: a lone
    surrogate, an integer or a nesting beyond what Python writes.
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
    """Return what is covered of metadata. It repeats from sample to sample, and is most of one: a short memory pays."""
    return _remembered_text(encoded) if len(encoded) <= LARGEST_REMEMBERED else _text_of_metadata(encoded)


def _text_of_metadata(encoded: bytes) -> str:
    parts: list[str] = []
    _append_pair(parts, METADATA_FIELD, msgspec.json.decode(encoded))
    return "".join(parts)


_remembered_text = functools.lru_cache(maxsize=REMEMBERED)(_text_of_metadata)


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
    """Return ``value`` if JSON carries it unchanged: anything else would arrive as something that was not signed."""
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None or (kind is float and math.isfinite(value)):
        return value
    raise TypeError(f"{value!r:.60} is of a type that JSON does not carry")


def _in_list(value: Any) -> Any:
    """Inside a list Ceilometer signs the ``repr`` of UTF-8 bytes, of mappings in key order, and of all else as it is."""
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
    """Return metadata as JSON, and what a signature covers of them; :class:`BadSignature` where there is no such thing."""
    try:
        encoded = msgspec.json.encode(metadata)
        return msgspec.Raw(encoded), _metadata_text(encoded)
    except (UnicodeEncodeError, RecursionError, ValueError, TypeError) as error:
        raise BadSignature(f"the message cannot be signed: {error}") from error


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One shared secret. ``not_before`` and ``not_after`` bound the timestamps of the samples it may have signed."""

    id: str
    secret: bytes = field(repr=False)
    not_before: datetime | None = None
    not_after: datetime | None = None

    def covers(self, moment: datetime) -> bool:
        """Say whether this key may sign a sample measured at ``moment``."""
        return (self.not_before is None or self.not_before <= moment) and (
            self.not_after is None or moment < self.not_after
        )


class Keyring:
    """The accepted keys, in order of preference; the first that covers a moment signs."""

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

    def key_for(self, moment: datetime) -> SigningKey:
        """Return the key that signs samples measured at ``moment``; :class:`BadSignature` when none may."""
        for key in self._keys:
            if key.covers(moment):
                return key
        raise BadSignature(f"no signing key covers {moment.isoformat()}: check not_before and not_after of [signing]")

    def verify(self, message: Mapping[str, Any], moment: datetime, key_id: str | None = None) -> str | None:
        """Return the id of the key that signed ``message``, ``None`` for an unsigned one where those are accepted.

        ``key_id`` is what the sender claims and is tried first; a wrong claim costs time, not the sample.
        Raises :class:`BadSignature`.
        """
        claimed = message.get(SIGNATURE_FIELD)
        if not claimed:
            if self._accept_unsigned:
                signed_bytes(message)  # what nobody could sign is not JSON, and cannot be stored either
                return None
            raise BadSignature("the message is not signed")
        if not isinstance(claimed, str) or not claimed.isascii():
            raise BadSignature(f"{SIGNATURE_FIELD} must be 64 hexadecimal digits")
        covered = signed_bytes(message)
        outside: list[str] = []
        for key in self._by_claim.get(key_id) or self._keys:
            if hmac.compare_digest(hmac.digest(key.secret, covered, "sha256").hex(), claimed):
                if key.covers(moment):
                    return key.id
                outside.append(key.id)
        if outside:
            raise BadSignature(f"signed with key {outside[0]}, which does not cover {moment.isoformat()}")
        raise BadSignature("the signature does not match: the message was changed, or signed with another key")


def keyring(secrets: Iterable[str]) -> Keyring:
    """Return a keyring of plain secrets, named ``key-1``, ``key-2``…, without time limits."""
    return Keyring([SigningKey(f"key-{n}", text.encode()) for n, text in enumerate(secrets, 1)])
