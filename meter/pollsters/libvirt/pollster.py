"""The pollster of one family of rows. All of them share one reading of libvirt in each cycle."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from typing import Any
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
from meter.pollsters.libvirt.counters import Counters
from meter.pollsters.libvirt.description import Description
from meter.pollsters.libvirt.ends import Gauge
from meter.pollsters.libvirt.ends import OpenGauges
from meter.pollsters.libvirt.guests import Guest
from meter.pollsters.libvirt.guests import Reading
from meter.pollsters.libvirt.guests import device_of
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

STATE = "power.state"
"""A domain that is gone has no state, not even 0, which would be one."""

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
    """What one pollster remembers from cycle to cycle: volumes by meter, runs of counters, open gauges, what was told."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.memories = {row.meter.name: Memory(row.change) for row in rows if row.change is not None}
        self.counters: dict[str, Counters] = {}
        self.gauges = OpenGauges()
        self.told: Mapping[str, str] = {}

    def counters_of(self, guest: Guest, *, trial: bool) -> Counters | None:
        """Return what is known of the counters of a domain's present run."""
        if guest.run is None:
            return None
        known = self.counters.get(guest.uuid)
        if known is None or known.life != guest.run:
            known = Counters(guest.run)
            if not trial:
                self.counters[guest.uuid] = known
        elif trial:
            known = deepcopy(known)
        known.begin(guest.began)
        return known


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
            polls = [
                _Poll(guest, remembered, trial=cycle.trial) for guest in reading.guests[first : first + GUESTS_AT_ONCE]
            ]
            for row in self.rows:
                memory = remembered.memories.get(row.meter.name)
                for poll in polls:
                    if guest_has(row, poll.guest):
                        yield from _samples(row, poll, memory, seen, omissions, trial=cycle.trial)
            for poll in polls:
                yield from poll.end(remembered, trial=cycle.trial)
        if reading.whole:
            remembered.told = omissions.now
            if not cycle.trial:
                for meter, memory in remembered.memories.items():
                    memory.forget_all_but(seen[meter])
                yield from _gone(reading, remembered, cycle)
        omissions.report(cycle)


class _Poll:
    """One poll of one domain by one pollster."""

    def __init__(self, guest: Guest, remembered: Remembered, *, trial: bool) -> None:
        self.guest = guest
        self.counters = remembered.counters_of(guest, trial=trial)
        self._gauges: list[Gauge] = []

    def note(self, row: Row, sample: Sample) -> None:
        """Note that a gauge was told."""
        if row.meter.type == "gauge":
            self._gauges.append(Gauge(sample.name, sample.unit, sample.resource_id, row.ends_with_run))

    def end(self, remembered: Remembered, *, trial: bool) -> Iterator[Sample]:
        """Remember what was polled; yield the end of what a domain does not have while it is off."""
        guest = self.guest
        if self.counters is not None:
            self.counters.end(guest.devices(), guest.read_at)
        ended = remembered.gauges.told(
            guest.uuid, self._gauges, guest.description, guest.read_at, off=guest.shut_off, remember=not trial
        )
        for gauge in ended:
            yield _zero(gauge, guest.description, guest.metadata, guest.read_at)
        guest.forget_subjects()


def _gone(reading: Reading, remembered: Remembered, cycle: ICycle) -> Iterator[Sample]:
    """Yield the end of all gauges of domains that are gone for good; what has migrated away goes on elsewhere."""
    hypervisor = cycle.provider(IHypervisor)
    for uuid in list(remembered.gauges.left_out(reading.listed - reading.elsewhere)):
        absence = hypervisor.absence(uuid)
        if absence.why == "unreadable" and uuid not in reading.elsewhere:
            continue
        gauges, description = remembered.gauges.forget(uuid)
        if absence.why == "migrated" or uuid in reading.elsewhere:
            continue
        for gauge in gauges:
            if gauge.name != STATE:
                yield _zero(gauge, description, description.metadata, absence.since or reading.read_at)
    for uuid in remembered.counters.keys() - reading.listed:
        if hypervisor.absence(uuid).why != "unreadable":
            del remembered.counters[uuid]


def _zero(gauge: Gauge, description: Description, metadata: Mapping[str, Any], at: datetime) -> Sample:
    return Sample(
        name=gauge.name,
        type="gauge",
        unit=gauge.unit,
        volume=0,
        resource_id=gauge.resource_id,
        timestamp=at,
        user_id=description.user_id,
        project_id=description.project_id,
        resource_metadata=metadata,
    )


def guest_has(row: Row, guest: Guest) -> bool:
    """Return whether ``guest`` is metered by ``row`` in its state: of one that ends, only what it has counted."""
    if guest.ending:
        return row.meter.type != "gauge"
    return row.when_off or not guest.shut_off


def _samples(
    row: Row, poll: _Poll, memory: Memory | None, seen: dict[str, set[str]], omissions: Omissions, *, trial: bool
) -> Iterator[Sample]:
    """Yield a sample of each subject of ``row`` that has the volume, and note what is left out."""
    meter, guest = row.meter.name, poll.guest
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
                yield from _of_reading(row, poll, subject, reading, memory, trial=trial)
            elif row.if_missing == "told":
                wanted = row.wanted(subject.prefix)
                omissions.tell(f"{meter} of {subject.resource_id}", f"libvirt does not give {wanted}", "missing")
            elif row.if_missing == "counted":
                omissions.count("missing")
        except BadStat as error:
            omissions.tell(f"{meter} of {subject.resource_id}", str(error), error.reason)
        except BadSample as error:
            omissions.tell(f"{meter} of {subject.resource_id}", str(error), "invalid")


def _of_reading(
    row: Row, poll: _Poll, subject: Subject, reading: tuple[int, int], memory: Memory | None, *, trial: bool
) -> Iterator[Sample]:
    """Yield the sample of what ``row`` has read, after the one that opens its run where that has just begun.

    None where there is nothing to compare with, or to name it after.
    """
    guest, counters = poll.guest, poll.counters
    value, source = reading
    volume: int | float | None = value
    metadata, opening = subject.metadata, None
    counts = row.change is not None or row.meter.type == "cumulative"
    parts = row.parts(subject) if row.composed and counts else None
    if counters is not None and parts is not None and subject.run is not None:
        label = row.label(source, parts, subject)
        run, opening = counters.sum(row.meter.name, subject.run, source, label, parts, guest.read_at)
        metadata = guest.metadata_of_run(subject, run)
    elif counters is not None and counts and subject.from_zero:
        opening = counters.opening(row.scope, device_of(subject), guest.read_at)
    if memory is not None:
        volume = memory.volume(subject, guest.read_at, guest.steady_seconds, value, source, parts, trial=trial)
    sample = _sample(row, guest, subject.resource_id, volume, metadata, guest.read_at)
    if sample is None:
        return
    if opening is not None and memory is None:
        yield _sample(row, guest, subject.resource_id, opening.volume, metadata, opening.at)  # type: ignore[misc]
    poll.note(row, sample)
    yield sample


def _sample(
    row: Row, guest: Guest, resource_id: str, volume: int | float | None, metadata: Mapping[str, Any], at: datetime
) -> Sample | None:
    name = row.meter.name
    if name.endswith("*"):
        if not guest.description.flavor:
            return None
        name = name[:-1] + guest.description.flavor
    if volume is None:
        return None
    if row.change is None and row.divisor != 1:
        volume = volume / row.divisor
    return Sample(
        name=name,
        type=row.meter.type,
        unit=row.meter.unit,
        volume=volume,
        resource_id=resource_id,
        timestamp=at,
        user_id=guest.description.user_id,
        project_id=guest.description.project_id,
        resource_metadata=metadata,
    )
