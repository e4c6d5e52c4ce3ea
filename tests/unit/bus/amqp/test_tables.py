"""Encoding and decoding of AMQP field tables, malformed ones included."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC
from datetime import datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from meter.bus.amqp.tables import MAX_DEPTH
from meter.bus.amqp.tables import decode_table
from meter.bus.amqp.tables import encode_table

KEYS = st.text(max_size=40)
SCALARS = (
    st.text()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.none()
    | st.binary()
    | st.decimals("-2147", "2147", places=6)
    | st.integers(0, 250_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=8)


@given(st.dictionaries(KEYS, VALUES, max_size=4))
@settings(max_examples=60)
def test_table_is_decoded_as_it_was_encoded(table):
    data = encode_table(table)
    assert int.from_bytes(data[:4]) == len(data) - 4
    assert decode_table(data[4:]) == table


def test_boolean_does_not_become_a_number():
    [value] = decode_table(encode_table({"yes": True})[4:]).values()
    assert value is True


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"b\xff", -1),
        (b"B\xff", 255),
        (b"s\xff\xfe", -2),
        (b"u\xff\xfe", 65534),
        (b"I\xff\xff\xff\xfd", -3),
        (b"i\xff\xff\xff\xfd", 4294967293),
        (b"l\xff\xff\xff\xff\xff\xff\xff\xfc", -4),
        (b"L\xff\xff\xff\xff\xff\xff\xff\xfc", -4),
        (b"f\x3f\x00\x00\x00", 0.5),
        (b"d\x3f\xe0\x00\x00\x00\x00\x00\x00", 0.5),
        (b"D\x02\x00\x00\x00\x7b", Decimal("1.23")),
        (b"T\x00\x00\x00\x00\x00\x00\x00\x3c", datetime(1970, 1, 1, 0, 1, tzinfo=UTC)),
        (b"T\xff\xff\xff\xff\xff\xff\xff\xff", 2**64 - 1),
        (b"S\x00\x00\x00\x02\xc3\xbc", "ü"),
        (b"S\x00\x00\x00\x01\xfc", b"\xfc"),
        (b"x\x00\x00\x00\x01a", b"a"),
        (b"A\x00\x00\x00\x03t\x01V", [True, None]),
        (b"F\x00\x00\x00\x04\x01kt\x00", {"k": False}),
        (b"V", None),
    ],
)
def test_every_type_that_rabbitmq_sends_is_decoded(field, value):
    assert decode_table(b"\x01k" + field) == {"k": value}


def test_deep_nesting_is_cut_and_what_follows_is_decoded():
    data = b""
    for _ in range(20_000):
        data = b"\x01kF" + len(data).to_bytes(4) + data
    table = decode_table(data + b"\x01zI\x00\x00\x00\x07")
    assert table["z"] == 7
    for _ in range(MAX_DEPTH + 1):
        table = table["k"]
    assert table is None


@given(st.binary(max_size=200))
def test_bytes_that_are_not_a_table_raise_value_error(data):
    with suppress(ValueError):
        decode_table(data)


@pytest.mark.parametrize("value", [object(), {1, 2}, 2**63, Decimal("NaN"), [object()], {"in": {"it": object()}}])
def test_value_without_an_amqp_type_is_refused_by_name(value):
    with pytest.raises(ValueError, match="header 'key' cannot be encoded"):
        encode_table({"key": value})


def test_key_must_be_a_short_text():
    for key in (5, "k" * 256):
        with pytest.raises(ValueError, match="cannot be encoded"):
            encode_table({key: 1})
