"""The two consumers of the collector: metering messages into the store, notifications onto the bus."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence

from twisted.application.service import IService

from meter.bus.dead_letters import DeadLetterPublisher
from meter.bus.local import LocalBus
from meter.collector.notifications import NOTIFICATIONS_QUEUE
from meter.collector.notifications import NotificationConsumer
from meter.collector.samples import SampleConsumer
from meter.collector.unit_watch import UnitWatch
from meter.daemon.metrics import CollectingMetrics
from meter.daemon.services import StagedService
from meter.interfaces import Binding
from meter.interfaces import IBus
from meter.interfaces import IStore
from meter.interfaces import Subscription
from meter.message import MeteringMessage
from meter.plugins.activation import Activation
from meter.plugins.registry import LISTENER
from meter.plugins.registry import Decision
from meter.query import WriteResult
from meter.taps.daemon import Daemon
from meter.taps.parts.full_collections import add_full_collections
from meter.taps.parts.identities import add_identity_file
from meter.taps.parts.identities import identity_changes
from meter.taps.parts.notification_archive import add_archive
from meter.taps.parts.reports import add_rejected_counts
from meter.taps.parts.reports import add_reports
from meter.taps.parts.subscriptions import subscribed

METERING_QUEUE = "meter.metering"


AfterCommit = Callable[[Sequence[MeteringMessage], WriteResult], object]


def add_collector(
    daemon: Daemon,
    bus: IBus,
    store: IStore,
    metrics: CollectingMetrics,
    after_commit: AfterCommit = lambda _messages, _result: None,
) -> None:
    """Add both consumers of the collector: metering messages into the store, notifications onto the bus."""
    settings = daemon.config.collector
    add_full_collections(daemon, lambda: daemon.off_reactor.busy)
    units = UnitWatch(daemon.reactor)

    def stored(messages: Sequence[MeteringMessage], result: WriteResult) -> None:
        units.observe(messages)
        after_commit(messages, result)

    rejected = add_rejected_counts(daemon, store)
    samples = SampleConsumer(
        store,
        daemon.keys,
        DeadLetterPublisher(
            bus,
            daemon.reactor,
            source_queue=METERING_QUEUE,
            count=daemon.count_dead_letter,
            off_reactor=daemon.off_reactor,
        ),
        daemon.reactor,
        batch_samples=settings.batch_samples,
        batch_seconds=settings.batch_seconds,
        metrics=metrics,
        after_commit=stored,
        off_reactor=daemon.off_reactor,
        count_rejected=rejected.add,
    )
    bindings = [Binding("metering", "metering.#", ours=True)]
    if settings.ceilometer_exchange and not isinstance(bus, LocalBus):
        bindings += [
            Binding(settings.ceilometer_exchange, "notifications.sample"),
            Binding(settings.ceilometer_exchange, "metering"),
            Binding(settings.ceilometer_exchange, "metering.sample"),
        ]
    subscription = Subscription(queue=METERING_QUEUE, bindings=tuple(bindings), prefetch=daemon.config.bus.prefetch)
    daemon.add(subscribed(daemon, bus, subscription, metrics.counting(METERING_QUEUE, samples.receive)))
    add_reports(daemon, bus, store, metrics)

    dead_notifications = DeadLetterPublisher(
        bus,
        daemon.reactor,
        source_queue=NOTIFICATIONS_QUEUE,
        count=daemon.count_dead_letter,
        off_reactor=daemon.off_reactor,
    )

    archive = add_archive(daemon, bus, metrics)

    def consume(active: Sequence[Decision]) -> IService:
        notifications = NotificationConsumer(
            active,
            bus,
            daemon.keys,
            dead_notifications,
            source=daemon.config.meter.source,
            metrics=metrics,
            topics=daemon.config.notifications.service_topics,
            clock=daemon.reactor,
            batch_seconds=daemon.config.notifications.batch_seconds,
            archive=archive,
            ignored_users=daemon.config.notifications.ignored_users,
            unit_name=daemon.config.units.name_of,
            off_reactor=daemon.off_reactor,
            report_identities=identity_changes(daemon, bus),
        )
        if not active:
            return StagedService(daemon.reactor)  # no queue, as no listener would take anything from it
        return subscribed(
            daemon,
            bus,
            notifications.subscription(prefetch=daemon.config.notifications.prefetch),
            metrics.counting(NOTIFICATIONS_QUEUE, notifications.receive),
        )

    daemon.activate(Activation(daemon.plugins(LISTENER), daemon.plugin_context(), consume, name="listeners"))
    add_identity_file(daemon, bus)
