"""Expressions of declarative REST pollsters."""

from __future__ import annotations

from typing import Any

import pytest

from meter.declarative.rest.expressions import BadFormula
from meter.declarative.rest.expressions import NoValue
from meter.declarative.rest.expressions import expression


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b.1", 20),
        ("a.b.7", None),
        ("a.none.x", None),
        (".", {"a": {"b": [10, 20]}, "s": "7 GB"}),
        ("a.b | value[0] * 2", 20),
        ("a.b | sum(value) / len(value)", 15),
        ("s | value.split(' ')[0] | int(value) * 1024", 7168),
        ("a | value.get('c', 3)", 3),
        ("s | 1 if value.endswith('GB') else 0", 1),
        ("s | value == 'x' or value == '7 GB'", True),
        ("s | value[:1] in ['7']", True),
        ("none | value * 2", None),
    ],
)
def test_expression_is_a_path_and_operations(text: str, value: Any) -> None:
    assert expression(text).value({"a": {"b": [10, 20]}, "s": "7 GB"}) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a..b",
        "a | __import__('os')",
        "a | value.__class__",
        "a | [x for x in value]",
        "a | (lambda: 1)()",
        "a | 9 ** 9 ** 9",
        "a | open('/etc/passwd')",
        "a | value.format(1)",
        "a | 1 +",
        "a | " + "(" * 500,
        "x" * 1001,
    ],
)
def test_expression_that_is_not_allowed_is_rejected(text: str) -> None:
    with pytest.raises(BadFormula):
        expression(text)


@pytest.mark.parametrize("text", ["a | value / 0", "a | value['x']", "a | 'x' * 1000000000", "a | '%999999d' % value"])
def test_operation_that_fails_has_no_value(text: str) -> None:
    with pytest.raises(NoValue):
        expression(text).value({"a": 1})
