"""Looking through a queue: its messages one after another, each removed when told to, and back in its place otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime

from meter.bus.amqp.channel import HEADERS
from meter.bus.amqp.channel import NOT_FOUND
from meter.bus.amqp.channel import ChannelLost
from meter.bus.amqp.client import Client
from meter.bus.amqp.client import ClientFactory
from meter.bus.amqp.url import broker_address
from meter.daemon.services import within
from meter.interfaces import Delivery
from meter.interfaces import Unavailable

LEAVE_SECONDS = 10.0
"""How long the broker may take to put everything back and say goodbye."""

LARGEST_BODY_BYTES = 128 * 1024 * 1024
"""What RabbitMQ takes at most, unless it is told otherwise: a body is never cut here."""


@dataclass(frozen=True, slots=True)
class Held:
    """A message that is out of its queue until the browser closes; ``tag`` is the broker's number for it."""

    delivery: Delivery
    tag: int


class Browser:
    """Takes the messages that wait in ``queue`` of the RabbitMQ at ``url``, the oldest first, one at a time.

    Closing puts all that was not removed back into the queue, in its old order; so does the broker when the process is
    killed. In between nobody else sees them. Every method raises :class:`~meter.interfaces.Unavailable` when the broker
    does not answer within ``answer_seconds``. Unlike the bus this is no service: it connects once, or not.
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
        largest_body_bytes: int = LARGEST_BODY_BYTES,
    ) -> None:
        self._reactor = reactor
        self._address = broker_address(url)
        self._queue = queue
        self._clock = clock
        self._name = name
        self._answer_seconds = answer_seconds
        self._largest_body_bytes = largest_body_bytes
        self._client: Any = None  # a Client
        self._channel: Any = None
        self._unseen = 0

    async def open(self) -> int:
        """Connect, and return how many messages wait: that many can be taken, and none that comes later."""
        try:
            self._client = await self._address.endpoint(self._reactor).connect(ClientFactory(self._make_client))
        except Exception as error:
            raise Unavailable(f"{self._address}: {error}") from error
        await self._answered(self._client.enter())
        self._channel = await self._answered(self._client.open_channel())
        try:
            declared = await self._answered(self._channel.queue_declare(queue=self._queue, passive=True))
        except ChannelLost as lost:
            if lost.code != NOT_FOUND:
                raise
            return 0
        self._unseen = declared.message_count
        return self._unseen

    async def next(self) -> Held | None:
        """Take the next message; ``None`` when all that waited have been taken."""
        if not self._unseen:
            return None
        self._unseen -= 1
        got = await self._answered(self._channel.basic_get(queue=self._queue))
        if got.method.name != "get-ok":
            self._unseen = 0  # somebody else takes from the queue too
            return None
        delivery = Delivery(
            body=got.content.body,
            exchange=got.exchange,
            routing_key=got.routing_key,
            headers=got.content.properties.get(HEADERS, {}),
            redelivered=got.redelivered,
        )
        return Held(delivery, got.delivery_tag)

    def remove(self, held: Held) -> None:
        """Remove a message from the queue for good."""
        self._channel.basic_ack(delivery_tag=held.tag)

    async def close(self) -> None:
        """Put back what was taken and not removed, and disconnect; after a failure too, and without one of its own."""
        if self._channel is not None:
            await self._channel.leave(LEAVE_SECONDS)
        if self._client is not None:
            await self._client.leave(LEAVE_SECONDS)

    def _make_client(self) -> Client:
        return Client(
            self._address,
            clock=self._clock,
            connection_name=f"{self._name} browsing",
            heartbeat_seconds=20,
            largest_body_bytes=self._largest_body_bytes,
            kept_bytes=self._largest_body_bytes,
        )

    async def _answered(self, work: Any) -> Any:
        try:
            return await within(self._clock, self._answer_seconds, work)
        except DeferredTimeout:
            raise Unavailable(f"{self._address}: no answer within {self._answer_seconds:g} s") from None
