"""Where ``meter-import`` sends samples: to the collectors over the bus, or, where the bus is within a process, to the store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import asynccontextmanager
from typing import Any
from typing import Protocol

from twisted.internet.defer import maybeDeferred

from meter.bus.amqp import AmqpBus
from meter.bus.batches import BATCH_SAMPLES
from meter.bus.batches import iter_publications
from meter.commands.database import ready_store
from meter.daemon.concurrent import all_of
from meter.daemon.services import sleep
from meter.daemon.supervised import READY_SECONDS
from meter.daemon.supervised import wait_ready
from meter.interfaces import IPublisher
from meter.interfaces import IStore
from meter.message import MeteringMessage
from meter.message import read_cast
from meter.outgoing import OutgoingMessage
from meter.settings import Config
from meter.signing_keys import Keyring
from meter.store import LateSamples
from meter.store import PostgresStore

LOCAL_BUS = "local:"


class ImportDestination(Protocol):
    """Takes signed messages. ``verb`` says what has happened to them then: published, or stored."""

    verb: str

    async def send(self, messages: Sequence[OutgoingMessage]) -> Mapping[str, str]:
        """Return once all are safe: why messages were refused, by their ids. Raises :class:`~meter.interfaces.Unavailable`."""


class BusDestination:
    """Publishes signed batches for the collectors, which verify and store them; what they refuse becomes a dead letter."""

    verb = "published"

    def __init__(self, publisher: IPublisher) -> None:
        self._publisher = publisher

    async def send(self, messages: Sequence[OutgoingMessage]) -> Mapping[str, str]:
        """Return once the broker has confirmed all."""
        refused: dict[str, str] = {}
        await all_of(*(self._publish(batch, refused) for batch in batches(messages)))
        return refused

    async def _publish(self, batch: Sequence[OutgoingMessage], refused: dict[str, str]) -> None:
        """Publish ``batch``, in halves if it is too large."""
        try:
            for publication in iter_publications(batch):
                await self._publisher.publish(publication)
        except ValueError as error:
            if len(batch) == 1:
                refused[batch[0].fields["message_id"]] = f"the message bus rejects it: {error}"
                return
            half = len(batch) // 2
            await self._publish(batch[:half], refused)
            await self._publish(batch[half:], refused)


class StoreDestination:
    """Writes signed batches to the store, as a collector would."""

    verb = "stored"

    def __init__(self, store: IStore, keys: Keyring, clock: Any) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock

    async def send(self, messages: Sequence[OutgoingMessage]) -> Mapping[str, str]:
        """Return once all that are not refused are committed."""
        read: list[MeteringMessage] = []
        for publication in iter_publications(messages):
            read += read_cast(publication.body, self._keys)
            await sleep(self._clock, 0)
        result = await self._store.write(read)
        return {
            read[refusal.index].message_id: "the store refuses it: "
            + ": ".join(filter(None, (refusal.reason, refusal.cause)))
            for refusal in result.refused
        }


def batches(messages: Sequence[OutgoingMessage]) -> list[Sequence[OutgoingMessage]]:
    """Return ``messages`` in batches of one meter each."""
    of_meter: dict[str, list[OutgoingMessage]] = {}
    for message in messages:
        of_meter.setdefault(message.fields["counter_name"], []).append(message)
    return [
        part[first : first + BATCH_SAMPLES]
        for part in of_meter.values()
        for first in range(0, len(part), BATCH_SAMPLES)
    ]


@asynccontextmanager
async def destination(reactor: Any, config: Config, keys: Keyring) -> AsyncIterator[ImportDestination]:
    """Provide the destination of the configured installation; raises :class:`~meter.interfaces.Unavailable`."""
    url = config.bus.url.get_secret_value()
    if url != LOCAL_BUS:
        bus = AmqpBus(reactor, url, clock=reactor, name="meter-import", max_body_bytes=config.bus.max_body_bytes)
        bus.startService()
        try:
            await wait_ready(bus, reactor, seconds=READY_SECONDS, name="the broker")
            yield BusDestination(bus)
        finally:
            await maybeDeferred(bus.stopService)
        return
    completeness = config.completeness
    async with ready_store(
        reactor,
        config,
        lambda dsn: PostgresStore(
            reactor,
            dsn,
            clock=reactor,
            migrate=False,
            readers=0,
            writers=1,
            application_name="meter-import",
            statement_timeout_seconds=config.store.statement_timeout_seconds,
            late=LateSamples(completeness.late_after_seconds, every=completeness.late_samples == "all"),
        ),
    ) as store:
        yield StoreDestination(store, keys, reactor)
