"""Flattening of metadata: one level, all values strings, as Ceilometer returns it."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import msgspec

from meter.sample import RESERVED_METADATA

MAX_CACHED_BYTES = 2**21
"""Maximum size of the cached metadata, encoded."""


class MetadataFlattener:
    """Flattens and encodes metadata, with a cache by object identity: samples with equal metadata share one object."""

    def __init__(self, max_cached_bytes: int = MAX_CACHED_BYTES) -> None:
        self._max_cached_bytes = max_cached_bytes
        self._bytes = 0
        # A plain dict, emptied when it is full: it is read once per sample, and cachetools.LRUCache is five times as slow.
        self._cache: dict[int, tuple[Mapping[str, Any], msgspec.Raw]] = {}

    def __call__(self, metadata: Mapping[str, Any]) -> msgspec.Raw:
        """Return ``metadata`` flattened, as JSON."""
        cached = self._cache.get(id(metadata))
        if cached is not None:
            return cached[1]
        encoded = msgspec.json.encode(flatten(metadata))
        self._bytes += len(encoded)
        if self._bytes > self._max_cached_bytes:
            self._cache, self._bytes = {}, len(encoded)
        # A reference to the metadata is kept: while it exists, no other object has its id.
        _, flat = self._cache[id(metadata)] = (metadata, msgspec.Raw(encoded))
        return flat


def flatten(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return ``metadata`` with all values on one level, converted by ``str``.

    The keys of the levels are joined: the first two with a dot, further ones with colons, which also replace further
    dots within keys: ``{"a": {"b": {"c.d": 1}}}`` becomes ``{"a.b:c:d": "1"}``.
    """
    return {
        name.replace(".", ":").replace(":", ".", 1): str(value) for name, value in _leaves(without_reserved(metadata))
    }


def without_reserved(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``metadata`` without Meter's reserved member, which is not part of Ceilometer's API."""
    return {name: value for name, value in metadata.items() if name != RESERVED_METADATA}


def _leaves(metadata: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield every value that is not a mapping, with its dotted key, ordered by key."""
    # An explicit stack: JSON can be nested deeper than Python can recurse.
    stack: list[tuple[str, Any]] = [("", metadata)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, dict):  # as decoded from JSON; isinstance of Mapping takes five times as long
            stack += [(f"{path}.{name}" if path else name, value[name]) for name in sorted(value, reverse=True)]
        else:
            yield path, value
