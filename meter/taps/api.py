"""``twistd meter-api``: answers Ceilometer's v2 API from the store."""

from __future__ import annotations

from typing import Any

from twisted.application.service import IService

from meter.taps.daemon import Daemon
from meter.taps.daemon import Options
from meter.taps.daemon import make
from meter.taps.parts import add_api
from meter.taps.parts import add_bus
from meter.taps.parts import add_store

__all__ = ["Options", "makeService"]


def makeService(options: Any) -> IService:
    """Return the daemon."""
    return make("meter-api", [], options, compose)


def compose(daemon: Daemon) -> None:
    """Store → API, and what clients send → bus."""
    accepts = daemon.config.api.accept_samples
    store = add_store(daemon, reads=True, writes=accepts, reading_suffices=True)
    bus = add_bus(daemon, without="samples that clients send are refused with 503") if accepts else None
    add_api(daemon, store, bus)
