"""Metering messages: samples on their way, as mappings, as casts on the wire, and back.

This module and :mod:`meter.signature` are the only ones that know the wire. A *metering message* is a flat mapping of
a sample's fields under Ceilometer's names, signed. A *cast* carries a batch of them; an *envelope* wraps any message
of the bus (oslo.messaging's version 2.0, or bare as in version 1).
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

from meter.sample import SAMPLE_TYPES
from meter.sample import Sample
from meter.sample import SampleType
from meter.sample import utc_text
from meter.sample import with_reserved
from meter.signature import METADATA_FIELD
from meter.signature import SIGNATURE_FIELD
from meter.signature import Keyring
from meter.signature import encoded_metadata
from meter.signature import signature

ENVELOPE_VERSION = "2.0"
CAST_METHOD = "record_metering_data"
KEY_ID_FIELD = "_meter_key_id"
"""Where a cast names its key. oslo.messaging's readers ignore members that start with an underscore."""

LONGEST_IDENTIFIER = 512
"""Characters in a name, unit or id. PostgreSQL indexes at most 2 704 bytes; Ceilometer allowed 255 characters."""

LONGEST_TIME = 64
"""Characters of a time: what is read is remembered, and may not be of any size."""

SAMPLE_EVENT_TYPES = frozenset({"telemetry.polling", "telemetry.api", "metering"})
"""Notifications that carry metering messages: Ceilometer's polling agent, its API, its ``notifier://`` publisher."""


LARGEST_LENIENT_BYTES = 1024 * 1024
"""Up to here a body that is not quite JSON gets a second chance, which takes longer."""


class BadMessage(ValueError):
    """A message that can never be stored, whoever asks again: the text is the reason put on its dead letter."""


class MeteringMessage(msgspec.Struct, frozen=True):
    """One metering message whose fields are valid; a struct, because a frozen dataclass takes ten times as long to make.

    ``fields`` is the message exactly as signed, signature included; the other attributes are its parsed view.
    ``timestamp`` is in UTC. ``key_id`` names the key that verified it, ``None`` while unverified or unsigned.
    """

    fields: Mapping[str, Any]
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
    metadata: Mapping[str, Any]
    key_id: str | None = None


def sign(sample: Sample, keys: Keyring, source: str) -> dict[str, Any]:
    """Return ``sample`` as a signed metering message; ``source`` is used where the sample has none."""
    message = _unsigned(sample, source)
    message[SIGNATURE_FIELD] = signature(message, keys.key_for(sample.timestamp).secret)
    return message


def _unsigned(sample: Sample, source: str) -> dict[str, Any]:
    return {
        "source": sample.source or source,
        "counter_name": sample.name,
        "counter_type": sample.type,
        "counter_unit": sample.unit,
        "counter_volume": sample.volume,
        "user_id": sample.user_id,
        "project_id": sample.project_id,
        "resource_id": sample.resource_id,
        "timestamp": utc_text(sample.timestamp),
        "resource_metadata": sample.resource_metadata,
        "message_id": sample.message_id,
    }


class Signer:
    """Signs many samples at once. Metadata that several of them share, as one object, are encoded once.

    It keeps all metadata that it has seen: use it for one batch, while which nobody changes them. ``interval_seconds``,
    where the samples are polled, is added to the reserved member of their metadata, and so is ``may_differ``, where it
    names fields. ``unit_name`` returns the name that a unit goes by here.
    """

    def __init__(
        self,
        keys: Keyring,
        source: str,
        *,
        interval_seconds: float | None = None,
        unit_name: Callable[[str], str] | None = None,
        may_differ: Sequence[str] = (),
    ) -> None:
        self._keys = keys
        self._source = source
        self._unit_name = unit_name
        self._reserved: dict[str, Any] = {}
        if interval_seconds is not None:
            self._reserved["interval"] = _whole_if_possible(interval_seconds)
        if may_differ:
            self._reserved["may_differ"] = list(may_differ)
        self._encoded: dict[int, tuple[Mapping[str, Any], msgspec.Raw, str]] = {}

    def message(self, sample: Sample, message_id: str | None = None) -> dict[str, Any]:
        """Return ``sample`` as a signed metering message for :func:`cast`: its metadata are encoded already.

        It bears ``message_id`` in place of the sample's own, where there is one.
        """
        metadata = sample.resource_metadata
        found = self._encoded.get(id(metadata))
        if found is None:
            complete = with_reserved(metadata, **self._reserved) if self._reserved else metadata
            found = self._encoded[id(metadata)] = (metadata, *encoded_metadata(complete))
        message = _unsigned(sample, self._source)
        if self._unit_name is not None:
            message["counter_unit"] = self._unit_name(sample.unit)
        if message_id is not None:
            message["message_id"] = message_id
        secret = self._keys.key_for(sample.timestamp).secret
        message[SIGNATURE_FIELD] = signature(message, secret, metadata_text=found[2])
        message[METADATA_FIELD] = found[1]
        return message


def _whole_if_possible(seconds: float) -> float:
    return int(seconds) if float(seconds).is_integer() else seconds


def read(fields: Any, keys: Keyring, key_id: str | None = None) -> MeteringMessage:
    """Return ``fields`` as a verified metering message; :class:`BadMessage` or ``BadSignature`` say what is wrong."""
    if not isinstance(fields, dict):
        raise BadMessage(f"a metering message must be a mapping, not {_shown(fields)}")
    volume = fields.get("counter_volume")
    if isinstance(volume, bool) or not isinstance(volume, int | float) or not math.isfinite(_as_float(volume)):
        raise BadMessage(f"counter_volume must be a finite number, not {_shown(volume)}")
    kind = _text(fields, "counter_type")
    if kind not in SAMPLE_TYPES:
        raise BadMessage(f"counter_type must be one of {', '.join(SAMPLE_TYPES)}, not {_shown(kind)}")
    metadata = fields.get("resource_metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise BadMessage(f"resource_metadata must be a mapping, not {_shown(metadata)}")
    timestamp = moment(_text(fields, "timestamp"), "timestamp")
    return MeteringMessage(
        fields=fields,
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
        metadata=metadata or {},
        key_id=keys.verify(fields, timestamp, key_id),
    )


def _as_float(volume: int | float) -> float:
    try:
        return float(volume)
    except OverflowError:
        return math.inf


def _text(fields: Mapping[str, Any], name: str, *, empty: bool = False) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not (value or empty):
        raise BadMessage(f"{name} must be a non-empty text, not {_shown(value)}")
    if len(value) > LONGEST_IDENTIFIER:
        raise BadMessage(f"{name} must be at most {LONGEST_IDENTIFIER} characters, not {len(value)}: {_shown(value)}")
    return value


def _optional_text(fields: Mapping[str, Any], name: str) -> str | None:
    return None if fields.get(name) is None else _text(fields, name, empty=True)


def _shown(value: Any) -> str:
    """Show a value of unknown size in an error without growing the error with it."""
    if value is None:
        return "nothing"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    text = repr(value[:60] if isinstance(value, str) else value) if not isinstance(value, dict | list) else ""
    return text[:80] or f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value)}"


def moment(text: str, label: str) -> datetime:
    """Return ISO 8601 ``text`` in UTC: ``T`` or blank, with or without fraction and zone; without one it is UTC."""
    if len(text) > LONGEST_TIME:
        raise BadMessage(f"{label} must be a time like 2026-11-22T17:00:59.5, not {len(text)} characters")
    return _moment(text, label)


@functools.lru_cache(maxsize=1024)
def _moment(text: str, label: str) -> datetime:
    """The samples of a polling cycle share their time, so most times have just been read."""
    try:
        parsed = datetime.fromisoformat(text)
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise BadMessage(f"{label} must be a time like 2026-11-22T17:00:59.5, not {_shown(text)}") from error


def cast(messages: Sequence[Mapping[str, Any]], key_id: str | None = None) -> bytes:
    """Return the body that carries ``messages`` over the bus, in the form Ceilometer's collectors read."""
    return seal(
        {
            "method": CAST_METHOD,
            "version": "1.0",
            "args": {"data": messages},
            "_unique_id": uuid.uuid4().hex,
            KEY_ID_FIELD: key_id,
        }
    )


def cast_as_it_came(message: Any, key_id: str | None = None) -> bytes:
    """Return the body that carries one message on, whatever it is, even where that is not quite JSON."""
    try:
        return cast([message], key_id)
    except (TypeError, UnicodeEncodeError):
        content = {"method": CAST_METHOD, "version": "1.0", "args": {"data": [message]}, KEY_ID_FIELD: key_id}
        return json.dumps(content).encode()


def seal(content: Mapping[str, Any]) -> bytes:
    """Return ``content`` in an envelope of version 2.0."""
    return msgspec.json.encode(
        {"oslo.version": ENVELOPE_VERSION, "oslo.message": msgspec.json.encode(content).decode()}
    )


def open_envelope(body: bytes) -> dict[str, Any]:
    """Return the message inside ``body``, be it wrapped (version 2.x) or bare (version 1); else :class:`BadMessage`."""
    content = _decoded(body, "body")
    if "oslo.version" in content and "oslo.message" in content:
        if str(content["oslo.version"]).partition(".")[0] != "2":
            raise BadMessage(f"envelope version must be 2.x, not {_shown(content['oslo.version'])}")
        inner = content["oslo.message"]
        if not isinstance(inner, str):
            raise BadMessage(f"oslo.message must be JSON in a text, not {_shown(inner)}")
        return _decoded(inner, "oslo.message")
    return content


class NotFinite(float):
    """A number that JSON does not have: NaN, an infinity, or one beyond every float, such as 1e400.

    It is of a class of its own because nothing encodes that: it can be neither signed nor stored nor sent by mistake.
    """


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else NotFinite(number)


def _leniently(text: bytes | str) -> Any:
    """Decode what Python's ``json`` writes and JSON does not know: numbers that are not finite, halves of surrogates.

    Ceilometer's agents write that, and of a hundred samples the ninety-nine others are well.
    """
    decoded = text if isinstance(text, str) else text.decode()
    return json.loads(decoded, parse_float=_finite, parse_constant=NotFinite)


def _decoded(text: bytes | str, label: str) -> dict[str, Any]:
    try:
        try:
            content = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError):
            if len(text) > LARGEST_LENIENT_BYTES:
                raise
            with suppress(ValueError):
                return _mapping(_leniently(text), label)
            raise
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError) as error:
        raise BadMessage(f"{label} is not JSON: {error}") from error
    return _mapping(content, label)


def _mapping(content: Any, label: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise BadMessage(f"{label} must be a JSON object, not {_shown(content)}")
    return content


def _carries_samples(event_type: Any) -> bool:
    """``notifier://…?per_meter_topic=1`` also sends what it sends as ``metering`` as ``metering.<meter>``."""
    return isinstance(event_type, str) and (event_type in SAMPLE_EVENT_TYPES or event_type.startswith("metering."))


def metering_messages(content: Mapping[str, Any]) -> tuple[list[Any], str | None]:
    """Return the unread metering messages in ``content`` and the key id its sender claims.

    Knows casts (``record_metering_data``) and the notifications of Ceilometer's agents and API.
    """
    if content.get("method") == CAST_METHOD:
        arguments = content.get("args")
        data = arguments.get("data") if isinstance(arguments, dict) else None
    elif _carries_samples(content.get("event_type")):
        data = content.get("payload")
        data = data.get("samples") if isinstance(data, dict) else data
    else:
        said = content.get("method") or content.get("event_type")
        raise BadMessage(f"neither a {CAST_METHOD} cast nor a notification that carries samples: {_shown(said)}")
    if isinstance(data, dict):
        data = [data]
    if not isinstance(data, list):
        raise BadMessage(f"the samples of a {CAST_METHOD} cast must be a list, not {_shown(data)}")
    key_id = content.get(KEY_ID_FIELD)
    return data, key_id if isinstance(key_id, str) else None
