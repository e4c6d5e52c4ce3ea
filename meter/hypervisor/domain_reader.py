"""Reading domains from a connection. What stands here runs in a thread of its own and may block."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from datetime import UTC
from datetime import datetime
from typing import Any

from meter.hypervisor.disks import DiskSizes
from meter.hypervisor.disks import Sizes
from meter.hypervisor.events import SHUT_OFF
from meter.hypervisor.events import Change
from meter.hypervisor.library import load_libvirt
from meter.hypervisor.qemu_processes import Process
from meter.hypervisor.qemu_processes import Search
from meter.interfaces import Domain

DESCRIPTION_SECONDS = 3600.0
"""After so long at most the XML of a domain is read again, whatever libvirt told or did not tell of it."""


@dataclass(frozen=True, slots=True)
class Described:
    """The XML of a domain and its process, when they were read, and what changes when they must have changed."""

    xml: str
    read_at: float
    fingerprint: Hashable
    process: Process | None = None


@dataclass(frozen=True, slots=True)
class Descriptions:
    """The XML of domains by UUID, as far as ``connection`` would have told if it had changed."""

    connection: Any = None
    by_uuid: Mapping[str, Described] = field(default_factory=dict)

    def known_to(self, connection: Any) -> Mapping[str, Described]:
        """Return what can be relied on: between two connections anything may have happened."""
        return self.by_uuid if self.connection is connection else {}

    def without(self, uuids: set[str]) -> Descriptions:
        """Return the others."""
        kept = {uuid: described for uuid, described in self.by_uuid.items() if uuid not in uuids}
        return Descriptions(self.connection, kept)

    def with_last(self, uuid: str, xml: str) -> Descriptions:
        """Return these and the XML of one more domain, to be read again at the next opportunity."""
        return Descriptions(self.connection, {**self.by_uuid, uuid: Described(xml, 0.0, None)})

    def xml(self, uuid: str) -> str | None:
        """Return the last known XML of a domain, be it as it may."""
        described = self.by_uuid.get(uuid)
        return described.xml if described else None


@dataclass(frozen=True, slots=True)
class Reading:
    """All domains at one moment; ``failed`` has the names of those that could not be read, each with its reason.

    ``unreadable`` has the UUIDs of all that libvirt listed and ``domains`` does not have.
    """

    domains: Sequence[Domain]
    failed: Mapping[str, str]
    unreadable: frozenset[str]
    descriptions: Descriptions
    disk_sizes: Mapping[Hashable, Sizes]


def read_domains(
    connection: Any,
    known: Descriptions,
    known_sizes: Mapping[Hashable, Sizes],
    now: Callable[[], float],
    search: Search,
) -> Reading:
    """Read all domains, running or not, in one bulk call, and the XML of those that are new or changed.

    Of disks that no guest has written to the sizes are asked for as well, once for each (:mod:`meter.hypervisor.disks`).

    ``NOWAIT`` makes libvirt leave out what a busy domain would have to be asked for. A domain that disappears meanwhile
    is left out. Drivers that know no statistics but the state (``test:///``), or no bulk call at all, are asked for the
    basic ones domain by domain.
    """
    libvirt = load_libvirt()
    try:
        records = connection.getAllDomainStats(0, libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT)
    except libvirt.libvirtError as error:
        if error.get_error_code() not in (libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED):
            raise
        records = [(domain, {}) for domain in connection.listAllDomains()]
    seconds = now()
    domains = []
    failed = {}
    unreadable = set()
    described = {}
    reliable = known.known_to(connection)
    sizes = DiskSizes(known_sizes, now)
    for domain, stats in records:
        uuid = domain.UUIDString()
        try:
            if all(name.startswith("state.") for name in stats):
                stats = {**stats, **_basic_stats(domain.info())}
            stats = sizes.corrected(domain, stats)
            described[uuid] = _described(domain, stats, reliable.get(uuid), seconds, search)
            domains.append(_record(domain, described[uuid], stats, seconds))
        except libvirt.libvirtError as error:
            if not connection.isAlive():
                raise
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                failed[domain.name()] = str(error)
                unreadable.add(uuid)
    return Reading(domains, failed, frozenset(unreadable), Descriptions(connection, described), sizes.found)


def read_changed(
    connection: Any,
    change: Change,
    known_xml: str | None,
    known_sizes: Mapping[Hashable, Sizes],
    now: Callable[[], float],
    search: Search,
) -> Domain | None:
    """Read the domain to which ``change`` has happened; ``None`` where it is gone and nobody knows its XML.

    The state is the one that the change led to, and no other statistics are told of a domain that does not run any more.
    """
    libvirt = load_libvirt()
    stats: Mapping[str, Any] = {}
    xml, run, process = known_xml, None, None
    try:
        if change.state != SHUT_OFF or xml is None:
            domain = connection.lookupByUUIDString(change.uuid)
            records = connection.domainListGetStats([domain], 0, libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT)
            stats = DiskSizes(known_sizes, now).corrected(domain, records[0][1]) if records else {}
            run = domain.ID() if domain.ID() >= 0 else None
            xml = domain.XMLDesc() or xml
            process = search.of(change.uuid, change.name, domain.ID())
    except libvirt.libvirtError:
        if not connection.isAlive():
            raise
    if xml is None:
        return None
    if run is None or stats.get("state.state") == SHUT_OFF:
        stats = {}
    return _changed(change, xml, {**stats, "state.state": change.state}, run, process)


def without_reading(change: Change, known_xml: str | None) -> Domain | None:
    """Return what is known of a changed domain when libvirt cannot be asked."""
    return None if known_xml is None else _changed(change, known_xml, {"state.state": change.state}, None)


def _changed(
    change: Change, xml: str, stats: Mapping[str, Any], run: int | None, process: Process | None = None
) -> Domain:
    at = datetime.fromtimestamp(change.at, UTC)
    return Domain(change.uuid, change.name, xml, stats, run, at, change.words, *_of_process(process))


def _of_process(process: Process | None) -> tuple[str | None, datetime | None, str]:
    if process is None:
        return None, None, ""
    return process.id, datetime.fromtimestamp(process.started_at, UTC), process.processors


def _record(domain: Any, described: Described, stats: Mapping[str, Any], seconds: float) -> Domain:
    number = domain.ID()
    process, started_at, processors = _of_process(described.process)
    return Domain(
        uuid=domain.UUIDString(),
        name=domain.name(),
        xml=described.xml,
        stats=stats,
        run=number if number >= 0 else None,
        read_at=datetime.fromtimestamp(seconds, UTC),
        process=process,
        started_at=started_at,
        processors=processors,
    )


def _described(
    domain: Any, stats: Mapping[str, Any], known: Described | None, seconds: float, search: Search
) -> Described:
    """Return XML and process from the cache, or read them: when they may have changed, and after some time in any case.

    Should libvirt have told of a change and it was missed: another run, name or device shows by itself, and what does
    not show is found out when the time has come, which is another for each domain.
    """
    fingerprint = (
        domain.ID(),
        domain.name(),
        stats.get("vcpu.current"),
        *(value for name, value in stats.items() if name.endswith((".name", ".backingIndex"))),
    )
    if known is not None and known.fingerprint == fingerprint:
        spread = 0.5 + zlib.crc32(domain.UUIDString().encode()) % 1000 / 2000
        if 0 <= seconds - known.read_at < DESCRIPTION_SECONDS * spread:
            return known
    process = search.of(domain.UUIDString(), domain.name(), domain.ID())
    return Described(domain.XMLDesc(), seconds, fingerprint, process)


def _basic_stats(info: Sequence[int]) -> dict[str, int]:
    """Name the fields of libvirt's ``virDomainInfo`` as the bulk call names them."""
    state, maximum_kib, current_kib, vcpus, cpu_time_ns = info
    return {
        "state.state": state,
        "balloon.maximum": maximum_kib,
        "balloon.current": current_kib,
        "vcpu.current": vcpus,
        "cpu.time": cpu_time_ns,
    }
