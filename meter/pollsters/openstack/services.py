"""The listings of OpenStack's services, and the meters of their entries."""

from __future__ import annotations

from collections.abc import Callable

from meter.openstack import Listing
from meter.pollsters.openstack.table import BadItem
from meter.pollsters.openstack.table import Item
from meter.pollsters.openstack.table import Measure
from meter.pollsters.openstack.table import MeteredListing
from meter.pollsters.openstack.table import amount
from meter.pollsters.openstack.table import exists
from meter.pollsters.openstack.table import field_of
from meter.pollsters.openstack.table import gauge
from meter.pollsters.openstack.table import mapped
from meter.pollsters.openstack.table import number
from meter.pollsters.openstack.table import same_names

# --- Glance

IMAGE = MeteredListing(
    name="image",
    listing=Listing(service="image", version="v2", path="images", key="images"),
    measures=(Measure(gauge("image", "image"), exists), Measure(gauge("image.size", "B"), amount("size"))),
    project=("owner",),
    metadata=same_names(
        *("name", "status", "visibility", "container_format", "disk_format", "min_disk", "min_ram", "checksum"),
        *("protected", "tags", "created_at", "updated_at", "virtual_size", "image_type", "base_image_ref"),
    ),
)

# --- Cinder

ALL_PROJECTS = {"all_tenants": "1"}
MIGRATION_STATUS = "os-vol-mig-status-attr:migstat"


def _is_migration_copy(item: Item) -> bool:
    """Return whether a volume is the copy of one that migrates: the new one until Cinder swaps them, then the old one."""
    migration = item.get(MIGRATION_STATUS)
    if isinstance(migration, str) and (migration.startswith("target:") or migration == "deleting"):
        return True
    return item.get("status") in ("migration_target_creating", "migration_target")


VOLUME = MeteredListing(
    name="volume",
    listing=Listing(service="block-storage", version="v3", path="volumes/detail", key="volumes", query=ALL_PROJECTS),
    measures=(Measure(gauge("volume", "volume"), exists), Measure(gauge("volume.size", "GiB"), amount("size"))),
    project=("os-vol-tenant-attr:tenant_id", "project_id"),
    metadata={
        **same_names(
            "name", "status", "volume_type", "availability_zone", "attachments", "snapshot_id", "source_volid"
        ),
        **same_names("bootable", "encrypted", "multiattach", "created_at", "updated_at", "metadata"),
        "host": "os-vol-host-attr:host",
    },
    unbilled=_is_migration_copy,
)
SNAPSHOT = MeteredListing(
    name="volume.snapshot",
    listing=Listing(
        service="block-storage", version="v3", path="snapshots/detail", key="snapshots", query=ALL_PROJECTS
    ),
    measures=(Measure(gauge("volume.snapshot.size", "GiB"), amount("size")),),
    project=("os-extended-snapshot-attributes:project_id", "project_id"),
    metadata={
        **same_names("name", "status", "volume_id", "created_at", "updated_at", "metadata"),
        "progress": "os-extended-snapshot-attributes:progress",
    },
)
BACKUP = MeteredListing(
    name="volume.backup",
    listing=Listing(service="block-storage", version="v3", path="backups/detail", key="backups", query=ALL_PROJECTS),
    measures=(Measure(gauge("volume.backup.size", "GiB"), amount("size")),),
    project=("os-backup-project-attr:project_id", "project_id"),
    metadata=same_names(
        *("name", "status", "volume_id", "snapshot_id", "is_incremental", "object_count", "container"),
        *("availability_zone", "created_at", "updated_at"),
    ),
)


def _capacity(name: str) -> Callable[[Item], int | float]:
    """Return a function that reads a capacity; some drivers report ``infinite`` or ``unknown`` instead of a number."""
    return amount(f"capabilities.{name}")


def _virtual_free(item: Item) -> int | float:
    """Return the virtual free capacity as Cinder's scheduler computes it, at least 0.

    With thin provisioning: (total - reserved) * over-subscription ratio - provisioned; else free - reserved.
    """
    total = number(field_of(item, "capabilities.total_capacity_gb"), "total_capacity_gb")
    reserved = total * number(field_of(item, "capabilities.reserved_percentage") or 0, "reserved_percentage") / 100
    if field_of(item, "capabilities.thin_provisioning_support") is True:
        ratio = number(field_of(item, "capabilities.max_over_subscription_ratio") or 1, "max_over_subscription_ratio")
        provisioned = number(field_of(item, "capabilities.provisioned_capacity_gb"), "provisioned_capacity_gb")
        return max(0, (total - reserved) * ratio - provisioned)
    return max(0, number(field_of(item, "capabilities.free_capacity_gb"), "free_capacity_gb") - reserved)


POOL = MeteredListing(
    name="volume.pool",
    listing=Listing(
        service="block-storage",
        version="v3",
        path="scheduler-stats/get_pools",
        key="pools",
        query={"detail": "True"},
        accepts_limit=False,
    ),
    measures=(
        Measure(gauge("volume.provider.pool.capacity.total", "GiB"), _capacity("total_capacity_gb")),
        Measure(gauge("volume.provider.pool.capacity.free", "GiB"), _capacity("free_capacity_gb")),
        Measure(gauge("volume.provider.pool.capacity.provisioned", "GiB"), _capacity("provisioned_capacity_gb"), True),
        Measure(gauge("volume.provider.pool.capacity.allocated", "GiB"), _capacity("allocated_capacity_gb"), True),
        Measure(gauge("volume.provider.pool.capacity.virtual_free", "GiB"), _virtual_free),
    ),
    resource=("name",),
    metadata=same_names("capabilities"),
    ids_reused=True,
)


def _up(item: Item) -> int:
    if not isinstance(item.get("state"), str):
        raise BadItem("no-volume", "state is missing")
    return int(item["state"] == "up" and item.get("status", "enabled") == "enabled")


class _ServiceListing(MeteredListing):
    """Cinder's services, which have no id: a service is identified by its binary and host."""

    def resource_of(self, item: Item) -> str:
        """Return ``cinder-volume@host``."""
        binary, host = item.get("binary"), item.get("host")
        if not isinstance(binary, str) or not isinstance(host, str):
            raise BadItem("no-id", "it has no binary or no host")
        return f"{binary}@{host}"


VOLUME_SERVICE = _ServiceListing(
    name="volume.service",
    listing=Listing(service="block-storage", version="v3", path="os-services", key="services", accepts_limit=False),
    measures=(Measure(gauge("volume.service.health", "service"), _up),),
    metadata=same_names("binary", "host", "zone", "status", "state", "disabled_reason", "updated_at"),
    ids_reused=True,
)

# --- Neutron

COMMON = ("name", "status", "description", "tags", "created_at", "updated_at", "admin_state_up")


def _network(path: str, meter: str, unit: str, *metadata: str) -> MeteredListing:
    key = path.rpartition("/")[2].replace("-", "_")
    return MeteredListing(
        name=meter,
        listing=Listing(service="network", version="v2.0", path=path, key=key),
        measures=(Measure(gauge(meter, unit), exists),),
        metadata=same_names(*COMMON, *metadata),
        extension=path.startswith(("vpn/", "fwaas/")),
    )


FLOATING_IP = _network(
    "floatingips",
    "ip.floating",
    "ip",
    *("floating_ip_address", "fixed_ip_address", "floating_network_id", "router_id", "port_id", "port_details"),
)
NETWORK = _network(
    "networks", "network", "network", "shared", "subnets", "router:external", "mtu", "provider:network_type"
)
SUBNET = _network(
    "subnets", "subnet", "subnet", "network_id", "cidr", "ip_version", "gateway_ip", "enable_dhcp", "allocation_pools"
)
PORT = _network(
    "ports", "port", "port", "network_id", "mac_address", "fixed_ips", "device_id", "device_owner", "binding:host_id"
)
ROUTER = _network("routers", "router", "router", "external_gateway_info", "distributed", "ha")
VPN = _network("vpn/vpnservices", "network.services.vpn", "vpnservice", "router_id", "subnet_id")
VPN_CONNECTION = _network(
    "vpn/ipsec-site-connections",
    "network.services.vpn.connections",
    "ipsec_site_connection",
    *("peer_address", "vpnservice_id"),
)
FIREWALL = _network("fwaas/firewall_groups", "network.services.firewall", "firewall", "ports", "shared")
FIREWALL_POLICY = _network(
    "fwaas/firewall_policies", "network.services.firewall.policy", "firewall_policy", "audited", "shared"
)

# --- Nova

HYPERVISOR = MeteredListing(
    name="hypervisor",
    listing=Listing(
        service="compute",
        version="v2.1",
        path="os-hypervisors/detail",
        key="hypervisors",
        # Every Nova supports microversion 2.1, which has all sizes and one page; 2.88 and newer lack the sizes.
        headers={"OpenStack-API-Version": "compute 2.1"},
        accepts_limit=False,
    ),
    measures=(
        Measure(gauge("hypervisor.up", "hypervisor"), _up),
        Measure(gauge("hypervisor.vcpus", "vcpu"), amount("vcpus"), True),
        Measure(gauge("hypervisor.vcpus.used", "vcpu"), amount("vcpus_used"), True),
        Measure(gauge("hypervisor.memory", "MiB"), amount("memory_mb"), True),
        Measure(gauge("hypervisor.memory.used", "MiB"), amount("memory_mb_used"), True),
        Measure(gauge("hypervisor.disk", "GiB"), amount("local_gb"), True),
        Measure(gauge("hypervisor.disk.used", "GiB"), amount("local_gb_used"), True),
        Measure(gauge("hypervisor.instances", "instance"), amount("running_vms"), True),
    ),
    resource=("hypervisor_hostname",),
    metadata=same_names("id", "hypervisor_type", "hypervisor_version", "host_ip", "state", "status"),
    ids_reused=True,
)

# --- Keystone

PROJECT = MeteredListing(
    name="identity.project",
    listing=Listing(service="identity", version="v3", path="projects", key="projects", accepts_limit=False),
    measures=(Measure(gauge("identity.project", "project"), exists),),
    project=("id",),
    metadata=same_names("name", "domain_id", "parent_id", "enabled", "tags"),
)
USER = MeteredListing(
    name="identity.user",
    listing=Listing(service="identity", version="v3", path="users", key="users", accepts_limit=False),
    measures=(Measure(gauge("identity.user", "user"), exists),),
    project=("default_project_id",),
    user=("id",),
    metadata=same_names("name", "domain_id", "enabled", "password_expires_at"),
)

# --- Octavia

OPERATING = {"ONLINE": 1, "DRAINING": 2, "OFFLINE": 3, "DEGRADED": 4, "ERROR": 5, "NO_MONITOR": 6}
PROVISIONING = {"ACTIVE": 1, "DELETED": 2, "ERROR": 3, "PENDING_CREATE": 4, "PENDING_UPDATE": 5, "PENDING_DELETE": 6}
LOADBALANCER = MeteredListing(
    name="loadbalancer",
    listing=Listing(service="load-balancer", version="v2", path="lbaas/loadbalancers", key="loadbalancers"),
    measures=(
        Measure(gauge("loadbalancer.operating", "status"), mapped("operating_status", OPERATING)),
        Measure(gauge("loadbalancer.provisioning", "status"), mapped("provisioning_status", PROVISIONING)),
    ),
    metadata=same_names(
        *("name", "description", "vip_address", "vip_network_id", "provider", "flavor_id", "availability_zone"),
        *("operating_status", "provisioning_status", "created_at", "updated_at"),
    ),
)

# --- Designate

ALL_ZONES = {"X-Auth-All-Projects": "true"}
ZONE_STATUS = {"ACTIVE": 1, "PENDING": 2, "ERROR": 3, "DELETED": 4}
ZONE = MeteredListing(
    name="dns.zone",
    listing=Listing(service="dns", version="v2", path="zones", key="zones", headers=ALL_ZONES),
    measures=(
        Measure(gauge("dns.zone.status", "status"), mapped("status", ZONE_STATUS)),
        Measure(gauge("dns.zone.ttl", "s"), amount("ttl")),
        Measure(gauge("dns.zone.serial", "serial"), amount("serial")),
    ),
    metadata=same_names("name", "email", "type", "status", "pool_id", "action", "created_at", "updated_at"),
)

# --- Manila

SHARE_STATUS = {"AVAILABLE": 1, "CREATING": 2, "DELETING": 3, "ERROR": 4, "ERROR_DELETING": 5, "EXTENDING": 6}
DELETED_LATER = ("deferred_deleting", "error_deferred_deleting")
"""Statuses of a share that its project has deleted and no longer sees, and whose data Manila deletes later."""

SHARE = MeteredListing(
    name="manila.share",
    listing=Listing(service="shared-file-system", version="v2", path="shares/detail", key="shares", query=ALL_PROJECTS),
    measures=(
        Measure(gauge("manila.share.size", "GiB"), amount("size")),
        Measure(gauge("manila.share.status", "status"), mapped("status", SHARE_STATUS)),
    ),
    metadata=same_names(
        *("name", "status", "share_proto", "share_type", "share_network_id", "availability_zone", "host"),
        *("is_public", "created_at", "metadata"),
    ),
    unbilled=lambda item: item.get("status") in DELETED_LATER,
)

METERED_LISTINGS = (
    *(IMAGE, VOLUME, SNAPSHOT, BACKUP, POOL, VOLUME_SERVICE, FLOATING_IP, NETWORK, SUBNET, PORT, ROUTER),
    *(VPN, VPN_CONNECTION, FIREWALL, FIREWALL_POLICY, HYPERVISOR, PROJECT, USER, LOADBALANCER, ZONE, SHARE),
)
