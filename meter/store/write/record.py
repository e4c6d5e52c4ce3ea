"""A metering message as the store keeps it: little by little, and yet to the letter.

What a message says is spread over narrow columns; how it was written (the order of its fields, ``1`` or ``1.0``,
``T`` or blank, null or missing) is its *form*, one of few. A message that cannot be put together again exactly from
these is kept whole as well.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any
from typing import NamedTuple

import msgspec

from meter.counter_runs import RunKind
from meter.counter_runs import interval_of
from meter.counter_runs import run_of
from meter.message import MeteringMessage
from meter.signature import METADATA_FIELD
from meter.signature import SIGNATURE_FIELD

NAMESPACE = uuid.UUID("b5a4b1a8-8a3c-5d5c-9f0e-6c1d5f0f5d11")
"""Where ids of messages that are no UUID get one: ``uuid5(NAMESPACE, id)``."""

CONSTANT_FIELDS_OF_OTHERS = frozenset({"user_name", "project_name", "publisher_id", "monotonic_time"})
"""Fields that Meter's own messages do not have."""

CONSTANT_FIELDS = CONSTANT_FIELDS_OF_OTHERS | {METADATA_FIELD, SIGNATURE_FIELD}
"""Fields whose value may be part of the form: texts that say the same in message after message, and nulls."""

PLAIN_FIELDS = CONSTANT_FIELDS | {
    "source",
    "counter_name",
    "counter_type",
    "counter_unit",
    "counter_volume",
    "user_id",
    "project_id",
    "resource_id",
    "timestamp",
    "message_id",
}
"""All fields that columns and form have a place for."""

LONGEST_CONSTANT = 255

REMEMBERED = 10_000
"""Series whose texts are known to be storable. Each text has 512 characters at most."""

LARGEST_PLAIN_INTEGER = 2**53
"""Beyond it a double precision number does not tell an integer to the last digit."""

_CANONICAL_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_SIGNATURE = re.compile(r"[0-9a-f]{64}")
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d([T ])\d\d:\d\d:\d\d(?:\.(\d{1,6}))?(Z|[+-]\d\d:\d\d|)")


class Unstorable(ValueError):
    """A message that no column can take; the text says which field and why."""


class Series(NamedTuple):
    """A meter of a resource with its owners, in one run: what a sample refers to by one number."""

    name: str
    type: str
    unit: str
    resource_id: str
    user_id: str | None
    project_id: str | None
    source: str | None
    run_kind: int = RunKind.NONE
    run: str | None = None
    interval: float = 0.0
    """Seconds from poll to poll, 0 if unknown. Run and interval are told by the metadata, see :mod:`meter.counter_runs`."""


RepeatedFields = tuple[tuple[str, str | None], ...]
"""Fields, by name, that say the same in message after message."""


class WireFormat(NamedTuple):
    """How a message is written. ``timestamp`` is separator, digits of the fraction and zone, ``T6Z``; '' if unknown."""

    fields: tuple[str, ...]
    timestamp: str
    volume: str
    repeated_fields: RepeatedFields
    key_id: str | None


class Record(msgspec.Struct, frozen=True, gc=False):
    """A message, taken apart; a struct, because a batch makes a thousand.

    ``metadata`` is JSON. ``message_id`` is a canonical UUID. ``signature`` is hexadecimal, empty if there is none.
    ``verbatim_json`` is empty, or the JSON of ``monotonic_time`` (a number), or of the whole message (a mapping).
    """

    series: Series
    metadata: str
    wire_format: WireFormat
    message_id: str
    timestamp: datetime
    volume: float
    signature: str
    verbatim_json: str


def record_of(message: MeteringMessage) -> Record:
    """Take ``message`` apart; :class:`Unstorable` when PostgreSQL cannot hold it or JSON cannot tell it."""
    fields = message.fields
    run = run_of(message.type, message.metadata)
    series = _series(
        message.name,
        message.type,
        message.unit,
        message.resource_id,
        message.user_id,
        message.project_id,
        message.source,
        int(run.kind),
        run.name,
        interval_of(message.metadata),
    )
    metadata = _json(message.metadata, "resource_metadata")
    if "\\u0000" in metadata:
        _refuse_nul(message.metadata, "resource_metadata")
    signed = fields.get(SIGNATURE_FIELD)
    # What a key has verified is 64 hexadecimal digits.
    signature = signed if isinstance(signed, str) and (message.key_id or _SIGNATURE.fullmatch(signed)) else ""
    repeated_fields: RepeatedFields
    if signature and CONSTANT_FIELDS_OF_OTHERS.isdisjoint(fields) and fields.get(METADATA_FIELD) is not None:
        repeated_fields, verbatim_json, told = (), "", True
    else:
        repeated_fields, verbatim_json, told = _constants(fields, signature)
    message_id = uuid_of(message.message_id)
    timestamp_form = _timestamp_form(fields["timestamp"], message.timestamp)
    kind = type(message.volume)
    if (
        told
        and timestamp_form
        and message_id is message.message_id
        and (kind is float or abs(message.volume) <= LARGEST_PLAIN_INTEGER)
        and PLAIN_FIELDS.issuperset(fields)
    ):
        wire_format = _form(tuple(fields), timestamp_form, kind.__name__, repeated_fields, message.key_id)
    else:
        wire_format = WireFormat((), "", kind.__name__, (), message.key_id)
        verbatim_json = _json(fields, "the message")
        if msgspec.json.decode(verbatim_json) != fields:
            raise Unstorable("the message is not JSON: it has a number that is not finite, or what only Python knows")
    return Record(
        series, metadata, wire_format, message_id, message.timestamp, float(message.volume), signature, verbatim_json
    )


@lru_cache(maxsize=REMEMBERED)
def _series(*columns: Any) -> Series:
    """Return a series whose texts PostgreSQL can hold. Most have just been seen."""
    series = Series(*columns)
    _refuse_unstorable_text(series)
    return series


_form = lru_cache(maxsize=1024)(WireFormat)
"""There are a handful of forms: samples that have the same share it."""


def _constants(fields: Mapping[str, Any], signature: str) -> tuple[RepeatedFields, str, bool]:
    """Return what of ``fields`` belongs to the form, the JSON of ``monotonic_time``, and whether that tells them all."""
    repeated_fields: list[tuple[str, str | None]] = []
    verbatim_json = ""
    told = True
    for name in CONSTANT_FIELDS.intersection(fields):
        value = fields[name]
        if name == SIGNATURE_FIELD and signature:
            continue
        if name == METADATA_FIELD and value is not None:
            continue
        if value is None or (type(value) is str and len(value) <= LONGEST_CONSTANT):
            repeated_fields.append((name, value))
        elif name == "monotonic_time" and type(value) in (int, float):
            verbatim_json = _json(value, name)
        else:
            told = False
    return tuple(sorted(repeated_fields)), verbatim_json, told


def fields_of(record: Record) -> dict[str, Any]:
    """Put a message together again: the same fields in the same order, with the same types."""
    if record.verbatim_json.startswith("{"):
        whole: dict[str, Any] = msgspec.json.decode(record.verbatim_json)
        return whole
    series, wire_format = record.series, record.wire_format
    values: dict[str, Any] = {
        "source": series.source,
        "counter_name": series.name,
        "counter_type": series.type,
        "counter_unit": series.unit,
        "counter_volume": volume_of(record),
        "user_id": series.user_id,
        "project_id": series.project_id,
        "resource_id": series.resource_id,
        "timestamp": _written(record.timestamp, wire_format.timestamp),
        "resource_metadata": msgspec.json.decode(record.metadata),
        "message_id": record.message_id,
        SIGNATURE_FIELD: record.signature,
    }
    if record.verbatim_json:
        values["monotonic_time"] = msgspec.json.decode(record.verbatim_json)
    values.update(wire_format.repeated_fields)
    return {name: values[name] for name in wire_format.fields}


def volume_of(record: Record) -> int | float:
    """Return the volume as it was sent: every digit, and ``int`` or ``float``."""
    if record.verbatim_json.startswith("{"):
        volume: int | float = msgspec.json.decode(record.verbatim_json)["counter_volume"]
        return volume
    return int(record.volume) if record.wire_format.volume == "int" else record.volume


def message_id_of(record: Record) -> str:
    """Return the id as it was sent, be it a UUID or not."""
    if record.verbatim_json.startswith("{"):
        message_id: str = msgspec.json.decode(record.verbatim_json)["message_id"]
        return message_id
    return record.message_id


def uuid_of(message_id: str) -> str:
    """Return the canonical UUID that stands for ``message_id`` in the store: itself if it is one."""
    if _CANONICAL_UUID.fullmatch(message_id):
        return message_id
    return str(uuid.uuid5(NAMESPACE, message_id))


def text_of(wire_format: WireFormat) -> str:
    """Return ``form`` as it is stored: JSON."""
    return msgspec.json.encode(wire_format).decode()


@lru_cache(maxsize=1024)
def wire_format_of(text: str) -> WireFormat:
    """Return the form that is stored as ``text``."""
    return msgspec.json.decode(text, type=WireFormat)


@lru_cache(maxsize=1024)
def _timestamp_form(text: str, moment: datetime) -> str:
    """Return how ``moment`` was written as ``text``; '' when that cannot be told. One polling cycle shares its time."""
    match = _TIMESTAMP.fullmatch(text)
    wire_format = f"{match[1]}{len(match[2] or '')}{match[3]}" if match else ""
    return wire_format if _written(moment, wire_format) == text else ""


def _written(moment: datetime, wire_format: str) -> str:
    """Return ``moment`` written in ``form``; a text that equals no other when the form is unknown."""
    if not wire_format:
        return ""
    separator, digits, zone = wire_format[0], int(wire_format[1]), wire_format[2:]
    if zone not in ("", "Z"):
        try:
            moment = moment.astimezone(datetime.strptime(zone, "%z").tzinfo)
        except OverflowError:
            return ""  # the first or last day of all: 0001-01-01T00:00+02:00 is in no year
    text = moment.replace(tzinfo=None).isoformat(separator, "microseconds")
    return (text[: 20 + digits] if digits else text[:19]) + zone


def _json(value: Any, label: str) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (UnicodeEncodeError, TypeError, ValueError, RecursionError, OverflowError) as error:
        raise Unstorable(f"{label} is not JSON: {error}") from error


def _refuse_unstorable_text(series: Series) -> None:
    whole = "".join([text for text in series if isinstance(text, str)])
    if whole.isascii() and "\0" not in whole:
        return
    for label, text in zip(series._fields, series, strict=True):
        if isinstance(text, str):
            if "\0" in text:
                raise Unstorable(f"{label} has a NUL character, which PostgreSQL cannot store")
            if not text.isascii():
                _refuse_surrogates(text, label)


def _refuse_surrogates(text: str, label: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Unstorable(f"{label} has half a surrogate pair, which no encoding can tell") from error


def _refuse_nul(value: Any, path: str) -> None:
    """Raise if a text in ``value`` has a NUL; the six characters ``\\u0000`` are no harm."""
    if isinstance(value, str):
        if "\0" in value:
            raise Unstorable(f"{path} has a NUL character, which PostgreSQL cannot store")
    elif isinstance(value, Mapping):
        for name, element in value.items():
            _refuse_nul(name, f"a name in {path}")
            _refuse_nul(element, f"{path}.{name}")
    elif isinstance(value, list):
        for index, element in enumerate(value):
            _refuse_nul(element, f"{path}[{index}]")
