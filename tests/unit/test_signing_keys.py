"""Signing keys: what each may sign, which one signs, and what verifies."""

from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest

from meter.batch_signature import parse_batch_signature
from meter.batch_signature import sign_batch
from meter.ceilometer_signature import BadSignature
from meter.ceilometer_signature import signature
from meter.message import cast
from meter.message import read
from meter.message import read_cast
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey
from meter.signing_keys import keyring
from tests.signed import resigned

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(microseconds=1)


def message(**changes):
    return {
        "source": "hosts",
        "counter_name": "cpu",
        "counter_type": "gauge",
        "counter_unit": "ns",
        "counter_volume": 1,
        "user_id": None,
        "project_id": "p",
        "resource_id": "r",
        "timestamp": "2026-01-01T00:00:00",
        "resource_metadata": {},
        "message_id": "m",
        **changes,
    }


def signed(secret=b"secret", **changes):
    fields = message(**changes)
    return fields | {"message_signature": signature(fields, secret)}


def verify(keys, fields, **more):
    return keys.verify_message(fields, NEW_YEAR, "cpu", "hosts", **more)


# --- Ceilometer's signature ----------------------------------------------------------------------------------------


def test_key_that_verifies_a_message_is_named():
    keys = keyring(["first", "second"])

    assert verify(keys, signed(b"second")) == "key-2"
    assert verify(keys, signed(b"first"), key_id="key-2") == "key-1"


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
def test_message_that_was_not_signed_so_is_refused(change, reason):
    with pytest.raises(BadSignature, match=reason):
        verify(keyring(["secret"]), signed() | change)


def test_unsigned_message_is_accepted_only_where_told_to():
    assert verify(Keyring([], accept_unsigned=True), message()) is None
    with pytest.raises(BadSignature):
        verify(Keyring([SigningKey("k", b"s")]), message())


def test_wrongly_signed_message_is_not_accepted_as_unsigned():
    keys = keyring(["other"]).keys
    with pytest.raises(BadSignature, match="does not match"):
        verify(Keyring(keys, accept_unsigned=True), signed())
    with pytest.raises(BadSignature, match="accepts Ceilometer's signature alone"):
        verify(Keyring([], accept_unsigned=True), signed())


def test_message_under_a_key_for_batches_only_is_refused():
    with pytest.raises(BadSignature, match=r"no key of \[signing\] accepts Ceilometer's signature alone"):
        verify(Keyring([SigningKey("k", b"secret")]), signed())


def test_message_is_accepted_if_any_key_with_its_secret_may_sign_it():
    keys = Keyring([SigningKey("ours", b"secret"), SigningKey("theirs", b"secret", schemes=("ceilometer",))])
    assert verify(keys, signed()) == "theirs"


def test_message_is_read_strictly():
    with pytest.raises(BadSignature, match="is not a member of Ceilometer's messages"):
        verify(keyring(["secret"]), signed(note=""))


# --- limits of keys ------------------------------------------------------------------------------------------------


LIMITS = [
    ({"not_before": NEW_YEAR + SECOND}, "does not cover 2026-01-01"),
    ({"not_after": NEW_YEAR}, "does not cover 2026-01-01"),
    ({"meters": ("disk.*", "cpu_?")}, "may not sign samples of the meter cpu"),
    ({"meters": ("CPU",)}, "may not sign samples of the meter cpu"),
    ({"sources": ("host", "hosts?")}, "may not sign samples of the source hosts"),
]


@pytest.mark.parametrize(("limit", "reason"), LIMITS)
def test_key_is_limited_under_both_schemes_and_when_it_signs(limit, reason):
    key = SigningKey("k", b"secret", schemes=("meter", "ceilometer"), **limit)
    keys = Keyring([key])
    with pytest.raises(BadSignature, match=f"key k, which {reason}"):
        verify(keys, signed())
    with pytest.raises(BadSignature, match=f"key k, which signed the batch, {reason}"):
        read_cast(cast([message()], sign_batch([message()], "k", b"secret")), keys)
    with pytest.raises(BadSignature, match=f"may sign the sample: key k {reason}"):
        keys.key_for(NEW_YEAR, "cpu", "hosts")


@pytest.mark.parametrize(
    "limit",
    [
        {},
        {"not_before": NEW_YEAR, "not_after": NEW_YEAR + SECOND},
        {"meters": ("disk.*", "c?u")},
        {"meters": ("*",), "sources": ("hosts",)},
        {"sources": ("h*",)},
    ],
)
def test_key_signs_and_verifies_what_is_within_its_limits(limit):
    key = SigningKey("k", b"secret", schemes=("meter", "ceilometer"), **limit)
    keys = Keyring([key])
    assert verify(keys, signed()) == "k"
    assert read_cast(cast([message()], sign_batch([message()], "k", b"secret")), keys)[0].key_id == "k"
    assert keys.key_for(NEW_YEAR, "cpu", "hosts") is key


def test_key_that_is_limited_to_sources_signs_no_sample_without_a_source():
    keys = Keyring([SigningKey("k", b"secret", sources=("hosts", "None"))])
    with pytest.raises(BadSignature, match="may not sign samples of the source None"):
        keys.key_for(NEW_YEAR, "cpu", None)


def test_first_key_that_may_sign_a_sample_signs_it():
    disks = SigningKey("disks", b"1", meters=("disk.*",))
    theirs = SigningKey("theirs", b"2", schemes=("ceilometer",))
    old = SigningKey("old", b"3", not_after=NEW_YEAR)
    new = SigningKey("new", b"4", not_before=NEW_YEAR)
    other = SigningKey("other", b"5")
    keys = Keyring([disks, theirs, old, new, other])

    assert keys.key_for(NEW_YEAR, "disk.size", None) is disks
    assert keys.key_for(NEW_YEAR, "cpu", "hosts") is new
    assert keys.key_for(NEW_YEAR - SECOND, "cpu", "hosts") is old


@pytest.mark.parametrize("keys", [[], [SigningKey("theirs", b"2", schemes=("ceilometer",))]])
def test_reason_is_given_when_there_is_no_key_for_batches(keys):
    with pytest.raises(BadSignature, match=r'there is no key with schemes = .*"meter"'):
        Keyring(keys).key_for(NEW_YEAR, "cpu", None)


def test_secrets_are_not_shown():
    assert "hunter2" not in repr(SigningKey("k", b"hunter2"))


# --- signatures of batches -----------------------------------------------------------------------------------------


def test_batch_of_another_secret_is_refused():
    batch = sign_batch([message()], "k", b"other")
    with pytest.raises(BadSignature, match="does not match"):
        Keyring([SigningKey("k", b"secret")]).verify_batch(batch)


def test_batch_of_an_unknown_key_is_refused():
    batch = sign_batch([message()], "x" * 64, b"other")
    with pytest.raises(BadSignature, match=r"is signed with the key 'x+', which \[signing\] does not have"):
        Keyring([SigningKey("k", b"secret")]).verify_batch(batch)


def test_batch_under_a_key_of_ceilometers_agents_is_refused():
    keys = Keyring([SigningKey("theirs", b"secret", schemes=("ceilometer",))])
    with pytest.raises(BadSignature, match="theirs may not sign batches"):
        keys.verify_batch(sign_batch([message()], "theirs", b"secret"))


def test_batch_is_verified_by_the_key_with_its_secret_and_gets_the_id_of_it():
    keys = Keyring([SigningKey("other", b"other"), SigningKey("here", b"secret")])
    for key_id in ("there", "other", "here"):
        batch = keys.verify_batch(sign_batch([message()], key_id, b"secret"))
        assert (batch.key.id, batch.signature.key_id) == ("here", "here")


@pytest.mark.parametrize(
    "change",
    [
        {"id": "00000000-0000-4000-8000-000000000000"},
        {"first": "2025-12-31T23:59:59"},
        {"last": "2026-01-01T00:00:01"},
        {"digests": bytes(32)},
        {"digests": b""},
        {"mac": bytes(32)},
    ],
)
def test_batch_with_a_changed_member_is_refused(change):
    keys = Keyring([SigningKey("k", b"secret")])
    batch = sign_batch([message()], "k", b"secret")
    assert keys.verify_batch(batch).key.id == "k"
    changed = resigned(batch, b"secret", **{"mac": batch.mac, **change})
    with pytest.raises(BadSignature, match="the signature of the batch does not match"):
        keys.verify_batch(changed)


@pytest.mark.parametrize("times", [("2026-01-01T00:00:00.000001", "2026-01-02T00:00:00"), ("2025-01-01T00:00:00", "2025-12-31T23:59:59")])  # fmt: skip
def test_message_outside_the_times_of_its_batch_is_refused(times):
    keys = Keyring([SigningKey("k", b"secret")])
    batch = resigned(sign_batch([message()], "k", b"secret"), b"secret", first=times[0], last=times[1])
    with pytest.raises(BadSignature, match="is outside the times that the batch states"):
        read_cast(cast([message()], batch), keys)


@pytest.mark.parametrize("text", ["2026-01-01 00:00:00", "2026-01-01T00:00:00Z", "2026-01-01", "2026-01-01T00:00:00.000000"])  # fmt: skip
def test_times_of_a_batch_in_another_notation_are_refused(text):
    keys = Keyring([SigningKey("k", b"secret")])
    for member in ("first", "last"):
        batch = resigned(sign_batch([message()], "k", b"secret"), b"secret", **{member: text})
        with pytest.raises(BadSignature, match=f"{member} of the batch must be a time in UTC like"):
            read_cast(cast([message()], batch), keys)


def test_batch_states_the_earliest_and_the_latest_time_of_its_messages():
    times = ["2026-01-01T00:00:00.5", "2026-01-01T00:00:00", "2026-01-01T00:00:01"]
    batch = sign_batch([message(timestamp=time) for time in times], "k", b"secret")
    assert (batch.first, batch.last) == (times[1], times[2])


def test_batch_signature_is_the_same_after_transport_as_json():
    batch = sign_batch([message(), message()], "k", b"secret")
    assert parse_batch_signature(batch.to_json(), 2) == batch
    assert parse_batch_signature(batch.only([1]).to_json(), 1) == batch.only([1])
    keys = Keyring([SigningKey("k", b"secret")])
    verified = keys.verify_batch(batch.only([1]))
    assert read(message(), keys, batch=verified, index=0).entry.position == 1
    assert verified.only([0]).positions == (1,)


def test_key_reports_for_the_agents_that_its_patterns_name():
    every = SigningKey("every", b"x")
    edge = SigningKey("edge", b"x", agents=("meter-compute@edge-*", "meter-central@*"))

    assert every.may_report_for("meter-compute@h1")
    assert every.may_report_for_daemon("meter-collector")
    assert [edge.may_report_for(name) for name in ("meter-compute@edge-1", "meter-central@x", "meter-compute@h1")] == [
        True,
        True,
        False,
    ]
    assert [edge.may_report_for_daemon(name) for name in ("meter-compute", "meter-central", "meter-api")] == [
        True,
        True,
        False,
    ]


def test_keyring_takes_over_everything_of_another():
    old, new = SigningKey("old", b"1"), SigningKey("new", b"2", not_before=NEW_YEAR)
    keys = Keyring([old], ceilometer_signature=True)
    assert keys.key_for(NEW_YEAR, "cpu", "hosts") is old
    keys.take_over(Keyring([new, old], accept_unsigned=True, ceilometer_signature=False))
    assert list(keys.keys) == [new, old]
    assert keys.get("new") is new
    assert keys.key_for(NEW_YEAR, "cpu", "hosts") is new
    assert keys.key_for(NEW_YEAR - SECOND, "cpu", "hosts") is old
    assert keys.ceilometer_signature is False
    assert keys.verify_message(message(), NEW_YEAR, "cpu", "hosts") is None
