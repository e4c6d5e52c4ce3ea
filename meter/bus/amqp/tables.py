"""Encoding and decoding of AMQP field tables: the headers of a message and the arguments of a method.

Every type that RabbitMQ sends is decoded. Values are encoded by their type: text ``S``, bytes ``x``, booleans ``t``,
integers ``I`` or ``l`` by their size, floats ``d``, ``Decimal`` ``D``, aware datetimes ``T``, lists ``A``, mappings
``F`` and ``None`` ``V``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from datetime import UTC
from datetime import datetime
from decimal import Decimal
from typing import Any

MAX_DEPTH = 32
"""Levels of nesting that are decoded; deeper values become ``None``. An error would cause the message to be delivered again and again."""

_NUMBERS = {
    "b": struct.Struct("!b"),
    "B": struct.Struct("!B"),
    "s": struct.Struct("!h"),
    "u": struct.Struct("!H"),
    "I": struct.Struct("!i"),
    "i": struct.Struct("!I"),
    "l": struct.Struct("!q"),
    "L": struct.Struct("!q"),
    "f": struct.Struct("!f"),
    "d": struct.Struct("!d"),
}
_LENGTH = struct.Struct("!I")
_DECIMAL = struct.Struct("!Bi")
_SECONDS = struct.Struct("!Q")


def encode_table(table: Mapping[str, Any]) -> bytes:
    """Return ``table`` as bytes with its length first; ``ValueError`` names the key that cannot be encoded."""
    parts = []
    for key, value in table.items():
        try:
            name = key.encode()
            parts.append(bytes([len(name)]) + name + _value_bytes(value))
        except (ValueError, AttributeError, struct.error, RecursionError) as error:
            raise ValueError(f"header {key!r} cannot be encoded: {error}") from error
    return _with_length(b"".join(parts))


def _with_length(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data


def _value_bytes(value: Any) -> bytes:
    match value:
        case str():
            return b"S" + _with_length(value.encode())
        case bool():
            return b"t\1" if value else b"t\0"
        case int():
            kind = "I" if -(2**31) <= value < 2**31 else "l"
            return kind.encode() + _NUMBERS[kind].pack(value)
        case float():
            return b"d" + _NUMBERS["d"].pack(value)
        case None:
            return b"V"
        case bytes():
            return b"x" + _with_length(value)
        case Decimal():
            return b"D" + _decimal_bytes(value)
        case datetime():
            return b"T" + _SECONDS.pack(int(value.timestamp()))
        case list() | tuple():
            return b"A" + _with_length(b"".join(_value_bytes(element) for element in value))
        case Mapping():
            return b"F" + encode_table(value)
        case _:
            raise ValueError(f"AMQP has no type for {type(value).__name__}")


def _decimal_bytes(value: Decimal) -> bytes:
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int):
        raise ValueError(f"AMQP has no type for {value}")
    places = max(0, -exponent)
    return _DECIMAL.pack(places, int(value.scaleb(places)))


def decode_table(data: bytes) -> dict[str, Any]:
    """Return the table that ``data`` holds, without the length in front of it.

    Text that is not UTF-8 stays bytes; a time after the year 9999 stays a number of seconds. ``ValueError`` for an
    unknown type and for a table that is truncated.
    """
    try:
        return _table(data, 0)
    except (struct.error, IndexError) as error:
        raise ValueError(f"an AMQP table is truncated: {error}") from error


def _table(data: bytes, depth: int) -> dict[str, Any]:
    table = {}
    at = 0
    while at < len(data):
        start = at + 1
        at = start + data[at]
        key = data[start:at].decode("utf-8", "replace")
        table[key], at = _value(data, at, depth)
    return table


def _array(data: bytes, depth: int) -> list[Any]:
    return list(_elements(data, depth))


def _elements(data: bytes, depth: int) -> Iterator[Any]:
    at = 0
    while at < len(data):
        value, at = _value(data, at, depth)
        yield value


def _value(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    """Return the value whose type octet is at ``at``, and the offset of the next value."""
    kind = chr(data[at])
    at += 1
    if kind in _NUMBERS:
        number = _NUMBERS[kind]
        return number.unpack_from(data, at)[0], at + number.size
    if kind in _WITH_LENGTH:
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if len(data) < at + length:
            raise IndexError(f"a length of {length} bytes exceeds the remaining {len(data) - at}")
        return _WITH_LENGTH[kind](data[at : at + length], depth), at + length
    match kind:
        case "t":
            return data[at] != 0, at + 1
        case "V":
            return None, at
        case "D":
            places, digits = _DECIMAL.unpack_from(data, at)
            return Decimal(digits).scaleb(-places), at + _DECIMAL.size
        case "T":
            (seconds,) = _SECONDS.unpack_from(data, at)
            return _timestamp(seconds), at + _SECONDS.size
    raise ValueError(f"unknown field type {kind!r}")


def _timestamp(seconds: int) -> datetime | int:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return seconds


def text_or_bytes(data: bytes) -> str | bytes:
    """Return ``data`` decoded where it is UTF-8, else unchanged."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


_WITH_LENGTH: Mapping[str, Callable[[bytes, int], Any]] = {
    "S": lambda data, depth: text_or_bytes(data),
    "x": lambda data, depth: data,
    "A": lambda data, depth: _array(data, depth + 1) if depth < MAX_DEPTH else None,
    "F": lambda data, depth: _table(data, depth + 1) if depth < MAX_DEPTH else None,
}
