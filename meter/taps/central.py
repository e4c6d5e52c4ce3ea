"""``twistd meter-central``: polls OpenStack services and publishes the samples on the bus."""

from __future__ import annotations

from typing import Any

from twisted.application.service import IService

from meter.plugins.registry import CENTRAL
from meter.taps.daemon import Daemon
from meter.taps.main import Options
from meter.taps.main import make
from meter.taps.parts.bus import add_bus
from meter.taps.parts.cloud import add_cloud
from meter.taps.parts.heartbeats import add_heartbeats
from meter.taps.parts.identities import add_identity_polling
from meter.taps.parts.polling import add_polling
from meter.taps.parts.process_locks import lock_resources

__all__ = ["Options", "makeService"]


def makeService(options: Any) -> IService:
    """Return the daemon."""
    return make("meter-central", [CENTRAL], options, compose)


def compose(daemon: Daemon) -> None:
    """OpenStack → pollsters → outbox → bus."""
    settings = daemon.config.central
    lock_resources(daemon, {}, {})
    bus = add_bus(daemon)
    cloud = add_cloud(daemon)
    add_polling(daemon, bus, [CENTRAL], cloud, leader_group=settings.leader_group, section="central")
    add_identity_polling(daemon, bus, cloud, leader_group=settings.leader_group)
    add_heartbeats(daemon, bus)
