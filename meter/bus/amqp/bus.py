"""The bus on RabbitMQ: the interface of this package to the rest of Meter."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Sequence
from functools import partial
from typing import Any

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from meter.bus.amqp.client import Client
from meter.bus.amqp.connection import ConnectionService
from meter.bus.amqp.consumer import MAX_PREFETCHED_BYTES
from meter.bus.amqp.consumer import Consumer
from meter.bus.amqp.hosts import BrokerHosts
from meter.bus.amqp.hosts import broker_addresses
from meter.bus.amqp.publisher import Publisher
from meter.bus.amqp.topology import QueueType
from meter.bus.amqp.topology import Topology
from meter.bus.amqp.url import BrokerAddress
from meter.bus.dead_letters import DeadLetterPublisher
from meter.bus.dead_letters import call_at_once
from meter.daemon.services import StagedService
from meter.interfaces import BoundedQueue
from meter.interfaces import IBus
from meter.interfaces import IDependency
from meter.interfaces import Publication
from meter.interfaces import Readiness
from meter.interfaces import Receiver
from meter.interfaces import Subscription
from meter.interfaces import Unavailable

KEPT_BYTES = 64 * 1024
"""How much of a body that is too large its dead letter keeps: enough to recognise it."""


def _ignore(kind: str) -> None:
    """Do not count dead letters."""


@implementer(IBus, IDependency)
class AmqpBus(StagedService):
    """The message bus on the RabbitMQ at ``url``. Starting returns at once and never fails: it connects in the background.

    ``url`` may name several hosts, the nodes of one cluster: each connection is to one of them, and when it is lost, to the
    next. ``name`` is the daemon's and appears in RabbitMQ's list of connections. ``queue_type`` is the type with which Meter
    declares its queues; existing queues are used as they are. ``create_foreign_exchanges``: declare missing exchanges
    of other services; otherwise the bus looks for them every ``rebind_seconds``. ``max_body_bytes`` limits what is
    published (``ValueError``) and what is received (dead-lettered). ``max_prefetched_bytes`` limits the bodies that each
    subscription has in hand. ``count_dead`` is called with the kind of each
    message that the bus itself dead-letters: ``defect`` or ``too-large``.
    ``max_dead_letters`` limits the queue of dead letters, 0 does not. ``off_reactor`` runs a function in a thread.

    Publishing and consuming use one connection each: while RabbitMQ blocks publishing for lack of memory or disk space,
    it reads nothing from a connection that has published, and the acknowledgements that free both must get through.
    """

    def __init__(
        self,
        reactor: Any,
        url: str,
        *,
        clock: IReactorTime,
        name: str = "meter",
        heartbeat_seconds: int = 20,
        queue_type: QueueType = "auto",
        window: int = 100,
        confirm_timeout_seconds: float = 30.0,
        max_body_bytes: int = 16 * 1024 * 1024,
        max_prefetched_bytes: int = MAX_PREFETCHED_BYTES,
        create_foreign_exchanges: bool = True,
        rebind_seconds: float = 60.0,
        stop_seconds: float = 15.0,
        count_dead: Callable[[str], object] = _ignore,
        bounded: Sequence[BoundedQueue] = (),
        max_dead_letters: int = 0,
        off_reactor: Callable[[Callable[[], bytes]], Awaitable[bytes]] = call_at_once,
    ) -> None:
        super().__init__(clock, patience=stop_seconds)
        self.setName("bus")
        self._clock = clock
        self._daemon = name
        self._heartbeat_seconds = heartbeat_seconds
        self._max_body_bytes = max_body_bytes
        self._max_prefetched_bytes = max_prefetched_bytes
        self._rebind_seconds = rebind_seconds
        self._stop_seconds = stop_seconds
        addresses = broker_addresses(url)
        self._account = addresses[0].account
        self._make_hosts = partial(BrokerHosts.of, reactor, addresses)
        self._topology = Topology(
            queue_type=queue_type, several_hosts=len(addresses) > 1, create_foreign_exchanges=create_foreign_exchanges
        )
        self._publishing = self._connection("publishing")
        self._consuming: ConnectionService | None = None
        self._publisher = Publisher(
            self._publishing,
            self._topology,
            clock=clock,
            window=window,
            confirm_timeout_seconds=confirm_timeout_seconds,
            max_body_bytes=max_body_bytes,
            bounded=bounded,
            max_dead_letters=max_dead_letters,
        )
        self._dead_letters = DeadLetterPublisher(self._publisher, clock, count=count_dead, off_reactor=off_reactor)
        self._consumers: list[Consumer] = []
        self.addService(self._publishing)
        self.addService(self._publisher)

    def _connection(self, purpose: str) -> ConnectionService:
        def client(address: BrokerAddress) -> Client:
            return Client(
                address,
                clock=self._clock,
                connection_name=f"{self._daemon} {purpose}",
                heartbeat_seconds=self._heartbeat_seconds,
                max_body_bytes=self._max_body_bytes,
                kept_bytes=KEPT_BYTES,
            )

        hosts = self._make_hosts()
        return ConnectionService(hosts, client, clock=self._clock, peer=f"{hosts}, {self._account}", purpose=purpose)

    async def publish(self, publication: Publication) -> None:
        """Return once RabbitMQ has confirmed; ``ValueError`` for a publication that can never be accepted."""
        await self._publisher.publish(publication)

    def subscribe(self, subscription: Subscription, receive: Receiver) -> Consumer:
        """Return the service that delivers to ``receive``. Start it, and stop it before the bus."""
        if self._consuming is None:
            self._consuming = self._connection("consuming")
            self.addService(self._consuming)
        consumer = Consumer(
            self._consuming,
            self._topology,
            self._dead_letters,
            subscription,
            receive,
            publisher=self._publisher,
            clock=self._clock,
            rebind_seconds=self._rebind_seconds,
            stop_seconds=self._stop_seconds,
            max_prefetched_bytes=self._max_prefetched_bytes,
        )
        self._consumers.append(consumer)
        return consumer

    @property
    def queued_dead_letters(self) -> tuple[int | None, bool]:
        """The number of dead letters in their queue, ``None`` if it is unknown, and whether the queue is full."""
        limit = self._publisher.dead_letter_limit
        return limit.messages, limit.full

    async def check_dead_letters(self) -> None:
        """Ask the broker how many dead letters there are; not while it is unavailable."""
        try:
            await self._publisher.check_dead_letters()
        except Unavailable:
            return

    def readiness(self) -> Readiness:
        """Ready while publications are accepted and every started subscription consumes, ephemeral ones excepted."""
        if not self._publisher.ready:
            return Readiness("bus", False, self._publisher.reason)
        for consumer in self._consumers:
            if consumer.running and not consumer.ready and not consumer.ephemeral:
                return Readiness("bus", False, consumer.reason)
        return Readiness("bus", True, self._publishing.reason)
