"""Notifications published by oslo.messaging's notifier on a real RabbitMQ give samples, in either format."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from collections.abc import Callable
from datetime import UTC
from datetime import datetime
from datetime import timedelta
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
from meter.listeners.nova import instance_listener
from meter.message import MeteringMessage
from meter.message import open_envelope
from meter.message import read_cast
from meter.plugins.registry import LISTENER
from meter.plugins.registry import Decision
from meter.signing_keys import keyring

KEYS = keyring(["secret"])
NOTIFICATIONS = Path(__file__).parents[1] / "data" / "notifications"

NOTIFIER = """
import json, sys
import oslo_messaging
from oslo_config import cfg

url, driver, event_type = sys.argv[1:]
oslo_messaging.set_transport_defaults("nova")
configuration = cfg.ConfigOpts()
configuration([])
transport = oslo_messaging.get_notification_transport(configuration, url)
notifier = oslo_messaging.Notifier(transport, driver=driver, publisher_id="compute.host1", topics=["notifications"])
notifier.info({"auth_token": "gAAAAABsecret"}, event_type, json.load(sys.stdin))
transport.cleanup()
"""
"""A service such as Nova, in a process of its own: oslo.messaging patches what it runs in."""


async def notify(url: str, driver: str, event_type: str, payload: Any) -> None:
    """Publish one notification with the real notifier."""
    arguments = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        NOTIFIER,
        url.replace("amqp://", "rabbit://"),
        driver,
        event_type,
    ]
    run = await deferToThread(
        subprocess.run, arguments, input=json.dumps(payload), capture_output=True, text=True, timeout=180
    )
    assert run.returncode == 0, run.stderr


async def until(condition: Callable[[], bool]) -> None:
    """Wait for ``condition``; the test's time limit ends it."""
    while not condition():
        await sleep(reactor, 0.02)


class Metrics:
    """Records counts."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[str, str]] = []

    def notified(self, event_type: str, outcome: str) -> None:
        self.outcomes.append((event_type, outcome))


class Region:
    """A notification consumer on a broker, and the samples that it publishes."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.metrics = Metrics()
        self.messages: list[MeteringMessage] = []
        self.dead: list[Delivery] = []
        self.bus = AmqpBus(reactor, url, clock=reactor, name="test")
        decision = Decision(
            kind=LISTENER, name="nova.instance", origin="test", state="active", plugin=instance_listener
        )
        dead_letters = DeadLetterPublisher(self.bus, reactor)
        consumer = NotificationConsumer(
            [decision], self.bus, KEYS, dead_letters, source="openstack", metrics=self.metrics
        )
        samples = Subscription(queue="samples", bindings=(Binding("metering", "metering.#", ours=True),))
        self._consumers = [
            self.bus.subscribe(consumer.subscription(), consumer.receive),
            self.bus.subscribe(samples, self._take),
            self.bus.subscribe(Subscription(queue="metering.dead"), self._bury),
        ]

    async def _take(self, delivery: Delivery) -> None:
        self.messages += read_cast(delivery.body, KEYS)

    async def _bury(self, delivery: Delivery) -> None:
        self.dead.append(delivery)

    async def start(self) -> None:
        self.bus.startService()
        for consumer in self._consumers:
            consumer.startService()
        await until(lambda: self.bus.readiness().ready)

    async def stop(self) -> None:
        for consumer in self._consumers:
            await consumer.stopService()
        await self.bus.stopService()


@pytest_twisted.async_yield_fixture
async def region(rabbitmq: Any) -> AsyncIterator[Region]:
    region = Region(rabbitmq.vhost())
    await region.start()
    yield region
    await region.stop()


def payload(name: str, **changes: Any) -> Any:
    content = json.loads((NOTIFICATIONS / f"nova.compute.instance.{name}.json").read_text())
    return content["message"]["payload"] | changes


@pytest.mark.parametrize("driver", ["messagingv2", "messaging"])
@pytest_twisted.ensureDeferred
async def test_created_instance_gives_five_samples(region: Region, driver: str) -> None:
    await notify(region.url, driver, "compute.instance.create.end", payload("create.end", display_name="Zoë 日本 🚀"))
    await until(lambda: len(region.messages) == 5)
    volumes = {message.name: (message.type, message.unit, message.volume) for message in region.messages}
    assert volumes == {
        "instance": ("gauge", "instance", 1),
        "memory": ("gauge", "MiB", 64),
        "vcpus": ("gauge", "vcpu", 1),
        "disk.root.size": ("gauge", "GiB", 1),
        "disk.ephemeral.size": ("gauge", "GiB", 0),
    }
    for message in region.messages:
        assert message.user_id == "4cc236f0eb364412abb1024bc6ffbdf3"
        assert message.project_id == "b6e8cc20ee9c457e83f13218eca89c43"
        assert message.resource_id == "1dc390e9-43cd-451d-9ae7-01c8bbbe4cac"
        assert message.metadata["display_name"] == "Zoë 日本 🚀"
        assert message.metadata["flavor"]["name"] == "m1.tiny"
        assert message.metadata["host"] == "host1"
        assert message.metadata["user_metadata"] == {"stack": "s1"}
        assert abs(message.timestamp - datetime.now(UTC)) < timedelta(minutes=2)
    assert region.metrics.outcomes == [("compute.instance.create.end", "sampled")]


@pytest_twisted.ensureDeferred
async def test_misunderstood_notification_is_dead_lettered_without_its_secrets(region: Region) -> None:
    await notify(
        region.url, "messagingv2", "compute.instance.exists", payload("exists.1", memory_mb="much", adminPass="hunter2")
    )
    await until(lambda: len(region.dead) == 1)
    (letter,) = region.dead
    assert letter.headers["meter-reason"] == "payload.memory_mb must be a number from 0 to 2**63 - 1, not 'much'"
    assert letter.headers["meter-listener"] == "nova.instance"
    assert (letter.headers["meter-exchange"], letter.headers["meter-routing-key"]) == ("nova", "notifications.info")
    assert b"hunter2" not in letter.body
    assert b"gAAAAABsecret" not in letter.body
    assert open_envelope(letter.body)["payload"]["display_name"] == "walk-6b031417"
    assert "memory" not in {message.name for message in region.messages}
