"""What is signed, and what verifies."""

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
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey
from meter.signing_keys import keyring

VECTORS = json.loads((Path(__file__).parents[1] / "data/signature-vectors.json").read_text())
NOW = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["case"] for vector in VECTORS])
def test_reproduces_what_ceilometer_computed(vector):
    assert signature(vector["message"], vector["secret"].encode()) == vector["message"]["message_signature"]


def test_covers_names_and_values_in_sorted_order_without_the_signature_itself():
    message = {"b": None, "a": {"y": True, "x": 1.5}, "message_signature": "ignored"}

    assert signed_bytes(message) == b"a:x1.5a:yTruebNone"


def test_covers_a_nested_field_that_is_called_like_the_signature():
    assert signed_bytes({"m": {"message_signature": "x"}}) == b"m:message_signaturex"


def signed(secret="secret", **fields):
    message = {"counter_volume": 1, "resource_id": "r", **fields}
    return message | {"message_signature": signature(message, secret.encode())}


def test_names_the_key_that_verifies():
    keys = keyring(["first", "second"])

    assert keys.verify(signed("second"), NOW) == "key-2"


def test_a_wrong_claim_about_the_key_does_no_harm():
    assert keyring(["first", "second"]).verify(signed("first"), NOW, key_id="key-2") == "key-1"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"counter_volume": 2}, "does not match"),
        ({"message_signature": ""}, "not signed"),
        ({"message_signature": None}, "not signed"),
        ({"message_signature": 17}, "hexadecimal"),
        ({"message_signature": "é" * 64}, "hexadecimal"),
        ({"note": "\ud800"}, "cannot be signed"),
        ({"huge": 10**5000}, "cannot be signed"),
    ],
)
def test_refuses_what_was_not_signed_so(change, reason):
    with pytest.raises(BadSignature, match=reason):
        keyring(["secret"]).verify(signed() | change, NOW)


def test_accepts_unsigned_messages_only_where_told_to():
    unsigned = {"counter_volume": 1}

    assert Keyring([], accept_unsigned=True).verify(unsigned, NOW) is None
    with pytest.raises(BadSignature):
        Keyring([SigningKey("k", b"s")]).verify(unsigned, NOW)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), NOW, {1, 2}, b"bytes", Decimal(1)])
def test_signs_no_field_that_json_would_change_on_the_way(value):
    with pytest.raises(BadSignature, match="is not a JSON value"):
        signature({"counter_volume": value}, b"k")


@pytest.mark.parametrize("value", [float("nan"), NOW, {1}, b"bytes", Decimal("1.50"), {5: "five"}, (1, "é")])
@pytest.mark.parametrize("place", [lambda v: v, lambda v: {"deep": v}, lambda v: [v]])
def test_signs_metadata_as_json_carries_it(value, place):
    message = {"resource_metadata": {"value": place(value)}}
    arrived = msgspec.json.decode(msgspec.json.encode(message))

    assert signature(arrived, b"k") == signature(message, b"k")


def test_what_is_remembered_of_metadata_knows_its_types():
    signatures = {signature({"resource_metadata": {"a": value}}, b"k") for value in (1, 1.0, True, "1", None, [1])}

    assert len(signatures) == 5  # 1 and "1" are signed alike: that is Ceilometer's


def test_a_key_signs_and_verifies_only_within_its_time():
    old = SigningKey("old", b"secret", not_after=datetime(2026, 1, 1, tzinfo=UTC))
    new = SigningKey("new", b"fresh", not_before=datetime(2026, 1, 1, tzinfo=UTC))
    keys = Keyring([old, new])

    assert keys.key_for(NOW) is new
    assert keys.verify(signed(), datetime(2025, 12, 31, tzinfo=UTC)) == "old"
    with pytest.raises(BadSignature, match="key old, which does not cover"):
        keys.verify(signed(), NOW)


def test_says_when_no_key_may_sign():
    keys = Keyring([SigningKey("old", b"secret", not_after=datetime(2026, 1, 1, tzinfo=UTC))])

    with pytest.raises(BadSignature, match="no signing key covers"):
        keys.key_for(NOW)


def test_does_not_show_secrets():
    assert "hunter2" not in repr(SigningKey("k", b"hunter2"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), JSON, max_size=6))
def test_a_signature_survives_json(message):
    again = json.loads(json.dumps(message))

    try:
        before = signature(message, b"k")
    except BadSignature:
        return  # a lone surrogate
    assert signature(again, b"k") == before
