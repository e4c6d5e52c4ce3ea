"""Standard messages: those with exactly the members of Meter's own, in a cast with a batch signature, read in one pass.

Nearly all messages of a region are. They are decoded into records with typed members, their metadata are left as text, and what
is known of a metadata text, such as its digest, is remembered: it repeats from cycle to cycle. What this module does not accept,
:mod:`meter.message` reads as it reads everything else, and says what is wrong with it; what it accepts, both read alike.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from typing import Literal

import msgspec
from msgspec import Raw

from meter.batch_signature import BATCH_SIGNATURE_FIELD
from meter.message import CAST_METHOD
from meter.message import BadMessage
from meter.message import MeteringMessage
from meter.message import parse_timestamp
from meter.sample import utc_text
from meter.sample import volume_is_valid
from meter.signing_keys import VerifiedBatch
from meter.standard_fields import MetadataCache
from meter.standard_fields import StandardFields

MAX_METADATA = 16 * 1024
"""Maximum size of the metadata of a standard message, in bytes: decoding them holds the reactor for a fraction of a millisecond."""

MAX_SIGNATURE = 64 * 1024
"""Maximum size of the batch signature of a cast of standard messages, in bytes: that of a thousand messages."""


class _Canonical(msgspec.Struct, gc=False):
    """The members that the canonical form of a standard message has, in the order of their names."""

    counter_name: str
    counter_type: str
    counter_unit: str
    counter_volume: int | float
    message_id: str
    project_id: str | None
    resource_id: str
    resource_metadata: bytes
    source: str | None
    timestamp: str
    user_id: str | None


class _Arguments(msgspec.Struct, gc=False):
    data: list[StandardFields]


class _Cast(msgspec.Struct, gc=False):
    method: Literal["record_metering_data"]
    args: _Arguments
    signature: Raw = msgspec.field(name=BATCH_SIGNATURE_FIELD)


class _TextEnvelope(msgspec.Struct, gc=False):
    version: Literal["2.0"] = msgspec.field(name="oslo.version")
    message: str = msgspec.field(name="oslo.message")


class StandardCast(msgspec.Struct, gc=False):
    """The content of a cast of standard messages: the messages, and the value of the batch signature, which is not verified."""

    messages: Sequence[StandardFields]
    signature: Any

    @property
    def content(self) -> dict[str, Any]:
        """The cast without its messages, for :func:`meter.message.verified_batch`."""
        return {"method": CAST_METHOD, BATCH_SIGNATURE_FIELD: self.signature}


_envelope = msgspec.json.Decoder(_TextEnvelope).decode
_cast = msgspec.json.Decoder(_Cast).decode
_canonical = msgspec.msgpack.Encoder().encode


def standard_cast(body: bytes) -> StandardCast | None:
    """Return the cast in ``body`` if all its messages have the form of standard messages, else ``None``.

    The time that this takes is linear in the size of the body, whatever it has: only the texts of metadata have nested values.
    """
    try:
        content = _cast(_envelope(body).message)
        encoded = bytes(content.signature)
        signature = msgspec.json.decode(encoded) if len(encoded) <= MAX_SIGNATURE else None
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError):
        return None
    return None if signature is None else StandardCast(content.args.data, signature)


def read_standard(
    fields: StandardFields, index: int, batch: VerifiedBatch, metadata: MetadataCache
) -> MeteringMessage | None:
    """Return ``fields``, the message ``index`` of a cast with ``batch``, if :func:`meter.message.read` accepts it, else ``None``.

    ``None`` may also be returned for a message that is accepted, but has something unusual.
    """
    encoded = bytes(fields.resource_metadata)
    if len(encoded) > MAX_METADATA:
        return None
    facts = metadata.get(encoded)
    if facts is None:
        return None
    try:
        timestamp, text = _time(fields.timestamp)
        canonical = _canonical(
            _Canonical(
                fields.counter_name,
                fields.counter_type,
                fields.counter_unit,
                volume := fields.counter_volume,
                fields.message_id,
                fields.project_id,
                fields.resource_id,
                facts.canonical_digest,
                fields.source,
                fields.timestamp,
                fields.user_id,
            )
        )
    except (BadMessage, OverflowError):
        return None
    entry = batch.entry_of_canonical_form(index, canonical)
    signature = batch.signature
    if entry is None or not volume_is_valid(volume) or not signature.first <= text <= signature.last:
        return None
    key = batch.key
    if not key.unlimited and key.problem(timestamp, fields.counter_name, fields.source):
        return None
    return MeteringMessage(
        fields,
        fields.counter_name,
        fields.counter_type,
        fields.counter_unit,
        volume,
        fields.resource_id,
        fields.user_id,
        fields.project_id,
        fields.source,
        timestamp,
        fields.message_id,
        facts,
        key.id,
        entry,
    )


@functools.lru_cache(maxsize=1024)
def _time(text: str) -> tuple[datetime, str]:
    """Return a timestamp and its text in UTC; cached, because the messages of a cycle share it."""
    timestamp = parse_timestamp(text, "timestamp")
    return timestamp, utc_text(timestamp)
