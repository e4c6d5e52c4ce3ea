"""CommitListener: samples as they are stored, once, to those who may see them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.server import Site

from meter.api import Api
from meter.api import Limits
from meter.testing import MemoryStore
from tests.asking import RECORDED
from tests.asking import message
from tests.unit.api.auth.test_visibility import TOKENS
from tests.unit.api.streaming.test_export import Transport


class CommitListener:
    """Clients that follow one API."""

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
    """One client, from the server's side."""

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

    def leave(self) -> None:
        self.channel.connectionLost(Failure(ConnectionError()))


@pytest.fixture
def following() -> CommitListener:
    return CommitListener()


def test_samples_come_as_they_are_stored(following: CommitListener) -> None:
    following.write(message(message_id="long ago"))
    following.clock.advance(60)
    client = following.client()
    assert b"200 OK" in client.received
    assert b"content-type: text/event-stream" in client.received.lower()
    assert client.ids == []
    following.write(message(message_id="a"), message(message_id="b"))
    following.clock.advance(1)
    following.write(message(-60, message_id="c"))
    assert client.ids == ["a", "b", "c"]
    client.leave()


def test_only_those_of_the_question_and_of_the_own_project_come(following: CommitListener) -> None:
    disks = following.client("q.field=meter&q.value=disk")
    blue = following.client(who="blue")
    green = following.client(who="green")
    following.write(message(message_id="a"), message(name="disk", message_id="b", project_id="red"))
    assert (disks.ids, blue.ids, green.ids) == (["b"], ["a"], [])
    for client in (disks, blue, green):
        client.leave()


def test_a_comment_comes_where_nothing_does(following: CommitListener) -> None:
    client = following.client()
    following.clock.advance(16)
    assert client.received.count(b": nothing new\n\n") == 1
    client.leave()


def test_a_slow_client_is_behind_and_costs_nothing(following: CommitListener) -> None:
    client = following.client()
    following.write(message(message_id="a"))
    client.transport.producer.pauseProducing()
    following.write(message(message_id="b"))
    before = len(client.received)
    for n in range(100):
        following.clock.advance(0.1)
        following.write(message(message_id=f"n{n}"))
    assert len(client.received) == before
    client.transport.producer.resumeProducing()
    assert client.ids == ["a", "b", *(f"n{n}" for n in range(100))]
    client.leave()


def test_more_than_a_page_comes_at_once(following: CommitListener) -> None:
    client = following.client()
    following.write(*(message(message_id=f"n{n:04}") for n in range(1201)))
    assert client.ids == [f"n{n:04}" for n in range(1201)]
    client.leave()


def test_who_leaves_is_forgotten_and_their_place_is_free() -> None:
    following = CommitListener(limits=Limits(live=1))
    first = following.client()
    assert b"503" in following.client().received
    first.leave()
    assert following.store.followers == 0
    second = following.client()
    assert b"200 OK" in second.received
    second.leave()


def test_a_store_that_goes_away_ends_the_stream(following: CommitListener) -> None:
    client = following.client()
    following.store.unavailable = "no connection"
    following.clock.advance(16)
    assert client.transport.disconnected
