"""Values computed from two polls: rates, deltas, CPU utilization. There is no value if it is uncertain."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec

from meter.pollsters.libvirt.sources import Measured
from meter.pollsters.libvirt.sources import Parts
from meter.pollsters.libvirt.sources import number

Change = Literal["rate", "delta", "utilization"]
"""*delta*: increase. *rate*: increase per second. *utilization*: increase in ns, in percent of the time of all vCPUs."""


MIN_SECONDS = 1.0
"""No rate is computed over a shorter time: libvirt counts CPU time in ticks of the kernel's clock, 10 ms."""

MAX_CLOCK_DIFFERENCE_SECONDS = 1.0
"""How much elapsed wall-clock and monotonic time may differ, including the time that libvirt took."""


class _PreviousValue(msgspec.Struct, frozen=True, gc=False):  # parts hold texts and numbers only
    """A value of the previous poll. There are about twenty per domain, so they are not tracked by Python's garbage
    collector, which they do not need: none is in a reference cycle.
    """

    at: datetime
    monotonic_seconds: float
    volume: int | float
    run: str | None
    source_index: int
    vcpus: int | None
    parts: Sequence[Parts | None] | None

    def increase_since(self, last: _PreviousValue) -> int | float | None:
        """Return the increase since ``last``, ``None`` if the counter was reset or decreased.

        Of a sum it is the increase of its present parts: a part that ``last`` lacks has started from 0.
        """
        if (self.run, self.vcpus) != (last.run, last.vcpus):
            return None
        before: int | float = last.volume
        if self.parts is not None and last.parts is not None:
            now, then = self.parts[self.source_index], last.parts[self.source_index]
            if now is None or then is None:
                return None
            before = sum(then.get(name, 0) for name in now)
        elif self.source_index != last.source_index:
            return None
        return self.volume - before if self.volume >= before else None


class PreviousValues:
    """The previous value of each resource of one meter."""

    def __init__(self, change: Change) -> None:
        self._change = change
        self._last: dict[str, _PreviousValue] = {}

    def __len__(self) -> int:
        return len(self._last)

    def change(
        self,
        measured: Measured,
        at: datetime,
        monotonic_seconds: float,
        volume: int,
        source_index: int,
        parts: Sequence[Parts | None] | None = None,
        *,
        trial: bool = False,
    ) -> int | float | None:
        """Return the change since the previous value, ``None`` if there is none; replace the previous value.

        Two values are compared if they have the same run and source, or are sums of parts of the same source, the
        second is later and not smaller, and the clock was not set between them. ``monotonic_seconds`` is the time by a
        clock that cannot be set. A *trial* leaves the previous value as it was.
        """
        vcpus = number(measured.stats, "vcpu.current") if self._change == "utilization" else None
        last = self._last.get(measured.resource_id)
        new = _PreviousValue(at, monotonic_seconds, volume, measured.run, source_index, vcpus, parts)
        increase = new.increase_since(last) if last is not None else None
        if last is not None and increase is not None and monotonic_seconds - last.monotonic_seconds < MIN_SECONDS:
            return None
        if not trial:
            self._last[measured.resource_id] = new
        if last is None or increase is None:
            return None
        seconds = (at - last.at).total_seconds()
        if self._change == "delta":
            return increase
        clock_difference = monotonic_seconds - last.monotonic_seconds - seconds
        if seconds <= 0 or abs(clock_difference) > MAX_CLOCK_DIFFERENCE_SECONDS:
            return None
        if self._change == "rate":
            return increase / seconds
        return 100 * increase / (1e9 * vcpus * seconds) if vcpus else None

    def forget_all_but(self, resources: Collection[str]) -> None:
        """Delete the values of all other resources."""
        for resource_id in [each for each in self._last if each not in resources]:
            del self._last[resource_id]
