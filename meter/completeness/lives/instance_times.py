"""Reads segments of instances from a store: those of one instance, or of all instances of a project, in a period."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from meter.completeness.lives.kinds import INSTANCE
from meter.completeness.lives.kinds import KINDS
from meter.completeness.lives.observation import UNKNOWN
from meter.completeness.lives.resource_lives import LifeReader
from meter.completeness.lives.resource_lives import ResourceLife
from meter.completeness.lives.resource_lives import lives
from meter.completeness.lives.resource_lives import lives_page
from meter.completeness.lives.segments import Segment
from meter.completeness.lives.segments import seconds_by_state_and_flavor
from meter.query import SampleFilter
from meter.sample import utc_text

INSTANCES = (KINDS[INSTANCE],)


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
    store: LifeReader, filter: SampleFilter, start: datetime | None, end: datetime, limit: int
) -> tuple[list[InstanceTime], str | None]:
    """Return the times between ``start`` and ``end`` of the first ``limit`` instances that match ``filter``, by id.

    Instances that did not exist in the period are omitted. The second value is the id after which the next page begins,
    ``None`` after the last page. Samples from after the period are used too: an audit may report late what happened in it.
    """
    page, after = await lives_page(store, filter, start, end, now=end, kinds=INSTANCES, limit=limit)
    return [_instance_time(each, start, end) for each in page], after


def _instance_time(found: ResourceLife, start: datetime | None, end: datetime) -> InstanceTime:
    segments = [Segment(each.state, each.flavor or UNKNOWN, each.began, each.ended) for each in found.segments]
    last = found.segments[-1]
    return InstanceTime(
        resource_id=found.resource_id,
        project_id=last.project_id,
        user_id=last.user_id,
        display_name=last.name,
        segments=segments,
        seconds=seconds_by_state_and_flavor(segments, start or segments[0].began, end),
    )


async def instance_segments(store: LifeReader, instance: str, start: datetime | None, end: datetime) -> dict[str, Any]:
    """Return the segments of an instance and its seconds between ``start`` and ``end``, as a JSON object.

    Without ``start``, the period begins with the instance.
    """
    filter = SampleFilter(equals={"resource_id": instance})
    page = [each async for each in lives(store, filter, None, end, kinds=INSTANCES)]
    found = [segment for each in page for segment in _instance_time(each, None, end).segments]
    seconds = seconds_by_state_and_flavor(found, start or min((each.began for each in found), default=end), end)
    return {"instance": instance, "segments": _segments_json(found), "seconds": _seconds_json(seconds)}


async def project_segments(store: LifeReader, project: str, start: datetime | None, end: datetime) -> dict[str, Any]:
    """Return the seconds of all instances of a project, including deleted ones, and their sums, as a JSON object."""
    instances: list[dict[str, Any]] = []
    sums: dict[tuple[str, str], float] = {}
    filter = SampleFilter(equals={"project_id": project})
    async for found in lives(store, filter, start, end, kinds=INSTANCES):
        each = _instance_time(found, start, end)
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
