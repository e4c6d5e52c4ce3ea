"""Dead letters keep the body, the reason and where it came from; secrets they do not keep."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.logger import capturedLogs
from zope.interface import implementer

from meter.bus.dead_letter import letter
from meter.bus.dead_letter_publisher import DeadLetterPublisher
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
async def test_a_dead_letter_says_why_when_and_where_from(bus: Bus, clock: Clock) -> None:
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
async def test_the_queue_can_have_another_name(bus: Bus, clock: Clock) -> None:
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
async def test_a_header_is_short_printable_ascii_without_secrets(
    bus: Bus, clock: Clock, reason: str, header: str
) -> None:
    await DeadLetterPublisher(bus, clock).dead_letter(body=b"", reason=reason, origin=ORIGIN)
    assert bus.published[0].headers["meter-reason"] == header
    assert len(header) <= 500


@pytest_twisted.ensureDeferred
async def test_secrets_in_the_body_are_masked(bus: Bus, clock: Clock) -> None:
    await DeadLetterPublisher(bus, clock).dead_letter(body=b'{"auth_token":"hunter2"}', reason="x", origin=ORIGIN)
    assert bus.published[0].body == b'{"auth_token":"***"}'
    assert bus.published[0].headers["meter-masked"] is True


@pytest_twisted.ensureDeferred
async def test_a_letter_names_the_queue_it_came_from(bus: Bus, clock: Clock) -> None:
    await DeadLetterPublisher(bus, clock, of_queue="meter.metering").dead_letter(body=b"", reason="x", origin=ORIGIN)
    assert bus.published[0].headers["meter-queue"] == "meter.metering"


@pytest_twisted.ensureDeferred
async def test_what_was_replayed_and_failed_again_says_so_and_where_it_came_from_at_first(
    bus: Bus, clock: Clock
) -> None:
    dead_letters = DeadLetterPublisher(bus, clock, of_queue="meter.notifications")
    await dead_letters.dead_letter(body=b"", reason="x", origin=ORIGIN)
    first = bus.published[0]
    again = letter(first.headers, first.body).publication()
    assert (again.exchange, again.routing_key) == ("", "meter.notifications")
    await dead_letters.dead_letter(
        body=again.body, reason="x", origin=replace(ORIGIN, exchange="", routing_key="q", headers=again.headers)
    )
    second = letter(bus.published[1].headers, bus.published[1].body)
    assert (second.exchange, second.routing_key, second.replayed) == ("nova", "notifications.info", 1)
    assert second.publication().headers["meter-replayed"] == 2


@pytest_twisted.ensureDeferred
async def test_headers_of_any_type_on_a_replayed_message_do_no_harm(bus: Bus, clock: Clock) -> None:
    odd = {"meter-replayed": [1], "meter-exchange": b"\xff", "meter-routing-key": {"a": None}}
    await DeadLetterPublisher(bus, clock).dead_letter(body=b"", reason="x", origin=replace(ORIGIN, headers=odd))
    headers = bus.published[0].headers
    assert headers["meter-replayed"] == "[1]"
    assert letter(headers, b"").replayed == 0


@pytest_twisted.ensureDeferred
async def test_a_body_that_is_too_large_is_cut_and_says_so(bus: Bus, clock: Clock) -> None:
    dead_letters = DeadLetterPublisher(bus, clock, largest_body_bytes=10)
    await dead_letters.dead_letter(body=b"0123456789", reason="x", origin=ORIGIN)
    await dead_letters.dead_letter(body=b"0123456789a", reason="x", origin=ORIGIN)
    assert [publication.body for publication in bus.published] == [b"0123456789", b"0123456789"]
    assert [publication.headers.get("meter-cut") for publication in bus.published] == [None, True]


@pytest_twisted.ensureDeferred
async def test_without_the_bus_nothing_is_counted_as_safe(bus: Bus, clock: Clock) -> None:
    counted: list[str] = []
    bus.away = True
    with pytest.raises(Unavailable):
        await DeadLetterPublisher(bus, clock, count=counted.append).dead_letter(body=b"", reason="x", origin=ORIGIN)
    assert counted == []


@pytest_twisted.ensureDeferred
async def test_the_first_of_a_kind_is_a_warning_and_a_flood_is_not(bus: Bus, clock: Clock) -> None:
    dead_letters = DeadLetterPublisher(bus, clock)
    with capturedLogs() as events:
        for kind in ("undecodable", "undecodable", "invalid"):
            await dead_letters.dead_letter(body=b"", reason="x", origin=ORIGIN, kind=kind)
    levels: list[Any] = [event["log_level"] for event in events]
    assert levels == [LogLevel.warn, LogLevel.debug, LogLevel.warn]
