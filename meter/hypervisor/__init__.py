"""The hypervisor: all libvirt domains with their statistics, even when some hang. The only code that uses libvirt."""

from meter.hypervisor.library import open_read_only
from meter.hypervisor.service import LibvirtHypervisor
from meter.hypervisor.uri import resolve_uri

__all__ = ["LibvirtHypervisor", "open_read_only", "resolve_uri"]
