"""A queue of dead letters in memory, and the bus of an API that has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.task import Clock

from meter.api.bus_services import BusServices
from meter.api.bus_services import BusState
from meter.api.bus_services import QueueLength
from meter.audit_record import Record
from meter.bus.dead_letter_queues import Entry
from meter.bus.dead_letters import parse_dead_letter
from meter.interfaces import Publication
from meter.interfaces import Unavailable


class MemoryDeadLetters:
    """What a broker keeps: ``messages``, oldest first. ``sent`` are the replayed ones. ``away`` is why the broker does not answer."""

    def __init__(self) -> None:
        self.messages: list[tuple[Mapping[str, Any], bytes]] = []
        self.sent: list[Publication] = []
        self.recorded: list[tuple[str, str, str, Mapping[str, Any]]] = []
        self.opened = self.closed = self.read = 0
        self.away = self.log_away = self.send_away = ""
        self.max_sent = 10**6

    def add(self, number: int, *, body: bytes = b"{}", **headers: Any) -> str:
        """Put a dead letter into the queue; return its id."""
        given = {"id": f"{number:08d}-0000-4000-8000-000000000000", "kind": "invalid", "queue": "meter.metering"}
        given |= {
            "at": "2026-11-22T12:00:00Z",
            "reason": "no volume",
            "exchange": "metering",
            "routing_key": "metering.cpu",
        }
        given |= {name: value for name, value in headers.items()}
        self.messages.append(
            ({f"meter-{name.replace('_', '-')}": value for name, value in given.items() if value is not None}, body)
        )
        return given["id"]

    def services(self, clock: Clock, **settings: Any) -> BusServices:
        """Return the bus of an API."""

        def recorder(who: str, reason: str) -> Record:
            async def record(action: str, details: Mapping[str, Any]) -> None:
                if self.log_away:
                    raise Unavailable(self.log_away)
                self.recorded.append((who, reason, action, details))

            return record

        return BusServices(clock, open_queue=lambda: _Reader(self), look=self._look, recorder=recorder, **settings)

    async def _look(self) -> BusState:
        if self.away:
            raise Unavailable(self.away)
        queues = [QueueLength("meter.metering", 12, 1), QueueLength("meter.reports", None, None)]
        return BusState(product="RabbitMQ 3.10.8 at broker:5672", queues=queues, dead_letters=len(self.messages))


class _Reader:
    def __init__(self, queue: MemoryDeadLetters) -> None:
        self._queue = queue
        self._position = 0
        self._removed: list[int] = []
        self._end = 0

    async def open(self) -> int:
        if self._queue.away:
            raise Unavailable(self._queue.away)
        self._queue.opened += 1
        self._end = len(self._queue.messages)
        return self._end

    async def next(self) -> Entry | None:
        if self._position >= self._end:
            return None
        self._position += 1
        self._queue.read += 1
        return Entry(parse_dead_letter(*self._queue.messages[self._position - 1]), self._position - 1)

    async def send(self, publication: Publication) -> None:
        if self._queue.send_away and len(self._queue.sent) >= self._queue.max_sent:
            raise Unavailable(self._queue.send_away)
        self._queue.sent.append(publication)

    async def remove(self, entry: Entry) -> None:
        self._removed.append(entry.handle)

    async def close(self) -> None:
        self._queue.closed += 1
        for position in sorted(self._removed, reverse=True):
            del self._queue.messages[position]
