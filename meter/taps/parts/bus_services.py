"""What the pages of the API show of the message bus, and how a replay of dead letters is recorded."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING
from typing import Any

from meter.audit_record import Record
from meter.bus.amqp import BrokerInspection
from meter.bus.dead_letter_queues import BrokerDeadLetters
from meter.bus.dead_letter_queues import DeadLetterQueue
from meter.bus.dead_letter_queues import SpooledDeadLetters
from meter.bus.dead_letters import DEAD_LETTER_QUEUE
from meter.bus.queue_names import CONSUMED_QUEUES
from meter.bus.queue_names import WAITING_QUEUES
from meter.daemon.threads import CallThread
from meter.interfaces import Unavailable
from meter.settings.config_file import SINGLE
from meter.settings.config_file import has_key
from meter.signing_keys import keys_for_audit
from meter.store import Act
from meter.store import Administration
from meter.store.postgres.connection import Rejected
from meter.taps.daemon import Daemon
from meter.taps.parts.store import database_dsn

if TYPE_CHECKING:
    from meter.api.bus_services import BusServices
    from meter.api.bus_services import BusState


def bus_services(daemon: Daemon) -> BusServices | None:
    """Return what pages show of the bus; ``None`` if this daemon has none and its file names none."""
    # As the rest of the API: what it imports installs the global reactor, which twistd has chosen by now.
    from meter.api.bus_services import BusServices

    settings = daemon.config.bus
    url = settings.url.get_secret_value()
    if url == "local:":
        if daemon.name != SINGLE or daemon.only_checking:
            return None
        thread = CallThread(daemon.reactor, "reading of dead letters")

        def spooled() -> DeadLetterQueue:
            return SpooledDeadLetters(
                daemon.state_dir / "dead-letters.spool",
                daemon.state_dir / f"{SINGLE}.spool",
                clock=daemon.reactor,
                max_bytes=daemon.config.spool.max_bytes,
                run=lambda function, *arguments: thread.call(lambda: function(*arguments)),
            )

        return BusServices(
            daemon.reactor,
            open_queue=spooled,
            look=lambda: _look_at_spool(spooled()),
            recorder=lambda who, reason: _recorder(daemon, who, reason),
            off_reactor=daemon.off_reactor,
        )
    if "url" not in settings.model_fields_set and not daemon.config.api.accept_samples:
        return None

    def browsed() -> DeadLetterQueue:
        name = f"{daemon.name} dead letters"
        return BrokerDeadLetters(
            daemon.reactor, url, clock=daemon.reactor, name=name, max_body_bytes=settings.max_body_bytes
        )

    return BusServices(
        daemon.reactor,
        open_queue=browsed,
        look=lambda: _look_at_broker(BrokerInspection(daemon.reactor, url, clock=daemon.reactor, name=daemon.name)),
        recorder=lambda who, reason: _recorder(daemon, who, reason),
        max_dead_letters=settings.max_dead_letters,
        off_reactor=daemon.off_reactor,
    )


async def _look_at_spool(queue: DeadLetterQueue) -> BusState:
    from meter.api.bus_services import BusState

    try:
        return BusState(product="The in-process bus of twistd meter", queues=(), dead_letters=await queue.open())
    finally:
        await queue.close()


async def _look_at_broker(inspection: BrokerInspection) -> BusState:
    from meter.api.bus_services import BusState
    from meter.api.bus_services import QueueLength

    try:
        product = await inspection.open()
        queues = []
        for name in (*CONSUMED_QUEUES, *WAITING_QUEUES):
            state = await inspection.queue(name)
            if state is not None or name in CONSUMED_QUEUES:
                queues.append(QueueLength(name, *(state or (None, None))))
        dead = await inspection.queue(DEAD_LETTER_QUEUE)
        where = f"{product} at {inspection.address}"
        return BusState(
            product=where, queues=queues, dead_letters=dead.messages if dead else 0, blocked=inspection.blocked
        )
    finally:
        await inspection.close()


def _recorder(daemon: Daemon, who: str, reason: str) -> Record:
    """Return the function that records what ``who`` does, over a connection of its own: the API may have none for writing."""

    async def record(action: str, details: Mapping[str, Any]) -> None:
        keys = keys_for_audit(daemon.keys) if daemon.name == SINGLE or has_key(daemon.config) else ()
        if not keys:
            raise Unavailable(
                "nothing was done, as the audit log cannot be written: it needs a signing key for all meters and sources, and"
                " [signing] of this server has none"
            )
        acting = Act(who=who, reason=reason, keys=keys, details={"by": f"{daemon.name}@{socket.gethostname()}"})
        administration = Administration(
            daemon.reactor, database_dsn(daemon), clock=daemon.reactor, application_name=f"{daemon.name} audit log"
        )
        try:
            await administration.open()
            await administration.record(acting, action, details)
        except (Rejected, Unavailable) as error:
            raise Unavailable(f"nothing was done, as the audit log cannot be written: {error}") from error
        finally:
            administration.close()

    return record
