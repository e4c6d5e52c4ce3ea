"""Frames as bytes and back, by the description of the protocol in ``protocol.xml``.

What txAMQP 0.8.2, the last release of a library that nobody maintains, does, and what is done here instead:

- It is distributed without a description of the protocol: ``AMQFactory()`` fails with "unknown url type".
- Its codec counts text in characters where the broker counts bytes, decodes bodies as text where it can, and knows six
  of the types that a table may have. The first umlaut stops the consumer, the first ``x-death`` ends the connection.
- It takes eight calls and two streams to read a number, and every message is three frames: reading and writing them took a
  quarter of the collector's time.

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

from meter.bus.amqp.tables import table_bytes
from meter.bus.amqp.tables import table_from
from meter.bus.amqp.tables import text_or_bytes

REPAIRED_VERSION = "0.8.2"

if version("txAMQP") != REPAIRED_VERSION:
    raise ImportError(f"meter.bus.amqp repairs txAMQP {REPAIRED_VERSION} and cannot work with {version('txAMQP')}")

PROTOCOL = spec.load_string(files(__package__).joinpath("protocol.xml").read_bytes(), "protocol.xml")

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
FRAME_END = 206

_FRAME = struct.Struct("!BHL")
_HEADER = struct.Struct("!HHQ")
_OCTET, _SHORT, _LONG, _LONGLONG = (struct.Struct(f"!{letter}") for letter in "BHLQ")

_METHODS = {(klass.id << 16) + method.id: method for klass in PROTOCOL.classes for method in klass.methods}
_KINDS = {method: tuple(field.type for field in method.fields) for method in _METHODS.values()}
_PROPERTIES = {klass.id: tuple((field.name, field.type) for field in klass.fields) for klass in PROTOCOL.classes}


def packed(frame: Frame) -> bytes:
    """Return ``frame`` as it is sent; ``ValueError`` or ``TypeError`` for what AMQP cannot say."""
    kind, content = _packed(frame.payload)
    return b"%b%b%c" % (_FRAME.pack(kind, frame.channel, len(content)), content, FRAME_END)


def _packed(payload: Any) -> tuple[int, bytes]:
    try:
        if isinstance(payload, Method):
            method = payload.method
            return METHOD, _LONG.pack((method.klass.id << 16) + method.id) + _written(_KINDS[method], payload.args)
        if isinstance(payload, Header):
            return HEADER, _HEADER.pack(payload.klass.id, payload.weight, payload.size) + _properties_bytes(payload)
        if isinstance(payload, Body):
            return BODY, payload.content
    except struct.error as error:
        raise ValueError(f"AMQP has no room for it: {error}") from error
    return HEARTBEAT, b""


def unpacked(data: bytes) -> Frame:
    """Return the one frame that ``data`` is; ``ValueError``, ``LookupError`` or ``struct.error`` for what is none."""
    kind, channel, size = _FRAME.unpack_from(data)
    start = _FRAME.size
    if len(data) != start + size + 1 or data[-1] != FRAME_END:
        raise ValueError(f"a frame of {size} bytes does not end where it should")
    payload: Any
    if kind == METHOD:
        method = _METHODS[_LONG.unpack_from(data, start)[0]]
        payload = Method(method, *_read(_KINDS[method], data, start + _LONG.size))
    elif kind == HEADER:
        payload = _header(data, start)
    elif kind == BODY:
        payload = Body(data[start:-1])
    elif kind == HEARTBEAT:
        payload = Heartbeat()
    else:
        raise ValueError(f"AMQP has no frames of type {kind}")
    return Frame(channel, payload)


# --- the arguments of a method ---------------------------------------------------------------------------------------


def _written(kinds: Sequence[str], values: Sequence[Any]) -> bytes:
    parts: list[bytes] = []
    bits = count = 0  # flags that follow each other share an octet
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


def _read(kinds: Sequence[str], data: bytes, at: int) -> list[Any]:
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


def _properties_bytes(header: Header) -> bytes:
    given = header.properties
    flags, parts = 0, []
    for bit, (name, kind) in enumerate(_PROPERTIES[header.klass.id]):
        value = given.get(name)
        if value is not None:
            flags |= 1 << 15 - bit
            parts.append(_WRITERS[kind](value))
    if len(parts) < len(given) and (unknown := set(given) - {name for name, _ in _PROPERTIES[header.klass.id]}):
        # The library would send the message without them: with "delivery mode" every one of them would be transient.
        raise ValueError(f"a message has no {', '.join(sorted(unknown))}")
    return b"".join((_SHORT.pack(flags), *parts))


def _header(data: bytes, at: int) -> Header:
    klass, weight, size = _HEADER.unpack_from(data, at)
    at += _HEADER.size
    (flags,) = _SHORT.unpack_from(data, at)
    at += _SHORT.size
    properties = {}
    for name, kind in _present(klass, flags):
        properties[name], at = _READERS[kind](data, at)
    return Header(PROTOCOL.classes.byid[klass], weight, size, **properties)


@lru_cache(maxsize=256)
def _present(klass: int, flags: int) -> tuple[tuple[str, str], ...]:
    """Messages of one sender have the same properties, so most flags have been seen."""
    if flags & 1:
        raise ValueError("there are no further properties than AMQP 0-9-1 has")
    return tuple(each for bit, each in enumerate(_PROPERTIES[klass]) if flags >> 15 - bit & 1)


# --- values ----------------------------------------------------------------------------------------------------------


def _writes_text(length: struct.Struct) -> Callable[[str | bytes], bytes]:
    def write(text: str | bytes) -> bytes:
        data = text.encode() if isinstance(text, str) else text
        return length.pack(len(data)) + data

    return write


def _reads_bytes(length: struct.Struct) -> Callable[[bytes, int], tuple[bytes, int]]:
    def read(data: bytes, at: int) -> tuple[bytes, int]:
        start = at + length.size
        end = start + length.unpack_from(data, at)[0]
        if end >= len(data):  # the last octet ends the frame
            raise ValueError(f"{end - start} bytes announced, {len(data) - start - 1} there")
        return data[start:end], end

    return read


def _reads_number(number: struct.Struct) -> Callable[[bytes, int], tuple[int, int]]:
    return lambda data, at: (number.unpack_from(data, at)[0], at + number.size)


_short_bytes, _long_bytes = _reads_bytes(_OCTET), _reads_bytes(_LONG)


def _short_text(data: bytes, at: int) -> tuple[str | bytes, int]:
    value, at = _short_bytes(data, at)
    return text_or_bytes(value), at


def _long_text(data: bytes, at: int) -> tuple[str | bytes, int]:
    value, at = _long_bytes(data, at)
    return text_or_bytes(value), at


def _table(data: bytes, at: int) -> tuple[dict[str, Any], int]:
    value, at = _long_bytes(data, at)
    return table_from(value), at


_NUMBERS = {"octet": _OCTET, "short": _SHORT, "long": _LONG, "longlong": _LONGLONG, "timestamp": _LONGLONG}

_WRITERS: Mapping[str, Callable[[Any], bytes]] = {
    **{kind: number.pack for kind, number in _NUMBERS.items()},
    "shortstr": _writes_text(_OCTET),
    "longstr": _writes_text(_LONG),
    "table": table_bytes,
}
_READERS: Mapping[str, Callable[[bytes, int], tuple[Any, int]]] = {
    **{kind: _reads_number(number) for kind, number in _NUMBERS.items()},
    "shortstr": _short_text,
    "longstr": _long_text,
    "table": _table,
}
