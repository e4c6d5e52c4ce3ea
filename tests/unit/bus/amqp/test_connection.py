"""Connections and channels that are opened again whenever they are lost."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.defer import fail
from twisted.internet.defer import succeed
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.logger import capturedLogs
from twisted.logger import formatEvent
from twisted.logger import globalLogPublisher
from txamqp.client import TwistedEvent

from meter.bus.amqp.channel import ChannelLost
from meter.bus.amqp.connection import ChannelService
from meter.bus.amqp.connection import ConnectionService
from meter.bus.amqp.consumer import RequeueBackoff
from meter.bus.amqp.hosts import FAILOVER_SECONDS
from meter.bus.amqp.hosts import BrokerHosts
from meter.bus.amqp.url import BrokerAddress
from meter.daemon.services import Backoff


class Client:
    """A client that completes its handshake when the test says so."""

    broker = "RabbitMQ 3"

    def __init__(self):
        self.entering = Deferred()
        self.disconnected = TwistedEvent()
        self.closed = False
        self.close_reason = ChannelLost("open")

    async def open(self):
        await self.entering

    def lose(self, why):
        if not self.closed:
            self.closed = True
            self.close_reason = ChannelLost(why)
            self.disconnected.fire()

    abort = lose

    async def close(self, seconds):
        self.lose("left")


class Endpoint:
    """Hands out prepared outcomes."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)
        self.attempts = 0

    def connect(self, factory):
        self.attempts += 1
        outcome = self.outcomes.pop(0)
        return fail(outcome) if isinstance(outcome, Exception) else succeed(outcome)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def logged():
    texts = []

    def observe(event):
        if event.get("log_namespace", "").startswith("meter.bus.amqp") and event["log_level"] >= LogLevel.info:
            texts.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield texts
    globalLogPublisher.removeObserver(observe)


def connection_of(clock, *outcomes):
    endpoint = Endpoint(*outcomes)
    return connection_to(clock, {"rabbit": endpoint}), endpoint


def connection_to(clock, endpoints):
    """A started connection to one of these hosts, of which the first is tried first."""
    hosts = BrokerHosts([(BrokerAddress(name, 5672), each) for name, each in endpoints.items()], rng=lambda count: 0)
    backoff = Backoff(first=1.0, most=8.0, rng=lambda: 1.0)
    connection = ConnectionService(
        hosts,
        lambda address: Client(),
        clock=clock,
        peer=f"{','.join(endpoints)}:5672",
        purpose="testing",
        backoff=backoff,
    )
    connection.startService()
    return connection


def test_connection_is_retried_with_growing_pauses_and_the_reason_is_logged_once(clock, logged):
    connection, endpoint = connection_of(clock, *[Refused("no")] * 4, client := Client())
    assert connection.client is None
    assert connection.reason.startswith("rabbit:5672: Connection was refused")
    attempts = []
    for _ in range(15):
        attempts.append(endpoint.attempts)
        clock.advance(1)
    assert attempts == [1, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4]
    client.entering.callback(None)
    assert connection.client is client
    assert connection.reason == "connected to RabbitMQ 3 at rabbit:5672, virtual host /, user guest"
    assert [text.partition(";")[0].partition(" at")[0] for text in logged] == [
        "testing: not connected yet",
        "testing: connected to RabbitMQ 3",
    ]
    connection.stopService()


def test_broker_that_stays_away_after_the_start_is_a_warning(clock):
    with capturedLogs() as events:
        connection, _ = connection_of(clock, *[Refused("no")] * 9)
        clock.pump([1] * 40)
    levels = [each["log_level"] for each in events if each.get("purpose") == "testing"]
    assert levels == [LogLevel.info, LogLevel.warn]
    connection.stopService()


def test_connection_that_worked_is_replaced_after_a_short_pause(clock):
    first, second = Client(), Client()
    connection, _ = connection_of(clock, *[Refused("no")] * 3, first, second)
    clock.pump([1] * 8)
    first.entering.callback(None)
    waiting = connection.connected()
    assert waiting.result is first
    first.lose("power cut")
    assert connection.client is None
    assert connection.reason == "rabbit:5672: power cut"
    late = connection.connected()
    clock.advance(1)
    second.entering.callback(None)
    assert late.result is second
    connection.stopService()


def test_handshake_that_takes_too_long_is_aborted(clock):
    silent, other = Client(), Client()
    connection, _ = connection_of(clock, silent, other)
    clock.advance(30)
    assert silent.closed
    assert connection.reason == "rabbit:5672: the AMQP handshake was not completed within 30 s"
    connection.stopService()


@pytest.mark.parametrize("state", ["pausing", "entering", "connected"])
def test_connection_stops_in_every_state_and_can_start_again(clock, state):
    client = Client()
    connection, endpoint = connection_of(clock, Refused("no") if state == "pausing" else client)
    if state == "connected":
        client.entering.callback(None)
    stopping = connection.stopService()
    assert stopping.called
    assert not clock.getDelayedCalls()
    assert client.closed is (state != "pausing")
    assert connection.reason == "stopped"
    endpoint.outcomes.append(another := Client())
    connection.startService()
    another.entering.callback(None)
    assert connection.client is another
    connection.stopService()


def test_another_host_is_tried_at_once_and_the_connection_names_it(clock):
    first, second = Endpoint(Refused("no")), Endpoint(client := Client())
    connection = connection_to(clock, {"one": first, "two": second})
    client.entering.callback(None)
    assert connection.reason == "connected to RabbitMQ 3 at two:5672, virtual host /, user guest"
    assert (first.attempts, second.attempts) == (1, 1)
    connection.stopService()


def test_connection_that_is_lost_is_replaced_by_one_to_the_next_host(clock):
    before, after = Client(), Client()
    first, second = Endpoint(before), Endpoint(after)
    connection = connection_to(clock, {"one": first, "two": second})
    before.entering.callback(None)
    before.lose("power cut")
    assert connection.reason == "one,two:5672: one:5672: power cut"
    clock.advance(1)
    after.entering.callback(None)
    assert connection.client is after
    assert (first.attempts, second.attempts) == (1, 1)
    connection.stopService()


def test_host_that_hangs_in_the_handshake_is_left_for_the_next_one(clock):
    silent, other = Client(), Client()
    connection = connection_to(clock, {"one": Endpoint(silent), "two": Endpoint(other)})
    clock.advance(FAILOVER_SECONDS)
    assert silent.closed
    other.entering.callback(None)
    assert connection.client is other
    connection.stopService()


def test_pause_follows_a_turn_in_which_every_host_failed_and_all_reasons_are_told(clock):
    first, second = Endpoint(*[Refused("no")] * 9), Endpoint(*[ChannelLost("ACCESS_REFUSED")] * 9)
    connection = connection_to(clock, {"one": first, "two": second})
    assert connection.reason == (
        "one,two:5672: one:5672: Connection was refused by other side: no.; two:5672: ACCESS_REFUSED"
    )
    assert (first.attempts, second.attempts) == (1, 1)
    clock.advance(1)
    assert (first.attempts, second.attempts) == (2, 2)
    connection.stopService()


def test_no_further_host_is_tried_by_a_connection_that_stops(clock):
    first, second = Endpoint(client := Client()), Endpoint()
    connection = connection_to(clock, {"one": first, "two": second})
    assert connection.stopService().called
    assert client.closed
    assert second.attempts == 0


class Channel:
    def __init__(self):
        self.lost = TwistedEvent()
        self.close_reason = ChannelLost("open")
        self.left = False

    async def close(self, seconds):
        self.left = True
        if not self.lost._result:
            self.lost.fire()


def channel_service_of(clock, prepare):
    channels = []

    async def open_channel():
        channels.append(Channel())
        return channels[-1]

    client = SimpleNamespace(open_channel=open_channel, closed=False, aborted=[], close_reason="open")
    client.abort = client.aborted.append
    connection = SimpleNamespace(client=client, reason="connected", connected=lambda: succeed(client))
    service = ChannelService(
        connection, prepare, clock=clock, purpose="testing", backoff=Backoff(first=1.0, rng=lambda: 1.0)
    )
    service.startService()
    return service, channels, client


def test_channel_is_available_once_prepared_and_replaced_when_lost(clock):
    prepared = []

    async def prepare(channel):
        prepared.append(channel)

    service, channels, _ = channel_service_of(clock, prepare)
    assert service.channel is channels[0] is prepared[0]
    channels[0].close_reason = ChannelLost("404 no queue")
    channels[0].lost.fire()
    assert service.channel is None
    assert service.reason == "404 no queue"
    clock.advance(1)
    assert service.channel is channels[1]
    service.stopService()
    assert channels[1].left
    assert not clock.getDelayedCalls()


def test_channel_that_cannot_be_prepared_is_closed_and_another_opened(clock):
    seen = []

    async def prepare(channel):
        seen.append(channel)
        if len(seen) == 1:
            raise ChannelLost("403 ACCESS_REFUSED")

    service, made, _ = channel_service_of(clock, prepare)
    assert service.channel is None
    assert service.reason == "403 ACCESS_REFUSED"
    assert made[0].left
    clock.advance(1)
    assert service.channel is made[1]
    service.stopService()


def test_broker_that_never_prepares_a_channel_is_disconnected(clock):
    async def prepare(channel):
        await Deferred()

    service, _, client = channel_service_of(clock, prepare)
    clock.advance(60)
    assert client.aborted == ["the broker did not prepare a channel for testing within 60 s"]
    service.stopService()


def test_deliveries_that_fail_together_share_a_pause_and_pauses_grow(clock):
    requeue_backoff = RequeueBackoff(clock, Backoff(first=1.0, rng=lambda: 1.0))
    ended = []

    def fails(name):
        Deferred.fromCoroutine(requeue_backoff.pause()).addCallback(lambda _: ended.append(name))

    fails("a")
    clock.advance(0.5)
    fails("b")
    clock.advance(0.5)
    assert ended == ["a", "b"]
    fails("c")
    clock.advance(1.9)
    assert ended == ["a", "b"]
    clock.advance(0.1)
    assert ended == ["a", "b", "c"]
    requeue_backoff.reset()
    fails("d")
    clock.advance(1)
    assert ended[-1] == "d"
