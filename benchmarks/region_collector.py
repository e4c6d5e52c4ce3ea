"""The collector of ``benchmarks.region`` as a process of its own: its pipeline without a bus, and the maintenance of its store.

It reads commands from its standard input and writes answers to its standard output, each a pickled object in a frame that
begins with its length. Messages are delivered as a bus would: verified, batched and stored by the collector's own consumer.
"""

from __future__ import annotations

import argparse
import pickle
import sys
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet import reactor
from twisted.internet import stdio
from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults
from twisted.protocols.basic import Int32StringReceiver

from benchmarks import measuring
from benchmarks.simulated_region import KEYS
from meter.bus.dead_letters import DeadLetterPublisher
from meter.collector.samples import SampleConsumer
from meter.daemon.metrics import CollectingMetrics
from meter.daemon.services import sleep
from meter.interfaces import Delivery
from meter.interfaces import Publication
from meter.settings.collector import CollectorSection
from meter.store import PostgresStore
from meter.store.maintenance.maintenance import Retention

DELIVERIES_AT_ONCE = 200
"""As many as a bus delivers before the first is acknowledged, by default."""


class RegionClock:
    """The reactor's clock, whose time of day is what the benchmark says."""

    def __init__(self, clock: Any) -> None:
        self.seconds = clock.seconds
        self.callLater = clock.callLater
        self.getDelayedCalls = clock.getDelayedCalls
        self.ahead = 0.0

    def wall_seconds(self) -> float:
        """Return the time of day of the region."""
        return time.time() + self.ahead


class CountedDeadLetters:
    """Counts what is dead-lettered; nothing should be."""

    def __init__(self) -> None:
        self.count = 0

    async def publish(self, publication: Publication) -> None:
        """Count it."""
        self.count += 1


class RegionCollector:
    """The pipeline, and what the benchmark asks for: a method for each command, whose answer is a picklable object."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._clock = RegionClock(reactor)
        self._store = PostgresStore(
            reactor,
            options.dsn,
            clock=self._clock,
            migrate=True,
            readers=0,
            writers=2,
            retention=Retention(days=options.retention_days, rollup_days=options.retention_days),
            pack_after_days=options.pack_after_days,
        )
        self._maintenance = self._store.maintenance
        self._dead = CountedDeadLetters()
        settings = CollectorSection()
        self._counts = {"stored": 0, "duplicates": 0, "refused": 0}
        self._consumer = SampleConsumer(
            self._store,
            KEYS,
            DeadLetterPublisher(self._dead, self._clock, source_queue="region"),
            self._clock,
            batch_samples=settings.batch_samples,
            batch_seconds=settings.batch_seconds,
            metrics=CollectingMetrics(CollectorRegistry()),
            after_commit=self._count,
        )
        self._seconds: dict[str, float] = {}

    def _count(self, messages: Any, result: Any) -> None:
        self._counts["stored"] += result.stored
        self._counts["duplicates"] += result.duplicates
        self._counts["refused"] += len(result.refused)

    async def start(self) -> None:
        """Connect; return once samples can be written."""
        self._store.startService()
        self._maintenance._pool.startService()
        await measuring.until_ready(reactor, self._store)
        while not self._maintenance._pool.ready:
            await sleep(self._clock, 0.01)

    async def set_clock(self, now: datetime) -> None:
        """Let the region's time of day be ``now``."""
        self._clock.ahead = now.timestamp() - time.time()

    async def prepare(self, at: datetime) -> None:
        """Make the partition of a week."""
        await self._maintenance._partitions.ensure([at])

    async def deliver(self, bodies: list[tuple[bytes, str]]) -> dict[str, int]:
        """Receive messages; return the counts so far once all of them are acknowledged."""
        for first in range(0, len(bodies), DELIVERIES_AT_ONCE):
            part = bodies[first : first + DELIVERIES_AT_ONCE]
            deliveries = [
                Delivery(body=body, exchange="metering", routing_key=routing_key) for body, routing_key in part
            ]
            await gatherResults(
                [Deferred.fromCoroutine(self._consumer.receive(each)) for each in deliveries], consumeErrors=True
            )
        return {**self._counts, "dead letters": self._dead.count}

    async def maintain(self) -> dict[str, float]:
        """Run maintenance once; return how many seconds each part took."""
        maintenance, seconds = self._maintenance, {}
        for name in ("finalize", "expire", "collect_garbage"):
            seconds[name] = 0.0
        restore: list[Callable[[], None]] = []
        for name in seconds:
            whole = getattr(maintenance, name)

            async def timed(*arguments: Any, name: str = name, whole: Any = whole) -> Any:
                begin = time.perf_counter()
                result = await whole(*arguments)
                seconds[name] += time.perf_counter() - begin
                return result

            setattr(maintenance, name, timed)
            restore.append(lambda name=name: delattr(maintenance, name))
        try:
            await maintenance.run()
        finally:
            for each in restore:
                each()
        return seconds

    async def garbage_remains(self) -> bool:
        """Return whether garbage collection goes on in the next run."""
        return self._maintenance.garbage_collection.unfinished

    async def pack(self, now: datetime) -> float:
        """Pack what is due; return how many seconds it took."""
        took = await measuring.timed(self._maintenance.packing.run(now))
        return took.wall


class Commands(Int32StringReceiver):
    """Executes commands one after another."""

    MAX_LENGTH = 2**30

    def __init__(self, collector: RegionCollector) -> None:
        self._collector = collector

    def stringReceived(self, string: bytes) -> None:
        name, arguments = pickle.loads(string)
        Deferred.fromCoroutine(self._answer(name, arguments))

    async def _answer(self, name: str, arguments: Any) -> None:
        try:
            answer = True, await getattr(self._collector, name)(*arguments)
        except Exception as error:
            answer = False, f"{name}: {type(error).__name__}: {error}"
        self.sendString(pickle.dumps(answer))

    def connectionLost(self, reason: Any) -> None:
        if reactor.running:  # type: ignore[attr-defined]
            reactor.stop()  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dsn")
    parser.add_argument("retention_days", type=float)
    parser.add_argument("pack_after_days", type=float)
    collector = RegionCollector(parser.parse_args())
    stdio.StandardIO(Commands(collector))
    reactor.run()  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(main())
