"""How records become JSON, where it is not plain."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from meter.api.rendering.flattening import Flattening
from meter.api.rendering.flattening import flattened
from meter.api.rendering.v2 import OLD_SAMPLE
from meter.api.rendering.v2 import SAMPLE
from meter.api.request.simple_query import typed
from meter.query import StoredSample
from meter.sample import utc_text

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("metadata", "flat"),
    [
        ({}, {}),
        ({"properties": {"prop_2": {"sub": "x"}}}, {"properties.prop_2:sub": "x"}),
        ({"a.b.c": 1}, {"a.b:c": "1"}),
        ({"a": {"b.c": True, "d": None}}, {"a.b:c": "True", "a.d": "None"}),
        ({"list": [1, {"b": "c"}], "empty": {}}, {"list": "[1, {'b': 'c'}]"}),
        ({"float": 1.0, "int": 0, "text": "0"}, {"float": "1.0", "int": "0", "text": "0"}),
    ],
)
def test_metadata_is_flattened_to_texts(metadata: dict[str, Any], flat: dict[str, str]) -> None:
    assert flattened(metadata) == flat


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(), JSON))
def test_any_metadata_is_flattened_to_texts_of_one_level(metadata: dict[str, Any]) -> None:
    flat = flattened(metadata)
    assert all(isinstance(name, str) and isinstance(value, str) for name, value in flat.items())
    assert all(name.count(".") <= 1 for name in flat)


def test_metadata_that_come_and_go_are_never_taken_for_others() -> None:
    flat = Flattening(most_bytes=100)
    assert [bytes(flat({"n": n})) for n in range(100)] == [b'{"n":"%d"}' % n for n in range(100)]
    shared = {"n": 1}
    assert flat(shared) is flat(shared)


def test_metadata_are_not_remembered_without_end() -> None:
    flat = Flattening(most_bytes=100)
    first = {"n": "x" * 50}
    remembered = flat(first)
    assert flat(first) is remembered
    flat({"m": "x" * 50})
    assert flat(first) is not remembered
    assert flat(first) == remembered


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_time_is_shown_as_on_the_wire(moment: datetime) -> None:
    row = StoredSample(
        message_id="s",
        name="cpu",
        type="cumulative",
        unit="ns",
        volume=1,
        resource_id="vm",
        user_id=None,
        project_id=None,
        source=None,
        timestamp=moment,
        recorded_at=moment,
        metadata={},
        signature="",
        key_id=None,
    )
    for shape in (SAMPLE, OLD_SAMPLE):
        [shown] = msgspec.json.decode(msgspec.json.encode(shape.rendered([row], Flattening())))
        assert (shown["timestamp"], shown["recorded_at"]) == (utc_text(moment),) * 2


def test_metadata_nested_deeper_than_python_recurses_is_flattened() -> None:
    deep: dict[str, Any] = {"x": 1}
    for _ in range(5000):
        deep = {"x": deep}
    ((name, value),) = flattened(deep).items()
    assert (name.count("x"), value) == (5001, "1")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-5", -5),
        ("007", "007"),
        ("5.0", 5.0),
        ("1e3", 1000.0),
        ("1e999", "1e999"),
        ("9" * 5000, "9" * 5000),
        ("True", True),
        ("true", "true"),
        ("'5'", "5"),
        ('"five"', "five"),
        ("[1]", "[1]"),
        ("None", "None"),
        ("m1.tiny", "m1.tiny"),
        ("", ""),
    ],
)
def test_a_value_without_a_type_is_what_it_looks_like(text: str, value: Any) -> None:
    guessed = typed(text, "")
    assert guessed == value
    assert type(guessed) is type(value)
