"""A path finds the same values as jsonpath-ng, though most are evaluated without it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonpath_ng.ext import parse

from meter.declarative.notifications.paths import MISSING
from meter.declarative.notifications.paths import BadPath
from meter.declarative.notifications.paths import path

SCOPE = {
    "event_type": "a.b",
    "payload": {
        "n": 3,
        "none": None,
        "text": "x#y",
        "a b": {"c": 1},
        "list": [{"name": "x", "value": 1, "in": {"k": "v"}}, {"name": "y", "value": "two"}, 7, None],
        "by_name": {"one": {"name": "x", "value": 5}, "two": {"name": "z", "value": 6}},
        "wanted": "x",
    },
}


@pytest.mark.parametrize(
    "text",
    [
        "$.payload.n",
        "$.payload.none",
        "$.payload.missing.x",
        "$.payload.'a b'.c",
        "$.payload.list[0].value",
        "$.payload.list[-1]",
        "$.payload.list[9]",
        "$.payload.list[*].name",
        "$.payload.by_name[*].value",
        "$.payload.by_name.*.value",
        "$.payload.list[?(@.name='x')].value",
        "$.payload.list[?(@.in.k='v')].name",
        "$.payload.list[?(@.value=1)].name",
        "$.payload.list[?(@.value>0)].name",
        "$.payload.by_name[?(@.name='x')].value",
        "$.payload.n[?(@.name='x')]",
        "$.payload.list[?(@.name='x')].value * 100",
        "$.payload.n + 1",
        "$.payload.text * 2",
        '$.payload.text + "_" + $.event_type',
        '"x" + $.payload.text',
        "$.payload.text + $.payload.n",
        "$.payload.text + $.payload.missing",
        '$.payload.list[*].name + "_"',
        '"_" + $.payload.list[*].name',
        "$.payload.list[*].name + $.payload.list[*].name",
        "$.payload.text.`split(#, 0, 1)`",
        "$.payload.text.`sub(/x/, z)`",
        "$..name",
        "$.payload.list[0].in.`parent`.name",
        "$.payload.list[0:2].name",
    ],
)
def test_path_finds_the_same_values_as_jsonpath_ng(text: str) -> None:
    expected = [match.value for match in parse(text).find(SCOPE)]
    if text == "$.payload.text * 2":
        expected = []  # a text is not reckoned with, though Python would
    assert path(text).all(SCOPE) == expected


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("$.payload.n", 3),
        ("$.payload.none", None),
        ("$.payload.missing", MISSING),
        ("$.payload.list[*].in", {"k": "v"}),
        ("$.payload.list[?(@.name='q')]", MISSING),
    ],
)
def test_first_value_other_than_null_is_used(text: str, first: Any) -> None:
    assert path(text).first(SCOPE) is first or path(text).first(SCOPE) == first


METRICS = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["x", "y", 3, None])},
        optional={"value": st.none() | st.integers(-3, 3) | st.just("two") | st.just([7]), "in": st.just({"k": 1})},
    )
    | st.just("x"),
    max_size=6,
)


CHOSEN = (
    "$.metrics[?(@.name='x')]",
    "$.metrics[?(@.name='x')].value",
    "$.metrics[?(@.name='x')].value[0]",
    "$.metrics[?(@.name='x')].in.k",
    "$.metrics[?(@.name='x')].value * 100",
    "$.metrics[?(@.name='x')].value + 1",
)


@given(st.sampled_from(CHOSEN), METRICS)
def test_first_is_the_first_of_all_chosen_elements(text: str, metrics: Any) -> None:
    scope = {"metrics": metrics}
    found = path(text).all(scope)
    assert path(text).first(scope) == (next((each for each in found if each is not None), None) if found else MISSING)


def test_a_product_that_is_too_large_names_the_path() -> None:
    with pytest.raises(BadPath, match=r"value \* 1\.5 cannot be evaluated"):
        path("$.metrics[?(@.name='x')].value * 1.5").first({"metrics": [{"name": "x", "value": 10**400}]})


def test_bracketed_star_of_a_value_that_is_not_a_list_finds_the_value_in_ceilometer() -> None:
    assert path("$.payload.by_name.[*].one.name", ceilometer=True).all(SCOPE) == ["x"]
    assert path("$.payload.list.[*].name", ceilometer=True).all(SCOPE) == ["x", "y"]


@pytest.mark.parametrize(
    "text", ["", "$.", "$.a[", "$..a..b", "$.a[?(@.b =~ 'c')]", "$.a.`sub(/(?=a)/, b)`", "$" * 501]
)
def test_unsafe_path_is_refused(text: str) -> None:
    with pytest.raises(BadPath):
        path(text)
