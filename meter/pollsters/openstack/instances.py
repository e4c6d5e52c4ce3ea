"""Nova by project: how many instances there are, and what Nova itself reckons they used today."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from typing import Any

from zope.interface import implementer

from meter.daemon.services import wall_seconds
from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import ICentralPollster
from meter.interfaces import ICycle
from meter.interfaces import IPluginContext
from meter.openstack import IOpenStack
from meter.openstack import Listing
from meter.pollsters.openstack.pollster import ListingPollster
from meter.pollsters.openstack.pollster import enabled_with
from meter.pollsters.openstack.table import Item
from meter.pollsters.openstack.table import Measure
from meter.pollsters.openstack.table import Row
from meter.pollsters.openstack.table import all_of
from meter.pollsters.openstack.table import amount
from meter.pollsters.openstack.table import gauge
from meter.sample import MeterDefinition
from meter.sample import Sample

INSTANCES = gauge("nova.instances", "instance")
SERVERS = Listing(
    service="compute", version="v2.1", path="servers/detail", key="servers", query={"all_tenants": "True"}
)
OVERLAP_SECONDS = 120.0
"""``changes-since`` is told a moment so much earlier: Nova's clock is another, and its database lags."""
WHOLE_EVERY_SECONDS = 6 * 3600.0
"""What was missed for whatever reason is found by listing everything now and then."""


@dataclass(frozen=True, slots=True)
class Server:
    """An instance as Nova lists it."""

    id: str
    project_id: str
    status: str


class Servers:
    """All instances of the cloud, kept from poll to poll: after the first listing Nova is asked for changes only."""

    def __init__(self) -> None:
        self.by_id: dict[str, Server] = {}
        self.read_at = datetime.fromtimestamp(0, UTC)
        self._asked_at: float | None = None
        self._whole_at = 0.0

    async def refresh(self, openstack: Any, now: float) -> None:
        """Ask Nova; what is known stays as it was when it cannot answer."""
        whole = self._asked_at is None or now - self._whole_at >= WHOLE_EVERY_SECONDS
        query = dict(SERVERS.query)
        if not whole:
            assert self._asked_at is not None
            since = datetime.fromtimestamp(self._asked_at - OVERLAP_SECONDS, UTC)
            query |= {"changes-since": since.strftime("%Y-%m-%dT%H:%M:%SZ")}
        known = {} if whole else dict(self.by_id)
        async for page in openstack.pages(replace(SERVERS, query=query)):
            for item in page.items:
                _note(known, item)
            self.read_at = page.received_at
        self.by_id, self._asked_at = known, now
        if whole:
            self._whole_at = now


def _note(known: dict[str, Server], item: Item) -> None:
    id_, project_id, status = item.get("id"), item.get("tenant_id"), item.get("status")
    if isinstance(id_, str) and isinstance(project_id, str) and isinstance(status, str):
        if status in ("DELETED", "SOFT_DELETED"):
            known.pop(id_, None)
        else:
            known[id_] = Server(id_, project_id, status)


async def servers(cycle: ICycle) -> Servers:
    """Return all instances; whoever asks in a cycle gets the same reading."""
    kept: Servers = cycle.daemon_cache(("openstack", "servers"), Servers)

    async def refresh() -> Servers:
        await kept.refresh(cycle.provider(IOpenStack), wall_seconds(cycle.clock))
        return kept

    found: Servers = await cycle.cycle_cache(("openstack", "servers"), refresh)
    return found


@implementer(ICentralPollster)
@dataclass(frozen=True, slots=True)
class InstancesPollster:
    """Meters how many instances each project has, in whatever state."""

    options: None = None
    name: str = "nova.instances"
    meters: tuple[MeterDefinition, ...] = (INSTANCES,)

    def configured(self, options: None) -> InstancesPollster:
        """Return the pollster: it has no options."""
        return self

    async def enabled(self, context: IPluginContext) -> Enabled | Disabled:
        """Work where the catalogue has Nova."""
        return await enabled_with(context, "compute")

    async def poll(self, cycle: ICycle) -> Iterable[Sample]:
        """Return a sample for each project that has instances; by status in its metadata."""
        found = await servers(cycle)
        by_project: dict[str, Counter[str]] = {}
        for server in found.by_id.values():
            by_project.setdefault(server.project_id, Counter())[server.status] += 1
        return [
            Sample(
                name=INSTANCES.name,
                type=INSTANCES.type,
                unit=INSTANCES.unit,
                volume=statuses.total(),
                resource_id=project_id,
                project_id=project_id,
                timestamp=found.read_at,
                resource_metadata={"by_status": dict(statuses)},
            )
            for project_id, statuses in by_project.items()
        ]


USAGE = Row(
    name="nova.usage",
    listing=Listing(service="compute", version="v2.1", path="os-simple-tenant-usage", key="tenant_usages"),
    measures=(
        Measure(gauge("nova.usage.hours", "h"), amount("total_hours")),
        Measure(gauge("nova.usage.vcpu_hours", "vcpu h"), amount("total_vcpus_usage")),
        Measure(gauge("nova.usage.memory_hours", "MiB h"), amount("total_memory_mb_usage")),
        Measure(gauge("nova.usage.disk_hours", "GiB h"), amount("total_local_gb_usage")),
    ),
    resource=("tenant_id",),
    metadata=all_of("start", "stop"),
    ids_return=True,  # a project may have used nothing for a while
)


class UsagePollster(ListingPollster):
    """Meters what Nova says each project used since the day began (UTC): to compare with, not to bill by."""

    def listing(self, cycle: ICycle) -> Listing:
        """Return the listing of today."""
        today = cycle.timestamp.astimezone(UTC).strftime("%Y-%m-%dT00:00:00")
        return replace(self.row.listing, query={"start": today})
