"""The time of instances from a store: the segments of one instance, or of all instances of a project in a period."""

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
from meter.sample import utc_text

PAGE_SAMPLES = 1_000
"""Samples that are read at once."""

FROM_NOVA = Comparison("metadata.event_type", "~", "^compute[.]instance[.]")
"""Of the samples of the meter those that Nova's notifications made; what hypervisors say names no event."""


class Readable(Protocol):
    """The part of a store that is read here."""

    async def samples(
        self, filter: SampleFilter, limit: int, order: Sequence[Order] = (), after: Marker | None = None
    ) -> Sequence[StoredSample]:
        """Return at most ``limit`` matching samples, newest first."""

    async def resources(self, filter: SampleFilter, limit: int) -> Sequence[StoredResource]:
        """Return at most ``limit`` resources, by id."""


@dataclass(frozen=True, slots=True)
class InstanceTime:
    """How one instance spent a period; ``seconds`` by state and flavor lie within it, ``segments`` are whole."""

    resource_id: str
    project_id: str | None
    user_id: str | None
    display_name: str | None
    segments: Sequence[Segment]
    seconds: Mapping[tuple[str, str], float]


async def instance_times(
    store: Readable, filter: SampleFilter, start: datetime | None, end: datetime, limit: int
) -> tuple[list[InstanceTime], str | None]:
    """Return the times between ``start`` and ``end`` of the first ``limit`` instances of ``filter``, by id.

    An instance that did not exist then is left out. The second value is the id after which there are more instances,
    ``None`` where there are none. Samples from after the period count: audits tell late what happened in it.
    """
    wanted = replace(filter, equals={**filter.equals, "meter": METER})
    found = await store.resources(wanted, limit + 1)
    times = []
    for resource in found[:limit]:
        samples = await _samples(store, replace(wanted, equals={**wanted.equals, "resource_id": resource.resource_id}))
        lived = segments(samples)
        first = start if start is not None else min((each.began for each in lived), default=end)
        seconds = seconds_by_state_and_flavor(lived, first, end)
        if seconds:
            newest = max(samples, key=lambda sample: sample.timestamp)
            name = newest.metadata.get("display_name")
            times.append(
                InstanceTime(
                    resource_id=resource.resource_id,
                    project_id=newest.project_id,
                    user_id=newest.user_id,
                    display_name=name if isinstance(name, str) else None,
                    segments=lived,
                    seconds=seconds,
                )
            )
    return times, found[limit - 1].resource_id if len(found) > limit else None


async def _samples(store: Readable, filter: SampleFilter) -> list[StoredSample]:
    parts = (filter.expression, FROM_NOVA) if filter.expression else (FROM_NOVA,)
    wanted = replace(filter, expression=And(parts))
    samples: list[StoredSample] = []
    page = await store.samples(wanted, PAGE_SAMPLES)
    while page:
        samples += page
        if len(page) < PAGE_SAMPLES:
            break
        page = await store.samples(wanted, PAGE_SAMPLES, after=Marker(page[-1].timestamp, page[-1].message_id))
    return samples


async def told_segments(store: Readable, instance: str, start: datetime | None, end: datetime) -> dict[str, Any]:
    """Return, as JSON has it, the segments of an instance in ``store`` and its seconds between ``start`` and ``end``.

    Without ``start`` all of its time until ``end`` counts.
    """
    found = segments(await _samples(store, SampleFilter(equals={"meter": METER, "resource_id": instance})))
    seconds = seconds_by_state_and_flavor(found, start or min((each.began for each in found), default=end), end)
    return {"instance": instance, "segments": _segments_json(found), "seconds": _seconds_json(seconds)}


async def project_segments(
    store: Readable, project: str, start: datetime | None, end: datetime, page: int = 100
) -> dict[str, Any]:
    """Return, as JSON has it, the seconds of all instances of a project, deleted ones too, and their sums."""
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
