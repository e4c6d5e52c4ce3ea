"""What a client may send, and for how long, before the API hangs up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.http import _GenericHTTPChannelProtocol

from meter.api import Api
from meter.api import site
from meter.testing import MemoryStore

Channel = _GenericHTTPChannelProtocol


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
