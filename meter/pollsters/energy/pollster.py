"""The pollster of energy: one reading of the counters and of all domains per cycle."""

from __future__ import annotations

import os
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from typing import ClassVar

from twisted.logger import Logger
from twisted.plugin import IPlugin
from zope.interface import implementer

from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import IComputePollster
from meter.interfaces import ICycle
from meter.interfaces import IHypervisor
from meter.interfaces import IPluginContext
from meter.interfaces import Unavailable
from meter.pollsters.energy.ledger import DomainUse
from meter.pollsters.energy.ledger import EnergyLedger
from meter.pollsters.energy.ledger import EnergyPoll
from meter.pollsters.energy.options import EnergyOptions
from meter.pollsters.energy.own_bmc import OwnBmc
from meter.pollsters.energy.own_bmc import WallPoll
from meter.pollsters.energy.rapl import POWERCAP
from meter.pollsters.energy.rapl import CpuTimes
from meter.pollsters.energy.rapl import EnergyUnreadable
from meter.pollsters.energy.rapl import energy_zones
from meter.pollsters.energy.rapl import readings
from meter.pollsters.energy.wall import WallLedger
from meter.pollsters.libvirt.guests import Guest
from meter.pollsters.libvirt.guests import host_settings
from meter.pollsters.libvirt.guests import take_snapshot
from meter.pollsters.libvirt.sources import BadStat
from meter.pollsters.libvirt.sources import number
from meter.pollsters.openstack.pollster import SkippedItems
from meter.pollsters.openstack.table import BadItem
from meter.pollsters.redfish.reading import ClientMaker
from meter.pollsters.redfish.reading import bmc_client
from meter.sample import MeterDefinition
from meter.sample import Sample
from meter.sample import run_text
from meter.sample import with_reserved

HOST_ENERGY = MeterDefinition("host.energy", "cumulative", "J")
HOST_OWN_ENERGY = MeterDefinition("host.energy.own", "cumulative", "J")
ENERGY = MeterDefinition("energy", "cumulative", "J")
CARBON = MeterDefinition("carbon", "cumulative", "g")
HOST_OWN_WALL_ENERGY = MeterDefinition("host.energy.wall.own", "cumulative", "J")
WALL_ENERGY = MeterDefinition("energy.wall", "cumulative", "J")

WALL_METHOD = "rapl+redfish"

JOULES_PER_KWH = 3_600_000


class _KeptLedger:
    """The ledger between two polls; none before the first."""

    ledger: EnergyLedger | None = None


@implementer(IPlugin, IComputePollster)
@dataclass(frozen=True)
class EnergyPollster:
    """Meters the energy of the host and of its running domains."""

    name: ClassVar[str] = "energy"
    meters: ClassVar[tuple[MeterDefinition, ...]] = (
        HOST_ENERGY,
        HOST_OWN_ENERGY,
        ENERGY,
        CARBON,
        HOST_OWN_WALL_ENERGY,
        WALL_ENERGY,
    )
    options: EnergyOptions = field(default_factory=EnergyOptions)
    powercap: Path = POWERCAP
    proc_stat: Path = Path("/proc/stat")
    make_client: ClientMaker = bmc_client

    _log: ClassVar[Logger] = Logger()

    def configured(self, options: EnergyOptions) -> EnergyPollster:
        """Return the pollster with ``options``."""
        return replace(self, options=options)

    async def enabled(self, context: IPluginContext) -> Enabled | Disabled:
        """Return whether there are counters that can be read, and a hypervisor on this host."""
        try:
            hypervisor = context.provider(IHypervisor)
        except LookupError:
            return Disabled("no hypervisor is configured")
        if "+" in hypervisor.uri.partition(":")[0]:
            return Disabled(f"the domains of {hypervisor.uri} are on another host")
        try:
            energy_zones(self.powercap)
        except EnergyUnreadable as error:
            return Disabled(f"the energy of the processors cannot be read: {error}")
        bmc = self._own_bmc
        return Enabled("" if bmc is None else bmc.remark(context))

    async def poll(self, cycle: ICycle) -> Iterable[Sample]:
        """Return the sums of energy of the host and of its running domains."""
        snapshot = await cycle.cycle_cache("libvirt snapshot", lambda: take_snapshot(cycle))
        guests = {guest.uuid: guest for guest in snapshot.guests if guest.run is not None and not guest.shut_off}
        domains = {uuid: use for uuid, guest in guests.items() if (use := _use(guest)) is not None}
        kept: _KeptLedger = _KeptLedger() if cycle.trial else cycle.daemon_cache("energy ledger", _KeptLedger)
        try:
            samples = list(self._samples(cycle, kept, guests, domains, snapshot.read_at))
        except EnergyUnreadable as error:
            raise Unavailable(f"the energy of the processors cannot be read: {error}") from None
        assert kept.ledger is not None
        if self._own_bmc is not None:
            samples += await self._wall_samples(self._own_bmc, cycle, kept.ledger, guests, domains)
        return samples

    @property
    def _own_bmc(self) -> OwnBmc | None:
        return None if self.options.bmc is None else OwnBmc(self.options.bmc, self.make_client)

    def _samples(
        self,
        cycle: ICycle,
        kept: _KeptLedger,
        guests: Mapping[str, Guest],
        domains: Mapping[str, DomainUse],
        at: datetime,
    ) -> Iterator[Sample]:
        zones = energy_zones(self.powercap)
        poll = EnergyPoll(at, cycle.clock.seconds(), readings(zones), CpuTimes.read(self.proc_stat), domains)
        ledger = kept.ledger
        openings: dict[str, datetime] = {}
        if ledger is not None:
            openings = {
                uuid: ledger.began_before(poll, uuid) for uuid, use in domains.items() if ledger.is_new(uuid, use.run)
            }
            if set(ledger.zones_j) != {zone.name for zone in zones} or not ledger.take(
                poll, share_idle=self.options.idle == "shared"
            ):
                self._log.warn(
                    "the energy since {at} is not known, and all sums begin again: there are other counters, or they may have begun"
                    " again more than once",
                    at=ledger.last_at,
                )
                ledger, openings = None, {}
        if ledger is None:
            ledger = kept.ledger = EnergyLedger(zones, os.cpu_count() or 1, os.sysconf("SC_CLK_TCK"), poll)
        yield from self._samples_of_host(ledger, host_settings(cycle).host, at)
        for uuid, use in domains.items():
            if uuid in openings:
                yield from self._samples_of_domain(ledger, guests[uuid], use, openings[uuid], 0)
            yield from self._samples_of_domain(ledger, guests[uuid], use, at, ledger.domains_j[uuid, use.run])

    def _samples_of_host(self, ledger: EnergyLedger, host: str, at: datetime) -> Iterator[Sample]:
        for zone, joules in ledger.zones_j.items():
            metadata = {"host": host, "zone": zone, "method": "rapl"}
            yield self._sample(HOST_ENERGY, joules, f"{host}/{zone}", metadata, run_text(host, *_since(ledger)), at)
        metadata = self._metadata({"host": host})
        yield self._sample(HOST_OWN_ENERGY, ledger.host_j, host, metadata, self._run(ledger, host), at)
        if self.options.carbon_g_per_kwh:
            metadata = self._with_factors(metadata)
            yield self._sample(
                CARBON, self._carbon(ledger.host_j), host, metadata, self._run(ledger, host, carbon=True), at
            )

    def _samples_of_domain(
        self, ledger: EnergyLedger, guest: Guest, use: DomainUse, at: datetime, joules: int
    ) -> Iterator[Sample]:
        metadata = self._metadata(guest.metadata)
        of_domain = {"project_id": guest.description.project_id, "user_id": guest.description.user_id}
        yield self._sample(ENERGY, joules, guest.uuid, metadata, self._run(ledger, use.run), at, **of_domain)
        if self.options.carbon_g_per_kwh:
            run = self._run(ledger, use.run, carbon=True)
            yield self._sample(
                CARBON, self._carbon(joules), guest.uuid, self._with_factors(metadata), run, at, **of_domain
            )

    async def _wall_samples(
        self,
        bmc: OwnBmc,
        cycle: ICycle,
        rapl: EnergyLedger,
        guests: Mapping[str, Guest],
        domains: Mapping[str, DomainUse],
    ) -> list[Sample]:
        """Return the shares of what the whole host takes, none while its BMC cannot be read: those are skipped."""
        host = host_settings(cycle).host
        skipped = SkippedItems(cycle, self.name)
        try:
            wall = await bmc.take(cycle, host, rapl)
        except BadItem as error:
            skipped.add(f"BMC of {host}", error, resources=(host, *domains))
            wall = None
        skipped.report()
        return [] if wall is None else list(self._samples_of_wall(wall, host, guests, domains))

    def _samples_of_wall(
        self, wall: WallPoll, host: str, guests: Mapping[str, Guest], domains: Mapping[str, DomainUse]
    ) -> Iterator[Sample]:
        ledger = wall.ledger
        metadata = {**self._metadata({"host": host}), "method": WALL_METHOD}
        yield self._sample(HOST_OWN_WALL_ENERGY, ledger.host_j, host, metadata, self._run(ledger, host), wall.at)
        for uuid, use in domains.items():
            described = guests[uuid].description
            metadata = {**self._metadata(guests[uuid].metadata), "method": WALL_METHOD}
            readings = [(wall.at, ledger.domains_j[uuid, use.run])]
            if wall.last_at is not None and (uuid, use.run) not in wall.known:
                readings.insert(0, (max(wall.last_at, use.began_at or wall.last_at), 0))
            for at, joules in readings:
                yield self._sample(
                    WALL_ENERGY,
                    joules,
                    uuid,
                    metadata,
                    self._run(ledger, use.run),
                    at,
                    project_id=described.project_id,
                    user_id=described.user_id,
                )

    def _metadata(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        return {**metadata, "method": "rapl", "idle": self.options.idle}

    def _with_factors(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        return {**metadata, "carbon_g_per_kwh": self.options.carbon_g_per_kwh, "pue": self.options.pue}

    def _carbon(self, joules: int) -> float:
        return joules / JOULES_PER_KWH * self.options.carbon_g_per_kwh * self.options.pue

    def _run(self, ledger: EnergyLedger | WallLedger, of: str, *, carbon: bool = False) -> str:
        """Return the run of a sum: it also changes with the options, by which parts are computed."""
        factors = [f"{self.options.carbon_g_per_kwh:g}", f"{self.options.pue:g}"] if carbon else []
        return run_text(of, *_since(ledger), self.options.idle, *factors)

    @staticmethod
    def _sample(
        meter: MeterDefinition,
        volume: int | float,
        resource_id: str,
        metadata: Mapping[str, Any],
        run: str,
        at: datetime,
        *,
        project_id: str | None = None,
        user_id: str | None = None,
    ) -> Sample:
        described = with_reserved(metadata, run=run)
        return meter.sample(
            volume, resource_id, at, project_id=project_id, user_id=user_id, resource_metadata=described
        )


def _since(ledger: EnergyLedger | WallLedger) -> list[str]:
    assert ledger.since is not None
    return [f"{ledger.since.timestamp():.3f}"]


def _use(guest: Guest) -> DomainUse | None:
    """Return what the shares depend on; ``None`` for a domain whose CPU time libvirt does not provide: the host has its share."""
    try:
        [measured] = guest.measured("domain")
        cpu_ns, vcpus = number(measured.stats, "cpu.time"), number(measured.stats, "vcpu.current")
    except BadStat:
        return None
    if cpu_ns is None or guest.run is None:
        return None
    return DomainUse(guest.run, cpu_ns, vcpus or 1, guest.began_at)
