"""A notification is published as signed samples, counted as giving none, or dead-lettered."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from collections.abc import Iterable
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from meter.bus.dead_letters import DeadLetterPublisher
from meter.collector.notifications import NotificationConsumer
from meter.interfaces import Binding
from meter.interfaces import Delivery
from meter.interfaces import IListener
from meter.interfaces import IPublisher
from meter.interfaces import Publication
from meter.interfaces import Subscription
from meter.interfaces import Topic
from meter.interfaces import Unavailable
from meter.listeners.nova import instance_listener
from meter.message import MeteringMessage
from meter.message import read_cast
from meter.notification import Notification
from meter.plugins.registry import LISTENER
from meter.plugins.registry import Decision
from meter.sample import Sample
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey
from meter.signing_keys import keyring

NOTIFICATIONS = Path(__file__).parents[2] / "data" / "notifications"
KEYS = keyring(["secret"])
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@implementer(IPublisher)
class Bus:
    """Records publications; ``answers`` are raised or awaited, one for each publication."""

    def __init__(self) -> None:
        self.published: list[Publication] = []
        self.answers: list[Exception | Deferred[None]] = []

    async def publish(self, publication: Publication) -> None:
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        if answer is not None:
            await answer
        self.published.append(publication)

    @property
    def dead(self) -> list[Publication]:
        return [publication for publication in self.published if publication.routing_key == "metering.dead"]

    @property
    def messages(self) -> list[MeteringMessage]:
        """The published metering messages, in order, verified."""
        messages = []
        for publication in self.published:
            if publication.exchange == "metering":
                messages += read_cast(publication.body, KEYS)
                assert publication.routing_key == f"metering.{messages[-1].name}"
        return messages


class Metrics:
    def __init__(self) -> None:
        self.notifications: list[tuple[str, str]] = []

    def notified(self, event_type: str, outcome: str) -> None:
        self.notifications.append((event_type, outcome))


@implementer(IListener)
class FakeListener:
    """Returns, or calls, ``made``."""

    meters = ()
    options = None

    def __init__(self, name: str, made: Any, event_types: Iterable[str] = ("*",), topics: Iterable[Topic] = ()) -> None:
        self.name = name
        self.made = made
        self.event_types = tuple(event_types)
        self.topics = tuple(topics)
        self.received: list[Notification] = []

    def configured(self, options: Any) -> Any:
        return self

    async def enabled(self, context: Any) -> Any:
        raise NotImplementedError

    def samples(self, notification: Notification) -> Any:
        self.received.append(notification)
        return self.made() if callable(self.made) else self.made


def gauge(name: str = "m", **fields: Any) -> Sample:
    return Sample(
        **{"name": name, "type": "gauge", "unit": "B", "volume": 1, "resource_id": "r", "timestamp": NOON, **fields}
    )


def active(listener: Any, meters_off: tuple[str, ...] = ()) -> Decision:
    return Decision(
        kind=LISTENER, name=listener.name, origin="test", state="active", plugin=listener, meters_off=meters_off
    )


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


MakeConsumer = Callable[..., NotificationConsumer]


@pytest.fixture
def consumer(bus: Bus, metrics: Metrics) -> MakeConsumer:
    def make(*listeners: Any, keys: Keyring = KEYS, **arguments: Any) -> NotificationConsumer:
        decisions = [listener if isinstance(listener, Decision) else active(listener) for listener in listeners]
        dead_letters = DeadLetterPublisher(bus, Clock())
        return NotificationConsumer(
            decisions, bus, keys, dead_letters, source="openstack", metrics=metrics, **arguments
        )

    return make


def delivery(body: bytes) -> Delivery:
    return Delivery(body=body, exchange="nova", routing_key="notifications.info")


def bare(event_type: str = "a.b", payload: Any = None, **more: Any) -> Delivery:
    content = {"message_id": "n1", "event_type": event_type, "timestamp": "2026-11-22 12:00:00", "payload": payload}
    return delivery(json.dumps(content | more).encode())


def captured(name: str, *, enveloped: bool = True) -> Delivery:
    content = json.loads((NOTIFICATIONS / f"nova.{name}.json").read_text())["message"]
    if enveloped:
        content = {"oslo.version": "2.0", "oslo.message": json.dumps(content)}
    return delivery(json.dumps(content).encode())


# --- samples ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("enveloped", [True, False])
@pytest_twisted.ensureDeferred
async def test_created_instance_gives_five_signed_samples(
    consumer: MakeConsumer, bus: Bus, metrics: Metrics, enveloped: bool
) -> None:
    await consumer(instance_listener).receive(captured("compute.instance.create.end", enveloped=enveloped))
    assert [(message.name, message.volume, message.unit) for message in bus.messages] == [
        ("instance", 1, "instance"),
        ("memory", 64, "MiB"),
        ("vcpus", 1, "vcpu"),
        ("disk.root.size", 1, "GiB"),
        ("disk.ephemeral.size", 0, "GiB"),
    ]
    for message in bus.messages:
        assert message.resource_id == "1dc390e9-43cd-451d-9ae7-01c8bbbe4cac"
        assert message.user_id == "4cc236f0eb364412abb1024bc6ffbdf3"
        assert message.project_id == "b6e8cc20ee9c457e83f13218eca89c43"
        assert message.source == "openstack"
        assert message.metadata["display_name"] == "qemu-kept-6b031417"
        assert message.timestamp == datetime(2026, 11, 22, 16, 11, 24, tzinfo=UTC), "its launch"
    assert metrics.notifications == [("compute.instance.create.end", "sampled")]


@pytest_twisted.ensureDeferred
async def test_a_notification_that_comes_again_gives_the_same_samples(consumer: MakeConsumer, bus: Bus) -> None:
    for _ in range(3):
        await consumer(instance_listener).receive(captured("compute.instance.exists.1"))
    assert len(bus.messages) == 15
    assert len({message.message_id for message in bus.messages}) == 5


@pytest_twisted.ensureDeferred
async def test_the_ids_of_a_listener_do_not_depend_on_the_others(consumer: MakeConsumer, bus: Bus) -> None:
    good, bad = FakeListener("good", [gauge()]), FakeListener("bad", [gauge(), 1])
    await consumer(good, bad).receive(bare())
    await consumer(bad, good).receive(bare())
    await consumer(good).receive(bare())
    assert len({message.message_id for message in bus.messages}) == 1


@pytest_twisted.ensureDeferred
async def test_samples_of_one_meter_and_resource_have_different_ids(consumer: MakeConsumer, bus: Bus) -> None:
    await consumer(FakeListener("twice", [gauge(), gauge()])).receive(bare())
    assert len({message.message_id for message in bus.messages}) == 2


@pytest_twisted.ensureDeferred
async def test_samples_of_one_meter_share_casts_of_limited_size(consumer: MakeConsumer, bus: Bus) -> None:
    samples = [gauge(resource_id=str(n)) for n in range(5)]
    await consumer(FakeListener("many", samples), batch_samples=2).receive(bare())
    assert len(bus.published) == 3
    assert [message.resource_id for message in bus.messages] == ["0", "1", "2", "3", "4"]


@pytest_twisted.ensureDeferred
async def test_disabled_meter_is_not_published(consumer: MakeConsumer, bus: Bus, metrics: Metrics) -> None:
    create = captured("compute.instance.create.end")
    await consumer(active(instance_listener, meters_off=("disk.*", "vcpus"))).receive(create)
    assert [message.name for message in bus.messages] == ["instance", "memory"]
    await consumer(active(instance_listener, meters_off=("*",))).receive(create)
    assert [outcome for _, outcome in metrics.notifications] == ["sampled", "empty"]


@pytest_twisted.ensureDeferred
async def test_sample_is_signed_with_the_key_of_its_time(consumer: MakeConsumer, bus: Bus) -> None:
    keys = Keyring([SigningKey("old", b"old", not_after=NOON), SigningKey("new", b"new", not_before=NOON)])
    await consumer(FakeListener("one", [gauge()]), keys=keys).receive(bare())
    (message,) = read_cast(bus.published[0].body, keys)
    assert (message.key_id, message.scheme) == ("new", "meter")


# --- subscriptions ------------------------------------------------------------------------------------------------


def test_topic_of_several_listeners_is_bound_once(consumer: MakeConsumer) -> None:
    nova, glance, errors = Topic("nova"), Topic("glance"), Topic("nova", "notifications.error")
    first, second = FakeListener("1", [], topics=[nova, errors]), FakeListener("2", [], topics=[glance, nova])
    assert consumer(first, second).subscription("q", prefetch=7) == Subscription(
        queue="q",
        bindings=(
            Binding("nova", "notifications.info"),
            Binding("nova", "notifications.error"),
            Binding("glance", "notifications.info"),
        ),
        prefetch=7,
    )
    assert consumer().subscription().queue == "meter.notifications"


@pytest.mark.parametrize(
    ("patterns", "event_type", "received"),
    [
        (["compute.instance.*"], "compute.instance.create.end", True),
        (["compute.instance.*"], "compute.instances", False),
        (["image.upload", "image.delete"], "image.delete", True),
        (["image.upload"], "image.uploaded", False),
        (["image.upload"], "my.image.upload", False),
        (["image.upload"], "image.upload\n", False),
        (["IMAGE.*"], "image.upload", False),
        (["*"], "größe", True),
        ([], "anything", False),
        (["*a*a*a*a*a*a*a*a*a*b"], "a" * 255, False),
    ],
)
@pytest_twisted.ensureDeferred
async def test_listener_receives_the_event_types_that_it_wants(
    consumer: MakeConsumer, patterns: list[str], event_type: str, received: bool
) -> None:
    listener = FakeListener("one", [], event_types=patterns)
    await consumer(listener).receive(bare(event_type))
    assert bool(listener.received) == received


@pytest_twisted.ensureDeferred
async def test_unwanted_notification_is_counted_by_event_type(
    consumer: MakeConsumer, bus: Bus, metrics: Metrics
) -> None:
    await consumer(instance_listener).receive(bare("image.upload"))
    assert metrics.notifications == [("image.upload", "unwanted")]
    assert bus.published == []


@pytest_twisted.ensureDeferred
async def test_notification_without_samples_is_counted_as_empty(
    consumer: MakeConsumer, bus: Bus, metrics: Metrics
) -> None:
    await consumer(instance_listener).receive(captured("compute.instance.create.start"))
    assert metrics.notifications == [("compute.instance.create.start", "empty")]
    assert bus.published == []


# --- acknowledgement ---------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_notification_is_acknowledged_after_every_confirm(consumer: MakeConsumer, bus: Bus) -> None:
    confirms: list[Deferred[None]] = [Deferred(), Deferred()]
    bus.answers = [*confirms]
    received = Deferred.fromCoroutine(consumer(FakeListener("two", [gauge("a"), gauge("b")])).receive(bare()))
    confirms[1].callback(None)
    assert not received.called
    confirms[0].callback(None)
    assert received.called
    await received


@pytest_twisted.ensureDeferred
async def test_notification_without_a_confirm_is_requeued(consumer: MakeConsumer, bus: Bus, metrics: Metrics) -> None:
    late: Deferred[None] = Deferred()
    bus.answers = [Unavailable("the bus: away"), late]
    received = Deferred.fromCoroutine(consumer(FakeListener("two", [gauge("a"), gauge("b")])).receive(bare()))
    assert not received.called  # the other publication is not left behind
    late.callback(None)
    with pytest.raises(Unavailable):
        await received
    assert metrics.notifications == []


@pytest_twisted.ensureDeferred
async def test_notification_with_a_cancelled_publication_is_requeued(consumer: MakeConsumer, bus: Bus) -> None:
    bus.answers = [Deferred()]
    received = Deferred.fromCoroutine(consumer(FakeListener("one", [gauge()])).receive(bare()))
    received.cancel()
    with pytest.raises(Unavailable):
        await received


@pytest_twisted.ensureDeferred
async def test_cancelled_notification_is_requeued_whatever_becomes_of_its_samples(
    consumer: MakeConsumer, bus: Bus
) -> None:
    bus.answers = [first := Deferred(), second := Deferred()]
    listeners = FakeListener("one", [gauge("a")]), FakeListener("two", [gauge("b")])
    received = Deferred.fromCoroutine(consumer(*listeners).receive(bare()))
    received.cancel()
    with pytest.raises(Unavailable):
        await received
    first.callback(None)
    second.errback(Unavailable("the bus: away"))


@pytest_twisted.ensureDeferred
async def test_notification_is_requeued_if_its_dead_letter_is_not_confirmed(consumer: MakeConsumer, bus: Bus) -> None:
    bus.answers = [Unavailable("the bus: away")]
    with pytest.raises(Unavailable):
        await consumer().receive(delivery(b"rubbish"))


@pytest_twisted.ensureDeferred
async def test_unpublishable_samples_are_dead_lettered(consumer: MakeConsumer, bus: Bus, metrics: Metrics) -> None:
    bus.answers = [ValueError("the body has 17 MiB, at most 16 are allowed")]
    await consumer(FakeListener("two", [gauge("a"), gauge("b")])).receive(bare())
    assert [message.name for message in bus.messages] == ["b"]
    assert bus.dead[0].headers["meter-reason"] == "samples for metering.a: the body has 17 MiB, at most 16 are allowed"
    assert metrics.notifications == [("a.b", "dead")]


# --- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "body is not JSON"),
        (b"\xff\xfe", "body is not JSON"),
        (b"[]", "body must be a JSON object"),
        (b"[" * 100_000, "body is not JSON"),
        (b'{"a": nan}', "body is not JSON"),
        (b"{}", "message_id"),
        (b'{"oslo.version": "3.0", "oslo.message": "{}"}', "envelope version must be 2.x"),
        (b'{"oslo.version": "2.0", "oslo.message": "{"}', "oslo.message is not JSON"),
        (b'{"message_id": "1", "event_type": "a", "timestamp": "noon", "payload": {}}', "timestamp"),
        (b'{"message_id": "1", "event_type": "a", "timestamp": "2026-01-01"}', "payload"),
        (b'{"message_id": "1", "event_type": 7, "timestamp": "2026-01-01", "payload": 1}', "event_type"),
        (bare("x" * 10_000).body, "event_type must have at most 255 characters, not 10000"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_body_that_is_not_a_notification_is_dead_lettered(
    consumer: MakeConsumer, bus: Bus, metrics: Metrics, body: bytes, reason: str
) -> None:
    await consumer(instance_listener).receive(delivery(body))
    (letter,) = bus.published
    assert reason in str(letter.headers["meter-reason"])
    assert letter.headers["meter-kind"] == "undecodable"
    assert letter.headers["meter-exchange"] == "nova"
    assert letter.body == body
    assert metrics.notifications == [("unknown", "dead")]


def raising(error: Exception) -> Callable[[], Any]:
    def raise_it() -> Any:
        raise error

    return raise_it


def raising_after_one() -> Iterable[Sample]:
    yield gauge()
    raise ValueError("second thoughts")


class Unspeakable(ValueError):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("made", "kind", "reason"),
    [
        (raising(ValueError("payload.x must be a number, not 'y'")), "misunderstood", "payload.x must be a number"),
        (raising(KeyError("x")), "listener", "KeyError: 'x'"),
        (raising(Unspeakable()), "misunderstood", "Unspeakable"),
        (lambda: gauge(volume=float("nan")), "misunderstood", "volume of m must be a finite number"),
        (None, "listener", "TypeError: 'NoneType' object is not iterable"),
        (7, "listener", "TypeError: 'int' object is not iterable"),
        ("text", "listener", "TypeError: samples() must give Samples, not str"),
        ([gauge(), {"name": "x"}], "listener", "TypeError: samples() must give Samples, not dict"),
        (lambda: itertools.repeat(gauge()), "misunderstood", "more than 50 samples of one notification"),
        ([gauge("\ud800")], "misunderstood", "surrogates not allowed"),
        ([gauge(resource_metadata={"a": "\ud800"})], "unsignable", "the message cannot be signed"),
        ([gauge(resource_metadata={"a": {1, 2}, "b": object()})], "unsignable", "the message cannot be signed"),
        (lambda: [gauge(volume=10**5000)], "misunderstood", "not an integer of 16610 bits"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_failing_listener_does_not_affect_others(
    consumer: MakeConsumer, bus: Bus, metrics: Metrics, made: Any, kind: str, reason: str
) -> None:
    bad, good = FakeListener("bad", made), FakeListener("good", [gauge("kept")])
    await consumer(bad, good, max_samples=50).receive(bare(payload={"adminPass": "hunter2", "x": "y"}))
    assert [message.name for message in bus.messages] == ["kept"]
    (letter,) = bus.dead
    assert reason in str(letter.headers["meter-reason"])
    assert letter.headers["meter-kind"] == kind
    assert letter.headers["meter-listener"] == "bad"
    assert letter.headers["meter-event-type"] == "a.b"
    assert json.loads(letter.body)["payload"] == {"adminPass": "***", "x": "y"}
    assert metrics.notifications == [("a.b", "dead")]


@pytest_twisted.ensureDeferred
async def test_samples_yielded_before_a_value_error_are_published(
    consumer: MakeConsumer, bus: Bus, metrics: Metrics
) -> None:
    await consumer(FakeListener("partly", raising_after_one)).receive(bare())
    assert [message.name for message in bus.messages] == ["m"]
    assert bus.dead[0].headers["meter-reason"] == "second thoughts"
    assert metrics.notifications == [("a.b", "dead")]


@pytest_twisted.ensureDeferred
async def test_secrets_in_metadata_are_masked(consumer: MakeConsumer, bus: Bus) -> None:
    metadata = {"key_name": "mine", "adminPass": "hunter2", "note": "gAAAAABm" + "x" * 40, "deep": [{"api_key": "k"}]}
    await consumer(FakeListener("open", [gauge(resource_metadata=metadata)])).receive(bare())
    assert bus.messages[0].metadata == {
        "key_name": "mine",
        "adminPass": "***",
        "note": "***",
        "deep": [{"api_key": "***"}],
        "_meter": {"may_differ": ["timestamp"]},
    }


@pytest_twisted.ensureDeferred
async def test_samples_that_no_key_covers_are_dead_lettered(consumer: MakeConsumer, bus: Bus) -> None:
    keys = Keyring([SigningKey("old", b"old", not_after=NOON)])
    await consumer(FakeListener("late", [gauge()]), keys=keys).receive(bare())
    assert "key old does not cover 2026-11-22T12:00:00" in str(bus.dead[0].headers["meter-reason"])


@pytest_twisted.ensureDeferred
async def test_token_in_a_dead_lettered_notification_is_masked(consumer: MakeConsumer, bus: Bus) -> None:
    listener = FakeListener("scheduler", raising(ValueError("no")), event_types=["scheduler.*"])
    await consumer(listener).receive(captured("scheduler.select_destinations.start"))
    assert b"gAAAA" not in bus.dead[0].body
    assert b"select_destinations" in bus.dead[0].body


# --- any input -----------------------------------------------------------------------------------------------------

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=50)
    | st.sampled_from(["\0", "64", "2026-11-22T12:00:00", "x" * 100_000])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=10), inner, max_size=5),
    max_leaves=10,
)
FIELDS = ("instance_id", "user_id", "tenant_id", "memory_mb", "vcpus", "root_gb", "image_meta", "metadata")
PAYLOADS = VALUES | st.builds(
    lambda changes: json.loads(captured("compute.instance.exists.1", enveloped=False).body)["payload"] | changes,
    st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=3),
)
CONTENTS = st.builds(
    lambda content, payload: content | {"payload": payload},
    st.fixed_dictionaries(
        {
            "message_id": st.text(min_size=1) | VALUES,
            "event_type": st.sampled_from(["compute.instance.exists", "image.upload"]) | VALUES,
            "timestamp": st.sampled_from(["2026-11-22 12:00:00", "0001-01-01T00:00:00+14:00", "9999-12-31"]) | VALUES,
            "publisher_id": VALUES,
        }
    ),
    PAYLOADS,
)
BODIES = st.one_of(
    CONTENTS.map(lambda content: json.dumps(content).encode()),
    CONTENTS.map(lambda content: json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(content)}).encode()),
    st.tuples(CONTENTS, st.integers(0, 2000), st.binary(max_size=4)).map(
        lambda parts: json.dumps(parts[0]).encode()[: parts[1]] + parts[2]
    ),
    st.integers(1, 3000).map(
        lambda depth: bare("compute.instance.exists").body.replace(b"null", b'{"a":' * depth + b"[1]" + b"}" * depth)
    ),
    st.binary(),
)


@settings(max_examples=200, deadline=None)
@given(BODIES)
def test_any_body_is_published_counted_or_dead_lettered(body: bytes) -> None:
    bus, metrics = Bus(), Metrics()
    dead_letters = DeadLetterPublisher(bus, Clock())
    consumer = NotificationConsumer(
        [active(instance_listener)], bus, KEYS, dead_letters, source="openstack", metrics=metrics
    )
    received = Deferred.fromCoroutine(consumer.receive(delivery(body)))
    assert received.result is None
    ((_, outcome),) = metrics.notifications
    assert len(bus.dead) == (outcome == "dead")
    # Samples yielded before an error are published, and the notification is dead-lettered as well.
    assert {"sampled": len(bus.messages) > 0, "dead": True}.get(outcome, not bus.messages)
