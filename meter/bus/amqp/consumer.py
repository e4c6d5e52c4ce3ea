"""Consuming a queue: declaring and binding it, and acknowledging, requeueing or dead-lettering each delivery."""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from meter.bus.amqp.ack_batcher import AckBatcher
from meter.bus.amqp.channel import HEADERS
from meter.bus.amqp.channel import Channel
from meter.bus.amqp.channel import ChannelLost
from meter.bus.amqp.connection import ChannelService
from meter.bus.amqp.connection import ConnectionService
from meter.bus.amqp.prefetch import Consumption
from meter.bus.amqp.prefetch import PrefetchBudget
from meter.bus.amqp.topology import Topology
from meter.bus.dead_letters import DEAD_LETTER_QUEUE
from meter.bus.dead_letters import WAITED_HEADER
from meter.bus.dead_letters import DeadLetterPublisher
from meter.bus.dead_letters import DeadLettersFull
from meter.bus.dead_letters import header_text
from meter.bus.dead_letters import returned_headers
from meter.daemon.services import Backoff
from meter.daemon.services import InFlight
from meter.daemon.services import sleep
from meter.daemon.services import within
from meter.interfaces import Delivery
from meter.interfaces import IPublisher
from meter.interfaces import ISubscription
from meter.interfaces import Publication
from meter.interfaces import Receiver
from meter.interfaces import Subscription
from meter.interfaces import Unavailable

MAX_PREFETCHED_BYTES = 64 * 1024 * 1024
"""Bytes of bodies that a consumer holds by default."""


class RequeueBackoff:
    """Delays requeueing: deliveries that fail during one outage share one pause, and pauses grow.

    Without a pause the broker would deliver them again at once. With a pause for each of them, two hundred deliveries
    that fail in one outage would make the pause grow two hundred times.
    """

    def __init__(self, clock: IReactorTime, backoff: Backoff) -> None:
        self._clock = clock
        self._backoff = backoff
        self._ends_at = 0.0
        self._pauses: set[Deferred[None]] = set()

    def reset(self) -> None:
        """Start again with the shortest pause: a delivery was processed."""
        self._backoff.reset()

    async def pause(self) -> None:
        """Wait for the end of the current pause, or of a new one."""
        now = self._clock.seconds()
        if now >= self._ends_at:
            self._ends_at = now + self._backoff.next()
        pause = sleep(self._clock, self._ends_at - now)
        self._pauses.add(pause)
        # addBoth: the pause also ends by being cancelled.
        pause.addBoth(lambda _: self._pauses.discard(pause))
        await pause

    def end_pause(self) -> None:
        """End the current pause."""
        for pause in list(self._pauses):
            pause.cancel()


@implementer(ISubscription)
class Consumer(Service):
    """Delivers the messages of one queue to a receiver, up to ``prefetch`` of them at a time, and acks for each.

    The bodies in hand have at most ``max_prefetched_bytes`` together, or there is only one. This limit does not apply to
    ephemeral queues and to those with a single active consumer.

    It recovers from changes to its queue by the broker or an administrator: a deleted queue is declared again, and every
    ``rebind_seconds`` the queue is bound again, also to exchanges that were created in the meantime. Stopping
    takes no more deliveries, waits at most ``stop_seconds`` for those in progress, and leaves the rest to be delivered
    again. ``publisher`` moves deliveries to the waiting queue of the subscription.
    """

    _log = Logger()

    def __init__(
        self,
        connection: ConnectionService,
        topology: Topology,
        dead_letters: DeadLetterPublisher,
        subscription: Subscription,
        receive: Receiver,
        *,
        publisher: IPublisher,
        clock: IReactorTime,
        rebind_seconds: float,
        stop_seconds: float,
        max_prefetched_bytes: int = MAX_PREFETCHED_BYTES,
        backoff: Backoff | None = None,
    ) -> None:
        self.setName(f"subscription to {subscription.queue}")
        self._topology = topology
        self._dead_letters = dead_letters
        self._subscription = subscription
        self._receive = receive
        self._publisher = publisher
        self._clock = clock
        self._rebind_seconds = rebind_seconds
        self._stop_seconds = stop_seconds
        self._channel_service = ChannelService(
            connection, self._prepare, clock=clock, purpose=f"queue {subscription.queue}"
        )
        self._requeue_backoff = RequeueBackoff(clock, backoff or Backoff())
        self._in_flight = InFlight()
        self._acks: AckBatcher | None = None
        self._budget = PrefetchBudget(max_prefetched_bytes, subscription.prefetch)
        self._consumption: Consumption | None = None

    @property
    def ready(self) -> bool:
        """Whether messages are consumed."""
        return self._channel_service.channel is not None

    @property
    def ephemeral(self) -> bool:
        """Whether its queue is exclusive and only copies another queue's messages, so that nothing depends on it."""
        return bool(self._subscription.observe_queue)

    @property
    def reason(self) -> str:
        """Why no messages are consumed."""
        return self._channel_service.reason

    def startService(self) -> None:
        """Begin; returns at once."""
        super().startService()
        self._channel_service.startService()

    def stopService(self) -> Deferred[None]:
        """Fire when no delivery is in progress and the channel is closed."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        channel = self._channel_service.channel
        try:
            if channel is not None and self._consumption is not None:
                await within(self._clock, self._stop_seconds, Deferred.fromCoroutine(self._consumption.end()))
            self._requeue_backoff.end_pause()
            await within(self._clock, self._stop_seconds, self._in_flight.idle())
        except Unavailable:
            pass  # The channel is lost: the broker delivers what was in progress again.
        except DeferredTimeout:
            self._log.warn(
                "{service}: {count} deliveries were not finished in time and will be delivered again",
                service=self.name,
                count=self._in_flight.count,
            )
        finally:
            if self._acks is not None:
                self._acks.flush()
            await maybeDeferred(self._channel_service.stopService)

    async def _prepare(self, channel: Any) -> None:
        wanted = self._subscription
        if wanted.observe_queue:
            await self._topology.ephemeral_queue(channel.client, wanted.queue, observe_queue=wanted.observe_queue)
        else:
            await self._topology.queue(channel.client, wanted.queue, single_active=wanted.single_active)
        if wanted.waiting_queue:
            await self._topology.queue(channel.client, wanted.waiting_queue)
        await self._topology.bind(channel.client, self._subscription)
        acks = self._acks = AckBatcher(channel, self._clock)
        # Cancelling would delete an ephemeral queue, and make another consumer the active one.
        pausable = not wanted.single_active and not wanted.observe_queue
        consumption = self._consumption = Consumption(channel, wanted.queue, self._budget, pausable=pausable)
        channel.on_delivery = lambda message: self._on_delivery(consumption, acks, message)
        channel.on_cancel = lambda message: self._on_cancel(channel)
        await consumption.begin()
        rebinding = Deferred.fromCoroutine(self._keep_bound(channel))
        rebinding.addErrback(self._failed)
        channel.lost.wait().addCallback(lambda _: rebinding.cancel())

    def _on_cancel(self, channel: Channel) -> None:
        """The queue was deleted, or its node is down: open a new channel, which declares it."""
        self._log.warn("{service}: the broker cancelled the consumer; subscribing again", service=self.name)
        channel.abort("the broker cancelled the consumer: its queue was deleted")

    async def _keep_bound(self, channel: Channel) -> None:
        try:
            while not channel.closed:
                await sleep(self._clock, self._rebind_seconds)
                await self._topology.bind(channel.client, self._subscription)
        except ChannelLost as lost:
            channel.abort(f"cannot bind the queue: {lost}")
        except Exception:
            if not channel.closed:
                raise

    def _on_delivery(self, consumption: Consumption, acks: AckBatcher, message: Any) -> None:
        acks.delivered(message.delivery_tag)
        held = consumption.arrived()
        if held is None or not self.running:
            # It does not fit, or the broker sent it before it received basic.cancel.
            acks.requeue(message.delivery_tag)
            self._budget.release(held or 0)
            return
        work = Deferred.fromCoroutine(self._process(acks, message))
        work.addErrback(self._failed)
        work.addBoth(lambda _: self._budget.release(held))

    def _failed(self, failure: Failure) -> None:
        """Log a defect of this module; the delivery returns when the channel is lost."""
        self._log.failure("{service} failed", failure, service=self.name)

    async def _process(self, acks: AckBatcher, message: Any) -> None:
        content = message.content
        delivery = Delivery(
            body=content.body,
            exchange=message.exchange,
            routing_key=message.routing_key,
            headers=content.properties.get(HEADERS, {}),
            redelivered=message.redelivered,
        )
        with self._in_flight:
            try:
                if content.complete:
                    await self._deliver_or_move(delivery)
                else:
                    kept = len(content.body)
                    reason = f"the body has {content.size} bytes; only the first {kept} are kept"
                    await self._dead_letter(delivery, kind="too-large", reason=reason, size=content.size)
            except Unavailable as error:
                self._log.debug("{service}: requeued: {error}", service=self.name, error=error)
                await self._requeue(acks, message)
            except Exception:
                # Never unsettled: the broker sends no more than ``prefetch`` deliveries before the first is settled.
                self._log.failure("{service}: a message cannot even be dead-lettered; requeued", service=self.name)
                await self._requeue(acks, message)
            else:
                self._requeue_backoff.reset()
                acks.ack(message.delivery_tag)

    async def _requeue(self, acks: AckBatcher, message: Any) -> None:
        try:
            await self._requeue_backoff.pause()
        finally:
            acks.requeue(message.delivery_tag)

    async def _deliver_or_move(self, delivery: Delivery) -> None:
        """Deliver; move a delivery that has to be dead-lettered, and cannot, to the waiting queue, out of the way of others."""
        try:
            await self._deliver(delivery)
        except DeadLettersFull:
            queue = self._subscription.waiting_queue
            if not queue:
                raise
            headers: dict[str, str | int | bool] = {
                "meter-exchange": header_text(delivery.exchange),
                "meter-routing-key": header_text(delivery.routing_key),
                **returned_headers(delivery.headers),
                WAITED_HEADER: True,
            }
            publication = Publication(exchange="", routing_key=queue, body=delivery.body, headers=headers)
            try:
                await self._publisher.publish(publication)
            except ValueError as error:
                raise Unavailable(f"{queue}: {error}") from error

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            await self._receive(delivery)
        except Unavailable:
            raise
        except Exception as error:
            self._log.failure(
                "{service}: the receiver raised an unexpected exception; the message is dead-lettered",
                service=self.name,
            )
            if self._subscription.queue == DEAD_LETTER_QUEUE:
                # Its dead letter would be delivered here again, without end.
                raise Unavailable(f"{type(error).__name__}: {error}") from error
            await self._dead_letter(delivery, kind="defect", reason=f"{type(error).__name__}: {error}")

    async def _dead_letter(self, delivery: Delivery, *, kind: str, reason: str, size: int | None = None) -> None:
        await self._dead_letters.dead_letter(
            body=delivery.body, reason=reason, origin=delivery, kind=kind, queue=self._subscription.queue, size=size
        )
