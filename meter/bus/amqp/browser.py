"""Reading a queue message by message: each is removed on request, and otherwise returned to its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.internet.interfaces import IStreamClientEndpoint

from meter.bus.amqp.channel import HEADERS
from meter.bus.amqp.channel import NOT_FOUND
from meter.bus.amqp.channel import ChannelLost
from meter.bus.amqp.client import Client
from meter.bus.amqp.client import open_client
from meter.bus.amqp.hosts import BrokerHosts
from meter.bus.amqp.hosts import broker_addresses
from meter.bus.amqp.url import BrokerAddress
from meter.daemon.services import within
from meter.interfaces import Delivery
from meter.interfaces import Unavailable

CLOSE_SECONDS = 10.0
"""How long the broker may take to requeue the messages and close the connection."""

MAX_BODY_BYTES = 128 * 1024 * 1024
"""RabbitMQ's default limit of a message: bodies are never truncated here."""


@dataclass(frozen=True, slots=True)
class UnackedMessage:
    """A message that was delivered and not acknowledged; it returns to its queue when the browser closes. ``tag`` is its delivery tag."""

    delivery: Delivery
    tag: int


class Browser:
    """Gets the messages of ``queue`` in the RabbitMQ at ``url``, the oldest first, one at a time.

    Closing requeues every message that was not removed, in the original order; so does the broker when the process is
    killed. Until then no other consumer receives them. Every method raises :class:`~meter.interfaces.Unavailable` when
    the broker does not answer within ``answer_seconds``. Unlike the bus it does not reconnect.
    """

    def __init__(
        self,
        reactor: Any,
        url: str,
        queue: str,
        *,
        clock: IReactorTime,
        name: str,
        answer_seconds: float = 20.0,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self._hosts = BrokerHosts.of(reactor, broker_addresses(url))
        self._queue = queue
        self._clock = clock
        self._name = name
        self._answer_seconds = answer_seconds
        self._max_body_bytes = max_body_bytes
        self._client: Any = None  # a Client
        self._channel: Any = None
        self._remaining = 0

    async def open(self) -> int:
        """Connect and return the number of messages in the queue. Messages published later are not returned by :meth:`next`.

        A quorum queue requeues messages shortly after the previous browser has closed; until then it has fewer.
        """
        try:
            _, self._client = await self._hosts.first(self._connected)
        except Unavailable:
            raise
        except Exception as error:
            raise Unavailable(f"{self._hosts}: {error}") from error
        self._channel = await self._with_timeout(self._client.open_channel())
        try:
            declared = await self._with_timeout(self._channel.queue_declare(queue=self._queue, passive=True))
        except ChannelLost as lost:
            if lost.code != NOT_FOUND:
                raise
            return 0
        self._remaining = declared.message_count
        return self._remaining

    async def next(self) -> UnackedMessage | None:
        """Return the next message; ``None`` after the last one that was in the queue when the browser opened it."""
        if not self._remaining:
            return None
        self._remaining -= 1
        got = await self._with_timeout(self._channel.basic_get(queue=self._queue))
        if got.method.name != "get-ok":
            self._remaining = 0  # another consumer takes messages from the queue
            return None
        delivery = Delivery(
            body=got.content.body,
            exchange=got.exchange,
            routing_key=got.routing_key,
            headers=got.content.properties.get(HEADERS, {}),
            redelivered=got.redelivered,
        )
        return UnackedMessage(delivery, got.delivery_tag)

    def remove(self, message: UnackedMessage) -> None:
        """Acknowledge a message, which removes it from the queue."""
        self._channel.basic_ack(delivery_tag=message.tag)

    async def close(self) -> None:
        """Requeue the messages that were not removed, and disconnect. Works after a failure too, and never raises."""
        if self._channel is not None:
            await self._channel.close(CLOSE_SECONDS)
        if self._client is not None:
            await self._client.close(CLOSE_SECONDS)

    async def _connected(self, address: BrokerAddress, endpoint: IStreamClientEndpoint) -> Any:
        return await open_client(endpoint, lambda: self._make_client(address), self._with_timeout)

    def _make_client(self, address: BrokerAddress) -> Client:
        return Client(
            address,
            clock=self._clock,
            connection_name=f"{self._name} browsing",
            heartbeat_seconds=20,
            max_body_bytes=self._max_body_bytes,
            kept_bytes=self._max_body_bytes,
        )

    async def _with_timeout(self, work: Any) -> Any:
        try:
            return await within(self._clock, self._answer_seconds, work)
        except DeferredTimeout:
            raise Unavailable(f"{self._hosts}: no answer within {self._answer_seconds:g} s") from None
