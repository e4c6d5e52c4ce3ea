"""The end of gauges: a gauge that is no longer measured is sent once as 0, so that ``integral`` does not extend it."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from meter.pollsters.libvirt.description import Description


class Gauge(NamedTuple):
    """A gauge of a domain or of one of its devices.

    ``with_run``: it ends when the domain stops, not when it is deleted. ``with_device``: it ends when it is not measured any more.
    """

    name: str
    unit: str
    resource_id: str
    with_run: bool
    with_device: bool = False


class _Open(NamedTuple):
    gauges: tuple[Gauge, ...]
    description: Description
    at: datetime


class OpenGauges:
    """The gauges that one pollster has sent and not yet ended, by domain."""

    def __init__(self) -> None:
        self._open: dict[str, _Open] = {}

    def __len__(self) -> int:
        return len(self._open)

    def update(
        self,
        uuid: str,
        gauges: list[Gauge],
        description: Description,
        at: datetime,
        *,
        off: bool,
        devices_known: bool,
        remember: bool,
    ) -> list[Gauge]:
        """Take the gauges that were sent for a domain at the time ``at``; return those that have ended with its run, or
        with its device if all of its devices are known.

        Another gauge that is missing while the domain runs has not ended.
        """
        known = self._open.get(uuid)
        if known is not None and at >= known.at and list(known.gauges) == gauges:
            if remember:
                self._open[uuid] = _Open(known.gauges, description, at)
            return []
        now = tuple(gauges)
        if known is not None and at < known.at:
            return []
        ended: list[Gauge] = []
        if known is not None:
            present = set(now)
            missing = [each for each in known.gauges if each not in present]
            ended = [each for each in missing if (each.with_device and devices_known) or (off and each.with_run)]
            now += tuple(each for each in missing if each not in ended)
        if remember:
            self._open[uuid] = _Open(now, description, at)
        return ended

    def missing(self, uuids: Iterable[str]) -> Iterator[str]:
        """Yield the domains with open gauges that are not among ``uuids``."""
        yield from self._open.keys() - set(uuids)

    def forget(self, uuid: str) -> tuple[tuple[Gauge, ...], Description, datetime]:
        """Delete a missing domain; return its last gauges, its description, and their time."""
        known = self._open.pop(uuid)
        return known.gauges, known.description, known.at
