"""Publishing with confirms, on a fake channel whose replies the test chooses."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.defer import succeed
from twisted.internet.task import Clock
from txamqp.client import TwistedEvent

from meter.bus.amqp.channel import ChannelLost
from meter.bus.amqp.publisher import Publisher
from meter.interfaces import Publication
from meter.interfaces import Unavailable

CPU = Publication(exchange="metering", routing_key="metering.cpu", body=b"{}")


class Channel:
    """A channel that records what is published."""

    def __init__(self, client):
        self.client = client
        self.lost = TwistedEvent()
        self.close_reason = ChannelLost("open")
        self.published = []

    def confirm_select(self):
        return succeed(None)

    def basic_publish(self, **arguments):
        if "bad" in arguments["content"].properties["headers"]:
            raise ValueError("cannot be a header")
        self.published.append(arguments)

    def ack(self, tag, multiple=False):
        self.on_ack(SimpleNamespace(delivery_tag=tag, multiple=multiple))

    def nack(self, tag, multiple=False):
        self.on_nack(SimpleNamespace(delivery_tag=tag, multiple=multiple))

    def give_back(self, number):
        """Return publication ``number`` of those published here, counted from 1."""
        arguments = self.published[number - 1]
        self.on_return(
            SimpleNamespace(
                reply_text="NO_ROUTE",
                exchange=arguments["exchange"],
                routing_key=arguments["routing_key"],
                content=arguments["content"],
            )
        )

    def lose(self, why):
        self.close_reason = ChannelLost(why)
        self.lost.fire()

    async def close(self, seconds):
        if not self.lost._result:
            self.lose("left")


class Client:
    """A client whose channels are handed out one after another."""

    def __init__(self):
        self.blocked = None
        self.closed = False
        self.close_reason = "open"
        self.channels = []

    async def open_channel(self):
        self.channels.append(Channel(self))
        return self.channels[-1]

    def abort(self, reason):
        self.close_reason = reason
        self.channels[-1].lose(reason)


class Topology:
    """What was declared."""

    def __init__(self):
        self.declared = []

    async def exchange(self, client, name):
        self.declared.append(f"exchange {name}")

    async def queue(self, client, name):
        self.declared.append(f"queue {name}")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def client():
    return Client()


@pytest.fixture
def topology():
    return Topology()


@pytest.fixture
def publisher(client, topology, clock):
    connection = SimpleNamespace(client=client, reason="connected", connected=lambda: succeed(client))
    publisher = Publisher(connection, topology, clock=clock, window=3, confirm_timeout_seconds=30.0, max_body_bytes=100)
    publisher.startService()
    yield publisher
    if publisher.running:
        publisher.stopService()
        client.channels[-1].nack(99, multiple=True)
    assert not clock.getDelayedCalls()


def publish(publisher, number, publication=CPU):
    """Begin ``number`` publications; their outcomes are Deferreds of "safe" or of the error's text."""
    works = [Deferred.fromCoroutine(publisher.publish(publication)) for _ in range(number)]
    for work in works:
        work.addCallbacks(lambda _: "safe", lambda failure: str(failure.trap(Unavailable) and failure.value))
    return works


def outcomes(works):
    return [work.result if work.called else None for work in works]


def test_exchange_and_dead_letter_queue_are_declared_first(publisher, topology):
    assert topology.declared == ["exchange metering", "queue metering.dead"]
    assert publisher.ready


def test_publication_succeeds_when_it_is_confirmed_and_not_before(publisher, client):
    works = publish(publisher, 2)
    [channel] = client.channels
    assert len(channel.published) == 2
    assert outcomes(works) == [None, None]
    channel.ack(2)
    assert outcomes(works) == [None, "safe"]
    channel.ack(1)
    assert outcomes(works) == ["safe", "safe"]


def test_confirm_may_cover_several_publications(publisher, client):
    works = publish(publisher, 3)
    client.channels[0].ack(2, multiple=True)
    assert outcomes(works) == ["safe", "safe", None]


def test_publications_beyond_the_window_wait_in_order(publisher, client):
    works = [*publish(publisher, 3), *publish(publisher, 2, Publication(exchange="e", routing_key="late", body=b""))]
    [channel] = client.channels
    assert len(channel.published) == 3
    channel.ack(2)
    assert len(channel.published) == 4
    channel.ack(3, multiple=True)
    assert len(channel.published) == 5
    channel.ack(5, multiple=True)
    assert outcomes(works) == ["safe"] * 5


def test_window_opens_for_as_many_as_were_confirmed_at_once(publisher, client):
    works = publish(publisher, 9)
    [channel] = client.channels
    channel.ack(3, multiple=True)
    assert len(channel.published) == 6
    channel.ack(6, multiple=True)
    channel.ack(9, multiple=True)
    assert outcomes(works) == ["safe"] * 9


def test_rejected_publication_raises_unavailable(publisher, client):
    works = publish(publisher, 2)
    client.channels[0].nack(1)
    client.channels[0].ack(2)
    assert outcomes(works) == [
        "the broker rejected the message: its queue is full, or has no majority of its nodes",
        "safe",
    ]


def test_returned_publication_raises_unavailable_though_it_is_confirmed(publisher, client):
    works = publish(publisher, 3)
    client.channels[0].give_back(2)
    client.channels[0].ack(3, multiple=True)
    assert outcomes(works) == [
        "safe",
        "NO_ROUTE: no queue is bound to exchange 'metering' for routing key 'metering.cpu'",
        "safe",
    ]


def test_returned_dead_letter_declares_its_queue_again(publisher, client, topology):
    works = publish(publisher, 1, Publication(exchange="", routing_key="metering.dead", body=b""))
    client.channels[0].give_back(1)
    client.channels[0].ack(1)
    assert outcomes(works)[0].startswith("NO_ROUTE")
    assert topology.declared[2:] == ["queue metering.dead"]


def test_late_confirm_aborts_the_connection_and_fails_every_unconfirmed_publication(publisher, client, clock):
    works = publish(publisher, 4)
    clock.advance(29)
    late = publish(publisher, 1)
    clock.advance(1)
    assert outcomes(works)[0] == "not confirmed within 30 s"
    assert outcomes(works + late) == [
        "not confirmed within 30 s",
        "the channel was lost before the broker confirmed: the broker confirmed nothing for 30 s",
        "the channel was lost before the broker confirmed: the broker confirmed nothing for 30 s",
        *outcomes(works)[3:],
        *outcomes(late),
    ]
    assert None not in outcomes(works + late)


def test_lost_channel_fails_unconfirmed_publications_and_is_replaced(publisher, client, clock):
    works = publish(publisher, 5)
    client.channels[0].lose("404")
    assert outcomes(works)[:3] == ["the channel was lost before the broker confirmed: 404"] * 3
    assert None not in outcomes(works)
    assert not publisher.ready
    clock.advance(1)
    again = publish(publisher, 1)
    client.channels[1].ack(1)
    assert outcomes(again) == ["safe"]


def test_publication_waits_while_the_broker_blocks(publisher, client, clock):
    client.blocked = "low on disk"
    works = publish(publisher, 2)
    assert client.channels[0].published == []
    assert publisher.reason == "the broker blocks publishing: low on disk"
    clock.advance(29)
    client.blocked = None
    client.channels[0].on_unblocked()
    assert len(client.channels[0].published) == 2
    client.channels[0].ack(2, multiple=True)
    assert outcomes(works) == ["safe", "safe"]


def test_publication_fails_when_the_broker_blocks_too_long(publisher, client, clock):
    client.blocked = "low on disk"
    works = publish(publisher, 1)
    clock.advance(30)
    assert outcomes(works) == ["not sent within 30 s: the broker blocks publishing: low on disk"]


def test_unconfirmed_publication_keeps_the_connection_of_a_blocking_broker(publisher, client, clock):
    works = publish(publisher, 1)
    client.blocked = "low on disk"
    clock.advance(30)
    assert outcomes(works) == ["not confirmed within 30 s: the broker blocks publishing: low on disk"]
    assert len(client.channels) == 1
    assert not client.channels[0].lost._result
    client.channels[0].ack(1)


def test_publication_that_cannot_be_encoded_does_not_count(publisher, client):
    bad = Deferred.fromCoroutine(
        publisher.publish(Publication(exchange="e", routing_key="k", body=b"", headers={"bad": "x"}))
    )
    assert bad.result.check(ValueError)
    bad.addErrback(lambda _: None)
    works = publish(publisher, 1)
    client.channels[0].ack(1)
    assert outcomes(works) == ["safe"]


def test_cancelled_publication_affects_no_other(publisher, client):
    works = publish(publisher, 4)
    for work in (works[0], works[3]):
        work.addErrback(lambda _: None)
        work.cancel()
    client.channels[0].ack(3, multiple=True)
    assert outcomes(works)[1:3] == ["safe", "safe"]
    assert len(client.channels[0].published) == 3


def test_stop_waits_for_confirms_and_refuses_new_publications(publisher, client):
    works = publish(publisher, 4)
    stopping = publisher.stopService()
    assert outcomes(works)[3] == "the bus is stopped"
    assert not stopping.called
    client.channels[0].ack(3, multiple=True)
    assert stopping.called
    assert outcomes(works)[:3] == ["safe"] * 3
    assert outcomes(publish(publisher, 1)) == ["the bus is stopped"]
