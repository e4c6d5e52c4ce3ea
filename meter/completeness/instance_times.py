"""Reads segments from a store: those of one instance, or of all instances of a project, in a period."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from datetime import datetime
from typing import Any
from typing import Protocol

from meter.completeness.segments import METER
from meter.completeness.segments import Segment
from meter.completeness.segments import seconds_by_state_and_flavor
from meter.completeness.segments import segments
from meter.query import And
from meter.query import Comparison
from meter.query import Marker
from meter.query import Order
from meter.query import SampleFilter
from meter.query import StoredResource
from meter.query import StoredSample
from meter.resource_owner import describing
from meter.resource_owner import is_submitted
from meter.sample import utc_text

PAGE_SAMPLES = 1_000
"""Maximum number of samples per query."""

NOTIFIED = Comparison("metadata.event_type", "~", "^compute[.]instance[.]")
"""Selects the samples made from Nova's notifications; polled samples have no ``event_type``."""


class SampleReader(Protocol):
    """The methods of a store that are used here."""

    async def samples(
        self, filter: SampleFilter, limit: int, order: Sequence[Order] = (), after: Marker | None = None
    ) -> Sequence[StoredSample]:
        """Return at most ``limit`` matching samples, newest first."""

    async def resources(self, filter: SampleFilter, limit: int) -> Sequence[StoredResource]:
        """Return at most ``limit`` resources, by id."""


@dataclass(frozen=True, slots=True)
class InstanceTime:
    """The time of one instance in a period: ``seconds`` by state and flavor within the period, and its complete ``segments``."""

    resource_id: str
    project_id: str | None
    user_id: str | None
    display_name: str | None
    segments: Sequence[Segment]
    seconds: Mapping[tuple[str, str], float]


async def instance_times(
    store: SampleReader, filter: SampleFilter, start: datetime | None, end: datetime, limit: int
) -> tuple[list[InstanceTime], str | None]:
    """Return the times between ``start`` and ``end`` of the first ``limit`` instances that match ``filter``, by id.

    Instances that did not exist in the period are omitted. The second value is the id after which the next page begins,
    ``None`` after the last page. Samples from after the period are used too: an audit may report late what happened in it.
    """
    wanted = replace(filter, equals={**filter.equals, "meter": METER})
    found = await store.resources(wanted, limit + 1)
    times = []
    for resource in found[:limit]:
        found_samples = await _samples(
            store, replace(wanted, equals={**wanted.equals, "resource_id": resource.resource_id})
        )
        # What a client of another project submitted about the instance neither ends nor changes it.
        samples = [
            sample for sample in found_samples if sample.project_id == resource.project_id or not is_submitted(sample)
        ]
        found_segments = segments(samples)
        first = start if start is not None else min((each.began for each in found_segments), default=end)
        seconds = seconds_by_state_and_flavor(found_segments, first, end)
        if seconds:
            newest = max(samples, key=lambda sample: sample.timestamp)
            name = newest.metadata.get("display_name")
            times.append(
                InstanceTime(
                    resource_id=resource.resource_id,
                    project_id=newest.project_id,
                    user_id=newest.user_id,
                    display_name=name if isinstance(name, str) else None,
                    segments=found_segments,
                    seconds=seconds,
                )
            )
    return times, found[limit - 1].resource_id if len(found) > limit else None


async def _samples(store: SampleReader, filter: SampleFilter) -> list[StoredSample]:
    parts = (filter.expression, NOTIFIED) if filter.expression else (NOTIFIED,)
    wanted = replace(filter, expression=And(parts))
    samples: list[StoredSample] = []
    page = await store.samples(wanted, PAGE_SAMPLES)
    while page:
        samples += page
        if len(page) < PAGE_SAMPLES:
            break
        page = await store.samples(wanted, PAGE_SAMPLES, after=Marker(page[-1].timestamp, page[-1].message_id))
    return samples


async def instance_segments(
    store: SampleReader, instance: str, start: datetime | None, end: datetime
) -> dict[str, Any]:
    """Return the segments of an instance and its seconds between ``start`` and ``end``, as a JSON object.

    Without ``start``, the period begins with the instance.
    """
    samples = await _samples(store, SampleFilter(equals={"meter": METER, "resource_id": instance}))
    first = min(samples, key=lambda sample: sample.recorded_at, default=None)
    found = segments(describing(samples, first.project_id if first else None))
    seconds = seconds_by_state_and_flavor(found, start or min((each.began for each in found), default=end), end)
    return {"instance": instance, "segments": _segments_json(found), "seconds": _seconds_json(seconds)}


async def project_segments(
    store: SampleReader, project: str, start: datetime | None, end: datetime, page: int = 100
) -> dict[str, Any]:
    """Return the seconds of all instances of a project, including deleted ones, and their sums, as a JSON object."""
    instances: list[dict[str, Any]] = []
    sums: dict[tuple[str, str], float] = {}
    after: str | None = ""
    while after is not None:
        beyond = Comparison("resource_id", ">", after) if after else None
        filter = SampleFilter(equals={"project_id": project}, expression=beyond)
        times, after = await instance_times(store, filter, start, end, page)
        for each in times:
            instances += [{"instance": each.resource_id, **row} for row in _seconds_json(each.seconds)]
            for key, spent in each.seconds.items():
                sums[key] = sums.get(key, 0.0) + spent
    return {"project": project, "instances": instances, "seconds": _seconds_json(sums)}


def _segments_json(found: Sequence[Segment]) -> list[dict[str, Any]]:
    return [
        {
            "state": each.state,
            "flavor": each.flavor,
            "began": utc_text(each.began),
            "ended": utc_text(each.ended) if each.ended else None,
        }
        for each in found
    ]


def _seconds_json(seconds: Mapping[tuple[str, str], float]) -> list[dict[str, Any]]:
    return [{"state": state, "flavor": flavor, "seconds": spent} for (state, flavor), spent in seconds.items()]
