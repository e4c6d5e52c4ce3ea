"""Asking about every project, one question or more for each, in rounds that may take more than one cycle."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults

from meter.interfaces import ICycle
from meter.openstack import IOpenStack
from meter.pollsters.openstack.services import PROJECT
from meter.pollsters.openstack.table import BadItem

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

    found: list[str] = await cycle.shared(("openstack", "projects"), listed)
    return found


@dataclass(slots=True)
class _Progress:
    """The last that was asked about in time: the next cycle begins after it."""

    last: str = ""


class Rounds:
    """Goes on, in a cycle of the pollster ``name``, where the cycle before had to stop; asks about ``at_once`` at a time."""

    def __init__(self, cycle: ICycle, name: str, *, at_once: int) -> None:
        self._clock = cycle.clock
        self._at_once = at_once
        self._progress = _Progress() if cycle.trial else cycle.kept(("openstack", name, "progress"), _Progress)
        self._count = 0
        self._seconds = math.inf
        if cycle.config is not None:
            given: float = min(cycle.config.central.timeout_seconds, cycle.config.polling.interval_of(name))
            self._seconds = SHARE_OF_CYCLE * given

    async def ask(self, ids: list[str], read: Callable[[str], Awaitable[None]]) -> list[str]:
        """Call ``read`` with each of the sorted ``ids`` there is time for; return the others."""
        self._count = len(ids)
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

    def why_left(
        self, left: Iterable[str], service: str, seconds_for: Callable[[str, int], float], questions: int = 1
    ) -> Iterator[tuple[str, Any]]:
        """Yield each that was left, and that its ``questions`` are too many for the budget, or the service too slow."""
        needed, given = seconds_for(service, self._count * questions), self._seconds
        reason = (
            f"there was no answer about all {self._count} projects within {given:.0f} s; it comes first next time"
            if needed <= given
            else f"the budget of {service} takes {needed:.0f} s for {self._count} projects, and a cycle has {given:.0f} s"
            f" for it; it comes first next time. For all in one cycle: requests_per_second in"
            f" [openstack.by_service.{service}] {needed / given:.1f} times as high, or a longer interval and"
            f" [central] timeout_seconds"
        )
        for each in left:
            yield each, BadItem("no-time", reason)
