"""Guests: domains as they are metered, at one moment, with their devices and the metadata of their samples."""

from __future__ import annotations

import socket
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from datetime import UTC
from datetime import datetime
from typing import Any

from meter.interfaces import Domain
from meter.interfaces import ICycle
from meter.interfaces import IHypervisor
from meter.pollsters.libvirt.description import Description
from meter.pollsters.libvirt.description import Local
from meter.pollsters.libvirt.description import describe
from meter.pollsters.libvirt.nova import BadDomain
from meter.pollsters.libvirt.sources import BadStat
from meter.pollsters.libvirt.sources import Subject
from meter.pollsters.libvirt.sources import devices
from meter.pollsters.libvirt.sources import number
from meter.pollsters.libvirt.table import Scope
from meter.services import Slices
from meter.services import wall_seconds
from meter.settings import ComputeSection

SHUTTING_DOWN, SHUT_OFF = 4, 5

# By libvirt's virDomainState, in its order: Nova's words for the status and for the power state of a server.
STATES = (
    ("building", "pending"),
    ("active", "running"),
    ("active", "running"),
    ("paused", "paused"),
    ("stopped", "shutdown"),
    ("stopped", "shutdown"),
    ("error", "crashed"),
    ("suspended", "suspended"),
)
UNKNOWN_STATE = ("unknown", "unknown")


class Guest:
    """A domain as it is metered at ``read_at``; ``steady_seconds`` is then by a clock that nobody sets.

    ``ending``: it was read because it is about to stop, which will be told too.
    """

    def __init__(self, domain: Domain, description: Description, read_at: datetime, steady_seconds: float) -> None:
        self.uuid = domain.uuid
        self.description = description
        self.read_at = read_at
        self.steady_seconds = steady_seconds
        self._domain = domain
        self._stats = domain.stats
        state = domain.stats.get("state.state")
        self.shut_off = state == SHUT_OFF
        self.ending = state == SHUTTING_DOWN and domain.event is not None
        self.metadata = self._metadata(state)
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

    def _metadata(self, state: object) -> Mapping[str, Any]:
        known = isinstance(state, int) and 0 <= state < len(STATES)
        status, power_state = STATES[state] if known else UNKNOWN_STATE  # type: ignore[call-overload]
        metadata = {**self.description.metadata, "status": status, "state": power_state, "task_state": ""}
        if not self.description.by_nova:
            memory_kib = self._known("balloon.maximum")
            metadata["vcpus"] = self._known("vcpu.current")
            metadata["memory_mb"] = None if memory_kib is None else memory_kib // 1024
        return metadata

    def _known(self, name: str) -> int | None:
        try:
            return number(self._stats, name)
        except BadStat:
            return None

    # --- scopes

    def _itself(self) -> Iterator[Subject]:
        yield Subject(self._stats, "", self.uuid, self.metadata, self._domain.run)

    def _its_state(self) -> Iterator[Subject]:
        event = self._domain.event
        metadata = self.metadata if event is None else {**self.metadata, "event": event}
        yield Subject(self._stats, "", self.uuid, metadata, self._domain.run)

    def _its_processors(self) -> Iterator[Subject]:
        metadata = {**self.metadata, "cpu_number": self._known("vcpu.current")}
        yield Subject(self._stats, "", self.uuid, metadata, self._domain.run)

    def _each_vcpu(self) -> Iterator[Subject]:
        for index in range(min(number(self._stats, "vcpu.maximum") or 0, 4096)):
            if f"vcpu.{index}.state" in self._stats:
                metadata = {**self.metadata, "vcpu": index}
                yield Subject(self._stats, f"vcpu.{index}.", f"{self.uuid}-vcpu{index}", metadata, self._domain.run)

    def _each_disk(self) -> Iterator[Subject]:
        for prefix in devices(self._stats, "block"):
            name = self._stats.get(f"{prefix}name")
            if isinstance(name, str) and name:
                # libvirt gives every attachment a number of its own: a disk that comes back is another one.
                run = (self._domain.run, self._stats.get(f"{prefix}backingIndex"))
                yield Subject(self._stats, prefix, f"{self.uuid}-{name}", {**self.metadata, "disk_name": name}, run)

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
                yield Subject(self._stats, prefix, resource_id, {**self.metadata, **told}, self._domain.run)


_SCOPES: Mapping[Scope, Callable[[Guest], Iterator[Subject]]] = {
    "domain": Guest._itself,
    "state": Guest._its_state,
    "processors": Guest._its_processors,
    "vcpu": Guest._each_vcpu,
    "disk": Guest._each_disk,
    "interface": Guest._each_interface,
}


class Reading:
    """The guests of this host, and why the ``unreadable`` domains are not among them, by UUID.

    ``whole`` says whether these are all domains, or one to which something has happened.
    """

    def __init__(self, guests: list[Guest], unreadable: Mapping[str, str], *, whole: bool) -> None:
        self.guests = guests
        self.unreadable = unreadable
        self.whole = whole


class Descriptions:
    """What is known of each domain, read anew when its XML has changed, forgotten when it is gone."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._known: dict[str, tuple[str, Description | BadDomain]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def of(self, domain: Domain) -> Description:
        """Return what its XML says; raise :class:`~meter.pollsters.libvirt.nova.BadDomain`."""
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
    domains = await cycle.provider(IHypervisor).domains()
    now = datetime.fromtimestamp(wall_seconds(cycle.clock), UTC)
    steady_seconds = cycle.clock.seconds()
    descriptions: Descriptions = cycle.kept("libvirt descriptions", lambda: Descriptions(local_to(cycle)))
    slices = Slices(cycle.clock)
    guests = []
    unreadable = {}
    for domain in domains:
        if slices.over:
            await slices.pause()
        try:
            guests.append(Guest(domain, descriptions.of(domain), domain.read_at or now, steady_seconds))
        except BadDomain as error:
            unreadable[domain.uuid] = str(error)
    whole = all(domain.event is None for domain in domains)
    if whole:
        descriptions.forget_all_but({domain.uuid for domain in domains})
    return Reading(guests, unreadable, whole=whole)


def local_to(cycle: ICycle) -> Local:
    """Return what ``[compute]`` says of this host."""
    settings: ComputeSection = cycle.config.compute if cycle.config is not None else ComputeSection()
    return Local(
        host=settings.host or socket.gethostname(),
        default=(settings.default_project_id or None, settings.default_user_id or None),
        rules=settings.owners,
    )
