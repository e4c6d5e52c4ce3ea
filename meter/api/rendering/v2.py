"""JSON schemas of the v2 API, and the conversion of store records.

Names, order and types of members are those of Ceilometer.
"""

from __future__ import annotations

import base64
from base64 import b64encode
from collections.abc import Callable
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from typing import Any

import msgspec
from msgspec import UNSET
from msgspec import UnsetType

from meter.api.rendering.flattening import MetadataFlattener
from meter.batch_signature import VERSION
from meter.ceilometer_reading import has_second_reading
from meter.ceilometer_signature import SIGNATURE_FIELD
from meter.ceilometer_signature import BadSignature
from meter.ceilometer_signature import signature
from meter.message import MeteringMessage
from meter.query import STANDARD_AGGREGATES
from meter.query import Grouping
from meter.query import Statistics
from meter.query import StoredMeter
from meter.query import StoredResource
from meter.query import StoredSample
from meter.signing_keys import Keyring
from meter.signing_keys import SignatureScheme
from meter.stored_batch import BatchFindings
from meter.stored_batch import StoredBatch
from meter.stored_batch import StoredProof
from meter.stored_batch import verify_with_keyring

STANDARD_LABELS = tuple(aggregate.label for aggregate in STANDARD_AGGREGATES)

Time = Annotated[datetime, msgspec.Meta(tz=False)]
"""A naive time in UTC, encoded as ``2026-11-22T17:00:59.701479``, without the fraction if that is zero."""

FlatMetadata = Annotated[
    msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "object", "additionalProperties": {"type": "string"}})
]
"""Encoded metadata, one level, all values strings: see :class:`meter.api.rendering.flattening.MetadataFlattener`."""


class OldSample(msgspec.Struct, kw_only=True):
    """A sample in the schema of ``/v2/meters/{meter}``."""

    counter_name: str
    counter_type: str
    counter_unit: str
    counter_volume: float
    resource_id: str
    project_id: str | None
    user_id: str | None
    source: str | None
    timestamp: Time
    recorded_at: Time | UnsetType
    resource_metadata: FlatMetadata
    message_id: str
    message_signature: str | None
    signature_scheme: SignatureScheme | None


class Sample(msgspec.Struct, kw_only=True):
    """A sample in the schema of ``/v2/samples``."""

    id: str
    meter: str
    type: str
    unit: str
    volume: float
    resource_id: str
    project_id: str | None
    user_id: str | None
    source: str | None
    timestamp: Time
    recorded_at: Time
    metadata: FlatMetadata
    message_signature: str | None
    signature_scheme: SignatureScheme | None


class BatchProof(msgspec.Struct, kw_only=True):
    """The signature of the batch of a message, and the position of the message in it.

    ``digests`` are the digests of all messages of the batch, 32 bytes each, in base64 like ``mac``. They are null if this
    server does not have the key, and if messages of the batch are missing or were altered.
    """

    version: int
    id: str
    first: str
    last: str
    count: int
    position: int
    digests: str | None
    mac: str


class Proof(msgspec.Struct, kw_only=True):
    """A metering message as it was signed, the scheme of its signature and the id of the key, null if it is unsigned.

    ``voided``: the sample is voided, which only administrators see.
    """

    message: dict[str, Any]
    scheme: SignatureScheme | None
    key_id: str | None
    batch: BatchProof | None
    voided: bool


class Meter(msgspec.Struct, kw_only=True):
    """A meter of one resource; with ``unique``, a meter of any resource."""

    meter_id: str
    name: str
    type: str
    unit: str
    resource_id: str | None
    project_id: str | None
    user_id: str | None
    source: str | None


class Link(msgspec.Struct):
    """A link of a resource: to itself, or to the samples of one of its meters."""

    href: str
    rel: str


class Resource(msgspec.Struct, kw_only=True):
    """A resource, with the times of its first and last matching sample."""

    resource_id: str
    project_id: str | None
    user_id: str | None
    source: str | None
    first_sample_timestamp: Time
    last_sample_timestamp: Time
    metadata: FlatMetadata
    links: list[Link]


class StatisticsRow(msgspec.Struct, kw_only=True):
    """Statistics of one unit, group and window.

    If the request selects aggregates, ``aggregate`` has those, and of the standard members only selected ones are present.
    """

    unit: str
    groupby: dict[str, str | None] | None
    period: int
    period_start: Time
    period_end: Time
    duration: float | None
    duration_start: Time | None
    duration_end: Time | None
    max: float | UnsetType = UNSET
    min: float | UnsetType = UNSET
    avg: float | UnsetType = UNSET
    sum: float | UnsetType = UNSET
    count: int | UnsetType = UNSET
    aggregate: dict[str, float] | UnsetType = UNSET


def old_sample(row: StoredSample, flatten: MetadataFlattener) -> OldSample:
    """Return ``row`` in the schema of ``/v2/meters/{meter}``."""
    return _old_sample(row, flatten, recorded_at=_naive(row.recorded_at), signature=row.signature or None)


def posted_sample(message: MeteringMessage, metadata: Mapping[str, str | None]) -> OldSample:
    """Return ``message``, made from a posted sample with ``metadata``, in the response to that POST."""
    encoded = msgspec.Raw(msgspec.json.encode(metadata))
    return _old_sample(message, lambda _: encoded, recorded_at=UNSET, signature=message.fields.get(SIGNATURE_FIELD))


def _old_sample(
    source: StoredSample | MeteringMessage,
    flatten: Callable[[Mapping[str, Any]], msgspec.Raw],
    *,
    recorded_at: Time | UnsetType,
    signature: str | None,
) -> OldSample:
    return OldSample(
        counter_name=source.name,
        counter_type=source.type,
        counter_unit=source.unit,
        counter_volume=float(source.volume),
        resource_id=source.resource_id,
        project_id=source.project_id,
        user_id=source.user_id,
        source=source.source,
        timestamp=_naive(source.timestamp),
        recorded_at=recorded_at,
        resource_metadata=flatten(source.metadata),
        message_id=source.message_id,
        message_signature=signature,
        signature_scheme=source.scheme,
    )


def sample(row: StoredSample, flatten: MetadataFlattener) -> Sample:
    """Return ``row`` in the schema of ``/v2/samples``."""
    return Sample(
        id=row.message_id,
        meter=row.name,
        type=row.type,
        unit=row.unit,
        volume=float(row.volume),
        resource_id=row.resource_id,
        project_id=row.project_id,
        user_id=row.user_id,
        source=row.source,
        timestamp=_naive(row.timestamp),
        recorded_at=_naive(row.recorded_at),
        metadata=flatten(row.metadata),
        message_signature=row.signature or None,
        signature_scheme=row.scheme,
    )


def proof(found: StoredProof, keys: Keyring | None) -> Proof:
    """Return ``found`` with what only a holder of the key can make: digests, and Ceilometer's signature of the message.

    The latter is made only of a message that the signature of the batch proves and whose signed text no other message shares:
    otherwise whoever can alter a row, or submit samples, could have any message signed.
    """
    message, batch, key_id = dict(found.message), found.batch, found.key_id
    if batch is None:
        return Proof(message=message, scheme=found.scheme, key_id=key_id, batch=None, voided=found.voided)
    digests = None
    if keys is not None and (verified := verify_with_keyring(batch, keys)) is not None:
        digests = verified.findings.digests
        key_id = verified.key.id
        proven = _proven_message(batch, found.position, verified.findings)
        if keys.ceilometer_signature and proven is not None:
            with suppress(BadSignature):  # of a text too long to sign
                if not has_second_reading(proven):
                    message[SIGNATURE_FIELD] = signature(proven, verified.key.secret)
    return Proof(
        message=message,
        scheme=found.scheme,
        key_id=key_id,
        batch=BatchProof(
            version=VERSION,
            id=batch.id,
            first=batch.first,
            last=batch.last,
            count=batch.count,
            position=found.position,
            digests=None if digests is None else b64encode(digests).decode(),
            mac=b64encode(batch.mac).decode(),
        ),
        voided=found.voided,
    )


def _proven_message(batch: StoredBatch, position: int, findings: BatchFindings) -> Mapping[str, Any] | None:
    """Return the message at ``position``, ``None`` unless the signature of the batch covers exactly this message there.

    It is the one that was compared with its digest, not the row of the response: that is read by an earlier query.
    """
    if findings.signature_matches is not True:
        return None
    compared = zip(batch.messages, findings.problems, strict=True)
    there = [(fields, problem) for (place, fields), problem in compared if place == position]
    return there[0][0] if len(there) == 1 and there[0][1] is None else None


@dataclass(frozen=True, slots=True)
class SampleSchema:
    """A JSON schema of samples: its record type, and the function that converts a stored sample.

    ``attributes`` are the attributes of a stored sample that the members have, by their names and in their order.
    """

    record: type[msgspec.Struct]
    render: Callable[[StoredSample, MetadataFlattener], msgspec.Struct]
    attributes: Mapping[str, str]


_ATTRIBUTES = {
    **{name: name for name in StoredSample.__struct_fields__},
    **{f"counter_{name}": name for name in ("name", "type", "unit", "volume")},
    "meter": "name",
    "id": "message_id",
    "resource_metadata": "metadata",
    "message_signature": "signature",
    "signature_scheme": "scheme",
}
"""The attributes of a stored sample by the names of members."""


def _schema(
    record: type[msgspec.Struct], render: Callable[[StoredSample, MetadataFlattener], msgspec.Struct]
) -> SampleSchema:
    return SampleSchema(record, render, {name: _ATTRIBUTES[name] for name in record.__struct_fields__})


OLD_SAMPLE = _schema(OldSample, old_sample)
SAMPLE = _schema(Sample, sample)


def meter(row: StoredMeter) -> Meter:
    """Return ``row`` with a meter id: the Base64 of ``resource_id+name``, ``None+name`` for a unique meter."""
    return Meter(
        meter_id=base64.b64encode(f"{row.resource_id}+{row.name}".encode()).decode(),
        name=row.name,
        type=row.type,
        unit=row.unit,
        resource_id=row.resource_id,
        project_id=row.project_id,
        user_id=row.user_id,
        source=row.source,
    )


def resource(row: StoredResource, flatten: MetadataFlattener, base_url: str, meter_links: bool) -> Resource:
    """Return ``row`` with a link to itself below ``base_url`` and, with ``meter_links``, one to each of its meters."""
    links = [Link(f"{base_url}/v2/resources/{row.resource_id}", "self")]
    if meter_links:
        # Ids in links are not percent-encoded: clients compare them as strings.
        links += [
            Link(f"{base_url}/v2/meters/{name}?q.field=resource_id&q.value={row.resource_id}", name)
            for name in row.meters
        ]
    return Resource(
        resource_id=row.resource_id,
        project_id=row.project_id,
        user_id=row.user_id,
        source=row.source,
        first_sample_timestamp=_naive(row.first_sample),
        last_sample_timestamp=_naive(row.last_sample),
        metadata=flatten(row.metadata),
        links=links,
    )


def statistics_row(
    row: Statistics,
    *,
    group_names: Mapping[Grouping, str],
    selected: bool,
    start: datetime | None,
    end: datetime | None,
) -> StatisticsRow:
    """Return ``row``; ``group_names`` maps groupings to their names in the request.

    ``selected``: the request selects aggregates. ``start`` and ``end`` are the range of the request, which bounds the
    duration; with ``search_offset`` the samples can lie outside.
    """
    first = max(row.first, start) if start else row.first
    last = min(row.last, end) if end else row.last
    overlap = first <= last
    numbers = {label: float(value) for label, value in row.values.items()}
    # Selected standard aggregates have their usual members too, where clients older than ``aggregate`` look.
    values: dict[str, Any] = {label: numbers[label] for label in STANDARD_LABELS if label in numbers}
    if "count" in values:
        values["count"] = int(values["count"])
    if selected:
        values["aggregate"] = numbers
    return StatisticsRow(
        unit=row.unit,
        groupby={group_names[grouping]: value for grouping, value in row.group.items()} or None,
        period=row.period,
        period_start=_naive(row.period_start),
        period_end=_naive(row.period_end),
        duration=(last - first).total_seconds() if overlap else None,
        duration_start=_naive(first) if overlap else None,
        duration_end=_naive(last) if overlap else None,
        **values,
    )


def _naive(moment: datetime) -> datetime:
    """Return ``moment``, a time in UTC, without its time zone, as responses show times."""
    return datetime.combine(moment, moment.time())  # replace(tzinfo=None) takes four times as long
