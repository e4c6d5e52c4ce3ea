"""Limits the bytes of the bodies that a consumer holds; the broker limits only their number (``prefetch_count``).

RabbitMQ does not implement ``prefetch_size``, and sends as many messages as the prefetch allows before a consumer can
react. So a body that does not fit is discarded while it arrives, and its message returned to the queue. Receiving then
pauses, and goes on with a prefetch whose bodies would fit, until as many bodies as the full prefetch were small again.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from meter.bus.amqp.channel import Channel
from meter.bus.amqp.channel import ChannelLost

CONSUMER_TAG = "meter"


class PrefetchBudget:
    """Counts the bytes of the bodies that one consumer holds, over all its channels: at most ``max_bytes``, or one body.

    ``held_bytes`` is their sum now, ``prefetch`` the number of messages to receive at a time in view of the last bodies,
    at most ``max_prefetch``.
    """

    def __init__(self, max_bytes: int, max_prefetch: int) -> None:
        self.max_bytes = max_bytes
        self.max_prefetch = max_prefetch
        self.held_bytes = 0
        self._largest = 0
        self._small = 0
        self._roomy: list[Deferred[None]] = []

    def fits(self, size: int) -> bool:
        """Return whether a body of ``size`` bytes fits beside those that are held. Alone, each fits."""
        return not self.held_bytes or self.held_bytes + size <= self.max_bytes

    def seen(self, size: int) -> None:
        """Consider the ``size`` of a body that arrived, whether it fitted or not, for ``prefetch``."""
        if size * self.max_prefetch > self.max_bytes // 2:
            self._largest = max(self._largest, size)
            self._small = 0
            return
        self._small += 1
        if self._small >= self.max_prefetch:
            self._largest = 0

    @property
    def prefetch(self) -> int:
        """The number of messages to receive at a time: of the largest body of late, as many as fill half of the bytes."""
        if not self._largest:
            return self.max_prefetch
        return min(self.max_prefetch, max(1, self.max_bytes // 2 // self._largest))

    def hold(self, size: int) -> None:
        """Count a body that was received."""
        self.held_bytes += size

    def release(self, size: int) -> None:
        """Count a body no longer."""
        self.held_bytes -= size
        if self._has_room:
            roomy, self._roomy = self._roomy, []
            for each in roomy:
                each.callback(None)

    @property
    def _has_room(self) -> bool:
        return self.held_bytes <= self.max_bytes // 2

    def room(self) -> Deferred[None]:
        """Fire when at most half of the bytes are held, so that ``prefetch`` messages more fit."""
        found: Deferred[None] = Deferred(lambda waiting: self._roomy.remove(waiting))
        if self._has_room:
            found.callback(None)
        else:
            self._roomy.append(found)
        return found


class Consumption:
    """Consumes ``queue`` on ``channel`` within ``budget``, from :meth:`begin` to :meth:`end`.

    With ``pausable`` false, the prefetch stays and no body is discarded: to pause would delete an auto-delete queue, and
    make another consumer the active one of a queue with a single active consumer.
    """

    _log = Logger()

    def __init__(self, channel: Channel, queue: str, budget: PrefetchBudget, *, pausable: bool = True) -> None:
        self._channel: Any = channel
        self._queue = queue
        self._budget = budget
        self._pausable = pausable
        self._arriving_bytes = 0
        self._discarding = False
        self._prefetch = 0
        self._tags = 0
        self._changing: Deferred[None] | None = None
        self._ended = False
        channel.wanted_bytes = self._wanted_bytes

    @property
    def _tag(self) -> str:
        # The acks of a cancelled consumer's deliveries would extend the prefetch of a new one with the same tag.
        return CONSUMER_TAG if self._tags == 1 else f"{CONSUMER_TAG}-{self._tags}"

    async def begin(self) -> None:
        """Consume, with the prefetch of the budget; :class:`ChannelLost`."""
        # Before basic.consume, or the broker would send the whole queue at once.
        self._prefetch = self._budget.prefetch if self._pausable else self._budget.max_prefetch
        await self._channel.basic_qos(prefetch_count=self._prefetch)
        if not self._ended:
            self._tags += 1
            await self._channel.basic_consume(queue=self._queue, consumer_tag=self._tag)

    async def end(self) -> None:
        """Consume no more; :class:`ChannelLost`."""
        self._ended = True
        if self._changing is not None:
            self._changing.cancel()
        if self._tags:
            await self._channel.basic_cancel(consumer_tag=self._tag)

    def _wanted_bytes(self, size: int) -> int:
        """Return how many bytes to keep of the body that begins to arrive now; none if it does not fit."""
        self._arriving_bytes = self._channel.client.wanted_bytes(size)
        self._discarding = self._pausable and not self._budget.fits(self._arriving_bytes)
        return 0 if self._discarding else self._arriving_bytes

    def arrived(self) -> int | None:
        """Return how many bytes the message that has just arrived holds, to be released later; ``None``: return it."""
        size, fits = self._arriving_bytes, not self._discarding
        self._budget.seen(size)
        if fits:
            self._budget.hold(size)
        grows = self._prefetch < self._budget.max_prefetch == self._budget.prefetch
        if self._pausable and not self._ended and self._changing is None and (grows or not fits):
            self._changing = Deferred.fromCoroutine(self._change(wait=not fits))
            self._changing.addErrback(self._failed)
            self._changing.addBoth(self._changed)
        return size if fits else None

    async def _change(self, *, wait: bool) -> None:
        """Consume with another prefetch, with ``wait`` once there is room for it."""
        await self._channel.basic_cancel(consumer_tag=self._tag)
        if wait:
            await self._budget.room()
        await self.begin()
        self._log.info(
            "queue {queue}: at most {prefetch} messages are received at a time, so that they have at most {limit} bytes",
            queue=self._queue,
            prefetch=self._prefetch,
            limit=self._budget.max_bytes,
        )

    def _changed(self, _: object) -> None:
        self._changing = None

    def _failed(self, failure: Failure) -> None:
        """Ignore that the channel is lost; with any other error, the channel is closed, so that a new one consumes."""
        if not failure.check(ChannelLost, CancelledError):
            self._log.failure("queue {queue}: the prefetch cannot be changed", failure, queue=self._queue)
            self._channel.abort("the prefetch cannot be changed")
