"""The signature of a batch binds every member of every message, their order and their number."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.batch_signature import BATCH_SIGNATURE_FIELD
from meter.batch_signature import MAX_CACHED_METADATA
from meter.batch_signature import MAX_ENTRIES
from meter.batch_signature import canonical_form
from meter.batch_signature import parse_batch_signature
from meter.batch_signature import sign_batch
from meter.ceilometer_signature import BadSignature
from meter.message import cast
from meter.message import read_cast
from meter.message import seal
from meter.message import verified_batch
from meter.signing_keys import keyring

SECRET = b"secret"
KEYS = keyring(["secret"])


def message(n: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "source": "hosts",
        "counter_name": "cpu",
        "counter_type": "gauge",
        "counter_unit": "ns",
        "counter_volume": n,
        "user_id": None,
        "project_id": "p",
        "resource_id": "r",
        "timestamp": "2026-01-01T00:00:00",
        "resource_metadata": {"flavor": {"vcpus": 16}},
        "message_id": f"m{n}",
        **changes,
    }


MESSAGES = [message(n) for n in range(4)]
BATCH = sign_batch(MESSAGES, "key-1", SECRET)


# --- the canonical form --------------------------------------------------------------------------------------------


DISTINCT = [0, 0.0, -0.0, 1, 1.0, True, False, None, "", "1", "None", "true", [], {}, [1], ["1"], [[1]], {"1": 1}, {"": ""},
            2**63, 2**64, 2**64 + 1, 2**70, -(2**63), -(2**63) - 1, -(2**70), float(2**70), str(2**70), 10**400, -(10**400)]  # fmt: skip


def test_canonical_form_distinguishes_types_and_values() -> None:
    for place in (lambda v: {"a": v}, lambda v: {"a": [v]}, lambda v: {"resource_metadata": {"a": v}}):
        assert len({canonical_form(place(value)) for value in DISTINCT}) == len(DISTINCT)


def test_canonical_form_distinguishes_null_from_a_missing_member() -> None:
    forms = {canonical_form(each) for each in ({}, {"a": None}, {"a": ""}, {"a": "None"}, {"": "a"}, {"": None})}
    assert len(forms) == 6


def test_canonical_form_keeps_bytes_in_their_member() -> None:
    assert canonical_form({"vcpus": 16}) != canonical_form({"vcpus1": 6})
    assert canonical_form({"a": "bc", "d": ""}) != canonical_form({"a": "b", "c": "", "d": ""})
    assert canonical_form({"a": {"b": {"c": 1}}}) != canonical_form({"a": {"b:c": 1}})


def test_canonical_form_does_not_depend_on_the_order_of_keys() -> None:
    one = {"b": {"y": 1, "x": [{"q": 1, "p": 2}]}, "a": 2, "resource_metadata": {"d": 1, "c": 2**70}}
    other = {"resource_metadata": {"c": 2**70, "d": 1}, "a": 2, "b": {"x": [{"p": 2, "q": 1}], "y": 1}}
    assert canonical_form(one) == canonical_form(other)


@pytest.mark.parametrize("size", [1, MAX_CACHED_METADATA + 1])
def test_canonical_form_of_encoded_metadata_is_that_of_the_mapping(size: int) -> None:
    metadata = {"a": "ü" * size, "b": [1.0, 1, 2**70, None]}
    raw = msgspec.Raw(msgspec.json.encode(metadata))
    assert canonical_form(message(resource_metadata=raw)) == canonical_form(message(resource_metadata=metadata))


def test_canonical_form_does_not_cover_ceilometers_signature() -> None:
    assert canonical_form(message(message_signature="x")) == canonical_form(message())
    nested = message(resource_metadata={"message_signature": "x"})
    assert canonical_form(nested) != canonical_form(message(resource_metadata={}))


@pytest.mark.parametrize("value", ["\ud800", object(), {1: 2, "a": object()}])
def test_canonical_form_of_what_is_not_json_is_refused(value: Any) -> None:
    for fields in ({"a": value}, {"resource_metadata": {"a": value}}):
        with pytest.raises(BadSignature, match="cannot be signed"):
            canonical_form(fields)


def test_canonical_form_of_deep_nesting_is_made_or_refused() -> None:
    for depth in (100, 100_000):
        deep: Any = 1
        for _ in range(depth):
            deep = [deep]
        try:
            canonical_form({"a": deep})
        except BadSignature:
            assert depth > 100


NAMES = st.sampled_from(["a", "b", "ab", "", "resource_metadata", "c"])
VALUES = st.sampled_from([0, 1, -1, 0.0, 1.0, True, False, None, "", "a", "1", 2**64, 2**70]) | st.text(max_size=3)
JSON = st.recursive(
    VALUES | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)
OBJECTS = st.dictionaries(NAMES, JSON, max_size=3)


@given(OBJECTS, OBJECTS)
def test_canonical_forms_of_two_messages_are_equal_only_if_the_messages_are(one: Any, other: Any) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (canonical_form(one) == canonical_form(other)) is same


@given(OBJECTS)
def test_canonical_form_is_the_same_after_transport_as_json(fields: Any) -> None:
    for arrived in (json.loads(json.dumps(fields)), msgspec.json.decode(msgspec.json.encode(fields))):
        assert canonical_form(arrived) == canonical_form(fields)


# --- batches on receipt --------------------------------------------------------------------------------------------


def received(messages: Any, batch: Any = BATCH) -> list[Any]:
    return [each.entry for each in read_cast(cast(messages, batch), KEYS)]


def test_batch_as_it_was_signed_is_accepted() -> None:
    assert [entry.position for entry in received(MESSAGES)] == [0, 1, 2, 3]


@pytest.mark.parametrize("member", [*message(), "note"])
@pytest.mark.parametrize("index", [0, 2])
def test_batch_with_one_changed_member_is_refused(member: str, index: int) -> None:
    values = {
        "counter_volume": 7,
        "counter_type": "delta",
        "timestamp": "2026-01-01T00:00:00.0",
        "resource_metadata": {},
    }
    changed = [dict(each) for each in MESSAGES]
    changed[index][member] = values.get(member, "other")
    with pytest.raises(BadSignature, match=f"message {index} of the batch differs"):
        received(changed)


@pytest.mark.parametrize("member", ["user_id", "project_id", "source", "resource_metadata"])
def test_batch_without_an_optional_member_is_refused(member: str) -> None:
    changed = [dict(each) for each in MESSAGES]
    del changed[1][member]
    with pytest.raises(BadSignature, match="message 1 of the batch differs"):
        received(changed)


@pytest.mark.parametrize(
    "change",
    [{"counter_volume": 0.0}, {"resource_metadata": {"flavor": {"vcpus1": 6}}}, {"message_id": "m0project_idp", "project_id": ""}, {"e-05": ""}],
)  # fmt: skip
def test_batch_with_bytes_moved_between_members_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadSignature, match="message 0 of the batch differs"):
        received([{**MESSAGES[0], **change}, *MESSAGES[1:]])


@pytest.mark.parametrize("order", [(1, 0, 2, 3), (3, 1, 2, 0), (0, 0, 2, 3), (1, 2, 3, 0)])
def test_batch_in_another_order_is_refused(order: tuple[int, ...]) -> None:
    with pytest.raises(BadSignature, match="of the batch differs"):
        received([MESSAGES[n] for n in order])


@pytest.mark.parametrize("messages", [[], MESSAGES[:3], MESSAGES[1:], [*MESSAGES, MESSAGES[0]]])
def test_batch_of_another_number_of_messages_is_refused(messages: list[Any]) -> None:
    with pytest.raises(BadSignature, match="the batch has 4 messages, and the cast has"):
        received(messages)


@pytest.mark.parametrize("positions", [(0,), (3, 1), (2, 0, 1, 3)])
def test_part_of_a_batch_with_its_positions_is_accepted(positions: tuple[int, ...]) -> None:
    entries = received([MESSAGES[n] for n in positions], BATCH.only(positions))
    assert [entry.position for entry in entries] == list(positions)
    assert [entry.digest for entry in entries] == [BATCH.digest(n) for n in positions]


@pytest.mark.parametrize(("sent", "positions"), [((0,), (1,)), ((3, 1), (1, 3))])
def test_part_of_a_batch_with_wrong_positions_is_refused(sent: tuple[int, ...], positions: tuple[int, ...]) -> None:
    with pytest.raises(BadSignature, match="of the batch differs"):
        received([MESSAGES[n] for n in sent], BATCH.only(positions))


def test_message_of_one_batch_is_refused_in_another() -> None:
    other = sign_batch(MESSAGES, "key-1", SECRET)
    assert other.id != BATCH.id
    assert other.digests != BATCH.digests, "digests of equal messages differ: nobody can guess a message from one"
    with pytest.raises(BadSignature):
        received(MESSAGES, msgspec.structs.replace(BATCH, digests=other.digests))
    with pytest.raises(BadSignature):
        received(MESSAGES, msgspec.structs.replace(BATCH, id=other.id))


def test_digest_covers_the_position() -> None:
    batch = sign_batch([message(), message(), message()], "key-1", SECRET)
    assert len({batch.digest(n) for n in range(3)}) == 3, "equal messages are not seen to be equal"


def test_batch_of_too_many_messages_is_not_signed() -> None:
    with pytest.raises(ValueError, match="at most 32767 messages, not 32768"):
        sign_batch([{}] * (MAX_ENTRIES + 1), "key-1", SECRET)


# --- malformed signatures ------------------------------------------------------------------------------------------


HUGE = "A" * 1_000_000
WRONG: list[Any] = [
    None,
    True,
    1,
    1.5,
    -1,
    10**400,
    "",
    "x",
    HUGE,
    [],
    [1],
    {},
    {"a": 1},
    [[]] * 1000,
    "\ud800",
    "é" * 44,
]
MALFORMED = [
    (member, value)
    for member in ("version", "id", "key_id", "first", "last", "digests", "mac", "positions")
    for value in WRONG
    if (member, value) not in [("version", 1), ("version", True), ("positions", None), ("key_id", "x"), ("key_id", "é" * 44), ("first", "x"), ("last", "x")]
]  # fmt: skip


@pytest.mark.parametrize(("member", "value"), MALFORMED, ids=[f"{m}-{n}" for n, (m, _) in enumerate(MALFORMED)])
def test_malformed_member_of_a_signature_is_refused(member: str, value: Any) -> None:
    signature = {**BATCH.to_json(), member: value}
    with pytest.raises(BadSignature) as refused:
        KEYS.verify_batch(parse_batch_signature(signature, 4))
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("member", [*BATCH.to_json()])
def test_missing_member_of_a_signature_is_refused(member: str) -> None:
    signature = BATCH.to_json()
    del signature[member]
    with pytest.raises(BadSignature, match=BATCH_SIGNATURE_FIELD):
        parse_batch_signature(signature, 4)


@pytest.mark.parametrize("value", [True, 2, "1", 1.0])
def test_signature_of_another_version_is_refused(value: Any) -> None:
    with pytest.raises(BadSignature, match="this Meter knows version 1"):
        parse_batch_signature({**BATCH.to_json(), "version": value}, 4)


@pytest.mark.parametrize(
    "positions",
    [[], [0, 1, 2], [0, 1, 2, 2], [0, 1, 2, 4], [0, 1, 2, -1], [0, 1, 2, True], [0, 1, 2, 3.0], [0, 1, 2, "3"], "0123", {"0": 0}],
)  # fmt: skip
def test_positions_that_do_not_name_each_message_once_are_refused(positions: Any) -> None:
    with pytest.raises(BadSignature, match="positions of"):
        parse_batch_signature({**BATCH.to_json(), "positions": positions}, 4)


@pytest.mark.parametrize("value", [5, "x", [], True, [BATCH.to_json()]])
def test_signature_that_is_no_mapping_is_refused(value: Any) -> None:
    with pytest.raises(BadSignature, match="must be a mapping"):
        verified_batch({BATCH_SIGNATURE_FIELD: value}, 4, KEYS)


@given(st.dictionaries(st.sampled_from([*BATCH.to_json(), "positions", "x"]), JSON, max_size=2))
def test_any_change_of_a_signature_is_refused(changes: Any) -> None:
    signature = {**BATCH.to_json(), **changes}
    bound = {name: value for name, value in changes.items() if name not in ("key_id", "positions", "x")}
    try:
        KEYS.verify_batch(parse_batch_signature(signature, 4))
    except BadSignature:
        return
    assert all(BATCH.to_json()[name] == value for name, value in bound.items())


def test_cast_with_null_as_signature_is_one_without() -> None:
    content = {"method": "record_metering_data", "args": {"data": []}, BATCH_SIGNATURE_FIELD: None}
    assert read_cast(seal(content), KEYS) == []
