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

from meter.daemon.services import within
from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import ICycle
from meter.interfaces import IDomainPollster
from meter.interfaces import IHypervisor
from meter.interfaces import IPluginContext
from meter.interfaces import ISkippedSamples
from meter.interfaces import Unavailable
from meter.pollsters.libvirt.counter_runs import Counters
from meter.pollsters.libvirt.counter_runs import Opening
from meter.pollsters.libvirt.description import Description
from meter.pollsters.libvirt.gauge_ends import Gauge
from meter.pollsters.libvirt.gauge_ends import OpenGauges
from meter.pollsters.libvirt.guests import TELL_TALE
from meter.pollsters.libvirt.guests import Guest
from meter.pollsters.libvirt.guests import Reading
from meter.pollsters.libvirt.guests import device_of
from meter.pollsters.libvirt.guests import read
from meter.pollsters.libvirt.rates import Memory
from meter.pollsters.libvirt.sources import BadStat
from meter.pollsters.libvirt.sources import Parts
from meter.pollsters.libvirt.sources import Subject
from meter.pollsters.libvirt.table import FAMILIES
from meter.pollsters.libvirt.table import TAKES
from meter.pollsters.libvirt.table import Row
from meter.sample import BadSample
from meter.sample import MeterDefinition
from meter.sample import Sample

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


class SkippedSamples:
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
            count = cycle.provider(ISkippedSamples).samples_skipped
        except LookupError:
            return
        for reason, times in self._counts.items():
            count(self._pollster, reason, times)


class Remembered:
    """What one pollster remembers from cycle to cycle: volumes by meter, runs of counters, open gauges, what was logged."""

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

    async def enabled(self, context: IPluginContext) -> Enabled | Disabled:
        """Work wherever the daemon has a hypervisor that may tell these statistics, be it reachable now or not."""
        try:
            hypervisor = context.provider(IHypervisor)
        except LookupError:
            return Disabled("no hypervisor is configured")
        driver = hypervisor.uri.partition(":")[0].partition("+")[0]
        if driver in ONLY_BASICS and self.name in ("perf", "disk", "disk.device", "network.interface"):
            return Disabled(f"libvirt's {driver} driver tells nothing of this")
        if driver != "qemu" and self.name == "perf":
            return Disabled(f"only libvirt's qemu driver counts events of the processor, not {driver}")
        return Enabled(await self._lacking(hypervisor, context.clock)) if self.name in TAKES else Enabled()

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
        reading: Reading = await cycle.cycle_cache("libvirt reading", lambda: read(cycle))
        remembered: Remembered = cycle.daemon_cache(("libvirt pollster", self.name), lambda: Remembered(self.rows))
        return self._samples(reading, remembered, cycle)

    def _samples(self, reading: Reading, remembered: Remembered, cycle: ICycle) -> Iterator[Sample]:
        omissions = SkippedSamples(self.name, remembered.told)
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
        self._gauges: list[tuple[str, str, str, bool]] = []
        self._new: dict[str, frozenset[str]] = {}

    def opening(self, row: Row, subject: Subject) -> Opening | None:
        """Return the earlier value of the counter of ``subject``, if its run has just begun."""
        counters = self.counters
        if counters is None:
            return None
        if counters.began is not None:
            return counters.from_zero(self.guest.read_at)
        if row.scope not in TELL_TALE:
            return None
        new = self._new.get(row.scope)
        if new is None:
            names = frozenset(map(device_of, self.guest.subjects(row.scope)))
            new = self._new[row.scope] = counters.new_devices(row.scope, names)
        return counters.from_zero(self.guest.read_at, row.scope) if new and device_of(subject) in new else None

    def note(self, row: Row, sample: Sample) -> None:
        """Note that a gauge was told."""
        if row.meter.type == "gauge":
            self._gauges.append((sample.name, sample.unit, sample.resource_id, row.ends_with_run))

    def end(self, remembered: Remembered, *, trial: bool) -> Iterator[Sample]:
        """Remember what was polled; yield a last 0 of each gauge that a domain does not have while it is off."""
        guest = self.guest
        if self.counters is not None:
            self.counters.end(guest.devices(), guest.read_at)
        ended = remembered.gauges.update(
            guest.uuid, self._gauges, guest.description, guest.read_at, off=guest.shut_off, remember=not trial
        )
        for gauge in ended:
            yield _zero(gauge, guest.description, guest.metadata, guest.read_at)
        guest.forget_subjects()


def _gone(reading: Reading, remembered: Remembered, cycle: ICycle) -> Iterator[Sample]:
    """Yield a last 0 of all gauges of domains that are gone for good, not of those that migrated away."""
    hypervisor = cycle.provider(IHypervisor)
    for uuid in list(remembered.gauges.missing(reading.listed - reading.elsewhere)):
        absence = hypervisor.absence(uuid)
        if absence.why == "unreadable" and uuid not in reading.elsewhere:
            continue
        gauges, description, told_at = remembered.gauges.forget(uuid)
        if absence.why == "migrated" or uuid in reading.elsewhere:
            continue
        # What was told of an earlier end, of a domain that was there afterwards, is not this one.
        end = absence.since if absence.since is not None and absence.since >= told_at else reading.read_at
        for gauge in gauges:
            if gauge.name != STATE:
                yield _zero(gauge, description, description.metadata, end)
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
    """Return whether ``row`` meters ``guest`` in its state: if the domain is ending, only counters are metered."""
    if guest.ending:
        return row.meter.type != "gauge"
    return row.when_off or not guest.shut_off


def _samples(
    row: Row, poll: _Poll, memory: Memory | None, seen: dict[str, set[str]], omissions: SkippedSamples, *, trial: bool
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
            reading, parts = _reading(row, poll, subject)
            if reading is not None:
                opening, sample = _of_reading(row, poll, subject, reading, parts, memory, trial=trial)
                if opening is not None:
                    yield opening
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


def _reading(row: Row, poll: _Poll, subject: Subject) -> tuple[tuple[int, int] | None, list[Parts | None] | None]:
    """Return the value of the first source that gives one, and its index; and what all are made of, where runs need that."""
    if poll.counters is None or not row.composed or not row.counts:
        return row.reading(subject), None
    parts = row.parts(subject)
    for source, each in enumerate(parts):
        if each is not None:
            return (sum(each.values()), source), parts
    return None, None


def _of_reading(
    row: Row,
    poll: _Poll,
    subject: Subject,
    reading: tuple[int, int],
    parts: list[Parts | None] | None,
    memory: Memory | None,
    *,
    trial: bool,
) -> tuple[Sample | None, Sample | None]:
    """Return the sample that opens the run of what ``row`` has read, where that has just begun, and the sample itself.

    There is none where there is nothing to compare with, or to name it after.
    """
    guest, counters = poll.guest, poll.counters
    value, source = reading
    volume: int | float | None = value
    metadata, opening = subject.metadata, None
    if counters is not None and parts is not None and subject.run is not None:
        run, opening = counters.sum(
            row.meter.name,
            subject.run,
            source,
            subject.processors,
            parts,
            lambda: row.label(source, parts, subject),
            guest.read_at,
        )
        metadata = guest.metadata_of_run(subject, run)
    elif counters is not None and memory is None and subject.from_zero and row.counts:
        opening = poll.opening(row, subject)
    if memory is not None:
        volume = memory.volume(subject, guest.read_at, guest.steady_seconds, value, source, parts, trial=trial)
    sample = _sample(row, guest, subject.resource_id, volume, metadata, guest.read_at)
    if sample is None:
        return None, None
    poll.note(row, sample)
    if opening is None or memory is not None:
        return None, sample
    return _sample(row, guest, subject.resource_id, opening.volume, metadata, opening.at), sample


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
