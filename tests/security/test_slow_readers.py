"""A client that reads slowly gives its place back: exports and other long responses have a least rate and a longest time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.server import Site

from meter.api import Api
from meter.api import RequestLimits
from meter.testing import MemoryStore
from tests.api_client import ApiClient
from tests.api_client import message
from tests.unit.api.streaming.test_export import Transport

LIMITS = RequestLimits(
    max_requests=1, min_bytes_per_second=10_000, max_stall_seconds=30.0, max_export_seconds=1000.0, max_limit=10_000
)


class SlowClient:
    """A client whose connection is full after each write, until the client reads."""

    def __init__(
        self, store: MemoryStore, path: bytes, accept: bytes, limits: RequestLimits = LIMITS, **api: Any
    ) -> None:
        self.clock = ApiClient().clock
        self.api = Api(store, self.clock, limits=limits, **api)
        self.site = Site(self.api.resource(), reactor=self.clock)
        self.transport: Any = Transport(self.clock)
        self.channel = self._connect(self.transport, path, accept)

    def _connect(self, transport: Any, path: bytes, accept: bytes) -> Any:
        channel: Any = self.site.buildProtocol(None)  # type: ignore[arg-type]
        transport.channel = channel
        channel.makeConnection(transport)
        write = transport.write

        def write_and_fill(data: bytes) -> None:
            write(data)
            if transport.producer is not None:
                transport.producer.pauseProducing()

        transport.write = write_and_fill
        transport.writeSequence = lambda data: write_and_fill(b"".join(data))
        channel.dataReceived(b"GET %b HTTP/1.1\r\nHost: cloud\r\nAccept: %b\r\n\r\n" % (path, accept))
        return channel

    def read(self, seconds_per_chunk: float, chunks: int) -> bool:
        """Take each of ``chunks`` after so many seconds; return whether the connection still exists."""
        for _ in range(chunks):
            self.clock.advance(seconds_per_chunk)
            if self.transport.disconnected:
                return False
            if self.transport.producer is not None:
                self.transport.producer.resumeProducing()
        return True

    def others_are_served(self) -> bool:
        """Whether the only place is free."""
        transport = Transport(self.clock)
        channel = self._connect(transport, b"/v2/samples/nothing", b"*/*")
        channel.connectionLost(Failure(ConnectionError()))
        return transport.value().startswith(b"HTTP/1.1 404")


@pytest.fixture(scope="module")
def store() -> MemoryStore:
    store = MemoryStore()
    rows = [message(n, message_id=f"n{n}", resource_id="r" * 400) for n in range(5000)]
    Deferred.fromCoroutine(store.write(rows))
    return store


@pytest.fixture(
    params=[
        (b"/v2/samples", b"text/csv"),
        (b"/v2/samples", b"application/x-ndjson"),
        (b"/v2/samples?limit=5000", b"*/*"),
    ]
)
def slow_client(store: MemoryStore, request: Any) -> Iterator[SlowClient]:
    client = SlowClient(store, *request.param)
    yield client
    client.clock.advance(100_000)


def test_client_below_the_least_rate_gives_its_place_back(slow_client: SlowClient) -> None:
    assert not slow_client.others_are_served()
    assert not slow_client.read(seconds_per_chunk=60.0, chunks=50)
    assert slow_client.others_are_served()


def test_client_above_the_least_rate_gets_everything(slow_client: SlowClient) -> None:
    assert slow_client.read(seconds_per_chunk=0.5, chunks=100)
    assert b'"n0"' in slow_client.transport.value() or b"\nn0," in slow_client.transport.value()
    assert slow_client.others_are_served()


def test_client_that_is_just_below_the_rate_for_long_is_too_slow(store: MemoryStore) -> None:
    client = SlowClient(store, b"/v2/samples", b"application/x-ndjson")
    chunk = len(client.transport.value())
    assert client.read(seconds_per_chunk=chunk / 10_000 * 1.3, chunks=5)
    assert not client.read(seconds_per_chunk=chunk / 10_000 * 1.3, chunks=40)


def test_pause_is_allowed(slow_client: SlowClient) -> None:
    assert slow_client.read(seconds_per_chunk=25.0, chunks=1)
    assert slow_client.read(seconds_per_chunk=0.1, chunks=100)
    assert slow_client.others_are_served()


def test_export_that_takes_too_long_ends(store: MemoryStore) -> None:
    limits = replace(LIMITS, min_bytes_per_second=1, max_export_seconds=400.0)
    client = SlowClient(store, b"/v2/samples", b"application/x-ndjson", limits)
    assert client.read(seconds_per_chunk=30.0, chunks=13)
    assert not client.read(seconds_per_chunk=30.0, chunks=4)
    assert client.others_are_served()
