"""Designate: the number of recordsets of each zone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from zope.interface import implementer

from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import ICentralPollster
from meter.interfaces import ICycle
from meter.interfaces import IPluginContext
from meter.openstack import IOpenStack
from meter.openstack import Listing
from meter.pollsters.openstack.pollster import SkippedItems
from meter.pollsters.openstack.pollster import enabled_with
from meter.pollsters.openstack.services import ALL_ZONES
from meter.pollsters.openstack.table import BadItem
from meter.pollsters.openstack.table import gauge
from meter.sample import EXISTED_THROUGHOUT
from meter.sample import BadSample
from meter.sample import MeterDefinition
from meter.sample import Sample
from meter.sample import with_reserved

RECORDSETS = gauge("dns.zone.recordsets", "recordset")
LISTING = Listing(service="dns", version="v2", path="recordsets", key="recordsets", headers=ALL_ZONES)


@dataclass(slots=True)
class _Zone:
    """A zone and the number of its recordsets listed so far."""

    name: object
    project_id: str | None
    read_at: datetime
    recordsets: int = 0


@implementer(ICentralPollster)
@dataclass(frozen=True, slots=True)
class RecordsetsPollster:
    """Meters the number of recordsets of each zone, from one listing of the recordsets of all zones."""

    options: None = None
    name: str = "dns.zone.recordsets"
    meters: tuple[MeterDefinition, ...] = (RECORDSETS,)

    def configured(self, options: None) -> RecordsetsPollster:
        """Return the pollster: it has no options."""
        return self

    async def enabled(self, context: IPluginContext) -> Enabled | Disabled:
        """Return whether the catalogue has Designate."""
        return await enabled_with(context, "dns")

    async def poll(self, cycle: ICycle) -> Iterable[Sample]:
        """Return a sample per zone; every zone has recordsets, at least SOA and NS."""
        skipped = SkippedItems(cycle, self.name)
        zones: dict[str, _Zone] = {}
        async for page in cycle.provider(IOpenStack).pages(LISTING):
            for item in page.items:
                zone_id, project_id = item.get("zone_id"), item.get("project_id")
                if not isinstance(zone_id, str) or not zone_id:
                    skipped.add(str(item.get("id", "?")), BadItem("no-id", "it has no zone_id"))
                    continue
                owner = project_id if isinstance(project_id, str) else None
                zone = zones.setdefault(zone_id, _Zone(item.get("zone_name"), owner, page.received_at))
                zone.recordsets += 1
        samples = []
        for zone_id, zone in zones.items():
            try:
                samples.append(
                    RECORDSETS.sample(
                        zone.recordsets,
                        zone_id,
                        zone.read_at,
                        project_id=zone.project_id,
                        resource_metadata=with_reserved({"name": zone.name}, run=EXISTED_THROUGHOUT),
                    )
                )
            except BadSample as error:
                skipped.add(zone_id, error, resources=(zone_id,))
        skipped.report()
        return samples
