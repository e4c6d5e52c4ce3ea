"""The notification consumer on a shared broker: exchanges may appear later, and other consumers miss nothing."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor

from meter.bus.amqp.channel import NOT_FOUND
from meter.bus.amqp.channel import ChannelLost
from meter.bus.dead_letters import DeadLetterPublisher
from meter.collector.notifications import NotificationConsumer
from meter.daemon.services import sleep
from meter.interfaces import Binding
from meter.interfaces import Publication
from meter.interfaces import Subscription
from meter.interfaces import Topic
from meter.message import seal
from meter.plugins.registry import LISTENER
from meter.plugins.registry import decide_now
from meter.plugins.registry import find
from meter.signing_keys import keyring
from meter.testing import FakePluginContext
from tests.waiting import published
from tests.waiting import until

CAPTURED = json.loads((Path(__file__).parents[1] / "data/notifications/openstack.volume.resize.end.json").read_text())[
    "message"
]
REBIND_SECONDS = 0.2


class Metrics:
    def __init__(self):
        self.received = Counter()

    def notified(self, event_type, outcome):
        self.received[outcome] += 1


@pytest.fixture
def start_consumer(amqp_bus):
    """Starts a notification consumer on a broker; returns its metrics."""

    async def start_consumer(url, exchange, *, create_foreign_exchanges):
        bus = amqp_bus(url, create_foreign_exchanges=create_foreign_exchanges, rebind_seconds=REBIND_SECONDS)
        metrics = Metrics()
        volumes = [each for each in decide_now(find([LISTENER]), FakePluginContext()) if each.name == "cinder.volume"]
        consumer = NotificationConsumer(
            volumes,
            bus,
            keyring(["secret"]),
            DeadLetterPublisher(bus, reactor),
            source="openstack",
            metrics=metrics,
            topics=[Topic(exchange)],
        )
        samples = Subscription(queue="samples", bindings=(Binding("metering", "metering.#", ours=True),))
        bus.subscribe(samples, _drop).startService()
        bus.subscribe(consumer.subscription(), consumer.receive).startService()
        await until(lambda: bus.readiness().ready)
        return metrics

    return start_consumer


async def _drop(delivery):
    """Acknowledge without doing anything."""


def said(number, exchange="", routing_key="notifications.info"):
    return Publication(exchange=exchange, routing_key=routing_key, body=seal(CAPTURED | {"message_id": f"{number}"}))


@pytest_twisted.ensureDeferred
async def test_exchange_created_later_is_bound(rabbitmq, start_consumer, amqp_bus, amqp_client):
    url = rabbitmq.vhost()
    metrics = await start_consumer(url, "late", create_foreign_exchanges=False)
    client = await amqp_client(url)
    await sleep(reactor, 2 * REBIND_SECONDS)
    # The collector has looked for it, and has not made it.
    with pytest.raises(ChannelLost) as refused:
        async with client.temporary_channel(2) as channel:
            await channel.exchange_declare(exchange="late", passive=True)
    assert refused.value.code == NOT_FOUND

    # The service starts, in its own way: an exchange that is not durable.
    async with client.temporary_channel(2) as channel:
        await channel.exchange_declare(exchange="late", type="topic")
    service = amqp_bus(url)
    await until(lambda: service.readiness().ready)
    await published(service, said(1, "late"))

    await until(lambda: metrics.received["sampled"] == 1)


@pytest.mark.parametrize("create_foreign_exchanges", [True, False])
@pytest_twisted.ensureDeferred
async def test_other_consumer_still_receives_every_notification(
    rabbitmq, start_consumer, amqp_bus, amqp_client, create_foreign_exchanges
):
    url = rabbitmq.vhost()
    client = await amqp_client(url)
    # As a service and another consumer of its notifications have them: oslo.messaging's queue is named as its topic.
    async with client.temporary_channel(2) as channel:
        await channel.exchange_declare(exchange="openstack", type="topic")
        await channel.queue_declare(queue="notifications.info")
        await channel.queue_bind(queue="notifications.info", exchange="openstack", routing_key="notifications.info")
    metrics = await start_consumer(url, "openstack", create_foreign_exchanges=create_foreign_exchanges)
    service = amqp_bus(url)
    await until(lambda: service.readiness().ready)

    for number in range(50):
        await service.publish(said(number, "openstack"))

    await until(lambda: metrics.received["sampled"] == 50)
    async with client.temporary_channel(2) as channel:
        declared = await channel.queue_declare(queue="notifications.info", passive=True)
    assert (declared.message_count, declared.consumer_count) == (50, 0)
