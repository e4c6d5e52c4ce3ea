"""Publishing with confirms: a publication has succeeded when the broker says that it is safe in a queue."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IReactorTime
from txamqp.content import Content
from zope.interface import implementer

from meter.bus.amqp.channel import CONTENT_ENCODING
from meter.bus.amqp.channel import CONTENT_TYPE
from meter.bus.amqp.channel import DELIVERY_MODE
from meter.bus.amqp.channel import HEADERS
from meter.bus.amqp.channel import MESSAGE_ID
from meter.bus.amqp.channel import PERSISTENT
from meter.bus.amqp.connection import ChannelService
from meter.bus.amqp.connection import Connection
from meter.bus.amqp.topology import EXCHANGE
from meter.bus.amqp.topology import Topology
from meter.bus.dead_letter_publisher import DEAD_LETTER_QUEUE
from meter.daemon.services import InFlight
from meter.daemon.services import within
from meter.interfaces import BoundedQueue
from meter.interfaces import IPublisher
from meter.interfaces import Publication
from meter.interfaces import Unavailable

LONGEST_KEY_BYTES = 255


class _Returned(Unavailable):
    """The broker gave a publication back, because no queue wants it."""


class ConfirmTracker:
    """A channel whose publications the broker confirms, and those that it has not confirmed yet."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self._token = uuid.uuid4().hex
        self._newest_tag = 0
        self._unconfirmed: dict[int, Deferred[None]] = {}
        self._returned: dict[int, str] = {}
        channel.on_ack = self._acked
        channel.on_nack = self._nacked
        channel.on_return = self._on_return

    @property
    def unconfirmed(self) -> int:
        """Return the number of messages published and not yet confirmed."""
        return len(self._unconfirmed)

    def publish(self, publication: Publication) -> Deferred[None]:
        """Send ``publication`` and return a Deferred of its confirmation."""
        tag = self._newest_tag + 1
        content = Content(
            publication.body,
            properties={
                CONTENT_TYPE: "application/json",
                CONTENT_ENCODING: "utf-8",
                DELIVERY_MODE: PERSISTENT,
                HEADERS: dict(publication.headers),
                MESSAGE_ID: f"{self._token}-{tag}",
            },
        )
        self.channel.basic_publish(
            exchange=publication.exchange, routing_key=publication.routing_key, mandatory=True, content=content
        )
        # Only now: what could not be encoded was not sent, and the broker counts what it gets.
        self._newest_tag = tag
        confirmed: Deferred[None] = Deferred()
        self._unconfirmed[tag] = confirmed
        return confirmed

    def lost(self, why: Unavailable) -> None:
        """Fail what is not confirmed: nobody will ever tell whether it is safe."""
        unconfirmed, self._unconfirmed = self._unconfirmed, {}
        for confirmed in unconfirmed.values():
            confirmed.errback(Unavailable(f"lost before it was confirmed: {why}"))

    def _on_return(self, message: Any) -> None:
        """Keep in mind what came back; RabbitMQ returns a message first and confirms it then."""
        token, _, tag = str(message.content.properties.get(MESSAGE_ID)).rpartition("-")
        if token == self._token:
            self._returned[int(tag)] = (
                f"{message.reply_text}: no queue is bound to exchange {message.exchange!r} "
                f"for routing key {message.routing_key!r}"
            )

    def _acked(self, message: Any) -> None:
        for tag in self._tags(message):
            confirmed = self._unconfirmed.pop(tag)
            if tag in self._returned:
                confirmed.errback(_Returned(self._returned.pop(tag)))
            else:
                confirmed.callback(None)

    def _nacked(self, message: Any) -> None:
        for tag in self._tags(message):
            self._returned.pop(tag, None)
            self._unconfirmed.pop(tag).errback(Unavailable("the broker did not take the message: its queue is full"))

    def _tags(self, message: Any) -> list[int]:
        tag = message.delivery_tag
        if message.multiple:
            return [each for each in self._unconfirmed if each <= tag]
        return [tag] if tag in self._unconfirmed else []


@implementer(IPublisher)
class Publisher(Service):
    """Publishes to the broker; declares the exchange ``metering`` and the queue ``metering.dead`` first.

    At most ``window`` publications are unconfirmed; others wait for their turn, as all do while the broker blocks
    publishing, but none longer than ``confirm_timeout_seconds``. A confirmation that takes longer than that ends the
    connection, unless publishing is blocked: a broker that is stuck looks alive in every other way. Stopping waits for
    what is out.
    """

    def __init__(
        self,
        connection: Connection,
        topology: Topology,
        *,
        clock: IReactorTime,
        window: int,
        confirm_timeout_seconds: float,
        largest_body_bytes: int,
        bounded: Sequence[BoundedQueue] = (),
    ) -> None:
        self._topology = topology
        self._bounded = bounded
        self._own_queues = {DEAD_LETTER_QUEUE, *(each.name for each in bounded)}
        self._clock = clock
        self._window = window
        self._confirm_timeout_seconds = confirm_timeout_seconds
        self._largest_body_bytes = largest_body_bytes
        self._kept = ChannelService(connection, self._prepare, clock=clock, purpose="publishing")
        self._confirming: ConfirmTracker | None = None
        self._waiting: deque[Deferred[None]] = deque()
        self._in_flight = InFlight()

    @property
    def ready(self) -> bool:
        """Whether a publication would be sent at once, were there room in the window."""
        return self._confirming is not None and self._confirming.channel.client.blocked is None

    @property
    def reason(self) -> str:
        """Why it is not ready."""
        if self._confirming is None:
            return self._kept.reason
        return f"the broker blocks publishing: {self._confirming.channel.client.blocked}"

    def startService(self) -> None:
        """Begin; returns at once."""
        super().startService()
        self._kept.startService()

    def stopService(self) -> Deferred[None]:
        """Fire when nothing is out any more and the channel is closed."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._wake()
        try:
            # Each publication has a limit of its own for its turn and another for its confirmation.
            await self._in_flight.idle()
        finally:
            await maybeDeferred(self._kept.stopService)

    async def publish(self, publication: Publication) -> None:
        """Return once the broker has confirmed; :class:`~meter.interfaces.Unavailable` when it has not.

        ``ValueError`` for what can never be published: a body that is too large or no bytes, a header that is neither
        text nor a whole number nor a boolean, a name that is too long.
        """
        self._check(publication)
        with self._in_flight:
            confirming = await self._turn()
            client = confirming.channel.client
            try:
                await within(self._clock, self._confirm_timeout_seconds, confirming.publish(publication))
            except DeferredTimeout:
                why = f"not confirmed within {self._confirm_timeout_seconds:g} s"
                if client.blocked is not None:
                    # Nothing is stuck: the broker does not read what it gets, and says so.
                    raise Unavailable(f"{why}: {self.reason}") from None
                client.abort(f"the broker confirmed nothing for {self._confirm_timeout_seconds:g} s")
                raise Unavailable(why) from None
            except _Returned:
                if publication.exchange == "" and publication.routing_key in self._own_queues:
                    # Somebody deleted it, which must not keep bad messages in the way of good ones.
                    await self._declare(client)
                raise
            finally:
                self._wake()

    def _check(self, publication: Publication) -> None:
        if not isinstance(publication.body, bytes):
            raise ValueError(f"the body of a publication must be bytes, not {type(publication.body).__name__}")
        if len(publication.body) > self._largest_body_bytes:
            raise ValueError(
                f"a publication has {len(publication.body)} bytes; at most {self._largest_body_bytes} are published"
            )
        for name in (publication.exchange, publication.routing_key):
            if len(name.encode()) > LONGEST_KEY_BYTES:
                raise ValueError(f"an exchange or routing key has at most {LONGEST_KEY_BYTES} bytes: {name!r}")
        for key, value in publication.headers.items():
            if not isinstance(value, str | int | bool):
                raise ValueError(f"header {key} must be text, a whole number or a boolean, not {value!r}")

    async def _turn(self) -> ConfirmTracker:
        """Return the channel once there is room in its window and the broker takes publications."""
        deadline = self._clock.seconds() + self._confirm_timeout_seconds
        while True:
            if not self.running:
                raise Unavailable("the bus is stopped")
            confirming = self._confirming
            if confirming is None:
                raise Unavailable(self.reason)
            if self._has_room(confirming):
                return confirming
            turn: Deferred[None] = Deferred()
            self._waiting.append(turn)
            try:
                await within(self._clock, deadline - self._clock.seconds(), turn)
            except DeferredTimeout:
                why = f"{self._window} messages are unconfirmed" if self.ready else self.reason
                raise Unavailable(f"not sent within {self._confirm_timeout_seconds:g} s: {why}") from None
            finally:
                if turn in self._waiting:
                    self._waiting.remove(turn)

    def _wake(self) -> None:
        """Give turns to as many as there is room for; to all, when there is no channel, so that they fail."""
        while self._waiting:
            if self.running and self._confirming is not None and not self._has_room(self._confirming):
                return
            self._waiting.popleft().callback(None)

    def _has_room(self, confirming: ConfirmTracker) -> bool:
        return self.ready and confirming.unconfirmed < self._window

    async def _prepare(self, channel: Any) -> None:
        await self._topology.exchange(channel.client, EXCHANGE)
        await self._declare(channel.client)
        confirming = ConfirmTracker(channel)
        channel.on_unblocked = self._wake
        await channel.confirm_select()
        self._confirming = confirming
        channel.lost.wait().addCallback(lambda _: self._lost(confirming, channel.why))

    async def _declare(self, client: Any) -> None:
        """Declare the queues that are published to by name."""
        await self._topology.queue(client, DEAD_LETTER_QUEUE)
        for bounded in self._bounded:
            await self._topology.bounded_queue(client, bounded)

    def _lost(self, confirming: ConfirmTracker, why: Unavailable) -> None:
        if self._confirming is confirming:
            self._confirming = None
        confirming.lost(why)
        self._wake()
