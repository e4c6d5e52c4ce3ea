"""Reconciliation observes the samples of agents on a real RabbitMQ and leaves no queue behind."""

from __future__ import annotations

import pytest_twisted
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread

from meter.bus.batches import batch_publications
from meter.interfaces import Binding
from meter.interfaces import IBus
from meter.interfaces import Subscription
from meter.openstack import IOpenStack
from meter.outgoing import OutgoingMessage
from meter.pollsters.openstack.reconciliation import ReconciliationOptions
from meter.pollsters.openstack.reconciliation import ReconciliationPollster
from meter.testing import FakeCycle
from tests.openstack_stub import captured_cloud
from tests.openstack_stub import document
from tests.openstack_stub import openstack
from tests.waiting import until

SAMPLES = Subscription(queue="meter.metering", bindings=(Binding("metering", "metering.#", ours=True),))


@pytest_twisted.ensureDeferred
async def test_samples_on_the_bus_are_compared_with_novas_list(rabbitmq, amqp_bus):
    stored = []

    async def store(delivery):
        stored.append(delivery.body)

    url = rabbitmq.vhost()
    collecting, agent = amqp_bus(url), amqp_bus(url)
    collector = collecting.subscribe(SAMPLES, store)
    collector.startService()
    await until(lambda: collecting.readiness().ready and agent.readiness().ready)

    servers = document("nova-01-servers-detail-all-2.1")["servers"]
    active = [each["id"] for each in servers if each["status"] == "ACTIVE"]
    assert len(active) > 1
    options = ReconciliationOptions(window_seconds=3.0, kinds=("instance",))
    pollster = ReconciliationPollster().configured(options)
    clock = Clock()
    cycle = FakeCycle({IOpenStack: openstack(captured_cloud(), Clock()), IBus: agent}, clock=clock)

    async def queues():
        """Consumers and messages of each queue, by its name."""
        text = await deferToThread(
            rabbitmq.ctl, "list_queues", "-p", url.rpartition("/")[2], "name", "consumers", "messages"
        )
        rows = (line.split() for line in text.splitlines())
        return {name: (int(consumers), int(messages)) for name, consumers, messages in rows if messages.isdigit()}

    assert list(await pollster.poll(cycle)) == []
    while not any(
        name.startswith("meter.reconciliation") and consumers for name, (consumers, _) in (await queues()).items()
    ):
        pass
    clock.advance(1.7)  # samples of the first half of the window are ignored
    metered = [*active[1:], "unknown"]
    for publication in batch_publications(
        [OutgoingMessage({"counter_name": "instance", "resource_id": each}, None) for each in metered]
    ):
        await collecting.publish(publication)
    while any(messages for _, messages in (await queues()).values()):
        pass
    assert stored
    clock.advance(1.4)

    samples = list(await pollster.poll(cycle.following()))
    found = {each.name.rpartition(".")[2]: each.resource_metadata["ids"] for each in samples}
    assert found == {"ghosts": ["unknown"], "misses": active[:1]}
    while any(name.startswith("meter.reconciliation") for name in await queues()):
        pass
    await collector.stopService()
