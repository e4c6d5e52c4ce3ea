"""The pollster of one family of rows of the table. All families share one snapshot of libvirt per cycle."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from meter.daemon.services import within
from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import ICycle
from meter.interfaces import IDomainPollster
from meter.interfaces import IHypervisor
from meter.interfaces import IPluginContext
from meter.interfaces import Unavailable
from meter.pollsters.libvirt.counter_runs import Counters
from meter.pollsters.libvirt.counter_runs import Opening
from meter.pollsters.libvirt.description import Description
from meter.pollsters.libvirt.gauge_ends import Gauge
from meter.pollsters.libvirt.gauge_ends import OpenGauges
from meter.pollsters.libvirt.guests import COUNT_STATISTICS
from meter.pollsters.libvirt.guests import Guest
from meter.pollsters.libvirt.guests import GuestSnapshot
from meter.pollsters.libvirt.guests import device_of
from meter.pollsters.libvirt.guests import take_snapshot
from meter.pollsters.libvirt.rates import PreviousValues
from meter.pollsters.libvirt.skipped import BAD_XML
from meter.pollsters.libvirt.skipped import ResourcesOfDomains
from meter.pollsters.libvirt.skipped import SkippedSamples
from meter.pollsters.libvirt.sources import BadStat
from meter.pollsters.libvirt.sources import Measured
from meter.pollsters.libvirt.sources import Parts
from meter.pollsters.libvirt.table import FAMILIES
from meter.pollsters.libvirt.table import FROM_XML
from meter.pollsters.libvirt.table import REQUIREMENTS
from meter.pollsters.libvirt.table import MeterRow
from meter.pollsters.libvirt.table import Scope
from meter.pollsters.libvirt.table import flavor_gpu_rows
from meter.sample import BadSample
from meter.sample import MeterDefinition
from meter.sample import Sample

GUESTS_PER_CHUNK = 100
"""All rows are metered for this many guests before the next ones: enough samples of one meter to fill a message, and
the samples of a guest close enough together that metadata which repeat are encoded once."""

STATE = "power.state"
"""A domain that no longer exists has no state, so this gauge is not ended with 0, which would be a state."""

END_EVENT = "gone"
"""``event`` in the metadata of the last samples of a domain, if libvirt reported when it was undefined or ended."""

PROBE_TIMEOUT_SECONDS = 3.0
"""A libvirt that does not respond in this time does not delay the start."""

BASIC_DRIVERS = ("test",)
"""libvirt drivers that provide only the state, the vCPUs and the memory of a domain."""


class PollsterState:
    """The state of one pollster between cycles: previous values by meter, counters, open gauges, logged reasons."""

    def __init__(self, rows: Sequence[MeterRow]) -> None:
        self.previous_values = {row.meter.name: PreviousValues(row.change) for row in rows if row.change is not None}
        self.counters: dict[str, Counters] = {}
        self.gauges = OpenGauges()
        self.from_xml = frozenset(row.scope for row in rows if row.scope in FROM_XML)
        self.resources = ResourcesOfDomains()
        self.logged: Mapping[str, str] = {}

    def counters_of(self, guest: Guest, *, trial: bool) -> Counters | None:
        """Return the counters of the guest's present run, ``None`` if it has no run."""
        if guest.run is None:
            return None
        known = self.counters.get(guest.uuid)
        if known is None or known.domain_run != guest.run:
            known = Counters(guest.run)
            if not trial:
                self.counters[guest.uuid] = known
        elif trial:
            known = deepcopy(known)
        known.begin_poll(guest.began_at)
        return known


@implementer(IDomainPollster)
@dataclass(frozen=True, slots=True)
class GuestPollster:
    """Meters a family of rows on every guest. A volume that libvirt does not provide is skipped."""

    name: str
    options: Any = None

    @property
    def rows(self) -> tuple[MeterRow, ...]:
        """The rows of the pollster's family."""
        return FAMILIES[self.name]

    @property
    def meters(self) -> tuple[MeterDefinition, ...]:
        """The meters of the rows."""
        return tuple(row.meter for row in self.rows)

    def configured(self, options: Any) -> GuestPollster:
        """Return the pollster: it has no options of its own; ``[compute]`` applies to all of them."""
        return self

    async def enabled(self, context: IPluginContext) -> Enabled | Disabled:
        """Return whether the daemon has a hypervisor whose driver provides the statistics, reachable now or not."""
        try:
            hypervisor = context.provider(IHypervisor)
        except LookupError:
            return Disabled("no hypervisor is configured")
        driver = hypervisor.uri.partition(":")[0].partition("+")[0]
        if driver in BASIC_DRIVERS and self.name in ("perf", "disk", "disk.device", "network.interface", "gpu"):
            return Disabled(f"libvirt's {driver} driver does not provide these statistics")
        if driver != "qemu" and self.name == "perf":
            return Disabled(f"only libvirt's qemu driver provides perf events, not {driver}")
        if self.name not in REQUIREMENTS:
            return Enabled()
        return Enabled(await self._count_lacking(hypervisor, context.clock))

    async def _count_lacking(self, hypervisor: IHypervisor, clock: IReactorTime) -> str:
        """Return how many of the running domains lack the statistics, ``""`` if none; domains started later may not."""
        prefix, requirement = REQUIREMENTS[self.name]
        try:
            domains = await within(clock, PROBE_TIMEOUT_SECONDS, hypervisor.domains())
        except (Unavailable, DeferredTimeout):
            return ""
        running = [domain for domain in domains if domain.run is not None]
        lacking = [each for each in running if not any(name.startswith(prefix) for name in each.stats)]
        return f"running domains without {requirement}: {len(lacking)} of {len(running)}" if lacking else ""

    async def poll(self, cycle: ICycle) -> Iterable[Sample]:
        """Return the samples of all guests and their devices, as a lazy iterator."""
        snapshot: GuestSnapshot = await cycle.cycle_cache("libvirt snapshot", lambda: take_snapshot(cycle))
        state: PollsterState = cycle.daemon_cache(("libvirt pollster", self.name), lambda: PollsterState(self.rows))
        return self._samples(snapshot, state, cycle)

    def _samples(self, snapshot: GuestSnapshot, state: PollsterState, cycle: ICycle) -> Iterator[Sample]:
        skipped = SkippedSamples(self.name, state.logged)
        for uuid, why in snapshot.unreadable.items():
            if self.name == "instance":
                skipped.log(f"domain {uuid}", why, BAD_XML)
            else:
                skipped.count(BAD_XML)
        seen: dict[str, set[str]] = {meter: set() for meter in state.previous_values}
        for first in range(0, len(snapshot.guests), GUESTS_PER_CHUNK):
            polls = [
                _GuestPoll(guest, state, trial=cycle.trial)
                for guest in snapshot.guests[first : first + GUESTS_PER_CHUNK]
            ]
            for row in self.rows:
                previous = state.previous_values.get(row.meter.name)
                for poll in polls:
                    if is_metered(row, poll.guest):
                        yield from _samples(row, poll, previous, seen, skipped, state.resources, trial=cycle.trial)
                    elif row.zero_when_off and poll.guest.shut_off and poll.guest.description.by_nova:
                        yield poll.zero(row)
            for poll in polls:
                if snapshot.complete and not cycle.trial and poll.guest.uuid not in snapshot.incomplete:
                    state.resources.read(poll.guest)
                yield from poll.end(state, trial=cycle.trial)
        if snapshot.complete:
            state.logged = skipped.reasons
            if not cycle.trial:
                for meter, previous in state.previous_values.items():
                    previous.forget_all_but(seen[meter])
                skipped.look_for_missing(snapshot, state.resources, cycle.provider(IHypervisor))
                yield from _end_gauges_of_gone_domains(snapshot, state, cycle)
        skipped.report(cycle)


class FlavorGpuPollster(GuestPollster):
    """Meters the GPUs that flavors ask for."""

    @property
    def rows(self) -> tuple[MeterRow, ...]:
        """The rows, with the names in extra specs that stand for GPUs."""
        return flavor_gpu_rows(self.options)

    def configured(self, options: Any) -> GuestPollster:
        """Return the pollster with ``options``."""
        return FlavorGpuPollster(self.name, options)


class _GuestPoll:
    """One poll of one guest by one pollster."""

    def __init__(self, guest: Guest, state: PollsterState, *, trial: bool) -> None:
        self.guest = guest
        self.counters = state.counters_of(guest, trial=trial)
        self._gauges: list[Gauge] = []
        self._new_devices: dict[str, frozenset[str]] = {}
        self.measured_scopes: set[Scope] = set()

    def opening(self, row: MeterRow, measured: Measured) -> Opening | None:
        """Return the earlier value of the counter of ``measured`` if its run has just begun, else ``None``."""
        counters = self.counters
        if counters is None:
            return None
        if counters.began_at is not None:
            return counters.from_zero(self.guest.read_at)
        if row.scope not in COUNT_STATISTICS:
            return None
        replacement = self.guest.replaced.get(measured.prefix)
        if replacement is not None and not counters.polled_since(replacement.noticed_at):
            return counters.from_zero_after(replacement.last_seen, self.guest.read_at)
        new = self._new_devices.get(row.scope)
        if new is None:
            names = frozenset(map(device_of, self.guest.measured(row.scope)))
            new = self._new_devices[row.scope] = counters.new_devices(row.scope, names)
        return counters.from_zero(self.guest.read_at, row.scope) if new and device_of(measured) in new else None

    def record(self, row: MeterRow, sample: Sample) -> None:
        """Record that ``sample`` was sent, if it is a gauge."""
        if row.meter.type == "gauge":
            gauge = Gauge(sample.name, sample.unit, sample.resource_id, row.ends_with_run, row.ends_with_device)
            self._gauges.append(gauge)

    def zero(self, row: MeterRow) -> Sample:
        """Return the sample of ``row`` of a domain that is shut off."""
        guest = self.guest
        gauge = Gauge(row.meter.name, row.meter.unit, guest.uuid, row.ends_with_run)
        self._gauges.append(gauge)
        return _zero(gauge, guest.description, guest.metadata, guest.read_at)

    def end(self, state: PollsterState, *, trial: bool) -> Iterator[Sample]:
        """End the poll; yield a last 0 of each gauge that a domain does not have while it is shut off."""
        guest = self.guest
        if self.counters is not None:
            self.counters.end_poll(guest.devices(), guest.read_at)
        ended = state.gauges.update(
            guest.uuid,
            self._gauges,
            guest.description,
            guest.read_at,
            off=guest.shut_off,
            devices_known=self.measured_scopes.issuperset(state.from_xml),
            remember=not trial,
        )
        for gauge in ended:
            yield _zero(gauge, guest.description, guest.metadata, guest.read_at)
        guest.free_measured()


def _end_gauges_of_gone_domains(snapshot: GuestSnapshot, state: PollsterState, cycle: ICycle) -> Iterator[Sample]:
    """Yield a last 0 of all gauges of domains that no longer exist; those that migrated away run elsewhere."""
    hypervisor = cycle.provider(IHypervisor)
    for uuid in list(state.gauges.missing(snapshot.listed - snapshot.elsewhere)):
        absence = hypervisor.absence(uuid)
        if absence.why == "unreadable" and uuid not in snapshot.elsewhere:
            continue
        gauges, description, sent_at = state.gauges.forget(uuid)
        if absence.why == "migrated" or uuid in snapshot.elsewhere:
            continue
        # An absence that began before the last sample was another one, after which the domain was back.
        told = absence.since is not None and absence.since >= sent_at
        end = absence.since if told and absence.since is not None else snapshot.read_at
        metadata = {**description.metadata, "event": END_EVENT} if told else description.metadata
        for gauge in gauges:
            if gauge.name != STATE:
                yield _zero(gauge, description, metadata, end)
    for uuid in state.counters.keys() - snapshot.listed:
        if hypervisor.absence(uuid).why != "unreadable":
            del state.counters[uuid]


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


def is_metered(row: MeterRow, guest: Guest) -> bool:
    """Return whether ``row`` meters ``guest`` in its present state; of a domain that is ending only counters are metered."""
    if guest.ending:
        return row.meter.type != "gauge"
    return row.when_off or not guest.shut_off


def _samples(
    row: MeterRow,
    poll: _GuestPoll,
    previous: PreviousValues | None,
    seen: dict[str, set[str]],
    skipped: SkippedSamples,
    resources: ResourcesOfDomains,
    *,
    trial: bool,
) -> Iterator[Sample]:
    """Yield the samples of everything that ``row`` measures of a guest; record what is skipped."""
    meter, guest = row.meter.name, poll.guest
    try:
        all_measured = guest.measured(row.scope)
    except BadStat as error:
        skipped.log(f"{meter} of {guest.uuid}", str(error), error.reason, resources.of(guest.uuid))
        return
    poll.measured_scopes.add(row.scope)
    for measured in all_measured:
        if previous is not None:
            seen[meter].add(measured.resource_id)
        try:
            value, parts = _read(row, poll, measured)
            if value is not None:
                opening, sample = _opening_and_sample(row, poll, measured, value, parts, previous, trial=trial)
                if opening is not None:
                    yield opening
                if sample is not None:
                    yield sample
            elif row.if_missing == "logged":
                needed = row.needed_statistics(measured.prefix)
                skipped.log(f"{meter} of {measured.resource_id}", f"libvirt does not provide {needed}", "missing")
            elif row.if_missing == "counted":
                skipped.count("missing")
        except BadStat as error:
            poll.measured_scopes.discard(row.scope)
            skipped.log(f"{meter} of {measured.resource_id}", str(error), error.reason, (measured.resource_id,))
        except BadSample as error:
            skipped.log(f"{meter} of {measured.resource_id}", str(error), "invalid", (measured.resource_id,))


def _read(
    row: MeterRow, poll: _GuestPoll, measured: Measured
) -> tuple[tuple[int, int] | None, list[Parts | None] | None]:
    """Return the value of the first source that has one and its index; and the parts of all sources if runs need them."""
    if poll.counters is None or not row.composed or not row.is_counter:
        return row.read(measured), None
    parts = row.parts(measured)
    for source_index, each in enumerate(parts):
        if each is not None:
            return (sum(each.values()), source_index), parts
    return None, None


def _opening_and_sample(
    row: MeterRow,
    poll: _GuestPoll,
    measured: Measured,
    value_and_source: tuple[int, int],
    parts: list[Parts | None] | None,
    previous: PreviousValues | None,
    *,
    trial: bool,
) -> tuple[Sample | None, Sample | None]:
    """Return the opening sample of a run that has just begun, and the sample itself.

    Either may be ``None``: a rate needs a previous value, a meter that is named after the flavor needs a flavor.
    """
    guest, counters = poll.guest, poll.counters
    value, source_index = value_and_source
    volume: int | float | None = value
    metadata, opening = measured.metadata, None
    if counters is not None and parts is not None and measured.run is not None:
        run, opening = counters.sum(
            row.meter.name,
            measured.run,
            source_index,
            measured.processors,
            parts,
            row.label(source_index, measured),
            guest.read_at,
        )
        metadata = guest.metadata_of_run(measured, run)
    elif counters is not None and previous is None and measured.from_zero and row.is_counter:
        opening = poll.opening(row, measured)
    if previous is not None:
        volume = previous.change(
            measured, guest.read_at, guest.monotonic_seconds, value, source_index, parts, trial=trial
        )
    sample = _sample(row, guest, measured.resource_id, volume, metadata, guest.read_at)
    if sample is None:
        return None, None
    poll.record(row, sample)
    if opening is None or previous is not None:
        return None, sample
    return _sample(row, guest, measured.resource_id, opening.volume, metadata, opening.at), sample


def _sample(
    row: MeterRow, guest: Guest, resource_id: str, volume: int | float | None, metadata: Mapping[str, Any], at: datetime
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
