"""The archive of notifications that no listener accepts."""

from __future__ import annotations

from collections.abc import Sequence

from meter.bus.local import LocalBus
from meter.collector.notification_archive import ARCHIVE_QUEUE
from meter.collector.notification_archive import DROPPED_QUEUE
from meter.collector.notification_archive import Archive
from meter.daemon.metrics import CollectingMetrics
from meter.interfaces import BoundedQueue
from meter.interfaces import IBus
from meter.settings import Config
from meter.taps.daemon import Daemon


def archive_queues(config: Config) -> Sequence[BoundedQueue]:
    """Return the queue of the archive; nothing if ``[notifications] archive_messages`` is 0."""
    settings = config.notifications
    if not settings.archive_messages:
        return ()
    seconds = settings.archive_days * 86400
    return (
        BoundedQueue(
            name=ARCHIVE_QUEUE, max_messages=settings.archive_messages, max_seconds=seconds, dropped=DROPPED_QUEUE
        ),
    )


def add_archive(daemon: Daemon, bus: IBus, metrics: CollectingMetrics) -> Archive | None:
    """Return the archive, and count the notifications that are dropped from it."""
    settings = daemon.config.notifications
    if not settings.archive_messages:
        return None
    if isinstance(bus, LocalBus):
        daemon.warnings.append("[notifications] archive_messages: the in-process bus has no archive; it needs RabbitMQ")
        return None
    archive = Archive(bus, settings.archive_event_types, metrics.archived, daemon.off_reactor)
    daemon.add(bus.subscribe(archive.subscription(), metrics.counting(DROPPED_QUEUE, archive.dropped)))
    return archive
