"""The AMQP client against a broker of a few bytes."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from txamqp.connection import Body
from txamqp.connection import Frame
from txamqp.connection import Header
from txamqp.connection import Heartbeat
from txamqp.connection import Method
from txamqp.content import Content

from meter.bus.amqp.channel import ChannelLost
from meter.bus.amqp.client import Client
from meter.bus.amqp.frames import PROTOCOL
from meter.bus.amqp.frames import decode_frame
from meter.bus.amqp.frames import encode_frame
from meter.bus.amqp.url import BrokerAddress

BASIC = PROTOCOL.classes.byname["basic"]


class Transport(StringTransport):
    """A transport that tells its protocol when the connection is closed."""

    protocol: Client

    def loseConnection(self):
        super().loseConnection()
        self._end()

    def abortConnection(self):
        super().abortConnection()
        self._end()

    def _end(self):
        if self.connected:
            self.connected = False
            self.protocol.connectionLost(Failure(ConnectionDone()))


class Broker:
    """The other end: says methods and contents, and hears what the client wrote."""

    def __init__(self, client, transport):
        self._client = client
        self.transport = transport

    def say(self, channel, klass, name, *arguments):
        method = PROTOCOL.classes.byname[klass].methods.byname[name]
        self._client.dataReceived(self.frame(channel, Method(method, *arguments)))

    def frame(self, channel, payload):
        return encode_frame(Frame(channel, payload))

    def deliver(self, channel, body, pieces=1):
        """Return the frames of a delivery."""
        deliver = BASIC.methods.byname["deliver"]
        step = max(1, -(-len(body) // pieces))
        return b"".join(
            [
                self.frame(channel, Method(deliver, "meter", 1, False, "metering", "metering.cpu")),
                self.frame(channel, Header(BASIC, 0, len(body))),
                *(self.frame(channel, Body(body[at : at + step])) for at in range(0, len(body), step)),
            ]
        )

    def received(self):
        """Return the names of the methods that the client wrote since the last time."""
        data = self.transport.value()
        self.transport.clear()
        names = []
        while data:
            end = 8 + int.from_bytes(data[3:7])
            frame = decode_frame(data[:end])
            payload = frame.payload
            names.append(
                f"{payload.method.klass.name}.{payload.method.name}"
                if frame.payload.type == Frame.METHOD
                else frame.payload.type
            )
            data = data[end:]
        return names


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def client(clock):
    return Client(
        BrokerAddress("rabbit", 5672, "/v", "me", "pässword"),
        clock=clock,
        connection_name="test",
        heartbeat_seconds=10,
        max_body_bytes=1000,
        kept_bytes=100,
    )


@pytest.fixture
def broker(client):
    transport = Transport()
    transport.protocol = client
    client.makeConnection(transport)
    assert transport.value() == b"AMQP\x00\x00\x09\x01"
    transport.clear()
    yield Broker(client, transport)
    transport.abortConnection()


def connected(client, broker, channel_max=2047, frame_max=131072):
    entering = Deferred.fromCoroutine(client.open())
    broker.say(0, "connection", "start", 0, 9, {"product": "RabbitMQ", "version": "3"}, "PLAIN AMQPLAIN", "en_US")
    broker.say(0, "connection", "tune", channel_max, frame_max, 60)
    broker.say(0, "connection", "open-ok", "")
    assert entering.called
    return entering


def opened(client, broker):
    opening = Deferred.fromCoroutine(client.open_channel())
    broker.say(client._last_channel, "channel", "open-ok", "")
    broker.received()
    return opening.result


def test_handshake_declares_our_capabilities_and_uses_plain(client, broker):
    entering = Deferred.fromCoroutine(client.open())
    broker.say(0, "connection", "start", 0, 9, {}, "PLAIN", "en_US")
    written = broker.transport.value()
    for capability in (b"consumer_cancel_notify", b"connection.blocked", b"authentication_failure_close"):
        assert capability + b"t\x01" in written
    assert "\0me\0pässword".encode() in written
    assert broker.received() == ["connection.start-ok"]
    broker.say(0, "connection", "tune", 0, 0, 60)
    assert broker.received() == ["connection.tune-ok", "connection.open"]
    assert not entering.called
    broker.say(0, "connection", "open-ok", "")
    assert entering.called


@pytest.mark.parametrize(("offered", "agreed"), [(0, 131072), (4096, 4096), (2**31, 131072)])
def test_frame_size_has_a_limit_whatever_the_broker_offers(client, broker, offered, agreed):
    connected(client, broker, frame_max=offered)
    assert agreed == client.MAX_LENGTH
    publish = BASIC.methods.byname["publish"]

    data = b"".join(client.frames(1, publish, (0, "e", "k", True, False), Content(b"x" * 200_000)))
    while data:
        end = 8 + int.from_bytes(data[3:7])
        assert end <= agreed
        data = data[end:]


def test_open_fails_with_the_reason_why_the_broker_refused(client, broker):
    entering = Deferred.fromCoroutine(client.open())
    broker.say(0, "connection", "close", 403, "ACCESS_REFUSED - no", 0, 0)
    failure = entering.result
    entering.addErrback(lambda _: None)
    assert failure.check(ChannelLost)
    assert str(failure.value) == "the broker replied 403 ACCESS_REFUSED - no"
    assert failure.value.code == 403
    assert broker.received()[-1] == "connection.close-ok"


def test_connection_sends_heartbeats_and_is_aborted_after_three_silent_intervals(client, broker, clock):
    connected(client, broker)
    broker.received()
    clock.pump([10] * 3)
    assert broker.received() == [Frame.HEARTBEAT] * 3
    client.dataReceived(broker.frame(0, Heartbeat()))
    clock.pump([10] * 3)
    assert not broker.transport.disconnecting
    assert not client.closed
    clock.pump([10])
    assert client.closed
    assert str(client.close_reason) == "the broker was silent for 40 s"
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_frames_arrive_however_the_network_splits_them(client, broker, step):
    connected(client, broker)
    channel = opened(client, broker)
    got = []
    channel.on_delivery = got.append
    data = (
        broker.deliver(channel.id, b"first", 2) + broker.deliver(channel.id, b"") + broker.deliver(channel.id, b"last")
    )
    for at in range(0, len(data), step):
        client.dataReceived(data[at : at + step])
    assert [message.content.body for message in got] == [b"first", b"", b"last"]


def test_contents_on_two_channels_may_be_interleaved(client, broker):
    connected(client, broker)
    first, second = opened(client, broker), opened(client, broker)
    got = []
    first.on_delivery = second.on_delivery = lambda message: got.append(message.content.body)

    def frames(channel, body):
        data = broker.deliver(channel.id, body, 2)
        while data:
            end = 8 + int.from_bytes(data[3:7])
            yield data[:end]
            data = data[end:]

    for one, other in zip(frames(first, b"aaaa"), frames(second, b"bbbb"), strict=True):
        client.dataReceived(one + other)
    assert got == [b"aaaa", b"bbbb"]


def test_body_that_is_too_large_is_truncated(client, broker):
    connected(client, broker)
    channel = opened(client, broker)
    got = []
    channel.on_delivery = got.append
    client.dataReceived(broker.deliver(channel.id, b"x" * 1001, 50))
    client.dataReceived(broker.deliver(channel.id, b"y" * 1000, 50))
    large, whole = (message.content for message in got)
    assert (large.body, large.size, large.complete) == (b"x" * 100, 1001, False)
    assert (whole.body, whole.complete) == (b"y" * 1000, True)


@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x0a",
        b"\x01\x00\x00\x00\x00\x00\x04\x00\x63\x00\x63\xce",
        b"\x03\x00\x00\x00\x00\x00\x01x\xce",
        b"\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x29\xce",
    ],
    ids=["another protocol", "no frame end", "unknown method", "a body from nowhere", "an answer without question"],
)
def test_invalid_bytes_abort_the_connection_and_fail_what_waits(client, broker, garbage, logged_errors):
    entering = Deferred.fromCoroutine(client.open())
    entering.addErrback(lambda failure: str(failure.value))
    client.dataReceived(garbage + b"\xce" * 8)
    assert entering.result == "the broker sent invalid AMQP"
    assert broker.transport.disconnected or not broker.transport.connected
    assert logged_errors.flush()


def test_closed_channel_fails_its_callers_and_no_others(client, broker):
    connected(client, broker)
    channel, other = opened(client, broker), opened(client, broker)
    answers = [channel.basic_qos(prefetch_count=1), channel.confirm_select()]
    reply = other.basic_qos(prefetch_count=1)
    broker.say(channel.id, "channel", "close", 404, "NOT_FOUND - no queue", 0, 0)
    for answer in answers:
        assert answer.result.check(ChannelLost)
        answer.addErrback(lambda _: None)
    assert not reply.called
    assert broker.received()[-1] == "channel.close-ok"
    broker.say(channel.id, "basic", "qos-ok")
    with pytest.raises(ChannelLost, match="404"):
        channel.basic_qos(prefetch_count=1)
    broker.say(other.id, "basic", "qos-ok")
    assert reply.called


def test_channel_that_opens_while_the_connection_closes_fails(client, broker):
    connected(client, broker)
    opening = Deferred.fromCoroutine(client.open_channel())
    client.abort("gone")
    late = Deferred.fromCoroutine(client.open_channel())
    for each in (opening, late):
        assert str(each.result.value) == "gone"
        each.addErrback(lambda _: None)


def test_blocked_connection_reports_the_reason_and_channels_learn_when_it_ends(client, broker):
    connected(client, broker)
    channel, reasons = opened(client, broker), []
    channel.on_unblocked = lambda: reasons.append(client.blocked)
    broker.say(0, "connection", "blocked", "low on memory")
    assert client.blocked == "low on memory"
    assert reasons == []
    broker.say(0, "connection", "unblocked")
    assert reasons == [None]


def test_message_that_cannot_be_encoded_raises_and_sends_nothing(client, broker):
    connected(client, broker)
    channel = opened(client, broker)
    content = Content(b"", properties={"headers": {"bad": object()}})
    with pytest.raises(ValueError, match="cannot be encoded"):
        channel.basic_publish(exchange="e", routing_key="k", content=content)
    assert broker.transport.value() == b""


@pytest_twisted.ensureDeferred
async def test_close_sends_connection_close_and_waits_for_the_reply(client, broker, clock):
    connected(client, broker)
    broker.received()
    leaving = Deferred.fromCoroutine(client.close(2))
    assert broker.received() == ["connection.close"]
    assert not leaving.called
    broker.say(0, "connection", "close-ok")
    await leaving
    assert not clock.getDelayedCalls()


@pytest_twisted.ensureDeferred
async def test_close_aborts_after_its_time_limit_when_the_broker_does_not_reply(client, broker, clock):
    connected(client, broker)
    leaving = Deferred.fromCoroutine(client.close(2))
    clock.advance(1.9)
    assert not leaving.called
    clock.advance(0.2)
    await leaving
    assert not clock.getDelayedCalls()
