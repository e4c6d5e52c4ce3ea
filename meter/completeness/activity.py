"""What happens now: how many samples are stored, how long after their measurement, and how many resources exist, by kind and state.

These questions are cheap on a store of any size: they read the newest samples only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from zope.interface import Interface

from meter.completeness.lives.kinds import ResourceKind

MAX_SERIES_SAMPLES = 100
"""Of a project, the newest samples of each series are read, this many at most: those of one series that was late can be missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingLag:
    """How long after their measurement samples of a source were stored, in seconds; negative where a clock is ahead."""

    source: str | None
    samples: int
    median: float
    p95: float
    longest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """Samples that were stored lately. ``since``: those stored from then on were counted.

    ``counts`` are numbers by the time in which the samples were stored, each with the begin of its time, oldest first;
    times without samples are left out. ``lags`` are by source, in order.
    """

    since: datetime
    counts: Sequence[tuple[datetime, int]] = ()
    lags: Sequence[RecordingLag] = ()

    @property
    def samples(self) -> int:
        """How many samples were counted."""
        return sum(count for _, count in self.counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceCount:
    """The number of existing resources of a kind in a state, which is ``None`` where their samples state none."""

    kind: str
    state: str | None
    resources: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceCounts:
    """The existing resources by kind and state, those of most resources first, and how many projects have one.

    ``complete``: whether all series were read; else the numbers are lower limits.
    """

    counts: Sequence[ResourceCount] = ()
    projects: int = 0
    complete: bool = True


class IActivity(Interface):
    """The questions to a store about the present. They raise what the methods of :class:`meter.interfaces.IStore` raise."""

    async def arrivals(project_id: str | None, since: datetime, seconds: int, limit: int) -> Arrivals:
        """Return what was stored at ``since`` or later, of a project or of all; of more than ``limit`` samples the newest.

        They are counted by times of ``seconds``. Of a project, see :data:`MAX_SERIES_SAMPLES`.
        """

    async def resource_counts(
        project_id: str | None, kinds: Sequence[ResourceKind], since: datetime, limit: int
    ) -> ResourceCounts:
        """Return how many resources of ``kinds`` have a sample at ``since`` or later, by the state that the newest one states.

        Resources that this sample says do not exist any more do not count. At most ``limit`` series are read.
        """
