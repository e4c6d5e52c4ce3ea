"""Metering messages on the bus: reads and verifies what a delivery carries, and encodes casts.

This module, :mod:`meter.outgoing`, :mod:`meter.batch_signature` and :mod:`meter.ceilometer_signature` implement the message
format. A *metering message* is a flat mapping of a sample's fields under Ceilometer's names. A *cast* (oslo.messaging's word
for a one-way call) carries a batch of them and the signature of the batch. An *envelope* wraps any message on the bus
(version 2.0 of oslo.messaging's; version 1 has none).
"""

from __future__ import annotations

import functools
import json
import math
import uuid
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC
from datetime import datetime
from typing import Any

import msgspec

from meter.batch_signature import BATCH_SIGNATURE_FIELD
from meter.batch_signature import BatchEntry
from meter.batch_signature import BatchSignature
from meter.batch_signature import parse_batch_signature
from meter.ceilometer_signature import METADATA_FIELD
from meter.ceilometer_signature import BadSignature
from meter.sample import SAMPLE_TYPES
from meter.sample import VALID_VOLUMES
from meter.sample import SampleType
from meter.sample import utc_text
from meter.sample import volume_is_valid
from meter.signing_keys import Keyring
from meter.signing_keys import SignatureScheme
from meter.signing_keys import VerifiedBatch
from meter.standard_fields import MAX_IDENTIFIER
from meter.standard_fields import MAX_TIME
from meter.standard_fields import MetadataFacts
from meter.standard_fields import StandardFields

ENVELOPE_VERSION = "2.0"
CAST_METHOD = "record_metering_data"
SAMPLE_EVENT_TYPES = frozenset({"telemetry.polling", "telemetry.api", "metering"})
"""Event types of notifications that carry metering messages, of Ceilometer's polling agent, API and ``notifier://`` publisher."""


MAX_LENIENT_BYTES = 1024 * 1024
"""Bytes up to which a body that is not strictly JSON is decoded again by Python's more lenient and slower decoder."""


class BadMessage(ValueError):
    """A message that can never be processed, however often it is delivered; the text is the reason in its dead letter."""


class MeteringMessage(msgspec.Struct, frozen=True, gc=False):
    """One metering message with valid fields. A struct, because creating a frozen dataclass takes ten times as long.

    ``received`` is the message as it was received, the other attributes are parsed from it. ``timestamp`` is in UTC.
    ``facts`` are known of the metadata of a standard message. ``key_id`` is the id of the key that verified it, ``None`` if it is
    unsigned. ``entry`` is its place in the batch whose signature was verified; ``None`` if it has only Ceilometer's signature, or
    none.
    """

    received: Mapping[str, Any] | StandardFields
    name: str
    type: SampleType
    unit: str
    volume: int | float
    resource_id: str
    user_id: str | None
    project_id: str | None
    source: str | None
    timestamp: datetime
    message_id: str
    facts: MetadataFacts | None = None
    key_id: str | None = None
    entry: BatchEntry | None = None

    @property
    def fields(self) -> Mapping[str, Any]:
        """The message exactly as it was received. That of a standard message is decoded each time."""
        return self.received.to_mapping() if isinstance(self.received, StandardFields) else self.received

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The metadata, empty if there are none."""
        if isinstance(self.received, StandardFields):
            decoded: dict[str, Any] = msgspec.json.decode(self.received.resource_metadata)
            return decoded
        return self.received.get(METADATA_FIELD) or {}

    @property
    def scheme(self) -> SignatureScheme | None:
        """The scheme of the signature that was verified, ``None`` if the message is unsigned."""
        if self.entry is not None:
            return "meter"
        return None if self.key_id is None else "ceilometer"


def read(
    fields: Any, keys: Keyring, key_id: str | None = None, *, batch: VerifiedBatch | None = None, index: int = 0
) -> MeteringMessage:
    """Return ``fields`` as a verified metering message.

    ``batch`` is the verified batch of the cast, whose message ``index`` this is. A message of a cast without one is verified
    by its own signature; the key ``key_id`` is tried first. Raises :class:`BadMessage` or
    :class:`~meter.ceilometer_signature.BadSignature`.
    """
    message = parse(fields)
    if batch is None:
        key_id = keys.verify_message(fields, message.timestamp, message.name, message.source, key_id)
    else:
        entry, key_id = batch.entry(index, fields), batch.key.id
        if problem := batch.key.problem(message.timestamp, message.name, message.source):
            raise BadSignature(f"key {key_id}, which signed the batch, {problem}")
        if not entry.batch.first <= utc_text(message.timestamp) <= entry.batch.last:
            raise BadSignature(f"timestamp {message.timestamp.isoformat()} is outside the times that the batch states")
        msgspec.structs.force_setattr(message, "entry", entry)
    msgspec.structs.force_setattr(message, "key_id", key_id)
    return message


def parse(fields: Any) -> MeteringMessage:
    """Return ``fields`` as a metering message whose signature has not been verified; raises :class:`BadMessage`."""
    if not isinstance(fields, dict):
        raise BadMessage(f"a metering message must be a mapping, not {_shown(fields)}")
    volume = fields.get("counter_volume")
    if isinstance(volume, bool) or not isinstance(volume, int | float) or not volume_is_valid(volume):
        raise BadMessage(f"counter_volume must be {VALID_VOLUMES}, not {_shown(volume)}")
    kind = _text(fields, "counter_type")
    if kind not in SAMPLE_TYPES:
        raise BadMessage(f"counter_type must be one of {', '.join(SAMPLE_TYPES)}, not {_shown(kind)}")
    metadata = fields.get("resource_metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise BadMessage(f"resource_metadata must be a mapping, not {_shown(metadata)}")
    timestamp = parse_timestamp(_text(fields, "timestamp"), "timestamp")
    return MeteringMessage(
        received=fields,
        name=_text(fields, "counter_name"),
        type=kind,
        unit=_text(fields, "counter_unit", empty=True),
        volume=volume,
        resource_id=_text(fields, "resource_id"),
        user_id=_optional_text(fields, "user_id"),
        project_id=_optional_text(fields, "project_id"),
        source=_optional_text(fields, "source"),
        timestamp=timestamp,
        message_id=_text(fields, "message_id"),
    )


def _text(fields: Mapping[str, Any], name: str, *, empty: bool = False) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not (value or empty):
        raise BadMessage(f"{name} must be a non-empty text, not {_shown(value)}")
    if len(value) > MAX_IDENTIFIER:
        raise BadMessage(f"{name} must be at most {MAX_IDENTIFIER} characters, not {len(value)}: {_shown(value)}")
    return value


def _optional_text(fields: Mapping[str, Any], name: str) -> str | None:
    return None if fields.get(name) is None else _text(fields, name, empty=True)


def _shown(value: Any) -> str:
    """Return ``value``, which may be of any size, as a short text for an error."""
    if value is None:
        return "nothing"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    text = repr(value[:60] if isinstance(value, str) else value) if not isinstance(value, dict | list) else ""
    return text[:80] or f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value)}"


def parse_timestamp(text: str, label: str) -> datetime:
    """Return an ISO 8601 timestamp in UTC; ``T`` may be a blank, and fraction and zone are optional (default UTC).

    Raises :class:`BadMessage`, which names ``label``.
    """
    if len(text) > MAX_TIME:
        raise BadMessage(f"{label} must be a time like 2026-11-22T17:00:59.5, not {len(text)} characters")
    return _parse_timestamp(text, label)


@functools.lru_cache(maxsize=1024)
def _parse_timestamp(text: str, label: str) -> datetime:
    """Cached, because the samples of a polling cycle share their timestamp."""
    try:
        parsed = datetime.fromisoformat(text)
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise BadMessage(f"{label} must be a time like 2026-11-22T17:00:59.5, not {_shown(text)}") from error


def cast(messages: Sequence[Mapping[str, Any]], batch: BatchSignature | None = None) -> bytes:
    """Return the body of a cast of ``messages``, as Ceilometer's collectors read it, with the signature of their batch."""
    return seal(_cast_content(messages, batch))


def _cast_content(messages: Sequence[Any], batch: BatchSignature | None) -> dict[str, Any]:
    content = {
        "method": CAST_METHOD,
        "version": "1.0",
        "args": {"data": messages},
        "_unique_id": uuid.uuid4().hex,
    }
    if batch is not None:
        content[BATCH_SIGNATURE_FIELD] = batch.to_json()
    return content


def cast_of_encoded(messages: Sequence[str], batch: BatchSignature | None = None) -> bytes:
    """Return what :func:`cast` returns for messages whose :func:`escaped_json` is given."""
    head, tail = seal(_cast_content((), batch)).split(_NO_DATA, 1)
    return b"".join((head, _DATA, ",".join(messages).encode(), _END_OF_DATA, tail))


_DATA, _END_OF_DATA = rb"\"data\":[", b"]"
_NO_DATA = _DATA + _END_OF_DATA


def escaped_json(value: Any) -> str:
    """Return ``value`` as JSON in the form that it has inside of a JSON text, as in an envelope, without quotes."""
    return escaped_text(msgspec.json.encode(value).decode())


def escaped_text(text: str) -> str:
    """Return ``text`` in the form that it has in JSON, without quotes."""
    return msgspec.json.encode(text).decode()[1:-1]


def is_plain(text: str) -> bool:
    """Return whether ``text`` certainly has the same form inside of a text within JSON."""
    return '"' not in text and "\\" not in text and text.isprintable()


def cast_verbatim(messages: Sequence[Any], batch: BatchSignature | None = None) -> bytes:
    """Return the body of a cast of received messages, even if they contain what strict JSON does not allow."""
    try:
        return cast(messages, batch)
    except (TypeError, UnicodeEncodeError):
        return json.dumps(_cast_content(messages, batch)).encode()


def seal(content: Mapping[str, Any]) -> bytes:
    """Return ``content`` in an envelope of version 2.0."""
    return msgspec.json.encode(
        {"oslo.version": ENVELOPE_VERSION, "oslo.message": msgspec.json.encode(content).decode()}
    )


def open_envelope(body: bytes) -> dict[str, Any]:
    """Return the message in ``body``, with an envelope (version 2.x) or without; raises :class:`BadMessage`."""
    return message_of(_decoded(body, "body"), _decoded)


def message_of(content: dict[str, Any], decode: Callable[[str, str], dict[str, Any]]) -> dict[str, Any]:
    """Return the message in a decoded body; ``decode`` takes the text in an envelope, and its name for errors."""
    if "oslo.version" in content and "oslo.message" in content:
        if str(content["oslo.version"]).partition(".")[0] != "2":
            raise BadMessage(f"envelope version must be 2.x, not {_shown(content['oslo.version'])}")
        inner = content["oslo.message"]
        if not isinstance(inner, str):
            raise BadMessage(f"oslo.message must be a text with JSON, not {_shown(inner)}")
        return decode(inner, "oslo.message")
    return content


class NotFinite(float):
    """A number that JSON does not allow: NaN, an infinity, or one too large for a float, such as 1e400.

    It has its own class because no encoder accepts that: it cannot be signed, stored or sent by mistake.
    """


def finite(text: str) -> float:
    """Return the number ``text``, as a :class:`NotFinite` if it is too large for a float."""
    number = float(text)
    return number if math.isfinite(number) else NotFinite(number)


def _decode_leniently(text: bytes | str) -> Any:
    """Decode JSON with numbers that are not finite and unpaired surrogates, as Python's ``json`` writes them.

    Ceilometer's agents send such casts, and only one sample of them is bad.
    """
    decoded = text if isinstance(text, str) else text.decode()
    return json.loads(decoded, parse_float=finite, parse_constant=NotFinite)


def _decoded(text: bytes | str, label: str) -> dict[str, Any]:
    try:
        try:
            content = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError):
            if len(text) > MAX_LENIENT_BYTES:
                raise
            with suppress(ValueError):
                return _mapping(_decode_leniently(text), label)
            raise
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError) as error:
        raise BadMessage(f"{label} is not JSON: {error}") from error
    return _mapping(content, label)


def _mapping(content: Any, label: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise BadMessage(f"{label} must be a JSON object, not {_shown(content)}")
    return content


def _carries_samples(event_type: Any) -> bool:
    """Return whether notifications of this type carry samples; with ``per_meter_topic=1`` it is ``metering.<meter>``."""
    return isinstance(event_type, str) and (event_type in SAMPLE_EVENT_TYPES or event_type.startswith("metering."))


def metering_messages(content: Mapping[str, Any]) -> list[Any]:
    """Return the unverified metering messages in ``content``.

    ``content`` is a cast (``record_metering_data``) or a notification of Ceilometer's agents or API. Raises
    :class:`BadMessage`.
    """
    if content.get("method") == CAST_METHOD:
        arguments = content.get("args")
        data = arguments.get("data") if isinstance(arguments, dict) else None
    elif _carries_samples(content.get("event_type")):
        data = content.get("payload")
        data = data.get("samples") if isinstance(data, dict) else data
    else:
        kind = content.get("method") or content.get("event_type")
        raise BadMessage(f"neither a {CAST_METHOD} cast nor a notification that carries samples: {_shown(kind)}")
    if isinstance(data, dict):
        data = [data]
    if not isinstance(data, list):
        raise BadMessage(f"the samples of a {CAST_METHOD} cast must be a list, not {_shown(data)}")
    return data


def read_cast(body: bytes, keys: Keyring) -> list[MeteringMessage]:
    """Return the verified messages of a cast that this process has made; raises like :func:`read`."""
    content = open_envelope(body)
    entries = metering_messages(content)
    batch = verified_batch(content, len(entries), keys)
    return [read(fields, keys, batch=batch, index=index) for index, fields in enumerate(entries)]


def verified_batch(content: Mapping[str, Any], messages: int, keys: Keyring) -> VerifiedBatch | None:
    """Return the verified batch of so many ``messages`` in ``content``; ``None`` if it has no batch signature.

    Raises :class:`BadMessage` or :class:`~meter.ceilometer_signature.BadSignature`.
    """
    value = content.get(BATCH_SIGNATURE_FIELD)
    if value is None:
        return None
    batch = keys.verify_batch(parse_batch_signature(value, messages))
    for label in ("first", "last"):
        text = getattr(batch.signature, label)
        if utc_text(parse_timestamp(text, label)) != text:
            raise BadSignature(
                f"{label} of the batch must be a time in UTC like 2026-11-22T17:00:59.5, not {_shown(text)}"
            )
    return batch
