"""Live stream: samples as they are stored, each once, to clients that may see them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.server import Site

from meter.api import Api
from meter.api import RequestLimits
from meter.testing import MemoryStore
from tests.api_client import RECORDED
from tests.api_client import message
from tests.unit.api.auth.test_visibility import TOKENS
from tests.unit.api.streaming.test_export import Transport


class LiveApi:
    """An API whose clients read ``/v2/live``."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.clock.advance(RECORDED.timestamp())
        self.store = MemoryStore(self.clock)
        self.site = Site(Api(self.store, self.clock, auth=TOKENS, **settings).resource(), reactor=self.clock)

    def client(self, query: str = "", who: str = "admin") -> Client:
        return Client(self.clock, self.site, f"/v2/live?{query}", who)

    def write(self, *messages: Any) -> None:
        Deferred.fromCoroutine(self.store.write(messages))


class Client:
    """The server side of one client's connection."""

    def __init__(self, clock: Clock, site: Site, path: str, who: str) -> None:
        self.transport = Transport(clock)
        self.channel: Any = site.buildProtocol(None)
        self.channel.makeConnection(self.transport)
        self.transport.channel = self.channel
        self.channel.dataReceived(f"GET {path} HTTP/1.1\r\nHost: cloud\r\nX-Auth-Token: {who}-token\r\n\r\n".encode())

    @property
    def received(self) -> bytes:
        return self.transport.value()

    @property
    def ids(self) -> list[str]:
        events = [line for line in self.received.split(b"\n") if line.startswith(b"data: ")]
        return [msgspec.json.decode(event.removeprefix(b"data: "))["id"] for event in events]

    def disconnect(self) -> None:
        self.channel.connectionLost(Failure(ConnectionError()))


@pytest.fixture
def live_api() -> LiveApi:
    return LiveApi()


def test_live_stream_has_samples_as_they_are_stored(live_api: LiveApi) -> None:
    live_api.write(message(message_id="long ago"))
    live_api.clock.advance(60)
    client = live_api.client()
    assert b"200 OK" in client.received
    assert b"content-type: text/event-stream" in client.received.lower()
    assert client.ids == []
    live_api.write(message(message_id="a"), message(message_id="b"))
    live_api.clock.advance(1)
    live_api.write(message(-60, message_id="c"))
    assert client.ids == ["a", "b", "c"]
    client.disconnect()


def test_live_stream_has_only_matching_and_visible_samples(live_api: LiveApi) -> None:
    disks = live_api.client("q.field=meter&q.value=disk")
    blue = live_api.client(who="blue")
    green = live_api.client(who="green")
    live_api.write(message(message_id="a"), message(name="disk", message_id="b", project_id="red"))
    assert (disks.ids, blue.ids, green.ids) == (["b"], ["a"], [])
    for client in (disks, blue, green):
        client.disconnect()


def test_live_stream_respects_a_filter_for_absent_metadata(live_api: LiveApi) -> None:
    client = live_api.client("q.field=metadata.size&q.value=None")
    live_api.write(
        message(message_id="a", resource_metadata={"size": 1}), message(message_id="b", resource_metadata={})
    )
    assert client.ids == ["b"]
    client.disconnect()


def test_idle_live_stream_has_keep_alive_comments(live_api: LiveApi) -> None:
    client = live_api.client()
    live_api.clock.advance(16)
    assert client.received.count(b": keep-alive\n\n") == 1
    client.disconnect()


def test_slow_client_falls_behind_and_is_not_buffered(live_api: LiveApi) -> None:
    client = live_api.client()
    live_api.write(message(message_id="a"))
    client.transport.producer.pauseProducing()
    live_api.write(message(message_id="b"))
    before = len(client.received)
    for n in range(100):
        live_api.clock.advance(0.1)
        live_api.write(message(message_id=f"n{n}"))
    assert len(client.received) == before
    client.transport.producer.resumeProducing()
    assert client.ids == ["a", "b", *(f"n{n}" for n in range(100))]
    client.disconnect()


def test_live_stream_has_more_than_a_page_at_once(live_api: LiveApi) -> None:
    client = live_api.client()
    live_api.write(*(message(message_id=f"n{n:04}") for n in range(1201)))
    assert client.ids == [f"n{n:04}" for n in range(1201)]
    client.disconnect()


def test_disconnected_client_is_unsubscribed_and_no_longer_counted() -> None:
    live_api = LiveApi(limits=RequestLimits(max_live=1))
    first = live_api.client()
    assert b"503" in live_api.client().received
    first.disconnect()
    assert live_api.store.subscribers == 0
    second = live_api.client()
    assert b"200 OK" in second.received
    second.disconnect()


def test_unavailable_store_ends_the_live_stream(live_api: LiveApi) -> None:
    client = live_api.client()
    live_api.store.unavailable = "no connection"
    live_api.clock.advance(16)
    assert client.transport.disconnected
