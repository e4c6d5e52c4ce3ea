"""Measured series: of what a pollster makes samples, cycle by cycle, as a cycle report states it.

A *series* is a meter of a resource of a project. While the samples of a poll pass by, one dictionary operation per sample is
done; everything else is done once per resource, at the end of the poll.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

import msgspec
from twisted.internet.interfaces import IReactorTime

from meter.cycle_report import SeriesGroup
from meter.daemon.services import Slices
from meter.sample import Sample

ResourceKey = tuple[str | None, str]
"""Project and resource."""

Meters = tuple[str, ...]
"""Names of meters, sorted: equal ones are the same object, as long as few lists are in use."""


RESOURCES_PER_SLICE = 500


class MeasuredSeries:
    """What one poll measures.

    ``times`` has the time of the sample by meter, by resource. ``repeated`` has further samples of the same series, as of a
    counter whose run has just begun: their time, resource and meter. The latest sample of a series is that of the cycle.
    """

    def __init__(self) -> None:
        self.times: dict[ResourceKey, dict[str, datetime]] = {}
        self.repeated: list[tuple[datetime, ResourceKey, str]] = []

    def add(self, samples: Iterable[Sample]) -> None:
        """Take samples that the pollster has made."""
        times = self.times
        for sample in samples:
            key = (sample.project_id, sample.resource_id)
            of_resource = times.get(key)
            if of_resource is None:
                times[key] = {sample.name: sample.timestamp}
                continue
            at = sample.timestamp
            known = of_resource.setdefault(sample.name, at)
            if known is not at:  # two samples with one and the same time are one in a report
                earlier, of_resource[sample.name] = sorted((known, at))
                self.repeated.append((earlier, key, sample.name))

    def repeated_groups(self) -> dict[datetime, tuple[SeriesGroup, ...]]:
        """Return the groups of the repeated series by the time of their samples."""
        return _groups_by_time(self.repeated)

    def groups_by_time(self) -> dict[datetime, tuple[SeriesGroup, ...]]:
        """Return the groups of all series by the time of their samples."""
        single = ((at, key, meter) for key, times in self.times.items() for meter, at in times.items())
        return _groups_by_time([*single, *self.repeated])


class Missing(NamedTuple):
    """What a poll says about series that it did not measure; see :class:`meter.skipped_samples.ISkippedSamples`.

    ``resources`` and ``projects`` map the ids of those that may still exist to the reason why they were skipped, ``ended`` those
    of resources that have ended to the reason. ``unknown``, if not empty, is why resources of unknown id were skipped.
    """

    resources: Mapping[str, str] = {}
    projects: Mapping[str, str] = {}
    ended: Mapping[str, str] = {}
    unknown: str = ""


class Changes(NamedTuple):
    """How the series of a pollster differ from those of its poll before. ``skipped`` has resources by reason.

    A resource of which other meters are measured than before is removed with all that it had, and added with all that it has.
    """

    added: tuple[SeriesGroup, ...] = ()
    removed: tuple[SeriesGroup, ...] = ()
    skipped: Mapping[str, tuple[str, ...]] = {}

    @property
    def any(self) -> bool:
        """Whether series were added or removed."""
        return bool(self.added or self.removed)


class KnownSeries:
    """The series that samples of a pollster are expected of.

    ``known``: whether they are all that a successful poll has measured, in this life of the process or, restored, the one before.
    """

    def __init__(self, restored: Iterable[SeriesGroup] | None = None) -> None:
        self.known = restored is not None
        self._meters: dict[ResourceKey, Meters] = {}
        for group in restored or ():
            for resource in group.resources:
                key = (group.project, resource)
                self._meters[key] = _sorted((*self._meters.get(key, ()), *group.meters))
        self._restored = set(self._meters)

    def __len__(self) -> int:
        return len(self._meters)

    def groups(self) -> tuple[SeriesGroup, ...]:
        """Return all series."""
        return _groups(((*key, ""), meters) for key, meters in self._meters.items())

    async def update(
        self, measured: MeasuredSeries, missing: Missing, clock: IReactorTime, *, successful: bool
    ) -> Changes:
        """Take what a poll has measured; return the changes. A poll that was not ``successful`` removes nothing."""
        slices = Slices(clock)
        now: dict[ResourceKey, Meters] = {}
        for some in _chunks(measured.times):
            now |= {key: _sorted(tuple(measured.times[key])) for key in some}
            if slices.over:
                await slices.pause()
        before = self._meters
        if successful and now == before:
            self._restored.clear()
            self.known = self.known or not missing.unknown
            return Changes()
        self._restored.difference_update(now)
        skipped: dict[str, set[str]] = {}
        for some in _chunks(before):
            for key in some:
                old, meters = before[key], now.get(key, ())
                if old is not meters and (lost := [each for each in old if each not in meters]):
                    reason = self._why_skipped(key, missing)
                    if reason:
                        skipped.setdefault(reason, set()).add(key[1])
                    if reason or not successful:
                        now[key] = _sorted((*meters, *lost))
            if slices.over:
                await slices.pause()
        added: dict[tuple[str | None, str, str], Meters] = {}
        removed: dict[tuple[str | None, str, str], Meters] = {}
        for some in _chunks({**before, **now}):
            for key in some:
                was, becomes = before.get(key), now.get(key)
                if was is not becomes and was != becomes:
                    if was is not None:
                        removed[*key, missing.ended.get(key[1], "")] = was
                    if becomes is not None:
                        added[*key, ""] = becomes
            if slices.over:
                await slices.pause()
        self._meters = now
        self._restored.intersection_update(now)
        self.known = self.known or (successful and not missing.unknown)
        return Changes(
            _groups(added.items()),
            _groups(removed.items()),
            {reason: tuple(sorted(resources)) for reason, resources in sorted(skipped.items())},
        )

    def _why_skipped(self, key: ResourceKey, missing: Missing) -> str:
        """Return why nothing was measured of a resource that may still exist, ``""`` if it has ended."""
        project, resource = key
        if reason := missing.resources.get(resource) or missing.projects.get(project or ""):
            return reason
        return missing.unknown if key in self._restored else ""


def _chunks(keys: Iterable[ResourceKey]) -> Iterator[list[ResourceKey]]:
    """Yield ``keys`` in lists, after each of which the reactor may run: to ask after each key takes longer than the key."""
    rest = iter(list(keys))
    while some := list(itertools.islice(rest, RESOURCES_PER_SLICE)):
        yield some


def encoded_groups(groups: Collection[SeriesGroup]) -> bytes:
    """Return groups as JSON."""
    return msgspec.json.encode(groups)


def decoded_groups(text: bytes) -> tuple[SeriesGroup, ...] | None:
    """Return groups from JSON; ``None`` for anything else."""
    try:
        return msgspec.json.decode(text, type=tuple[SeriesGroup, ...])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


@functools.lru_cache(maxsize=4096)
def _sorted(meters: Meters) -> Meters:
    return _same_object(tuple(sorted(set(meters))))


@functools.lru_cache(maxsize=4096)
def _same_object(meters: Meters) -> Meters:
    return meters


def _groups(series: Iterable[tuple[tuple[str | None, str, str], Meters]]) -> tuple[SeriesGroup, ...]:
    """Return the groups of ``series``: project, resource, reason, and meters."""
    resources: dict[tuple[str | None, Meters, str], list[str]] = {}
    for (project, resource, reason), meters in series:
        resources.setdefault((project, meters, reason), []).append(resource)
    return tuple(
        SeriesGroup(meters, tuple(sorted(of_group)), project, reason)
        for (project, meters, reason), of_group in sorted(
            resources.items(), key=lambda each: (each[0][0] or "", each[0][1], each[0][2])
        )
    )


def _groups_by_time(
    series: Iterable[tuple[datetime, ResourceKey, str]],
) -> dict[datetime, tuple[SeriesGroup, ...]]:
    meters: dict[datetime, dict[ResourceKey, Counter[str]]] = {}
    for at, key, meter in series:
        meters.setdefault(at, {}).setdefault(key, Counter())[meter] += 1
    return {
        at: tuple(_groups(((*key, ""), _sorted(tuple(of_resource))) for key, of_resource in by_key.items()))
        for at, by_key in sorted(meters.items())
    }


def parts_of(groups: tuple[SeriesGroup, ...], most: int) -> Iterator[tuple[SeriesGroup, ...]]:
    """Yield ``groups`` in parts of at most about ``most`` bytes of JSON; at least one part, which may be empty."""
    part: list[SeriesGroup] = []
    size = 0
    for group in groups:
        fixed = 100 + sum(len(meter.encode()) + 3 for meter in group.meters)
        resources: list[str] = []
        size += fixed
        for resource in group.resources:
            length = len(resource.encode("utf-8", "replace")) + 5
            if size + length > most and (part or resources):
                if resources:
                    part.append(msgspec.structs.replace(group, resources=tuple(resources)))
                yield tuple(part)
                part, resources, size = [], [], fixed
            resources.append(resource)
            size += length
        part.append(msgspec.structs.replace(group, resources=tuple(resources)))
    yield tuple(part)
