"""The members of a standard message, and what follows from the text of its metadata.

A *standard message* has exactly the members of Meter's own. :mod:`meter.standard_message` reads them.
"""

from __future__ import annotations

import hashlib
from typing import Annotated
from typing import Any

import msgspec
from msgspec import UNSET
from msgspec import Meta
from msgspec import Raw
from msgspec import UnsetType

from meter.batch_signature import digest_of_json
from meter.ceilometer_signature import METADATA_FIELD
from meter.ceilometer_signature import SIGNATURE_FIELD
from meter.ceilometer_signature import BadSignature
from meter.counter_runs import Run
from meter.counter_runs import interval_of
from meter.counter_runs import run_of
from meter.sample import SampleType

MAX_IDENTIFIER = 512
"""Maximum length of a name, unit or id, in characters. PostgreSQL indexes at most 2 704 bytes; Ceilometer allowed 255 characters."""

MAX_TIME = 64
"""Maximum length of a timestamp, in characters; parsed timestamps are cached, so their size is limited."""

MAX_CACHED_METADATA = 4096
"""Maximum size of metadata that are remembered, in bytes."""

CACHED_METADATA_BYTES = 64 * 1024 * 1024
"""Maximum size of all metadata that are remembered, in bytes: those of some 80 000 resources."""

_Name = Annotated[str, Meta(min_length=1, max_length=MAX_IDENTIFIER)]
_Text = Annotated[str, Meta(max_length=MAX_IDENTIFIER)]
_Time = Annotated[str, Meta(min_length=1, max_length=MAX_TIME)]


class StandardFields(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """The members of a standard message as they were received; ``resource_metadata`` is their JSON."""

    counter_name: _Name
    counter_type: SampleType
    counter_unit: _Text
    counter_volume: int | float
    message_id: _Name
    project_id: _Text | None
    resource_id: _Name
    resource_metadata: Raw
    source: _Text | None
    timestamp: _Time
    user_id: _Text | None
    message_signature: str | UnsetType = UNSET

    def to_mapping(self) -> dict[str, Any]:
        """Return the message as :func:`meter.message.open_envelope` would have decoded it."""
        fields: dict[str, Any] = {name: getattr(self, name) for name in self.__struct_fields__}
        fields[METADATA_FIELD] = msgspec.json.decode(self.resource_metadata)
        if self.message_signature is UNSET:
            del fields[SIGNATURE_FIELD]
        return fields


class MetadataFacts(msgspec.Struct, frozen=True, gc=False):
    """What follows from a text of metadata: ``canonical_digest``, for the signature, and what a store needs.

    ``text`` is the JSON as Meter writes it, ``None`` if that is the received text; ``digest`` is its SHA-256. ``has_nul``: it may
    have a NUL character.
    """

    canonical_digest: bytes
    digest: bytes
    text: str | None
    has_nul: bool
    run_of_counter: Run
    run_of_others: Run
    interval_seconds: float


class MetadataCache:
    """Remembers :class:`MetadataFacts` of texts of at most ``max_bytes`` together; drops those that were not used for longest."""

    def __init__(self, max_bytes: int = CACHED_METADATA_BYTES) -> None:
        self._max_bytes = max_bytes // 2  # of each generation
        self._bytes = 0
        self._young: dict[bytes, MetadataFacts] = {}
        self._old: dict[bytes, MetadataFacts] = {}

    @property
    def remembered_bytes(self) -> int:
        """The size of the texts that are remembered."""
        return sum(map(len, self._young)) + sum(map(len, self._old))

    def get(self, encoded: bytes) -> MetadataFacts | None:
        """Return what follows from the metadata with this JSON; ``None`` if they are not a mapping that can be signed."""
        found = self._young.get(encoded)
        if found is not None:
            return found
        found = self._old.get(encoded) or facts_of(encoded)
        if found is not None and len(encoded) <= MAX_CACHED_METADATA:
            self._young[encoded] = found
            self._bytes += len(encoded)
            if self._bytes > self._max_bytes:
                self._old, self._young, self._bytes = self._young, {}, 0
        return found


def facts_of(encoded: bytes) -> MetadataFacts | None:
    """Return what follows from the metadata with this JSON; ``None`` if they are not a mapping that can be signed."""
    try:
        metadata = msgspec.json.decode(encoded)
        if not isinstance(metadata, dict):
            return None
        written = msgspec.json.encode(metadata)
        return MetadataFacts(
            digest_of_json(encoded),
            hashlib.sha256(written).digest(),
            None if written == encoded else written.decode(),
            b"\\u0000" in written,
            run_of("cumulative", metadata),
            run_of("gauge", metadata),
            interval_of(metadata),
        )
    except (BadSignature, ValueError, RecursionError):
        return None
