"""All captured notifications, published by oslo.messaging's notifier on a real RabbitMQ, give samples."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from meter.bus.amqp import AmqpBus
from meter.bus.dead_letters import DeadLetterPublisher
from meter.collector.notifications import NotificationConsumer
from meter.daemon.services import sleep
from meter.interfaces import Binding
from meter.interfaces import Delivery
from meter.interfaces import Subscription
from meter.message import MeteringMessage
from meter.message import read_cast
from meter.plugins.registry import LISTENER
from meter.plugins.registry import decide_now
from meter.plugins.registry import find
from meter.settings import NotificationsSection
from meter.signing_keys import keyring
from meter.testing import FakePluginContext

KEYS = keyring(["secret"])
NOTIFICATIONS = Path(__file__).parents[1] / "data" / "notifications"

NOTIFIERS = """
import json, sys
import oslo_messaging
from oslo_config import cfg
from oslo_context.context import RequestContext

url, driver, *files = sys.argv[1:]
transports = {}
for file in files:
    captured = json.load(open(file))
    exchange, message = captured["exchange"], captured["message"]
    topic, priority = captured["routing_key"].split(".")
    if exchange not in transports:
        oslo_messaging.set_transport_defaults(exchange)
        configuration = cfg.ConfigOpts()
        configuration([])
        transports[exchange] = oslo_messaging.get_notification_transport(configuration, url)
    notifier = oslo_messaging.Notifier(
        transports[exchange], driver=driver, publisher_id=message["publisher_id"], topics=[topic]
    )
    said = {name.removeprefix("_context_"): value for name, value in message.items() if name.startswith("_context_")}
    context = RequestContext.from_dict(said) if said else {}
    getattr(notifier, priority)(context, message["event_type"], message["payload"])
for transport in transports.values():
    transport.cleanup()
"""
"""The services, each with its exchange, in one process of their own."""


class Metrics:
    """Records counts."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()

    def notified(self, event_type: str, outcome: str) -> None:
        self.outcomes[outcome] += 1


class Region:
    """A notification consumer with every listener on a broker, and the samples that it publishes."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.metrics = Metrics()
        self.messages: list[MeteringMessage] = []
        self.bus = AmqpBus(reactor, url, clock=reactor, name="test")
        consumer = NotificationConsumer(
            decide_now(find([LISTENER]), FakePluginContext()),
            self.bus,
            KEYS,
            DeadLetterPublisher(self.bus, reactor),
            source="openstack",
            metrics=self.metrics,
            topics=NotificationsSection().service_topics,
        )
        samples = Subscription(queue="samples", bindings=(Binding("metering", "metering.#", ours=True),))
        self.consumers = [
            self.bus.subscribe(consumer.subscription(), consumer.receive),
            self.bus.subscribe(samples, self._take),
        ]

    async def _take(self, delivery: Delivery) -> None:
        self.messages += read_cast(delivery.body, KEYS)

    async def start(self) -> None:
        self.bus.startService()
        for consumer in self.consumers:
            consumer.startService()
        while not all(each.readiness().ready for each in (self.bus, *self.consumers) if hasattr(each, "readiness")):
            await sleep(reactor, 0.02)

    async def stop(self) -> None:
        for consumer in self.consumers:
            await consumer.stopService()
        await self.bus.stopService()


@pytest_twisted.async_yield_fixture
async def region(rabbitmq: Any) -> AsyncIterator[Region]:
    region = Region(rabbitmq.vhost())
    await region.start()
    yield region
    await region.stop()


async def publish(url: str, driver: str, files: list[str]) -> None:
    arguments = [sys.executable, "-W", "ignore", "-c", NOTIFIERS, url.replace("amqp://", "rabbit://"), driver, *files]
    run = await deferToThread(subprocess.run, arguments, capture_output=True, text=True, timeout=180)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("driver", ["messagingv2", "messaging"])
@pytest_twisted.ensureDeferred
async def test_notifications_of_every_service_give_samples_once(region: Region, driver: str) -> None:
    files = sorted(map(str, NOTIFICATIONS.glob("*.json")))
    await publish(region.url, driver, files)
    while sum(region.metrics.outcomes.values()) < len(files):
        await sleep(reactor, 0.02)
    # Nothing is said by: image.create, select_destinations.start, instance.create.start, create.error and three updates.
    assert region.metrics.outcomes == {"sampled": 39, "unwanted": 2, "empty": 5}
    ids: dict[str, set[str]] = {}
    for message in region.messages:
        ids.setdefault(message.name, set()).add(message.message_id)
    # Eleven notifications of Nova tell eight facts: three are published in both forms.
    assert {name: len(ids[name]) for name in ("instance", "memory", "instance:m1.tiny", "instance:m1.small")} == {
        "instance": 8,
        "memory": 8,
        "instance:m1.tiny": 4,
        "instance:m1.small": 3,
    }
    assert {name: len(ids[name]) for name in ("compute.node.cpu.percent", "compute.instance.booting.time")} == {
        "compute.node.cpu.percent": 1,
        "compute.instance.booting.time": 1,
    }
    assert {name: len(ids[name]) for name in ("volume.size", "image.size", "network", "storage.api.request")} == {
        "volume.size": 4,
        "image.size": 3,
        "network": 2,
        "storage.api.request": 3,
    }
    assert len(ids["identity.authenticate.success"]) == 2
