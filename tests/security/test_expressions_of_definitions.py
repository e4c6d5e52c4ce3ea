"""Expressions in definitions take bounded time and memory, whatever the values are that services and tenants send."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from meter.declarative.notifications.paths import MISSING
from meter.declarative.notifications.paths import BadPath
from meter.declarative.notifications.paths import path
from meter.declarative.notifications.values import MAX_USER_METADATA
from meter.declarative.notifications.values import user_metadata
from meter.declarative.rest.expressions import MAX_DEPTH
from meter.declarative.rest.expressions import MAX_SIZE
from meter.declarative.rest.expressions import BadFormula
from meter.declarative.rest.expressions import NoValue
from meter.declarative.rest.expressions import expression
from meter.declarative.rest.expressions import formula


def short(value: Any) -> str:
    """Return the id of a parameter."""
    return value[:60] if isinstance(value, str) else type(value).__name__


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "text",
    [
        "a | " + "(" * 80 + "value" + ")" * 80 + " + 1" * 240,
        "a | " + "not " * 200 + "value",
        "a | " + "-" * 900 + "1",
        "a | " + "[" * 90 + "]" * 90,
    ],
)
def test_deep_expression_is_refused_when_it_is_loaded(text: str) -> None:
    with pytest.raises(BadFormula):
        expression(text[:1000])


def test_deepest_allowed_expression_is_evaluated_near_the_bottom_of_the_stack() -> None:
    allowed = expression("a | " + "-" * (MAX_DEPTH - 3) + "value")

    def at_depth(frames: int) -> Any:
        return at_depth(frames - 1) if frames else allowed.value({"a": 1})

    assert at_depth(max(0, 900 - len(inspect.stack()) - 3 * MAX_DEPTH)) in (1, -1)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # Each replaces every character by a thousand others: 10**12 characters without a limit.
        ("a | value.replace('x', 'x' * 1)", "x"),
        ("a | value.replace('x', value) | value.replace('x', value) | value.replace('x', value)", "x" * 10_000),
        ("a | value.replace('', value)", "x" * 10_000),
        ("a | value.join(list(value))", "x" * 10_000),
        ("a | value + value | value + value | value + value", "x" * (MAX_SIZE // 2)),
        ("a | value * value | value * value | value * value | value * value | value * value", 1 << 100_000),
        ("a | round(value, -1000000000)", 5),
        ("a | sum(value, [])", [[1]] * 1000),
        ("a | filter(lambda v: filter(lambda w: w == v, value), value)", list(range(2000))),
        ("a | filter(lambda v: v in value, value)", list(range(200_000))),
        ("a | str(value)", nested(5000)),
        ("a | str(value)", 10**5000),
    ],
    ids=short,
)
def test_operation_that_would_take_too_much_has_no_value(text: str, value: Any) -> None:
    # Without limits several of these end the process for lack of memory, or never end.
    with pytest.raises(NoValue) as caught:
        expression(text).value({"a": value})
    assert len(str(caught.value)) < 500


def test_ordinary_expressions_on_large_responses_have_their_value() -> None:
    links = [{"rel": "self"}] * 5000 + [{"rel": "next", "href": "http://next"}]
    following = "links | filter(lambda v: v.get('rel') == 'next', value) | value[0] | value.get('href')"
    assert expression(following).value({"links": links}) == "http://next"
    assert expression("a | value.replace('MB', '').strip() | int(value) * 1024").value({"a": "7 MB"}) == 7168
    assert expression("a | sum(value) / len(value)").value({"a": [1, 3] * 10_000}) == 2
    assert formula("a.replace('x', 'yy')", ("a",)).value({"a": "x" * 1000}) == "y" * 2000


# --- definitions of notifications -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [nested(50_000), 10**5000, {"a": nested(50_000)}, "x" * 10**6, [1] * 100_000], ids=short
)
def test_user_metadata_of_any_size_and_depth_is_a_short_text(value: Any) -> None:
    [text] = user_metadata({"metering.a": value}).values()
    assert len(text) <= MAX_USER_METADATA


@pytest.mark.parametrize(
    "text", ["$.payload..name", "$.payload.*.name", "$.payload[?(@.name='x')].a", "$.payload.a * $.payload.b"]
)
@pytest.mark.parametrize(
    "payload", [nested(20_000), {"a": "x" * 1000, "b": 10**9}, {"a": [1] * 1000, "b": 10**9}], ids=short
)
def test_path_in_any_payload_is_found_missing_or_bad(text: str, payload: Any) -> None:
    try:
        found = path(text).first({"payload": payload})
    except BadPath:
        return
    assert found in (MISSING, None, []) or not isinstance(found, str | list) or len(found) <= 1000


@pytest.mark.parametrize("text", ["$" + ".a" * 249, "$" + "[*]" * 166, "(" * 200 + "$" + ")" * 200, "$..a..b..c"])
def test_long_and_deep_paths_are_compiled_or_refused(text: str) -> None:
    try:
        path(text)
    except BadPath as error:
        assert len(str(error)) < 500
