"""Devices that were unplugged, and plugged in again under the same name, between two polls of a running domain.

Nova gives the TAP device of a port always the same name, and a vCPU has its number again: only the counters, which start from 0,
tell that it is another device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from datetime import datetime
from typing import Any
from typing import NamedTuple

from meter.pollsters.libvirt.counter_runs import is_restart

COUNTERS = {"net": ("rx.bytes", "tx.bytes", "rx.pkts", "tx.pkts"), "vcpu": ("time",)}
"""Counters, by kind of device, that never decrease while a device is plugged in. Disks have names that are not reused."""

MAX_GONE = 100
"""Devices without statistics that are remembered: a guest can get devices with ever other names."""


class Replacement(NamedTuple):
    """That a device replaced another one of its name, which was last seen at ``last_seen``; it was noticed at ``noticed_at``."""

    last_seen: datetime
    noticed_at: datetime


class _Known(NamedTuple):
    at: datetime
    counters: tuple[int, ...]
    replacement: Replacement | None


@dataclass(slots=True)
class ReplacedDevices:
    """The devices of one run of a domain at the poll, of whichever pollster, that read each of them last."""

    _known: dict[str, _Known] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._known)

    def replacement(
        self,
        kind: str,
        name: str,
        stats: Mapping[str, Any],
        prefix: str,
        at: datetime,
        *,
        remember: bool,
    ) -> Replacement | None:
        """Return how the device of this name came to replace another one during the run, the last time; ``None`` if it did not.

        A device was replaced if all of its counters are lower than at the previous poll and one of them is less than half. A
        small decrease is a wrong reading: counting such a counter from 0 would bill all of it again.
        """
        counters = tuple(
            value if type(value := stats.get(f"{prefix}{each}")) is int and value >= 0 else -1
            for each in COUNTERS[kind]
        )
        key = f"{kind} {name}"
        known = self._known.get(key)
        found = None if known is None else known.replacement
        if known is not None and at > known.at and _restarted(known.counters, counters):
            found = Replacement(known.at, at)
        if remember and max(counters) >= 0:
            self._known.pop(key, None)  # those that were polled last come last
            self._known[key] = _Known(at, counters, found)
        return found

    def forget_gone(self, present: int) -> None:
        """Forget those that were polled longest ago, of more than ``present`` and :data:`MAX_GONE`."""
        for key in list(self._known)[: -(present + MAX_GONE)]:
            del self._known[key]


def _restarted(before: tuple[int, ...], now: tuple[int, ...]) -> bool:
    pairs = [(old, new) for old, new in zip(before, now, strict=True) if old > 0 and new >= 0]
    return bool(pairs) and all(new < old for old, new in pairs) and any(is_restart(old, new) for old, new in pairs)
