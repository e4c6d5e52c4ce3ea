"""What is reckoned from two polls: rates, deltas, the use of processors. No value rather than a wrong one."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec

from meter.pollsters.libvirt.sources import Parts
from meter.pollsters.libvirt.sources import Subject
from meter.pollsters.libvirt.sources import number

Change = Literal["rate", "delta", "use of processors"]
"""*rate*: growth per second. *delta*: growth. *use of processors*: growth, in ns, in percent of the time of all vcpus."""


SHORTEST_SECONDS = 1.0
"""Less is no time to tell a rate in: libvirt counts processor time in steps of the kernel's clock, 10 ms."""

CLOCKS_APART = 1.0
"""Seconds by which the time of day and the steady clock may differ, which includes how long libvirt took."""


class _Last(msgspec.Struct, frozen=True, gc=False):  # parts hold texts and numbers only
    """As there are some twenty per domain, they spare the collector of reference cycles to look at them: none is in one."""

    at: datetime
    steady_seconds: float
    volume: int | float
    run: str | None
    source: int
    vcpus: int | None
    parts: Sequence[Parts | None] | None

    def since(self, last: _Last) -> int | float | None:
        """Return the growth since the last time, ``None`` where the counter has begun anew, or less is counted now.

        Of a sum it is the growth of what is summed now: what was not there the last time has begun at 0.
        """
        if (self.run, self.vcpus) != (last.run, last.vcpus):
            return None
        before: int | float = last.volume
        if self.parts is not None and last.parts is not None:
            now, then = self.parts[self.source], last.parts[self.source]
            if now is None or then is None:
                return None
            before = sum(then.get(name, 0) for name in now)
        elif self.source != last.source:
            return None
        return self.volume - before if self.volume >= before else None


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
        source: int,
        parts: Sequence[Parts | None] | None = None,
        *,
        trial: bool = False,
    ) -> int | float | None:
        """Return the change since the last time, or ``None`` where none can be told; remember ``volume`` instead.

        Two volumes are compared that have the same run and come from the same ``source``, or are sums of ``parts`` of it,
        the second later and not smaller, between which nobody set the clock. ``steady_seconds`` is the time by a clock
        that nobody can set. A *trial* remembers nothing.
        """
        vcpus = number(subject.stats, "vcpu.current") if self._change == "use of processors" else None
        last = self._last.get(subject.resource_id)
        new = _Last(at, steady_seconds, volume, subject.run, source, vcpus, parts)
        growth = new.since(last) if last is not None else None
        if last is not None and growth is not None and steady_seconds - last.steady_seconds < SHORTEST_SECONDS:
            return None
        if not trial:
            self._last[subject.resource_id] = new
        if last is None or growth is None:
            return None
        seconds = (at - last.at).total_seconds()
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
