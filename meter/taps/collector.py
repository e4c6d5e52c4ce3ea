"""``twistd meter-collector``: writes metering messages into the store, and turns notifications into such messages."""

from __future__ import annotations

from typing import Any

from twisted.application.service import IService

from meter.daemon.metrics import CollectingMetrics
from meter.plugins.registry import LISTENER
from meter.taps.daemon import Daemon
from meter.taps.daemon import Options
from meter.taps.daemon import make
from meter.taps.parts import add_bus
from meter.taps.parts import add_collecting
from meter.taps.parts import add_store

__all__ = ["Options", "makeService"]


def makeService(options: Any) -> IService:
    """Return the daemon."""
    return make("meter-collector", [LISTENER], options, compose)


def compose(daemon: Daemon) -> None:
    """Bus → intake → store, and bus → listeners → bus."""
    metrics = CollectingMetrics(daemon.registry)
    store = add_store(daemon, writes=True)
    bus = add_bus(daemon, metrics)
    add_collecting(daemon, bus, store, metrics)
