"""JSON schemas of ``/v2/segments``, and the conversion of instance times."""

from __future__ import annotations

from datetime import datetime

import msgspec

from meter.completeness.instance_times import InstanceTime
from meter.completeness.segments import RUNNING
from meter.sample import utc_text


class Segment(msgspec.Struct, kw_only=True):
    """A time in one state with one flavor. ``ended`` is null for the present state; ``seconds`` lie in the period."""

    state: str
    flavor: str
    running: bool
    began: str
    ended: str | None
    seconds: float


class StateSeconds(msgspec.Struct, kw_only=True):
    """The seconds of the period in one state with one flavor."""

    state: str
    flavor: str
    running: bool
    seconds: float


class InstanceSegments(msgspec.Struct, kw_only=True):
    """The segments of one instance in the period, and their sums by state and flavor."""

    resource_id: str
    project_id: str | None
    user_id: str | None
    display_name: str | None
    segments: list[Segment]
    seconds: list[StateSeconds]


def instance_segments(instance: InstanceTime, start: datetime | None, end: datetime) -> InstanceSegments:
    """Return ``instance`` in the period from ``start``, or else from its first segment, to ``end``."""
    segments = []
    for each in instance.segments:
        seconds = each.seconds(each.began if start is None else start, end)
        if seconds:
            segments.append(
                Segment(
                    state=each.state,
                    flavor=each.flavor,
                    running=each.state in RUNNING,
                    began=utc_text(each.began),
                    ended=utc_text(each.ended) if each.ended else None,
                    seconds=seconds,
                )
            )
    return InstanceSegments(
        resource_id=instance.resource_id,
        project_id=instance.project_id,
        user_id=instance.user_id,
        display_name=instance.display_name,
        segments=segments,
        seconds=[
            StateSeconds(state=state, flavor=flavor, running=state in RUNNING, seconds=seconds)
            for (state, flavor), seconds in instance.seconds.items()
        ],
    )
