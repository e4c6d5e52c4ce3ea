"""JSON schemas of the v1 API, and the conversion of store records. Most responses are objects with one key."""

from __future__ import annotations

from typing import Any

import msgspec

from meter.api.rendering.flattening import without_reserved
from meter.query import StoredMeter
from meter.query import StoredResource
from meter.query import StoredSample
from meter.sample import utc_text


class MeterV1(msgspec.Struct, kw_only=True):
    """A meter of one resource."""

    name: str
    type: str
    unit: str
    resource_id: str | None
    project_id: str | None
    user_id: str | None


class Meters(msgspec.Struct):
    """The response of ``…/meters``."""

    meters: list[MeterV1]


class ResourceV1(msgspec.Struct, kw_only=True):
    """A resource; ``timestamp`` is that of its newest sample in the range."""

    resource_id: str
    project_id: str | None
    user_id: str | None
    source: str | None
    timestamp: str
    metadata: dict[str, Any]
    meter: list[str]


class Resources(msgspec.Struct):
    """The response of ``…/resources``."""

    resources: list[ResourceV1]


class Users(msgspec.Struct):
    """The response of ``…/users``: ids."""

    users: list[str]


class Projects(msgspec.Struct):
    """The response of ``…/projects``: ids."""

    projects: list[str]


class Source(msgspec.Struct):
    """A source that has samples."""

    name: str


class Event(msgspec.Struct, kw_only=True):
    """A sample with all its signed fields except Meter's reserved metadata."""

    source: str | None
    counter_name: str
    counter_type: str
    counter_unit: str
    counter_volume: int | float
    user_id: str | None
    project_id: str | None
    resource_id: str
    timestamp: str
    resource_metadata: dict[str, Any]
    message_id: str
    message_signature: str | None


class Events(msgspec.Struct):
    """The response of ``…/meters/{meter}``: samples, which v1 called events."""

    events: list[Event]


class Duration(msgspec.Struct):
    """The time between the first and the last sample, in seconds; all ``None`` if the range has no samples."""

    start_timestamp: str | None
    end_timestamp: str | None
    duration: float | None


class Volume(msgspec.Struct):
    """An aggregate of volumes, ``None`` without samples."""

    volume: float | None


def meter(row: StoredMeter) -> MeterV1:
    """Return ``row`` in v1's schema."""
    return msgspec.convert(row, MeterV1, from_attributes=True)


def resource(row: StoredResource) -> ResourceV1:
    """Return ``row`` in v1's schema; metadata is nested."""
    return ResourceV1(
        resource_id=row.resource_id,
        project_id=row.project_id,
        user_id=row.user_id,
        source=row.source,
        timestamp=utc_text(row.last_sample),
        metadata=without_reserved(row.metadata),
        meter=list(dict.fromkeys(row.meters)),
    )


def event(row: StoredSample) -> Event:
    """Return ``row`` in v1's schema; metadata is nested and keeps its types."""
    return Event(
        source=row.source,
        counter_name=row.name,
        counter_type=row.type,
        counter_unit=row.unit,
        counter_volume=row.volume,
        user_id=row.user_id,
        project_id=row.project_id,
        resource_id=row.resource_id,
        timestamp=utc_text(row.timestamp),
        resource_metadata=without_reserved(row.metadata),
        message_id=row.message_id,
        message_signature=row.signature or None,
    )
