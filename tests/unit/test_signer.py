"""Signing many samples at once gives the very messages that signing each by itself gives, and one batch."""

from __future__ import annotations

import json
from datetime import UTC
from datetime import datetime
from typing import Any

import pytest
from hypothesis import assume
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from meter.batch_signature import BATCH_SIGNATURE_FIELD
from meter.batch_signature import canonical_form
from meter.bus.batches import batch_publications
from meter.ceilometer_signature import SIGNATURE_FIELD
from meter.ceilometer_signature import BadSignature
from meter.message import cast
from meter.message import read_cast
from meter.outgoing import Signer
from meter.outgoing import sign
from meter.sample import Sample
from meter.sample import volume_is_valid
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey
from meter.signing_keys import keyring
from tests.signed import fields_in

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
        message_id=f"m-{volume}",
    )


TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40) | st.sampled_from(
    ['"', "\\", "\x7f", "\u2028", "\0", 'a"b\\']
)


@given(TEXT, TEXT, st.none() | TEXT, st.integers(-(10**30), 10**30) | st.floats(-1e30, 1e30), st.booleans())
def test_bodies_have_the_same_json_whatever_the_texts_are(
    name: str, resource: str, project: str | None, volume: int | float, ceilometer_signature: bool
) -> None:
    assume(volume_is_valid(volume))
    given = Sample(
        name=name,
        type="gauge",
        unit=resource,
        volume=volume,
        resource_id=resource,
        timestamp=datetime(2026, 1, 1, tzinfo=UTC),
        user_id=project,
        project_id=project,
        source=resource,
        resource_metadata={name: resource},
        message_id=name,
    )
    message = Signer(Keyring(KEYS.keys, ceilometer_signature=ceilometer_signature), "here").message(given)
    [publication] = batch_publications([message, message])

    expected = {**message.fields, "resource_metadata": {name: resource}}
    written = json.loads(json.loads(publication.body)["oslo.message"])
    assert written["args"] == {"data": [expected, expected]}
    assert type(written["args"]["data"][0]["counter_volume"]) is type(volume)
    assert [each.volume for each in read_cast(publication.body, KEYS)] == [volume, volume]
    slow = json.loads(json.loads(cast([message.fields]))["oslo.message"])
    assert slow.keys() | {BATCH_SIGNATURE_FIELD} == written.keys()
    assert slow["args"]["data"] == [expected]


@given(st.dictionaries(st.text(), JSON, max_size=4), st.booleans())
def test_it_signs_as_sign_does_and_what_arrives_verifies(metadata: dict[str, Any], ceilometer_signature: bool) -> None:
    one, two = sample(metadata, 1), sample(metadata, 2)
    keys = Keyring(KEYS.keys, ceilometer_signature=ceilometer_signature)
    signer = Signer(keys, "here")
    try:
        alone = [sign(each, KEYS, "here") for each in (one, two)]
    except BadSignature:
        with pytest.raises(BadSignature):
            signer.message(one)
        return
    together = [signer.message(each) for each in (one, two)]
    [publication] = batch_publications(together)
    if not ceilometer_signature:
        alone = [{name: value for name, value in each.items() if name != SIGNATURE_FIELD} for each in alone]
    assert fields_in(publication) == json.loads(json.dumps(alone))
    assert [each.volume for each in read_cast(publication.body, KEYS)] == [1, 2]
    assert [each.canonical_form for each in together] == [canonical_form(each.fields) for each in together]


def test_metadata_that_come_and_go_are_not_mistaken_for_each_other() -> None:
    signer = Signer(KEYS, "here")
    for number in range(100):  # without a hold on what it has seen, ids of objects would come again
        message = signer.message(sample({"n": number})).fields
        assert bytes(message["resource_metadata"]) == b'{"n":%d}' % number


def test_the_polling_interval_is_added_to_the_reserved_member_and_shared_metadata_are_encoded_once() -> None:
    shared = {"host": "hv1", "_meter": {"run": "hv1/7"}}
    signer = Signer(KEYS, "here", interval_seconds=300.0)
    first, second, plain = (signer.message(sample(each)) for each in (shared, shared, {"_meter": "forged"}))
    assert first.fields["resource_metadata"] is second.fields["resource_metadata"]
    [publication] = batch_publications([first, plain])
    assert [each.metadata for each in read_cast(publication.body, KEYS)] == [
        {"host": "hv1", "_meter": {"run": "hv1/7", "interval": 300}},
        {"_meter": {"interval": 300}},
    ]
    assert "interval" not in shared["_meter"], "what the pollster gave is not changed"


@pytest.mark.parametrize(
    "value", [float("nan"), "\ud800", object(), [10**5000]], ids=["NaN", "surrogate", "object", "huge"]
)
def test_metadata_that_are_not_json_are_refused_with_and_without_ceilometers_signature(value: Any) -> None:
    for ceilometer_signature in (True, False):
        signer = Signer(Keyring(KEYS.keys, ceilometer_signature=ceilometer_signature), "here")
        if value != value:
            assert bytes(signer.message(sample({"a": value})).fields["resource_metadata"]) == b'{"a":null}'
            continue
        with pytest.raises(BadSignature, match="cannot be signed"):
            signer.message(sample({"a": value}))


def test_the_message_has_the_key_that_may_sign_it() -> None:
    keys = Keyring([SigningKey("disks", b"d", meters=("disk.*",)), SigningKey("here", b"h", sources=("here",))])
    assert Signer(keys, "here").message(sample({})).key is keys.get("here")
    with pytest.raises(BadSignature, match=r"no key of .signing. may sign the sample"):
        Signer(keys, "elsewhere").message(sample({}))


@pytest.mark.parametrize(
    "change",
    [
        {"user_id": "u1timestamp2026-01-01T00:00:00user_id" + "x" * 200},
        {"project_id": "None"},
        {"unit": "nscounter_volume1"},
        {"resource_id": "rresource_metadata:a"},
        {"resource_metadata": {"": "x"}},
    ],
)
def test_an_untrusted_sample_with_a_second_reading_gets_no_ceilometer_signature(change: dict[str, Any]) -> None:
    plain, crafted = sample({"a": "b"}), replace(sample({"a": "b"}), **change)
    assert SIGNATURE_FIELD in Signer(KEYS, "here", untrusted=True).message(plain).fields
    assert SIGNATURE_FIELD in Signer(KEYS, "here").message(crafted).fields
    message = Signer(KEYS, "here", untrusted=True).message(crafted)
    assert SIGNATURE_FIELD not in message.fields
    [publication] = batch_publications([message])
    assert read_cast(publication.body, KEYS)[0].scheme == "meter"
