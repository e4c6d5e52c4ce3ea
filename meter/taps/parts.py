"""Parts that more than one daemon is made of: configuration in, a part added to the daemon out."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

from twisted.application.service import IService

from meter.agent.domain_events import DomainEventPoller
from meter.agent.spool import Spool
from meter.bus.amqp import AmqpBus
from meter.bus.dead_letters import DeadLetterPublisher
from meter.bus.local import LocalBus
from meter.collector.notifications import NOTIFICATIONS_QUEUE
from meter.collector.notifications import NotificationConsumer
from meter.collector.samples import SampleConsumer
from meter.collector.unit_watch import UnitWatch
from meter.daemon.metrics import CollectingMetrics
from meter.daemon.ports import Port
from meter.daemon.services import Periodic
from meter.daemon.services import StagedService
from meter.daemon.threads import CallThread
from meter.hypervisor import LibvirtHypervisor
from meter.hypervisor import resolve_uri
from meter.interfaces import Binding
from meter.interfaces import IBus
from meter.interfaces import IStore
from meter.interfaces import Publication
from meter.interfaces import Subscription
from meter.message import MeteringMessage
from meter.plugins.activation import Activation
from meter.plugins.registry import LISTENER
from meter.plugins.registry import Decision
from meter.query import WriteResult
from meter.store import EmbeddedPostgres
from meter.store import PostgresStore
from meter.store import Retention
from meter.store import embedded_directory
from meter.taps.daemon import Daemon
from meter.taps.notification_archive import add_archive
from meter.taps.notification_archive import archive_queues

METERING_QUEUE = "meter.metering"


def add_bus(daemon: Daemon, metrics: CollectingMetrics | None = None, *, without: str = "") -> IBus:
    """Add the message bus that ``[bus]`` names; for ``without`` see :meth:`Daemon.add`."""
    settings = daemon.config.bus
    url = settings.url.get_secret_value()
    count_dead = metrics.dead if metrics else lambda _: None
    bus: AmqpBus | LocalBus
    if url == "local:":
        bus = LocalBus(
            daemon.reactor,
            store_dead_letter=_dead_letters_on_disk(daemon),
            count_dead=count_dead,
            largest_body_bytes=settings.largest_body_bytes,
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
            largest_body_bytes=settings.largest_body_bytes,
            create_foreign_exchanges=daemon.config.collector.create_exchanges,
            rebind_seconds=daemon.config.collector.exchange_retry_seconds,
            count_dead=count_dead,
            bounded=archive_queues(daemon.config) if metrics else (),
        )
    daemon.add(bus, without=without)
    return bus


def _dead_letters_on_disk(daemon: Daemon) -> Callable[[Publication], Awaitable[None]]:
    """Where there is no broker to keep dead letters, a spool that nobody empties does."""
    thread = CallThread(daemon.reactor, "dead letters")
    spool = Spool(
        daemon.state_dir / "dead-letters.spool",
        largest_bytes=daemon.config.spool.largest_bytes,
        longest_age_seconds=daemon.config.spool.longest_age_seconds,
        clock=daemon.reactor,
        run=lambda function, *arguments: thread.call(lambda: function(*arguments)),
    )
    return lambda publication: spool.put([publication])


def add_hypervisor(daemon: Daemon, *, installed_is_enough: bool) -> LibvirtHypervisor:
    """Add the libvirt that ``[compute]`` names."""
    settings = daemon.config.compute
    uri, why = resolve_uri(settings.libvirt_uri, installed_is_enough=installed_is_enough)
    if settings.libvirt_uri == "auto":
        daemon.warnings.append(f"[compute] libvirt_uri: {uri} is used, because {why}")
    hypervisor = LibvirtHypervisor(
        uri, clock=daemon.reactor, reactor_threads=daemon.reactor, timeout_seconds=settings.timeout_seconds
    )
    daemon.health_metrics.count_abandoned_calls(
        hanging=lambda: hypervisor.stuck_threads, ever=lambda: hypervisor.abandoned_calls
    )
    daemon.health_metrics.count_hanging_domains(lambda: len(hypervisor.hanging))
    daemon.add(hypervisor)
    return hypervisor


def poll_changes(daemon: Daemon, hypervisor: LibvirtHypervisor) -> None:
    """Have domains polled when they start, stop or change their state in another way, besides when their turn comes."""
    if daemon.polling is not None:
        changes = DomainEventPoller(hypervisor, daemon.polling)
        daemon.health_metrics.count_unpolled_changes(lambda: hypervisor.dropped_changes + changes.dropped)
        daemon.add(changes)


def add_store(
    daemon: Daemon, *, reads: bool = False, writes: bool = False, reading_suffices: bool = False
) -> PostgresStore:
    """Add the data store that ``[store]`` names. Who writes also brings its schema up to date.

    Where ``reading_suffices`` the daemon stays ready while nothing can be written.
    """
    settings = daemon.config.store
    dsn = settings.dsn.get_secret_value()
    directory = embedded_directory(dsn)
    if directory is not None:
        server = EmbeddedPostgres(daemon.reactor, directory, clock=daemon.reactor)
        daemon.add(server)
        dsn = server.dsn
    store = PostgresStore(
        daemon.reactor,
        dsn,
        clock=daemon.reactor,
        migrate=writes,
        readers=settings.readers if reads else 0,
        longest_wait_seconds=settings.longest_wait_seconds,
        writers=settings.writers if writes else 0,
        application_name=daemon.name,
        statement_timeout_seconds=settings.statement_timeout_seconds,
        keep=writes,
        retention=Retention(
            days=settings.retention_days,
            meter_days=settings.retention_days_by_meter,
            rollup_days=settings.rollup_retention_days,
        ),
        settle_after_seconds=settings.settle_after_seconds,
        replica_dsn=settings.replica_dsn.get_secret_value(),
        reading_suffices=reading_suffices,
    )
    daemon.add(store)
    return store


AfterCommit = Callable[[Sequence[MeteringMessage], WriteResult], object]


def add_collecting(
    daemon: Daemon,
    bus: IBus,
    store: IStore,
    metrics: CollectingMetrics,
    after_commit: AfterCommit = lambda _messages, _result: None,
) -> None:
    """Add both pipelines of the collector: metering messages into the store, notifications onto the bus."""
    settings = daemon.config.collector
    units = UnitWatch()

    def stored(messages: Sequence[MeteringMessage], result: WriteResult) -> None:
        units.observe(messages)
        after_commit(messages, result)

    intake = SampleConsumer(
        store,
        daemon.keys,
        DeadLetterPublisher(bus, daemon.reactor, source_queue=METERING_QUEUE, count=metrics.dead),
        daemon.reactor,
        batch_samples=settings.batch_samples,
        batch_seconds=settings.batch_seconds,
        metrics=metrics,
        after_commit=stored,
    )
    bindings = [Binding("metering", "metering.#", ours=True)]
    if settings.ceilometer_exchange and not isinstance(bus, LocalBus):
        bindings += [
            Binding(settings.ceilometer_exchange, "notifications.sample"),
            Binding(settings.ceilometer_exchange, "metering"),
            Binding(settings.ceilometer_exchange, "metering.sample"),
        ]
    daemon.add(
        bus.subscribe(
            Subscription(queue=METERING_QUEUE, bindings=tuple(bindings), prefetch=daemon.config.bus.prefetch),
            metrics.counting(METERING_QUEUE, intake.receive),
        )
    )

    dead_notifications = DeadLetterPublisher(bus, daemon.reactor, source_queue=NOTIFICATIONS_QUEUE, count=metrics.dead)

    archive = add_archive(daemon, bus, metrics)

    def hear(active: Sequence[Decision]) -> IService:
        listening = NotificationConsumer(
            active,
            bus,
            daemon.keys,
            dead_notifications,
            source=daemon.config.meter.source,
            metrics=metrics,
            topics=daemon.config.notifications.heard,
            clock=daemon.reactor,
            batch_seconds=daemon.config.notifications.batch_seconds,
            archive=archive,
            ignored_users=daemon.config.notifications.ignored_users,
            unit_name=daemon.config.units.name_of,
        )
        if not active:
            return StagedService(daemon.reactor)  # nobody wants to hear anything
        return bus.subscribe(
            listening.subscription(prefetch=daemon.config.notifications.prefetch),
            metrics.counting(NOTIFICATIONS_QUEUE, listening.receive),
        )

    daemon.activate(Activation(daemon.plugins(LISTENER), daemon.plugin_context(), hear, name="listeners"))


def add_api(daemon: Daemon, store: IStore, bus: IBus | None) -> None:
    """Add the HTTP API and the port it is served on. Samples that clients send go onto ``bus``, where they are to be taken."""
    # Importing klein installs the global reactor; by now it has been chosen.
    from meter.api import Api
    from meter.api import Limits
    from meter.api import SampleIngest
    from meter.api import site

    settings = daemon.config.api
    api = Api(
        store,
        daemon.reactor,
        auth=_api_auth(daemon),
        acceptance=SampleIngest(daemon.keys, daemon.config.meter.source, bus, store) if bus else None,
        limits=Limits(
            default=settings.default_limit,
            largest=settings.largest_limit,
            windows=settings.largest_statistics,
            requests=settings.most_requests,
            live=settings.most_live,
        ),
        base_url=settings.base_url or None,
        cors_origins=settings.cors_origins,
    )
    served = site(api, daemon.reactor, largest_body_bytes=settings.largest_body_bytes, access_log=settings.access_log)
    daemon.add(Port(settings.listen, served, name="api", reactor=daemon.reactor, clock=daemon.reactor))


def _api_auth(daemon: Daemon) -> Any:
    """Return what finds out who is asking, by ``[api.auth]``."""
    from meter.api import LOOK_SECONDS
    from meter.api import Everyone
    from meter.api import KeystoneTokens
    from meter.api import Requester
    from meter.api import StaticToken
    from meter.api import StaticTokens

    auth = daemon.config.api.auth
    if auth.mode == "tokens":
        return StaticTokens(
            StaticToken(each.sha256, Requester(each.admin, each.project_id, each.user_id)) for each in auth.tokens
        )
    if auth.mode == "keystone":
        from meter.openstack.credentials import BadCredentials
        from meter.openstack.credentials import Tls
        from meter.openstack.validation import validating_keystone

        keystone = auth.keystone
        if keystone.insecure:
            daemon.warnings.append("[api.auth.keystone] insecure: any certificate of Keystone is taken")
        try:
            asked = validating_keystone(
                daemon.reactor,
                Tls(ca_file=keystone.ca_file, insecure=keystone.insecure),
                auth_url=keystone.auth_url,
                username=keystone.username,
                password=keystone.password.get_secret_value() if keystone.password else "",
                user_domain_name=keystone.user_domain_name,
                project_name=keystone.project_name,
                project_domain_name=keystone.project_domain_name,
            )
        except BadCredentials as error:
            daemon.problems.append(f"[api.auth.keystone] {error}")
            return StaticTokens(())
        tokens = KeystoneTokens(
            asked.validate,
            daemon.reactor,
            check=asked.check,
            uri=keystone.auth_url,
            admin_roles=keystone.admin_roles,
            revalidate_seconds=keystone.revalidate_seconds,
            most=keystone.cached_tokens,
        )
        daemon.dependencies.append(tokens)
        daemon.add(Periodic(tokens.look, LOOK_SECONDS, daemon.reactor, name="keystone check"))
        return tokens
    return Everyone()
