"""Signing many samples at once gives the very messages that signing each by itself gives."""

from __future__ import annotations

import json
from datetime import UTC
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.ceilometer_signature import BadSignature
from meter.message import cast
from meter.message import metering_messages
from meter.message import open_envelope
from meter.message import read
from meter.outgoing import Signer
from meter.outgoing import sign
from meter.sample import Sample
from meter.signing_keys import keyring

KEYS = keyring(["secret"])
PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
JSON = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8)  # fmt: skip


def sample(metadata: Any, volume: int = 1) -> Sample:
    return Sample(
        name="cpu",
        type="gauge",
        unit="ns",
        volume=volume,
        resource_id="r",
        timestamp=datetime(2026, 1, 1, tzinfo=UTC),
        resource_metadata=metadata,
    )


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_it_signs_as_sign_does_and_what_arrives_verifies(metadata: dict[str, Any]) -> None:
    one, two = sample(metadata, 1), sample(metadata, 2)
    try:
        alone = [sign(each, KEYS, "here") for each in (one, two)]
    except BadSignature:
        with pytest.raises(BadSignature):
            Signer(KEYS, "here").message(one)
        return
    signer = Signer(KEYS, "here")
    together = [signer.message(each) for each in (one, two)]
    arrived, _ = metering_messages(open_envelope(cast(together)))
    assert arrived == json.loads(json.dumps(alone))
    assert [read(each, KEYS).volume for each in arrived] == [1, 2]


def test_metadata_that_come_and_go_are_not_mistaken_for_each_other() -> None:
    signer = Signer(KEYS, "here")
    for number in range(100):  # without a hold on what it has seen, ids of objects would come again
        message = signer.message(sample({"n": number}))
        assert bytes(message["resource_metadata"]) == b'{"n":%d}' % number


def test_the_polling_interval_is_added_to_the_reserved_member_and_shared_metadata_are_encoded_once() -> None:
    shared = {"host": "hv1", "_meter": {"run": "hv1/7"}}
    signer = Signer(KEYS, "here", interval_seconds=300.0)
    first, second, plain = (signer.message(sample(each)) for each in (shared, shared, {"_meter": "forged"}))
    assert first["resource_metadata"] is second["resource_metadata"]
    arrived, _ = metering_messages(open_envelope(cast([first, plain])))
    assert [read(each, KEYS).metadata for each in arrived] == [
        {"host": "hv1", "_meter": {"run": "hv1/7", "interval": 300}},
        {"_meter": {"interval": 300}},
    ]
    assert "interval" not in shared["_meter"], "what the pollster gave is not changed"
