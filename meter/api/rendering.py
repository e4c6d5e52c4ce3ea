"""The JSON shapes of answers, and how the store's records become them.

Names, order and types of members are Ceilometer's. Times are naive ISO 8601 in UTC.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from msgspec import UNSET
from msgspec import UnsetType

from meter.api.simple_query import SimpleQuery
from meter.message import MeteringMessage
from meter.query import Grouping
from meter.query import Statistics
from meter.query import StoredMeter
from meter.query import StoredResource
from meter.query import StoredSample
from meter.sample import utc_text
from meter.signature import SIGNATURE_FIELD

Flatten = Callable[[Mapping[str, Any]], dict[str, str]]
"""Puts metadata on one level: :func:`flattened`."""


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
    timestamp: str
    recorded_at: str | UnsetType
    resource_metadata: dict[str, str]
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
    timestamp: str
    recorded_at: str
    metadata: dict[str, str]
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
    first_sample_timestamp: str
    last_sample_timestamp: str
    metadata: dict[str, str]
    links: list[Link]


class StatisticsRow(msgspec.Struct, kw_only=True):
    """Statistics of one unit, group and window. The standard aggregates are left out when others were asked for."""

    unit: str
    groupby: dict[str, str | None] | None
    period: int
    period_start: str
    period_end: str
    duration: float | None
    duration_start: str | None
    duration_end: str | None
    max: float | UnsetType = UNSET
    min: float | UnsetType = UNSET
    avg: float | UnsetType = UNSET
    sum: float | UnsetType = UNSET
    count: int | UnsetType = UNSET
    aggregate: dict[str, float] | UnsetType = UNSET


def old_sample(row: StoredSample, flat: Flatten | None = None) -> OldSample:
    """Return ``row`` as ``/v2/meters/{meter}`` shows it."""
    return OldSample(
        counter_name=row.name,
        counter_type=row.type,
        counter_unit=row.unit,
        counter_volume=float(row.volume),
        resource_id=row.resource_id,
        project_id=row.project_id,
        user_id=row.user_id,
        source=row.source,
        timestamp=utc_text(row.timestamp),
        recorded_at=utc_text(row.recorded_at),
        resource_metadata=(flat or flattened)(row.metadata),
        message_id=row.message_id,
        message_signature=row.signature or None,
    )


def posted_sample(message: MeteringMessage) -> OldSample:
    """Return ``message``, which a client has just sent, as it is shown to that client."""
    return OldSample(
        counter_name=message.name,
        counter_type=message.type,
        counter_unit=message.unit,
        counter_volume=float(message.volume),
        resource_id=message.resource_id,
        project_id=message.project_id,
        user_id=message.user_id,
        source=message.source,
        timestamp=utc_text(message.timestamp),
        recorded_at=UNSET,
        resource_metadata=flattened(message.metadata),
        message_id=message.message_id,
        message_signature=message.fields[SIGNATURE_FIELD],
    )


def sample(row: StoredSample, flat: Flatten | None = None) -> Sample:
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
        timestamp=utc_text(row.timestamp),
        recorded_at=utc_text(row.recorded_at),
        metadata=(flat or flattened)(row.metadata),
        message_signature=row.signature or None,
    )


@dataclass(frozen=True, slots=True)
class SampleShape:
    """A way to show samples: the record that shows one, and what makes it."""

    record: type[msgspec.Struct]
    render: Callable[[StoredSample, Flatten], msgspec.Struct]

    def rendered(self, rows: Iterable[StoredSample]) -> list[msgspec.Struct]:
        """Return ``rows`` as they are shown."""
        flat = flattening()
        return [self.render(row, flat) for row in rows]


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


def resource(row: StoredResource, base_url: str, meter_links: bool) -> Resource:
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
        first_sample_timestamp=utc_text(row.first_sample),
        last_sample_timestamp=utc_text(row.last_sample),
        metadata=flattened(row.metadata),
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
    values: dict[str, Any] = {"aggregate": numbers} if selected else {**numbers, "count": int(numbers["count"])}
    return StatisticsRow(
        unit=row.unit,
        groupby={group_names[grouping]: value for grouping, value in row.group.items()} or None,
        period=row.period,
        period_start=utc_text(row.period_start),
        period_end=utc_text(row.period_end),
        duration=(end - start).total_seconds() if known else None,
        duration_start=_text_if(known, start),
        duration_end=_text_if(known, end),
        **values,
    )


def _text_if(known: bool, moment: datetime) -> str | None:
    return utc_text(moment) if known else None


def flattened(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return ``metadata`` on one level, all values as Python writes them.

    The names on the way to a value are joined: the first two with a dot, the others with colons, which also take the
    place of further dots within names: ``{"a": {"b": {"c.d": 1}}}`` becomes ``{"a.b:c:d": "1"}``.
    """
    return {name.replace(".", ":").replace(":", ".", 1): str(value) for name, value in _leaves(metadata)}


def flattening() -> Flatten:
    """Return :func:`flattened` for one answer, in which many samples have the same metadata: one and the same object."""
    known: dict[int, tuple[Mapping[str, Any], dict[str, str]]] = {}

    def flat(metadata: Mapping[str, Any]) -> dict[str, str]:
        found = known.get(id(metadata))
        if found is None:
            # Kept beside its answer: as long as it is there, nothing else has its id.
            found = known[id(metadata)] = (metadata, flattened(metadata))
        return found[1]

    return flat


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


# --- what the service says of itself -------------------------------------------------------------------------------


class VersionLink(msgspec.Struct, omit_defaults=True):
    """Where a version is served, or described."""

    rel: str
    href: str
    type: str | None = None


class MediaType(msgspec.Struct):
    """A type that a version is served in."""

    base: str
    type: str


class Version(msgspec.Struct, kw_only=True, rename={"media_types": "media-types"}):
    """A version of the API."""

    id: str
    status: str
    updated: str
    links: list[VersionLink]
    media_types: list[MediaType]


class VersionValues(msgspec.Struct):
    """All versions of the API."""

    values: list[Version]


class Versions(msgspec.Struct):
    """What ``/`` says."""

    versions: VersionValues


def versions(base_url: str) -> Versions:
    """Return the one version there is, served below ``base_url``."""
    v2 = Version(
        id="v2",
        status="stable",
        updated="2013-02-13T00:00:00Z",
        links=[
            VersionLink("self", f"{base_url}/v2"),
            VersionLink("describedby", "http://docs.openstack.org/", "text/html"),
        ],
        media_types=[MediaType("application/json", "application/vnd.openstack.telemetry-v2+json")],
    )
    return Versions(VersionValues([v2]))


class Capabilities(msgspec.Struct):
    """What the API and the store can do."""

    api: dict[str, bool]
    storage: dict[str, bool]
