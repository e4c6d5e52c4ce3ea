"""The JSON shapes of answers, and how the store's records become them.

Names, order and types of members are Ceilometer's.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from typing import Any

import msgspec
from msgspec import UNSET
from msgspec import UnsetType

from meter.api.rendering.flattening import Flattening
from meter.api.request.simple_query import SimpleQuery
from meter.message import MeteringMessage
from meter.query import STANDARD_AGGREGATES
from meter.query import Grouping
from meter.query import Statistics
from meter.query import StoredMeter
from meter.query import StoredResource
from meter.query import StoredSample
from meter.signature import SIGNATURE_FIELD

STANDARD_LABELS = tuple(aggregate.label for aggregate in STANDARD_AGGREGATES)

Time = Annotated[datetime, msgspec.Meta(tz=False)]
"""A naive time in UTC, which becomes ``2026-11-22T17:00:59.701479``, the fraction left out where it is zero."""

FlatMetadata = Annotated[
    msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "object", "additionalProperties": {"type": "string"}})
]
"""Metadata on one level, all values texts, as JSON: see :class:`meter.api.rendering.flattening.Flattening`."""


class OldSample(msgspec.Struct, kw_only=True):
    """A sample under ``/v2/meters/{meter}``."""

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


class Sample(msgspec.Struct, kw_only=True):
    """A sample under ``/v2/samples``."""

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


class Proof(msgspec.Struct, kw_only=True):
    """A metering message exactly as it was signed, and the name of the key that signed it, ``None`` if none did."""

    message: dict[str, Any]
    key_id: str | None


class Meter(msgspec.Struct, kw_only=True):
    """A meter of one resource; one of any resource, where only unique ones were asked for."""

    meter_id: str
    name: str
    type: str
    unit: str
    resource_id: str | None
    project_id: str | None
    user_id: str | None
    source: str | None


class Link(msgspec.Struct):
    """A way on from a resource: to itself, or to the samples of one of its meters."""

    href: str
    rel: str


class Resource(msgspec.Struct, kw_only=True):
    """A resource, with the first and the last sample of the range that was asked."""

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

    Where aggregates were chosen, all that were chosen stand in ``aggregate``, and of the standard ones only those.
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


def old_sample(row: StoredSample, flat: Flattening) -> OldSample:
    """Return ``row`` as ``/v2/meters/{meter}`` shows it."""
    return _old_sample(row, flat, recorded_at=_naive(row.recorded_at), signature=row.signature or None)


def posted_sample(message: MeteringMessage, metadata: Mapping[str, str | None]) -> OldSample:
    """Return ``message``, which a client has just sent with ``metadata``, as it is shown to that client."""
    shown = msgspec.Raw(msgspec.json.encode(metadata))
    return _old_sample(message, lambda _: shown, recorded_at=UNSET, signature=message.fields[SIGNATURE_FIELD])


def _old_sample(
    told: StoredSample | MeteringMessage,
    flat: Callable[[Mapping[str, Any]], msgspec.Raw],
    *,
    recorded_at: Time | UnsetType,
    signature: str | None,
) -> OldSample:
    return OldSample(
        counter_name=told.name,
        counter_type=told.type,
        counter_unit=told.unit,
        counter_volume=float(told.volume),
        resource_id=told.resource_id,
        project_id=told.project_id,
        user_id=told.user_id,
        source=told.source,
        timestamp=_naive(told.timestamp),
        recorded_at=recorded_at,
        resource_metadata=flat(told.metadata),
        message_id=told.message_id,
        message_signature=signature,
    )


def sample(row: StoredSample, flat: Flattening) -> Sample:
    """Return ``row`` as ``/v2/samples`` shows it."""
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
        metadata=flat(row.metadata),
        message_signature=row.signature or None,
    )


@dataclass(frozen=True, slots=True)
class SampleShape:
    """A way to show samples: the record that shows one, and what makes it."""

    record: type[msgspec.Struct]
    render: Callable[[StoredSample, Flattening], msgspec.Struct]

    def rendered(self, rows: Iterable[StoredSample], flat: Flattening) -> list[msgspec.Struct]:
        """Return ``rows`` as they are shown."""
        render = self.render
        return [render(row, flat) for row in rows]


OLD_SAMPLE = SampleShape(OldSample, old_sample)
SAMPLE = SampleShape(Sample, sample)


def meter(row: StoredMeter) -> Meter:
    """Return ``row`` with its id, which is made of the resource's (``None`` where unique) and the meter's name."""
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


def resource(row: StoredResource, flat: Flattening, base_url: str, meter_links: bool) -> Resource:
    """Return ``row`` with a link to itself below ``base_url`` and, if wanted, one to each of its meters."""
    links = [Link(f"{base_url}/v2/resources/{row.resource_id}", "self")]
    if meter_links:
        # Ids stand in links as they are, not percent-encoded: clients compare them as text.
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
        metadata=flat(row.metadata),
        links=links,
    )


def statistics_row(
    row: Statistics, asked: SimpleQuery, group_names: Mapping[Grouping, str], selected: bool
) -> StatisticsRow:
    """Return ``row``; ``group_names`` has the names that groupings were asked for by.

    ``selected``: the aggregates were chosen by whoever asked, and are shown apart. The duration lies within the range that was ``asked``, which may be narrower than that of the samples.
    """
    start = max(row.first, asked.start) if asked.start else row.first
    end = min(row.last, asked.end) if asked.end else row.last
    known = start <= end
    numbers = {label: float(value) for label, value in row.values.items()}
    # Those that are standard stand in their old place too: that is where clients older than the choice look.
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
        duration=(end - start).total_seconds() if known else None,
        duration_start=_naive(start) if known else None,
        duration_end=_naive(end) if known else None,
        **values,
    )


def _naive(moment: datetime) -> datetime:
    """Return ``moment``, which is in UTC, as answers show it."""
    return datetime.combine(moment, moment.time())  # replace(tzinfo=None) takes four times as long
