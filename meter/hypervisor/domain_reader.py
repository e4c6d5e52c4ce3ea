"""Reading domains from a connection. These functions block; they run in the thread of the connection."""

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
from meter.hypervisor.events import LifecycleEvent
from meter.hypervisor.library import load_libvirt
from meter.hypervisor.qemu_processes import Process
from meter.hypervisor.qemu_processes import Search
from meter.interfaces import Domain

XML_MAX_AGE_SECONDS = 3600.0
"""Longest time before the XML of a domain is read again, even without an event from libvirt."""


@dataclass(frozen=True, slots=True)
class CachedXml:
    """The XML of a domain and its process, when they were read, and a fingerprint that changes when they may have."""

    xml: str
    read_at: float
    fingerprint: Hashable
    process: Process | None = None


@dataclass(frozen=True, slots=True)
class XmlCache:
    """The XML of domains by UUID, valid as long as ``connection`` has reported no change."""

    connection: Any = None
    by_uuid: Mapping[str, CachedXml] = field(default_factory=dict)

    def known_to(self, connection: Any) -> Mapping[str, CachedXml]:
        """Return the valid entries: none for another connection, as events were missed in between."""
        return self.by_uuid if self.connection is connection else {}

    def without(self, uuids: set[str]) -> XmlCache:
        """Return a copy without ``uuids``."""
        kept = {uuid: cached for uuid, cached in self.by_uuid.items() if uuid not in uuids}
        return XmlCache(self.connection, kept)

    def with_last(self, uuid: str, xml: str) -> XmlCache:
        """Return a copy with the XML of one more domain, which the next reading reads again."""
        return XmlCache(self.connection, {**self.by_uuid, uuid: CachedXml(xml, 0.0, None)})

    def xml(self, uuid: str) -> str | None:
        """Return the last known XML of a domain, valid or not."""
        cached = self.by_uuid.get(uuid)
        return cached.xml if cached else None


@dataclass(frozen=True, slots=True)
class Reading:
    """All domains at one time; ``failed`` maps the names of those that could not be read to the reason.

    ``unreadable`` has the names, by UUID, of the domains that libvirt listed and that could not be read.
    """

    domains: Sequence[Domain]
    failed: Mapping[str, str]
    unreadable: Mapping[str, str]
    xml_cache: XmlCache
    disk_sizes: Mapping[Hashable, Sizes]


def read_domains(
    connection: Any,
    known: XmlCache,
    known_sizes: Mapping[Hashable, Sizes],
    now: Callable[[], float],
    search: Search,
) -> Reading:
    """Read all domains, running or not, in one bulk call, and the XML of those that are new or changed.

    The sizes of disks that no guest has written to are queried once each (:mod:`meter.hypervisor.disks`).

    With ``NOWAIT`` libvirt omits statistics that need an answer from a busy domain. A domain that disappears meanwhile
    is omitted. Where the driver has no statistics but the state (``test:///``), or no bulk call, the basic statistics
    are read domain by domain.
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
    unreadable = {}
    cached = {}
    reliable = known.known_to(connection)
    sizes = DiskSizes(known_sizes, now)
    for domain, stats in records:
        uuid = domain.UUIDString()
        try:
            if all(name.startswith("state.") for name in stats):
                stats = {**stats, **_basic_stats(domain.info())}
            stats = sizes.corrected(domain, stats)
            cached[uuid] = _cached(domain, stats, reliable.get(uuid), seconds, search)
            domains.append(_record(domain, cached[uuid], stats, seconds))
        except libvirt.libvirtError as error:
            if not connection.isAlive():
                raise
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                failed[domain.name()] = str(error)
                unreadable[uuid] = domain.name()
    return Reading(domains, failed, unreadable, XmlCache(connection, cached), sizes.found)


def read_changed(
    connection: Any,
    event: LifecycleEvent,
    known_xml: str | None,
    known_sizes: Mapping[Hashable, Sizes],
    now: Callable[[], float],
    search: Search,
) -> Domain | None:
    """Read the domain of ``event``; ``None`` where it is gone and its XML is not known.

    The state is the one after the event. A domain that does not run any more has no other statistics.
    """
    libvirt = load_libvirt()
    stats: Mapping[str, Any] = {}
    xml, run, process = known_xml, None, None
    try:
        if event.state != SHUT_OFF or xml is None:
            domain = connection.lookupByUUIDString(event.uuid)
            records = connection.domainListGetStats([domain], 0, libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT)
            stats = DiskSizes(known_sizes, now).corrected(domain, records[0][1]) if records else {}
            run = domain.ID() if domain.ID() >= 0 else None
            xml = domain.XMLDesc() or xml
            process = search.of(event.uuid, event.name, domain.ID())
    except libvirt.libvirtError:
        if not connection.isAlive():
            raise
    if xml is None:
        return None
    if run is None or stats.get("state.state") == SHUT_OFF:
        stats = {}
    return _domain_after(event, xml, {**stats, "state.state": event.state}, run, process)


def without_reading(event: LifecycleEvent, known_xml: str | None) -> Domain | None:
    """Return the domain of ``event`` without a call, from the XML that is known."""
    return None if known_xml is None else _domain_after(event, known_xml, {"state.state": event.state}, None)


def _domain_after(
    event: LifecycleEvent, xml: str, stats: Mapping[str, Any], run: int | None, process: Process | None = None
) -> Domain:
    at = datetime.fromtimestamp(event.at, UTC)
    return Domain(event.uuid, event.name, xml, stats, run, at, event.description, *_of_process(process))


def _of_process(process: Process | None) -> tuple[str | None, datetime | None, str]:
    if process is None:
        return None, None, ""
    return process.id, datetime.fromtimestamp(process.started_at, UTC), process.processors


def _record(domain: Any, cached: CachedXml, stats: Mapping[str, Any], seconds: float) -> Domain:
    number = domain.ID()
    process, started_at, processors = _of_process(cached.process)
    return Domain(
        uuid=domain.UUIDString(),
        name=domain.name(),
        xml=cached.xml,
        stats=stats,
        run=number if number >= 0 else None,
        read_at=datetime.fromtimestamp(seconds, UTC),
        process=process,
        started_at=started_at,
        processors=processors,
    )


def _cached(
    domain: Any, stats: Mapping[str, Any], known: CachedXml | None, seconds: float, search: Search
) -> CachedXml:
    """Return XML and process from the cache, or read them when they may have changed or are too old.

    If an event was missed, another run, name or device changes the fingerprint; any other change is found when the
    entry expires, which is at a different time for each domain.
    """
    fingerprint = (
        domain.ID(),
        domain.name(),
        stats.get("vcpu.current"),
        *(value for name, value in stats.items() if name.endswith((".name", ".backingIndex"))),
    )
    if known is not None and known.fingerprint == fingerprint:
        spread = 0.5 + zlib.crc32(domain.UUIDString().encode()) % 1000 / 2000
        if 0 <= seconds - known.read_at < XML_MAX_AGE_SECONDS * spread:
            return known
    process = search.of(domain.UUIDString(), domain.name(), domain.ID())
    return CachedXml(domain.XMLDesc(), seconds, fingerprint, process)


def _basic_stats(info: Sequence[int]) -> dict[str, int]:
    """Return the fields of ``virDomainInfo`` under the names of the bulk call."""
    state, maximum_kib, current_kib, vcpus, cpu_time_ns = info
    return {
        "state.state": state,
        "balloon.maximum": maximum_kib,
        "balloon.current": current_kib,
        "vcpu.current": vcpus,
        "cpu.time": cpu_time_ns,
    }
