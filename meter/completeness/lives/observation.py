"""Records of the lives of resources: observations of any origin, and the segments that are computed from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from datetime import timedelta
from typing import Literal
from typing import NamedTuple

ToldBy = Literal["event", "poll", "audit", "report", "silence"]
"""*event*: a notification, or an event of libvirt. *poll*: a polled sample. *audit*: a notification ``*.exists``. *report*: what a
cycle report lists or no longer lists. *silence*: nothing was told for longer than three polling intervals."""

UNKNOWN = "unknown"
"""The state while nothing tells it."""

MAX_AUDIT = timedelta(hours=1)
"""An audit is sent at most this long after the end of its period, and contains the state at the time of sending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """A resource existed (``exists``), or did not, at the time ``at`` and at each poll until ``until``.

    ``None`` for ``state``, ``flavor``, ``size``, ``project_id``, ``user_id`` and ``name``: not told. ``since``: the state and
    flavor have lasted since then. ``created_at``: the resource has existed since then. ``notified``: a notification of the service
    that owns the resource. ``interval``: the polling interval in seconds, 0 if nobody polls. ``teller`` is the host that was
    read, if hosts are read. ``uncertainty``: how many seconds before ``at`` it may have become so; ``None`` if that is
    unknown, or follows from the observation before.
    """

    at: datetime
    exists: bool
    told_by: ToldBy
    until: datetime | None = None
    state: str | None = None
    flavor: str | None = None
    size: float | None = None
    project_id: str | None = None
    user_id: str | None = None
    name: str | None = None
    since: datetime | None = None
    created_at: datetime | None = None
    notified: bool = False
    interval: float = 0.0
    teller: str = ""
    uncertainty: float | None = None

    @property
    def last(self) -> datetime:
        """The last time at which this was observed."""
        return self.at if self.until is None else max(self.at, self.until)

    @property
    def content_order(self) -> tuple[object, ...]:
        """A key that orders observations with the same time by what they tell, so that the order of arrival does not matter."""
        texts = [
            text or "" for text in (self.state, self.flavor, self.project_id, self.user_id, self.name, self.teller)
        ]
        times = [(time is not None, time or self.at) for time in (self.since, self.created_at)]
        uncertainty = self.uncertainty is not None, self.uncertainty or 0.0
        size = self.size is not None, self.size or 0.0
        return *size, *texts, self.exists, self.notified, self.interval, *uncertainty, *times


@dataclass(frozen=True, slots=True, kw_only=True)
class LifeSegment:
    """A period with one state, flavor or size, and project; ``ended`` is ``None`` while it lasts.

    ``began_within`` and ``ended_within`` are seconds: the change may have been so long before the time, 0 if that is exact,
    ``None`` if it is unknown. ``name`` and ``user_id`` are the last ones told in the period.
    """

    state: str
    flavor: str | None
    size: float | None
    project_id: str | None
    user_id: str | None
    name: str | None
    began: datetime
    began_told_by: ToldBy
    began_within: float | None
    ended: datetime | None = None
    ended_told_by: ToldBy | None = None
    ended_within: float | None = None

    def seconds(self, start: datetime, end: datetime) -> float:
        """Return how many seconds of the segment lie between ``start`` and ``end``."""
        last = end if self.ended is None else min(self.ended, end)
        return max(0.0, (last - max(self.began, start)).total_seconds())


@dataclass(frozen=True, slots=True)
class Contradiction:
    """What was told and does not stand: at ``at``, ``told_by`` said that the resource existed, or not; ``overruled_by`` stands."""

    at: datetime
    told_by: ToldBy
    exists: bool
    overruled_by: ToldBy
    overruled_at: datetime


@dataclass(frozen=True, slots=True)
class Life:
    """The segments of one resource, oldest first, and what contradicts them. A plain domain may live more than once."""

    segments: Sequence[LifeSegment]
    contradictions: Sequence[Contradiction] = ()


class Ending(NamedTuple):
    """An end of existence: from ``at`` on; a later life resumes at ``resumes``."""

    at: datetime
    observation: Observation
    resumes: datetime | None


RANK: dict[ToldBy, int] = {"report": 0, "audit": 1, "poll": 2, "event": 3, "silence": 4}
"""Of observations with the same time those with a higher rank come later."""
