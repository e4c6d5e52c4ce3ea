"""Guests: domains as they are metered, at one moment, with their devices and the metadata of their samples."""

from __future__ import annotations

import socket
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from typing import Any

from meter.daemon.services import Slices
from meter.daemon.services import wall_seconds
from meter.interfaces import Domain
from meter.interfaces import ICycle
from meter.interfaces import IHypervisor
from meter.pollsters.libvirt.description import Description
from meter.pollsters.libvirt.description import Local
from meter.pollsters.libvirt.description import describe
from meter.pollsters.libvirt.domain_runs import Life
from meter.pollsters.libvirt.domain_runs import Lives
from meter.pollsters.libvirt.nova_metadata import BadDomain
from meter.pollsters.libvirt.sources import BadStat
from meter.pollsters.libvirt.sources import Subject
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
    """A domain as it is metered at ``read_at``; ``steady_seconds`` is then by a clock that nobody sets.

    ``ending``: it was read because it is about to stop, which will be told too, or it is about to leave for another host,
    which runs it from the next moment on. ``run`` names its run over all hosts, and
    ``began`` is when its counters were at zero; ``None`` where that is not known.
    """

    def __init__(
        self,
        domain: Domain,
        description: Description,
        read_at: datetime,
        steady_seconds: float,
        run: str | None = None,
        began: datetime | None = None,
        *,
        leaving: bool = False,
    ) -> None:
        self.uuid = domain.uuid
        self.description = description
        self.read_at = read_at
        self.steady_seconds = steady_seconds
        self.run = run
        self.began = began
        self._domain = domain
        self._stats = domain.stats
        self._disks: Mapping[str, str] | None = None
        self._of_runs: dict[tuple[int, str], Mapping[str, Any]] = {}
        state = domain.stats.get("state.state")
        self.shut_off = state == SHUT_OFF
        self.ending = leaving or (state == SHUTTING_DOWN and domain.event is not None)
        self.metadata = self._metadata()
        self._subjects: dict[Scope, list[Subject]] = {}

    def subjects(self, scope: Scope) -> list[Subject]:
        """Return what a row of ``scope`` measures of it; raise :class:`~meter.pollsters.libvirt.sources.BadStat`."""
        found = self._subjects.get(scope)
        if found is None:
            found = self._subjects[scope] = list(_SCOPES[scope](self))
        return found

    def forget_subjects(self) -> None:
        """Let go of them, which are most of what a guest holds: other rows measure other subjects."""
        self._subjects.clear()
        self._of_runs.clear()

    def devices(self) -> dict[str, frozenset[str]]:
        """Return the devices whose counters are on their own, by their kinds, as far as libvirt tells which there are."""
        return {
            scope: frozenset(map(device_of, subjects))
            for scope, subjects in self._subjects.items()
            if scope in TELL_TALE and TELL_TALE[scope] in self._stats
        }

    def metadata_of_run(self, subject: Subject, run: str) -> Mapping[str, Any]:
        """Return the metadata of ``subject`` for samples of ``run``: the same object for all of them."""
        key = (id(subject.metadata), run)
        found = self._of_runs.get(key)
        if found is None:
            found = self._of_runs[key] = with_reserved(subject.metadata, run=run)
        return found

    def _metadata(self) -> Mapping[str, Any]:
        vm_state, power_state = states_of(self._domain)
        states = {"status": vm_state, "state": vm_state, "power_state": power_state, "task_state": ""}
        metadata = {**self.description.metadata, **states}
        if not self.description.by_nova:
            memory_kib = self._known("balloon.maximum")
            metadata["vcpus"] = self._known("vcpu.current")
            metadata["memory_mb"] = None if memory_kib is None else memory_kib // 1024
        return metadata if self.run is None else with_reserved(metadata, run=self.run)

    def _disk_names(self) -> Mapping[str, str]:
        """Name disks so that one that is plugged in later has another name than an earlier one at the same device."""
        if self._disks is None:
            self._disks = {}
            for prefix in devices(self._stats, "block"):
                name = self._stats.get(f"{prefix}name")
                number = self.description.disks.get(str(name), self._stats.get(f"{prefix}backingIndex"))
                self._disks[str(name)] = str(name) if number is None else f"{name}.{number}"
        return self._disks

    def _known(self, name: str) -> int | None:
        try:
            return number(self._stats, name)
        except BadStat:
            return None

    # --- scopes

    def _itself(self) -> Iterator[Subject]:
        try:
            disks = self._disk_names()
        except BadStat:
            disks = {}
        yield Subject(self._stats, "", self.uuid, self.metadata, self.run, disks=disks)

    def _its_state(self) -> Iterator[Subject]:
        event = self._domain.event
        metadata = self.metadata if event is None else {**self.metadata, "event": event}
        yield Subject(self._stats, "", self.uuid, metadata, self.run)

    def _its_processors(self) -> Iterator[Subject]:
        metadata = {**self.metadata, "cpu_number": self._known("vcpu.current")}
        yield Subject(self._stats, "", self.uuid, metadata, self.run, processors=self._domain.processors)

    def _each_vcpu(self) -> Iterator[Subject]:
        for index in range(min(number(self._stats, "vcpu.maximum") or 0, 4096)):
            if f"vcpu.{index}.state" in self._stats:
                metadata = {**self.metadata, "vcpu": index}
                yield Subject(self._stats, f"vcpu.{index}.", f"{self.uuid}-vcpu{index}", metadata, self.run)

    def _each_disk(self) -> Iterator[Subject]:
        for prefix in devices(self._stats, "block"):
            name = self._stats.get(f"{prefix}name")
            if isinstance(name, str) and name:
                # libvirt gives every image a number of its own: a disk that comes back is another one.
                run = None if self.run is None else run_text(self.run, self._disk_names()[name])
                metadata = {**self.metadata, "disk_name": name}
                if run is not None:
                    metadata[RESERVED_METADATA] = {"run": run}
                yield Subject(self._stats, prefix, f"{self.uuid}-{name}", metadata, run)

    def _each_interface(self) -> Iterator[Subject]:
        for prefix in devices(self._stats, "net"):
            name = self._stats.get(f"{prefix}name")
            if isinstance(name, str) and name:
                interface = self.description.interfaces.get(name)
                told: dict[str, Any] = {
                    "name": name,
                    "mac": interface.mac if interface else None,
                    "fref": interface.filter if interface else None,
                    "parameters": interface.parameters if interface else {},
                    "vnic_name": name,
                }
                # As Ceilometer names them. But only Nova makes a filter per interface: "clean-traffic" is everyone's.
                own_filter = told["fref"] if self.description.by_nova else None
                resource_id = own_filter or f"{self._domain.name}-{self.uuid}-{name}"
                from_zero = interface is None or interface.made_for_it
                metadata = {**self.metadata, **told}
                yield Subject(self._stats, prefix, resource_id, metadata, self.run, from_zero=from_zero)


_SCOPES: Mapping[Scope, Callable[[Guest], Iterator[Subject]]] = {
    "domain": Guest._itself,
    "state": Guest._its_state,
    "processors": Guest._its_processors,
    "vcpu": Guest._each_vcpu,
    "disk": Guest._each_disk,
    "interface": Guest._each_interface,
}


TELL_TALE: Mapping[Scope, str] = {"vcpu": "vcpu.current", "disk": "block.count", "interface": "net.count"}
"""The statistic that says that libvirt has told of all devices of a kind."""


def device_of(subject: Subject) -> str:
    """Name the device that a subject is, so that one which takes the place of another has another name."""
    return f"{subject.resource_id} {subject.run}"


class Reading:
    """The guests of this host, and why the ``unreadable`` domains are not among them, by UUID.

    ``whole`` says whether these are all domains, or one to which something has happened. ``listed`` has the UUIDs of all
    domains that libvirt has, ``elsewhere`` of those that another host runs.
    """

    def __init__(
        self,
        guests: list[Guest],
        unreadable: Mapping[str, str],
        *,
        whole: bool,
        read_at: datetime,
        listed: frozenset[str] = frozenset(),
        elsewhere: frozenset[str] = frozenset(),
    ) -> None:
        self.guests = guests
        self.unreadable = unreadable
        self.whole = whole
        self.read_at = read_at
        self.listed = listed
        self.elsewhere = elsewhere


class Descriptions:
    """What is known of each domain, read anew when its XML has changed, forgotten when it is gone."""

    def __init__(self, local: Local) -> None:
        self.host = local.host
        self._local = local
        self._known: dict[str, tuple[str, Description | BadDomain]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def of(self, domain: Domain) -> Description:
        """Return what its XML says; raise :class:`~meter.pollsters.libvirt.nova_metadata.BadDomain`."""
        xml, description = self._known.get(domain.uuid, (None, None))
        if description is None or xml != domain.xml:
            try:
                description = describe(domain, self._local)
            except BadDomain as error:
                description = error
            self._known[domain.uuid] = domain.xml, description
        if isinstance(description, BadDomain):
            raise description
        return description

    def forget_all_but(self, uuids: set[str]) -> None:
        """Let go of domains that are gone."""
        for uuid in self._known.keys() - uuids:
            del self._known[uuid]


async def read(cycle: ICycle) -> Reading:
    """Ask the hypervisor of this daemon for its domains; raise :class:`~meter.interfaces.Unavailable`."""
    hypervisor = cycle.provider(IHypervisor)
    domains = await hypervisor.domains()
    now = datetime.fromtimestamp(wall_seconds(cycle.clock), UTC)
    steady_seconds = cycle.clock.seconds()
    descriptions: Descriptions = cycle.daemon_cache("libvirt descriptions", lambda: Descriptions(local_to(cycle)))
    lives: Lives = cycle.daemon_cache("libvirt lives", lambda: Lives(now))
    host = descriptions.host
    slices = Slices(cycle.clock)
    guests = []
    unreadable = {}
    elsewhere = set()
    for domain in domains:
        if slices.over:
            await slices.pause()
        at = domain.read_at or now
        presence, life = lives.look(domain, at, hypervisor.absence, remember=not cycle.trial)
        if presence == "elsewhere":
            elsewhere.add(domain.uuid)
        if presence != "here":
            continue
        try:
            description = descriptions.of(domain)
            if life is None:
                guests.append(Guest(domain, description, at, steady_seconds))
            else:
                run = run_text(host, life.name)
                seen = as_it_is(domain, life)
                guest = Guest(seen, description, at, steady_seconds, run, life.began, leaving=life.leaving)
                guests.append(guest)
        except BadDomain as error:
            unreadable[domain.uuid] = str(error)
    whole = all(domain.event is None for domain in domains)
    listed = frozenset(domain.uuid for domain in domains)
    if whole and not cycle.trial:
        descriptions.forget_all_but(set(listed))
        lives.listed(set(listed), now)
    return Reading(guests, unreadable, whole=whole, read_at=now, listed=listed, elsewhere=frozenset(elsewhere))


def as_it_is(domain: Domain, life: Life) -> Domain:
    """Return ``domain`` as its owner sees it: one that migrates runs, though libvirt stops it for the last moment."""
    if life.leaving:
        return replace(domain, stats={**domain.stats, "state.state": RUNNING})
    return domain


def local_to(cycle: ICycle) -> Local:
    """Return what ``[compute]`` says of this host."""
    settings: ComputeSection = cycle.config.compute if cycle.config is not None else ComputeSection()
    return Local(
        host=settings.host or socket.gethostname(),
        default=(settings.default_project_id or None, settings.default_user_id or None),
        rules=settings.owners,
    )
