"""The message bus that ``[bus]`` names: RabbitMQ, or the in-process bus."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable

from meter.agent.spool import Spool
from meter.bus.amqp import AmqpBus
from meter.bus.local import LocalBus
from meter.daemon.dead_letter_status import DeadLetterStatus
from meter.daemon.metrics import CollectingMetrics
from meter.daemon.services import Periodic
from meter.daemon.threads import CallThread
from meter.interfaces import IBus
from meter.interfaces import Publication
from meter.taps.daemon import Daemon
from meter.taps.parts.notification_archive import archive_queues

DEAD_LETTER_CHECK_SECONDS = 15.0
"""How often ``/readyz`` and ``/metrics`` learn the number of dead letters."""


def add_bus(daemon: Daemon, metrics: CollectingMetrics | None = None, *, without: str = "") -> IBus:
    """Add the message bus that ``[bus]`` names; for ``without`` see :meth:`Daemon.add`."""
    settings = daemon.config.bus
    url = settings.url.get_secret_value()
    bus: AmqpBus | LocalBus
    status = None
    if metrics is not None:
        status = DeadLetterStatus(daemon.reactor, metrics.dead, lambda: bus.queued_dead_letters)
        daemon.count_dead_letter = status.count
    if url == "local:":
        bus = LocalBus(
            daemon.reactor,
            store_dead_letter=_dead_letters_on_disk(daemon),
            count_dead=daemon.count_dead_letter,
            max_body_bytes=settings.max_body_bytes,
        )
    else:
        bus = AmqpBus(
            daemon.reactor,
            url,
            clock=daemon.reactor,
            name=daemon.name,
            heartbeat_seconds=settings.heartbeat_seconds,
            queue_type=settings.queue_type,
            window=settings.window,
            confirm_timeout_seconds=settings.confirm_timeout_seconds,
            max_body_bytes=settings.max_body_bytes,
            max_prefetched_bytes=settings.max_prefetched_bytes,
            create_foreign_exchanges=daemon.config.collector.create_exchanges,
            rebind_seconds=daemon.config.collector.exchange_retry_seconds,
            count_dead=daemon.count_dead_letter,
            bounded=archive_queues(daemon.config) if metrics else (),
            max_dead_letters=settings.max_dead_letters,
            off_reactor=daemon.off_reactor,
        )
    daemon.add(bus, without=without)
    if status is not None and metrics is not None:
        daemon.dependencies.append(status)
        if isinstance(bus, AmqpBus):
            metrics.export_dead_letters(lambda: bus.queued_dead_letters[0])
            daemon.add(Periodic(bus.check_dead_letters, DEAD_LETTER_CHECK_SECONDS, daemon.reactor, name="dead letters"))
    return bus


def _dead_letters_on_disk(daemon: Daemon) -> Callable[[Publication], Awaitable[None]]:
    """Return the function that stores dead letters in a spool file, as the in-process bus has no queue for them."""
    thread = CallThread(daemon.reactor, "dead letters")
    spool = Spool(
        daemon.state_dir / "dead-letters.spool",
        max_bytes=daemon.config.spool.max_bytes,
        max_age_seconds=daemon.config.spool.max_age_seconds,
        clock=daemon.reactor,
        run=lambda function, *arguments: thread.call(lambda: function(*arguments)),
    )
    return lambda publication: spool.put([publication])
