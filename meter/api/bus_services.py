"""What the API needs for the pages about the message bus: its queues, its dead letters, and the audit log for replays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from dataclasses import replace
from typing import NamedTuple

from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime

from meter.audit_record import Record
from meter.bus.dead_letter_queues import DeadLetterQueue
from meter.bus.dead_letter_queues import Entry
from meter.bus.dead_letter_replay import ReplayResult
from meter.bus.dead_letter_replay import entries_by_id
from meter.bus.dead_letter_replay import pretty_body
from meter.bus.dead_letter_replay import replay_each
from meter.bus.dead_letters import DeadLetter
from meter.bus.dead_letters import call_at_once
from meter.bus.masking import masked_body
from meter.daemon.locks import Lock
from meter.daemon.services import within
from meter.interfaces import Unavailable
from meter.printable import printable

MAX_READ_LETTERS = 1000
MAX_READ_BYTES = 64 * 1024 * 1024
MAX_READ_SECONDS = 20.0
"""How many dead letters one request reads, the oldest first, how many bytes of their bodies, and for how long."""

MAX_WAIT_SECONDS = 10.0
"""How long a request waits for another one that reads dead letters: two at once would each see a part of the queue."""

MAX_SHOWN = 64 * 1024
"""Characters of a body that are shown."""

STATE_SECONDS = 5.0
"""How long the lengths of queues are kept: every page asks for them."""


class QueueLength(NamedTuple):
    """A queue of the broker: its messages that are ready and its consumers, ``None`` if there is no such queue."""

    name: str
    messages: int | None
    consumers: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BusState:
    """The bus as it was looked at: the product, the queues, the number of dead letters, and why the broker blocks publishing."""

    product: str
    queues: Sequence[QueueLength]
    dead_letters: int
    blocked: str | None = None


class ListedLetter(NamedTuple):
    """A dead letter without its body, which had ``bytes``."""

    dead_letter: DeadLetter
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterList:
    """The oldest dead letters: how many there are, how many of them were read, and those."""

    total: int
    read: int
    letters: Sequence[ListedLetter]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReport:
    """What became of the dead letters that were to be replayed; ``unread`` more were not looked at.

    ``stopped`` is why the replay ended early, if it did: what follows is still in the queue.
    """

    results: Sequence[ReplayResult]
    unread: int
    stopped: str = ""


class BusServices:
    """The bus for pages. ``open_queue`` makes a reader of dead letters, ``look`` looks at the bus.

    ``recorder`` returns, for who acts and why, the function that writes the audit log. ``max_dead_letters`` is the limit of the
    queue of dead letters, 0 if there is none; bodies are made readable by ``off_reactor``, in a thread. Dead letters that are read and not removed stay in the queue: the broker
    requeues them, also when this process is killed.
    """

    def __init__(
        self,
        clock: IReactorTime,
        *,
        open_queue: Callable[[], DeadLetterQueue],
        look: Callable[[], Awaitable[BusState]],
        recorder: Callable[[str, str], Record],
        max_dead_letters: int = 0,
        off_reactor: Callable[[Callable[[], bytes]], Awaitable[bytes]] = call_at_once,
    ) -> None:
        self._clock = clock
        self._open_queue = open_queue
        self._look = look
        self.recorder = recorder
        self.max_dead_letters = max_dead_letters
        self._off_reactor = off_reactor
        self._reading = Lock()
        self._looking = Lock()
        self._state: tuple[float, BusState] | None = None

    async def state(self) -> BusState:
        """Return the state of the bus, at most :data:`STATE_SECONDS` old; ``Unavailable`` if the broker is."""
        async with _held(self._clock, self._looking, "the broker does not answer another request"):
            if self._state is None or self._clock.seconds() - self._state[0] >= STATE_SECONDS:
                self._state = None
                found = await self._look()
                self._state = self._clock.seconds(), found
            return self._state[1]

    async def letters(self, limit: int) -> LetterList:
        """Return the oldest dead letters, at most ``limit``, without their bodies."""
        async with self._queue() as (queue, total):
            found = [
                ListedLetter(replace(entry.dead_letter, body=b""), len(entry.dead_letter.body))
                async for entry in self._entries(queue, limit)
            ]
            return LetterList(total=max(total, len(found)), read=len(found), letters=found)

    async def letter(self, id: str) -> DeadLetter:
        """Return the dead letter with this id; ``NoSuchDeadLetter`` if it is not among the oldest."""
        async with self._queue() as (queue, _):
            [entry] = [each async for each in entries_by_id(self._entries(queue), [id])]
            return entry.dead_letter

    async def body_text(self, dead_letter: DeadLetter) -> str:
        """Return the body for reading: JSON indented, secrets masked, unprintable characters escaped."""

        def text() -> bytes:
            shown = pretty_body(masked_body(dead_letter.body))
            whole = printable(shown[:MAX_SHOWN])
            omitted = len(shown) - MAX_SHOWN
            return (f"{whole}\n… {omitted} more characters" if omitted > 0 else whole).encode(errors="backslashreplace")

        return (await self._off_reactor(text)).decode()

    async def replay(
        self, *, ids: Sequence[str] = (), kind: str | None = None, record: Record, force: bool
    ) -> ReplayReport:
        """Replay the dead letters with these ids, or the oldest of ``kind``; ``NoSuchDeadLetter`` for an id that is gone.

        Each is recorded first, and removed when the bus has confirmed it.
        """
        results: list[ReplayResult] = []
        stopped = ""
        async with self._queue() as (queue, total):
            read = 0

            async def counted() -> AsyncIterator[Entry]:
                nonlocal read
                async for entry in self._entries(queue):
                    read += 1
                    yield entry

            async def chosen() -> AsyncIterator[Entry]:
                if ids:
                    async for entry in entries_by_id(counted(), ids):
                        yield entry
                else:
                    async for entry in counted():
                        if entry.dead_letter.kind == kind:
                            yield entry

            try:
                async for result in replay_each(queue, chosen(), record, force=force):
                    results.append(result._replace(dead_letter=replace(result.dead_letter, body=b"")))
            except Unavailable as error:
                if not results:
                    raise
                stopped = str(error)
            finally:
                self._state = None  # its numbers are those of before
            return ReplayReport(results=results, unread=0 if ids else max(0, total - read), stopped=stopped)

    async def _entries(self, queue: DeadLetterQueue, limit: int = MAX_READ_LETTERS) -> AsyncIterator[Entry]:
        """Yield the oldest dead letters, as far as one request may read them."""
        size, read = 0, 0
        end = self._clock.seconds() + MAX_READ_SECONDS
        while read < limit and size < MAX_READ_BYTES and self._clock.seconds() < end:
            if (entry := await queue.next()) is None:
                return
            read, size = read + 1, size + len(entry.dead_letter.body)
            yield entry

    @asynccontextmanager
    async def _queue(self) -> AsyncIterator[tuple[DeadLetterQueue, int]]:
        async with _held(self._clock, self._reading, "another request reads the dead letters"):
            queue = self._open_queue()
            try:
                yield queue, await queue.open()
            finally:
                await queue.close()


@asynccontextmanager
async def _held(clock: IReactorTime, lock: Lock, busy: str) -> AsyncIterator[None]:
    try:
        await within(clock, MAX_WAIT_SECONDS, lock.acquire())
    except DeferredTimeout:
        raise Unavailable(busy) from None
    try:
        yield
    finally:
        lock.release()
