"""Encoding and decoding of frames, by the protocol definition in ``protocol.xml``.

What txAMQP 0.8.2, the last release of an unmaintained library, does, and what this module does instead:

- It is distributed without a protocol definition: ``AMQFactory()`` fails with "unknown url type". Here is one.
- Its codec counts text in characters where the broker counts bytes, decodes bodies as text where it can, and knows six
  of the types of table values. The first non-ASCII letter stops the consumer, the first ``x-death`` closes the
  connection. Here lengths are bytes, bodies are bytes, and every type is known.
- It makes eight calls and uses two streams to read a number, and every message has three frames: that took a quarter of
  the collector's time. Here values are read from the buffer with ``struct``.

tests/unit/bus/amqp/test_frames.py has a test for each, tests/integration/test_amqp_traps.py the same with RabbitMQ.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from txamqp import spec
from txamqp.connection import Body
from txamqp.connection import Frame
from txamqp.connection import Header
from txamqp.connection import Heartbeat
from txamqp.connection import Method

from meter.bus.amqp.tables import decode_table
from meter.bus.amqp.tables import encode_table
from meter.bus.amqp.tables import text_or_bytes

SUPPORTED_VERSION = "0.8.2"

if version("txAMQP") != SUPPORTED_VERSION:
    raise ImportError(f"meter.bus.amqp requires txAMQP {SUPPORTED_VERSION}; installed is {version('txAMQP')}")

PROTOCOL = spec.load_string(files(__package__).joinpath("protocol.xml").read_bytes(), "protocol.xml")

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
FRAME_END = 206

FRAME_BEGIN = struct.Struct("!BHL")
"""Type, channel and size of a frame."""

_END = bytes([FRAME_END])
_HEADER = struct.Struct("!HHQ")
_OCTET, _SHORT, _LONG, _LONGLONG = (struct.Struct(f"!{letter}") for letter in "BHLQ")

_METHODS = {(klass.id << 16) + method.id: method for klass in PROTOCOL.classes for method in klass.methods}
_FIELD_TYPES = {method: tuple(field.type for field in method.fields) for method in _METHODS.values()}
_PROPERTIES = {klass.id: tuple((field.name, field.type) for field in klass.fields) for klass in PROTOCOL.classes}


def encode_frame(frame: Frame) -> bytes:
    """Return the bytes of ``frame``; ``ValueError`` or ``TypeError`` for values that AMQP cannot represent."""
    kind, content = _encode_payload(frame.payload)
    return b"%b%b%c" % (FRAME_BEGIN.pack(kind, frame.channel, len(content)), content, FRAME_END)


def body_frame(channel: int, content: bytes) -> tuple[bytes, bytes, bytes]:
    """Return the pieces of the frame of a part of a body."""
    return FRAME_BEGIN.pack(BODY, channel, len(content)), content, _END


def _encode_payload(payload: Any) -> tuple[int, bytes]:
    try:
        if isinstance(payload, Method):
            method = payload.method
            return METHOD, _LONG.pack((method.klass.id << 16) + method.id) + _encode_arguments(
                _FIELD_TYPES[method], payload.args
            )
        if isinstance(payload, Header):
            return HEADER, _HEADER.pack(payload.klass.id, payload.weight, payload.size) + _encode_properties(payload)
        if isinstance(payload, Body):
            return BODY, payload.content
    except struct.error as error:
        raise ValueError(f"the value is out of range: {error}") from error
    return HEARTBEAT, b""


def decode_frame(data: bytes) -> Frame:
    """Return the frame that ``data`` holds; ``ValueError``, ``LookupError`` or ``struct.error`` where it is not one frame."""
    kind, channel, size = FRAME_BEGIN.unpack_from(data)
    start = FRAME_BEGIN.size
    if len(data) != start + size + 1 or data[-1] != FRAME_END:
        raise ValueError(f"the frame end octet is missing after {size} bytes")
    payload: Any
    if kind == METHOD:
        method = _METHODS[_LONG.unpack_from(data, start)[0]]
        payload = Method(method, *_decode_arguments(_FIELD_TYPES[method], data, start + _LONG.size))
    elif kind == HEADER:
        payload = _decode_header(data, start)
    elif kind == BODY:
        payload = Body(data[start:-1])
    elif kind == HEARTBEAT:
        payload = Heartbeat()
    else:
        raise ValueError(f"unknown frame type {kind}")
    return Frame(channel, payload)


# --- the arguments of a method ---------------------------------------------------------------------------------------


def _encode_arguments(kinds: Sequence[str], values: Sequence[Any]) -> bytes:
    parts: list[bytes] = []
    bits = count = 0  # consecutive bits share an octet
    for kind, value in zip(kinds, values, strict=True):
        if kind == "bit":
            bits |= bool(value) << count
            count += 1
            continue
        if count:
            parts.append(_OCTET.pack(bits))
            bits = count = 0
        parts.append(_WRITERS[kind](value))
    if count:
        parts.append(_OCTET.pack(bits))
    return b"".join(parts)


def _decode_arguments(kinds: Sequence[str], data: bytes, at: int) -> list[Any]:
    values: list[Any] = []
    count = 0
    for kind in kinds:
        if kind == "bit":
            if not count:
                at += 1
            values.append(data[at - 1] >> count & 1 == 1)
            count += 1
            continue
        count = 0
        value, at = _READERS[kind](data, at)
        values.append(value)
    return values


# --- the properties of a message -------------------------------------------------------------------------------------


def _encode_properties(header: Header) -> bytes:
    given = header.properties
    flags, parts = 0, []
    for bit, (name, kind) in enumerate(_PROPERTIES[header.klass.id]):
        value = given.get(name)
        if value is not None:
            flags |= 1 << 15 - bit
            parts.append(_WRITERS[kind](value))
    if len(parts) < len(given) and (unknown := set(given) - {name for name, _ in _PROPERTIES[header.klass.id]}):
        # The library would drop them: with "delivery mode" every message would be transient.
        raise ValueError(f"unknown message properties: {', '.join(sorted(unknown))}")
    return b"".join((_SHORT.pack(flags), *parts))


def _decode_header(data: bytes, at: int) -> Header:
    klass, weight, size = _HEADER.unpack_from(data, at)
    at += _HEADER.size
    (flags,) = _SHORT.unpack_from(data, at)
    at += _SHORT.size
    properties = {}
    for name, kind in _properties_in(klass, flags):
        properties[name], at = _READERS[kind](data, at)
    return Header(PROTOCOL.classes.byid[klass], weight, size, **properties)


@lru_cache(maxsize=256)
def _properties_in(klass: int, flags: int) -> tuple[tuple[str, str], ...]:
    """Return name and type of the properties in ``flags``. Cached: messages of one sender have the same properties."""
    if flags & 1:
        raise ValueError("property flags continue, which AMQP 0-9-1 does not define")
    return tuple(each for bit, each in enumerate(_PROPERTIES[klass]) if flags >> 15 - bit & 1)


# --- values ----------------------------------------------------------------------------------------------------------


def _text_writer(length: struct.Struct) -> Callable[[str | bytes], bytes]:
    def write(text: str | bytes) -> bytes:
        data = text.encode() if isinstance(text, str) else text
        return length.pack(len(data)) + data

    return write


def _bytes_reader(length: struct.Struct) -> Callable[[bytes, int], tuple[bytes, int]]:
    def read(data: bytes, at: int) -> tuple[bytes, int]:
        start = at + length.size
        end = start + length.unpack_from(data, at)[0]
        if end >= len(data):  # the last octet is the frame end
            raise ValueError(f"a length of {end - start} bytes exceeds the remaining {len(data) - start - 1}")
        return data[start:end], end

    return read


def _number_reader(number: struct.Struct) -> Callable[[bytes, int], tuple[int, int]]:
    return lambda data, at: (number.unpack_from(data, at)[0], at + number.size)


_short_bytes, _long_bytes = _bytes_reader(_OCTET), _bytes_reader(_LONG)


def _short_text(data: bytes, at: int) -> tuple[str | bytes, int]:
    value, at = _short_bytes(data, at)
    return text_or_bytes(value), at


def _long_text(data: bytes, at: int) -> tuple[str | bytes, int]:
    value, at = _long_bytes(data, at)
    return text_or_bytes(value), at


def _table(data: bytes, at: int) -> tuple[dict[str, Any], int]:
    value, at = _long_bytes(data, at)
    return decode_table(value), at


_NUMBERS = {"octet": _OCTET, "short": _SHORT, "long": _LONG, "longlong": _LONGLONG, "timestamp": _LONGLONG}

_WRITERS: Mapping[str, Callable[[Any], bytes]] = {
    **{kind: number.pack for kind, number in _NUMBERS.items()},
    "shortstr": _text_writer(_OCTET),
    "longstr": _text_writer(_LONG),
    "table": encode_table,
}
_READERS: Mapping[str, Callable[[bytes, int], tuple[Any, int]]] = {
    **{kind: _number_reader(number) for kind, number in _NUMBERS.items()},
    "shortstr": _short_text,
    "longstr": _long_text,
    "table": _table,
}
