"""Where dead letters lie: on the broker, or in the spool of a ``twistd meter`` that has none."""

from __future__ import annotations

import math
import sys
from collections import deque
from pathlib import Path
from typing import Any
from typing import NamedTuple
from typing import Protocol

from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IReactorTime

from meter.agent.spool import Spool
from meter.bus.amqp import AmqpBus
from meter.bus.amqp import Browser
from meter.bus.dead_letter import DeadLetter
from meter.bus.dead_letter import letter
from meter.bus.dead_letter_publisher import DEAD_LETTER_QUEUE
from meter.daemon.services import sleep
from meter.interfaces import Publication
from meter.interfaces import Unavailable

READY_SECONDS = 20.0
"""How long the broker may take to be ready for replayed letters."""

PAGE_LETTERS = 10
"""Letters read from disk at a time; one has at most 8 MiB."""


class Entry(NamedTuple):
    """A letter in its box; ``place`` is the box's own word for where."""

    letter: DeadLetter
    place: Any


class DeadLetterQueue(Protocol):
    """Dead letters, oldest first. What is taken and not removed is there again after :meth:`close`, as it was."""

    async def open(self) -> int:
        """Return how many letters there are to take."""

    async def next(self) -> Entry | None:
        """Take the next letter; ``None`` when all have been taken."""

    async def send(self, publication: Publication) -> None:
        """Return once ``publication`` is safe where its receiver will get it."""

    async def remove(self, lying: Entry) -> None:
        """Remove a letter for good."""

    async def close(self) -> None:
        """Put back what is not removed. Never fails."""


class BrokerDeadLetters:
    """The letters in ``metering.dead`` of the RabbitMQ at ``url``."""

    def __init__(self, reactor: Any, url: str, *, clock: IReactorTime, name: str, largest_body_bytes: int) -> None:
        self._clock = clock
        self._browser = Browser(reactor, url, DEAD_LETTER_QUEUE, clock=clock, name=name)
        self._bus = AmqpBus(reactor, url, clock=clock, name=name, largest_body_bytes=largest_body_bytes)

    async def open(self) -> int:
        """Connect; see ``DeadLetterQueue.open``."""
        return await self._browser.open()

    async def next(self) -> Entry | None:
        """Take a letter out of the queue, unacknowledged; see ``DeadLetterQueue.next``."""
        held = await self._browser.next()
        return None if held is None else Entry(letter(held.delivery.headers, held.delivery.body), held)

    async def send(self, publication: Publication) -> None:
        """Publish, and wait until the broker has it in a queue; see ``DeadLetterQueue.send``."""
        if not self._bus.running:
            self._bus.startService()
            deadline = self._clock.seconds() + READY_SECONDS
            while not self._bus.readiness().ready:
                if self._clock.seconds() > deadline:
                    raise Unavailable(self._bus.readiness().reason)
                await sleep(self._clock, 0.05)
        await self._bus.publish(publication)

    async def remove(self, lying: Entry) -> None:
        """Acknowledge a letter; see ``DeadLetterQueue.remove``."""
        self._browser.remove(lying.place)

    async def close(self) -> None:
        """Disconnect; see ``DeadLetterQueue.close``."""
        await self._browser.close()
        if self._bus.running:
            await self._bus.stopService()


class SpooledDeadLetters:
    """The letters in the spool ``dead``. What is sent goes into the spool ``outbox``, from where the daemon delivers it.

    The daemon may run meanwhile or not: SQLite keeps the two apart. It looks into its outbox at least once a minute.
    """

    def __init__(self, dead: Path, outbox: Path, *, clock: IReactorTime, largest_bytes: int) -> None:
        self._dead = _spool(dead, clock)
        self._outbox = _spool(outbox, clock)
        self._exists = dead.exists()
        self._largest_bytes = largest_bytes
        self._page: deque[Entry] = deque()
        self._last = 0
        self._unseen = 0

    async def open(self) -> int:
        """Look whether there are any; see ``DeadLetterQueue.open``."""
        if self._exists:
            await self._read_page()
            self._unseen = self._dead.rows
        return self._unseen

    async def next(self) -> Entry | None:
        """Read a letter; see ``DeadLetterQueue.next``."""
        if not self._unseen:
            return None
        if not self._page:
            await self._read_page()
        self._unseen -= 1
        return self._page.popleft() if self._page else None

    async def _read_page(self) -> None:
        for waiting in await self._dead.oldest(PAGE_LETTERS, after=self._last):
            self._last = waiting.id
            self._page.append(Entry(letter(waiting.publication.headers, waiting.publication.body), waiting.id))

    async def send(self, publication: Publication) -> None:
        """Write to the daemon's outbox; see ``DeadLetterQueue.send``."""
        await self._outbox.oldest(0)  # which counts what is there
        if self._outbox.bytes + len(publication.body) > self._largest_bytes:
            raise Unavailable("the daemon's outbox is full: let it empty itself first")
        await self._outbox.put([publication])

    async def remove(self, lying: Entry) -> None:
        """Remove a letter from the disk; see ``DeadLetterQueue.remove``."""
        await self._dead.remove([lying.place])

    async def close(self) -> None:
        """Close the files; see ``DeadLetterQueue.close``."""
        await self._dead.close()
        await self._outbox.close()


def _spool(path: Path, clock: IReactorTime) -> Spool:
    """Return a spool that neither forgets nor makes room: that is for the daemon to decide."""
    return Spool(path, largest_bytes=sys.maxsize, longest_age_seconds=math.inf, clock=clock, run=maybeDeferred)
