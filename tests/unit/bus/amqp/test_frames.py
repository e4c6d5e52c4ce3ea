"""Encoding and decoding of frames. tests/integration/test_amqp_traps.py sends them to RabbitMQ."""

from __future__ import annotations

import importlib
import importlib.metadata
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from txamqp.connection import Body
from txamqp.connection import Frame
from txamqp.connection import Header
from txamqp.connection import Heartbeat
from txamqp.connection import Method

from meter.bus.amqp import frames
from meter.bus.amqp.frames import PROTOCOL
from meter.bus.amqp.frames import body_frame
from meter.bus.amqp.frames import decode_frame
from meter.bus.amqp.frames import encode_frame

BASIC = PROTOCOL.classes.byname["basic"]
TEXTS = st.text(max_size=40).filter(lambda text: len(text.encode("utf-8", "replace")) <= 255)
VALUES = {
    "bit": st.booleans(),
    "octet": st.integers(0, 2**8 - 1),
    "short": st.integers(0, 2**16 - 1),
    "long": st.integers(0, 2**32 - 1),
    "longlong": st.integers(0, 2**64 - 1),
    "timestamp": st.integers(0, 2**64 - 1),
    "shortstr": TEXTS,
    "longstr": st.text(max_size=300),
    "table": st.dictionaries(TEXTS, st.integers() | TEXTS | st.lists(st.booleans(), max_size=3), max_size=3),
}
METHODS = st.sampled_from([method for klass in PROTOCOL.classes for method in klass.methods])
CALLS = METHODS.flatmap(
    lambda method: st.tuples(st.just(method), st.tuples(*(VALUES[field.type] for field in method.fields)))
)
PROPERTIES = st.fixed_dictionaries({}, optional={field.name: VALUES[field.type] for field in BASIC.fields})


def method(klass, name, *arguments):
    return Method(PROTOCOL.classes.byname[klass].methods.byname[name], *arguments)


def test_other_versions_of_txamqp_are_refused(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.9")
    with pytest.raises(ImportError, match=r"requires txAMQP 0\.8\.2; installed is 0\.9"):
        importlib.reload(frames)


def test_protocol_definition_has_the_extensions_of_rabbitmq():
    classes = {klass.name: {method.name for method in klass.methods} for klass in PROTOCOL.classes}
    assert {"blocked", "unblocked"} <= classes["connection"]
    assert "nack" in classes["basic"]
    assert classes["confirm"] == {"select", "select-ok"}


def test_no_wait_bits_have_the_name_that_txamqp_expects():
    fields = {field.name for klass in PROTOCOL.classes for method in klass.methods for field in method.fields}
    assert "nowait" in fields
    assert "no-wait" not in fields


def test_publication_is_encoded_as_the_standard_specifies():
    publish = encode_frame(Frame(1, method("basic", "publish", 0, "metering", "k", True, False)))
    assert publish == b"\x01\0\x01\0\0\0\x12\0\x3c\0\x28\0\0\x08metering\x01k\x01\xce"
    header = encode_frame(Frame(1, Header(BASIC, 0, 5, **{"content-type": "a/b", "delivery-mode": 2})))
    assert header == b"\x02\0\x01\0\0\0\x13\0\x3c\0\0\0\0\0\0\0\0\0\x05\x90\0\x03a/b\x02\xce"
    assert encode_frame(Frame(1, Body(b"\xff{}"))) == b"\x03\0\x01\0\0\0\x03\xff{}\xce"
    assert b"".join(body_frame(1, b"\xff{}")) == b"\x03\0\x01\0\0\0\x03\xff{}\xce"
    assert encode_frame(Frame(0, Heartbeat())) == b"\x08\0\0\0\0\0\0\xce"


def test_consecutive_bits_share_an_octet():
    delete = encode_frame(Frame(1, method("queue", "delete", 0, "q", False, True, True)))
    assert delete == b"\x01\0\x01\0\0\0\x09\0\x32\0\x28\0\0\x01q\x06\xce"
    assert decode_frame(delete).payload.args == (0, "q", False, True, True)


@given(CALLS, st.integers(0, 2047))
def test_methods_are_decoded_as_they_were_encoded(call, channel):
    wanted, arguments = call
    try:
        data = encode_frame(Frame(channel, Method(wanted, *arguments)))
    except ValueError:
        return  # half of a surrogate pair, or a number that no table holds
    frame = decode_frame(data)
    assert frame.channel == channel
    assert frame.payload.method is wanted
    assert tuple(frame.payload.args) == arguments


@given(PROPERTIES, st.integers(0, 2**64 - 1))
def test_message_properties_are_decoded_as_they_were_encoded(properties, size):
    try:
        data = encode_frame(Frame(1, Header(BASIC, 0, size, **properties)))
    except ValueError:
        return
    header = decode_frame(data).payload
    assert (header.size, header.properties) == (size, properties)


@pytest.mark.parametrize("text", ["", "Zoë", "日本" * 20, b"\xff\xfe"])
def test_text_is_counted_in_bytes(text):
    data = encode_frame(Frame(1, method("basic", "cancel", text, False)))
    written = text.encode() if isinstance(text, str) else text
    assert bytes([len(written)]) + written in data
    assert decode_frame(data).payload.args[0] == text


@pytest.mark.parametrize("body", [b"", b"ascii", "Zoë".encode(), b"\xff"])
def test_body_is_bytes_whatever_it_contains(body):
    assert decode_frame(encode_frame(Frame(1, Body(body)))).payload.content == body


@pytest.mark.parametrize(
    "payload",
    [
        method("basic", "cancel", "x" * 256, False),
        method("basic", "ack", 2**64, False),
        Header(BASIC, 0, 1, **{"delivery mode": 2}),
        Header(BASIC, 0, 1, headers={"x": object()}),
    ],
    ids=["a text that is too long", "a number that is too large", "a property of another version", "no JSON"],
)
def test_value_that_amqp_cannot_represent_is_a_value_error(payload):
    with pytest.raises(
        ValueError, match=r"out of range|AMQP has no type for|unknown message properties: delivery mode"
    ):
        encode_frame(Frame(1, payload))


@pytest.mark.parametrize(
    "data",
    [
        b"\x01\0\x01\0\0\0\x06\0\x3c\0\x1e\x09x\xce",  # a consumer tag of nine letters that has one
        b"\x01\0\x01\0\0\0\x04\0\x3c\0\xff\xce",  # no method
        b"\x02\0\x01\0\0\0\x0e\0\x3c\0\0\0\0\0\0\0\0\0\x05\0\x01\xce",  # more properties to come
        b"\x04\0\x01\0\0\0\0\xce",  # no kind of frame
        b"\x08\0\0\0\0\0\0\0",  # no end
    ],
)
def test_bytes_that_are_not_a_frame_are_refused(data):
    with pytest.raises((ValueError, LookupError, struct.error)):
        decode_frame(data)
