"""What the lives of resources are computed from, as a store returns it: runs of samples, and what cycle reports listed."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from datetime import datetime
from datetime import timedelta
from typing import Any

from zope.interface import Interface

from meter.query import SampleFilter

UNKNOWN_AFTER_INTERVALS = 3
"""After this many polling intervals without an observation the state is unknown. ``integral`` carries a volume as long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRun:
    """Consecutive samples of one series with the same metadata and the same volume: at ``first``, at ``last``, and between.

    ``interval`` is the polling interval in seconds, 0 for samples that were not polled. ``metadata`` may be shared: do not
    mutate it.
    """

    meter: str
    resource_id: str
    user_id: str | None
    project_id: str | None
    source: str | None
    interval: float
    first: datetime
    last: datetime
    volume: float
    metadata: Mapping[str, Any]


def is_after_silence(last: datetime, first: datetime, interval: float) -> bool:
    """Return whether a sample at ``first`` begins a run of its own after one at ``last``, as polls every ``interval`` s were silent."""
    return first - last > timedelta(seconds=UNKNOWN_AFTER_INTERVALS * interval)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedTime:
    """A time in which an agent listed a resource in its cycle reports, without silence of the agent, nor polls that failed for long.

    ``first`` and ``last`` are the due times of the first and the last cycle that measured it. ``gone`` is that of the first
    cycle that did not, if a second such cycle followed; else ``None``: it lasts, or the agent is silent. ``unlisted_seconds``: so
    long before ``first`` the agent had a cycle without the resource; ``None`` if it had none, and the resource may have
    existed before. After a silence of the agent they are the seconds since the last cycle before it, which listed the resource.
    """

    agent: str
    host: str
    pollster: str
    resource_id: str
    project_id: str | None
    interval: float
    first: datetime
    last: datetime
    gone: datetime | None
    unlisted_seconds: float | None

    def without(self, silences: Iterable[tuple[datetime, datetime]]) -> list[ListedTime]:
        """Return the pieces of this time that ``silences`` leave, oldest first.

        Each silence is the due times of the last cycle before it and of the first one after it; they are in order of time. It may
        last longer than this time.
        """
        pieces, rest = [], self
        for last_heard, heard_again in silences:
            before = max(last_heard, rest.first)
            if rest.first < heard_again <= rest.last:
                pieces.append(replace(rest, last=before, gone=None))
                rest = replace(rest, first=heard_again, unlisted_seconds=(heard_again - before).total_seconds())
            elif before < rest.last < heard_again:
                rest = replace(rest, last=before)
        return [*pieces, rest]


class ILifeStore(Interface):
    """The queries from which lives are computed: a few statements for a page of resources, however many samples they have.

    They raise what the methods of :class:`meter.interfaces.IStore` raise.
    """

    async def life_resources(filter: SampleFilter, meters: Sequence[str], limit: int) -> Sequence[str]:
        """Return the ids of at most ``limit`` resources with samples of one of ``meters`` that match ``filter``, in order.

        Of the filter, only conditions on the owner, the source and the id of the resource are allowed.
        """

    async def life_runs(
        resources: Sequence[str], meters: Sequence[str], as_of: datetime | None = None
    ) -> Sequence[SampleRun]:
        """Return all samples of ``meters`` of ``resources``, whoever owns them, as runs, oldest first.

        ``as_of`` excludes samples that were recorded later.
        """

    async def life_reports(
        resources: Sequence[str], pollsters: Sequence[str], as_of: datetime | None = None
    ) -> Sequence[ListedTime]:
        """Return when agents listed ``resources`` for one of ``pollsters``, until ``as_of``."""
