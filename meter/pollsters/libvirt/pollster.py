"""The pollster of one row of the table. All of them share one reading of libvirt in each cycle."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from datetime import UTC
from datetime import datetime

from pydantic import BaseModel
from pydantic import ConfigDict
from twisted.logger import Logger
from zope.interface import implementer

from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import IComputePollster
from meter.interfaces import ICycle
from meter.interfaces import IHypervisor
from meter.interfaces import ISurroundings
from meter.pollsters.libvirt.guests import BadDomain
from meter.pollsters.libvirt.guests import Guest
from meter.pollsters.libvirt.guests import guest_of
from meter.pollsters.libvirt.table import BadStat
from meter.pollsters.libvirt.table import Row
from meter.sample import MeterDefinition
from meter.sample import Sample
from meter.services import wall_seconds


class LibvirtOptions(BaseModel):
    """Options of every libvirt pollster: whose are the domains that Nova does not know, and what this host is called."""

    model_config = ConfigDict(frozen=True, strict=True)

    default_project_id: str | None = None
    default_user_id: str | None = None
    host: str | None = None
    """``None`` is the host's own name."""


class Skipped:
    """What could not be metered: ``count`` of all there was, and one log line each time it changes for a domain."""

    _log = Logger()

    def __init__(self) -> None:
        self.count = 0
        self._told: Mapping[str, str] = {}

    def tell(self, what: str, reasons: Mapping[str, str]) -> None:
        """Take the ``reasons`` of one cycle by the domain's UUID; ``what`` was to be had of the domains."""
        for uuid, reason in reasons.items():
            if self._told.get(uuid) != reason:
                self._log.warn("{what} of domain {uuid} is skipped: {reason}", what=what, uuid=uuid, reason=reason)
        self.count += len(reasons)
        self._told = reasons


@dataclass(frozen=True, slots=True)
class Reading:
    """The guests of this host when libvirt answered, and why the ``unreadable`` domains are not among them, by UUID."""

    timestamp: datetime
    guests: tuple[Guest, ...]
    unreadable: Mapping[str, str]


async def read(cycle: ICycle, options: LibvirtOptions) -> Reading:
    """Ask the hypervisor of this daemon for its domains; raise :class:`~meter.interfaces.Unavailable`."""
    domains = await cycle.provider(IHypervisor).domains()
    timestamp = datetime.fromtimestamp(wall_seconds(cycle.clock), UTC)
    host = options.host or socket.gethostname()
    guests = []
    unreadable = {}
    for domain in domains:
        try:
            guest = guest_of(
                domain,
                host=host,
                default_project_id=options.default_project_id,
                default_user_id=options.default_user_id,
            )
        except BadDomain as error:
            unreadable[domain.uuid] = str(error)
        else:
            guests.append(guest)
    return Reading(timestamp, tuple(guests), unreadable)


@implementer(IComputePollster)
@dataclass(frozen=True, slots=True)
class GuestPollster:
    """Meters ``row`` on every guest. A domain that cannot be read, or lacks the statistics, costs itself only."""

    row: Row
    options: LibvirtOptions = field(default_factory=LibvirtOptions)
    skipped: Skipped = field(default_factory=Skipped, compare=False, repr=False)

    @property
    def name(self) -> str:
        """The meter's name."""
        return self.row.meter.name

    @property
    def meters(self) -> tuple[MeterDefinition, ...]:
        """The one meter of the row."""
        return (self.row.meter,)

    def configured(self, options: LibvirtOptions) -> GuestPollster:
        """Return the pollster with ``options``."""
        return replace(self, options=options, skipped=Skipped())

    async def enabled(self, here: ISurroundings) -> Enabled | Disabled:
        """Work wherever the daemon has a hypervisor, be it reachable now or not."""
        try:
            here.provider(IHypervisor)
        except LookupError:
            return Disabled("no hypervisor is configured")
        return Enabled()

    async def poll(self, cycle: ICycle) -> Iterable[Sample]:
        """Return a sample of each guest that has the volume."""
        reading: Reading = await cycle.shared(("libvirt", self.options), lambda: read(cycle, self.options))
        skipped = dict(reading.unreadable)
        samples = []
        for guest in reading.guests:
            if guest.shut_off and not self.row.when_off:
                continue
            try:
                samples.append(self._sample(guest, reading.timestamp))
            except BadStat as error:
                skipped[guest.uuid] = str(error)
        self.skipped.tell(self.name, skipped)
        return samples

    def _sample(self, guest: Guest, timestamp: datetime) -> Sample:
        more = {key: source.value(guest.stats) for key, source in self.row.metadata}
        return Sample(
            name=self.row.meter.name,
            type=self.row.meter.type,
            unit=self.row.meter.unit,
            volume=self.row.volume(guest.stats),
            resource_id=guest.uuid,
            timestamp=timestamp,
            user_id=guest.user_id,
            project_id=guest.project_id,
            resource_metadata={**guest.metadata, **more} if more else guest.metadata,
        )
