"""Publishing with publisher confirms: a publication has succeeded when the broker has confirmed it."""

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
from meter.bus.amqp.connection import ConnectionService
from meter.bus.amqp.dead_letter_limit import DeadLetterLimit
from meter.bus.amqp.topology import EXCHANGE
from meter.bus.amqp.topology import Topology
from meter.bus.body_limit import check_body
from meter.bus.dead_letters import DEAD_LETTER_QUEUE
from meter.daemon.services import InFlight
from meter.daemon.services import within
from meter.interfaces import BoundedQueue
from meter.interfaces import IPublisher
from meter.interfaces import Publication
from meter.interfaces import Unavailable

MAX_KEY_BYTES = 255


class Unroutable(Unavailable):
    """The broker returned a publication: no queue is bound for its routing key."""


class ConfirmTracker:
    """A channel in confirm mode, and its publications that are not confirmed yet."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self._token = uuid.uuid4().hex
        self._last_tag = 0
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
        tag = self._last_tag + 1
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
        # Only now: a publication that could not be encoded was not sent, and the broker counts what it receives.
        self._last_tag = tag
        confirmed: Deferred[None] = Deferred()
        self._unconfirmed[tag] = confirmed
        return confirmed

    def lost(self, reason: Unavailable) -> None:
        """Fail the unconfirmed publications: the broker will no longer report whether they are in a queue."""
        unconfirmed, self._unconfirmed = self._unconfirmed, {}
        for confirmed in unconfirmed.values():
            confirmed.errback(Unavailable(f"the channel was lost before the broker confirmed: {reason}"))

    def _on_return(self, message: Any) -> None:
        """Record a returned message; RabbitMQ sends ``basic.return`` before the confirm."""
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
                confirmed.errback(Unroutable(self._returned.pop(tag)))
            else:
                confirmed.callback(None)

    def _nacked(self, message: Any) -> None:
        for tag in self._tags(message):
            self._returned.pop(tag, None)
            self._unconfirmed.pop(tag).errback(
                Unavailable("the broker rejected the message: its queue is full, or has no majority of its nodes")
            )

    def _tags(self, message: Any) -> list[int]:
        tag = message.delivery_tag
        if message.multiple:
            return [each for each in self._unconfirmed if each <= tag]
        return [tag] if tag in self._unconfirmed else []


@implementer(IPublisher)
class Publisher(Service):
    """Publishes to the broker; declares the exchange ``metering`` and the queue ``metering.dead`` first.

    At most ``window`` publications are unconfirmed. Others wait, as all do while the broker blocks publishing, for at
    most ``confirm_timeout_seconds``. A confirm that takes longer than that aborts the connection, unless publishing is
    blocked: a broker that hangs may still answer heartbeats. Stopping waits for the unconfirmed publications.
    While the queue of dead letters holds ``max_dead_letters``, publishing to it raises
    :class:`~meter.bus.dead_letters.DeadLettersFull`.
    """

    def __init__(
        self,
        connection: ConnectionService,
        topology: Topology,
        *,
        clock: IReactorTime,
        window: int,
        confirm_timeout_seconds: float,
        max_body_bytes: int,
        bounded: Sequence[BoundedQueue] = (),
        max_dead_letters: int = 0,
    ) -> None:
        self._topology = topology
        self.dead_letter_limit = DeadLetterLimit(topology, clock, max_dead_letters)
        self._bounded = bounded
        self._own_queues = {DEAD_LETTER_QUEUE, *(each.name for each in bounded)}
        self._clock = clock
        self._window = window
        self._confirm_timeout_seconds = confirm_timeout_seconds
        self._max_body_bytes = max_body_bytes
        self._channel_service = ChannelService(connection, self._prepare, clock=clock, purpose="publishing")
        self._tracker: ConfirmTracker | None = None
        self._waiting: deque[Deferred[None]] = deque()
        self._waking = False
        self._in_flight = InFlight()

    @property
    def ready(self) -> bool:
        """Whether the channel is open and the broker accepts publications."""
        return self._tracker is not None and self._tracker.channel.client.blocked is None

    @property
    def reason(self) -> str:
        """Why publications are not accepted."""
        if self._tracker is None:
            return self._channel_service.reason
        return f"the broker blocks publishing: {self._tracker.channel.client.blocked}"

    def startService(self) -> None:
        """Begin; returns at once."""
        super().startService()
        self._channel_service.startService()

    def stopService(self) -> Deferred[None]:
        """Fire when every publication is confirmed or failed and the channel is closed."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._wake()
        try:
            # Each publication has a time limit for the window and another for its confirm.
            await self._in_flight.idle()
        finally:
            await maybeDeferred(self._channel_service.stopService)

    async def publish(self, publication: Publication) -> None:
        """Return once the broker has confirmed; :class:`~meter.interfaces.Unavailable` when it has not.

        ``ValueError`` for what can never be published: a body that is too large or not bytes, a header that is not text,
        an integer or a boolean, an exchange or routing key that is too long.
        """
        self._check(publication)
        with self._in_flight:
            if publication.exchange == "" and publication.routing_key == DEAD_LETTER_QUEUE:
                await self.dead_letter_limit.admit((await self._wait_for_window()).channel.client)
            tracker = await self._wait_for_window()
            client = tracker.channel.client
            try:
                await within(self._clock, self._confirm_timeout_seconds, tracker.publish(publication))
            except DeferredTimeout:
                reason = f"not confirmed within {self._confirm_timeout_seconds:g} s"
                if client.blocked is not None:
                    # The broker does not hang: it has reported that it blocks publishing.
                    raise Unavailable(f"{reason}: {self.reason}") from None
                client.abort(f"the broker confirmed nothing for {self._confirm_timeout_seconds:g} s")
                raise Unavailable(reason) from None
            except Unroutable:
                if publication.exchange == "" and publication.routing_key in self._own_queues:
                    # The queue was deleted. Declare it, or messages that cannot be dead-lettered would block the others.
                    await self._declare(client)
                raise
            finally:
                self._wake()

    async def check_dead_letters(self) -> None:
        """Ask the broker how many dead letters there are, if it is connected."""
        if self._tracker is not None:
            await self.dead_letter_limit.check(self._tracker.channel.client)

    def _check(self, publication: Publication) -> None:
        check_body(publication, self._max_body_bytes)
        for name in (publication.exchange, publication.routing_key):
            if len(name.encode()) > MAX_KEY_BYTES:
                raise ValueError(f"an exchange or routing key must have at most {MAX_KEY_BYTES} bytes: {name!r}")
        for key, value in publication.headers.items():
            if not isinstance(value, str | int | bool):
                raise ValueError(f"header {key} must be text, an integer or a boolean, not {value!r}")

    async def _wait_for_window(self) -> ConfirmTracker:
        """Return the channel once its window has room and the broker accepts publications."""
        deadline = self._clock.seconds() + self._confirm_timeout_seconds
        while True:
            if not self.running:
                raise Unavailable("the bus is stopped")
            tracker = self._tracker
            if tracker is None:
                raise Unavailable(self.reason)
            if self._has_room(tracker):
                return tracker
            room: Deferred[None] = Deferred()
            self._waiting.append(room)
            try:
                await within(self._clock, deadline - self._clock.seconds(), room)
            except DeferredTimeout:
                reason = f"{self._window} messages are unconfirmed" if self.ready else self.reason
                raise Unavailable(f"not sent within {self._confirm_timeout_seconds:g} s: {reason}") from None
            finally:
                if room in self._waiting:
                    self._waiting.remove(room)

    def _wake(self) -> None:
        """Wake as many waiting publications as the window has room for; all of them, without a channel, so that they fail."""
        if self._waking:
            return
        # Not one inside the other: a publication that fails at once wakes the next, which would exceed the limit of recursion.
        self._waking = True
        try:
            while self._waiting:
                if self.running and self._tracker is not None and not self._has_room(self._tracker):
                    return
                self._waiting.popleft().callback(None)
        finally:
            self._waking = False

    def _has_room(self, tracker: ConfirmTracker) -> bool:
        return self.ready and tracker.unconfirmed < self._window

    async def _prepare(self, channel: Any) -> None:
        await self._topology.exchange(channel.client, EXCHANGE)
        await self._declare(channel.client)
        tracker = ConfirmTracker(channel)
        channel.on_unblocked = self._wake
        await channel.confirm_select()
        self._tracker = tracker
        channel.lost.wait().addCallback(lambda _: self._lost(tracker, channel.close_reason))

    async def _declare(self, client: Any) -> None:
        """Declare the queues that Meter publishes to by name."""
        await self._topology.queue(client, DEAD_LETTER_QUEUE)
        for bounded in self._bounded:
            await self._topology.bounded_queue(client, bounded)

    def _lost(self, tracker: ConfirmTracker, reason: Unavailable) -> None:
        if self._tracker is tracker:
            self._tracker = None
        tracker.lost(reason)
        self._wake()
