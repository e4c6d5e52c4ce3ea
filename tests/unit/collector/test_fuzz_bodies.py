"""Any message is stored, counted as a duplicate, or dead-lettered with a reason, and the counts add up."""

from __future__ import annotations

import json
from typing import Any

import pytest
import pytest_twisted
from hypothesis import example
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

import meter.collector.samples
from meter.bus.dead_letters import DeadLetterPublisher
from meter.bus.dead_letters import header_text
from meter.bus.dead_letters import parse_dead_letter
from meter.ceilometer_signature import BadSignature
from meter.ceilometer_signature import signature
from meter.collector.notifications import NotificationConsumer
from meter.collector.samples import SAMPLES_PER_TURN
from meter.collector.samples import SampleConsumer
from meter.daemon.metrics import CollectingMetrics
from meter.daemon.metrics import exposition
from meter.daemon.metrics import metrics_registry
from meter.interfaces import Delivery
from meter.listeners.nova import instance_listener
from meter.message import BadMessage
from meter.message import NotFinite
from meter.message import metering_messages
from meter.message import open_envelope
from meter.query import SampleFilter
from meter.query import WriteResult
from meter.signing_keys import SCHEMES
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey
from meter.testing import MemoryStore
from tests.unit.collector.test_notifications import Bus
from tests.unit.collector.test_notifications import Metrics
from tests.unit.collector.test_notifications import active
from tests.unit.collector.test_notifications import delivery
from tests.unit.collector.test_samples import DeadQueue
from tests.unit.collector.test_samples import message

SECRET = SigningKey("key-1", b"secret", schemes=SCHEMES)
STRICT = Keyring([SECRET])
LENIENT = Keyring([SECRET], accept_unsigned=True)


class Collector:
    """A sample consumer with store and dead letters in memory, and its metrics."""

    def __init__(self, keys: Keyring = STRICT, store: Any = None, **limits: Any) -> None:
        self.clock = Clock()
        self.store = store or MemoryStore(self.clock)
        self.dead = DeadQueue()
        self.registry = metrics_registry("test")
        metrics = CollectingMetrics(self.registry)
        self.intake = SampleConsumer(
            self.store,
            keys,
            DeadLetterPublisher(self.dead, self.clock, count=metrics.dead),
            self.clock,
            metrics=metrics,
            **{"batch_samples": 1000, "batch_seconds": 0.05, **limits},
        )

    def take(self, body: bytes) -> None:
        """Deliver ``body``; it must neither fail nor be requeued."""
        done = Deferred.fromCoroutine(
            self.intake.receive(Delivery(body=body, exchange="metering", routing_key="metering.x"))
        )
        for _ in range(2000):
            if done.called:
                break
            self.clock.advance(0.05)
        assert done.result is None

    def counted(self, outcome: str) -> int:
        return int(self.registry.get_sample_value("meter_collected_samples_total", {"outcome": outcome}) or 0)

    @property
    def dead_letters(self) -> list[Any]:
        return [parse_dead_letter(each.headers, each.body) for each in self.dead.dead_letters]


def accounted(collector: Collector, body: bytes) -> None:
    """Check that every sample of ``body``, or ``body`` itself, is in exactly one place, and that the metrics agree."""
    try:
        entries = metering_messages(open_envelope(body))
    except BadMessage:
        entries = None
    collector.take(body)

    dead_letters = collector.dead_letters
    assert all(each.reason and each.kind and each.id for each in dead_letters)
    assert all(len(str(value)) <= 500 for each in dead_letters for value in each.headers.values())
    if entries is None:
        assert [each.kind for each in dead_letters] in (["undecodable"], ["too-complex"])
        assert collector.counted("stored") == 0
        return
    refused = sum(each.samples for each in dead_letters if each.kind == "unstorable")
    dead = sum(each.samples for each in dead_letters)
    assert collector.counted("stored") + collector.counted("duplicate") + dead == len(entries)
    assert len(dead_letters) <= 2 * len({each.kind for each in dead_letters}), (
        "one for each kind, or two if one is masked"
    )
    assert collector.counted("refused") == refused
    assert {each.kind for each in dead_letters} <= {
        "invalid",
        "unverified",
        "unstorable",
        "conflict",
        "too-complex",
    }
    exposition(collector.registry)  # which fails for a label that cannot be encoded


# --- bodies that other programs may send ---------------------------------------------------------------------------

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(max_size=20)
    | st.text(st.characters(), max_size=5)
    | st.sampled_from(["\0", "\ud800", "x" * 600, 10**400, -(10**400), NotFinite("nan"), "1" * 70])
    | st.sampled_from(
        [
            "2026-11-22T17:00:59",
            "2026-11-22T17:00:59+14:00",
            "0001-01-01T00:00:00",
            "0001-01-01T00:00:00+14:00",
            "9999-12-31T23:59:59.999999",
            "9999-12-31T23:59:59-14:00",
            "10000-01-01T00:00:00",
            "-0001-01-01T00:00:00",
        ]
    )
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
FIELDS = [*message(), "extra"]


def signed(fields: dict[str, Any]) -> dict[str, Any]:
    """Sign what can be signed, so that more than the first check is tested."""
    try:
        return {**fields, "message_signature": signature(fields, b"secret")}
    except BadSignature:
        return fields


CHANGED = st.builds(
    lambda number, changes, missing: {
        name: value for name, value in (message(number) | changes).items() if name not in missing
    },
    st.integers(1, 5),
    st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=2),
    st.sets(st.sampled_from(FIELDS), max_size=1),
)
ENTRIES = CHANGED | CHANGED.map(signed) | st.integers(1, 5).map(message) | JSON
BATCHES = st.lists(ENTRIES, max_size=5)


def body_of(data: Any, wrapped: bool = True, **more: Any) -> bytes:
    content = json.dumps({"method": "record_metering_data", "args": {"data": data}, **more})
    return (json.dumps({"oslo.version": "2.0", "oslo.message": content}) if wrapped else content).encode()


BODIES = st.one_of(
    st.builds(body_of, BATCHES, st.booleans()),
    st.builds(body_of, JSON, st.booleans(), _meter_key_id=JSON),
    st.builds(
        lambda payload, event_type: json.dumps({"event_type": event_type, "payload": payload}).encode(),
        st.builds(lambda batch: {"samples": batch}, BATCHES) | JSON,
        st.sampled_from(["telemetry.polling", "telemetry.api", "metering", "metering.cpu"]) | JSON,
    ),
    st.builds(lambda version, inner: json.dumps({"oslo.version": version, "oslo.message": inner}).encode(), JSON, JSON),
    # A good body with some bytes lost and others in their place.
    st.builds(
        lambda at, gone, put: (
            (good := body_of([message(1), message(2)]))[: at % len(good)] + put + good[at % len(good) + gone :]
        ),
        st.integers(0, 2000),
        st.integers(0, 5),
        st.binary(max_size=4),
    ),
    st.binary(max_size=100),
)


def raw(old: str, new: str) -> bytes:
    """Return a cast of a good sample and one whose JSON was edited."""
    text = json.dumps(message(2))
    assert old in text
    return body_of([message(1), "HERE"], wrapped=False).replace(b'"HERE"', text.replace(old, new, 1).encode())


VOLUME, METADATA, TIME = '"counter_volume": 2', '"resource_metadata": {}', '"2026-11-22T17:00:59"'
SPECIALS = {
    "invalid UTF-8": raw('"p"', '"HALF"').replace(b"HALF", b"\xff"),
    "invalid UTF-8 in an envelope": b'{"oslo.version": "2.0", "oslo.message": "{\\"a\\": \\"\xff\\"}"}',
    "deep nesting": raw(METADATA, '"resource_metadata": ' + '{"a":' * 900 + "1" + "}" * 900),
    "deeper nesting": raw(METADATA, '"resource_metadata": ' + '{"a":' * 50_000 + "1" + "}" * 50_000),
    "deep lists": raw(METADATA, '"resource_metadata": {"a": ' + "[" * 900 + "]" * 900 + "}"),
    "nothing but brackets": b"[" * 1_000_000,
    "duplicate keys": raw(VOLUME, '"counter_volume": 7, "counter_volume": 2'),
    "duplicate keys, forged": raw(METADATA, '"resource_metadata": {}, "counter_volume": 7'),
    "NaN": raw(VOLUME, '"counter_volume": NaN'),
    "NaN in metadata": raw(METADATA, '"resource_metadata": {"a": NaN}'),
    "-Infinity": raw(VOLUME, '"counter_volume": -Infinity'),
    "1e400": raw(VOLUME, '"counter_volume": 1e400'),
    "an integer of 400 digits": raw(VOLUME, '"counter_volume": ' + "9" * 400),
    "an integer of 400 digits in metadata": raw(METADATA, '"resource_metadata": {"a": ' + "9" * 400 + "}"),
    "an integer of 5000 digits": raw(VOLUME, '"counter_volume": ' + "9" * 5000),
    "NUL in an id": raw('"r"', '"r\\u0000"'),
    "NUL in metadata": raw(METADATA, '"resource_metadata": {"a\\u0000": 1}'),
    "half a surrogate pair": raw('"r"', '"r\\ud800"'),
    "half a surrogate pair in the message_id": raw('"00000000-', '"\\udc00-'),
    "half a surrogate pair in metadata": raw(METADATA, '"resource_metadata": {"\\udfff": "\\ud800"}'),
    "a time without zone": raw(TIME, '"2026-11-22 17:00:59"'),
    "a time with an offset": raw(TIME, '"2026-11-22T17:00:59+05:30"'),
    "a time in year 1": raw(TIME, '"0001-01-01T00:00:00"'),
    "a time before year 1": raw(TIME, '"0001-01-01T00:00:00+01:00"'),
    "a time in year 9999": raw(TIME, '"9999-12-31T23:59:59.999999"'),
    "a time after year 9999": raw(TIME, '"9999-12-31T23:59:59-01:00"'),
    "an empty batch": body_of([]),
    "nothing": b"",
    "a time that is no time": raw(TIME, "[]"),
}


@pytest.mark.parametrize("keys", [STRICT, LENIENT], ids=["strict", "unsigned accepted"])
@pytest.mark.parametrize("special", SPECIALS)
def test_special_body_is_stored_or_dead_lettered(special: str, keys: Keyring) -> None:
    accounted(Collector(keys), SPECIALS[special])


UNDECODABLE = ("invalid UTF-8", "deeper nesting", "an integer of 5000 digits")
"""Special values that make the whole body undecodable."""

NEIGHBOURS = [
    name
    for name, body in SPECIALS.items()
    if b"00000000-0000-4000-8000-000000000001" in body and name not in UNDECODABLE
]


@pytest.mark.parametrize("special", NEIGHBOURS)
@pytest_twisted.ensureDeferred
async def test_special_sample_does_not_affect_its_neighbour(special: str) -> None:
    collector = Collector()
    collector.take(SPECIALS[special])
    assert 1 in [row.volume for row in await collector.store.samples(SampleFilter(), 10)]


@pytest.mark.parametrize("special", UNDECODABLE)
def test_undecodable_body_is_dead_lettered_completely(special: str) -> None:
    collector = Collector()
    collector.take(SPECIALS[special])
    [dead] = collector.dead_letters
    assert (dead.kind, dead.body, dead.not_replayable) == ("undecodable", SPECIALS[special], None)


@settings(max_examples=250, deadline=None)
@given(BODIES, st.sampled_from([STRICT, LENIENT]))
@example(body_of([signed(message(1) | {"message_id": "\0"})]), STRICT)
@example(body_of([message(1), message(1), message(2)]), STRICT)
@example(json.dumps({"event_type": "metering.\ud800", "payload": []}).encode(), LENIENT)
def test_any_body_is_stored_or_dead_lettered(body: bytes, keys: Keyring) -> None:
    accounted(Collector(keys), body)


@settings(max_examples=50, deadline=None)
@given(st.lists(BODIES, max_size=8))
def test_bodies_that_arrive_together_do_not_affect_each_other(bodies: list[bytes]) -> None:
    collector = Collector(batch_samples=3)
    done = [
        Deferred.fromCoroutine(collector.intake.receive(Delivery(body=body, exchange="m", routing_key="k")))
        for body in bodies
    ]
    for _ in range(200):
        collector.clock.advance(0.05)
    assert [each.result for each in done] == [None] * len(bodies)
    assert all(each.reason for each in collector.dead_letters)


# --- large ones ----------------------------------------------------------------------------------------------------


class CountingStore(MemoryStore):
    """Accepts everything and records only the sizes of its transactions."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    async def write(self, messages: Any, refused_entries: Any = ()) -> WriteResult:
        self.sizes.append(len(messages))
        return WriteResult(len(messages), 0)


def test_batch_of_50_000_is_stored_in_transactions_and_reactor_turns_of_limited_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    template = message(1) | {"message_signature": ""}
    body = body_of([template | {"message_id": f"m{number}"} for number in range(50_000)], wrapped=False)
    store, turns = CountingStore(), [0]
    collector = Collector(LENIENT, store)
    read, sleep = meter.collector.samples.read, meter.collector.samples.sleep

    def counted(*arguments: Any, **more: Any) -> Any:
        turns[-1] += 1
        return read(*arguments, **more)

    def next_turn(*arguments: Any) -> Any:
        turns.append(0)
        return sleep(*arguments)

    monkeypatch.setattr(meter.collector.samples, "read", counted)
    monkeypatch.setattr(meter.collector.samples, "sleep", next_turn)
    done = Deferred.fromCoroutine(
        collector.intake.receive(Delivery(body=body, exchange="metering", routing_key="metering.x"))
    )
    while not done.called:
        collector.clock.advance(0.05)
    assert done.result is None
    assert sum(turns) == sum(store.sizes) == collector.counted("stored") == 50_000
    assert max(turns) <= SAMPLES_PER_TURN
    assert max(store.sizes) <= 1000


@pytest.mark.parametrize(
    "body",
    [b'{"method": "' + b"x" * 20_000_000, body_of([{"counter_name": "x" * 20_000_000}], wrapped=False)],
    ids=["half of it", "a name"],
)
def test_body_of_20_megabytes_is_dead_lettered_truncated_and_in_reasonable_time(body: bytes) -> None:
    collector = Collector()
    accounted(collector, body)  # what grows with the square of the length would take hours
    [dead] = collector.dead_letters
    assert dead.truncated
    assert len(dead.body) <= 8 * 1024 * 1024


def test_sample_of_20_megabytes_is_too_complex_and_its_neighbour_is_stored() -> None:
    collector = Collector()
    large = message(1, resource_metadata={"a": "x" * 20_000_000})
    accounted(collector, body_of([large, message(2)], wrapped=False))
    assert collector.counted("stored") == 1
    assert [each.kind for each in collector.dead_letters] == ["too-complex"]


# --- notifications -------------------------------------------------------------------------------------------------

EVENT = {
    "message_id": "n",
    "event_type": "compute.instance.exists",
    "timestamp": "2026-11-22 12:00:00",
    "publisher_id": "compute.host1",
    "payload": {"instance_id": "i", "memory_mb": 64, "vcpus": 1, "root_gb": 1, "ephemeral_gb": 0},
}


def consumed(body: bytes) -> tuple[Bus, Metrics, str]:
    bus, metrics = Bus(), Metrics()
    registry = metrics_registry("test")
    consumer = NotificationConsumer(
        [active(instance_listener)], bus, STRICT, DeadLetterPublisher(bus, Clock()), source="openstack", metrics=metrics
    )
    done = Deferred.fromCoroutine(consumer.receive(delivery(body)))
    assert done.result is None
    [(event_type, outcome)] = metrics.notifications
    CollectingMetrics(registry).notified(event_type, outcome)
    exposition(registry)
    assert len(bus.dead) == (outcome == "dead")
    assert all(parse_dead_letter(each.headers, each.body).reason for each in bus.dead)
    return bus, metrics, outcome


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.sampled_from([*EVENT, "_context_auth_token"]), JSON, max_size=2),
    st.dictionaries(st.sampled_from([*EVENT["payload"], "image_meta", "metadata", "created_at"]), JSON, max_size=2),
)
@example({"event_type": "compute.\ud800"}, {})
@example({"message_id": "\udc00"}, {})
@example({"timestamp": "9999-12-31T23:59:59-14:00"}, {})
@example({}, {"memory_mb": NotFinite("inf")})
@example({}, {"metadata": {"a": NotFinite("nan")}})
@example({}, {"instance_id": "\0"})
@example({}, {"vcpus": 10**400})
def test_any_notification_is_sampled_ignored_or_dead(changes: dict[str, Any], payload: dict[str, Any]) -> None:
    content = {**EVENT, "payload": EVENT["payload"] | payload, **changes}
    consumed(json.dumps(content).encode())
    consumed(json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(content)}).encode())


@pytest.mark.parametrize("special", SPECIALS)
def test_body_that_is_not_a_notification_is_dead_lettered(special: str) -> None:
    assert consumed(SPECIALS[special])[2] == "dead"


@given(st.text(st.characters(), max_size=3000))
def test_any_text_makes_a_header(text: str) -> None:
    made = header_text(text)
    assert made.isascii()
    assert made.isprintable()
    assert len(made) <= 500
