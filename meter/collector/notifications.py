"""Consumes notifications: converts each into samples, publishes these, and then acknowledges the notification.

A notification is acknowledged once the bus has confirmed every sample made from it, or the dead letter with the reason
why there are none. A notification that no listener wants is counted by event type.
"""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Protocol

from twisted.internet.defer import CancelledError
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from meter.bus.batches import BATCH_SAMPLES
from meter.bus.dead_letters import DeadLetterPublisher
from meter.bus.dead_letters import call_at_once
from meter.collector.batcher import PublicationBatcher
from meter.collector.batcher import Unpublishable
from meter.collector.conversion import MAX_SAMPLES
from meter.collector.conversion import Conversion
from meter.collector.conversion import NotificationConverter
from meter.collector.large_bodies import Runner
from meter.collector.notification_archive import Archive
from meter.collector.rejection import Rejection
from meter.collector.rejection import rejection_of
from meter.daemon.locks import Lock
from meter.interfaces import Binding
from meter.interfaces import Delivery
from meter.interfaces import IPublisher
from meter.interfaces import Subscription
from meter.interfaces import Topic
from meter.interfaces import Unavailable
from meter.notification import Notification
from meter.plugins.registry import Decision
from meter.signing_keys import Keyring

NOTIFICATIONS_QUEUE = "meter.notifications"
"""Meter's own durable queue: other consumers of the exchanges still receive every notification."""

IDENTITY_EVENTS = "identity."
"""How the event types of Keystone's notifications begin that can be about a project, a domain or a user."""


class NotificationMetrics(Protocol):
    """Counts notifications; implemented by :class:`meter.daemon.metrics.CollectingMetrics`."""

    def notified(self, event_type: str, outcome: str) -> None:
        """Count a notification; ``outcome`` is a :data:`meter.collector.conversion.Outcome`."""


class NotificationConsumer:
    """Converts and publishes notifications: :meth:`receive` is a :data:`meter.interfaces.Receiver`.

    ``listeners`` are the active decisions of :mod:`meter.plugins.registry`; the queue is bound to their topics and to
    ``topics``. If a listener raises or returns something other than samples, the notification is dead-lettered; the
    samples of other listeners, and those yielded before a ``ValueError``, are published all the same. Samples of several
    notifications are batched for ``batch_seconds``; without a ``clock``, or with 0 seconds, each notification is published
    at once. Unwanted notifications go to the ``archive``, if there is one. ``source``, ``unit_name``, ``ignored_users`` and
    ``max_samples`` are those of :class:`~meter.collector.conversion.NotificationConverter`. ``off_reactor`` runs a function in
    a thread, for large notifications. ``report_identities`` is told each notification about identities before it is acknowledged.
    """

    def __init__(
        self,
        listeners: Iterable[Decision],
        publisher: IPublisher,
        keys: Keyring,
        dead_letters: DeadLetterPublisher,
        *,
        source: str,
        metrics: NotificationMetrics,
        topics: Iterable[Topic] = (),
        clock: IReactorTime | None = None,
        batch_samples: int = BATCH_SAMPLES,
        batch_seconds: float = 0.0,
        max_samples: int = MAX_SAMPLES,
        archive: Archive | None = None,
        ignored_users: Iterable[str] = (),
        unit_name: Callable[[str], str] | None = None,
        off_reactor: Runner = call_at_once,
        report_identities: Callable[[Notification], Awaitable[None]] | None = None,
    ) -> None:
        self._listeners = tuple(listeners)
        self._topics = tuple(topics)
        self._converter = NotificationConverter(
            self._listeners,
            keys,
            source=source,
            unit_name=unit_name,
            ignored_users=ignored_users,
            max_samples=max_samples,
        )
        self._batcher = PublicationBatcher(publisher, clock, batch_samples=batch_samples, batch_seconds=batch_seconds)
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._archive = archive
        self._off_reactor = off_reactor
        self._report_identities = report_identities
        self._large = Lock()

    def subscription(self, queue: str = NOTIFICATIONS_QUEUE, prefetch: int = 200) -> Subscription:
        """Return the subscription: ``queue``, bound once to each configured topic and each topic of a listener."""
        of_listeners = (topic for listener in self._listeners for topic in listener.plugin.topics)
        topics = dict.fromkeys((*self._topics, *of_listeners))
        return Subscription(
            queue=queue,
            bindings=tuple(Binding(topic.exchange, topic.routing_key) for topic in topics),
            prefetch=prefetch,
        )

    async def receive(self, delivery: Delivery) -> None:
        """Return once every sample of one notification, or its dead letter, is confirmed by the bus.

        Raises :class:`~meter.interfaces.Unavailable` if the bus does not confirm. The notification is then requeued, and
        its next delivery gives the same samples with the same ids. Large notifications are processed one at a time.
        """
        if not self._converter.is_large(delivery.body):
            # Not a variable: it would keep the conversion until the end.
            await self._finish(delivery, self._converter.convert_at_once(delivery.body, large=False))
            return
        await self._large.acquire()
        try:
            await self._finish(delivery, await self._converter.convert_large(delivery.body, self._off_reactor))
        finally:
            self._large.release()

    async def _finish(self, delivery: Delivery, conversion: Conversion) -> None:
        """Publish the samples of a notification and what has to be said about it.

        While it waits for a confirm it keeps nothing of the ``conversion`` that is not needed afterwards: a thousand notifications
        wait at a time, and the next ones use memory that is free, and in the caches of the processor.
        """
        outcome, rejections = conversion.outcome, list(conversion.rejections)
        notification = conversion.notification
        event_type = "unknown" if notification is None else notification.event_type
        if self._report_identities is None or not event_type.startswith(IDENTITY_EVENTS):
            notification = None
        waiting = [
            (result.listener.name, self._batcher.add(result.messages))
            for result in conversion.results
            if result.messages
        ]
        del conversion
        if waiting:
            rejections += await _outcomes(waiting, event_type)
        if self._report_identities is not None and notification is not None:
            await self._report_identities(notification)
        for rejection in rejections:
            await rejection.dead_letter(self._dead_letters, delivery)
        if rejections:
            outcome = "dead"
        if outcome == "unwanted" and self._archive is not None:
            await self._archive.keep(delivery, event_type)
        self._metrics.notified(event_type, outcome)


async def _outcomes(waiting: Sequence[tuple[str, Deferred[None]]], event_type: str) -> list[Rejection]:
    """Wait for every confirm, even after a failure; return a rejection for the samples of each listener that the bus does not accept."""
    unavailable: Unavailable | None = None
    rejections: list[Rejection] = []
    for listener, published in waiting:
        try:
            await published
        except Unavailable as error:
            unavailable = error
        except Unpublishable as error:
            rejections.append(Rejection(kind="unpublishable", reason=str(error), event_type=event_type))
        except CancelledError:
            for _, other in waiting:
                other.addErrback(lambda _: None)  # nobody waits for it any more
            raise Unavailable("the bus: publishing was cancelled") from None
        except Exception as error:
            rejections.append(rejection_of(error, listener=listener, event_type=event_type))
    if unavailable is not None:
        raise unavailable
    return rejections
