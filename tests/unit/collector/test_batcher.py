"""Messages of several notifications share casts; bad messages of one do not affect the others."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock
from zope.interface import implementer

from meter.collector.batcher import PublicationBatcher
from meter.collector.batcher import Unpublishable
from meter.interfaces import IPublisher
from meter.interfaces import Publication
from meter.interfaces import Unavailable
from meter.message import metering_messages
from meter.message import open_envelope
from meter.outgoing import OutgoingMessage
from meter.signing_keys import SigningKey


@implementer(IPublisher)
class Bus:
    """Records publications; refuses those that ``refuses`` selects, and all while ``away``."""

    def __init__(self) -> None:
        self.published: list[tuple[str, list[Any]]] = []
        self.away = False
        self.refuses = b"never"

    async def publish(self, publication: Publication) -> None:
        if self.away:
            raise Unavailable("the bus: away")
        if self.refuses in publication.body:
            raise ValueError("too large")
        entries = metering_messages(open_envelope(publication.body))
        self.published.append((publication.routing_key, [entry["message_id"] for entry in entries]))


class Gathered:
    """A batcher on a bus, with the result of each ``send``."""

    def __init__(self, **arguments: Any) -> None:
        self.bus, self.clock = Bus(), Clock()
        self.gathering = PublicationBatcher(
            self.bus, self.clock, **{"batch_samples": 4, "batch_seconds": 0.01, **arguments}
        )
        self.ends: dict[str, Any] = {}

    def send(self, *ids: str, meter: str = "m", key_id: str = "key", **fields: Any) -> None:
        key = SigningKey(key_id, b"secret")
        time = "2026-11-22T12:00:00"
        messages = [
            OutgoingMessage({"counter_name": meter, "message_id": each, "timestamp": time, **fields}, key)
            for each in ids
        ]
        sent = self.gathering.add(messages)
        sent.addCallbacks(lambda _: "published", lambda failure: failure.value)
        sent.addCallback(lambda end: self.ends.update({ids[0]: end}))


def test_messages_within_the_batch_time_share_a_cast_per_meter() -> None:
    gathered = Gathered()
    gathered.send("a1")
    gathered.send("b1", meter="n")
    gathered.send("a2")
    assert gathered.bus.published == []
    gathered.clock.advance(0.01)
    assert gathered.bus.published == [("metering.m", ["a1", "a2"]), ("metering.n", ["b1"])]
    assert gathered.ends == {"a1": "published", "b1": "published", "a2": "published"}


def test_full_buffer_is_published_at_once() -> None:
    gathered = Gathered()
    names = [f"a{number}" for number in range(41)]
    gathered.send(*names[:39])
    assert gathered.bus.published == []
    gathered.send(*names[39:])
    assert [ids for _, ids in gathered.bus.published] == [names[first : first + 4] for first in range(0, 41, 4)]
    assert gathered.clock.getDelayedCalls() == []
    gathered.send("next")
    assert len(gathered.bus.published) == 11


def test_messages_signed_with_different_keys_get_separate_casts() -> None:
    gathered = Gathered()
    gathered.send("a1", key_id="old")
    gathered.send("a2", key_id="new")
    gathered.clock.advance(0.01)
    assert gathered.bus.published == [("metering.m", ["a1"]), ("metering.m", ["a2"])]


def test_messages_are_published_at_once_without_a_batch_time() -> None:
    gathered = Gathered(batch_seconds=0)
    gathered.send("a1")
    assert gathered.bus.published == [("metering.m", ["a1"])]


def test_unavailable_bus_fails_every_part_of_the_batch() -> None:
    gathered = Gathered()
    gathered.bus.away = True
    gathered.send("a1")
    gathered.send("a2")
    gathered.clock.advance(0.01)
    assert all(isinstance(end, Unavailable) for end in gathered.ends.values())
    assert gathered.ends["a1"] is not gathered.ends["a2"]


def test_unpublishable_messages_fail_alone() -> None:
    gathered = Gathered()
    gathered.bus.refuses = b"x" * 100
    gathered.send("good")
    gathered.send("bad", resource_metadata={"name": "x" * 100})
    gathered.send("better")
    gathered.clock.advance(0.01)
    assert gathered.bus.published == [("metering.m", ["good"]), ("metering.m", ["better"])]
    assert (gathered.ends["good"], gathered.ends["better"]) == ("published", "published")
    assert isinstance(gathered.ends["bad"], Unpublishable)
    assert str(gathered.ends["bad"]) == "samples for metering.m: too large"


def test_one_bad_part_does_not_split_the_batch_into_single_casts() -> None:
    gathered = Gathered(batch_samples=100)
    gathered.bus.refuses = b"x" * 100
    for number in range(64):
        gathered.send(f"good{number}")
    gathered.send("bad", resource_metadata={"name": "x" * 100})
    gathered.clock.advance(0.01)
    assert isinstance(gathered.ends.pop("bad"), Unpublishable)
    assert set(gathered.ends.values()) == {"published"}
    assert len(gathered.bus.published) <= 7  # halves of halves


@pytest.mark.parametrize("value", ["\ud800", object()])
def test_messages_that_are_not_json_fail_alone(value: Any) -> None:
    gathered = Gathered()
    gathered.send("bad", unit=value)
    gathered.send("good")
    gathered.clock.advance(0.01)
    assert gathered.ends["good"] == "published"
    assert isinstance(gathered.ends["bad"], ValueError | TypeError)
    assert not isinstance(gathered.ends["bad"], Unpublishable)
