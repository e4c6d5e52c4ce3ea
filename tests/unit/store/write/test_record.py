"""Messages as rows of the store, and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings
from msgspec.structs import replace

from meter.message import read
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey
from meter.store.write.record import Unstorable
from meter.store.write.record import fields_of
from meter.store.write.record import message_id_of
from meter.store.write.record import record_of
from meter.store.write.record import text_of
from meter.store.write.record import uuid_of
from meter.store.write.record import volume_of
from meter.store.write.record import wire_format_of
from tests.store_messages import KEYS
from tests.store_messages import UNSIGNED
from tests.store_messages import as_written
from tests.store_messages import message
from tests.store_messages import messages

VECTORS = json.loads((Path(__file__).parents[3] / "data/signature-vectors.json").read_text())


def with_fields(**fields):
    """A message that was sent with other ``fields`` than Meter writes."""
    sent = message()
    return replace(sent, received={**sent.fields, **fields})


def stored(record):
    """``record`` as it comes back from the store: the wire format was text."""
    return replace(record, wire_format=wire_format_of(text_of(record.wire_format)))


def as_stored(sent):
    """The fields of ``sent`` that are stored: Ceilometer's signature of a message of a signed batch is not."""
    return {name: value for name, value in sent.fields.items() if sent.entry is None or name != "message_signature"}


@settings(max_examples=300, deadline=None)
@given(sent=messages())
def test_any_message_comes_back_to_the_letter(sent):
    record = stored(record_of(sent))

    again = fields_of(record)
    assert as_written(again) == as_written(as_stored(sent))
    assert (record.wire_format.key_id, record.wire_format.scheme) == (sent.key_id, sent.scheme)
    assert record.entry == sent.entry
    if sent.entry is None:
        assert read(again, UNSIGNED) == sent
    else:
        batch = KEYS.verify_batch(sent.entry.batch)
        assert batch.entry(0, again) == sent.entry
    assert repr(volume_of(record)) == repr(sent.volume)
    assert message_id_of(record) == sent.message_id


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["case"] for vector in VECTORS])
def test_message_that_ceilometer_signed_verifies_when_it_comes_back(vector):
    keys = Keyring([SigningKey("theirs", vector["secret"].encode(), schemes=("ceilometer",))])
    sent = read(vector["message"], keys)

    again = fields_of(stored(record_of(sent)))

    assert as_written(again) == as_written(vector["message"])
    assert read(again, keys).key_id == "theirs"
    assert (sent.scheme, record_of(sent).wire_format.scheme, record_of(sent).entry) == (
        "ceilometer",
        "ceilometer",
        None,
    )


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"user_name": "ann", "project_name": None, "monotonic_time": 12.5},
        {"monotonic_time": None},
        {"publisher_id": "ceilometer.polling"},
        {"message_signature": ""},
    ],
)
def test_usual_message_is_not_stored_whole(fields):
    assert not record_of(with_fields(**fields)).verbatim_json.startswith("{")


@pytest.mark.parametrize(
    "fields", [{"note": "a"}, {"user_name": ["ann"]}, {"user_name": "a" * 256}, {"publisher_id": 5}]
)
def test_unusual_message_is_stored_whole_and_makes_no_wire_format_of_its_own(fields):
    record = record_of(with_fields(**fields))

    assert record.verbatim_json.startswith("{")
    assert record.wire_format == ((), "", "int", (), "key-1", "meter")


def test_order_of_fields_makes_no_wire_format_of_its_own():
    sent = message()
    reordered = replace(sent, received=dict(sorted(sent.fields.items())))

    assert record_of(reordered) == record_of(sent)


def test_missing_fields_are_part_of_the_wire_format():
    sent = message()
    fields = {name: value for name, value in sent.fields.items() if name not in ("user_id", "message_signature")}
    record = stored(record_of(replace(sent, received=fields, user_id=None, key_id=None)))

    assert record.wire_format.missing_fields == ("message_signature", "user_id")
    assert fields_of(record) == fields


def test_messages_of_one_kind_have_one_wire_format():
    assert (
        record_of(message("cpu", 1)).wire_format
        == record_of(message("ram", 7, at=3600, resource_id="other")).wire_format
    )
    assert record_of(message("cpu", 1)).wire_format != record_of(message("cpu", 1.0)).wire_format


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (message("a\0"), "name has a NUL"),
        (message(project_id="\0"), "project_id has a NUL"),
        (replace(message(), user_id="\ud800"), "user_id has half a surrogate"),
        (message(metadata={"a": {"b": ["\0"]}}), r"resource_metadata\.a\.b\[0\] has a NUL"),
        (with_fields(note="\udfff"), "not JSON"),
        (with_fields(note=float("nan")), "not finite"),
        (with_fields(note=(1, 2)), "only Python has"),
        (with_fields(note=object()), "not JSON"),
    ],
)
def test_unstorable_message_is_refused_with_the_place_in_it(sent, reason):
    with pytest.raises(Unstorable, match=reason):
        record_of(sent)


def test_backslash_before_u0000_is_not_nul():
    sent = message(metadata={"path": "C:\\u0000"})

    assert fields_of(stored(record_of(sent))) == sent.fields


def test_id_that_is_not_a_uuid_gets_one_that_is_always_the_same():
    canonical = "cb2e9b5a-9f0a-4a0e-8f5a-9c5d5c5f0d11"

    assert uuid_of(canonical) == canonical
    assert uuid_of(canonical.upper()) != canonical
    assert uuid_of("sample 7") == uuid_of("sample 7") != uuid_of("sample 8")
