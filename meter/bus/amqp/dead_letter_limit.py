"""The limit of the queue of dead letters: its length is asked before a dead letter is published.

A limit in the arguments of the queue would not do: RabbitMQ refuses to declare an existing queue with other arguments, and
one that is full would drop its oldest messages or, on a quorum queue, accept some beyond its limit.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from meter.bus.amqp.client import Client
from meter.bus.amqp.topology import Topology
from meter.bus.dead_letters import DEAD_LETTER_QUEUE
from meter.bus.dead_letters import DeadLettersFull
from meter.daemon.locks import Lock

CHECK_SECONDS = 10.0
"""How long a length is used, with the dead letters that this process has published since."""

FULL_CHECK_SECONDS = 2.0
"""The same while the queue is full."""


class DeadLetterLimit:
    """Refuses dead letters while their queue holds ``max_messages``; 0 is no limit.

    ``messages`` is the number in the queue, ``None`` before the first check. Messages that ``meter-dead-letters`` has
    fetched are not counted, and several collectors may each exceed the limit by what they publish in
    :data:`CHECK_SECONDS`.
    """

    _log = Logger()

    def __init__(self, topology: Topology, clock: IReactorTime, max_messages: int) -> None:
        self._topology = topology
        self._clock = clock
        self._max_messages = max_messages
        self._checked_at: float | None = None
        self._was_full = False
        self._admitting = Lock()
        self.messages: int | None = None

    @property
    def full(self) -> bool:
        """Whether dead letters are refused."""
        return bool(self._max_messages) and self.messages is not None and self.messages >= self._max_messages

    async def admit(self, client: Client) -> None:
        """Return if one more dead letter may be published; raises :class:`DeadLettersFull`."""
        if not self._max_messages:
            return
        # One after another: those that come during a check would not be counted.
        await self._admitting.acquire()
        try:
            await self.check(client)
        finally:
            self._admitting.release()
        if self.full:
            raise DeadLettersFull(
                f"{DEAD_LETTER_QUEUE} holds {self.messages} dead letters; [bus] max_dead_letters is {self._max_messages}"
            )
        self.messages = (self.messages or 0) + 1

    async def check(self, client: Client) -> None:
        """Ask the broker for the length of the queue, unless it was asked a moment ago."""
        now = self._clock.seconds()
        age = FULL_CHECK_SECONDS if self.full else CHECK_SECONDS
        if self._checked_at is not None and now - self._checked_at < age:
            return
        self._checked_at = now
        try:
            self.messages = await self._topology.length(client, DEAD_LETTER_QUEUE)
        except BaseException:
            self._checked_at = None
            raise
        if self.full != self._was_full:
            self._was_full = self.full
            if self.full:
                self._log.warn(
                    "{queue} is full: {count} dead letters, [bus] max_dead_letters is {limit}. Further bad messages wait"
                    " until there is room: use meter-dead-letters to replay or discard some",
                    queue=DEAD_LETTER_QUEUE,
                    count=self.messages,
                    limit=self._max_messages,
                )
            else:
                self._log.info(
                    "{queue} has room again: {count} dead letters", queue=DEAD_LETTER_QUEUE, count=self.messages
                )
