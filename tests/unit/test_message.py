"""Samples to metering messages, to bodies on the wire, and back."""

import json
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from datetime import timezone

import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from msgspec.structs import replace

from meter.batch_signature import BATCH_SIGNATURE_FIELD
from meter.batch_signature import parse_batch_signature
from meter.batch_signature import sign_batch
from meter.ceilometer_signature import BadSignature
from meter.ceilometer_signature import signature
from meter.message import MAX_LENIENT_BYTES
from meter.message import BadMessage
from meter.message import NotFinite
from meter.message import cast
from meter.message import cast_verbatim
from meter.message import metering_messages
from meter.message import open_envelope
from meter.message import parse_timestamp
from meter.message import read
from meter.message import read_cast
from meter.message import seal
from meter.outgoing import sign
from meter.sample import Sample
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey
from meter.signing_keys import keyring

KEYS = keyring(["secret"])
SAMPLE = Sample(
    name="cpu",
    type="cumulative",
    unit="ns",
    volume=1_500_000_000,
    resource_id="r1",
    project_id="p1",
    timestamp=datetime(2026, 11, 22, 19, 0, 59, 5, tzinfo=timezone(timedelta(hours=2))),
    resource_metadata={"display_name": "Zoë 日本", "flavor": {"vcpus": 1}},
    message_id="5460acce-4fd6-480d-ab18-9735ec7b1996",
)


def resigned(**changes):
    message = sign(SAMPLE, KEYS, "openstack") | changes
    return message | {"message_signature": signature(message, b"secret")}


def test_a_sample_becomes_a_message_under_ceilometers_names():
    message = sign(SAMPLE, KEYS, "openstack")

    assert message == {
        "source": "openstack",
        "counter_name": "cpu",
        "counter_type": "cumulative",
        "counter_unit": "ns",
        "counter_volume": 1_500_000_000,
        "user_id": None,
        "project_id": "p1",
        "resource_id": "r1",
        "timestamp": "2026-11-22T17:00:59.000005",
        "resource_metadata": {"display_name": "Zoë 日本", "flavor": {"vcpus": 1}},
        "message_id": "5460acce-4fd6-480d-ab18-9735ec7b1996",
        "message_signature": signature(message, b"secret"),
    }


def test_the_sources_own_word_is_kept():
    assert sign(replace(SAMPLE, source="plain"), KEYS, "openstack")["source"] == "plain"


def test_a_cast_comes_back_as_it_was_sent():
    message = sign(SAMPLE, KEYS, "openstack")
    batch = sign_batch([message], "key-1", b"secret")

    content = open_envelope(cast([message], batch))

    assert metering_messages(content) == [message]
    assert parse_batch_signature(content[BATCH_SIGNATURE_FIELD], 1) == batch
    [back] = read_cast(cast([message], batch), KEYS)
    assert (back.name, back.volume, back.timestamp) == ("cpu", 1_500_000_000, SAMPLE.timestamp)
    assert back.timestamp.tzinfo is UTC
    assert (back.key_id, back.scheme) == ("key-1", "meter")
    assert (back.entry.batch, back.entry.position) == (batch, 0)
    assert back.fields == message


def test_a_message_with_ceilometers_signature_alone_is_read_as_such():
    message = sign(SAMPLE, KEYS, "openstack")

    [back] = read_cast(cast([message]), KEYS)

    assert (back.key_id, back.scheme, back.entry, back.fields) == ("key-1", "ceilometer", None, message)
    with pytest.raises(BadSignature, match="no schemes include it"):
        read_cast(cast([message]), Keyring([SigningKey("key-1", b"secret")]))


@pytest.mark.parametrize("value", [5, "x", [], {}, {"version": 2}])
def test_a_cast_with_a_malformed_batch_signature_is_not_read_by_the_signatures_of_its_messages(value):
    content = open_envelope(cast([sign(SAMPLE, KEYS, "openstack")])) | {BATCH_SIGNATURE_FIELD: value}
    with pytest.raises(BadSignature):
        read_cast(seal(content), KEYS)


def test_a_message_whose_batch_signature_was_removed_needs_a_key_of_ceilometers_agents():
    message = sign(SAMPLE, KEYS, "openstack")
    for strict in (
        Keyring([SigningKey("key-1", b"secret")]),
        Keyring([SigningKey("key-1", b"secret")], accept_unsigned=True),
    ):
        with pytest.raises(BadSignature):
            read(message, strict)


def test_a_cast_is_what_oslo_messaging_reads():
    outer = json.loads(cast([sign(SAMPLE, KEYS, "openstack")]))
    inner = json.loads(outer["oslo.message"])

    assert outer["oslo.version"] == "2.0"
    assert (inner["method"], inner["version"]) == ("record_metering_data", "1.0")
    assert inner["args"]["data"][0]["counter_name"] == "cpu"
    assert inner["_unique_id"]


def test_a_bare_message_of_version_1_is_read_too():
    content = {"method": "record_metering_data", "args": {"data": {"counter_name": "x"}}}

    assert metering_messages(open_envelope(json.dumps(content).encode())) == [{"counter_name": "x"}]


@pytest.mark.parametrize(
    ("event_type", "payload"),
    [
        ("telemetry.polling", {"samples": [{"a": 1}]}),
        ("telemetry.api", {"samples": [{"a": 1}]}),
        ("metering", [{"a": 1}]),
        ("metering.cpu", [{"a": 1}]),
    ],
)
def test_what_ceilometers_agents_publish_is_read_too(event_type, payload):
    assert metering_messages({"event_type": event_type, "payload": payload}) == [{"a": 1}]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"\xff\xfe",
        b"[]",
        b"17",
        b"NaN",
        b'{"a": nan}',
        b'{"a": "\xed\xa0\x80"}',
        b'{"a": ' + b"1" * 5000 + b', "b": NaN}',
        b"[" * 100_000,
        b'{"a": NaN, "b": "' + b"x" * MAX_LENIENT_BYTES + b'"}',
        b'{"oslo.version": "3.0", "oslo.message": "{}"}',
        b'{"oslo.version": "2.0", "oslo.message": {}}',
        b'{"oslo.version": "2.0", "oslo.message": "no"}',
    ],
)
def test_a_body_that_cannot_be_opened_says_why(body):
    with pytest.raises(BadMessage, match=r"JSON|version|object"):
        open_envelope(body)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400"])
def test_a_number_that_json_does_not_have_spoils_what_has_it_and_nothing_else(number):
    good = resigned()
    body = json.dumps({"method": "record_metering_data", "args": {"data": [good, good | {"counter_volume": 0.25}]}})

    found = metering_messages(open_envelope(body.replace("0.25", number).encode()))

    assert read(found[0], KEYS).fields == good
    with pytest.raises(BadMessage, match="counter_volume must be a finite number"):
        read(found[1], KEYS)
    with pytest.raises(BadSignature):
        read(good | {"resource_metadata": {"a": found[1]["counter_volume"]}}, KEYS)


@pytest.mark.parametrize("odd", [NotFinite("nan"), "half \ud800", {"\udfff": 1}])
def test_nothing_that_is_not_json_passes_for_want_of_a_signature(odd):
    lenient = Keyring([], accept_unsigned=True)
    unsigned = resigned() | {"message_signature": ""}
    assert read(unsigned, lenient).key_id is None
    with pytest.raises(BadSignature, match="cannot be signed"):
        read(unsigned | {"resource_metadata": {"a": odd}}, lenient)
    with pytest.raises(BadSignature, match="cannot be signed"):
        read(unsigned | {"extra": odd}, lenient)


@pytest.mark.parametrize("odd", [NotFinite("inf"), "half \ud800", 10**400, "ü", [None]])
def test_what_is_not_quite_json_is_carried_on_as_it_came(odd):
    batch = sign_batch([sign(SAMPLE, KEYS, "openstack")], "key-1", b"secret").only([0])
    content = open_envelope(cast_verbatim([{"counter_volume": odd}], batch))
    assert metering_messages(content) == [{"counter_volume": odd}]
    assert parse_batch_signature(content[BATCH_SIGNATURE_FIELD], 1) == batch


def test_of_a_name_that_comes_twice_the_last_value_counts_for_the_signature_too():
    good = json.dumps(resigned())
    twice = good.replace('"counter_volume"', '"counter_volume": 1, "counter_volume"', 1)
    assert read(metering_messages(open_envelope(_cast_of(twice)))[0], KEYS).volume == SAMPLE.volume
    with pytest.raises(BadSignature):
        read(metering_messages(open_envelope(_cast_of(good[:-1] + ', "counter_volume": 1}')))[0], KEYS)


def _cast_of(message):
    return f'{{"method": "record_metering_data", "args": {{"data": [{message}]}}}}'.encode()


@pytest.mark.parametrize(
    "content",
    [{}, {"method": "other"}, {"method": "record_metering_data"}, {"method": "record_metering_data", "args": {"data": 5}},
     {"event_type": "compute.instance.create.end", "payload": {}}, {"event_type": "telemetry.polling", "payload": {}}],
)  # fmt: skip
def test_a_message_without_samples_says_so(content):
    with pytest.raises(BadMessage):
        metering_messages(content)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"counter_volume": "5"},
            "counter_volume must be a finite number: 0, or from 1e-100 to 1e\\+30 in magnitude, not '5'",
        ),
        ({"counter_volume": True}, "counter_volume"),
        ({"counter_volume": None}, "counter_volume must be a finite number: 0, .* not nothing"),
        ({"counter_volume": 10**400}, "an integer of 1329 bits"),
        ({"counter_type": "count"}, "gauge, delta, cumulative"),
        ({"counter_name": ""}, "counter_name must be a non-empty text"),
        ({"counter_name": "x" * 10_000}, "at most 512 characters, not 10000"),
        ({"resource_id": None}, "resource_id"),
        ({"project_id": 5}, "project_id"),
        ({"message_id": []}, "message_id must be a non-empty text, not a list of 0"),
        ({"timestamp": "yesterday"}, "timestamp must be a time like"),
        ({"timestamp": "10000-01-01T00:00:00"}, "timestamp"),
        ({"timestamp": "0001-01-01T00:00:00+14:00"}, "timestamp"),
        ({"resource_metadata": [1]}, "resource_metadata must be a mapping"),
    ],
)
def test_a_field_that_is_wrong_is_named_with_what_it_holds(change, reason):
    with pytest.raises(BadMessage, match=reason):
        read(resigned(**{k: v for k, v in change.items() if k != "counter_volume"}) | change, KEYS)


def test_a_message_changed_after_signing_is_refused():
    with pytest.raises(BadSignature):
        read(sign(SAMPLE, KEYS, "openstack") | {"counter_volume": 1_500_000_001}, KEYS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2013-07-17T11:27:47Z", datetime(2013, 7, 17, 11, 27, 47, tzinfo=UTC)),
        ("2012-05-08 20:23:48.028195", datetime(2012, 5, 8, 20, 23, 48, 28195, tzinfo=UTC)),
        ("2026-11-22T18:00:00+01:00", datetime(2026, 11, 22, 17, tzinfo=UTC)),
        ("2026-11-22", datetime(2026, 11, 22, tzinfo=UTC)),
        ("0001-01-01T00:00:00", datetime(1, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59.999999", datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
    ],
)
def test_times_are_read_in_every_form_the_field_uses(text, expected):
    assert parse_timestamp(text, "timestamp") == expected


def test_a_time_of_any_length_is_not_remembered():
    with pytest.raises(BadMessage, match="not 100020 characters"):
        parse_timestamp("2026-11-22T17:00:59." + "1" * 100_000, "timestamp")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=15,
)
FIELDS = st.sampled_from([*sign(SAMPLE, KEYS, "openstack"), "extra"])


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_open_or_say_why_not(body):
    try:
        metering_messages(open_envelope(body))
    except BadMessage as error:
        assert len(str(error)) < 500


@settings(deadline=None)
@given(st.dictionaries(FIELDS, JSON))
def test_any_fields_read_or_say_why_not(changes):
    message = sign(SAMPLE, KEYS, "openstack") | changes
    try:
        read(message, KEYS)
    except (BadMessage, BadSignature) as error:
        assert len(str(error)) < 500


@settings(deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])),
        st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    )
)
def test_numbers_cross_the_wire_to_the_last_digit(metadata):
    assert open_envelope(seal({"m": metadata})) == {"m": metadata}
