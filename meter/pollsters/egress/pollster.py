"""The pollster of traffic by class: it keeps the table of nftables as the taps are, and makes samples of its counters."""

from __future__ import annotations

import socket
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import ClassVar
from typing import NamedTuple

from twisted.plugin import IPlugin
from zope.interface import implementer

from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import ICycle
from meter.interfaces import IDomainPollster
from meter.interfaces import IHypervisor
from meter.interfaces import IPluginContext
from meter.interfaces import Unavailable
from meter.pollsters.egress.listing import Traffic
from meter.pollsters.egress.nftables import Nftables
from meter.pollsters.egress.nftables import NftFailed
from meter.pollsters.egress.options import EgressOptions
from meter.pollsters.egress.plan import ByClass
from meter.pollsters.egress.plan import KnownCounters
from meter.pollsters.egress.plan import Plan
from meter.pollsters.egress.plan import TapPort
from meter.pollsters.egress.plan import Wanted
from meter.pollsters.egress.plan import counters_by_chain
from meter.pollsters.egress.plan import make_plan
from meter.pollsters.egress.ruleset import ETHERNET_HEADER_BYTES
from meter.pollsters.egress.ruleset import Direction
from meter.pollsters.egress.ruleset import TapChain
from meter.pollsters.egress.ruleset import add_chain
from meter.pollsters.egress.ruleset import add_table
from meter.pollsters.libvirt.counter_runs import JUST_BEFORE
from meter.pollsters.libvirt.guests import Guest
from meter.pollsters.libvirt.guests import GuestSnapshot
from meter.pollsters.libvirt.guests import host_settings
from meter.pollsters.libvirt.guests import take_snapshot
from meter.pollsters.libvirt.skipped import BAD_XML
from meter.pollsters.libvirt.skipped import ResourcesOfDomains
from meter.pollsters.libvirt.skipped import SkippedSamples
from meter.pollsters.libvirt.sources import BadStat
from meter.sample import MeterDefinition
from meter.sample import Sample
from meter.sample import run_text
from meter.sample import with_reserved

METERS: Mapping[Direction, tuple[MeterDefinition, MeterDefinition]] = {
    "outgoing": (
        MeterDefinition("network.outgoing.bytes:*", "cumulative", "B"),
        MeterDefinition("network.outgoing.packets:*", "cumulative", "packet"),
    ),
    "incoming": (
        MeterDefinition("network.incoming.bytes:*", "cumulative", "B"),
        MeterDefinition("network.incoming.packets:*", "cumulative", "packet"),
    ),
}

NO_TAP = "no tap"
REFUSED = "refused"
"""Reasons for samples that are skipped: labels of a metric."""


def devices_of_host() -> dict[str, int]:
    """Return the numbers of all network devices of this host, by name."""
    return {name: number for number, name in socket.if_nameindex()}


class EgressState:
    """What is known between polls: the ports by number of the tap, values of counters, resources, logged reasons."""

    def __init__(self) -> None:
        self.ports: dict[int, TapPort] = {}
        self.counters = KnownCounters()
        self.resources = ResourcesOfDomains()
        self.logged: Mapping[str, str] = {}

    def concerns(self, uuids: frozenset[str], ports: Mapping[int, TapPort], interfaces: Iterable[int]) -> bool:
        """Return whether these domains have new taps, or have lost some, since the last poll."""
        existing = set(interfaces)
        counted = {chain.interface for chain in self.counters.values}
        lost = (each for each in self.ports.values() if each.uuid in uuids and each.interface not in existing)
        return not counted.issuperset(ports) or any(lost)

    def take(self, plan: Plan, values: Mapping[TapChain, ByClass], ports: Mapping[int, TapPort]) -> None:
        """Take what a poll has found; ports are kept as long as there are counters of them."""
        chains = [*plan.remaining, *(chain for chain, _ in plan.new)]
        self.counters.values = {chain: values[chain] for chain in chains if chain in values}
        self.counters.sent = {*plan.ending}
        counted = {chain.interface for chain in self.counters.values}
        self.ports = {number: port for number, port in {**self.ports, **ports}.items() if number in counted}


@implementer(IPlugin, IDomainPollster)
@dataclass(frozen=True)
class EgressPollster:
    """Meters what each interface of an instance sends, and receives, by the class of the other end."""

    name: ClassVar[str] = "egress"
    meters: ClassVar[tuple[MeterDefinition, ...]] = (*METERS["outgoing"], *METERS["incoming"])
    options: EgressOptions = field(default_factory=EgressOptions)
    nftables: Nftables = field(default_factory=Nftables)
    devices: Callable[[], Mapping[str, int]] = devices_of_host
    sysfs: Path = Path("/sys")
    boot_id: Path = Path("/proc/sys/kernel/random/boot_id")

    def configured(self, options: EgressOptions) -> EgressPollster:
        """Return the pollster with ``options``."""
        return replace(self, options=options)

    async def enabled(self, context: IPluginContext) -> Enabled | Disabled:
        """Return whether there are classes, and this host has domains and an nftables that can count their traffic."""
        if not self.options.classes:
            return Disabled("no classes of destinations are configured")
        try:
            hypervisor = context.provider(IHypervisor)
        except LookupError:
            return Disabled("no hypervisor is configured")
        driver = hypervisor.uri.partition(":")[0]
        if "+" in driver:
            return Disabled(f"the taps of the domains of {hypervisor.uri} are on another host")
        if driver == "test":
            return Disabled("domains of libvirt's test driver have no network devices")
        classes = self.options.destination_classes()
        trial = [*add_table(classes)]
        for direction in self._directions:
            trial += add_chain(TapChain.new(direction, 1, self._boot(), classes.digest), "lo", classes)
        try:
            await self.nftables.check(trial)
        except NftFailed as error:
            return Disabled(f"nftables cannot count here: {error}")
        return Enabled()

    async def poll(self, cycle: ICycle) -> Iterable[Sample]:
        """Return the counters of all taps, after their chains were made or deleted."""
        snapshot: GuestSnapshot = await cycle.cycle_cache("libvirt snapshot", lambda: take_snapshot(cycle))
        state: EgressState = EgressState() if cycle.trial else cycle.daemon_cache("egress", EgressState)
        skipped = SkippedSamples(self.name, state.logged)
        devices = self.devices()
        ports = self._ports(snapshot, devices, state, skipped)
        found: list[_PortTraffic] = []
        if snapshot.complete or state.concerns(snapshot.listed, ports, devices.values()):
            try:
                plan, values = await self._update(ports, devices, state, skipped, trial=cycle.trial)
            except NftFailed as error:
                raise Unavailable(str(error)) from None
            found = _with_ports(plan, values, ports, state.ports, snapshot.read_at)
            if not cycle.trial:
                state.take(plan, values, ports)
        if snapshot.complete and not cycle.trial:
            state.logged = skipped.reasons
            skipped.look_for_missing(snapshot, state.resources, cycle.provider(IHypervisor))
        skipped.report(cycle)
        return _samples(found, host_settings(cycle).host)

    @property
    def _directions(self) -> tuple[Direction, ...]:
        return ("outgoing", "incoming") if self.options.incoming else ("outgoing",)

    def _boot(self) -> str:
        return self.boot_id.read_text(encoding="ascii")[:8]

    async def _update(
        self,
        ports: Mapping[int, TapPort],
        devices: Mapping[str, int],
        state: EgressState,
        skipped: SkippedSamples,
        *,
        trial: bool,
    ) -> tuple[Plan, dict[TapChain, ByClass]]:
        """Change the table as it shall be; return the values of all chains."""
        listing = await self.nftables.listing()
        wanted = Wanted(
            self.options.destination_classes(), self._boot(), self._directions, ports, set(devices.values())
        )
        plan = await self.nftables.compute(make_plan, listing, wanted, state.counters)
        if trial:
            plan.new, plan.ending = [], []
        elif plan.commands():
            await self._change(plan, skipped)
            if plan.ending:
                listing = await self.nftables.listing()
        read = counters_by_chain(listing)
        values: dict[TapChain, ByClass] = {chain: read.get(chain.name, {}) for chain in (*plan.remaining, *plan.ending)}
        for chain, _ in plan.new:
            values[chain] = dict.fromkeys(wanted.classes.names, Traffic())
        return plan, values

    async def _change(self, plan: Plan, skipped: SkippedSamples) -> None:
        """Change the table at once or, if that is refused, without the taps that are the reason: they may just have gone."""
        try:
            await self.nftables.change(plan.commands())
            return
        except NftFailed:
            await self.nftables.change([*plan.deletions, *plan.table, *plan.cleaning])
        added = []
        for chain, port in plan.new:
            try:
                await self.nftables.change(plan.additions[chain])
                added.append((chain, port))
            except NftFailed as error:
                skipped.log(f"{self.name} of {port.resource_id}", str(error), REFUSED, (port.resource_id,))
        plan.new = added

    def _ports(
        self, snapshot: GuestSnapshot, devices: Mapping[str, int], state: EgressState, skipped: SkippedSamples
    ) -> dict[int, TapPort]:
        """Return the ports of all running guests that have a tap; others are skipped."""
        found: dict[int, TapPort] = {}
        for _ in snapshot.unreadable:
            skipped.count(BAD_XML)
        for guest in snapshot.guests:
            ports = list(self._ports_of(guest, devices, state, skipped))
            found |= {port.interface: port for port in ports}
            if snapshot.complete and guest.uuid not in snapshot.incomplete:
                state.resources.read(guest, frozenset(port.resource_id for port in ports))
        return found

    def _ports_of(
        self, guest: Guest, devices: Mapping[str, int], state: EgressState, skipped: SkippedSamples
    ) -> Iterator[TapPort]:
        if guest.run is None or guest.shut_off:
            return
        try:
            interfaces = guest.interfaces()
        except BadStat as error:
            skipped.log(f"{self.name} of {guest.uuid}", str(error), error.reason, state.resources.of(guest.uuid))
            return
        for each in interfaces:
            device = each.metadata["vnic_name"]
            number = devices.get(device)
            if number is None:
                why = f"{device} is no network device of this host, as of vhost-user or SR-IOV"
            elif (self.sysfs / "class/net" / device / "macvtap").exists():
                why = f"{device} is a macvtap, whose packets do not pass through it to this host"
            else:
                owner = guest.description
                yield TapPort(
                    device, number, guest.uuid, each.resource_id, each.metadata, owner.project_id, owner.user_id
                )
                continue
            skipped.log(f"{self.name} of {each.resource_id}", why, NO_TAP)


class _PortTraffic(NamedTuple):
    """The counters of a chain at a time, with the port that they are of."""

    port: TapPort
    chain: TapChain
    by_class: ByClass
    at: datetime


def _with_ports(
    plan: Plan,
    values: Mapping[TapChain, ByClass],
    present: Mapping[int, TapPort],
    former: Mapping[int, TapPort],
    at: datetime,
) -> list[_PortTraffic]:
    """Return the values with their ports. Chains that have ended are those of the ports that had the taps, just before."""
    found = []
    for chain in plan.ending:
        port = present.get(chain.interface) or former.get(chain.interface)
        if port is not None:
            # Another time than that of the first sample of the next chain: a series has one sample at a time.
            found.append(_PortTraffic(port, chain, values[chain], at - JUST_BEFORE))
    for chain in (*plan.remaining, *(chain for chain, _ in plan.new)):
        if chain.interface in present:
            found.append(_PortTraffic(present[chain.interface], chain, values[chain], at))
    return found


def _samples(found: Iterable[_PortTraffic], host: str) -> Iterator[Sample]:
    for port, chain, by_class, at in found:
        of_bytes, of_packets = METERS[chain.direction]
        header = ETHERNET_HEADER_BYTES[chain.direction]
        for class_name, traffic in by_class.items():
            metadata = with_reserved({**port.metadata, "class": class_name}, run=run_text(host, chain.name))
            volumes = ((of_bytes, traffic.bytes + header * traffic.packets), (of_packets, traffic.packets))
            for meter, volume in volumes:
                yield Sample(
                    name=meter.name[:-1] + class_name,
                    type=meter.type,
                    unit=meter.unit,
                    volume=volume,
                    resource_id=port.resource_id,
                    timestamp=at,
                    project_id=port.project_id,
                    user_id=port.user_id,
                    resource_metadata=metadata,
                )
