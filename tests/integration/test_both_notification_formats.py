"""With Nova's ``notification_format = both`` every event is stored once: captured pairs, on a real PostgreSQL."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from zope.interface import implementer

from meter.bus.dead_letters import DeadLetterPublisher
from meter.collector.notifications import NotificationConsumer
from meter.interfaces import Delivery
from meter.interfaces import IPublisher
from meter.message import read_cast
from meter.plugins.registry import LISTENER
from meter.plugins.registry import decide_now
from meter.plugins.registry import find
from meter.query import SampleFilter
from meter.signing_keys import keyring
from meter.store import PostgresStore
from meter.testing import FakePluginContext
from meter.testing import MemoryStore
from tests.waiting import until

KEYS = keyring(["secret"])
NOTIFICATIONS = Path(__file__).parents[1] / "data" / "notifications"
PAIRS = [
    ("nova.compute.instance.create.end", "nova-versioned.instance.create.end", 7),
    ("nova.compute.instance.delete.end", "nova-versioned.instance.delete.end", 6),
    ("nova.compute.instance.exists.1", "nova-versioned.instance.exists", 6),
    ("nova.compute.metrics.update", "nova-versioned.metrics.update", 10),
]
"""Pairs of notifications of one event, and the number of its samples."""


def captured(name, **changes):
    content = json.loads((NOTIFICATIONS / f"{name}.json").read_text())["message"]
    return content | changes


def stopped_in_the_versioned_form():
    """Return a versioned notification of ``power_off``, which was not captured, made from another one."""
    published = captured("nova.compute.instance.power_off.end")
    twin = copy.deepcopy(captured("nova-versioned.instance.create.end"))
    said = published["payload"]
    data = twin["payload"]["nova_object.data"]
    data |= {"uuid": said["instance_id"], "state": said["state"], "launched_at": "2026-11-22T16:11:41Z"}
    # Over the edge of a second, so that no rounding could make the times agree.
    times = {"event_type": "instance.power_off.end", "timestamp": "2026-11-22 16:12:54.000200"}
    return published, twin | times | {"_context_request_id": published["_context_request_id"]}


@implementer(IPublisher)
class Outbox:
    """Records publications."""

    def __init__(self):
        self.bodies = []

    async def publish(self, publication):
        self.bodies.append(publication.body)

    def messages(self):
        for body in self.bodies:
            yield from read_cast(body, KEYS)


class Metrics:
    def notified(self, event_type, outcome):
        assert outcome == "sampled", event_type


@pytest.fixture(params=["memory", "postgresql"])
def store(request):
    if request.param == "memory":
        yield MemoryStore(reactor)
        return
    dsn = request.getfixturevalue("postgresql").dsn_with_schema()
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=1, writers=1)
    store.startService()
    pytest_twisted.blockon(Deferred.fromCoroutine(until(lambda: store.readiness().ready)))
    yield store
    pytest_twisted.blockon(store.stopService())


async def received(*notifications):
    """Return the metering messages that a collector makes of ``notifications``."""
    outbox = Outbox()
    listeners = decide_now(find([LISTENER]), FakePluginContext())
    consumer = NotificationConsumer(
        listeners, outbox, KEYS, DeadLetterPublisher(outbox, reactor), source="openstack", metrics=Metrics()
    )
    for each in notifications:
        body = json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(each)}).encode()
        await consumer.receive(Delivery(body=body, exchange="nova", routing_key="notifications.info"))
    return list(outbox.messages())


@pytest.mark.parametrize(("unversioned", "versioned", "samples"), PAIRS)
@pytest_twisted.ensureDeferred
async def test_two_collectors_receiving_one_format_each_store_each_event_once(store, unversioned, versioned, samples):
    for name in (unversioned, versioned):
        result = await store.write(await received(captured(name)))
        assert not result.refused
    rows = await store.samples(SampleFilter(), 100)
    assert len(rows) == samples
    for row in rows:
        assert (await store.sample(row.message_id, SampleFilter())) == row


@pytest_twisted.ensureDeferred
async def test_event_without_a_time_in_its_payloads_is_stored_once(store):
    result = await store.write(await received(*stopped_in_the_versioned_form()))
    assert (result.stored, result.duplicates, result.refused) == (6, 6, ())
    assert {row.timestamp.isoformat() for row in await store.samples(SampleFilter(), 100)} == {
        "2026-11-22T16:12:53.186721+00:00"
    }


@pytest_twisted.ensureDeferred
async def test_formats_may_arrive_in_any_order(store):
    for pair in (PAIRS[0], PAIRS[2]):
        await store.write(await received(captured(pair[1]), captured(pair[0])))
    assert len(await store.samples(SampleFilter(), 100)) == PAIRS[0][2] + PAIRS[2][2]
