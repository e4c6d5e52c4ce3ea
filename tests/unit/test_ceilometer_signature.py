"""Ceilometer's signature of one message: what it covers."""

import json
from datetime import UTC
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.ceilometer_signature import BadSignature
from meter.ceilometer_signature import signature
from meter.ceilometer_signature import signed_bytes

VECTORS = json.loads((Path(__file__).parents[1] / "data/signature-vectors.json").read_text())
NOW = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["case"] for vector in VECTORS])
def test_signature_is_what_ceilometer_computed(vector):
    assert signature(vector["message"], vector["secret"].encode()) == vector["message"]["message_signature"]


def test_signed_text_has_names_and_values_in_sorted_order_without_the_signature_itself():
    message = {"b": None, "a": {"y": True, "x": 1.5}, "message_signature": "ignored"}

    assert signed_bytes(message) == b"a:x1.5a:yTruebNone"


def test_signed_text_has_a_nested_field_that_is_called_like_the_signature():
    assert signed_bytes({"m": {"message_signature": "x"}}) == b"m:message_signaturex"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), NOW, {1, 2}, b"bytes", Decimal(1)])
def test_field_that_json_would_change_on_the_way_is_not_signed(value):
    with pytest.raises(BadSignature, match="is not a JSON value"):
        signature({"counter_volume": value}, b"k")


@pytest.mark.parametrize("value", [float("nan"), NOW, {1}, b"bytes", Decimal("1.50"), {5: "five"}, (1, "é")])
@pytest.mark.parametrize("place", [lambda v: v, lambda v: {"deep": v}, lambda v: [v]])
def test_metadata_are_signed_as_json_carries_them(value, place):
    message = {"resource_metadata": {"value": place(value)}}
    arrived = msgspec.json.decode(msgspec.json.encode(message))

    assert signature(arrived, b"k") == signature(message, b"k")


def test_cache_of_metadata_distinguishes_types():
    signatures = {signature({"resource_metadata": {"a": value}}, b"k") for value in (1, 1.0, True, "1", None, [1])}

    assert len(signatures) == 5  # 1 and "1" are signed alike: that is Ceilometer's


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), JSON, max_size=6))
def test_signature_is_the_same_after_transport_as_json(message):
    again = json.loads(json.dumps(message))

    try:
        before = signature(message, b"k")
    except BadSignature:
        return  # a lone surrogate
    assert signature(again, b"k") == before
