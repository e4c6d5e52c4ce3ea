"""Flattening of metadata, and its cache."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from meter.api.rendering.flattening import MetadataFlattener
from meter.api.rendering.flattening import flatten

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
def test_metadata_is_flattened_to_strings(metadata: dict[str, Any], flat: dict[str, str]) -> None:
    assert flatten(metadata) == flat


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(), JSON))
def test_arbitrary_metadata_is_flattened_to_strings_on_one_level(metadata: dict[str, Any]) -> None:
    flat = flatten(metadata)
    assert all(isinstance(name, str) and isinstance(value, str) for name, value in flat.items())
    assert all(name.count(".") <= 1 for name in flat)


def test_cache_never_confuses_metadata_with_a_reused_id() -> None:
    flattener = MetadataFlattener(max_cached_bytes=100)
    assert [bytes(flattener({"n": n})) for n in range(100)] == [b'{"n":"%d"}' % n for n in range(100)]
    shared = {"n": 1}
    assert flattener(shared) is flattener(shared)


def test_cache_of_metadata_is_limited_in_size() -> None:
    flattener = MetadataFlattener(max_cached_bytes=100)
    first = {"n": "x" * 50}
    cached = flattener(first)
    assert flattener(first) is cached
    flattener({"m": "x" * 50})
    assert flattener(first) is not cached
    assert flattener(first) == cached


def test_deeply_nested_metadata_is_flattened_without_recursion() -> None:
    deep: dict[str, Any] = {"x": 1}
    for _ in range(5000):
        deep = {"x": deep}
    ((name, value),) = flatten(deep).items()
    assert (name.count("x"), value) == (5001, "1")
