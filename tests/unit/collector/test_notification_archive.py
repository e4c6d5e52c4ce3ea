"""Unwanted notifications are archived with masked secrets, and requests of ignored users are not metered."""

from __future__ import annotations

import json
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from meter.bus.dead_letters import DeadLetterPublisher
from meter.collector.notification_archive import ARCHIVE_QUEUE
from meter.collector.notification_archive import Archive
from meter.collector.notifications import NotificationConsumer
from meter.interfaces import Delivery
from meter.interfaces import Unavailable
from meter.listeners.swift import objectstore_listener
from meter.message import open_envelope
from meter.settings import NotificationsSection
from tests.unit.collector.test_notifications import KEYS
from tests.unit.collector.test_notifications import NOTIFICATIONS
from tests.unit.collector.test_notifications import Bus
from tests.unit.collector.test_notifications import Metrics
from tests.unit.collector.test_notifications import active
from tests.unit.collector.test_notifications import bare
from tests.unit.collector.test_notifications import captured


class Counts(list[str]):
    """The counted outcomes, in order."""


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture
def counts() -> Counts:
    return Counts()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def consumer(bus: Bus, counts: Counts, metrics: Metrics) -> NotificationConsumer:
    archive = Archive(bus, NotificationsSection().archive_event_types, counts.append)
    return NotificationConsumer(
        [active(objectstore_listener)],
        bus,
        KEYS,
        DeadLetterPublisher(bus, Clock()),
        source="openstack",
        metrics=metrics,
        archive=archive,
        ignored_users=["meter"],
    )


@pytest_twisted.ensureDeferred
async def test_unwanted_notification_is_archived_with_its_origin(
    consumer: NotificationConsumer, bus: Bus, counts: Counts, metrics: Metrics
) -> None:
    said = captured("compute.instance.exists.1")
    await consumer.receive(said)
    [kept] = bus.published
    assert (kept.exchange, kept.routing_key) == ("", ARCHIVE_QUEUE)
    assert kept.headers == {
        "meter-exchange": "nova",
        "meter-routing-key": "notifications.info",
        "meter-event-type": "compute.instance.exists",
        **({"meter-masked": True} if kept.body != said.body else {}),
    }
    assert open_envelope(kept.body)["payload"] == open_envelope(said.body)["payload"]
    assert counts == ["kept"]
    assert metrics.notifications == [("compute.instance.exists", "unwanted")]


@pytest_twisted.ensureDeferred
async def test_archived_notification_has_its_secrets_masked(consumer: NotificationConsumer, bus: Bus) -> None:
    await consumer.receive(
        bare("compute.instance.create.start", {"adminPass": "hunter2"}, _context_auth_token="gAAAAx")
    )
    [kept] = bus.published
    assert b"hunter2" not in kept.body
    assert b"gAAAAx" not in kept.body
    assert kept.headers["meter-masked"] is True


@pytest_twisted.ensureDeferred
async def test_notification_of_another_type_or_with_a_listener_is_not_archived(
    consumer: NotificationConsumer, bus: Bus
) -> None:
    await consumer.receive(bare("scheduler.select_destinations.start", {}))
    swift = json.loads((NOTIFICATIONS / "swift.objectstore.http.request.1.json").read_text())["message"]
    await consumer.receive(bare(swift["event_type"], swift["payload"]))
    assert not [each for each in bus.published if each.routing_key == ARCHIVE_QUEUE]
    assert bus.messages


@pytest_twisted.ensureDeferred
async def test_notification_is_requeued_if_the_archive_does_not_confirm(
    consumer: NotificationConsumer, bus: Bus
) -> None:
    bus.answers = [Unavailable("the broker is away")]
    with pytest.raises(Unavailable):
        await consumer.receive(captured("compute.instance.exists.1"))


@pytest_twisted.ensureDeferred
async def test_notification_that_the_broker_refuses_is_counted(
    consumer: NotificationConsumer, bus: Bus, counts: Counts, metrics: Metrics
) -> None:
    bus.answers = [ValueError("a publication has too many bytes")]
    await consumer.receive(captured("compute.instance.exists.1"))
    assert counts == ["refused"]
    assert metrics.notifications == [("compute.instance.exists", "unwanted")]


@pytest.mark.parametrize(
    ("headers", "outcome"),
    [({"x-first-death-reason": "expired"}, "dropped_age"), ({"x-first-death-reason": "maxlen"}, "dropped_length")],
)
@pytest_twisted.ensureDeferred
async def test_notification_dropped_from_the_archive_is_counted(
    bus: Bus, counts: Counts, headers: dict[str, Any], outcome: str
) -> None:
    archive = Archive(bus, ["*"], counts.append)
    await archive.dropped(Delivery(body=b"", exchange="", routing_key="x", headers=headers))
    assert counts == [outcome]


@pytest.mark.parametrize(("user", "outcome"), [("meter", "ignored"), ("ann", "sampled"), (None, "sampled")])
@pytest_twisted.ensureDeferred
async def test_request_of_an_ignored_user_is_not_metered(
    consumer: NotificationConsumer, bus: Bus, metrics: Metrics, user: str | None, outcome: str
) -> None:
    swift = json.loads((NOTIFICATIONS / "swift.objectstore.http.request.1.json").read_text())["message"]
    swift["payload"]["initiator"]["id"] = user
    await consumer.receive(bare(swift["event_type"], swift["payload"]))
    assert metrics.notifications == [("objectstore.http.request", outcome)]
    assert bool(bus.published) == (outcome == "sampled")


@pytest.mark.parametrize("payload", [None, [], {}, {"initiator": "meter"}, {"initiator": {"id": ["meter"]}}])
@pytest_twisted.ensureDeferred
async def test_request_of_any_form_is_accepted(consumer: NotificationConsumer, metrics: Metrics, payload: Any) -> None:
    await consumer.receive(bare("objectstore.http.request", payload))
    assert metrics.notifications[0][1] != "ignored"
