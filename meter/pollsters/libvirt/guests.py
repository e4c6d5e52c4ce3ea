"""Guests: domains at one time, with their devices and the metadata of their samples."""

from __future__ import annotations

import socket
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from functools import partial
from typing import Any

from meter.daemon.services import Slices
from meter.daemon.services import wall_seconds
from meter.interfaces import Domain
from meter.interfaces import ICycle
from meter.interfaces import IHypervisor
from meter.pollsters.libvirt.description import Description
from meter.pollsters.libvirt.description import HostSettings
from meter.pollsters.libvirt.description import describe
from meter.pollsters.libvirt.domain_runs import DomainRun
from meter.pollsters.libvirt.domain_runs import DomainRuns
from meter.pollsters.libvirt.host_devices import DeviceReader
from meter.pollsters.libvirt.host_devices import UnknownDevice
from meter.pollsters.libvirt.nova_metadata import BadDomain
from meter.pollsters.libvirt.replaced_devices import ReplacedDevices
from meter.pollsters.libvirt.replaced_devices import Replacement
from meter.pollsters.libvirt.sources import MAX_DEVICES
from meter.pollsters.libvirt.sources import BadStat
from meter.pollsters.libvirt.sources import Measured
from meter.pollsters.libvirt.sources import devices
from meter.pollsters.libvirt.sources import number
from meter.pollsters.libvirt.table import Scope
from meter.pollsters.libvirt.vm_states import RUNNING
from meter.pollsters.libvirt.vm_states import SHUT_OFF
from meter.pollsters.libvirt.vm_states import SHUTTING_DOWN
from meter.pollsters.libvirt.vm_states import states_of
from meter.sample import RESERVED_METADATA
from meter.sample import run_text
from meter.sample import with_reserved
from meter.settings import ComputeSection


class Guest:
    """A domain as it was at ``read_at``; ``monotonic_seconds`` is the same time by a clock that cannot be set.

    ``ending``: the domain is about to stop, after which it is polled again, or is about to migrate to another host.
    ``run`` is the name of its run, unique over all hosts. ``began_at`` is when its counters were 0, ``None`` if unknown.
    ``replaced`` has the devices that replaced others of their name during the run, by the prefixes of their statistics.
    """

    def __init__(
        self,
        domain: Domain,
        description: Description,
        read_at: datetime,
        monotonic_seconds: float,
        run: str | None = None,
        began_at: datetime | None = None,
        *,
        leaving: bool = False,
        device_reader: DeviceReader | None = None,
        replaced: ReplacedDevices | None = None,
        remember: bool = True,
    ) -> None:
        self._device_reader = device_reader
        self.uuid = domain.uuid
        self.description = description
        self.read_at = read_at
        self.monotonic_seconds = monotonic_seconds
        self.run = run
        self.began_at = began_at
        self._domain = domain
        self._stats = domain.stats
        self._disks: Mapping[str, str] | None = None
        self._metadata_of_runs: dict[tuple[int, str], Mapping[str, Any]] = {}
        state = domain.stats.get("state.state")
        self.shut_off = state == SHUT_OFF
        self.ending = leaving or (state == SHUTTING_DOWN and domain.event is not None)
        self.metadata = self._metadata()
        self._measured: dict[Scope, list[Measured]] = {}
        self.replaced = {} if replaced is None else self._replaced_devices(replaced, remember=remember)

    def measured(self, scope: Scope) -> list[Measured]:
        """Return what a row of ``scope`` measures; raise :class:`~meter.pollsters.libvirt.sources.BadStat`."""
        measured = self._measured.get(scope)
        if measured is None:
            measured = self._measured[scope] = list(_SCOPES[scope](self))
        return measured

    def interfaces(self) -> list[Measured]:
        """Return the interfaces, without what :meth:`measured` does besides; raise as it does."""
        return list(self._measure_interfaces())

    def free_measured(self) -> None:
        """Drop the cached results of :meth:`measured`, which are most of a guest's memory."""
        self._measured.clear()
        self._metadata_of_runs.clear()

    def devices(self) -> dict[str, frozenset[str]]:
        """Return the devices that were measured, by kind, without the kinds whose number libvirt did not report."""
        return {
            scope: frozenset(map(device_of, measured))
            for scope, measured in self._measured.items()
            if scope in COUNT_STATISTICS and COUNT_STATISTICS[scope] in self._stats
        }

    def resource_ids(self) -> frozenset[str]:
        """Return the ids of the resources that were measured."""
        return frozenset(each.resource_id for measured in self._measured.values() for each in measured)

    def metadata_of_run(self, measured: Measured, run: str) -> Mapping[str, Any]:
        """Return the metadata of samples of ``measured`` in ``run``: the same object for all of them."""
        key = (id(measured.metadata), run)
        metadata = self._metadata_of_runs.get(key)
        if metadata is None:
            metadata = self._metadata_of_runs[key] = with_reserved(measured.metadata, run=run)
        return metadata

    def _metadata(self) -> Mapping[str, Any]:
        vm_state, power_state = states_of(self._domain)
        states = {"status": vm_state, "state": vm_state, "power_state": power_state, "task_state": ""}
        metadata = {**self.description.metadata, **states}
        if not self.description.by_nova:
            memory_kib = self._number("balloon.maximum")
            metadata["vcpus"] = self._number("vcpu.current")
            metadata["memory_mb"] = None if memory_kib is None else memory_kib // 1024
        return metadata if self.run is None else with_reserved(metadata, run=self.run)

    def _disk_names(self) -> Mapping[str, str]:
        """Return names of disks by their devices; a disk that is plugged in later at the same device has another name."""
        if self._disks is None:
            self._disks = {}
            for prefix in devices(self._stats, "block"):
                name = self._stats.get(f"{prefix}name")
                number = self.description.disks.get(str(name), self._stats.get(f"{prefix}backingIndex"))
                self._disks[str(name)] = str(name) if number is None else f"{name}.{number}"
        return self._disks

    def _number(self, name: str) -> int | None:
        try:
            return number(self._stats, name)
        except BadStat:
            return None

    def _replaced_devices(self, known: ReplacedDevices, *, remember: bool) -> dict[str, Replacement]:
        stats = self._stats
        found: dict[str, Replacement] = {}
        try:
            names = {prefix: ("net", str(stats.get(f"{prefix}name"))) for prefix in devices(stats, "net")}
            for index in range(min(number(stats, "vcpu.maximum") or 0, MAX_DEVICES)):
                if f"vcpu.{index}.state" in stats:
                    names[f"vcpu.{index}."] = ("vcpu", str(index))
        except BadStat:
            return found  # logged where the statistics are metered
        for prefix, (kind, name) in names.items():
            replacement = known.replacement(kind, name, stats, prefix, self.read_at, remember=remember)
            if replacement is not None:
                found[prefix] = replacement
        if remember:
            known.forget_gone(len(names))
        return found

    # --- scopes

    def _measure_domain(self) -> Iterator[Measured]:
        try:
            disks = self._disk_names()
        except BadStat:
            disks = {}
        yield Measured(self._stats, "", self.uuid, self.metadata, self.run, disks=disks)

    def _measure_state(self) -> Iterator[Measured]:
        event = self._domain.event
        metadata = self.metadata if event is None else {**self.metadata, "event": event}
        yield Measured(self._stats, "", self.uuid, metadata, self.run)

    def _measure_processors(self) -> Iterator[Measured]:
        metadata = {**self.metadata, "cpu_number": self._number("vcpu.current")}
        yield Measured(self._stats, "", self.uuid, metadata, self.run, processors=self._domain.processors)

    def _measure_vcpus(self) -> Iterator[Measured]:
        for index in range(min(number(self._stats, "vcpu.maximum") or 0, MAX_DEVICES)):
            if f"vcpu.{index}.state" in self._stats:
                metadata = {**self.metadata, "vcpu": index}
                yield Measured(self._stats, f"vcpu.{index}.", f"{self.uuid}-vcpu{index}", metadata, self.run)

    def _measure_disks(self) -> Iterator[Measured]:
        for prefix in devices(self._stats, "block"):
            name = self._stats.get(f"{prefix}name")
            if isinstance(name, str) and name:
                # libvirt gives every image a new number: a disk that is plugged in again has another run.
                run = None if self.run is None else run_text(self.run, self._disk_names()[name])
                metadata = {**self.metadata, "disk_name": name}
                if run is not None:
                    metadata[RESERVED_METADATA] = {"run": run}
                yield Measured(self._stats, prefix, f"{self.uuid}-{name}", metadata, run)

    def _measure_interfaces(self) -> Iterator[Measured]:
        for prefix in devices(self._stats, "net"):
            name = self._stats.get(f"{prefix}name")
            if isinstance(name, str) and name:
                interface = self.description.interfaces.get(name)
                described: dict[str, Any] = {
                    "name": name,
                    "mac": interface.mac if interface else None,
                    "fref": interface.filter if interface else None,
                    "parameters": interface.parameters if interface else {},
                    "vnic_name": name,
                }
                # Ceilometer's resource id. Only Nova creates a filter per interface: others share "clean-traffic".
                own_filter = described["fref"] if self.description.by_nova else None
                resource_id = own_filter or f"{self._domain.name}-{self.uuid}-{name}"
                from_zero = interface is None or interface.counts_from_zero
                metadata = {**self.metadata, **described}
                yield Measured(self._stats, prefix, resource_id, metadata, self.run, from_zero=from_zero)

    def _measure_gpus(self, *, virtual: bool) -> Iterator[Measured]:
        # Nova reserves the devices of a domain that is shut off; of another domain the XML only says what it would have.
        if self._device_reader is None or (self.shut_off and not self.description.by_nova):
            return
        try:
            gpus = self._device_reader.gpus(self.description.host_devices)
        except UnknownDevice as error:
            raise BadStat(str(error), "unknown") from None
        for gpu in gpus:
            if gpu.virtual == virtual:
                described = {"device": gpu.name, "vendor_id": gpu.vendor_id, "product_id": gpu.product_id}
                metadata = {**self.metadata, **described, **({"vgpu_type": gpu.type} if gpu.type else {})}
                yield Measured(self._stats, "", f"{self.uuid}-{gpu.name}", metadata, self.run)

    def _measure_flavor(self) -> Iterator[Measured]:
        # Nova writes extra specs into the XML since 2025.2; of older domains it is not known what their flavors ask for.
        if self.description.by_nova and "extra_specs" in (self.metadata["flavor"] or {}):
            yield Measured(self._stats, "", self.uuid, self.metadata, self.run)


_SCOPES: Mapping[Scope, Callable[[Guest], Iterator[Measured]]] = {
    "domain": Guest._measure_domain,
    "state": Guest._measure_state,
    "processors": Guest._measure_processors,
    "vcpu": Guest._measure_vcpus,
    "disk": Guest._measure_disks,
    "interface": Guest._measure_interfaces,
    "gpu": partial(Guest._measure_gpus, virtual=False),
    "vgpu": partial(Guest._measure_gpus, virtual=True),
    "flavor": Guest._measure_flavor,
}


COUNT_STATISTICS: Mapping[Scope, str] = {"vcpu": "vcpu.current", "disk": "block.count", "interface": "net.count"}
"""The statistic with the number of devices of a kind; if it exists, libvirt has reported all of them."""


def device_of(measured: Measured) -> str:
    """Return a name of the measured device; a device that replaces another has a different name."""
    return f"{measured.resource_id} {measured.run}"


class GuestSnapshot:
    """The guests of this host at one time; ``unreadable`` maps the UUIDs of domains without a guest to the reason.

    ``complete``: it has all domains, not only one that had an event. ``listed`` has the UUIDs of all domains that libvirt
    lists, ``elsewhere`` those of domains that run on another host. ``incomplete`` maps the UUIDs of domains that libvirt could not
    read, or not completely, to the reason.
    """

    def __init__(
        self,
        guests: list[Guest],
        unreadable: Mapping[str, str],
        *,
        complete: bool,
        read_at: datetime,
        listed: frozenset[str] = frozenset(),
        elsewhere: frozenset[str] = frozenset(),
        incomplete: Mapping[str, str] | None = None,
    ) -> None:
        self.guests = guests
        self.unreadable = unreadable
        self.complete = complete
        self.read_at = read_at
        self.listed = listed
        self.elsewhere = elsewhere
        self.incomplete = incomplete or {}


class DescriptionCache:
    """The description of each domain, parsed again when its XML has changed."""

    def __init__(self, settings: HostSettings) -> None:
        self.host = settings.host
        self._settings = settings
        self._cached: dict[str, tuple[str, Description | BadDomain]] = {}

    def __len__(self) -> int:
        return len(self._cached)

    def get(self, domain: Domain) -> Description:
        """Return the description of ``domain``; raise :class:`~meter.pollsters.libvirt.nova_metadata.BadDomain`."""
        xml, description = self._cached.get(domain.uuid, (None, None))
        if description is None or xml != domain.xml:
            try:
                description = describe(domain, self._settings)
            except BadDomain as error:
                description = error
            self._cached[domain.uuid] = domain.xml, description
        if isinstance(description, BadDomain):
            raise description
        return description

    def forget_all_but(self, uuids: set[str]) -> None:
        """Delete the descriptions of all other domains."""
        for uuid in self._cached.keys() - uuids:
            del self._cached[uuid]


async def take_snapshot(cycle: ICycle) -> GuestSnapshot:
    """Return the guests of the daemon's hypervisor; raise :class:`~meter.interfaces.Unavailable`."""
    hypervisor = cycle.provider(IHypervisor)
    domains = await hypervisor.domains()
    now = datetime.fromtimestamp(wall_seconds(cycle.clock), UTC)
    monotonic_seconds = cycle.clock.seconds()
    descriptions: DescriptionCache = cycle.daemon_cache(
        "libvirt descriptions", lambda: DescriptionCache(host_settings(cycle))
    )
    runs: DomainRuns = cycle.daemon_cache("libvirt domain runs", lambda: DomainRuns(now))
    device_reader: DeviceReader = cycle.daemon_cache("libvirt host devices", DeviceReader)
    host = descriptions.host
    slices = Slices(cycle.clock)
    guests = []
    unreadable = {}
    elsewhere = set()
    for domain in domains:
        if slices.over:
            await slices.pause()
        at = domain.read_at or now
        presence, domain_run = runs.observe(domain, at, hypervisor.absence, remember=not cycle.trial)
        if presence == "elsewhere":
            elsewhere.add(domain.uuid)
        if presence != "here":
            continue
        try:
            description = descriptions.get(domain)
            if domain_run is None:
                guests.append(Guest(domain, description, at, monotonic_seconds, device_reader=device_reader))
            else:
                run = run_text(host, domain_run.name)
                seen = as_seen_by_owner(domain, domain_run)
                guest = Guest(
                    seen,
                    description,
                    at,
                    monotonic_seconds,
                    run,
                    domain_run.began_at,
                    leaving=domain_run.leaving,
                    device_reader=device_reader,
                    replaced=domain_run.devices,
                    remember=not cycle.trial,
                )
                guests.append(guest)
        except BadDomain as error:
            unreadable[domain.uuid] = str(error)
    complete = all(domain.event is None for domain in domains)
    listed = frozenset(domain.uuid for domain in domains)
    if complete and not cycle.trial:
        descriptions.forget_all_but(set(listed))
        runs.forget_all_but(set(listed), now)
        device_reader.forget_all_but({each for guest in guests for each in guest.description.host_devices})
    return GuestSnapshot(
        guests,
        unreadable,
        complete=complete,
        read_at=now,
        listed=listed,
        elsewhere=frozenset(elsewhere),
        incomplete=hypervisor.unreadable,
    )


def as_seen_by_owner(domain: Domain, domain_run: DomainRun) -> Domain:
    """Return ``domain`` as its owner sees it: during a migration it is running, though libvirt pauses it at the end."""
    if domain_run.leaving:
        return replace(domain, stats={**domain.stats, "state.state": RUNNING})
    return domain


def host_settings(cycle: ICycle) -> HostSettings:
    """Return the settings of this host in ``[compute]``."""
    settings: ComputeSection = cycle.config.compute if cycle.config is not None else ComputeSection()
    return HostSettings(
        host=settings.host or socket.gethostname(),
        default=(settings.default_project_id or None, settings.default_user_id or None),
        rules=settings.owners,
    )
