"""``twistd meter-collector``: writes metering messages into the store, and makes metering messages of notifications."""

from __future__ import annotations

from typing import Any

from twisted.application.service import IService

from meter.daemon.metrics import CollectingMetrics
from meter.plugins.registry import LISTENER
from meter.taps.daemon import Daemon
from meter.taps.main import Options
from meter.taps.main import make
from meter.taps.parts.bus import add_bus
from meter.taps.parts.collector import add_collector
from meter.taps.parts.heartbeats import add_heartbeats
from meter.taps.parts.rating import add_rating
from meter.taps.parts.store import add_store

__all__ = ["Options", "makeService"]


def makeService(options: Any) -> IService:
    """Return the daemon."""
    return make("meter-collector", [LISTENER], options, compose)


def compose(daemon: Daemon) -> None:
    """Bus → sample consumer → store, and bus → notification consumer → bus."""
    metrics = CollectingMetrics(daemon.registry)
    store = add_store(daemon, writes=True)
    bus = add_bus(daemon, metrics)
    add_collector(daemon, bus, store, metrics)
    add_rating(daemon, store)
    add_heartbeats(daemon, bus)
