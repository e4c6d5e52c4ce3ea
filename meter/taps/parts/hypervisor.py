"""The libvirt of this host, and polling of domains when their state changes."""

from __future__ import annotations

from meter.agent.domain_events import DomainEventPoller
from meter.hypervisor import LibvirtHypervisor
from meter.hypervisor import resolve_uri
from meter.taps.daemon import Daemon


def add_hypervisor(daemon: Daemon, *, installed_is_enough: bool) -> LibvirtHypervisor:
    """Add the libvirt that ``[compute]`` names."""
    settings = daemon.config.compute
    uri, why = resolve_uri(settings.libvirt_uri, installed_is_enough=installed_is_enough)
    if settings.libvirt_uri == "auto":
        daemon.warnings.append(f"[compute] libvirt_uri: using {uri}: {why}")
    hypervisor = LibvirtHypervisor(
        uri, clock=daemon.reactor, reactor_threads=daemon.reactor, timeout_seconds=settings.timeout_seconds
    )
    daemon.health_metrics.count_abandoned_calls(
        hung=lambda: hypervisor.stuck_threads, total=lambda: hypervisor.abandoned_calls
    )
    daemon.health_metrics.count_hanging_domains(lambda: len(hypervisor.hung))
    daemon.add(hypervisor)
    return hypervisor


def add_domain_events(daemon: Daemon, hypervisor: LibvirtHypervisor) -> None:
    """Poll a domain as soon as its state changes, in addition to the polling cycles."""
    if daemon.polling is not None:
        changes = DomainEventPoller(hypervisor, daemon.polling)
        daemon.health_metrics.count_unpolled_changes(lambda: hypervisor.dropped_events + changes.dropped)
        daemon.add(changes)
