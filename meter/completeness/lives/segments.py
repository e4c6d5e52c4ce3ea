"""Segments of an instance: how long it was in each state with each flavor, from the samples of its meter ``instance``.

These are the segments of its life (:mod:`meter.completeness.lives.lives`) as Nova's notifications tell it.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from typing import Any
from typing import Protocol

from meter.completeness.lives.kinds import INSTANCE
from meter.completeness.lives.kinds import KINDS
from meter.completeness.lives.kinds import RUNNING
from meter.completeness.lives.life_store import SampleRun
from meter.completeness.lives.lives import life
from meter.completeness.lives.observation import UNKNOWN
from meter.completeness.lives.observations import observation_of_samples

__all__ = ["METER", "RUNNING", "UNKNOWN", "Segment", "seconds_by_state_and_flavor", "segments"]

METER = "instance"
"""The meter whose samples contain state and flavor."""


class InstanceSample(Protocol):
    """A sample of the meter ``instance``: a stored one, or a metering message."""

    @property
    def timestamp(self) -> datetime:
        """The time of the sample, in UTC."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Nova's description of the instance at that time."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A period in one state with one flavor; ``ended`` is ``None`` while it lasts."""

    state: str
    flavor: str
    began: datetime
    ended: datetime | None = None

    def seconds(self, start: datetime, end: datetime) -> float:
        """Return how many seconds of the segment lie between ``start`` and ``end``."""
        last = end if self.ended is None else min(self.ended, end)
        return max(0.0, (last - max(self.began, start)).total_seconds())


def segments(samples: Iterable[InstanceSample]) -> list[Segment]:
    """Return the segments of one instance, oldest first, from its samples in any order, with or without duplicates.

    Polled samples of the same meter are ignored; they have no ``event_type``.
    """
    notified = (observation_of_samples(KINDS[INSTANCE], _run(sample)) for sample in samples)
    lived = life(KINDS[INSTANCE], (each for each in notified if each is not None), datetime.max.replace(tzinfo=UTC))
    return [Segment(each.state, each.flavor or UNKNOWN, each.began, each.ended) for each in lived.segments]


def seconds_by_state_and_flavor(
    found: Iterable[Segment], start: datetime, end: datetime
) -> dict[tuple[str, str], float]:
    """Return the seconds between ``start`` and ``end`` by state and flavor."""
    seconds: dict[tuple[str, str], float] = {}
    for segment in found:
        if within := segment.seconds(start, end):
            key = (segment.state, segment.flavor)
            seconds[key] = seconds.get(key, 0.0) + within
    return seconds


def _run(sample: InstanceSample) -> SampleRun:
    return SampleRun(
        meter=METER,
        resource_id="",
        user_id=None,
        project_id=None,
        source=None,
        interval=0.0,
        first=sample.timestamp,
        last=sample.timestamp,
        volume=getattr(sample, "volume", 1),
        metadata=sample.metadata,
    )
