"""Whatever bytes a broker sends: nothing is raised, memory has a limit, and callers that wait get an error."""

from __future__ import annotations

import struct

from hypothesis import assume
from hypothesis import example
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from meter.bus.amqp.client import MAX_FRAME_BYTES
from meter.bus.amqp.client import Client
from meter.bus.amqp.frames import PROTOCOL
from meter.bus.amqp.tables import decode_table
from meter.bus.amqp.tables import encode_table
from meter.bus.amqp.url import BrokerAddress
from tests.unit.bus.amqp.test_client import Broker
from tests.unit.bus.amqp.test_client import Transport
from tests.unit.bus.amqp.test_client import connected
from tests.unit.bus.amqp.test_client import opened

MAX_BODY_BYTES = 1000
KEPT_BYTES = 100

fuzzed = settings(max_examples=150, deadline=None)


def frame(kind, channel, payload, end=b"\xce"):
    return struct.pack("!BHI", kind, channel, len(payload)) + payload + end


METHODS = sorted((klass.id, method.id) for klass in PROTOCOL.classes for method in klass.methods)
SHORT_TEXTS = st.binary(max_size=20).map(lambda data: bytes([len(data)]) + data)
ARGUMENTS = st.lists(st.binary(max_size=12) | SHORT_TEXTS, max_size=6).map(b"".join)
TABLES = st.binary(max_size=60).map(lambda data: struct.pack("!I", len(data)) + data)
METHOD_PAYLOADS = st.builds(
    lambda method, arguments: struct.pack("!HH", *method) + arguments,
    st.sampled_from(METHODS) | st.tuples(st.integers(0, 100), st.integers(0, 120)),
    ARGUMENTS | TABLES,
)
DELIVER = struct.pack("!HH", 60, 60) + b"\x05meter" + struct.pack("!QB", 1, 0) + b"\x08metering\x01k"
SIZES = st.sampled_from([0, 1, 5, MAX_BODY_BYTES, MAX_BODY_BYTES + 1, 2**31, 2**63, 2**64 - 1])
HEADER_PAYLOADS = st.builds(
    lambda size, flags, rest: struct.pack("!HHQH", 60, 0, size, flags) + rest,
    SIZES,
    st.sampled_from([0, 0x2000, 0x8000, 0xA000, 0xFFFF, 0x0001]),
    TABLES | ARGUMENTS,
)
PAYLOADS = METHOD_PAYLOADS | HEADER_PAYLOADS | st.just(DELIVER) | st.binary(max_size=40)
FRAMES = st.builds(
    frame,
    st.sampled_from([1, 1, 1, 2, 2, 3, 3, 8, 0, 4, 255]),
    st.sampled_from([0, 1, 1, 1, 2, 65535]),
    PAYLOADS,
    st.sampled_from([b"\xce"] * 8 + [b"\x00", b""]),
)
STREAMS = st.lists(FRAMES | st.binary(max_size=30), max_size=12).map(b"".join)


def bare_client():
    client = Client(
        BrokerAddress("rabbit", 5672),
        clock=Clock(),
        connection_name="test",
        heartbeat_seconds=10,
        max_body_bytes=MAX_BODY_BYTES,
        kept_bytes=KEPT_BYTES,
    )
    transport = Transport()
    transport.protocol = client
    client.makeConnection(transport)
    transport.clear()
    return client, Broker(client, transport)


def fed(client, data, step):
    """Feed bytes as the network may cut them; a transport says nothing more once it was closed."""
    for start in range(0, len(data), step):
        if client.closed:
            return
        client.dataReceived(data[start : start + step])
        assert len(client._received) <= MAX_FRAME_BYTES + step


@fuzzed
@given(st.binary(max_size=300) | STREAMS, st.integers(1, 64))
@example(b"HTTP/1.1 400 Bad Request\r\n\r\n", 64)
@example(frame(1, 0, b"")[:-1] + b"\x00", 1)
@example(struct.pack("!BHI", 3, 1, 2**32 - 1), 64)
def greets(data, step):
    client, broker = bare_client()
    entering = Deferred.fromCoroutine(client.open())
    entering.addErrback(lambda _: None)
    fed(client, data, step)
    assert entering.called or not client.closed
    broker.transport.abortConnection()
    assert entering.called


def test_broker_may_send_any_bytes_first(logged_errors):
    greets()
    logged_errors.flush()  # once: it collects garbage


@fuzzed
@given(STREAMS, st.integers(1, 64))
@example(frame(3, 1, b"x"), 64)
@example(
    frame(1, 1, DELIVER) + frame(2, 1, struct.pack("!HHQH", 60, 0, 2**64 - 1, 0)) + frame(3, 1, b"x" * 4000) * 9, 64
)
@example(frame(1, 1, DELIVER) + frame(3, 1, b"a body before its header"), 64)
@example(frame(1, 1, DELIVER) * 50, 64)
@example(frame(2, 1, struct.pack("!HHQH", 60, 0, 1, 0x2000) + encode_table({"a": [[[1]]]})) * 3, 1)
def goes_mad(data, step):
    client, broker = bare_client()
    connected(client, broker)
    channel = opened(client, broker)
    bodies = []
    channel.on_delivery = lambda message: bodies.append(message.content.body)
    asking = channel.basic_qos(prefetch_count=1)
    asking.addErrback(lambda _: None)
    fed(client, data, step)
    assert all(len(body) <= MAX_BODY_BYTES for body in bodies)
    arriving = channel._incoming
    assert arriving is None or arriving.kept_bytes <= MAX_BODY_BYTES
    assert len(client.channels) <= 2
    broker.transport.abortConnection()
    assert channel.closed
    assert asking.called
    assert client.disconnected.wait().called


def test_broker_that_sends_garbage_loses_its_connection_only(logged_errors):
    goes_mad()
    logged_errors.flush()


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=200)
    | st.lists(st.sampled_from([b"\x01aA\0\0\0\x05", b"F\0\0\0\x09", b"t\x01", b"S\0\0\0\x02\xff\xfe"])).map(b"".join)
)
@example(b"\x01a" + b"A\0\0\1\0" * 2000)
@example(b"\x01aD\xff\x7f\xff\xff\xff")
@example(b"\x01aT" + b"\xff" * 8)
@example(b"\x01ad\x7f\xf8\0\0\0\0\0\0")
def test_bytes_decode_to_a_table_or_raise_value_error(data):
    try:
        table = decode_table(data)
    except ValueError:
        return
    assert isinstance(table, dict)


KEYS = st.text(max_size=20).filter(lambda text: len(text.encode("utf-8", "replace")) <= 255)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.decimals(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_headers_survive_encoding_and_decoding_or_raise_value_error(table):
    try:
        written = encode_table(table)
    except ValueError:
        return
    assume(all(not isinstance(value, bytes) for value in table.values()))
    assert decode_table(written[4:]).keys() == table.keys()
