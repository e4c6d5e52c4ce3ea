"""``explain_notification`` reports exactly the samples that the collector publishes, and the reason where it publishes none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_twisted
from twisted.internet.task import Clock

from meter.bus.dead_letters import DeadLetterPublisher
from meter.bus.dead_letters import header_text
from meter.collector.conversion import NotificationConverter
from meter.collector.explain import explain_notification
from meter.collector.explain import is_received
from meter.collector.notifications import NotificationConsumer
from meter.interfaces import Delivery
from meter.interfaces import Topic
from meter.message import metering_messages
from meter.message import open_envelope
from meter.message import seal
from meter.plugins.registry import LISTENER
from meter.plugins.registry import Decision
from meter.plugins.registry import find
from meter.signing_keys import keyring
from meter.units import older_name
from tests.unit.collector.test_notifications import Bus
from tests.unit.collector.test_notifications import FakeListener
from tests.unit.collector.test_notifications import Metrics
from tests.unit.collector.test_notifications import active
from tests.unit.collector.test_notifications import gauge

KEYS = keyring(["secret"])
CAPTURED = sorted((Path(__file__).parents[2] / "data" / "notifications").glob("*.json"))
INSTALLED = [active(decision.plugin) for decision in find([LISTENER])]


def content(path: Path) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(path.read_text())["message"]
    return message


class Collector:
    """Consumer and explanation with the same listeners and settings."""

    def __init__(self, decisions: list[Decision], **settings: Any) -> None:
        self.bus, self.metrics = Bus(), Metrics()
        settings = {"source": "test", "unit_name": older_name, **settings}
        dead_letters = DeadLetterPublisher(self.bus, Clock())
        self.consumer = NotificationConsumer(decisions, self.bus, KEYS, dead_letters, metrics=self.metrics, **settings)
        self.converter = NotificationConverter(decisions, KEYS, **settings)

    async def agree(self, body: bytes) -> str:
        """Consume and explain ``body``; return the outcome after checking that both did the same."""
        self.bus.published.clear()
        self.metrics.notifications.clear()
        explanation = explain_notification(body, self.converter)
        await self.consumer.receive(Delivery(body=body, exchange="openstack", routing_key="notifications.info"))
        converted = [message for each in explanation.definitions for message in each.messages]
        assert sorted(map(_decoded, converted)) == sorted(map(_decoded, self.published()))
        assert [(each.kind, header_text(each.reason)) for each in explanation.conversion.rejections] == [
            (letter.headers["meter-kind"], letter.headers["meter-reason"]) for letter in self.bus.dead
        ]
        [(_, outcome)] = self.metrics.notifications
        assert explanation.conversion.outcome == outcome
        return outcome

    def published(self) -> list[dict[str, Any]]:
        batches = [publication for publication in self.bus.published if publication.exchange == "metering"]
        return [message for batch in batches for message in metering_messages(open_envelope(batch.body))]


def _decoded(message: Any) -> str:
    """Return a message as text with sorted members: signed metadata may be encoded JSON."""
    return json.dumps(msgspec.json.decode(msgspec.json.encode(message)), sort_keys=True)


@pytest.mark.parametrize("path", CAPTURED, ids=lambda path: path.stem)
@pytest_twisted.ensureDeferred
async def test_explanation_of_a_captured_notification_is_what_the_collector_publishes(path: Path) -> None:
    assert await Collector(INSTALLED).agree(seal(content(path))) in ("sampled", "empty", "unwanted")


@pytest_twisted.ensureDeferred
async def test_explanation_of_a_second_notification_of_one_fact_has_the_time_of_the_first() -> None:
    collector = Collector(INSTALLED)
    message = content(CAPTURED[0].with_name("nova.compute.instance.power_off.end.json"))
    times = set()
    for second in (0, 7):
        body = seal(message | {"timestamp": f"2026-11-22 16:00:0{second}.000000"})
        assert await collector.agree(body) == "sampled"
        times |= {each["timestamp"] for each in collector.published()}
    assert times == {"2026-11-22T16:00:00"}


def yield_one_then_fail() -> Any:
    yield gauge("good")
    raise ValueError("second thoughts")


@pytest.mark.parametrize(
    ("made", "outcome"),
    [
        ([gauge("a"), gauge("b")], "sampled"),
        ([], "empty"),
        (None, "dead"),
        (yield_one_then_fail, "dead"),
        ([gauge()] * 3, "dead"),
        ([gauge(resource_metadata={"a": "\ud800"})], "dead"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_explanation_of_a_failing_listener_is_what_the_collector_does(made: Any, outcome: str) -> None:
    body = json.dumps(
        {"message_id": "1", "event_type": "a.b", "timestamp": "2026-11-22 12:00:00", "payload": {}}
    ).encode()
    listeners = [active(FakeListener("first", made)), active(FakeListener("other", [gauge("other")], ["a.*"]))]
    collector = Collector(listeners if outcome != "empty" else listeners[:1], max_samples=2)
    assert await collector.agree(body) == outcome


@pytest.mark.parametrize("body", [b"", b"[" * 5000, b"{}", b"\xff"])
@pytest_twisted.ensureDeferred
async def test_explanation_of_a_body_that_cannot_be_parsed_is_its_dead_letter(body: bytes) -> None:
    assert await Collector(INSTALLED).agree(body) == "dead"


@pytest_twisted.ensureDeferred
async def test_explanation_knows_ignored_users_and_disabled_meters() -> None:
    message = content(CAPTURED[0].with_name("swift.objectstore.http.request.3.json"))
    user = message["payload"]["initiator"]["id"]
    assert await Collector(INSTALLED, ignored_users=[user]).agree(seal(message)) == "ignored"
    without_requests = [
        active(each.plugin, meters_off=("storage.api.*",)) for each in INSTALLED if each.name == "swift.objectstore"
    ]
    collector = Collector(without_requests)
    assert await collector.agree(seal(message)) == "sampled"
    converted = explain_notification(seal(message), collector.converter).definitions
    assert [message["counter_name"] for each in converted for message in each.messages] == [
        "storage.objects.incoming.bytes"
    ]
    assert "storage.api.request is disabled" in [each.reason for each in converted]


def test_inactive_listener_that_wants_the_event_type_is_named_with_its_state() -> None:
    disabled = Decision(kind=LISTENER, name="off", origin="x", state="disabled", plugin=FakeListener("off", []))
    other = Decision(kind=LISTENER, name="no", origin="x", state="disabled", plugin=FakeListener("no", [], ["z.*"]))
    message = content(CAPTURED[0])
    converter = NotificationConverter([], KEYS, source="test")
    assert explain_notification(seal(message), converter, [disabled, other]).inactive == (("off", "disabled"),)


@pytest.mark.parametrize(
    ("routing_key", "received"),
    [("notifications.info", True), ("notifications.error", False), ("versioned.info", False)],
)
def test_message_is_received_where_a_topic_matches(routing_key: str, received: bool) -> None:
    assert is_received("nova", routing_key, [Topic("nova")]) == received
    assert not is_received("glance", routing_key, [Topic("nova")])
