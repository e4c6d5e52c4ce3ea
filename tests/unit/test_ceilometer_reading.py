"""Messages with Ceilometer's signature alone are accepted in one reading of their signed text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from meter.ceilometer_reading import LEADING
from meter.ceilometer_reading import MEMBERS
from meter.ceilometer_reading import NUMBERS
from meter.ceilometer_reading import OPTIONAL
from meter.ceilometer_reading import TRAILING
from meter.ceilometer_reading import check_reading
from meter.ceilometer_reading import has_second_reading
from meter.ceilometer_signature import BadSignature
from meter.ceilometer_signature import signature
from meter.ceilometer_signature import signed_bytes
from meter.message import metering_messages
from meter.message import read
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey

DATA = Path(__file__).parents[1] / "data"
VECTORS = json.loads((DATA / "signature-vectors.json").read_text())
CAPTURED = sorted((DATA / "ceilometer-polling").glob("*.json"))
SECRET = b"telemetry"
THEIRS = Keyring([SigningKey("theirs", SECRET, schemes=("ceilometer",))])

MESSAGE: dict[str, Any] = {
    "source": "openstack",
    "counter_name": "cpu",
    "counter_type": "gauge",
    "counter_unit": "ns",
    "counter_volume": 2.5e-05,
    "user_id": "ann",
    "project_id": "p1",
    "resource_id": "vm-1",
    "timestamp": "2026-11-22T12:00:00",
    "resource_metadata": {"vcpus": 16},
    "message_id": "00000000-0000-4000-8000-000000000001",
}


def signed(fields: dict[str, Any]) -> dict[str, Any]:
    return {**fields, "message_signature": signature(fields, SECRET)}


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["case"] for vector in VECTORS])
def test_vectors_of_ceilometers_signature_are_accepted(vector: dict[str, Any]) -> None:
    keys = Keyring([SigningKey("theirs", vector["secret"].encode(), schemes=("ceilometer",))])
    check_reading(vector["message"])
    assert read(vector["message"], keys).scheme == "ceilometer"


@pytest.mark.parametrize("path", CAPTURED, ids=[path.stem for path in CAPTURED])
def test_samples_of_captured_polling_agents_are_accepted(path: Path) -> None:
    messages = metering_messages(json.loads(path.read_text())["message"])
    assert messages
    for message in messages:
        check_reading(message)


def test_usual_message_is_accepted_with_and_without_optional_members() -> None:
    optional = {"monotonic_time": 12.5, "project_name": "acme", "publisher_id": "agent", "user_name": "Ann"}
    for fields in (MESSAGE, {**MESSAGE, **optional}, {**MESSAGE, **dict.fromkeys(optional)}):
        assert read(signed(fields), THEIRS).key_id == "theirs"


SAME_TEXT = {
    "an empty member takes a part of the volume": {"counter_volume": 2.5, "e-05": ""},
    "the id takes the name of the project": {"message_id": MESSAGE["message_id"] + "project_idp1", "project_id": ""},
    "an empty name in the metadata": {"resource_metadata": {"vcpus": 16, "": ""}},
    "an empty name deep in the metadata": {"resource_metadata": {"vcpus": 16, "a": [{"b": {"": {}}}]}},
    "reserved metadata": {"resource_metadata": {"vcpus": 16, "_meter": {"run": "x"}}},
    "null as a text": {"user_id": "None"},
    "null project as a text": {"project_id": "None"},
    "null source as a text": {"source": "None"},
    "null name as a text": {"user_name": "None"},
    "volume as a text": {"counter_volume": "2.5e-05"},
    "volume as a truth value": {"counter_volume": True},
    "id as a number": {"resource_id": 17},
    "optional number as a text": {"monotonic_time": "1"},
    "optional text as a number": {"publisher_id": 5},
    "optional text as a list": {"project_name": []},
    "unknown member": {"note": "x"},
    "empty name": {"": ""},
    "metadata that are no mapping": {"resource_metadata": [1]},
    "metadata that are null": {"resource_metadata": None},
    "unit that ends with the next member": {"counter_unit": "nscounter_volume1"},
    "name that contains a type": {"counter_name": "cpucounter_typegauge"},
    "resource that contains metadata": {"resource_id": "vm-1resource_metadata:a", "resource_metadata": {}},
    "source that contains a source": {"source": "osourcenstack"},
    "user that contains a user": {"user_id": "annuser_idbob"},
    "user that contains a name": {"user_id": "annuser_name"},
}


@pytest.mark.parametrize("change", SAME_TEXT.values(), ids=list(SAME_TEXT))
def test_message_whose_text_has_another_reading_is_refused(change: dict[str, Any]) -> None:
    fields = {**MESSAGE, **change}
    with pytest.raises(BadSignature):
        check_reading(fields)
    assert has_second_reading(fields)


@pytest.mark.parametrize("name", sorted(MEMBERS - OPTIONAL - {"message_signature"}))
def test_message_without_a_required_member_is_refused(name: str) -> None:
    fields = {member: value for member, value in MESSAGE.items() if member != name}
    with pytest.raises(BadSignature, match=f"{name} is missing"):
        check_reading(fields)


def test_bytes_of_a_signed_message_moved_to_another_member_are_refused_by_the_reader() -> None:
    genuine = signed(MESSAGE)
    moved = {**genuine, "counter_volume": 2.5, "e-05": ""}
    assert signed_bytes(moved) == signed_bytes(genuine)
    with pytest.raises(BadSignature, match="'e-05' is not a member"):
        read(moved, THEIRS)
    twice = {**genuine, "message_id": genuine["message_id"] + "project_idp1", "project_id": None}
    del twice["project_id"]
    assert signed_bytes(twice) == signed_bytes(genuine)
    with pytest.raises(BadSignature, match="project_id is missing"):
        read(twice, THEIRS)


def test_user_id_of_245_characters_that_spells_another_sample_gives_no_valid_reading() -> None:
    wanted = {**MESSAGE, "timestamp": "2026-11-22T13:00:00", "user_id": "eve"}
    crafted = {**MESSAGE, "source": "tenant", "user_id": f"xtimestamp{wanted['timestamp']}user_ideve{'x' * 200}"}
    assert len(crafted["user_id"]) > 200
    forged = {
        **wanted,
        "source": f"tenanttimestamp{crafted['timestamp']}user_idx",
        "user_id": f"eve{'x' * 200}",
    }
    assert signed_bytes(forged) == signed_bytes(crafted)
    assert has_second_reading(crafted)
    check_reading(forged)  # whoever signs the crafted one would sign this: a poster gets no such signature


# --- every division of a text --------------------------------------------------------------------------------------


def divisions(text: str) -> Iterator[dict[str, Any]]:
    """Yield messages with the signed ``text``: every way to divide it into top-level members."""

    def ends(names: tuple[str, ...], position: int, found: dict[str, str]) -> Iterator[dict[str, str]]:
        if not names:
            if position == len(text):
                yield found
            return
        name, *rest = names
        if name in OPTIONAL:
            yield from ends(tuple(rest), position, found)
        if not text.startswith(name, position):
            return
        begin = position + len(name)
        for end in range(begin, len(text) + 1):
            follows = any(text.startswith(each, end) for each in rest) or end == len(text)
            if follows:
                yield from ends(tuple(rest), end, {**found, name: text[begin:end]})

    for order in ((*LEADING, *TRAILING), (*LEADING, "resource_metadata:", *TRAILING)):
        for found in ends(order, 0, {}):
            members: dict[str, Any] = {name: value for name, value in found.items() if name in MEMBERS}
            metadata = found.get("resource_metadata:")
            if metadata is not None and len(metadata) < 1:
                continue
            members["resource_metadata"] = {} if metadata is None else {metadata[0]: metadata[1:]}
            for name in NUMBERS & members.keys():
                members[name] = number(members[name])
            yield members
            for name in members:
                if members[name] == "None":
                    yield {**members, name: None}


def number(text: str) -> Any:
    for kind in (int, float):
        try:
            if str(kind(text)) == text:
                return kind(text)
        except ValueError:
            pass
    return text


FRAGMENTS = st.lists(
    st.sampled_from([*LEADING, *TRAILING, "resource_metadata:a", "None", "x", "1", "e-05", ""]), max_size=3
).map("".join)
VALUES = {
    name: st.sampled_from([1, 2.5, 2.5e-05, 16]) if name in NUMBERS else FRAGMENTS for name in (*LEADING, *TRAILING)
}
TEXTS = st.builds(
    lambda required, optional, metadata: signed_bytes({**required, **optional, "resource_metadata": metadata}).decode(),
    st.fixed_dictionaries({name: values for name, values in VALUES.items() if name not in OPTIONAL}),
    st.fixed_dictionaries({}, optional={name: VALUES[name] for name in sorted(OPTIONAL)}),
    st.sampled_from([{}, {"a": "x"}, {"a": "source"}, {"r": "timestampuser_id"}]),
)


@settings(max_examples=150, deadline=None)
@given(TEXTS)
@example(signed_bytes(MESSAGE).decode())
def test_at_most_one_division_of_a_text_into_members_is_accepted(text: str) -> None:
    accepted = []
    for message in islice(divisions(text), 400):
        if signed_bytes(message).decode() != text:
            continue
        if not has_second_reading(message):
            members = {name: value for name, value in message.items() if name != "resource_metadata"}
            if members not in accepted:
                accepted.append(members)
    assert len(accepted) <= 1
