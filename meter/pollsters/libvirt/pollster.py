"""The pollster of one family of rows. All of them share one reading of libvirt in each cycle."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import ICycle
from meter.interfaces import IDomainPollster
from meter.interfaces import IHypervisor
from meter.interfaces import IOmissions
from meter.interfaces import ISurroundings
from meter.interfaces import Unavailable
from meter.pollsters.libvirt.changes import Memory
from meter.pollsters.libvirt.guests import Guest
from meter.pollsters.libvirt.guests import Reading
from meter.pollsters.libvirt.guests import read
from meter.pollsters.libvirt.sources import BadStat
from meter.pollsters.libvirt.sources import Subject
from meter.pollsters.libvirt.table import FAMILIES
from meter.pollsters.libvirt.table import TAKES
from meter.pollsters.libvirt.table import Row
from meter.sample import BadSample
from meter.sample import MeterDefinition
from meter.sample import Sample
from meter.services import within

MOST_LINES = 20
"""Omissions told in the log per pollster and cycle."""

GUESTS_AT_ONCE = 100
"""All rows of so many guests follow each other: enough of one meter to fill a message, and of one guest to be signed
together, for which metadata that repeat are encoded once."""

PROBE_SECONDS = 3.0
"""A libvirt that does not answer by then says so itself, and shall not hold up the start."""

ONLY_BASICS = ("test",)
"""Drivers of libvirt that tell the state, the processors and the memory of a domain, and nothing else."""


class Omissions:
    """What one pollster left out in one cycle: counted all, told in the log when it is new."""

    _log = Logger()

    def __init__(self, pollster: str, told: Mapping[str, str]) -> None:
        self.now: dict[str, str] = {}
        self._pollster = pollster
        self._told = told
        self._counts: dict[str, int] = {}
        self._lines = 0

    def count(self, reason: str) -> None:
        """Count something that was left out, by a word for the reason."""
        self._counts[reason] = self._counts.get(reason, 0) + 1

    def tell(self, what: str, why: str, reason: str) -> None:
        """Count ``what`` under ``reason`` and say why it was left out, unless that has been said in the cycle before."""
        self.count(reason)
        self.now[what] = why
        if self._told.get(what) != why:
            self._lines += 1
            if self._lines <= MOST_LINES:
                self._log.warn("{what} is not metered: {why}", what=what, why=why)

    def report(self, cycle: ICycle) -> None:
        """Pass the counts on to whoever counts in this daemon."""
        if self._lines > MOST_LINES:
            self._log.warn("{more} more are not metered", more=self._lines - MOST_LINES)
        try:
            count = cycle.provider(IOmissions).omitted
        except LookupError:
            return
        for reason, times in self._counts.items():
            count(self._pollster, reason, times)


class Remembered:
    """What one pollster remembers from cycle to cycle: volumes by meter, and what was told."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.memories = {row.meter.name: Memory(row.change) for row in rows if row.change is not None}
        self.told: Mapping[str, str] = {}


@implementer(IDomainPollster)
@dataclass(frozen=True, slots=True)
class GuestPollster:
    """Meters a family of rows on every guest. What cannot be read, or lacks the statistics, costs itself only."""

    name: Literal["instance", "cpu", "vcpus", "memory", "perf", "disk", "disk.device", "network.interface"]
    options: None = None

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows of the table that it meters."""
        return FAMILIES[self.name]

    @property
    def meters(self) -> tuple[MeterDefinition, ...]:
        """The meters of its rows."""
        return tuple(row.meter for row in self.rows)

    def configured(self, options: None) -> GuestPollster:
        """There is nothing to configure: ``[compute]`` has what concerns all of them."""
        return self

    async def enabled(self, here: ISurroundings) -> Enabled | Disabled:
        """Work wherever the daemon has a hypervisor that may tell these statistics, be it reachable now or not."""
        try:
            hypervisor = here.provider(IHypervisor)
        except LookupError:
            return Disabled("no hypervisor is configured")
        driver = hypervisor.uri.partition(":")[0].partition("+")[0]
        if driver in ONLY_BASICS and self.name in ("perf", "disk", "disk.device", "network.interface"):
            return Disabled(f"libvirt's {driver} driver tells nothing of this")
        if driver != "qemu" and self.name == "perf":
            return Disabled(f"only libvirt's qemu driver counts events of the processor, not {driver}")
        return Enabled(await self._lacking(hypervisor, here.clock)) if self.name in TAKES else Enabled()

    async def _lacking(self, hypervisor: IHypervisor, clock: IReactorTime) -> str:
        """Say which of the domains that run now lack what this pollster takes. Others may come that do not."""
        prefix, what = TAKES[self.name]
        try:
            domains = await within(clock, PROBE_SECONDS, hypervisor.domains())
        except (Unavailable, DeferredTimeout):
            return ""
        running = [domain for domain in domains if domain.run is not None]
        lacking = [each for each in running if not any(name.startswith(prefix) for name in each.stats)]
        return f"{len(lacking)} of {len(running)} running domains lack {what}" if lacking else ""

    async def poll(self, cycle: ICycle) -> Iterable[Sample]:
        """Return a sample of each guest, and each device of one, that has the volume: made as they are drawn."""
        reading: Reading = await cycle.shared("libvirt reading", lambda: read(cycle))
        remembered: Remembered = cycle.kept(("libvirt pollster", self.name), lambda: Remembered(self.rows))
        return self._samples(reading, remembered, cycle)

    def _samples(self, reading: Reading, remembered: Remembered, cycle: ICycle) -> Iterator[Sample]:
        omissions = Omissions(self.name, remembered.told)
        for uuid, why in reading.unreadable.items():
            if self.name == "instance":
                omissions.tell(f"domain {uuid}", why, "xml")
            else:
                omissions.count("xml")
        seen: dict[str, set[str]] = {meter: set() for meter in remembered.memories}
        for first in range(0, len(reading.guests), GUESTS_AT_ONCE):
            guests = reading.guests[first : first + GUESTS_AT_ONCE]
            for row in self.rows:
                memory = remembered.memories.get(row.meter.name)
                for guest in guests:
                    if guest_has(row, guest):
                        yield from _samples(row, guest, memory, seen, omissions, trial=cycle.trial)
            for guest in guests:
                guest.forget_subjects()
        if reading.whole:
            remembered.told = omissions.now
            if not cycle.trial:
                for meter, memory in remembered.memories.items():
                    memory.forget_all_but(seen[meter])
        omissions.report(cycle)


def guest_has(row: Row, guest: Guest) -> bool:
    """Return whether ``guest`` is metered by ``row`` in its state: of one that ends, only what it has counted."""
    if guest.ending:
        return row.meter.type != "gauge"
    return row.when_off or not guest.shut_off


def _samples(
    row: Row, guest: Guest, memory: Memory | None, seen: dict[str, set[str]], omissions: Omissions, *, trial: bool
) -> Iterator[Sample]:
    """Yield a sample of each subject of ``row`` that has the volume, and note what is left out."""
    meter = row.meter.name
    try:
        subjects = guest.subjects(row.scope)
    except BadStat as error:
        omissions.tell(f"{meter} of {guest.uuid}", str(error), error.reason)
        return
    for subject in subjects:
        if memory is not None:
            seen[meter].add(subject.resource_id)
        try:
            reading = row.reading(subject)
            if reading is not None:
                sample = _sample(row, guest, subject, reading, memory, trial=trial)
                if sample is not None:
                    yield sample
            elif row.if_missing == "told":
                wanted = row.wanted(subject.prefix)
                omissions.tell(f"{meter} of {subject.resource_id}", f"libvirt does not give {wanted}", "missing")
            elif row.if_missing == "counted":
                omissions.count("missing")
        except BadStat as error:
            omissions.tell(f"{meter} of {subject.resource_id}", str(error), error.reason)
        except BadSample as error:
            omissions.tell(f"{meter} of {subject.resource_id}", str(error), "invalid")


def _sample(
    row: Row, guest: Guest, subject: Subject, reading: tuple[int, int], memory: Memory | None, *, trial: bool
) -> Sample | None:
    """Return the sample of what ``row`` has read; ``None`` where there is nothing to compare with, or to name it after."""
    name = row.meter.name
    if name.endswith("*"):
        if not guest.description.flavor:
            return None
        name = name[:-1] + guest.description.flavor
    value, source = reading
    volume: int | float | None = value
    if memory is not None:
        volume = memory.volume(subject, guest.read_at, guest.steady_seconds, value, source, trial=trial)
        if volume is None:
            return None
    elif row.divisor != 1:
        volume = value / row.divisor
    return Sample(
        name=name,
        type=row.meter.type,
        unit=row.meter.unit,
        volume=volume,  # type: ignore[arg-type]
        resource_id=subject.resource_id,
        timestamp=guest.read_at,
        user_id=guest.description.user_id,
        project_id=guest.description.project_id,
        resource_metadata=subject.metadata,
    )
