"""What a client may send, and for how long, before the API hangs up."""

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
from meter.api import site
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
    """A connection to an API that takes bodies of ten bytes."""
    channel = site(Api(MemoryStore(), clock), clock, largest_body_bytes=10).buildProtocol(None)
    assert channel is not None
    channel.makeConnection(transport)
    yield channel
    channel.connectionLost(Failure(ConnectionDone()))
    assert [call for call in clock.getDelayedCalls() if call.active()] == []


HEAD = b"POST /v2/samples HTTP/1.1\r\nHost: cloud\r\nContent-Type: application/json\r\n"


def test_a_body_of_the_largest_size_is_taken(channel: Channel, transport: StringTransport) -> None:
    channel.dataReceived(HEAD + b"Content-Length: 10\r\n\r\n0123456789")
    assert transport.value().startswith(b"HTTP/1.1 405 ")


def test_a_body_announced_too_large_is_refused_before_it_is_sent(channel: Channel, transport: StringTransport) -> None:
    channel.dataReceived(HEAD + b"Expect: 100-continue\r\nContent-Length: 11\r\n\r\n")
    answer = transport.value()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"at most 10 bytes" in answer
    assert b"100 Continue" not in answer


def test_a_body_that_grows_too_large_is_refused_when_it_does(channel: Channel, transport: StringTransport) -> None:
    channel.dataReceived(HEAD + b"Transfer-Encoding: chunked\r\n\r\n6\r\n012345\r\n")
    assert transport.value() == b""
    channel.dataReceived(b"6\r\n012345\r\n")
    assert transport.value().startswith(b"HTTP/1.1 413 ")


def test_the_rest_of_a_refused_body_is_taken_so_that_the_client_reads_why(
    channel: Channel, transport: StringTransport
) -> None:
    channel.dataReceived(HEAD + b"Content-Length: 20\r\n\r\n01234")
    answer = transport.value()
    assert not transport.disconnecting
    channel.dataReceived(b"0123456789abcde")
    assert transport.disconnecting
    assert transport.value() == answer


def test_the_rest_of_a_refused_body_is_not_waited_for_for_ever(
    channel: Channel, transport: StringTransport, clock: Clock
) -> None:
    channel.dataReceived(HEAD + b"Content-Length: 20\r\n\r\n01234")
    clock.advance(5)
    assert transport.disconnecting


def test_a_client_that_says_nothing_is_hung_up_on(channel: Channel, transport: StringTransport, clock: Clock) -> None:
    channel.dataReceived(b"GET /v2/sam")
    clock.advance(60)
    assert transport.disconnecting


def test_a_site_writes_no_log_file(clock: Clock) -> None:
    assert site(Api(MemoryStore(), clock), clock).logPath is None


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
def test_what_is_hardly_a_request_is_told_so_in_json(
    channel: Channel, transport: StringTransport, request_text: bytes, status: int
) -> None:
    for start in range(0, len(request_text), 16384):
        if not transport.disconnecting:
            channel.dataReceived(request_text[start : start + 16384])
    head, _, body = transport.value().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert msgspec.json.decode(body)["error_message"]["faultcode"] == "Client"
    assert transport.disconnecting


def test_a_long_query_is_read_as_far_as_terms_may_be_many(channel: Channel, transport: StringTransport) -> None:
    channel.dataReceived(b"GET /v2/samples?" + b"q.field=user&q.value=x&" * 900 + b" HTTP/1.1\r\nHost: c\r\n\r\n")
    assert transport.value().startswith(b"HTTP/1.1 400 ")
    assert b"at most 100 terms" in transport.value()


@pytest.mark.parametrize(("wanted", "level"), [(True, LogLevel.info), (False, LogLevel.debug)])
def test_requests_are_logged_where_that_is_wanted(clock: Clock, wanted: bool, level: LogLevel) -> None:
    events: list[Any] = []
    globalLogPublisher.addObserver(events.append)
    try:
        channel: Any = site(Api(MemoryStore(), clock), clock, access_log=wanted).buildProtocol(None)
        channel.makeConnection(StringTransport())
        channel.dataReceived(b"GET /v2/samples?limit=1 HTTP/1.1\r\nHost: cloud\r\n\r\n")
        channel.connectionLost(Failure(ConnectionDone()))
    finally:
        globalLogPublisher.removeObserver(events.append)
    (event,) = [event for event in events if event.get("uri") == "/v2/samples?limit=1"]
    assert (event["log_level"], event["status"], event["bytes"]) == (level, 200, 2)
    assert event["request_id"].startswith("req-")
