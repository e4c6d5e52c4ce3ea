"""A body on the bus, whatever it contains, neither holds the reactor nor grows into many dead letters."""

from __future__ import annotations

import json
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

import meter.bus.incremental_json
import meter.collector.large_bodies
import meter.collector.samples
from meter.bus.dead_letters import MAX_MASKED_AT_ONCE
from meter.bus.dead_letters import DeadLetterPublisher
from meter.bus.dead_letters import parse_dead_letter
from meter.bus.incremental_json import STEP_CHARACTERS
from meter.bus.incremental_json import IncrementalDecoder
from meter.bus.incremental_json import NotJson
from meter.collector.large_bodies import LARGE_BYTES
from meter.collector.large_bodies import MAX_PART_WEIGHT
from meter.collector.large_bodies import MAX_SAMPLE_VALUES
from meter.collector.large_bodies import TURN_SECONDS
from meter.collector.large_bodies import check_sample
from meter.collector.notifications import NotificationConsumer
from meter.interfaces import Delivery
from meter.listeners.nova import instance_listener
from meter.message import open_envelope
from meter.query import WriteResult
from tests.unit.collector.test_fuzz_bodies import EVENT
from tests.unit.collector.test_fuzz_bodies import STRICT
from tests.unit.collector.test_fuzz_bodies import Collector
from tests.unit.collector.test_fuzz_bodies import body_of
from tests.unit.collector.test_notifications import Bus
from tests.unit.collector.test_notifications import Metrics
from tests.unit.collector.test_notifications import active
from tests.unit.collector.test_notifications import delivery
from tests.unit.collector.test_samples import message

MEGABYTE = 1024 * 1024
HOSTILE = {
    "many small members": body_of([message(1) | {"resource_metadata": {f"k{n}": n for n in range(200_000)}}]),
    "a wide list": body_of([0] * MEGABYTE),
    "many empty lists": body_of([[]] * 400_000),
    "deep nesting": b'{"a":' * 500_000,
    "digits": b'{"method": ' + b"9" * MEGABYTE + b"}",
    "texts like tokens": body_of([message(1, resource_metadata={"a": "token=gAAAAA" * 90_000})]),
    "assignments": b"token=a " * 130_000,
    "blanks": b'{"method":' + b" " * MEGABYTE + b"1}",
    "escapes": body_of([message(1, resource_metadata={"a": '\\"' * 300_000})]),
    "an envelope that is none": b'{"oslo.version": [], "oslo.message": "' + b"\\\\" * 400_000 + b'"}',
}
"""Bodies of about a megabyte."""


class Thread:
    """Stands for the thread: counts the calls, and whether one is under way."""

    def __init__(self) -> None:
        self.calls = 0
        self.inside = False

    async def __call__(self, function: Any) -> Any:
        self.calls += 1
        self.inside = True
        try:
            return function()
        finally:
            self.inside = False


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the lengths of all texts that one call has decoded."""
    found: list[int] = []
    decode = json.JSONDecoder.raw_decode

    def measured(self: Any, text: str, *rest: int) -> Any:
        found.append(len(text))
        return decode(self, text, *rest)

    monkeypatch.setattr(json.JSONDecoder, "raw_decode", measured)
    monkeypatch.setattr(meter.collector.large_bodies, "_DECODER", IncrementalDecoder())
    return found


def collector_with(thread: Thread) -> Collector:
    collector = Collector(off_reactor=thread)
    collector.intake._dead_letters = DeadLetterPublisher(collector.dead, collector.clock, off_reactor=thread)
    return collector


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_body_is_opened_and_masked_in_the_thread(
    name: str, monkeypatch: pytest.MonkeyPatch, steps: list[int]
) -> None:
    thread = Thread()
    collector = collector_with(thread)
    on_reactor = []
    masked_body = meter.bus.dead_letters.masked_body

    def watched(body: bytes) -> bytes:
        if not thread.inside:
            on_reactor.append(len(body))
        return masked_body(body)

    monkeypatch.setattr(meter.bus.dead_letters, "masked_body", watched)
    monkeypatch.setattr(
        meter.collector.large_bodies,
        "open_envelope",
        lambda body: on_reactor.append(len(body)) if len(body) > LARGE_BYTES else open_envelope(body),
    )

    collector.take(HOSTILE[name])

    assert thread.calls >= 2, "once to open it, once to mask it"
    assert max(on_reactor, default=0) <= MAX_MASKED_AT_ONCE
    assert max(steps, default=0) <= STEP_CHARACTERS
    [letter] = collector.dead_letters
    assert letter.kind in ("undecodable", "too-complex", "invalid")
    assert letter.reason


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_notification_is_converted_in_the_thread(name: str) -> None:
    thread, bus = Thread(), Bus()
    listener = active(instance_listener)
    consumer = NotificationConsumer(
        [listener],
        bus,
        STRICT,
        DeadLetterPublisher(bus, Clock(), off_reactor=thread),
        source="openstack",
        metrics=Metrics(),
        off_reactor=thread,
    )
    done = Deferred.fromCoroutine(consumer.receive(delivery(HOSTILE[name])))
    assert done.result is None
    assert thread.calls >= 2
    assert len(bus.dead) == 1


@pytest_twisted.ensureDeferred
async def test_large_notification_gives_the_same_samples_as_a_small_one() -> None:
    bus = Bus()
    consumer = NotificationConsumer(
        [active(instance_listener)],
        bus,
        STRICT,
        DeadLetterPublisher(bus, Clock()),
        source="openstack",
        metrics=Metrics(),
    )
    large = {**EVENT, "message_id": "large", "payload": {**EVENT["payload"], "ignored": "x" * MEGABYTE}}
    for event in (EVENT, large):
        await consumer.receive(delivery(json.dumps(event).encode()))
    meters = [publication.routing_key for publication in bus.published]
    assert meters
    assert sorted(meters[: len(meters) // 2]) == sorted(meters[len(meters) // 2 :])


def test_samples_of_a_large_body_are_written_in_parts_of_limited_weight() -> None:
    weights: list[int] = []

    class Store:
        async def write(self, messages: Any, *_: Any) -> WriteResult:
            weights.append(sum(check_sample(each.fields) for each in messages))
            return WriteResult(len(messages), 0)

    collector = Collector(store=Store())
    metadata = {f"k{number}": "v" * 20 for number in range(4000)}
    collector.take(body_of([message(number, resource_metadata=metadata) for number in range(1, 31)]))
    assert collector.counted("stored") == 30
    assert max(weights) <= MAX_PART_WEIGHT
    assert not collector.dead_letters


def test_samples_are_verified_in_turns_of_limited_time(monkeypatch: pytest.MonkeyPatch) -> None:
    collector, turns = Collector(), [0]
    read, sleep = meter.collector.samples.read, meter.collector.samples.sleep

    def slow(*arguments: Any, **named: Any) -> Any:
        turns[-1] += 1
        collector.clock.rightNow += TURN_SECONDS / 3  # what verifying one of these takes
        return read(*arguments, **named)

    def next_turn(*arguments: Any) -> Any:
        turns.append(0)
        return sleep(*arguments)

    monkeypatch.setattr(meter.collector.samples, "read", slow)
    monkeypatch.setattr(meter.collector.samples, "sleep", next_turn)
    collector.take(body_of([message(number) for number in range(1, 41)]))
    assert collector.counted("stored") == 40
    assert max(turns) <= 4


def test_sample_with_too_many_values_does_not_affect_its_neighbours() -> None:
    collector = Collector()
    wide = message(2, resource_metadata={f"k{number}": number for number in range(MAX_SAMPLE_VALUES)})
    collector.take(body_of([message(1), wide, message(3)]))
    assert collector.counted("stored") == 2
    [letter] = collector.dead_letters
    assert (letter.kind, letter.samples) == ("too-complex", 1)
    assert "more than 20000 names and values" in letter.reason


def test_large_deliveries_are_processed_one_at_a_time() -> None:
    waiting: list[Deferred[None]] = []
    opened: list[int] = []

    async def off_reactor(function: Any) -> Any:
        opened.append(len(opened))
        released: Deferred[None] = Deferred()
        waiting.append(released)
        await released
        return function()

    collector = Collector(off_reactor=off_reactor)
    body = HOSTILE["many small members"]
    done = [
        Deferred.fromCoroutine(collector.intake.receive(Delivery(body=body, exchange="metering", routing_key="k")))
        for _ in range(5)
    ]
    assert len(opened) == 1, "the others wait as bodies, not decoded"
    while waiting:
        waiting.pop().callback(None)
        collector.clock.advance(1)
    assert [each.called for each in done] == [True] * 5


# --- one dead letter for each delivery and kind ---------------------------------------------------------------------


def test_30_000_bad_samples_of_one_body_make_one_dead_letter() -> None:
    collector = Collector()
    body = body_of([0] * 30_000)
    assert len(body) < 100_000
    collector.take(body)
    [letter] = collector.dead_letters
    assert (letter.kind, letter.samples, letter.body) == ("invalid", 30_000, body)
    assert "30000 samples: a metering message must be a mapping" in letter.reason


def test_dead_letter_of_several_samples_names_their_reasons() -> None:
    collector = Collector()
    collector.take(body_of([message(1), 1, 2, [], "x", message(3) | {"counter_volume": 9}, message(4) | {"unit": 1}]))
    letters = {each.kind: each for each in collector.dead_letters}
    assert letters["invalid"].reason.startswith("1 samples: a metering message must be a mapping, not 1; 1 samples: ")
    assert letters["invalid"].reason.endswith("; 1 more reasons")
    assert (letters["invalid"].samples, letters["unverified"].samples) == (4, 2)
    assert letters["unverified"].subject == "cpu"


def test_replaying_a_dead_letter_of_several_samples_stores_each_that_is_good_then() -> None:
    refused: set[str] = {"00000000-0000-4000-8000-000000000002", "00000000-0000-4000-8000-000000000004"}
    collector = Collector()
    away = {**message(2), "message_signature": "0" * 64}, {**message(4), "message_signature": "1" * 64}
    collector.take(body_of([message(1), away[0], message(3), away[1]]))
    [letter] = collector.dead_letters
    entries = open_envelope(letter.body)["args"]["data"]
    assert {each["message_id"] for each in entries} == refused
    assert collector.counted("stored") == 2


def test_sample_with_a_secret_has_its_own_dead_letter_so_that_the_others_can_be_replayed() -> None:
    collector = Collector()
    bad = [message(number) | {"counter_volume": 99} for number in (1, 2, 3)]
    bad[1]["resource_metadata"] = {"auth_token": "hunter2"}
    collector.take(body_of(bad))
    letters = collector.dead_letters
    assert [(each.kind, each.samples, each.not_replayable is None) for each in letters] == [
        ("unverified", 2, True),
        ("unverified", 1, False),
    ]


def test_dead_letters_of_a_body_larger_than_a_letter_are_complete() -> None:
    collector = Collector()
    bad = [
        message(number) | {"counter_volume": -1, "resource_metadata": {"a": "x" * 2000}} for number in range(1, 5000)
    ]
    collector.take(body_of(bad))
    assert sum(each.samples for each in collector.dead_letters) == 4999
    assert len(collector.dead_letters) < 10
    assert not any(each.truncated for each in collector.dead_letters)


# --- the decoder ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["[1,", '{"a" 1}', '{"a":1,}', "{1:2}", "[1 2]", '"abc', "1 2", "", "[" * 100_000, "{'a':1}"]
)
@pytest.mark.parametrize("padding", [0, 2 * STEP_CHARACTERS])
def test_decoder_refuses_what_is_not_json(text: str, padding: int) -> None:
    with pytest.raises(NotJson):
        IncrementalDecoder().decode(" " * padding + text)
    with pytest.raises(NotJson):
        IncrementalDecoder().decode(f'["{"x" * padding}", {text}')


@pytest.mark.parametrize("step", [25, 40])
def test_decoder_gives_the_same_as_the_library(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter.bus.incremental_json, "FIRST_STEP_CHARACTERS", step)
    monkeypatch.setattr(meter.bus.incremental_json, "STEP_CHARACTERS", 2 * step)
    values = [
        {"a": [1, -2.5e10, True, None, {"b": []}], "c": {}, "d": 'é"\\\n' * 9, "e": [[[[1], 2], 3], "]"]},
        [{"x" * 50: "y" * 100, "": 12345678901234567890}] * 3,
        [123456789] * 40,
    ]
    for value in values:
        for text in (json.dumps(value), json.dumps(value, indent=3), json.dumps(value, ensure_ascii=False)):
            assert IncrementalDecoder().decode(text) == value


def test_dead_letter_header_with_samples_is_read_back() -> None:
    assert parse_dead_letter({"meter-samples": 7}, b"").samples == 7
    assert parse_dead_letter({"meter-samples": "x"}, b"").samples == 0
