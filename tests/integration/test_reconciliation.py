"""Reconciliation hears on a real RabbitMQ what agents send to the collector, and leaves nothing there."""

from __future__ import annotations

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import Clock

from meter.casting import casts
from meter.interfaces import Binding
from meter.interfaces import IBus
from meter.interfaces import Subscription
from meter.openstack import IOpenStack
from meter.pollsters.openstack.reconciliation import ReconciliationOptions
from meter.pollsters.openstack.reconciliation import ReconciliationPollster
from meter.services import sleep
from meter.testing import FakeCycle
from tests.openstack_stub import captured_cloud
from tests.openstack_stub import document
from tests.openstack_stub import openstack
from tests.waiting import until

SAMPLES = Subscription(queue="meter.metering", bindings=(Binding("metering", "metering.#", ours=True),))


@pytest_twisted.ensureDeferred
async def test_what_agents_send_is_held_against_what_nova_lists(rabbitmq, amqp_bus):
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
    cycle = FakeCycle({IOpenStack: openstack(captured_cloud(), Clock()), IBus: agent}, clock=reactor)
    assert list(await pollster.poll(cycle)) == []
    await sleep(reactor, 1.7)  # half the window is left for what was measured before to arrive
    metered = [*active[1:], "unknown"]
    for publication in casts([{"counter_name": "instance", "resource_id": each} for each in metered]):
        await collecting.publish(publication)
    await until(lambda: stored)

    samples = []

    async def ended():
        samples.extend(await pollster.poll(cycle.following()))
        return bool(samples)

    while not await ended():
        await sleep(reactor, 0.1)
    found = {each.name.rpartition(".")[2]: each.resource_metadata["ids"] for each in samples}
    assert found == {"ghosts": ["unknown"], "misses": active[:1]}
    await until(
        lambda: "meter.reconciliation" not in rabbitmq.ctl("list_queues", "-q", "-p", url.rpartition("/")[2], "name")
    )
    await collector.stopService()
