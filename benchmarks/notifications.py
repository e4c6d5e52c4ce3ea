"""How fast one collector turns notifications into signed samples that RabbitMQ has confirmed.

The captured mix of seven services (``tests/data/notifications``), each time with ids of its own, goes through every
built-in listener: decode, match, make, mask, sign, publish, wait for the confirms, acknowledge. First within the
process on a bus that confirms at once, beside reading the JSON of the same notifications; then on a real RabbitMQ that
shares the processors, beside taking the same notifications from it and acknowledging them. Then what matching costs with
10, 100 and 1 000 definitions installed, for event types that were met before and for new ones.

What each notification has to give is found by asking the listeners themselves. Outcomes, samples by meter, ids and dead
letters are compared with that, within the process and on RabbitMQ.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from fnmatch import fnmatchcase
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults
from twisted.internet.task import Clock
from zope.interface import implementer

from benchmarks import measuring
from benchmarks.measuring import Report
from benchmarks.measuring import Table
from meter.bus.amqp import AmqpBus
from meter.bus.batches import METERING_EXCHANGE
from meter.bus.dead_letters import DEAD_LETTER_QUEUE
from meter.bus.dead_letters import DeadLetterPublisher
from meter.collector.conversion import parse_notification
from meter.collector.notifications import NotificationConsumer
from meter.declarative.notifications import DefinedListener
from meter.declarative.notifications import read_definitions
from meter.interfaces import Binding
from meter.interfaces import Delivery
from meter.interfaces import IPublisher
from meter.interfaces import Publication
from meter.interfaces import Subscription
from meter.message import seal
from meter.notification import notification
from meter.plugins.registry import LISTENER
from meter.plugins.registry import decide_now
from meter.plugins.registry import find
from meter.signing_keys import keyring
from meter.testing import FakePluginContext

NOTIFICATIONS = 6_000
PREFETCH = 1_000
"""As ``[notifications] prefetch`` has it."""
BATCH_SECONDS = 0.2
"""As ``[notifications] batch_seconds`` has it."""
PUBLISHED_AT_ONCE = 500
CAPTURED = sorted(measuring.ROOT.glob("tests/data/notifications/*.json"))
KNOWN, NEW = 100, 5_000
"""Event types that were met before, and new ones."""


@implementer(IPublisher)
class ConfirmingPublisher:
    """Confirms at once, and keeps the publications."""

    def __init__(self) -> None:
        self.publications: list[Publication] = []

    async def publish(self, publication: Publication) -> None:
        self.publications.append(publication)


class Outcomes:
    """Counts what became of notifications."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.total = 0

    def notified(self, event_type: str, outcome: str) -> None:
        self.counts[outcome] += 1
        self.total += 1


@dataclass(slots=True)
class Expected:
    """What notifications have to give: how many of each outcome, and how many samples of each meter."""

    outcomes: Counter[str] = field(default_factory=Counter)
    samples: Counter[str] = field(default_factory=Counter)

    def compare(self, report: Report, where: str, outcomes: Outcomes, arrived: Arrived) -> None:
        """Compare everything that came out."""
        report.compare(f"outcomes of notifications {where}", dict(self.outcomes), dict(outcomes.counts))
        report.compare(f"samples by meter {where}", dict(self.samples), dict(arrived.samples))
        report.compare(f"samples with an id of their own {where}", self.samples.total(), len(arrived.ids))
        report.compare(f"dead letters {where}", 0, arrived.dead_letters)


@dataclass(slots=True)
class Arrived:
    """What was published, opened without Meter."""

    samples: Counter[str] = field(default_factory=Counter)
    ids: set[str] = field(default_factory=set)
    dead_letters: int = 0

    def add(self, body: bytes) -> None:
        """Count the samples of a message."""
        for sample in json.loads(json.loads(body)["oslo.message"])["args"]["data"]:
            self.samples[sample["counter_name"]] += 1
            self.ids.add(sample["message_id"])


def mix(count: int) -> list[bytes]:
    """Return the bodies of ``count`` notifications. Cinder's have volumes of their own, as ids of their samples depend on it."""
    captured = [json.loads(path.read_text())["message"] for path in CAPTURED]
    bodies = []
    for message in itertools.islice(itertools.cycle(captured), count):
        own = {"message_id": str(uuid.uuid4())}
        if "_context_request_id" in message:
            own["_context_request_id"] = f"req-{uuid.uuid4()}"
        payload = {name: str(uuid.uuid4()) for name in ("volume_id", "snapshot_id") if name in message["payload"]}
        bodies.append(seal(message | own | {"payload": message["payload"] | payload}))
    return bodies


def expected_of(count: int) -> Expected:
    """Return what the first ``count`` notifications of the mix have to give, as the listeners say."""
    decisions = decide_now(find([LISTENER]), FakePluginContext())
    expected = Expected()
    for path, times in zip(CAPTURED, _times(count), strict=True):
        read = parse_notification(seal(json.loads(path.read_text())["message"]))
        wanting = [each.plugin for each in decisions if _wants(each.plugin, read.event_type)]
        samples = [sample.name for plugin in wanting for sample in plugin.samples(read)]
        outcome = "sampled" if samples else "empty" if wanting else "unwanted"
        if times:
            expected.outcomes[outcome] += times
        for name in samples:
            expected.samples[name] += times
    expected.samples = +expected.samples
    return expected


def _times(count: int) -> list[int]:
    whole, rest = divmod(count, len(CAPTURED))
    return [whole + (position < rest) for position in range(len(CAPTURED))]


def _wants(plugin: Any, event_type: str) -> bool:
    return any(fnmatchcase(event_type, pattern) for pattern in plugin.event_types)


def listening(bus: Any, outcomes: Outcomes, clock: Any, batch_seconds: float = 0.0) -> NotificationConsumer:
    return NotificationConsumer(
        decide_now(find([LISTENER]), FakePluginContext()),
        bus,
        keyring(["benchmark"]),
        DeadLetterPublisher(bus, clock),
        source="openstack",
        metrics=outcomes,
        clock=clock,
        batch_seconds=batch_seconds,
    )


def within_the_process(report: Report, options: argparse.Namespace) -> None:
    table = Table("within the process")
    expected = expected_of(options.notifications)
    for _ in range(options.runs):
        bodies = mix(options.notifications)
        begin = time.perf_counter()
        for body in bodies:
            json.loads(json.loads(body)["oslo.message"])
        table.add("reading their JSON", len(bodies) / (time.perf_counter() - begin), "notifications/s")

        bus, outcomes = ConfirmingPublisher(), Outcomes()
        collector = listening(bus, outcomes, Clock())
        begin = time.perf_counter()
        for body in bodies:
            Deferred.fromCoroutine(
                collector.receive(Delivery(body=body, exchange="nova", routing_key="notifications.info"))
            )
        seconds = time.perf_counter() - begin
        table.add("signed and published", len(bodies) / seconds, "notifications/s", "reading their JSON")

        arrived = Arrived()
        for publication in bus.publications:
            if publication.exchange == METERING_EXCHANGE:
                arrived.add(publication.body)
            else:
                arrived.dead_letters += 1
        expected.compare(report, "within the process", outcomes, arrived)
    report.table(table)


async def on_rabbitmq(reactor: Any, report: Report, url: str, options: argparse.Namespace) -> None:
    table = Table("on RabbitMQ")
    expected = expected_of(options.notifications)
    bus = AmqpBus(reactor, url, clock=reactor)
    bus.startService()
    await measuring.until_ready(reactor, bus)
    queues = {
        "samples": (Binding(METERING_EXCHANGE, f"{METERING_EXCHANGE}.#", ours=True),),
        "notifications": (),
        DEAD_LETTER_QUEUE: (),
    }
    for name, bindings in queues.items():
        await take(reactor, bus, Subscription(queue=name, bindings=bindings), _ignore, lambda: 0, 0, options)
    for _ in range(options.runs):
        bodies = mix(options.notifications)
        await publish(bus, bodies)
        taken = AlreadyLocked()
        took = await take(
            reactor,
            bus,
            Subscription(queue="notifications", prefetch=PREFETCH),
            taken.receive,
            taken.count,
            len(bodies),
            options,
        )
        report.compare("notifications taken from RabbitMQ", len(bodies), len(taken.bodies))
        table.add("taken and acknowledged", len(bodies) / took.wall, "notifications/s")
        table.add("processor time to take", took.processor / len(bodies) * 1e6, "µs of a core")

        await publish(bus, bodies)
        outcomes = Outcomes()
        collector = listening(bus, outcomes, reactor, BATCH_SECONDS)
        took = await take(
            reactor,
            bus,
            Subscription(queue="notifications", prefetch=PREFETCH),
            collector.receive,
            lambda outcomes=outcomes: outcomes.total,
            len(bodies),
            options,
        )
        table.add("signed and confirmed", len(bodies) / took.wall, "notifications/s", "taken and acknowledged")
        table.add("its processor time", took.processor / len(bodies) * 1e6, "µs of a core", "processor time to take")

        samples, dead = AlreadyLocked(), AlreadyLocked()
        total = expected.samples.total()
        await take(
            reactor,
            bus,
            Subscription(queue="samples", prefetch=PREFETCH),
            samples.receive,
            samples.samples,
            total,
            options,
        )
        await take(reactor, bus, Subscription(queue=DEAD_LETTER_QUEUE), dead.receive, dead.count, 0, options)
        arrived = Arrived(dead_letters=dead.count())
        for body in samples.bodies:
            arrived.add(body)
        expected.compare(report, "on RabbitMQ", outcomes, arrived)
    await bus.stopService()
    report.table(table)


class AlreadyLocked:
    """Keeps the bodies of what it receives."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self._samples = 0

    async def receive(self, delivery: Delivery) -> None:
        self.bodies.append(delivery.body)
        self._samples += delivery.headers.get("meter-samples", 0)

    def count(self) -> int:
        return len(self.bodies)

    def samples(self) -> int:
        return self._samples


async def _ignore(delivery: Delivery) -> None:
    return None


async def publish(bus: AmqpBus, bodies: Sequence[bytes]) -> None:
    """Put ``bodies`` into the queue of notifications; returns when RabbitMQ has confirmed them."""
    publications = [Publication(exchange="", routing_key="notifications", body=body) for body in bodies]
    for first in range(0, len(publications), PUBLISHED_AT_ONCE):
        batch = publications[first : first + PUBLISHED_AT_ONCE]
        await gatherResults([Deferred.fromCoroutine(bus.publish(each)) for each in batch])


async def take(
    reactor: Any,
    bus: AmqpBus,
    subscription: Subscription,
    receive: Any,
    count: Any,
    expected: int,
    options: argparse.Namespace,
) -> measuring.Took:
    """Consume until ``count()`` is ``expected`` or nothing more comes; return how long it took."""
    consumer = bus.subscribe(subscription, receive)

    async def work() -> None:
        consumer.startService()
        await measuring.until_counted(reactor, count, expected, every=0.01, stalled_seconds=options.stalled_seconds)

    took = await measuring.timed(work())
    # What should not come needs time to come, too.
    await measuring.sleep(reactor, 0.5)
    await consumer.stopService()
    return took


def matching(report: Report, options: argparse.Namespace) -> None:
    """Measure what it takes to make nothing of a notification, with more and more definitions that do not want it."""
    table = Table("definitions that do not match")
    base = json.loads(CAPTURED[0].read_text())["message"]
    known = [notification(base | {"event_type": f"other.{n}"}) for n in range(KNOWN)]
    for run in range(options.runs):
        new = [notification(base | {"event_type": f"never.met.{run}.{n}"}) for n in range(NEW)]
        samples = 0
        for count in (10, 100, 1_000):
            listener = listener_of(count)
            for kind, met in (("known", known * (NEW // KNOWN)), ("new", new)):
                for each in known:
                    list(listener.samples(each))
                begin = time.perf_counter()
                for each in met:
                    samples += len(list(listener.samples(each)))
                microseconds = (time.perf_counter() - begin) / len(met) * 1e6
                first = f"{kind} event types, 10" if count > 10 else None
                table.add(f"{kind} event types, {count}", microseconds, "µs", first)
        report.compare("samples of notifications that no definition matches", 0, samples)
        wanted = notification(base | {"event_type": "service999.thing.made"})
        report.compare("samples of one that a definition matches", 1, len(list(listener.samples(wanted))))
    report.table(table)


def listener_of(count: int) -> DefinedListener:
    """Return a listener with ``count`` definitions."""
    text = "\n".join(
        f'[[meter]]\nname = "m{n}"\nevent_types = ["service{n}.thing.*"]\nunit = "x"\nresource = "$.message_id"\n'
        for n in range(count)
    )
    with measuring.directory() as directory:
        path = directory / "many.toml"
        path.write_text(text)
        return DefinedListener("many", read_definitions(path).definitions, ["openstack"])


async def benchmark(reactor: Any, report: Report, options: argparse.Namespace) -> None:
    report.line(f"notifications in a run: {options.notifications}, of {len(CAPTURED)} kinds")
    within_the_process(report, options)
    report.line()
    with measuring.rabbitmq_server(report) as server:
        await on_rabbitmq(reactor, report, server.vhost(), options)
    matching(report, options)


def main() -> None:
    parser = measuring.with_stall(measuring.parser(__doc__))
    parser.add_argument("--notifications", type=int, default=NOTIFICATIONS, help="in a run (%(default)s)")
    measuring.run(benchmark, parser.parse_args())


if __name__ == "__main__":
    main()
