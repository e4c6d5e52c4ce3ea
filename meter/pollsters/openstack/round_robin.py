"""Asking about every project, one question or more for each, in rounds that may take more than one cycle."""

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

from meter.http.exchange import ErrorResponse
from meter.interfaces import ICycle
from meter.interfaces import Unavailable
from meter.openstack import IOpenStack
from meter.openstack.keystone import NOT_FOUND
from meter.pollsters.openstack.pollster import Omitted
from meter.pollsters.openstack.services import PROJECT
from meter.pollsters.openstack.table import BadItem
from meter.sample import Sample

SHARE_OF_CYCLE = 0.9
"""How much of its time a pollster asks for: what is out then still has time to be answered."""


async def all_projects(cycle: ICycle) -> list[str]:
    """Return the ids of all projects, in order; Keystone is asked once in a cycle."""
    openstack = cycle.provider(IOpenStack)

    async def listed() -> list[str]:
        ids: set[str] = set()
        async for page in openstack.pages(PROJECT.listing):
            ids |= {item["id"] for item in page.items if isinstance(item.get("id"), str) and item["id"]}
        return sorted(ids)

    found: list[str] = await cycle.cycle_cache(("openstack", "projects"), listed)
    return found


@dataclass(slots=True)
class _Progress:
    """The last that was asked about in time: the next cycle begins after it."""

    last: str = ""


class Rounds:
    """Asks ``service`` about every project, ``at_once`` at a time, with some ``questions`` about each.

    A cycle of the pollster ``name`` goes on where the one before had to stop. ``seconds_for`` says how long the budget of a
    service takes for so many requests.
    """

    def __init__(
        self,
        cycle: ICycle,
        name: str,
        service: str,
        seconds_for: Callable[[str, int], float],
        *,
        questions: int = 1,
        at_once: int,
    ) -> None:
        self._cycle = cycle
        self._clock = cycle.clock
        self._service = service
        self._seconds_for = seconds_for
        self._questions = questions
        self._at_once = at_once
        self._progress = _Progress() if cycle.trial else cycle.daemon_cache(("openstack", name, "progress"), _Progress)
        self._seconds = math.inf
        if cycle.config is not None:
            given: float = min(cycle.config.central.timeout_seconds, cycle.config.polling.interval_of(name))
            self._seconds = SHARE_OF_CYCLE * given

    async def samples(
        self, about: Callable[[str], AsyncIterator[Iterable[Sample]]], samples_skipped: Omitted
    ) -> list[Sample]:
        """Return what there is ``about`` each project; where something is missing, ``omitted`` is told why.

        A project that the service does not know has no samples. :class:`Unavailable` if no project could be read.
        """
        samples: list[Sample] = []
        failures: list[Unavailable] = []

        async def read(project_id: str) -> None:
            try:
                async for some in about(project_id):
                    samples.extend(some)
            except ErrorResponse as error:
                if error.status != NOT_FOUND:
                    samples_skipped.add(project_id, BadItem("refused", str(error)))
            except Unavailable as error:
                failures.append(error)
                samples_skipped.add(project_id, BadItem("unavailable", str(error)))

        projects = await all_projects(self._cycle)
        left = await self._ask(projects, read)
        if failures and not samples:
            raise failures[0]
        for project_id in left:
            samples_skipped.add(project_id, self._why_left(len(projects)))
        return samples

    async def _ask(self, ids: list[str], read: Callable[[str], Awaitable[None]]) -> list[str]:
        """Call ``read`` with each of the sorted ``ids`` there is time for; return the others."""
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
                await read(each)

        await gatherResults([Deferred.fromCoroutine(worker()) for _ in range(self._at_once)], consumeErrors=True)
        return left

    def _why_left(self, count: int) -> BadItem:
        """Say whether the questions about ``count`` projects are too many for the budget, or the service is too slow."""
        needed, given = self._seconds_for(self._service, count * self._questions), self._seconds
        if needed <= given:
            return BadItem(
                "no-time",
                f"there was no answer about all {count} projects within {given:.0f} s; it comes first next time",
            )
        return BadItem(
            "no-time",
            f"the budget of {self._service} takes {needed:.0f} s for {count} projects, and a cycle has {given:.0f} s"
            f" for it; it comes first next time. For all in one cycle: requests_per_second in"
            f" [openstack.by_service.{self._service}] {needed / given:.1f} times as high, or a longer interval and"
            f" [central] timeout_seconds",
        )
