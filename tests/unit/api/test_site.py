"""Limits on request sizes and idle connections, and the access log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel

from meter.api import Api
from meter.api import make_site
from meter.testing import MemoryStore

Channel = HTTPChannel


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def transport() -> StringTransport:
    return StringTransport()


@pytest.fixture
def channel(clock: Clock, transport: StringTransport) -> Iterator[Channel]:
    """A connection to an API that accepts bodies of up to ten bytes."""
    channel = make_site(Api(MemoryStore(), clock), clock, max_body_bytes=10).buildProtocol(None)
    assert channel is not None
    channel.makeConnection(transport)
    yield channel
    channel.connectionLost(Failure(ConnectionDone()))
    clock.advance(0)  # the next turn of the reactor
    assert [call for call in clock.getDelayedCalls() if call.active()] == []


HEAD = b"POST /v2/samples HTTP/1.1\r\nHost: cloud\r\nContent-Type: application/json\r\n"


def test_body_of_the_maximum_size_is_accepted(channel: Channel, transport: StringTransport) -> None:
    channel.dataReceived(HEAD + b"Content-Length: 10\r\n\r\n0123456789")
    assert transport.value().startswith(b"HTTP/1.1 405 ")


def test_body_announced_as_too_large_is_rejected_before_it_is_sent(
    channel: Channel, transport: StringTransport
) -> None:
    channel.dataReceived(HEAD + b"Expect: 100-continue\r\nContent-Length: 11\r\n\r\n")
    response = transport.value()
    assert response.startswith(b"HTTP/1.1 413 ")
    assert b"at most 10 bytes" in response
    assert b"100 Continue" not in response


def test_chunked_body_is_rejected_once_it_is_too_large(channel: Channel, transport: StringTransport) -> None:
    channel.dataReceived(HEAD + b"Transfer-Encoding: chunked\r\n\r\n6\r\n012345\r\n")
    assert transport.value() == b""
    channel.dataReceived(b"6\r\n012345\r\n")
    assert transport.value().startswith(b"HTTP/1.1 413 ")


def test_rest_of_a_rejected_body_is_discarded_so_that_the_client_reads_the_response(
    channel: Channel, transport: StringTransport
) -> None:
    channel.dataReceived(HEAD + b"Content-Length: 20\r\n\r\n01234")
    response = transport.value()
    assert not transport.disconnecting
    channel.dataReceived(b"0123456789abcde")
    assert transport.disconnecting
    assert transport.value() == response


def test_connection_with_a_rejected_body_is_closed_after_a_time(
    channel: Channel, transport: StringTransport, clock: Clock
) -> None:
    channel.dataReceived(HEAD + b"Content-Length: 20\r\n\r\n01234")
    clock.advance(5)
    assert transport.disconnecting


def test_idle_connection_is_closed(channel: Channel, transport: StringTransport, clock: Clock) -> None:
    clock.advance(60)
    assert transport.disconnecting


def test_site_writes_no_log_file(clock: Clock) -> None:
    assert make_site(Api(MemoryStore(), clock), clock).logPath is None


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (b"GET /v2/samples?" + b"q.field=user&q.value=x&" * 10_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + b"X-Y: z\r\n" * 600 + b"\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + (b"X-Y: " + b"z" * 990 + b"\r\n") * 80 + b"\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\0c\r\n\r\n", 400),
    ],
    ids=range(7),
)
def test_malformed_request_is_answered_in_json(
    channel: Channel, transport: StringTransport, clock: Clock, request_text: bytes, status: int
) -> None:
    for start in range(0, len(request_text), 16384):
        if not transport.disconnecting:
            channel.dataReceived(request_text[start : start + 16384])
    head, _, body = transport.value().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert msgspec.json.decode(body)["error_message"]["faultcode"] == "Client"
    channel.dataReceived(b"GET / HTTP/1.1\r\nHost: cloud\r\n\r\n")
    assert not transport.disconnecting, "the client would lose the response"
    clock.advance(5)
    assert transport.disconnecting
    assert transport.value().endswith(body)


def test_request_line_has_room_for_the_maximum_number_of_terms(channel: Channel, transport: StringTransport) -> None:
    channel.dataReceived(b"GET /v2/samples?" + b"q.field=user&q.value=x&" * 900 + b" HTTP/1.1\r\nHost: c\r\n\r\n")
    assert transport.value().startswith(b"HTTP/1.1 400 ")
    assert b"at most 100 terms" in transport.value()


@pytest.mark.parametrize(("wanted", "level"), [(True, LogLevel.info), (False, LogLevel.debug)])
def test_request_is_logged_at_the_level_of_the_access_log(clock: Clock, wanted: bool, level: LogLevel) -> None:
    events: list[Any] = []
    globalLogPublisher.addObserver(events.append)
    try:
        channel: Any = make_site(Api(MemoryStore(), clock), clock, access_log=wanted).buildProtocol(None)
        channel.makeConnection(StringTransport())
        channel.dataReceived(b"GET /v2/samples?limit=1 HTTP/1.1\r\nHost: cloud\r\n\r\n")
        channel.connectionLost(Failure(ConnectionDone()))
    finally:
        globalLogPublisher.removeObserver(events.append)
    (event,) = [event for event in events if event.get("uri") == "/v2/samples?limit=1"]
    assert (event["log_level"], event["status"], event["bytes"]) == (level, 200, 2)
    assert event["request_id"].startswith("req-")
