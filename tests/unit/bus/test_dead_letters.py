"""A dead letter keeps body, reason and origin without secrets, can be read back, and says whether a replay can succeed."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC
from datetime import datetime

import pytest
import pytest_twisted
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.logger import formatEvent
from zope.interface import implementer

from meter.bus.dead_letter_log import MAX_LINES
from meter.bus.dead_letters import MAX_REPLAYED
from meter.bus.dead_letters import DeadLetterPublisher
from meter.bus.dead_letters import parse_dead_letter
from meter.interfaces import Delivery
from meter.interfaces import IPublisher
from meter.interfaces import Publication
from meter.interfaces import Unavailable

AT = datetime(2026, 11, 22, 17, 0, 59, tzinfo=UTC)
ORIGIN = Delivery(body=b"ignored", exchange="nova", routing_key="notifications.info")


@implementer(IPublisher)
class Bus:
    def __init__(self) -> None:
        self.published: list[Publication] = []
        self.away = False

    async def publish(self, publication: Publication) -> None:
        if self.away:
            raise Unavailable("the bus: away")
        self.published.append(publication)


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.advance(AT.timestamp())
    return clock


@pytest_twisted.ensureDeferred
async def test_dead_letter_has_reason_time_and_origin(bus: Bus, clock: Clock) -> None:
    counted: list[str] = []
    dead_letters = DeadLetterPublisher(bus, clock, count=counted.append)
    await dead_letters.dead_letter(
        body=b"{}",
        reason="no method",
        origin=ORIGIN,
        kind="undecodable",
        event_type="a.b",
        number=7,
        flag=True,
        listener=None,
    )
    id = bus.published[0].headers["meter-id"]
    assert uuid.UUID(str(id)).version == 4
    assert bus.published == [
        Publication(
            exchange="",
            routing_key="metering.dead",
            body=b"{}",
            headers={
                "meter-id": id,
                "meter-reason": "no method",
                "meter-kind": "undecodable",
                "meter-at": "2026-11-22T17:00:59",
                "meter-exchange": "nova",
                "meter-routing-key": "notifications.info",
                "meter-event-type": "a.b",
                "meter-number": 7,
                "meter-flag": True,
            },
        )
    ]
    assert counted == ["undecodable"]


@pytest_twisted.ensureDeferred
async def test_dead_letter_queue_name_is_configurable(bus: Bus, clock: Clock) -> None:
    await DeadLetterPublisher(bus, clock, "dead.elsewhere").dead_letter(body=b"", reason="x", origin=ORIGIN)
    assert bus.published[0].routing_key == "dead.elsewhere"


@pytest.mark.parametrize(
    ("reason", "header"),
    [
        ("Zoë 日本\n\0", r"Zo\xeb \u65e5\u672c\n\x00"),
        ("lone \ud800", r"lone \ud800"),
        ("not adminPass=hunter2", "not adminPass=***"),
        ("x" * 10_000, "x" * 497 + "..."),
        ("日" * 10_000, (r"\u65e5" * 100)[:497] + "..."),
    ],
)
@pytest_twisted.ensureDeferred
async def test_header_is_short_printable_ascii_without_secrets(
    bus: Bus, clock: Clock, reason: str, header: str
) -> None:
    await DeadLetterPublisher(bus, clock).dead_letter(body=b"", reason=reason, origin=ORIGIN)
    assert bus.published[0].headers["meter-reason"] == header
    assert len(header) <= 500


@pytest_twisted.ensureDeferred
async def test_body_is_stored_with_secrets_masked(bus: Bus, clock: Clock) -> None:
    await DeadLetterPublisher(bus, clock).dead_letter(body=b'{"auth_token":"hunter2"}', reason="x", origin=ORIGIN)
    assert bus.published[0].body == b'{"auth_token":"***"}'
    assert bus.published[0].headers["meter-masked"] is True


@pytest_twisted.ensureDeferred
async def test_dead_letter_names_its_source_queue(bus: Bus, clock: Clock) -> None:
    await DeadLetterPublisher(bus, clock, source_queue="meter.metering").dead_letter(
        body=b"", reason="x", origin=ORIGIN
    )
    assert bus.published[0].headers["meter-queue"] == "meter.metering"


@pytest_twisted.ensureDeferred
async def test_second_dead_letter_of_a_replayed_message_keeps_origin_and_replay_count(bus: Bus, clock: Clock) -> None:
    dead_letters = DeadLetterPublisher(bus, clock, source_queue="meter.notifications")
    await dead_letters.dead_letter(body=b"", reason="x", origin=ORIGIN)
    first = bus.published[0]
    again = parse_dead_letter(first.headers, first.body).publication()
    assert (again.exchange, again.routing_key) == ("", "meter.notifications")
    await dead_letters.dead_letter(
        body=again.body, reason="x", origin=replace(ORIGIN, exchange="", routing_key="q", headers=again.headers)
    )
    second = parse_dead_letter(bus.published[1].headers, bus.published[1].body)
    assert (second.exchange, second.routing_key, second.replayed) == ("nova", "notifications.info", 1)
    assert second.publication().headers["meter-replayed"] == 2


@pytest_twisted.ensureDeferred
async def test_second_dead_letter_of_a_masked_message_is_masked(bus: Bus, clock: Clock) -> None:
    dead_letters = DeadLetterPublisher(bus, clock, source_queue="meter.notifications")
    await dead_letters.dead_letter(body=b'{"auth_token": "abc"}', reason="x", origin=ORIGIN)
    again = parse_dead_letter(bus.published[0].headers, bus.published[0].body).publication()
    await dead_letters.dead_letter(body=again.body, reason="x", origin=replace(ORIGIN, headers=again.headers))
    assert [parse_dead_letter(each.headers, each.body).masked for each in bus.published] == [True, True]


@pytest_twisted.ensureDeferred
async def test_replayed_message_with_headers_of_any_type_is_dead_lettered(bus: Bus, clock: Clock) -> None:
    odd = {"meter-replayed": [1], "meter-exchange": b"\xff", "meter-routing-key": {"a": None}}
    await DeadLetterPublisher(bus, clock).dead_letter(body=b"", reason="x", origin=replace(ORIGIN, headers=odd))
    headers = bus.published[0].headers
    assert "meter-replayed" not in headers
    assert (headers["meter-exchange"], headers["meter-routing-key"]) == (ORIGIN.exchange, ORIGIN.routing_key)
    assert parse_dead_letter(headers, b"").replayed == 0


@pytest.mark.parametrize("replayed", [True, -1, MAX_REPLAYED + 1, 2**64 - 1, "1", 1.0, None])
@pytest_twisted.ensureDeferred
async def test_replay_count_that_meter_does_not_write_is_ignored(bus: Bus, clock: Clock, replayed: object) -> None:
    headers = {"meter-replayed": replayed, "meter-exchange": "other"}
    await DeadLetterPublisher(bus, clock).dead_letter(body=b"", reason="x", origin=replace(ORIGIN, headers=headers))
    written = bus.published[0].headers
    assert "meter-replayed" not in written
    assert written["meter-exchange"] == ORIGIN.exchange
    assert parse_dead_letter(headers, b"").publication().headers["meter-replayed"] == 1


@pytest_twisted.ensureDeferred
async def test_dead_letter_with_the_largest_replay_count_can_be_replayed(bus: Bus, clock: Clock) -> None:
    origin = replace(ORIGIN, headers={"meter-replayed": MAX_REPLAYED})
    await DeadLetterPublisher(bus, clock).dead_letter(body=b"", reason="x", origin=origin)
    [written] = bus.published
    assert written.headers["meter-replayed"] == MAX_REPLAYED
    assert parse_dead_letter(written.headers, b"").publication().headers["meter-replayed"] == MAX_REPLAYED


@pytest.mark.parametrize(("headers", "truncated"), [({}, False), ({"size": 17}, True)])
@pytest_twisted.ensureDeferred
async def test_dead_letter_that_cannot_be_encoded_is_published_without_its_origin(
    bus: Bus, clock: Clock, headers: dict[str, int], truncated: bool
) -> None:
    publish = bus.publish

    async def refuse_origin(publication: Publication) -> None:
        if "meter-exchange" in publication.headers:
            raise ValueError("header 'meter-exchange' cannot be encoded")
        await publish(publication)

    bus.publish = refuse_origin  # type: ignore[method-assign]
    with capturedLogs() as logs:
        await DeadLetterPublisher(bus, clock, source_queue="q").dead_letter(
            body=b"", reason="x", origin=ORIGIN, **headers
        )
    found = parse_dead_letter(bus.published[0].headers, b"")
    assert (found.reason, found.queue, found.exchange, found.truncated) == ("x", "q", "", truncated)
    lines = [formatEvent(event) for event in logs]
    assert "is published without its origin" in lines[0]
    assert "exchange unknown, routing key unknown (bad): x" in lines[1]


@pytest_twisted.ensureDeferred
async def test_body_over_the_limit_is_truncated_and_flagged(bus: Bus, clock: Clock) -> None:
    dead_letters = DeadLetterPublisher(bus, clock, max_body_bytes=10)
    await dead_letters.dead_letter(body=b"0123456789", reason="x", origin=ORIGIN)
    await dead_letters.dead_letter(body=b"0123456789a", reason="x", origin=ORIGIN)
    assert [publication.body for publication in bus.published] == [b"0123456789", b"0123456789"]
    assert [publication.headers.get("meter-cut") for publication in bus.published] == [None, True]


@pytest_twisted.ensureDeferred
async def test_body_that_masking_makes_longer_than_the_limit_is_truncated_and_flagged(bus: Bus, clock: Clock) -> None:
    body = b'{"token":1,"x":2}'
    await DeadLetterPublisher(bus, clock, max_body_bytes=len(body)).dead_letter(body=body, reason="x", origin=ORIGIN)
    [letter] = bus.published
    assert letter.body == b'{"token":"***","x":2}'[: len(body)]
    found = parse_dead_letter(letter.headers, letter.body)
    assert (found.masked, found.truncated, found.not_replayable) == (True, True, "its body is truncated")


@pytest_twisted.ensureDeferred
async def test_dead_letter_is_not_counted_without_the_bus(bus: Bus, clock: Clock) -> None:
    counted: list[str] = []
    bus.away = True
    with pytest.raises(Unavailable):
        await DeadLetterPublisher(bus, clock, count=counted.append).dead_letter(body=b"", reason="x", origin=ORIGIN)
    assert counted == []


@pytest_twisted.ensureDeferred
async def test_dead_letters_are_logged_once_a_minute_for_each_kind_and_subject(bus: Bus, clock: Clock) -> None:
    dead_letters = DeadLetterPublisher(bus, clock)
    with capturedLogs() as events:
        for kind, meter in (("invalid", "cpu"), ("invalid", "cpu"), ("invalid", "disk"), ("unverified", "cpu")):
            await dead_letters.dead_letter(body=b"", reason="x", origin=ORIGIN, kind=kind, meter=meter)
        clock.advance(61)
        await dead_letters.dead_letter(body=b"", reason="x", origin=ORIGIN, kind="invalid", meter="cpu")
    lines = [formatEvent(event) for event in events]
    assert [each.partition("(")[2].partition(")")[0] for each in lines] == [
        "invalid",
        "invalid",
        "unverified",
        "",
        "invalid",
    ]
    assert lines[3] == "dead-lettered 1 more messages like those logged: invalid 1"


@pytest_twisted.ensureDeferred
async def test_flood_of_subjects_does_not_flood_the_log(bus: Bus, clock: Clock) -> None:
    dead_letters = DeadLetterPublisher(bus, clock)
    with capturedLogs() as events:
        for number in range(1000):
            await dead_letters.dead_letter(body=b"", reason="x", origin=ORIGIN, kind="invalid", meter=f"m{number}")
    assert len(events) == MAX_LINES


# --- reading -------------------------------------------------------------------------------------------------------

WRITTEN = {
    "meter-id": "3f2a9c1e-5d0e-4c55-9a3b-2f8f0e7b1f66",
    "meter-at": "2026-11-22T17:00:59",
    "meter-kind": "unverified",
    "meter-meter": "cpu",
    "meter-reason": "the signature does not match",
    "meter-exchange": "metering",
    "meter-routing-key": "metering.cpu",
    "meter-queue": "meter.metering",
}


def test_dead_letter_is_read_as_it_was_written():
    found = parse_dead_letter(WRITTEN, b"{}")
    assert (found.id, found.kind, found.subject) == (WRITTEN["meter-id"], "unverified", "cpu")
    assert (found.masked, found.truncated, found.replayed, found.not_replayable) == (False, False, 0, None)


def test_replay_goes_to_the_source_queue_alone_and_carries_the_origin():

    replay = parse_dead_letter(WRITTEN, b"{}").publication()
    assert (replay.exchange, replay.routing_key, replay.body) == ("", "meter.metering", b"{}")
    assert replay.headers == {
        "meter-replayed": 1,
        "meter-exchange": "metering",
        "meter-routing-key": "metering.cpu",
    }


def test_replay_without_a_source_queue_goes_to_the_exchange():

    replay = parse_dead_letter({**WRITTEN, "meter-queue": ""}, b"{}").publication()
    assert (replay.exchange, replay.routing_key) == ("metering", "metering.cpu")


@pytest.mark.parametrize(
    ("headers", "not_replayable"),
    [
        ({"meter-masked": True}, "secrets in its body are masked"),
        ({"meter-cut": True}, "truncated"),
        ({"meter-size": 20_000_000, "meter-masked": True}, "truncated"),
    ],
)
def test_dead_letter_with_changed_body_is_not_replayable(headers, not_replayable):
    assert not_replayable in (parse_dead_letter(WRITTEN | headers, b"{}").not_replayable or "")


def test_foreign_dead_letter_has_an_id_and_is_not_replayable():
    found = parse_dead_letter({"x-death": [{"queue": "other"}], "meter-at": b"\xff", "meter-kind": 5}, b"a")
    assert found.id == parse_dead_letter({}, b"a").id != parse_dead_letter({}, b"b").id
    assert (found.at, found.kind) == (r"b'\\xff'", "5")
    assert "do not name the queue or exchange" in (found.not_replayable or "")
