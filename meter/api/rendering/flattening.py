"""Metadata as answers show them: on one level, every value a text."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import msgspec

from meter.sample import RESERVED_METADATA

MOST_BYTES = 2**21
"""Of encoded metadata that are remembered."""


class Flattening:
    """Flattens and encodes metadata: once for all samples that have the same, which is one and the same object."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        # A plain dict, emptied when it is full: this is looked up for every sample, which cachetools.LRUCache would make
        # five times as slow.
        self._known: dict[int, tuple[Mapping[str, Any], msgspec.Raw]] = {}

    def __call__(self, metadata: Mapping[str, Any]) -> msgspec.Raw:
        """Return ``metadata`` flattened, as JSON."""
        found = self._known.get(id(metadata))
        if found is not None:
            return found[1]
        encoded = msgspec.json.encode(flattened(metadata))
        self._bytes += len(encoded)
        if self._bytes > self._most_bytes:
            self._known, self._bytes = {}, len(encoded)
        # Kept beside its answer: as long as it is there, nothing else has its id.
        _, flat = self._known[id(metadata)] = (metadata, msgspec.Raw(encoded))
        return flat


def flattened(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return ``metadata`` on one level, all values as Python writes them.

    The names on the way to a value are joined: the first two with a dot, the others with colons, which also take the
    place of further dots within names: ``{"a": {"b": {"c.d": 1}}}`` becomes ``{"a.b:c:d": "1"}``.
    """
    return {name.replace(".", ":").replace(":", ".", 1): str(value) for name, value in _leaves(shown(metadata))}


def shown(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``metadata`` without Meter's reserved member, which Ceilometer's clients do not expect."""
    return {name: value for name, value in metadata.items() if name != RESERVED_METADATA}


def _leaves(metadata: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the values that are no mappings, with their dotted names, in the order of names."""
    # An explicit stack: what JSON may nest, Python may not recurse.
    waiting: list[tuple[str, Any]] = [("", metadata)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, dict):  # what JSON decodes to; asking for a Mapping takes five times as long
            waiting += [(f"{path}.{name}" if path else name, value[name]) for name in sorted(value, reverse=True)]
        else:
            yield path, value
