"""The queue of dead letters: on the broker, or in the spool of a ``twistd meter`` without a broker."""

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

from meter.agent.spool import Runner
from meter.agent.spool import Spool
from meter.bus.amqp import AmqpBus
from meter.bus.amqp import Browser
from meter.bus.dead_letters import DEAD_LETTER_QUEUE
from meter.bus.dead_letters import DeadLetter
from meter.bus.dead_letters import parse_dead_letter
from meter.daemon.supervised import wait_ready
from meter.interfaces import Publication
from meter.interfaces import Unavailable

PAGE_ENTRIES = 10
"""Dead letters read from disk at a time; one has at most 8 MiB."""


class Entry(NamedTuple):
    """A dead letter in its queue; ``handle`` identifies it to the queue for removal."""

    dead_letter: DeadLetter
    handle: Any


class DeadLetterQueue(Protocol):
    """Dead letters, oldest first. Those that are read and not removed are put back by :meth:`close`, unchanged."""

    async def open(self) -> int:
        """Connect, and return the number of dead letters."""

    async def next(self) -> Entry | None:
        """Return the next dead letter, ``None`` after the last one."""

    async def send(self, publication: Publication) -> None:
        """Return once ``publication`` is durable on its way to its queue; raise ``Unavailable`` if that is uncertain."""

    async def remove(self, entry: Entry) -> None:
        """Delete a dead letter permanently."""

    async def close(self) -> None:
        """Put back what was not removed, and disconnect. Never raises."""


class BrokerDeadLetters:
    """The queue ``metering.dead`` of the RabbitMQ at ``url``."""

    def __init__(self, reactor: Any, url: str, *, clock: IReactorTime, name: str, max_body_bytes: int) -> None:
        self._clock = clock
        self._browser = Browser(reactor, url, DEAD_LETTER_QUEUE, clock=clock, name=name)
        self._bus = AmqpBus(reactor, url, clock=clock, name=name, max_body_bytes=max_body_bytes)

    async def open(self) -> int:
        """Connect; see ``DeadLetterQueue.open``."""
        return await self._browser.open()

    async def next(self) -> Entry | None:
        """Get a message without acknowledging it; see ``DeadLetterQueue.next``."""
        held = await self._browser.next()
        return None if held is None else Entry(parse_dead_letter(held.delivery.headers, held.delivery.body), held)

    async def send(self, publication: Publication) -> None:
        """Publish and wait for the confirm; see ``DeadLetterQueue.send``."""
        if not self._bus.running:
            self._bus.startService()
            await wait_ready(self._bus, self._clock)
        await self._bus.publish(publication)

    async def remove(self, entry: Entry) -> None:
        """Acknowledge the message; see ``DeadLetterQueue.remove``."""
        self._browser.remove(entry.handle)

    async def close(self) -> None:
        """Disconnect; see ``DeadLetterQueue.close``."""
        await self._browser.close()
        if self._bus.running:
            await self._bus.stopService()


class SpooledDeadLetters:
    """The spool ``dead``. Replayed messages go into the spool ``outbox``, which the daemon delivers.

    The daemon may be running or not: SQLite locks the files. A running daemon reads its outbox at least once a minute.
    ``run`` runs what reads and writes the files.
    """

    def __init__(
        self, dead: Path, outbox: Path, *, clock: IReactorTime, max_bytes: int, run: Runner = maybeDeferred
    ) -> None:
        self._dead = _spool(dead, clock, run)
        self._outbox = _spool(outbox, clock, run)
        self._exists = dead.exists()
        self._max_bytes = max_bytes
        self._page: deque[Entry] = deque()
        self._last_id = 0
        self._unread = 0

    async def open(self) -> int:
        """Count the dead letters, without creating a file; see ``DeadLetterQueue.open``."""
        if self._exists:
            await self._read_page()
            self._unread = self._dead.rows
        return self._unread

    async def next(self) -> Entry | None:
        """Read a dead letter; see ``DeadLetterQueue.next``."""
        if not self._unread:
            return None
        if not self._page:
            await self._read_page()
        self._unread -= 1
        return self._page.popleft() if self._page else None

    async def _read_page(self) -> None:
        for row in await self._dead.oldest(PAGE_ENTRIES, after=self._last_id):
            self._last_id = row.id
            self._page.append(Entry(parse_dead_letter(row.publication.headers, row.publication.body), row.id))

    async def send(self, publication: Publication) -> None:
        """Write to the daemon's outbox; see ``DeadLetterQueue.send``."""
        await self._outbox.oldest(0)  # refreshes the outbox's size
        if self._outbox.bytes + len(publication.body) > self._max_bytes:
            raise Unavailable("the daemon's outbox is full: replay again when it has been delivered")
        await self._outbox.put([publication])

    async def remove(self, entry: Entry) -> None:
        """Delete a dead letter from disk; see ``DeadLetterQueue.remove``."""
        await self._dead.remove([entry.handle])

    async def close(self) -> None:
        """Close the files; see ``DeadLetterQueue.close``."""
        await self._dead.close()
        await self._outbox.close()


def _spool(path: Path, clock: IReactorTime, run: Runner) -> Spool:
    """Return a spool without limits: only the daemon expires messages."""
    return Spool(path, max_bytes=sys.maxsize, max_age_seconds=math.inf, clock=clock, run=run)
