"""JSON schemas of ``/v2/segments``, and the conversion of lives."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import datetime

import msgspec

from meter.completeness.identities.identity_history import period_at
from meter.completeness.lives.kinds import INSTANCE
from meter.completeness.lives.kinds import KINDS
from meter.completeness.lives.kinds import RUNNING
from meter.completeness.lives.observation import UNKNOWN
from meter.completeness.lives.observation import Contradiction
from meter.completeness.lives.observation import LifeSegment
from meter.completeness.lives.observation import ToldBy
from meter.completeness.lives.resource_lives import ResourceLife
from meter.identity_names import IdentityKey
from meter.identity_names import NamePeriod
from meter.identity_report import IdentityKind
from meter.sample import utc_text

Names = Mapping[IdentityKey, Sequence[NamePeriod]]
EMPTY: Names = {}


class Segment(msgspec.Struct, kw_only=True):
    """A time in one state with one flavor or size and one owner. ``ended`` is null for the present state.

    ``flavor`` and ``running`` are null for other kinds than instances; ``size`` is in the ``unit`` of the resource. ``seconds``
    lie in the period. ``project_name`` and ``user_name`` are those at the end of the segment or of the period, null if unknown. The begin may have been ``began_within`` seconds earlier than ``began``: 0 if the time is exact, null if
    that is unknown; the same for the end. ``began_told_by`` and ``ended_told_by`` say what told these times.
    """

    state: str
    flavor: str | None
    running: bool | None
    size: float | None
    project_id: str | None
    project_name: str | None
    user_id: str | None
    user_name: str | None
    name: str | None
    began: str
    began_told_by: ToldBy
    began_within: float | None
    ended: str | None
    ended_told_by: ToldBy | None
    ended_within: float | None
    seconds: float


class StateSeconds(msgspec.Struct, kw_only=True):
    """The seconds of the period in one state with one flavor or size."""

    state: str
    flavor: str | None
    size: float | None
    running: bool | None
    seconds: float


class SegmentContradiction(msgspec.Struct, kw_only=True):
    """What was told about the existence of the resource and does not stand, and what overruled it."""

    at: str
    told_by: ToldBy
    exists: bool
    overruled_by: ToldBy
    overruled_at: str


class ResourceSegments(msgspec.Struct, kw_only=True):
    """The segments of one resource in the period, and their sums by state and flavor or size.

    Project, user and name are those of the last segment.
    """

    resource_id: str
    kind: str
    unit: str | None
    project_id: str | None
    project_name: str | None
    user_id: str | None
    user_name: str | None
    display_name: str | None
    segments: list[Segment]
    seconds: list[StateSeconds]
    contradictions: list[SegmentContradiction]


def identities_in(found: Iterable[ResourceLife]) -> set[IdentityKey]:
    """Return the projects and users that own segments."""
    owners = {(each.project_id, each.user_id) for life in found for each in life.segments}
    projects = {IdentityKey("project", project) for project, _ in owners if project}
    return projects | {IdentityKey("user", user) for _, user in owners if user}


def resource_segments(
    found: ResourceLife, start: datetime | None, end: datetime, names: Names = EMPTY
) -> ResourceSegments:
    """Return the life of a resource in the period from ``start``, or else from its begin, to ``end``.

    ``names`` are all names of the projects and users, as far as they are known.
    """
    segments = []
    sums: dict[tuple[str, str | None, float | None, bool | None], float] = {}
    for each in found.segments:
        if seconds := each.seconds(each.began if start is None else start, end):
            segment = _segment(each, seconds, found.kind, end, names)
            segments.append(segment)
            key = (segment.state, segment.flavor, segment.size, segment.running)
            sums[key] = sums.get(key, 0.0) + seconds
    last = found.segments[-1]
    return ResourceSegments(
        resource_id=found.resource_id,
        kind=found.kind,
        unit=KINDS[found.kind].unit,
        project_id=last.project_id,
        project_name=_name(names, "project", last.project_id, last, end),
        user_id=last.user_id,
        user_name=_name(names, "user", last.user_id, last, end),
        display_name=last.name,
        segments=segments,
        seconds=[
            StateSeconds(state=state, flavor=flavor, size=size, running=running, seconds=seconds)
            for (state, flavor, size, running), seconds in sums.items()
        ],
        contradictions=[_contradiction(each) for each in found.contradictions],
    )


def _segment(each: LifeSegment, seconds: float, kind: str, end: datetime, names: Names) -> Segment:
    is_instance = kind == INSTANCE
    return Segment(
        state=each.state,
        flavor=(each.flavor or UNKNOWN) if is_instance else None,
        running=each.state in RUNNING if is_instance else None,
        size=each.size,
        project_id=each.project_id,
        project_name=_name(names, "project", each.project_id, each, end),
        user_id=each.user_id,
        user_name=_name(names, "user", each.user_id, each, end),
        name=each.name,
        began=utc_text(each.began),
        began_told_by=each.began_told_by,
        began_within=each.began_within,
        ended=utc_text(each.ended) if each.ended else None,
        ended_told_by=each.ended_told_by,
        ended_within=each.ended_within,
        seconds=seconds,
    )


def _name(names: Names, kind: IdentityKind, id: str | None, segment: LifeSegment, end: datetime) -> str | None:
    """Return what an owner was called at the end of ``segment``, or at ``end`` if that is earlier."""
    if id is None:
        return None
    at = end if segment.ended is None else min(segment.ended, end)
    period = period_at(names.get(IdentityKey(kind, id), ()), at)
    return None if period is None else period.name


def _contradiction(each: Contradiction) -> SegmentContradiction:
    return SegmentContradiction(
        at=utc_text(each.at),
        told_by=each.told_by,
        exists=each.exists,
        overruled_by=each.overruled_by,
        overruled_at=utc_text(each.overruled_at),
    )
