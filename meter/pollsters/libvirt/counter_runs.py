"""Runs of counters: the parts of a counter or a sum, and its value when the run began, if that is known.

Two samples of a cumulative meter are comparable if they have the same run. A run that begins between two polls is opened
with an extra sample of its value at the earlier time, so that its first increase is counted.
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

MAX_LABEL = 100
"""Maximum length of the names of the parts of a sum; longer ones are replaced by a digest."""

JUST_BEFORE = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Opening:
    """The value of a run's counter at an earlier time: the opening sample of the run."""

    volume: int
    at: datetime


@dataclass(slots=True)
class _Sum:
    """A sum at the previous poll: its parts, by source, and the name of its run."""

    at: datetime
    source_index: int
    variant: str
    run: str
    parts: Sequence[Parts | None]


@dataclass(slots=True)
class Counters:
    """The counters of one run of a domain at the previous poll of one pollster."""

    domain_run: str
    opened: bool = False
    began_at: datetime | None = None
    devices: dict[str, tuple[datetime, frozenset[str]]] = field(default_factory=dict)
    sums: dict[str, _Sum] = field(default_factory=dict)
    labels: dict[str, set[str]] = field(default_factory=dict)

    def begin_poll(self, began_at: datetime | None) -> None:
        """Begin a poll. The first one that knows when the counters were 0, ``began_at``, opens all runs."""
        self.began_at = None if self.opened else began_at

    def end_poll(self, devices: Mapping[str, frozenset[str]], at: datetime) -> None:
        """End a poll; ``devices`` has the devices by kind, without the kinds that libvirt did not report."""
        self.opened = self.opened or self.began_at is not None
        for kind, names in devices.items():
            known = self.devices.get(kind)
            self.devices[kind] = at, known[1] if known is not None and known[1] == names else names

    def new_devices(self, kind: str, names: frozenset[str]) -> frozenset[str]:
        """Return the devices among ``names`` that did not exist at the previous poll."""
        known = self.devices.get(kind)
        return frozenset() if known is None else names - known[1]

    def from_zero(self, at: datetime, kind: str = "") -> Opening | None:
        """Return an opening of 0 at the beginning of the domain's run, else at the last poll without the device."""
        zero_at = self.began_at
        if zero_at is None and kind:
            zero_at = self.devices[kind][0]
        return None if zero_at is None else Opening(0, min(zero_at, at - JUST_BEFORE))

    @staticmethod
    def from_zero_after(last_seen: datetime, at: datetime) -> Opening:
        """Return an opening of 0, within the run, of a device that replaces the one that was polled at ``last_seen``."""
        return Opening(0, min(last_seen + JUST_BEFORE, at - JUST_BEFORE))

    def sum(
        self,
        meter: str,
        domain_run: str,
        source_index: int,
        variant: str,
        parts: Sequence[Parts | None],
        label: Callable[[], str],
        at: datetime,
    ) -> tuple[str, Opening | None]:
        """Return the run of a sum and, if the run has just begun, the sum of its present parts at the earlier time.

        ``label`` returns the names of the parts; ``variant`` distinguishes parts that have the same names.
        """
        last = self.sums.get(meter)
        now = parts[source_index] or {}
        if (
            last is not None
            and (last.source_index, last.variant) == (source_index, variant)
            and (last.parts[source_index] or {}).keys() == now.keys()
        ):
            last.at, last.parts = at, parts
            return last.run, self.from_zero(at)
        opening = self.from_zero(at)
        if opening is None and last is not None and (before := last.parts[source_index]) is not None:
            opening = Opening(sum(before.get(name, 0) for name in now), min(last.at, at - JUST_BEFORE))
        used = self.labels.setdefault(meter, set())
        suffix = label()
        # A set of parts that returns gets a new run: meanwhile its increase was counted in the run of another set.
        if last is not None and suffix in used:
            suffix = f"{suffix}@{last.at.timestamp():.3f}"
        used.add(suffix)
        run = run_text(domain_run, suffix)
        self.sums[meter] = _Sum(at, source_index, variant, run, parts)
        return run, opening


def label_of(prefix: str, parts: Parts, variant: str) -> str:
    """Return a text that names the parts of a sum; ``variant`` distinguishes parts that have the same names."""
    names = "+".join(parts)
    if len(names) > MAX_LABEL:
        names = f"{len(parts)}~{hashlib.sha256(names.encode('utf-8', 'replace')).hexdigest()[:16]}"
    return f"{prefix}{names}{f'~{variant}' if variant else ''}"
