"""Runs of counters: what a counter or a sum is made of, and its value when the run began, if that is known.

Two samples of a cumulative meter can be compared where they have the same run. A run that begins between two polls of
the agent is opened with one more sample, of what it had at the earlier moment, so that nothing is lost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from datetime import datetime
from datetime import timedelta

from meter.pollsters.libvirt.sources import Parts
from meter.sample import run_text

LONGEST_LABEL = 100
"""Characters of the names of what is summed; more become a digest."""

JUST_BEFORE = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Opening:
    """The value of a run's counter ``at`` an earlier moment."""

    volume: int
    at: datetime


@dataclass(slots=True)
class _Sum:
    """A sum at its last poll: what it is made of, by source, and the name of its run."""

    at: datetime
    source: int
    variant: str
    run: str
    parts: Sequence[Parts | None]


@dataclass(slots=True)
class Counters:
    """What one pollster knows of the counters of one run of a domain, from the poll before."""

    life: str
    opened: bool = False
    began: datetime | None = None
    devices: dict[str, tuple[datetime, frozenset[str]]] = field(default_factory=dict)
    sums: dict[str, _Sum] = field(default_factory=dict)
    labels: dict[str, set[str]] = field(default_factory=dict)

    def begin(self, began: datetime | None) -> None:
        """Begin a poll; all runs are opened in the first one that knows when their counters were at zero."""
        self.began = None if self.opened else began

    def end(self, devices: Mapping[str, frozenset[str]], at: datetime) -> None:
        """End a poll that has seen these devices, by kind; a kind that libvirt did not tell of is not among them."""
        self.opened = self.opened or self.began is not None
        for kind, names in devices.items():
            known = self.devices.get(kind)
            self.devices[kind] = at, known[1] if known is not None and known[1] == names else names

    def new_devices(self, kind: str, names: frozenset[str]) -> frozenset[str]:
        """Return which of the devices of a kind were not there at the poll before."""
        known = self.devices.get(kind)
        return frozenset() if known is None else names - known[1]

    def from_zero(self, at: datetime, kind: str = "") -> Opening | None:
        """Return an opening value of 0: for when the domain's counters were 0, else for when the device was not there."""
        moment = self.began
        if moment is None and kind:
            moment = self.devices[kind][0]
        return None if moment is None else Opening(0, min(moment, at - JUST_BEFORE))

    def sum(
        self,
        meter: str,
        outer: str,
        source: int,
        variant: str,
        parts: Sequence[Parts | None],
        label: Callable[[], str],
        at: datetime,
    ) -> tuple[str, Opening | None]:
        """Return the run of a sum and, if the run has just begun, the earlier sum over what is summed now.

        ``label`` names what is summed; ``variant`` tells apart what has the same names.
        """
        last = self.sums.get(meter)
        now = parts[source] or {}
        if (
            last is not None
            and (last.source, last.variant) == (source, variant)
            and (last.parts[source] or {}).keys() == now.keys()
        ):
            last.at, last.parts = at, parts
            return last.run, self.from_zero(at)
        opening = self.from_zero(at)
        if opening is None and last is not None and (before := last.parts[source]) is not None:
            opening = Opening(sum(before.get(name, 0) for name in now), min(last.at, at - JUST_BEFORE))
        used = self.labels.setdefault(meter, set())
        own = label()
        # Of a set that comes back, what has been counted meanwhile was counted in the run of another set.
        if last is not None and own in used:
            own = f"{own}@{last.at.timestamp():.3f}"
        used.add(own)
        run = run_text(outer, own)
        self.sums[meter] = _Sum(at, source, variant, run, parts)
        return run, opening


def label_of(prefix: str, parts: Parts, variant: str) -> str:
    """Name what is summed; ``variant`` tells apart what has the same names."""
    names = "+".join(parts)
    if len(names) > LONGEST_LABEL:
        names = f"{len(parts)}~{hashlib.sha256(names.encode('utf-8', 'replace')).hexdigest()[:16]}"
    return f"{prefix}{names}{f'~{variant}' if variant else ''}"
