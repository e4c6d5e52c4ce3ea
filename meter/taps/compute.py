"""``twistd meter-compute``: polls the hypervisor of this host and publishes the samples on the bus."""

from __future__ import annotations

from typing import Any

from twisted.application.service import IService

from meter.interfaces import IHypervisor
from meter.plugins.registry import COMPUTE
from meter.taps.daemon import Daemon
from meter.taps.main import Options
from meter.taps.main import make
from meter.taps.parts.bus import add_bus
from meter.taps.parts.heartbeats import add_heartbeats
from meter.taps.parts.hypervisor import add_domain_events
from meter.taps.parts.hypervisor import add_hypervisor
from meter.taps.parts.polling import add_polling
from meter.taps.parts.process_locks import lock_resources

__all__ = ["Options", "makeService"]


def makeService(options: Any) -> IService:
    """Return the daemon."""
    return make("meter-compute", [COMPUTE], options, compose)


def compose(daemon: Daemon) -> None:
    """Hypervisor → pollsters → outbox → bus."""
    lock_resources(daemon, {}, {})
    bus = add_bus(daemon)
    hypervisor = add_hypervisor(daemon, installed_is_enough=True)
    add_polling(daemon, bus, [COMPUTE], {IHypervisor: hypervisor})
    add_domain_events(daemon, hypervisor)
    add_heartbeats(daemon, bus)
