"""Nova by project: the number of instances, and the usage of today as Nova computes it."""

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
from meter.pollsters.openstack.table import MeteredListing
from meter.pollsters.openstack.table import amount
from meter.pollsters.openstack.table import gauge
from meter.pollsters.openstack.table import same_names
from meter.sample import MeterDefinition
from meter.sample import Sample

INSTANCES = gauge("nova.instances", "instance")
SERVERS = Listing(
    service="compute", version="v2.1", path="servers/detail", key="servers", query={"all_tenants": "True"}
)
OVERLAP_SECONDS = 120.0
"""How much ``changes-since`` precedes the last request: Nova's clock may differ and its database may lag."""
FULL_LISTING_SECONDS = 6 * 3600.0
"""Interval of full listings, which find changes that were missed."""


@dataclass(frozen=True, slots=True)
class Server:
    """An instance as Nova lists it."""

    id: str
    project_id: str
    status: str


class Servers:
    """All instances of the cloud, cached between polls: after a full listing only changes are requested."""

    def __init__(self) -> None:
        self.by_id: dict[str, Server] = {}
        self.read_at = datetime.fromtimestamp(0, UTC)
        self._refreshed_at: float | None = None
        self._full_listing_at = 0.0

    async def refresh(self, openstack: Any, now: float) -> None:
        """Request the changes, or all instances; nothing changes if Nova is unavailable."""
        full = self._refreshed_at is None or now - self._full_listing_at >= FULL_LISTING_SECONDS
        query = dict(SERVERS.query)
        if not full:
            assert self._refreshed_at is not None
            since = datetime.fromtimestamp(self._refreshed_at - OVERLAP_SECONDS, UTC)
            query |= {"changes-since": since.strftime("%Y-%m-%dT%H:%M:%SZ")}
        by_id = {} if full else dict(self.by_id)
        async for page in openstack.pages(replace(SERVERS, query=query)):
            for item in page.items:
                _apply(by_id, item)
            self.read_at = page.received_at
        self.by_id, self._refreshed_at = by_id, now
        if full:
            self._full_listing_at = now


def _apply(by_id: dict[str, Server], item: Item) -> None:
    id_, project_id, status = item.get("id"), item.get("tenant_id"), item.get("status")
    if isinstance(id_, str) and isinstance(project_id, str) and isinstance(status, str):
        if status in ("DELETED", "SOFT_DELETED"):
            by_id.pop(id_, None)
        else:
            by_id[id_] = Server(id_, project_id, status)


async def servers(cycle: ICycle) -> Servers:
    """Return all instances; all callers in a cycle get the result of one refresh."""
    cached: Servers = cycle.daemon_cache(("openstack", "servers"), Servers)

    async def refresh() -> Servers:
        await cached.refresh(cycle.provider(IOpenStack), wall_seconds(cycle.clock))
        return cached

    refreshed: Servers = await cycle.cycle_cache(("openstack", "servers"), refresh)
    return refreshed


@implementer(ICentralPollster)
@dataclass(frozen=True, slots=True)
class InstancesPollster:
    """Meters the number of instances of each project, whatever their status."""

    options: None = None
    name: str = "nova.instances"
    meters: tuple[MeterDefinition, ...] = (INSTANCES,)

    def configured(self, options: None) -> InstancesPollster:
        """Return the pollster: it has no options."""
        return self

    async def enabled(self, context: IPluginContext) -> Enabled | Disabled:
        """Return whether the catalogue has Nova."""
        return await enabled_with(context, "compute")

    async def poll(self, cycle: ICycle) -> Iterable[Sample]:
        """Return a sample per project that has instances; its metadata has the numbers by status."""
        found = await servers(cycle)
        by_project: dict[str, Counter[str]] = {}
        for server in found.by_id.values():
            by_project.setdefault(server.project_id, Counter())[server.status] += 1
        return [
            INSTANCES.sample(
                statuses.total(),
                project_id,
                found.read_at,
                project_id=project_id,
                resource_metadata={"by_status": dict(statuses)},
            )
            for project_id, statuses in by_project.items()
        ]


USAGE = MeteredListing(
    name="nova.usage",
    listing=Listing(service="compute", version="v2.1", path="os-simple-tenant-usage", key="tenant_usages"),
    measures=(
        Measure(gauge("nova.usage.hours", "h"), amount("total_hours")),
        Measure(gauge("nova.usage.vcpu_hours", "vcpu h"), amount("total_vcpus_usage")),
        Measure(gauge("nova.usage.memory_hours", "MiB h"), amount("total_memory_mb_usage")),
        Measure(gauge("nova.usage.disk_hours", "GiB h"), amount("total_local_gb_usage")),
    ),
    resource=("tenant_id",),
    metadata=same_names("start", "stop"),
    ids_reused=True,  # a project without usage is not listed
)


class UsagePollster(ListingPollster):
    """Meters the usage of each project since the beginning of the day (UTC) as Nova computes it, for comparison."""

    def listing(self, cycle: ICycle) -> Listing:
        """Return the listing of the usage of today."""
        today = cycle.timestamp.astimezone(UTC).strftime("%Y-%m-%dT00:00:00")
        return replace(self.metered.listing, query={"start": today})
