"""The bus within one process: a publication has succeeded when every receiver it was meant for has returned."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Sequence

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.defer import DeferredSemaphore
from twisted.internet.defer import gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from meter.bus.dead_letters import DEAD_LETTER_QUEUE
from meter.bus.dead_letters import DeadLetterPublisher
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

MOST_DEAD_IN_MEMORY = 1000


def _uncounted(kind: str) -> None:
    """Count nothing."""


def topic_matches(pattern: str, routing_key: str) -> bool:
    """Say whether a binding's ``pattern`` takes ``routing_key``: ``*`` is one word, ``#`` any number, none included."""
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
    """A receiver on a :class:`LocalBus`: it gets deliveries while it runs, at most ``prefetch`` at a time."""

    def __init__(self, bus: LocalBus, subscription: Subscription, receive: Receiver) -> None:
        self.setName(f"subscription to {subscription.queue}")
        self.queue = subscription.queue
        self._bus = bus
        self.ephemeral = bool(subscription.observe_queue)
        self._bindings = subscription.bindings
        self._receive = receive
        self._turns = DeferredSemaphore(subscription.prefetch)
        self._in_hand = InFlight()

    @property
    def waiting(self) -> int:
        """Deliveries that are in hand or waiting for their turn."""
        return len(self._turns.waiting) + self._in_hand.count

    @property
    def ready(self) -> bool:
        """Whether it is being delivered to: there is nothing that could be in the way."""
        return bool(self.running)

    def startService(self) -> None:
        """Take deliveries from now on."""
        super().startService()
        self._bus.subscriptions.append(self)

    def stopService(self) -> Deferred[None]:
        """Take no more; fire when nothing is in hand."""
        super().stopService()
        self._bus.subscriptions.remove(self)
        return self._in_hand.idle()

    def wants(self, publication: Publication) -> bool:
        """Say whether ``publication`` flows into this queue; each queue is bound to the default exchange by its name."""
        if publication.exchange == "":
            return publication.routing_key == self.queue
        return any(
            binding.exchange == publication.exchange and topic_matches(binding.routing_key, publication.routing_key)
            for binding in self._bindings
        )

    async def deliver(self, delivery: Delivery) -> None:
        """Return once the receiver has returned; raises what it raises."""
        await self._turns.acquire()
        try:
            if not self.running:
                raise Unavailable(f"nothing receives from {self.queue} any more")
            with self._in_hand:
                await self._receive(delivery)
        finally:
            self._turns.release()


@implementer(IBus, IDependency)
class LocalBus(Service):
    """A bus that ends at the borders of this process and keeps nothing: what is published is received or refused.

    ``publish`` raises :class:`~meter.interfaces.Unavailable` where no running subscription wants the publication, and
    where a receiver is not available: the publisher keeps it and tries again. A receiver's defect makes a dead letter,
    which goes to ``keep_dead`` and has succeeded when that returns. Without it the last thousand are kept in ``dead``
    and are gone with the process. ``count_dead`` is called with the kind of each that the bus itself makes.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        *,
        keep_dead: Callable[[Publication], Awaitable[None]] | None = None,
        count_dead: Callable[[str], object] = _uncounted,
        largest_body_bytes: int = 16 * 1024 * 1024,
    ) -> None:
        self.setName("bus")
        self.subscriptions: list[LocalSubscription] = []
        self.dead: deque[Publication] = deque(maxlen=MOST_DEAD_IN_MEMORY)
        self._keep_dead = keep_dead or self._keep_in_memory
        self._dead_letters = DeadLetterPublisher(self, clock, count=count_dead)
        self._largest_body_bytes = largest_body_bytes

    def subscribe(self, subscription: Subscription, receive: Receiver) -> LocalSubscription:
        """Return the service that delivers to ``receive`` while it runs."""
        return LocalSubscription(self, subscription, receive)

    def readiness(self) -> Readiness:
        """Return that it is ready: there is nothing that could be down."""
        return Readiness("bus", True, "within this process")

    async def publish(self, publication: Publication) -> None:
        """Return once every receiver that it was meant for has returned.

        ``ValueError`` for what no bus could take: a body that is too large, a header that is neither text nor a whole
        number nor a boolean.
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
                [Deferred.fromCoroutine(self._received(receiver, delivery)) for receiver in receivers]
            )
            for refusal in outcomes:
                if refusal is not None:
                    raise refusal
        elif publication.exchange == "" and publication.routing_key == DEAD_LETTER_QUEUE:
            await self._keep_dead(publication)
        else:
            raise Unavailable(
                f"nothing receives from exchange {publication.exchange!r} with routing key {publication.routing_key!r}"
            )

    def _receivers(self, publication: Publication) -> list[LocalSubscription]:
        """Return one subscription for each queue that wants ``publication``: the least busy, where several share it."""
        chosen: dict[str, LocalSubscription] = {}
        for subscription in self.subscriptions:
            if subscription.wants(publication):
                rival = chosen.get(subscription.queue)
                if rival is None or subscription.waiting < rival.waiting:
                    chosen[subscription.queue] = subscription
        return list(chosen.values())

    async def _received(self, receiver: LocalSubscription, delivery: Delivery) -> Unavailable | None:
        """Deliver, and return why it was not possible: all receivers are waited for before the first refusal counts."""
        try:
            try:
                await receiver.deliver(delivery)
            except Unavailable:
                raise
            except Exception as error:
                self._log.failure("{service}: a defect, the message is set aside", service=receiver.name)
                if receiver.queue == DEAD_LETTER_QUEUE:
                    # Its dead letter would come here again, and so on without end.
                    raise Unavailable(f"{receiver.name}: {type(error).__name__}: {error}") from error
                await self._dead_letters.dead_letter(
                    body=delivery.body,
                    reason=f"{type(error).__name__}: {error}",
                    origin=delivery,
                    kind="defect",
                    queue=receiver.queue,
                )
        except Unavailable as refusal:
            return refusal
        return None

    def _check(self, publication: Publication) -> None:
        if len(publication.body) > self._largest_body_bytes:
            raise ValueError(
                f"a publication has {len(publication.body)} bytes; at most {self._largest_body_bytes} are published"
            )
        for key, value in publication.headers.items():
            if not isinstance(value, str | int | bool):
                raise ValueError(f"header {key} must be text, a whole number or a boolean, not {value!r}")

    async def _keep_in_memory(self, publication: Publication) -> None:
        self.dead.append(publication)
