"""Heartbeats of a daemon over its bus; the API daemon has a connection of its own for them if it has no bus."""

from __future__ import annotations

import socket
from datetime import UTC
from datetime import datetime

from twisted.logger import globalLogPublisher

from meter.agent.destination import fingerprints
from meter.bus.amqp import AmqpBus
from meter.daemon.heartbeats import Heartbeats
from meter.daemon.heartbeats import Identity
from meter.daemon.last_error import LastError
from meter.daemon.services import wall_seconds
from meter.interfaces import IBus
from meter.sample import utc_text
from meter.settings.config_file import has_key
from meter.taps.daemon import Daemon

PUBLISHING_WINDOW = 1


def add_heartbeats(daemon: Daemon, bus: IBus) -> None:
    """Publish heartbeats on ``bus``. Call it last: the last heartbeat is made before all other parts stop."""
    if daemon.only_checking:
        return
    last_error = LastError()
    globalLogPublisher.addObserver(last_error)
    identity = Identity(
        daemon=daemon.name,
        host=socket.gethostname(),
        boot=daemon.boot,
        started_at=utc_text(datetime.fromtimestamp(wall_seconds(daemon.reactor), UTC)),
        status_address=daemon.listen_address("status"),
    )
    heartbeats = Heartbeats(
        identity,
        bus.publish,
        daemon.keys,
        daemon.reactor,
        readinesses=daemon.readinesses,
        last_error=last_error,
        spool=lambda: daemon.spool_state(),
        key_ids=lambda: tuple((key.id, fingerprints([key])[0]) for key in daemon.keys.keys if "meter" in key.schemes),
    )
    heartbeats.setServiceParent(daemon.root)


def add_heartbeats_without_bus(daemon: Daemon) -> None:
    """Publish the heartbeats of a daemon that has no bus over a connection of their own, if broker and key are configured.

    The daemon does not depend on it. It is not the store that they are written to: the API's user of the database, which
    may be a standby, needs to read only, and a heartbeat is signed, which the database would not verify.
    """
    settings = daemon.config.bus
    if "url" not in settings.model_fields_set or not has_key(daemon.config):
        return
    bus = AmqpBus(
        daemon.reactor,
        settings.url.get_secret_value(),
        clock=daemon.reactor,
        name=daemon.name,
        heartbeat_seconds=settings.heartbeat_seconds,
        queue_type=settings.queue_type,
        window=PUBLISHING_WINDOW,
        confirm_timeout_seconds=settings.confirm_timeout_seconds,
        max_body_bytes=settings.max_body_bytes,
    )
    bus.setServiceParent(daemon.root)
    add_heartbeats(daemon, bus)
