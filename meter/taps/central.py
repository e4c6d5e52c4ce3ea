"""``twistd meter-central``: polls what belongs to no single compute node and sends what it measures over the bus."""

from __future__ import annotations

from typing import Any

from twisted.application.service import IService

from meter.plugins.registry import CENTRAL
from meter.taps.cloud import add_cloud
from meter.taps.daemon import Daemon
from meter.taps.daemon import Options
from meter.taps.daemon import make
from meter.taps.parts import add_bus

__all__ = ["Options", "makeService"]


def makeService(options: Any) -> IService:
    """Return the daemon."""
    return make("meter-central", [CENTRAL], options, compose)


def compose(daemon: Daemon) -> None:
    """OpenStack → pollsters → outbox → bus."""
    settings = daemon.config.central
    daemon.own({}, {})
    bus = add_bus(daemon)
    cloud = add_cloud(daemon)
    daemon.poll(bus, [CENTRAL], cloud, turn=settings.leader_group, timeout_seconds=settings.timeout_seconds)
