"""What is reckoned from two polls: rates, deltas, the use of processors. No value rather than a wrong one."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Hashable
from datetime import datetime
from typing import Literal

import msgspec

from meter.pollsters.libvirt.sources import Subject
from meter.pollsters.libvirt.sources import number

Change = Literal["rate", "delta", "use of processors"]
"""*rate*: growth per second. *delta*: growth. *use of processors*: growth, in ns, in percent of the time of all vcpus."""


SHORTEST_SECONDS = 1.0
"""Less is no time to tell a rate in: libvirt counts processor time in steps of the kernel's clock, 10 ms."""

CLOCKS_APART = 1.0
"""Seconds by which the time of day and the steady clock may differ, which includes how long libvirt took."""


class _Last(msgspec.Struct, frozen=True, gc=False):
    """As there are some twenty per domain, they spare the collector of reference cycles to look at them: none is in one."""

    at: datetime
    steady_seconds: float
    volume: int | float
    run: Hashable
    basis: Hashable
    vcpus: int | None

    def counts_on_from(self, last: _Last) -> bool:
        """Whether the same counter, or a sum of the same ones, has not begun anew since."""
        return (self.run, self.basis, self.vcpus) == (last.run, last.basis, last.vcpus)


class Memory:
    """The last volume of each resource of one meter, and what has become of it since."""

    def __init__(self, change: Change) -> None:
        self._change = change
        self._last: dict[str, _Last] = {}

    def __len__(self) -> int:
        return len(self._last)

    def volume(
        self,
        subject: Subject,
        at: datetime,
        steady_seconds: float,
        volume: int,
        basis: Hashable,
        *,
        trial: bool = False,
    ) -> int | float | None:
        """Return the change since the last time, or ``None`` where none can be told; remember ``volume`` instead.

        Two volumes are compared that have the same ``basis`` and run, the second later and not smaller, between which
        nobody set the clock. ``steady_seconds`` is the time by a clock that nobody can set. A *trial* remembers nothing.
        """
        vcpus = number(subject.stats, "vcpu.current") if self._change == "use of processors" else None
        last = self._last.get(subject.resource_id)
        new = _Last(at, steady_seconds, volume, subject.run, basis, vcpus)
        comparable = last is not None and new.counts_on_from(last)
        if last is not None and comparable and steady_seconds - last.steady_seconds < SHORTEST_SECONDS:
            return None
        if not trial:
            self._last[subject.resource_id] = new
        if last is None or not comparable or volume < last.volume:
            return None
        growth, seconds = volume - last.volume, (at - last.at).total_seconds()
        if self._change == "delta":
            return growth
        if seconds <= 0 or abs(steady_seconds - last.steady_seconds - seconds) > CLOCKS_APART:
            return None
        if self._change == "rate":
            return growth / seconds
        return 100 * growth / (1e9 * vcpus * seconds) if vcpus else None

    def forget_all_but(self, resources: Collection[str]) -> None:
        """Let go of resources that are gone."""
        for resource_id in [each for each in self._last if each not in resources]:
            del self._last[resource_id]
