"""Ceilometer's signature of a metering message.

It is an HMAC-SHA256 over the names and values of a message, sorted by name, without separators; names in nested
mappings are joined with ``:``, values are written as Python's ``str`` writes them, and the text is encoded as UTF-8.
``message_signature`` itself is not covered.

Names and values are neither separated nor typed, so several messages can have the same text and therefore the same signature:
``vcpus: 16`` and ``vcpus1: 6``. :mod:`meter.ceilometer_reading` accepts only one of them.
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import msgspec
from cachetools import LRUCache

SIGNATURE_FIELD = "message_signature"
METADATA_FIELD = "resource_metadata"

CACHED_METADATA = 4096
"""Number of metadata whose covered text is cached: about one per resource of a collector."""

MAX_CACHED_METADATA = 4096
"""Maximum size of cached metadata, in bytes; larger ones are not cached, which limits the memory to some tens of megabytes."""

MAX_CACHED_TEXT = 8 * 1024
"""Maximum length of a cached text, in characters; longer ones, of many names in deep mappings, are not cached."""

MAX_PATH_CHARACTERS = 4 * 1024 * 1024
"""Maximum length of all paths of names in a signed text. The whole path precedes each value, so that together they can be far
longer than the message; the values cannot."""


class BadSignature(ValueError):
    """A message that cannot be signed, or that no accepted key verifies; the text says why."""


class _SignedText:
    """A signed text in the making. The length of the paths is limited while they are added, before they take the memory."""

    def __init__(self) -> None:
        self.added: list[str] = []
        self._left = MAX_PATH_CHARACTERS

    def add(self, name: str, value: str) -> None:
        """Append the path of a value and the value; ``ValueError`` if the paths become too long."""
        self._left -= len(name)
        if self._left < 0:
            raise ValueError(f"the paths of names in the text to sign have more than {MAX_PATH_CHARACTERS} characters")
        self.added += (name, value)

    def text(self) -> str:
        """Return the text."""
        return "".join(self.added)


def signed_bytes(message: Mapping[str, Any], metadata_text: str | None = None) -> bytes:
    """Return the bytes that the signature of ``message`` covers; ``metadata_text`` is their part for the metadata, if known.

    Metadata are covered as they are after encoding to JSON and decoding, because that is how they arrive; other values must be of
    JSON's types. Raises :class:`BadSignature` for an unpaired surrogate, for an integer or a nesting too large for Python to
    write, and for paths of names of more than :data:`MAX_PATH_CHARACTERS`.
    """
    parts = _SignedText()
    added = parts.added
    try:
        for name in sorted(message):
            value = message[name]
            if type(value) is str and name != SIGNATURE_FIELD:  # most are: a call for each would take longer
                added += (name, value)
            elif name == METADATA_FIELD and metadata_text is not None:
                added.append(metadata_text)
            elif name == METADATA_FIELD and isinstance(value, Mapping):
                added.append(_metadata_text(msgspec.json.encode(value)))
            elif name != SIGNATURE_FIELD:
                _append_pair(parts, name, value)
        return parts.text().encode()
    except (UnicodeEncodeError, RecursionError, ValueError, TypeError) as error:
        raise BadSignature(f"the message cannot be signed: {error}") from error


def signed_text(volume: int | float, message_id: str) -> bytes:
    """Return the part of :func:`signed_bytes` of a sample that begins with its volume and ends with its id."""
    try:
        return f"{_scalar(volume)}message_id{message_id}".encode()
    except (UnicodeEncodeError, ValueError, TypeError) as error:
        raise BadSignature(f"the message cannot be signed: {error}") from error


def _metadata_text(encoded: bytes) -> str:
    """Return the covered text of metadata; cached, because it repeats in the samples of a resource and is their largest part."""
    if len(encoded) > MAX_CACHED_METADATA:
        return _text_of_metadata(encoded)
    text = _cached_texts.get(encoded)
    if text is None:
        text = _text_of_metadata(encoded)
        if len(text) <= MAX_CACHED_TEXT:
            _cached_texts[encoded] = text
    return text


def _text_of_metadata(encoded: bytes) -> str:
    parts = _SignedText()
    _append_pair(parts, METADATA_FIELD, msgspec.json.decode(encoded))
    return parts.text()


_cached_texts: LRUCache[bytes, str] = LRUCache(maxsize=CACHED_METADATA)


def _append_pair(parts: _SignedText, name: str, value: Any) -> None:
    if type(value) is str:
        parts.add(name, value)
    elif isinstance(value, dict):
        for inner in sorted(value):
            _append_pair(parts, f"{name}:{inner}", value[inner])
    else:
        parts.add(name, str(_in_list(value)) if isinstance(value, list | tuple) else str(_scalar(value)))


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


def encoded_metadata(
    metadata: Mapping[str, Any], encode: Callable[[Mapping[str, Any]], bytes] = msgspec.json.encode
) -> tuple[bytes, str]:
    """Return metadata as JSON, and the text that a signature covers of them; raises :class:`BadSignature`."""
    try:
        encoded = encode(metadata)
        return encoded, _metadata_text(encoded)
    except (UnicodeEncodeError, RecursionError, ValueError, TypeError) as error:
        raise BadSignature(f"the message cannot be signed: {error}") from error
