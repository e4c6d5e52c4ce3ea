"""Exchanges, queues and bindings: made where they are ours, taken as they are where somebody else made them."""

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

QueueType = Literal["classic", "quorum"]

LEAVE_SECONDS = 2.0

DELIVERY_LIMIT = 10**9
"""How often a quorum queue delivers a message. RabbitMQ 4 drops one after 20 times, unless told: a message that is
handed back while the database is away must outlast that."""

MOST_PASSING = 10_000
"""Messages that wait for one who only listens in; the oldest go first."""


class Topology:
    """What the bus needs to exist on the broker.

    Questions that the broker may refuse are asked on scratch channels, because a refusal closes the channel.
    """

    _log = Logger()

    def __init__(self, *, queue_type: QueueType, create_foreign_exchanges: bool) -> None:
        self._queue_arguments: dict[str, Any] = {}
        if queue_type == "quorum":
            self._queue_arguments = {"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT}
        self._create_foreign_exchanges = create_foreign_exchanges
        self._told: set[str] = set()

    async def exchange(self, client: Client, name: str) -> None:
        """Declare an exchange of ours: topic, durable."""
        try:
            async with client.temporary_channel(LEAVE_SECONDS) as channel:
                await channel.exchange_declare(exchange=name, type="topic", durable=True)
        except ChannelLost as lost:
            self._accept(f"exchange {name}", lost)
            async with client.temporary_channel(LEAVE_SECONDS) as channel:
                await channel.exchange_declare(exchange=name, passive=True)

    async def queue(
        self,
        client: Client,
        name: str,
        *,
        single_active: bool = False,
        arguments: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Declare a queue of ours: durable."""
        arguments = {
            **self._queue_arguments,
            **({"x-single-active-consumer": True} if single_active else {}),
            **arguments,
        }
        try:
            async with client.temporary_channel(LEAVE_SECONDS) as channel:
                await channel.queue_declare(queue=name, durable=True, arguments=arguments)
        except ChannelLost as lost:
            self._accept(f"queue {name}", lost)
            async with client.temporary_channel(LEAVE_SECONDS) as channel:
                await channel.queue_declare(queue=name, passive=True)

    async def bounded_queue(self, client: Client, wanted: BoundedQueue) -> None:
        """Declare a queue that is limited in length and age, and the queue that its dropped messages go to."""
        await self.queue(client, wanted.dropped)
        bounds = {
            "x-max-length": wanted.most_messages,
            "x-message-ttl": round(wanted.most_seconds * 1000),
            "x-overflow": "drop-head",
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": wanted.dropped,
        }
        await self.queue(client, wanted.name, arguments=bounds)

    async def passing_queue(self, client: Client, name: str, *, observe_queue: str) -> None:
        """Declare a queue that is gone with the connection, if the queue ``beside`` exists; else :class:`ChannelLost`.

        Otherwise the broker would take for safe what nobody but this queue gets.
        """
        async with client.temporary_channel(LEAVE_SECONDS) as channel:
            await channel.queue_declare(queue=observe_queue, passive=True)
            await channel.queue_declare(
                queue=name, exclusive=True, auto_delete=True, arguments={"x-max-length": MOST_PASSING}
            )

    async def bind(self, client: Client, subscription: Subscription) -> None:
        """Make every binding of ``subscription`` that can be made now; its queue exists."""
        for binding in subscription.bindings:
            if await self._exists(client, binding):
                async with client.temporary_channel(LEAVE_SECONDS) as channel:
                    await channel.queue_bind(
                        queue=subscription.queue, exchange=binding.exchange, routing_key=binding.routing_key
                    )

    async def _exists(self, client: Client, binding: Binding) -> bool:
        if binding.ours:
            await self.exchange(client, binding.exchange)
            return True
        try:
            async with client.temporary_channel(LEAVE_SECONDS) as channel:
                await channel.exchange_declare(exchange=binding.exchange, passive=True)
        except ChannelLost as lost:
            if lost.code != NOT_FOUND:
                raise
            if not self._create_foreign_exchanges:
                self._tell_once(f"exchange {binding.exchange} does not exist yet and is looked for again")
                return False
            # As oslo.messaging declares its exchanges by default, so that the service finds what it expects.
            async with client.temporary_channel(LEAVE_SECONDS) as channel:
                await channel.exchange_declare(exchange=binding.exchange, type="topic")
        return True

    def _accept(self, what: str, lost: ChannelLost) -> None:
        """Go on with something that is not as we would make it; raise what is no answer to that."""
        if lost.code not in (PRECONDITION_FAILED, ACCESS_REFUSED):
            raise lost
        self._tell_once(f"{what} is taken as it is: {lost}")

    def _tell_once(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._log.warn("{what}", what=what)
