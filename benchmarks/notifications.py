"""How fast one collector turns notifications into signed samples that RabbitMQ has confirmed.

The captured mix of seven services (``tests/data/notifications``), each time with ids of its own, goes through every
built-in listener: decode, match, make, mask, sign, publish, wait for the confirms, acknowledge. First within the
process on a bus that confirms at once, then on a real RabbitMQ that shares the processors, with the queue filled
beforehand. Then what matching costs with 10, 100 and 1 000 definitions installed, for event types that were heard
before and for ones that never were.

    .venv/bin/python -m benchmarks.notifications [NOTIFICATIONS]

Seen on a machine of two cores that others were using too: see docs/notifications.rst.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
import time
import uuid
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults
from twisted.internet.task import Clock
from twisted.internet.task import react
from zope.interface import implementer

from meter.bus.amqp import AmqpBus
from meter.bus.dead_letters import DeadLetterPublisher
from meter.collector.notifications import NotificationConsumer
from meter.daemon.services import sleep
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
from meter.signature import keyring
from meter.testing import FakePluginContext
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.rabbitmq import installed

NOTIFICATIONS = 6_000
PREFETCH = 1_000
"""As ``[notifications] prefetch`` has it."""
CAPTURED = sorted(Path(__file__).parents[1].glob("tests/data/notifications/*.json"))


@implementer(IPublisher)
class Confirming:
    """Confirms at once; counts."""

    def __init__(self):
        self.published = 0

    async def publish(self, publication):
        self.published += 1


class Account:
    def __init__(self):
        self.heard = 0

    def notified(self, event_type, outcome):
        self.heard += 1


def mix(count):
    """Return bodies of ``count`` notifications with the exchange and key they are published with."""
    captured = [json.loads(path.read_text()) for path in CAPTURED]
    made = []
    for each in itertools.islice(itertools.cycle(captured), count):
        own = {"message_id": str(uuid.uuid4())}
        if "_context_request_id" in each["message"]:
            own["_context_request_id"] = f"req-{uuid.uuid4()}"
        made.append((each["exchange"], each["routing_key"], seal(each["message"] | own)))
    return made


def listening(bus, account, clock, batch_seconds=0.0):
    keys = keyring(["benchmark"])
    decisions = decide_now(find([LISTENER]), FakePluginContext())
    return NotificationConsumer(
        decisions,
        bus,
        keys,
        DeadLetterPublisher(bus, clock),
        source="openstack",
        metrics=account,
        clock=clock,
        batch_seconds=batch_seconds,
    )


def within_the_process(count):
    bus, account = Confirming(), Account()
    ear = listening(bus, account, Clock())
    deliveries = [Delivery(body=body, exchange=to, routing_key=key) for to, key, body in mix(count)]
    began = time.perf_counter()
    for delivery in deliveries:
        Deferred.fromCoroutine(ear.receive(delivery))
    seconds = time.perf_counter() - began
    assert account.heard == count
    print(f"within the process: {count / seconds:,.0f} notifications/s, {bus.published / seconds:,.0f} casts/s")
    return count / seconds


async def on_a_broker(reactor, count):
    with tempfile.TemporaryDirectory() as directory:
        server = RabbitMQ(installed(), Path(directory))
        try:
            server.start()
            return await _on(reactor, server.url, count)
        finally:
            server.stop()
            server.close()


async def _on(reactor, url, count):
    bus = AmqpBus(reactor, url, clock=reactor)
    account = Account()
    ear = listening(bus, account, reactor, batch_seconds=0.05)
    bus.startService()
    samples = bus.subscribe(
        Subscription(queue="samples", bindings=(Binding("metering", "metering.#", ours=True),)), _keep
    )
    # Bind both queues, then let go: what is published waits in them.
    for consumer in (
        samples,
        bus.subscribe(Subscription(queue="waiting", bindings=ear.subscription().bindings), _keep),
    ):
        consumer.startService()
        await sleep(reactor, 2)
        await consumer.stopService()
    publications = [Publication(exchange="", routing_key="waiting", body=body) for _, _, body in mix(count)]
    for first in range(0, count, 500):
        await gatherResults([Deferred.fromCoroutine(bus.publish(each)) for each in publications[first : first + 500]])
    consumer = bus.subscribe(Subscription(queue="waiting", prefetch=PREFETCH), ear.receive)
    began, cpu = time.perf_counter(), time.process_time()
    consumer.startService()
    while account.heard < count:
        await sleep(reactor, 0.01)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    await consumer.stopService()
    await bus.stopService()
    print(f"on RabbitMQ: {count / seconds:,.0f} notifications/s confirmed; {cpu / count * 1e6:.0f} µs of a core each")
    return count / seconds


async def _keep(delivery):
    return None


def matching():
    """Print what it takes to make nothing of a notification, with more and more definitions that do not want it."""
    base = json.loads(CAPTURED[0].read_text())["message"]
    first = None
    for count in (10, 100, 1_000):
        text = "\n".join(
            f'[[meter]]\nname = "m{n}"\nevent_types = ["service{n}.thing.*"]\nunit = "x"\nresource = "$.payload.id"\n'
            for n in range(count)
        )
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "many.toml"
            path.write_text(text)
            file = read_definitions(path)
        listener = DefinedListener("many", file.definitions, ["openstack"])
        known = [notification(base | {"event_type": f"other.{n}"}) for n in range(100)]
        new = [notification(base | {"event_type": f"never.heard.{n}"}) for n in range(5_000)]
        times = []
        for heard in (known * 50, new):
            for each in known:
                list(listener.samples(each))
            began = time.perf_counter()
            for each in heard:
                list(listener.samples(each))
            times.append((time.perf_counter() - began) / len(heard) * 1e6)
        first = first or times
        print(
            f"{count:>5} definitions: {times[0]:.2f} µs for a known event type ({times[0] / first[0]:.2f}×), "
            f"{times[1]:.2f} µs for a new one ({times[1] / first[1]:.2f}×)"
        )


async def main(reactor):
    count = int(sys.argv[1]) if len(sys.argv) > 1 else NOTIFICATIONS
    alone = within_the_process(count)
    real = await on_a_broker(reactor, count)
    print(f"the broker's share: {alone / real:.1f}×; asked for: {real / 2_000:.2f}× of 2,000 notifications/s")
    matching()


if __name__ == "__main__":
    react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
