"""``twistd meter-compute``: polls the hypervisor of this host and sends what it measures over the bus."""

from __future__ import annotations

from typing import Any

from twisted.application.service import IService

from meter.interfaces import IHypervisor
from meter.plugins.registry import COMPUTE
from meter.taps.daemon import Daemon
from meter.taps.daemon import Options
from meter.taps.daemon import make
from meter.taps.parts import add_bus
from meter.taps.parts import add_hypervisor
from meter.taps.parts import poll_changes

__all__ = ["Options", "makeService"]


def makeService(options: Any) -> IService:
    """Return the daemon."""
    return make("meter-compute", [COMPUTE], options, compose)


def compose(daemon: Daemon) -> None:
    """Hypervisor → pollsters → outbox → bus."""
    daemon.own({}, {})
    bus = add_bus(daemon)
    hypervisor = add_hypervisor(daemon, installed_is_enough=True)
    daemon.poll(bus, [COMPUTE], {IHypervisor: hypervisor})
    poll_changes(daemon, hypervisor)
