"""A metering message as a row: narrow columns, from which the message can be restored exactly.

The columns hold the values of a message. How it was written (``1`` or ``1.0``, ``T`` or blank, null or missing) is its
*wire format*, of which there are few. The order of the fields is not stored: a signature covers them in the order of their
names. Where the columns and the wire format cannot restore a message, the row holds its whole JSON too.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any
from typing import NamedTuple

import msgspec

from meter.batch_signature import BatchEntry
from meter.ceilometer_signature import METADATA_FIELD
from meter.ceilometer_signature import SIGNATURE_FIELD
from meter.counter_runs import RunKind
from meter.counter_runs import interval_of
from meter.counter_runs import run_of
from meter.message import MeteringMessage
from meter.sample import VALID_VOLUMES
from meter.sample import volume_is_valid
from meter.signing_keys import SignatureScheme
from meter.standard_fields import MetadataFacts
from meter.standard_fields import StandardFields

NAMESPACE = uuid.UUID("b5a4b1a8-8a3c-5d5c-9f0e-6c1d5f0f5d11")
"""Namespace of the UUIDs derived from message ids that are not UUIDs: ``uuid5(NAMESPACE, id)``."""

STANDARD_FIELDS = frozenset(
    {
        "source",
        "counter_name",
        "counter_type",
        "counter_unit",
        "counter_volume",
        "user_id",
        "project_id",
        "resource_id",
        "timestamp",
        METADATA_FIELD,
        "message_id",
        SIGNATURE_FIELD,
    }
)
"""The fields of Meter's own messages, each of which has a column."""

EXTRA_FIELDS = frozenset({"user_name", "project_name", "publisher_id", "monotonic_time"})
"""Fields of Ceilometer's agents that Meter's own messages do not have."""

KNOWN_FIELDS = STANDARD_FIELDS | EXTRA_FIELDS
"""All fields that fit into the columns and the wire format."""

REPEATABLE_FIELDS = EXTRA_FIELDS | {METADATA_FIELD, SIGNATURE_FIELD}
"""Fields whose value may be part of the wire format: null, or a text that is the same in message after message."""

MAX_REPEATED_LENGTH = 255

SERIES_CACHE_SIZE = 100_000
"""Series whose texts are known to be storable. Each text has 512 characters at most."""

MAX_EXACT_INTEGER = 2**53
"""Double precision numbers cannot represent all integers beyond it."""

_CANONICAL_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_SIGNATURE = re.compile(r"[0-9a-f]{64}")
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d([T ])\d\d:\d\d:\d\d(?:\.(\d{1,6}))?(Z|[+-]\d\d:\d\d|)")


class Unstorable(ValueError):
    """A message that PostgreSQL cannot store; the text says which field and why."""


class Series(NamedTuple):
    """A meter of a resource, with its owners, in one run. A sample refers to it by one id."""

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
    """Seconds from poll to poll, 0 if unknown. Run and interval come from the metadata, see :mod:`meter.counter_runs`."""


RepeatedFields = tuple[tuple[str, str | None], ...]
"""Names and values of fields that are the same in message after message, in the order of the names."""


class WireFormat(NamedTuple):
    """How a message is written.

    ``missing_fields`` are the standard fields that the message does not have, in order. ``timestamp`` is the separator, the
    number of fraction digits and the zone, as in ``T6Z``; empty if the message is stored whole. ``volume`` is ``int`` or
    ``float``. ``key_id`` and ``scheme`` say which signature was verified.
    """

    missing_fields: tuple[str, ...]
    timestamp: str
    volume: str
    repeated_fields: RepeatedFields
    key_id: str | None
    scheme: SignatureScheme | None = None


class Record(msgspec.Struct, frozen=True, gc=False):
    """The values of a row. It is a struct because structs are fast to make: a batch has a thousand of them.

    ``metadata`` is JSON. ``message_id`` is a canonical UUID. ``signature`` is hexadecimal, empty if there is none.
    ``entry`` is the place of the message in a signed batch: such a message is stored without Ceilometer's signature, which can be
    made again. ``verbatim_json`` is empty, or the JSON of ``monotonic_time`` (a number), or of the whole message (an object).
    ``metadata_digest`` is the SHA-256 of ``metadata``; rows that were read do not have it.
    """

    series: Series
    metadata: str
    wire_format: WireFormat
    message_id: str
    timestamp: datetime
    volume: float
    signature: str
    verbatim_json: str
    entry: BatchEntry | None = None
    metadata_digest: bytes = b""


def record_of(message: MeteringMessage) -> Record:
    """Return ``message`` as the values of a row; :class:`Unstorable` if PostgreSQL or JSON cannot represent it."""
    facts = message.facts
    if facts is not None and not facts.has_nul and (record := _record_of_standard(message, facts)) is not None:
        return record
    if not volume_is_valid(message.volume):
        raise Unstorable(f"the volume must be {VALID_VOLUMES}")
    fields, entry = message.fields, message.entry
    if entry is not None:
        fields = {name: value for name, value in fields.items() if name != SIGNATURE_FIELD}
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
    # A signature that a key has verified has 64 hexadecimal digits.
    signature = signed if isinstance(signed, str) and (message.key_id or _SIGNATURE.fullmatch(signed)) else ""
    repeated_fields: RepeatedFields
    if (signature or entry) and EXTRA_FIELDS.isdisjoint(fields) and fields.get(METADATA_FIELD) is not None:
        repeated_fields, verbatim_json, fits = (), "", True
    else:
        repeated_fields, verbatim_json, fits = _repeated_fields(fields, signature)
    message_id = uuid_of(message.message_id)
    timestamp_format = _timestamp_format(fields["timestamp"], message.timestamp)
    kind = type(message.volume)
    if (
        fits
        and timestamp_format
        and message_id is message.message_id
        and (kind is float or abs(message.volume) <= MAX_EXACT_INTEGER)
        and KNOWN_FIELDS.issuperset(fields)
    ):
        missing_fields = STANDARD_FIELDS.difference(fields)
        wire_format = _wire_format(
            missing_fields, timestamp_format, kind.__name__, repeated_fields, message.key_id, message.scheme
        )
    else:
        wire_format = WireFormat((), "", kind.__name__, (), message.key_id, message.scheme)
        verbatim_json = _json(fields, "the message")
        if msgspec.json.decode(verbatim_json) != fields:
            raise Unstorable(
                "the message is not JSON: it has a number that is not finite, or a type that only Python has"
            )
    return Record(
        series,
        metadata,
        wire_format,
        message_id,
        message.timestamp,
        float(message.volume),
        signature,
        verbatim_json,
        entry,
        hashlib.sha256(metadata.encode()).digest(),
    )


def _record_of_standard(message: MeteringMessage, facts: MetadataFacts) -> Record | None:
    """Return a message in a signed batch, with the members of a standard message, as a row; ``None`` if it does not fit into the columns."""
    received, volume, timestamp = message.received, message.volume, message.timestamp
    kind = type(volume)
    if (
        not isinstance(received, StandardFields)
        or message.entry is None
        or not _CANONICAL_UUID.fullmatch(message.message_id)
        or not (timestamp_format := _timestamp_format(received.timestamp, timestamp))
        or (kind is int and abs(volume) > MAX_EXACT_INTEGER)
    ):
        return None
    run = facts.run_of_counter if message.type == "cumulative" else facts.run_of_others
    return Record(
        _series(
            message.name,
            message.type,
            message.unit,
            message.resource_id,
            message.user_id,
            message.project_id,
            message.source,
            run.kind,
            run.name,
            facts.interval_seconds,
        ),
        bytes(received.resource_metadata).decode() if facts.text is None else facts.text,
        _wire_format(_NO_SIGNATURE, timestamp_format, kind.__name__, (), message.key_id, "meter"),
        message.message_id,
        timestamp,
        float(volume),
        "",
        "",
        message.entry,
        facts.digest,
    )


_NO_SIGNATURE = frozenset({SIGNATURE_FIELD})
"""The standard fields that a message in a signed batch is stored without."""


@lru_cache(maxsize=SERIES_CACHE_SIZE)
def _series(*columns: Any) -> Series:
    """Return a series; :class:`Unstorable` if PostgreSQL cannot store one of its texts."""
    series = Series(*columns)
    _refuse_unstorable_text(series)
    return series


@lru_cache(maxsize=1024)
def _wire_format(missing_fields: frozenset[str], *rest: Any) -> WireFormat:
    """Return a wire format, the same object each time: there are few, and samples share them."""
    return WireFormat(tuple(sorted(missing_fields)), *rest)


def _repeated_fields(fields: Mapping[str, Any], signature: str) -> tuple[RepeatedFields, str, bool]:
    """Return the repeated fields, the JSON of ``monotonic_time``, and whether all repeatable fields fit into these two."""
    repeated_fields: list[tuple[str, str | None]] = []
    verbatim_json = ""
    fits = True
    for name in REPEATABLE_FIELDS.intersection(fields):
        value = fields[name]
        if name == SIGNATURE_FIELD and signature:
            continue
        if name == METADATA_FIELD and value is not None:
            continue
        if value is None or (type(value) is str and len(value) <= MAX_REPEATED_LENGTH):
            repeated_fields.append((name, value))
        elif name == "monotonic_time" and type(value) in (int, float):
            verbatim_json = _json(value, name)
        else:
            fits = False
    return tuple(sorted(repeated_fields)), verbatim_json, fits


def fields_of(record: Record) -> dict[str, Any]:
    """Return the fields of the message: the same names and values, with the same types, in any order."""
    if record.verbatim_json.startswith("{"):
        whole: dict[str, Any] = msgspec.json.decode(record.verbatim_json)
        return whole
    series, wire_format = record.series, record.wire_format
    fields: dict[str, Any] = {
        "source": series.source,
        "counter_name": series.name,
        "counter_type": series.type,
        "counter_unit": series.unit,
        "counter_volume": volume_of(record),
        "user_id": series.user_id,
        "project_id": series.project_id,
        "resource_id": series.resource_id,
        "timestamp": _format_timestamp(record.timestamp, wire_format.timestamp),
        METADATA_FIELD: msgspec.json.decode(record.metadata),
        "message_id": record.message_id,
        SIGNATURE_FIELD: record.signature,
    }
    if record.verbatim_json:
        fields["monotonic_time"] = msgspec.json.decode(record.verbatim_json)
    fields.update(wire_format.repeated_fields)
    for name in wire_format.missing_fields:
        del fields[name]
    return fields


def volume_of(record: Record) -> int | float:
    """Return the volume as it was sent: all digits, and ``int`` or ``float``."""
    if record.verbatim_json.startswith("{"):
        volume: int | float = msgspec.json.decode(record.verbatim_json)["counter_volume"]
        return volume
    return int(record.volume) if record.wire_format.volume == "int" else record.volume


def message_id_of(record: Record) -> str:
    """Return the id as it was sent, whether it is a UUID or not."""
    if record.verbatim_json.startswith("{"):
        message_id: str = msgspec.json.decode(record.verbatim_json)["message_id"]
        return message_id
    return record.message_id


def uuid_of(message_id: str) -> str:
    """Return the canonical UUID under which the store has ``message_id``: itself if it is one."""
    if _CANONICAL_UUID.fullmatch(message_id):
        return message_id
    return str(uuid.uuid5(NAMESPACE, message_id))


def text_of(wire_format: WireFormat) -> str:
    """Return ``wire_format`` as it is stored: JSON."""
    return msgspec.json.encode(wire_format).decode()


@lru_cache(maxsize=1024)
def wire_format_of(text: str) -> WireFormat:
    """Return the wire format that is stored as ``text``."""
    found = msgspec.json.decode(text, type=WireFormat)
    if found.scheme is None and found.key_id is not None:
        return found._replace(scheme="ceilometer")  # stored before there was another scheme
    return found


@lru_cache(maxsize=1024)
def _timestamp_format(text: str, timestamp: datetime) -> str:
    """Return the format in which ``text`` states ``timestamp``; empty if it is not a known one.

    It is cached because the samples of one polling cycle share their time.
    """
    match = _TIMESTAMP.fullmatch(text)
    found = f"{match[1]}{len(match[2] or '')}{match[3]}" if match else ""
    return found if _format_timestamp(timestamp, found) == text else ""


def _format_timestamp(timestamp: datetime, timestamp_format: str) -> str:
    """Return ``timestamp`` in ``timestamp_format``; empty, which is not a timestamp, if that is empty or impossible."""
    if not timestamp_format:
        return ""
    separator, digits, zone = timestamp_format[0], int(timestamp_format[1]), timestamp_format[2:]
    if zone not in ("", "Z"):
        try:
            timestamp = timestamp.astimezone(datetime.strptime(zone, "%z").tzinfo)
        except OverflowError:
            return ""  # 0001-01-01T00:00+02:00 is in the year 0 of UTC
    text = timestamp.replace(tzinfo=None).isoformat(separator, "microseconds")
    return (text[: 20 + digits] if digits else text[:19]) + zone


def _json(value: Any, label: str) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (UnicodeEncodeError, TypeError, ValueError, RecursionError, OverflowError) as error:
        raise Unstorable(f"{label} is not JSON: {error}") from error


def _refuse_unstorable_text(series: Series) -> None:
    joined = "".join([text for text in series if isinstance(text, str)])
    if joined.isascii() and "\0" not in joined:
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
        raise Unstorable(f"{label} has half a surrogate pair, which no encoding can represent") from error


def _refuse_nul(value: Any, path: str) -> None:
    """Raise if a text in ``value`` has a NUL character; the six characters ``\\u0000`` are not one."""
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
