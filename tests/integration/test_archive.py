"""The archive on a real RabbitMQ: limited, dropped notifications are counted, archived ones can be replayed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor

from meter.bus.dead_letters import DeadLetterPublisher
from meter.collector.notification_archive import ARCHIVE_QUEUE
from meter.collector.notification_archive import DROPPED_QUEUE
from meter.collector.notification_archive import Archive
from meter.collector.notifications import NOTIFICATIONS_QUEUE
from meter.collector.notifications import NotificationConsumer
from meter.commands.command import EXIT_OK
from meter.commands.command import CommandError
from meter.commands.replay_archive import replay_archive
from meter.interfaces import Binding
from meter.interfaces import BoundedQueue
from meter.interfaces import Delivery
from meter.interfaces import Subscription
from meter.listeners.cinder import volume_listener
from meter.message import open_envelope
from meter.message import seal
from meter.plugins.registry import LISTENER
from meter.plugins.registry import Decision
from meter.signing_keys import keyring
from tests.waiting import until

pytestmark = pytest.mark.timeout(90)

CAPTURED = json.loads((Path(__file__).parents[1] / "data/notifications/openstack.volume.resize.end.json").read_text())[
    "message"
]


class Metrics:
    def notified(self, event_type, outcome):
        pass


@pytest.fixture
def collector(amqp_bus):
    """Starts a consumer with an archive of ``most`` messages for ``seconds``; returns bus, consumer and counts."""

    async def collector(url, listeners=(), *, most=3, seconds=3600.0):
        bounds = BoundedQueue(name=ARCHIVE_QUEUE, max_messages=most, max_seconds=seconds, dropped=DROPPED_QUEUE)
        bus, counts = amqp_bus(url, bounded=(bounds,)), Counter()

        def count(outcome):
            counts[outcome] += 1

        archive = Archive(bus, ["volume.*"], count)
        consumer = NotificationConsumer(
            [Decision(kind=LISTENER, name=each.name, origin="test", state="active", plugin=each) for each in listeners],
            bus,
            keyring(["secret"]),
            DeadLetterPublisher(bus, reactor),
            source="openstack",
            metrics=Metrics(),
            archive=archive,
        )
        bus.subscribe(archive.subscription(), archive.dropped).startService()
        await until(lambda: bus.readiness().ready)
        return bus, consumer, counts

    return collector


def said(number):
    body = seal(CAPTURED | {"message_id": f"m{number}", "_context_auth_token": "gAAAAABsecret"})
    return Delivery(body=body, exchange="openstack", routing_key="notifications.info")


@pytest_twisted.ensureDeferred
async def test_archive_drops_and_counts_the_oldest_and_replays_the_others(rabbitmq, collector, capsys):
    url = rabbitmq.vhost()
    bus, consumer, counts = await collector(url)
    for number in range(5):
        await consumer.receive(said(number))
    await until(lambda: counts == {"kept": 5, "dropped_length": 2})

    assert await replay_archive(reactor, url, event_type="*", limit=None, only_list=True) == EXIT_OK
    assert capsys.readouterr().out.splitlines()[-1] == "3 of 3 notifications listed"

    received = []

    async def take(delivery):
        received.append(delivery)

    bus.subscribe(Subscription(queue=NOTIFICATIONS_QUEUE), take).startService()
    await until(lambda: bus.readiness().ready)
    assert await replay_archive(reactor, url, event_type="volume.*", limit=2, only_list=False) == EXIT_OK
    await until(lambda: len(received) == 2)
    assert [open_envelope(each.body)["message_id"] for each in received] == ["m2", "m3"]
    assert all(b"gAAAAABsecret" not in each.body for each in received)
    assert {(each.headers["meter-exchange"], each.headers["meter-replayed"]) for each in received} == {("openstack", 1)}

    assert await replay_archive(reactor, url, event_type="image.*", limit=None, only_list=False) == EXIT_OK
    assert capsys.readouterr().out.splitlines()[-1] == "0 of 1 notification replayed"

    # With a listener, the missed samples are made.
    samples = []

    async def measure(delivery):
        samples.append(delivery)

    metering = Binding("metering", "metering.#", ours=True)
    bus.subscribe(Subscription(queue="samples", bindings=(metering,)), measure).startService()
    await until(lambda: bus.readiness().ready)
    _, new_consumer, _ = await collector(url, [volume_listener])
    await new_consumer.receive(received[0])
    await until(lambda: samples)
    assert counts["kept"] == 5


@pytest_twisted.ensureDeferred
async def test_archive_drops_and_counts_expired_notifications(rabbitmq, collector):
    _, consumer, counts = await collector(rabbitmq.vhost(), seconds=0.2)
    await consumer.receive(said(1))
    await until(lambda: counts == {"kept": 1, "dropped_age": 1})


@pytest_twisted.ensureDeferred
async def test_archive_that_was_never_enabled_is_empty(rabbitmq, capsys):
    assert await replay_archive(reactor, rabbitmq.vhost(), event_type="*", limit=None, only_list=False) == EXIT_OK
    assert capsys.readouterr().out == "0 of 0 notifications replayed\n"


@pytest_twisted.ensureDeferred
async def test_replay_without_a_broker_is_an_error():
    with pytest.raises(CommandError, match="should be the URL of a broker"):
        await replay_archive(reactor, "local:", event_type="*", limit=None, only_list=False)
