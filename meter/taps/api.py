"""``twistd meter-api``: serves Ceilometer's v2 API from the store."""

from __future__ import annotations

from typing import Any

from twisted.application.service import IService

from meter.taps.daemon import Daemon
from meter.taps.main import Options
from meter.taps.main import make
from meter.taps.parts.api import add_api
from meter.taps.parts.bus import add_bus
from meter.taps.parts.heartbeats import add_heartbeats
from meter.taps.parts.heartbeats import add_heartbeats_without_bus
from meter.taps.parts.store import add_store

__all__ = ["Options", "makeService"]


def makeService(options: Any) -> IService:
    """Return the daemon."""
    return make("meter-api", [], options, compose)


def compose(daemon: Daemon) -> None:
    """Store → API, and samples of clients → bus."""
    accepts = daemon.config.api.accept_samples
    store = add_store(daemon, reads=True, writes=accepts, reading_suffices=True)
    bus = add_bus(daemon, without="samples of clients are refused with 503") if accepts else None
    add_api(daemon, store, bus)
    if bus is None:
        add_heartbeats_without_bus(daemon)
    else:
        add_heartbeats(daemon, bus)
