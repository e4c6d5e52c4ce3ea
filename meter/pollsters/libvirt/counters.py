"""Runs of counters: what a counter or a sum is made of, and what it had when the run began, where that is known.

Two samples of a cumulative meter can be compared where they have the same run. A run that begins between two polls of
the agent is opened with one more sample, of what it had at the earlier moment, so that nothing is lost.
"""

from __future__ import annotations

import hashlib
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
    """What a run had ``at`` an earlier moment."""

    volume: int
    at: datetime


@dataclass(slots=True)
class _Sum:
    """A sum at its last poll: by source what it is made of, and what names its run."""

    at: datetime
    source: int
    label: str
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

    def opening(self, kind: str, device: str, at: datetime) -> Opening | None:
        """Return what the counter of a device, or of the domain, had before ``at``, where it has just begun."""
        if self.began is not None:
            return Opening(0, min(self.began, at - JUST_BEFORE))
        known = self.devices.get(kind)
        if known is None or device in known[1]:
            return None
        return Opening(0, min(known[0], at - JUST_BEFORE))

    def sum(
        self, meter: str, outer: str, source: int, label: str, parts: Sequence[Parts | None], at: datetime
    ) -> tuple[str, Opening | None]:
        """Return the run of a sum and, where that has just begun, what the sum had before, of what is summed now."""
        last = self.sums.get(meter)
        if last is not None and (last.source, last.label) == (source, label):
            last.at, last.parts = at, parts
            return last.run, Opening(0, min(self.began, at - JUST_BEFORE)) if self.began is not None else None
        opening = None
        if self.began is not None:
            opening = Opening(0, min(self.began, at - JUST_BEFORE))
        elif last is not None and (before := last.parts[source]) is not None:
            now = parts[source] or {}
            opening = Opening(sum(before.get(name, 0) for name in now), min(last.at, at - JUST_BEFORE))
        used = self.labels.setdefault(meter, set())
        # Of a set that comes back, what has been counted meanwhile was counted in the run of another set.
        own = label if label not in used or last is None else f"{label}@{last.at.timestamp():.3f}"
        used.add(label)
        run = run_text(outer, own)
        self.sums[meter] = _Sum(at, source, label, run, parts)
        return run, opening


def label_of(prefix: str, parts: Parts, variant: str) -> str:
    """Name what is summed; ``variant`` tells apart what has the same names."""
    names = "+".join(parts)
    if len(names) > LONGEST_LABEL:
        names = f"{len(parts)}~{hashlib.sha256(names.encode('utf-8', 'replace')).hexdigest()[:16]}"
    return f"{prefix}{names}{f'~{variant}' if variant else ''}"
