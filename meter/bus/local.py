"""The in-process bus: publishing succeeds once every receiver of the message has returned."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Sequence

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from meter.bus.body_limit import check_body
from meter.bus.dead_letters import DEAD_LETTER_QUEUE
from meter.bus.dead_letters import DeadLetterPublisher
from meter.daemon.locks import Semaphore
from meter.daemon.services import InFlight
from meter.interfaces import Delivery
from meter.interfaces import IBus
from meter.interfaces import IDependency
from meter.interfaces import ISubscription
from meter.interfaces import Publication
from meter.interfaces import Readiness
from meter.interfaces import Receiver
from meter.interfaces import Subscription
from meter.interfaces import Unavailable

MAX_DEAD_LETTERS_IN_MEMORY = 1000
"""Maximum number of dead letters in memory; the oldest are dropped first."""


def _ignore(kind: str) -> None:
    """Count nothing."""


def topic_matches(pattern: str, routing_key: str) -> bool:
    """Return whether a binding's ``pattern`` matches: ``*`` is one word, ``#`` is zero or more words."""
    return _words_match(pattern.split("."), routing_key.split("."))


def _words_match(pattern: Sequence[str], words: Sequence[str]) -> bool:
    if not pattern:
        return not words
    head, rest = pattern[0], pattern[1:]
    if head == "#":
        return any(_words_match(rest, words[start:]) for start in range(len(words) + 1))
    return bool(words) and head in ("*", words[0]) and _words_match(rest, words[1:])


@implementer(ISubscription)
class LocalSubscription(Service):
    """A receiver on a :class:`LocalBus`; while it runs it gets deliveries, at most ``prefetch`` at a time."""

    def __init__(self, bus: LocalBus, subscription: Subscription, receive: Receiver) -> None:
        self.setName(f"subscription to {subscription.queue}")
        self.queue = subscription.queue
        self._bus = bus
        self.ephemeral = bool(subscription.observe_queue)
        self._bindings = subscription.bindings
        self._receive = receive
        self._prefetch = Semaphore(subscription.prefetch)
        self._in_flight = InFlight()

    @property
    def pending(self) -> int:
        """Number of deliveries that are being received or wait for a free prefetch slot."""
        return len(self._prefetch.waiting) + self._in_flight.count

    @property
    def ready(self) -> bool:
        """Whether it receives deliveries: it does while it runs."""
        return bool(self.running)

    def startService(self) -> None:
        """Start receiving."""
        super().startService()
        self._bus.subscriptions.append(self)

    def stopService(self) -> Deferred[None]:
        """Stop receiving; fire when every started delivery has returned."""
        super().stopService()
        self._bus.subscriptions.remove(self)
        return self._in_flight.idle()

    def wants(self, publication: Publication) -> bool:
        """Return whether this queue is bound to ``publication``; the default exchange routes by the queue's name."""
        if publication.exchange == "":
            return publication.routing_key == self.queue
        return any(
            binding.exchange == publication.exchange and topic_matches(binding.routing_key, publication.routing_key)
            for binding in self._bindings
        )

    async def deliver(self, delivery: Delivery) -> None:
        """Return once the receiver has returned; raises what it raises."""
        await self._prefetch.acquire()
        try:
            if not self.running:
                raise Unavailable(f"the subscription to {self.queue} is stopped")
            with self._in_flight:
                await self._receive(delivery)
        finally:
            self._prefetch.release()


@implementer(IBus, IDependency)
class LocalBus(Service):
    """A bus within this process, without queues: a publication is received at once or refused.

    ``publish`` raises :class:`~meter.interfaces.Unavailable` if no running subscription is bound to the publication, or a
    receiver raises it: the publisher then retries. After any other exception of a receiver the message is dead-lettered.
    Dead letters without a receiver go to ``store_dead_letter``; without that, the last thousand are kept in
    ``dead_letters`` until the process ends. ``count_dead`` is called with the kind of each dead letter that the bus makes.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        *,
        store_dead_letter: Callable[[Publication], Awaitable[None]] | None = None,
        count_dead: Callable[[str], object] = _ignore,
        max_body_bytes: int = 16 * 1024 * 1024,
    ) -> None:
        self.setName("bus")
        self.subscriptions: list[LocalSubscription] = []
        self.dead_letters: deque[Publication] = deque(maxlen=MAX_DEAD_LETTERS_IN_MEMORY)
        self._store_dead_letter = store_dead_letter or self._keep_in_memory
        self._dead_letter_publisher = DeadLetterPublisher(self, clock, count=count_dead)
        self._max_body_bytes = max_body_bytes

    def subscribe(self, subscription: Subscription, receive: Receiver) -> LocalSubscription:
        """Return the service that delivers to ``receive`` while it runs."""
        return LocalSubscription(self, subscription, receive)

    @property
    def queued_dead_letters(self) -> tuple[int | None, bool]:
        """Unknown, and not full: dead letters go to a spool, which logs what it drops."""
        return None, False

    def readiness(self) -> Readiness:
        """Return ready: an in-process bus is always available."""
        return Readiness("bus", True, "in this process")

    async def publish(self, publication: Publication) -> None:
        """Return once every bound receiver has returned.

        Raises ``ValueError`` for a body that is too large, and for a header other than text, an integer or a boolean.
        """
        self._check(publication)
        receivers = self._receivers(publication)
        if not all(each.ephemeral for each in receivers):
            delivery = Delivery(
                body=publication.body,
                exchange=publication.exchange,
                routing_key=publication.routing_key,
                headers=dict(publication.headers),
            )
            outcomes = await gatherResults(
                [Deferred.fromCoroutine(self._deliver(receiver, delivery)) for receiver in receivers]
            )
            for error in outcomes:
                if error is not None:
                    raise error
        elif publication.exchange == "" and publication.routing_key == DEAD_LETTER_QUEUE:
            await self._store_dead_letter(publication)
        else:
            raise Unavailable(
                f"no subscription is bound to exchange {publication.exchange!r} with routing key {publication.routing_key!r}"
            )

    def _receivers(self, publication: Publication) -> list[LocalSubscription]:
        """Return one subscription for each bound queue: the least busy one, if several share the queue."""
        by_queue: dict[str, LocalSubscription] = {}
        for subscription in self.subscriptions:
            if subscription.wants(publication):
                other = by_queue.get(subscription.queue)
                if other is None or subscription.pending < other.pending:
                    by_queue[subscription.queue] = subscription
        return list(by_queue.values())

    async def _deliver(self, receiver: LocalSubscription, delivery: Delivery) -> Unavailable | None:
        """Deliver; return, not raise, :class:`Unavailable`, so that the caller can wait for all receivers first."""
        try:
            try:
                await receiver.deliver(delivery)
            except Unavailable:
                raise
            except Exception as error:
                self._log.failure(
                    "{service}: the receiver raised an unexpected exception; the message is dead-lettered",
                    service=receiver.name,
                )
                if receiver.queue == DEAD_LETTER_QUEUE:
                    # Its dead letter would be delivered here again, in an endless loop.
                    raise Unavailable(f"{receiver.name}: {type(error).__name__}: {error}") from error
                await self._dead_letter_publisher.dead_letter(
                    body=delivery.body,
                    reason=f"{type(error).__name__}: {error}",
                    origin=delivery,
                    kind="defect",
                    queue=receiver.queue,
                )
        except Unavailable as unavailable:
            return unavailable
        return None

    def _check(self, publication: Publication) -> None:
        check_body(publication, self._max_body_bytes)
        for key, value in publication.headers.items():
            if not isinstance(value, str | int | bool):
                raise ValueError(f"header {key} must be text, an integer or a boolean, not {value!r}")

    async def _keep_in_memory(self, publication: Publication) -> None:
        self.dead_letters.append(publication)
