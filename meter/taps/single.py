"""``twistd meter``: all daemons in one process, with an embedded PostgreSQL and an in-process bus, for one host and for a first run"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.application.service import IService
from twisted.logger import Logger

from meter.agent.outbox import Outbox
from meter.agent.polling import CycleResult
from meter.daemon.metrics import CollectingMetrics
from meter.interfaces import IHypervisor
from meter.message import MeteringMessage
from meter.plugins.registry import CENTRAL
from meter.plugins.registry import COMPUTE
from meter.plugins.registry import LISTENER
from meter.query import WriteResult
from meter.settings.config_file import SINGLE
from meter.store import embedded_directory
from meter.taps.daemon import Daemon
from meter.taps.main import Options
from meter.taps.main import make
from meter.taps.parts.api import add_api
from meter.taps.parts.bus import add_bus
from meter.taps.parts.cloud import add_cloud
from meter.taps.parts.collector import add_collector
from meter.taps.parts.heartbeats import add_heartbeats
from meter.taps.parts.hypervisor import add_domain_events
from meter.taps.parts.hypervisor import add_hypervisor
from meter.taps.parts.identities import add_identity_polling
from meter.taps.parts.polling import add_polling
from meter.taps.parts.process_locks import lock_resources
from meter.taps.parts.rating import add_rating
from meter.taps.parts.store import add_store

__all__ = ["Options", "makeService"]


def makeService(options: Any) -> IService:
    """Return the daemon."""
    return make(SINGLE, [COMPUTE, CENTRAL, LISTENER], options, compose)


def compose(daemon: Daemon) -> None:
    """Hypervisor → pollsters → outbox → bus → sample consumer → store → API."""
    database = embedded_directory(daemon.config.store.dsn.get_secret_value())
    lock_resources(daemon, {"[store] dsn": database} if database else {}, {"[api] listen": daemon.config.api.listen})
    metrics = CollectingMetrics(daemon.registry)
    tally = StoredSamplesLog()
    store = add_store(daemon, reads=True, writes=True)
    bus = add_bus(daemon, metrics)
    add_collector(daemon, bus, store, metrics, after_commit=tally.committed)
    hypervisor = add_hypervisor(daemon, installed_is_enough=False)
    providers = {IHypervisor: hypervisor, **add_cloud(daemon)}
    outbox = add_polling(daemon, bus, [COMPUTE, CENTRAL], providers, after_cycle=lambda _: tally.tell(outbox, _))
    add_identity_polling(daemon, bus, providers)
    add_domain_events(daemon, hypervisor)
    add_api(daemon, store, bus if daemon.config.api.accept_samples else None)
    add_rating(daemon, store)
    add_heartbeats(daemon, bus)


class StoredSamplesLog:
    """Logs after each polling cycle how many samples were stored."""

    _log = Logger()

    def __init__(self) -> None:
        self._stored = 0
        self._meters: set[str] = set()

    def committed(self, messages: Sequence[MeteringMessage], result: WriteResult) -> None:
        """Count a committed batch."""
        self._stored += result.stored
        self._meters.update(message.name for message in messages)

    def tell(self, outbox: Outbox, _: CycleResult) -> None:
        """Log the number stored since the last cycle, once all samples of this one are committed."""
        outbox.when_empty().addCallback(lambda _: self._tell())

    def _tell(self) -> None:
        stored, self._stored = self._stored, 0
        meters, self._meters = self._meters, set()
        if stored or meters:  # nothing, if two cycles waited for the store and were committed at once
            self._log.info("stored {samples} samples of {meters} meters", samples=stored, meters=len(meters))
