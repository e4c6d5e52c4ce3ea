"""Requests per project, in a round-robin over all projects that may take more than one cycle."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import AsyncIterator
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterable
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults

from meter.http.client import ErrorResponse
from meter.interfaces import ICycle
from meter.interfaces import Unavailable
from meter.openstack import IOpenStack
from meter.openstack.keystone import NOT_FOUND
from meter.pollsters.openstack.pollster import SkippedItems
from meter.pollsters.openstack.services import PROJECT
from meter.pollsters.openstack.table import BadItem
from meter.sample import Sample

SHARE_OF_CYCLE = 0.9
"""The share of a pollster's time in which it sends requests; the rest is for the responses in flight."""


async def all_projects(cycle: ICycle) -> list[str]:
    """Return the sorted ids of all projects; they are listed once per cycle."""
    openstack = cycle.provider(IOpenStack)

    async def list_ids() -> list[str]:
        ids: set[str] = set()
        async for page in openstack.pages(PROJECT.listing):
            ids |= {item["id"] for item in page.items if isinstance(item.get("id"), str) and item["id"]}
        return sorted(ids)

    ids: list[str] = await cycle.cycle_cache(("openstack", "projects"), list_ids)
    return ids


@dataclass(slots=True)
class _Progress:
    """The last project that was requested in time: the next cycle begins after it."""

    last: str = ""


class RoundRobin:
    """Requests data of every project from ``service``: ``concurrency`` projects at a time, some requests for each.

    A cycle of the pollster ``name`` continues after the last project of the previous one. ``seconds_for`` returns how
    many seconds the rate limit of a service needs for a number of requests.
    """

    def __init__(
        self,
        cycle: ICycle,
        name: str,
        service: str,
        seconds_for: Callable[[str, int], float],
        *,
        requests_per_project: int = 1,
        concurrency: int,
    ) -> None:
        self._cycle = cycle
        self._clock = cycle.clock
        self._service = service
        self._seconds_for = seconds_for
        self._requests_per_project = requests_per_project
        self._at_once = concurrency
        self._progress = _Progress() if cycle.trial else cycle.daemon_cache(("openstack", name, "progress"), _Progress)
        self._seconds = math.inf
        if cycle.config is not None:
            available: float = min(cycle.config.central.timeout_seconds, cycle.config.polling.interval_of(name))
            self._seconds = SHARE_OF_CYCLE * available

    async def samples(
        self, fetch: Callable[[str], AsyncIterator[Iterable[Sample]]], skipped: SkippedItems
    ) -> list[Sample]:
        """Return the samples that ``fetch`` yields for each project; failures are added to ``skipped``.

        A project that the service does not know (404) has no samples. Raise :class:`Unavailable` if no project could
        be fetched.
        """
        samples: list[Sample] = []
        failures: list[Unavailable] = []

        async def collect(project_id: str) -> None:
            try:
                async for some in fetch(project_id):
                    samples.extend(some)
            except ErrorResponse as error:
                if error.status != NOT_FOUND:
                    skipped.add(project_id, BadItem("refused", str(error)), project=project_id)
            except Unavailable as error:
                failures.append(error)
                skipped.add(project_id, BadItem("unavailable", str(error)), project=project_id)

        projects = await all_projects(self._cycle)
        left = await self._for_each(projects, collect)
        if failures and not samples:
            raise failures[0]
        for project_id in left:
            skipped.add(project_id, self._why_left(len(projects)), project=project_id)
        return samples

    async def _for_each(self, ids: list[str], call: Callable[[str], Awaitable[None]]) -> list[str]:
        """Call ``call`` with as many of the sorted ``ids`` as the time permits; return the others."""
        end = self._clock.seconds() + self._seconds
        first = bisect_right(ids, self._progress.last)
        order = iter([*ids[first:], *ids[:first]])
        left: list[str] = []

        async def worker() -> None:
            for each in order:
                if self._clock.seconds() >= end:
                    left.append(each)
                    continue
                self._progress.last = each
                await call(each)

        await gatherResults([Deferred.fromCoroutine(worker()) for _ in range(self._at_once)], consumeErrors=True)
        return left

    def _why_left(self, count: int) -> BadItem:
        """Return the reason why some of ``count`` projects were left: the rate limit, or a slow service."""
        needed, available = self._seconds_for(self._service, count * self._requests_per_project), self._seconds
        if needed <= available:
            return BadItem(
                "no-time",
                f"the service did not respond for all {count} projects within {available:.0f} s; this project is first"
                " in the next cycle",
            )
        return BadItem(
            "no-time",
            f"the rate limit of {self._service} needs {needed:.0f} s for {count} projects, a cycle has {available:.0f} s;"
            " this project is first in the next cycle. To poll all in one cycle, set requests_per_second in"
            f" [openstack.by_service.{self._service}] {needed / available:.1f} times as high, or raise the interval and"
            " [central] timeout_seconds",
        )
