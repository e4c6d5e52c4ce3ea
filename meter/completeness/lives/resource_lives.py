"""Reads the lives of resources from a store: those that match a filter and existed in a period, in few statements."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from datetime import datetime
from typing import Protocol
from typing import TypeVar

from twisted.internet.threads import deferToThread

from meter.completeness.lives.kinds import KINDS
from meter.completeness.lives.kinds import ResourceKind
from meter.completeness.lives.kinds import kind_of_meter
from meter.completeness.lives.kinds import meters_of
from meter.completeness.lives.life_store import ListedTime
from meter.completeness.lives.life_store import SampleRun
from meter.completeness.lives.lives import life
from meter.completeness.lives.observation import Contradiction
from meter.completeness.lives.observation import LifeSegment
from meter.completeness.lives.observation import Observation
from meter.completeness.lives.observations import observation_of_samples
from meter.completeness.lives.observations import observations_of_report
from meter.query import And
from meter.query import Comparison
from meter.query import SampleFilter
from meter.resource_owner import describing
from meter.resource_owner import is_submitted

PAGE_RESOURCES = 500
"""Resources whose runs are read with one statement."""


_OfResource = TypeVar("_OfResource", SampleRun, ListedTime)


MANY_RUNS = 2_000
"""Of a resource with more runs the life is computed in a thread."""


class LifeReader(Protocol):
    """The methods of :class:`meter.completeness.lives.life_store.ILifeStore`."""

    async def life_resources(self, filter: SampleFilter, meters: Sequence[str], limit: int) -> Sequence[str]:
        """Return the ids of at most ``limit`` resources, in order."""

    async def life_runs(
        self, resources: Sequence[str], meters: Sequence[str], as_of: datetime | None = None
    ) -> Sequence[SampleRun]:
        """Return the runs of samples of ``resources``."""

    async def life_reports(
        self, resources: Sequence[str], pollsters: Sequence[str], as_of: datetime | None = None
    ) -> Sequence[ListedTime]:
        """Return when agents listed ``resources``."""


class Pausing(Protocol):
    """Work in slices, so that the reactor runs in between: :class:`meter.daemon.services.Slices`, for example."""

    @property
    def over(self) -> bool:
        """Whether it is time to pause."""

    async def pause(self) -> None:
        """Yield to the reactor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceLife:
    """The life of one resource: all its ``segments``, or all that belong to the project of the filter, oldest first."""

    kind: str
    resource_id: str
    segments: Sequence[LifeSegment]
    contradictions: Sequence[Contradiction]

    def seconds(self, start: datetime | None, end: datetime) -> Mapping[tuple[str, str | float | None], float]:
        """Return the seconds between ``start``, or the begin of the life, and ``end``, by state and flavor or size."""
        found: dict[tuple[str, str | float | None], float] = {}
        for each in self.segments:
            if within := each.seconds(each.began if start is None else start, end):
                key = (each.state, each.size if each.flavor is None else each.flavor)
                found[key] = found.get(key, 0.0) + within
        return found


async def lives(
    store: LifeReader,
    filter: SampleFilter,
    start: datetime | None,
    end: datetime,
    *,
    now: datetime | None = None,
    kinds: Iterable[ResourceKind] = tuple(KINDS.values()),
    slices: Pausing | None = None,
) -> AsyncIterator[ResourceLife]:
    """Yield the lives of all resources of ``kinds`` that match ``filter`` and existed between ``start`` and ``end``, by id.

    The filter selects by owner, source and resource id, and ``as_of``. ``now`` is the time until which everything is told, by
    default ``end``. Ten thousand resources take about eighty statements.
    """
    after: str | None = ""
    while after is not None:
        beyond = Comparison("resource_id", ">", after) if after else None
        parts = tuple(each for each in (filter.expression, beyond) if each is not None)
        page, after = await lives_page(
            store,
            replace(filter, expression=And(parts) if parts else None),
            start,
            end,
            now=now or end,
            kinds=kinds,
            limit=PAGE_RESOURCES,
            slices=slices,
        )
        for each in page:
            yield each


async def lives_page(
    store: LifeReader,
    filter: SampleFilter,
    start: datetime | None,
    end: datetime,
    *,
    now: datetime,
    kinds: Iterable[ResourceKind],
    limit: int,
    slices: Pausing | None = None,
) -> tuple[list[ResourceLife], str | None]:
    """Return the lives of the first ``limit`` resources that match ``filter``, as :func:`lives` does, and where to go on.

    The second value is the id after which the next page begins, ``None`` after the last page.
    """
    kinds = tuple(kinds)
    meters = meters_of(kinds)
    names = await store.life_resources(filter, meters, limit + 1)
    resources, project = names[:limit], filter.equals.get("project_id")
    pollsters = tuple(dict.fromkeys(pollster for kind in kinds for pollster in kind.polled))
    runs = _grouped(await _in_parts(resources, lambda part: store.life_runs(part, meters, filter.as_of)))
    listed = _grouped(await _in_parts(resources, lambda part: store.life_reports(part, pollsters, filter.as_of)))
    found: list[ResourceLife] = []
    for resource in resources:
        told = (resource, runs.get(resource, ()), listed.get(resource, ()), kinds, project, now)
        # A domain that starts every minute has tens of thousands of runs in a month: the reactor does not wait for them.
        of_one = await deferToThread(_lives_of, *told) if len(told[1]) > MANY_RUNS else _lives_of(*told)
        for each in of_one:
            if any(segment.seconds(start or segment.began, end) for segment in each.segments):
                found.append(each)
        if slices is not None and slices.over:
            await slices.pause()
    return found, resources[-1] if len(names) > limit else None


async def _in_parts(
    resources: Sequence[str], read: Callable[[Sequence[str]], Awaitable[Sequence[_OfResource]]]
) -> list[_OfResource]:
    rows: list[_OfResource] = []
    for first in range(0, len(resources), PAGE_RESOURCES):
        rows += await read(resources[first : first + PAGE_RESOURCES])
    return rows


def _grouped(rows: Iterable[_OfResource]) -> Mapping[str, Sequence[_OfResource]]:
    found: defaultdict[str, list[_OfResource]] = defaultdict(list)
    for row in rows:
        found[row.resource_id].append(row)
    return found


def _lives_of(
    resource: str,
    runs: Sequence[SampleRun],
    listed: Sequence[ListedTime],
    kinds: Iterable[ResourceKind],
    project: str | None,
    now: datetime,
) -> list[ResourceLife]:
    """Return the life of a resource, or several if samples of several kinds have its id."""
    observations: defaultdict[str, list[Observation]] = defaultdict(list)
    for run in _telling(runs, project):
        kind = kind_of_meter(run.meter)
        if kind is not None and (told := observation_of_samples(kind, run)) is not None:
            observations[kind.name].append(told)
    found = []
    for kind in kinds:
        told_by_samples = observations.get(kind.name)
        if not told_by_samples:
            continue  # cycle reports do not say which kind a resource is of
        of_kind = _without_changes([each for each in listed if each.pollster in kind.polled])
        reports = [told for each in of_kind for told in observations_of_report(each)]
        lived = life(kind, [*told_by_samples, *reports], now)
        segments = [each for each in lived.segments if project is None or each.project_id == project]
        if segments:
            found.append(
                ResourceLife(
                    kind=kind.name,
                    resource_id=resource,
                    segments=segments,
                    # What was told after the resource passed to another project is not for the former one.
                    contradictions=lived.contradictions if segments[-1] == lived.segments[-1] else (),
                )
            )
    return found


def _without_changes(listed: Sequence[ListedTime]) -> Iterable[ListedTime]:
    """Yield ``listed`` without the ends at which the same agent goes on to list the resource, with other meters or another owner."""
    for each in listed:
        gone = each.gone
        if gone is not None and any(
            other.agent == each.agent and other.first <= gone <= other.last for other in listed
        ):
            yield replace(each, gone=None)
        else:
            yield each


def _telling(runs: Sequence[SampleRun], project: str | None) -> Sequence[SampleRun]:
    """Return the runs that tell about the life of their resource, to an administrator or to a client of ``project``.

    What clients submit neither changes nor ends what agents measure. A resource that was measured for ``project`` is known
    to it until its end, whoever owns it then; of any other resource a project sees what is its own.
    """
    measured = [run for run in runs if not is_submitted(run)]
    if project is None:
        return describing(runs, runs[0].project_id if runs else None)
    if any(run.project_id == project for run in measured):
        return measured
    return [run for run in runs if run.project_id == project]
