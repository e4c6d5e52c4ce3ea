"""What one pollster does not measure in one cycle, and which resources that concerns: skipped samples, domains that are gone."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping

from twisted.logger import Logger

from meter.cycle_report import DOMAIN_UNREADABLE
from meter.interfaces import ICycle
from meter.interfaces import IHypervisor
from meter.pollsters.libvirt.guests import Guest
from meter.pollsters.libvirt.guests import GuestSnapshot
from meter.skipped_samples import ISkippedSamples

MAX_LOG_LINES = 20
"""How many skipped samples a pollster logs per cycle."""

BAD_XML = "xml"
"""The reason for a domain whose XML cannot be used."""

SHUT_OFF = "shut off"
"""Why a resource of a domain that is shut off is not measured any more, or not by all meters."""


class ResourcesOfDomains:
    """The ids of the resources that one pollster measures, by domain, as of the last cycle that read the domain completely.

    ``incomplete`` and ``ended`` are those of the cycle before, by reason: after a domain has hung its rates need another reading,
    and the gauges of one that is gone end with a last sample, so that they are missing only in the cycle after it.
    """

    def __init__(self) -> None:
        self._by_uuid: dict[str, frozenset[str]] = {}
        self.incomplete: dict[str, set[str]] = {}
        self.ended: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._by_uuid)

    def of(self, uuid: str) -> frozenset[str]:
        """Return the resources of a domain, none if it was never read completely."""
        return self._by_uuid.get(uuid, frozenset())

    def read(self, guest: Guest, resources: frozenset[str] | None = None) -> None:
        """Take the resources of a guest that was read completely; one that is shut off keeps those that it had."""
        if resources is None:
            resources = guest.resource_ids()
        if guest.shut_off:
            resources |= self.of(guest.uuid)
        if self._by_uuid.get(guest.uuid) != resources:
            self._by_uuid[guest.uuid] = resources

    def forget(self, uuid: str) -> frozenset[str]:
        """Delete a domain; return its resources."""
        return self._by_uuid.pop(uuid, frozenset())

    def missing(self, uuids: Collection[str]) -> list[str]:
        """Return the domains that are not among ``uuids``."""
        return [uuid for uuid in self._by_uuid if uuid not in uuids]


class SkippedSamples:
    """The samples that one pollster skips in one cycle: all are counted; those with a new reason are logged."""

    _log = Logger()

    def __init__(self, pollster: str, logged: Mapping[str, str]) -> None:
        self.reasons: dict[str, str] = {}
        self._pollster = pollster
        self._logged = logged
        self._counts: dict[str, int] = {}
        self._resources: dict[str, set[str]] = {}
        self._ended: dict[str, set[str]] = {}
        self._unknown = ""
        self._lines = 0

    def count(self, kind: str) -> None:
        """Count a skipped sample; ``kind`` is the reason as a metric label."""
        self._counts[kind] = self._counts.get(kind, 0) + 1

    def name(self, kind: str, resources: Collection[str]) -> None:
        """Name resources that could not be measured although they may still exist."""
        self._resources.setdefault(kind, set()).update(resources)

    def log(self, what: str, why: str, kind: str, resources: Collection[str] = ()) -> None:
        """Count a skipped sample of ``what`` and log ``why``, unless the previous cycle had the same reason."""
        self.count(kind)
        if resources:
            self.name(kind, resources)
        self.reasons[what] = why
        if self._logged.get(what) != why:
            self._lines += 1
            if self._lines <= MAX_LOG_LINES:
                self._log.warn("{what} is not metered: {why}", what=what, why=why)

    def look_for_missing(self, snapshot: GuestSnapshot, resources: ResourcesOfDomains, hypervisor: IHypervisor) -> None:
        """Name what a complete snapshot lacks: domains that hang or cannot be read may still exist, others have ended."""
        incomplete: dict[str, set[str]] = {}
        ended: dict[str, set[str]] = {}
        for uuid, why in (*snapshot.incomplete.items(), *((uuid, BAD_XML) for uuid in snapshot.unreadable)):
            incomplete.setdefault(why, set()).update(resources.of(uuid) or {uuid})
            if not resources.of(uuid):
                self._unknown = why
        for uuid in resources.missing(snapshot.listed):
            if uuid in snapshot.incomplete:
                continue
            absence = hypervisor.absence(uuid)
            if absence.why == "unreadable":
                incomplete.setdefault(DOMAIN_UNREADABLE, set()).update(resources.of(uuid))
            else:
                ended.setdefault(absence.why, set()).update(resources.forget(uuid))
        for uuid in snapshot.elsewhere:
            ended.setdefault("migrated", set()).update(resources.forget(uuid))
        for guest in snapshot.guests:
            if guest.shut_off:
                ended.setdefault(SHUT_OFF, set()).update(resources.of(guest.uuid))
        gone = set().union(*ended.values())
        for why, some in (*resources.incomplete.items(), *incomplete.items()):
            self.name(why, some - gone)
        for why, some in (*resources.ended.items(), *ended.items()):
            self._ended.setdefault(why, set()).update(some)
        resources.incomplete, resources.ended = incomplete, ended

    def report(self, cycle: ICycle) -> None:
        """Pass the counts and the resources to the daemon, if it takes them."""
        if self._lines > MAX_LOG_LINES:
            self._log.warn("{count} more samples are not metered", count=self._lines - MAX_LOG_LINES)
        try:
            taken = cycle.provider(ISkippedSamples)
        except LookupError:
            return
        for kind in self._counts.keys() | self._resources.keys():
            taken.samples_skipped(
                self._pollster, kind, self._counts.get(kind, 0), resources=self._resources.get(kind, ())
            )
        for why, resources in self._ended.items():
            taken.resources_ended(self._pollster, why, resources)
        if self._unknown:
            taken.resources_unknown(self._pollster, self._unknown)
