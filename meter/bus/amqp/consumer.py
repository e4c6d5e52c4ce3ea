"""Consuming: a durable queue of ours, what flows into it, and what becomes of each delivery."""

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

from meter.bus.amqp.ack_batcher import Answers
from meter.bus.amqp.channel import HEADERS
from meter.bus.amqp.channel import Channel
from meter.bus.amqp.channel import ChannelLost
from meter.bus.amqp.connection import ChannelService
from meter.bus.amqp.connection import Connection
from meter.bus.amqp.topology import Topology
from meter.bus.dead_letter_publisher import DEAD_LETTER_QUEUE
from meter.bus.dead_letter_publisher import DeadLetterPublisher
from meter.daemon.services import Backoff
from meter.daemon.services import InFlight
from meter.daemon.services import sleep
from meter.daemon.services import within
from meter.interfaces import Delivery
from meter.interfaces import ISubscription
from meter.interfaces import Receiver
from meter.interfaces import Subscription
from meter.interfaces import Unavailable

CONSUMER_TAG = "meter"


class RequeueBackoff:
    """When deliveries that could not be received go back: all that fail together after one pause, which grows.

    Without the pause they would be delivered again at once and keep both sides busy; with one for each of them, two
    hundred failures of the same outage would count as two hundred outages.
    """

    def __init__(self, clock: IReactorTime, backoff: Backoff) -> None:
        self._clock = clock
        self._backoff = backoff
        self._ends_at = 0.0
        self._pauses: set[Deferred[None]] = set()

    def succeeded(self) -> None:
        """Begin with a short pause again."""
        self._backoff.reset()

    async def pause(self) -> None:
        """Wait for the end of the present pause, or of a new one."""
        now = self._clock.seconds()
        if now >= self._ends_at:
            self._ends_at = now + self._backoff.next()
        pause = sleep(self._clock, self._ends_at - now)
        self._pauses.add(pause)
        # With the same result whether it ends by itself or is hurried.
        pause.addBoth(lambda _: self._pauses.discard(pause))
        await pause

    def hurry(self) -> None:
        """End the present pause."""
        for pause in list(self._pauses):
            pause.cancel()


@implementer(ISubscription)
class Consumer(Service):
    """Delivers the messages of one queue to a receiver, up to ``prefetch`` of them at a time, and answers for each.

    What the broker or an administrator may do to its queue is put right: a deleted queue is declared again, and every
    ``rebind_seconds`` its bindings are made again, which also finds exchanges that appeared in the meantime. Stopping
    takes no more deliveries, waits at most ``stop_seconds`` for those in hand, and leaves the rest to be delivered
    again.
    """

    _log = Logger()

    def __init__(
        self,
        connection: Connection,
        topology: Topology,
        dead_letters: DeadLetterPublisher,
        subscription: Subscription,
        receive: Receiver,
        *,
        clock: IReactorTime,
        rebind_seconds: float,
        stop_seconds: float,
        backoff: Backoff | None = None,
    ) -> None:
        self.setName(f"subscription to {subscription.queue}")
        self._topology = topology
        self._dead_letters = dead_letters
        self._subscription = subscription
        self._receive = receive
        self._clock = clock
        self._rebind_seconds = rebind_seconds
        self._stop_seconds = stop_seconds
        self._kept = ChannelService(connection, self._prepare, clock=clock, purpose=f"queue {subscription.queue}")
        self._handing_back = RequeueBackoff(clock, backoff or Backoff())
        self._in_hand = InFlight()
        self._answers: Answers | None = None

    @property
    def ready(self) -> bool:
        """Whether messages are being consumed."""
        return self._kept.channel is not None

    @property
    def passing(self) -> bool:
        """Whether it only listens in, so that nothing depends on it."""
        return bool(self._subscription.observe_queue)

    @property
    def reason(self) -> str:
        """Why they are not."""
        return self._kept.reason

    def startService(self) -> None:
        """Begin; returns at once."""
        super().startService()
        self._kept.startService()

    def stopService(self) -> Deferred[None]:
        """Fire when nothing is in hand any more and the channel is closed."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        channel = self._kept.channel
        try:
            if channel is not None:
                await within(self._clock, self._stop_seconds, channel.basic_cancel(consumer_tag=CONSUMER_TAG))
            self._handing_back.hurry()
            await within(self._clock, self._stop_seconds, self._in_hand.idle())
        except Unavailable:
            pass  # The channel is gone, and with it all that was in hand: the broker delivers it again.
        except DeferredTimeout:
            self._log.warn(
                "{service}: {count} deliveries are still in hand and will be delivered again",
                service=self.name,
                count=self._in_hand.count,
            )
        finally:
            if self._answers is not None:
                self._answers.tell()
            await maybeDeferred(self._kept.stopService)

    async def _prepare(self, channel: Any) -> None:
        wanted = self._subscription
        if wanted.observe_queue:
            await self._topology.passing_queue(channel.client, wanted.queue, observe_queue=wanted.observe_queue)
        else:
            await self._topology.queue(channel.client, wanted.queue, single_active=wanted.single_active)
        await self._topology.bind(channel.client, self._subscription)
        answers = self._answers = Answers(channel, self._clock)
        channel.on_delivery = lambda message: self._take(answers, message)
        channel.on_cancel = lambda message: self._cancelled(channel)
        # Before consuming, or the whole queue would come at once.
        await channel.basic_qos(prefetch_count=self._subscription.prefetch)
        await channel.basic_consume(queue=self._subscription.queue, consumer_tag=CONSUMER_TAG)
        rebinding = Deferred.fromCoroutine(self._keep_bound(channel))
        rebinding.addErrback(self._failed)
        channel.lost.wait().addCallback(lambda _: rebinding.cancel())

    def _cancelled(self, channel: Channel) -> None:
        """The queue was deleted, or its node is gone: begin anew, which declares it."""
        self._log.warn("{service}: the broker ended it, it begins anew", service=self.name)
        channel.give_up("the broker ended the subscription: its queue was deleted")

    async def _keep_bound(self, channel: Channel) -> None:
        try:
            while not channel.closed:
                await sleep(self._clock, self._rebind_seconds)
                await self._topology.bind(channel.client, self._subscription)
        except ChannelLost as lost:
            channel.give_up(f"its bindings cannot be made: {lost}")
        except Exception:
            if not channel.closed:
                raise

    def _take(self, answers: Answers, message: Any) -> None:
        answers.came(message.delivery_tag)
        if not self.running:
            # It was on its way when the broker heard that no more are wanted.
            answers.requeued(message.delivery_tag)
            return
        work = Deferred.fromCoroutine(self._deal_with(answers, message))
        work.addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        """Log a defect of this module; what it was about is delivered again when the channel is lost."""
        self._log.failure("{service} failed", failure, service=self.name)

    async def _deal_with(self, answers: Answers, message: Any) -> None:
        content = message.content
        delivery = Delivery(
            body=content.body,
            exchange=message.exchange,
            routing_key=message.routing_key,
            headers=content.properties.get(HEADERS, {}),
            redelivered=message.redelivered,
        )
        with self._in_hand:
            try:
                if content.whole:
                    await self._received(delivery)
                else:
                    kept = len(content.body)
                    reason = f"the body has {content.size} bytes, of which the first {kept} are kept"
                    await self._dead_letter(delivery, kind="too-large", reason=reason, size=content.size)
            except Unavailable as error:
                self._log.debug("{service}: handed back: {error}", service=self.name, error=error)
                try:
                    await self._handing_back.pause()
                finally:
                    answers.requeued(message.delivery_tag)
            else:
                self._handing_back.succeeded()
                answers.done(message.delivery_tag)

    async def _received(self, delivery: Delivery) -> None:
        try:
            await self._receive(delivery)
        except Unavailable:
            raise
        except Exception as error:
            self._log.failure("{service}: a defect, the message is set aside", service=self.name)
            if self._subscription.queue == DEAD_LETTER_QUEUE:
                # Its dead letter would come here again, and so on without end.
                raise Unavailable(f"{type(error).__name__}: {error}") from error
            await self._dead_letter(delivery, kind="defect", reason=f"{type(error).__name__}: {error}")

    async def _dead_letter(self, delivery: Delivery, *, kind: str, reason: str, size: int | None = None) -> None:
        await self._dead_letters.dead_letter(
            body=delivery.body, reason=reason, origin=delivery, kind=kind, queue=self._subscription.queue, size=size
        )
