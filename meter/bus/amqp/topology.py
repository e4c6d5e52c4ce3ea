"""Exchanges, queues and bindings: declares those of Meter, and uses existing ones as they are."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from typing import Literal

from twisted.logger import Logger

from meter.bus.amqp.channel import ACCESS_REFUSED
from meter.bus.amqp.channel import NOT_FOUND
from meter.bus.amqp.channel import PRECONDITION_FAILED
from meter.bus.amqp.channel import ChannelLost
from meter.bus.amqp.client import Client
from meter.interfaces import Binding
from meter.interfaces import BoundedQueue
from meter.interfaces import Subscription

EXCHANGE = "metering"

QueueType = Literal["auto", "classic", "quorum"]
"""``auto`` is ``quorum`` where the configuration names several hosts, else ``classic``."""

CLOSE_SECONDS = 2.0

DELIVERY_LIMIT = 10**9
"""How often a quorum queue delivers a message before it drops it. RabbitMQ 4 has a default of 20, which messages that are
requeued while the database is down would exceed."""

TYPE_ARGUMENT = "x-queue-type"

EPHEMERAL_MAX_LENGTH = 10_000
"""Messages that an ephemeral queue holds; the oldest are dropped first."""


class Topology:
    """Declares the exchanges, queues and bindings that the bus needs.

    Each declaration uses a temporary channel, because the broker closes the channel when it refuses one. ``several_hosts``:
    the configuration names several hosts of the broker, which says that it is a cluster.
    """

    _log = Logger()

    def __init__(self, *, queue_type: QueueType, several_hosts: bool, create_foreign_exchanges: bool) -> None:
        self._queue_arguments: dict[str, Any] = {}
        self._type_is_asked = queue_type != "auto"
        if queue_type == "quorum" or (queue_type == "auto" and several_hosts):
            self._queue_arguments = {TYPE_ARGUMENT: "quorum", "x-delivery-limit": DELIVERY_LIMIT}
        self._create_foreign_exchanges = create_foreign_exchanges
        self._logged: set[str] = set()

    async def exchange(self, client: Client, name: str) -> None:
        """Declare an exchange of Meter: topic, durable."""
        try:
            async with client.temporary_channel(CLOSE_SECONDS) as channel:
                await channel.exchange_declare(exchange=name, type="topic", durable=True)
        except ChannelLost as lost:
            self._accept(f"exchange {name}", lost)
            async with client.temporary_channel(CLOSE_SECONDS) as channel:
                await channel.exchange_declare(exchange=name, passive=True)

    async def queue(
        self,
        client: Client,
        name: str,
        *,
        single_active: bool = False,
        arguments: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Declare a queue of Meter: durable."""
        arguments = {
            **self._queue_arguments,
            **({"x-single-active-consumer": True} if single_active else {}),
            **arguments,
        }
        try:
            async with client.temporary_channel(CLOSE_SECONDS) as channel:
                await channel.queue_declare(queue=name, durable=True, arguments=arguments)
        except ChannelLost as lost:
            self._accept(f"queue {name}", lost)
            async with client.temporary_channel(CLOSE_SECONDS) as channel:
                await channel.queue_declare(queue=name, passive=True)

    async def length(self, client: Client, name: str) -> int:
        """Return the number of messages that are ready in a queue; :class:`ChannelLost` if there is no such queue."""
        async with client.temporary_channel(CLOSE_SECONDS) as channel:
            declared = await channel.queue_declare(queue=name, passive=True)
            return int(declared.message_count)

    async def bounded_queue(self, client: Client, wanted: BoundedQueue) -> None:
        """Declare a queue with a limit of length and age, and the queue to which its expired messages are dead-lettered."""
        await self.queue(client, wanted.dropped)
        bounds = {
            "x-max-length": wanted.max_messages,
            "x-message-ttl": round(wanted.max_seconds * 1000),
            "x-overflow": "drop-head",
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": wanted.dropped,
        }
        await self.queue(client, wanted.name, arguments=bounds)

    async def ephemeral_queue(self, client: Client, name: str, *, observe_queue: str) -> None:
        """Declare an exclusive, auto-delete queue, if the queue ``observe_queue`` exists; else :class:`ChannelLost`.

        Without that queue the broker would confirm publications that reach no durable queue.
        """
        async with client.temporary_channel(CLOSE_SECONDS) as channel:
            await channel.queue_declare(queue=observe_queue, passive=True)
            await channel.queue_declare(
                queue=name, exclusive=True, auto_delete=True, arguments={"x-max-length": EPHEMERAL_MAX_LENGTH}
            )

    async def bind(self, client: Client, subscription: Subscription) -> None:
        """Bind the queue of ``subscription``, which exists, to every exchange that exists now."""
        for binding in subscription.bindings:
            if await self._exists(client, binding):
                async with client.temporary_channel(CLOSE_SECONDS) as channel:
                    await channel.queue_bind(
                        queue=subscription.queue, exchange=binding.exchange, routing_key=binding.routing_key
                    )

    async def _exists(self, client: Client, binding: Binding) -> bool:
        if binding.ours:
            await self.exchange(client, binding.exchange)
            return True
        try:
            async with client.temporary_channel(CLOSE_SECONDS) as channel:
                await channel.exchange_declare(exchange=binding.exchange, passive=True)
        except ChannelLost as lost:
            if lost.code != NOT_FOUND:
                raise
            if not self._create_foreign_exchanges:
                self._log_once(f"exchange {binding.exchange} does not exist yet; looking for it again later")
                return False
            # With the default properties of oslo.messaging, so that the service can declare it too.
            async with client.temporary_channel(CLOSE_SECONDS) as channel:
                await channel.exchange_declare(exchange=binding.exchange, type="topic")
        return True

    def _accept(self, what: str, lost: ChannelLost) -> None:
        """Use an object that exists with other properties, or that the user may not declare; raise any other error."""
        if lost.code == ACCESS_REFUSED:
            return  # as intended for agents; that it does not exist would be an error
        if lost.code != PRECONDITION_FAILED:
            raise lost
        other_type = TYPE_ARGUMENT in str(lost)
        if other_type and self._queue_arguments:
            self._log_once(
                f"{what} exists and is not a quorum queue: it is on one node of the broker, and is used as it is. While that"
                f" node is away, nothing can be sent to it or received from it: {lost}"
            )
        elif self._type_is_asked or not other_type:
            self._log_once(f"{what} exists with other properties and is used as it is: {lost}")

    def _log_once(self, what: str) -> None:
        if what not in self._logged:
            self._logged.add(what)
            self._log.warn("{what}", what=what)
