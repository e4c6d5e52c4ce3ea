"""Runs of counters: the parts of a counter or a sum, and its value when the run began, if that is known.

Two samples of a cumulative meter are comparable if they have the same run. A run that begins between two polls is opened
with an extra sample of its value at the earlier time, so that its first increase is counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from datetime import datetime
from datetime import timedelta

from meter.pollsters.libvirt.sources import Parts
from meter.sample import run_text

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
    """The counters of one run of a domain at the previous poll of one pollster, which was at ``polled_at``."""

    domain_run: str
    polled_at: datetime | None = None
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
        self.polled_at = at
        for kind, names in devices.items():
            known = self.devices.get(kind)
            self.devices[kind] = at, known[1] if known is not None and known[1] == names else names

    def new_devices(self, kind: str, names: frozenset[str]) -> frozenset[str]:
        """Return the devices among ``names`` that did not exist at the previous poll."""
        known = self.devices.get(kind)
        return frozenset() if known is None else names - known[1]

    def polled_since(self, at: datetime) -> bool:
        """Return whether the previous poll was at this time or later; other pollsters may have polled in between."""
        return self.polled_at is not None and self.polled_at >= at

    def from_zero(self, at: datetime, kind: str = "") -> Opening | None:
        """Return an opening of 0 at the beginning of the domain's run, else at the last poll without the device."""
        zero_at = self.began_at
        if zero_at is None and kind:
            zero_at = self.devices[kind][0]
        return None if zero_at is None else Opening(0, min(zero_at, at - JUST_BEFORE))

    @staticmethod
    def from_zero_after(last_seen: datetime, at: datetime) -> Opening:
        """Return an opening of 0, within the run, of a device that replaced the one that was last seen at ``last_seen``."""
        return Opening(0, min(last_seen + JUST_BEFORE, at - JUST_BEFORE))

    def sum(
        self,
        meter: str,
        domain_run: str,
        source_index: int,
        variant: str,
        parts: Sequence[Parts | None],
        label: str,
        at: datetime,
    ) -> tuple[str, Opening | None]:
        """Return the run of a sum, and its opening if it begins, or if parts are gone or replaced since the last poll.

        A sum stays in its run while its parts change. Parts that are gone take their part of the sum with them: the opening has
        what the present ones had at the last poll, and a volume that is lower than the one before counts nothing. So the name of
        the run does not depend on what the agent has seen, and is the same after its restart. ``label`` names the source; ``variant``
        changes when another part has got the name of one.
        """
        last = self.sums.get(meter)
        now = parts[source_index] or {}
        opening = self.from_zero(at)
        before = None if last is None else last.parts[source_index]
        if opening is None and last is not None and before is not None:
            base = sum(_base(before.get(name, 0), value, last.variant != variant) for name, value in now.items())
            if last.source_index != source_index:
                opening = Opening(base, min(last.at, at - JUST_BEFORE))
            elif base < sum(before.values()) and (
                now.keys() != before.keys()
                or any(is_restart(before[name], value) for name, value in now.items())
                or last.variant != variant
            ):
                opening = Opening(base, min(last.at + JUST_BEFORE, at - JUST_BEFORE))
        if last is not None and last.source_index == source_index:
            run = last.run
        else:
            used = self.labels.setdefault(meter, set())
            # A source that returns gets a new run: meanwhile its increase was counted from another source.
            suffix = f"{label}@{last.at.timestamp():.3f}" if last is not None and label in used else label
            used.add(label)
            run = run_text(domain_run, suffix)
        self.sums[meter] = _Sum(at, source_index, variant, run, parts)
        return run, opening


def is_restart(before: int, now: int) -> bool:
    """Return whether a counter fell so much that it is another one, which began at 0; a small decrease is a wrong reading."""
    return 2 * now < before


def _base(before: int, now: int, another: bool) -> int:
    """Return what a part that is ``now`` had counted before: nothing if it is another one, as a lower count may tell."""
    return 0 if is_restart(before, now) or (another and now < before) else min(before, now)
