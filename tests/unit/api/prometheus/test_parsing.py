"""Expressions are parsed within bounds, and what is outside of the subset is named."""

from __future__ import annotations

import pytest

from meter.api.prometheus.matchers import LabelMatcher
from meter.api.prometheus.parsing import MAX_NESTING
from meter.api.prometheus.parsing import parse
from meter.api.prometheus.parsing import parse_selector
from meter.api.prometheus.results import PromqlError
from meter.api.prometheus.syntax import BinaryNode
from meter.api.prometheus.syntax import RangeNode
from meter.api.prometheus.syntax import SelectorNode
from meter.api.prometheus.syntax import VectorMatching


def parsed(expression):
    return parse(expression, 100_000)


def test_selector_has_its_matchers_offset_and_time():
    node = parsed('m{a="b", c!~"d.*"}[5m] offset -1h @ 17.5')

    assert node == RangeNode(
        SelectorNode(
            (LabelMatcher("__name__", "=", "m"), LabelMatcher("a", "=", "b"), LabelMatcher("c", "!~", "d.*")),
            -3600,
            17.5,
        ),
        300,
    )
    assert parsed("m @ end()").at == "end"
    assert parsed("m @ start()").at == "start"


@pytest.mark.parametrize(
    ("modifier", "matching"),
    [
        ("", VectorMatching()),
        ("on (x)", VectorMatching(on=True, labels=("x",))),
        ("ignoring (x) group_left", VectorMatching(labels=("x",), many="left")),
        ("on () group_right (y)", VectorMatching(on=True, many="right", include=("y",))),
    ],
)
def test_matching_of_vectors_is_read(modifier, matching):
    node = parsed(f"a + {modifier} b")
    assert isinstance(node, BinaryNode)
    assert node.matching == matching


@pytest.mark.parametrize(
    ("expression", "named"),
    [
        ("max_over_time(m[1h:5m])", "subquery"),
        ("irate(m[5m])", "irate()"),
        ("histogram_quantile(0.9, m)", "histogram_quantile()"),
        ("predict_linear(m[1h], 5)", "predict_linear()"),
        ('count_values("x", m)', "count_values()"),
        ("limitk(1, m)", "limitk()"),
        ('m{a="b" or c="d"}', "or"),
        ("hour()", "hour()"),
    ],
)
def test_what_is_outside_of_the_subset_is_named(expression, named):
    with pytest.raises(PromqlError) as refused:
        parsed(expression)
    assert refused.value.kind == "bad_data"
    assert named in refused.value.text
    assert "outside of the subset" in refused.value.text


@pytest.mark.parametrize(
    "expression",
    [
        "",
        " ",
        "m{",
        "a b",
        "m{a=~'('}",
        "{}",
        '{a=~".*"}',
        "m\0",
        "\ud800",
        "(" * (MAX_NESTING + 1) + "1" + ")" * (MAX_NESTING + 1),
        "+".join(["1"] * (MAX_NESTING + 2)),
        "+".join(["1"] * 20_000),
        "(" * 50_000,
        "-" * 90_000 + "1",
        "m{" + ",".join(f'a{n}="b"' for n in range(60)) + "}",
        "m{" + ",".join(f'a{n}=~"b.*"' for n in range(300)) + "}",
        'm{a=~"(((x{1,100}){1,100}){1,100}){1,100}"}',
        "sum by (1x) (m)",
        "m @ -5",
        "m @ # before 1970\n -1e300",
        "m @ 1e300",
        "m @ NaN",
        "m[1s] @ 99999999999999",
        "m[99999999y]",
        "m offset 99999999y",
    ],
)
def test_expression_that_is_invalid_or_too_large_is_refused(expression):
    with pytest.raises(PromqlError) as refused:
        parsed(expression)
    assert refused.value.kind == "bad_data"


def test_panic_of_the_parser_is_an_error_of_the_expression(monkeypatch):
    class PanicException(BaseException):
        pass

    def panic(expression):
        raise PanicException

    monkeypatch.setattr("promql_parser.parse", panic)
    with pytest.raises(PromqlError, match="cannot read"):
        parsed("m")


def test_operators_in_texts_do_not_count():
    text = "(|)+-*/" * 200
    assert parse(f'm{{a="{text}"}}', 4096).matchers[1].value == text


@pytest.mark.parametrize(
    "written",
    ['"a|b"', "'a|b'", "`a|b`", ' # as "said"\n "a|b"', '\n\t"a\\x7cb"'],
)
def test_regular_expression_can_be_quoted_in_every_way(written):
    node = parsed(f'm{{x="=~", a=~{written}}} # or {{a=~"c"}}')
    assert node.matchers[1:] == (LabelMatcher("x", "=", "=~"), LabelMatcher("a", "=~", "a|b"))


def test_each_regular_expression_belongs_to_its_matcher():
    node = parsed("""max by (x) (m{a=~"1", b!~"0"}) + sum_over_time({c=~"2"}[5m])""")
    assert node.left.operand.matchers[1:] == (LabelMatcher("a", "=~", "1"), LabelMatcher("b", "!~", "0"))
    assert node.right.arguments[0].selector.matchers == (LabelMatcher("c", "=~", "2"),)


@pytest.mark.parametrize("expression", ["1", "m[5m]", "m offset 5m", "m @ 5", "sum(m)", "m + m"])
def test_selector_of_series_is_an_instant_selector_alone(expression):
    with pytest.raises(PromqlError, match="series selector"):
        parse_selector(expression, 100)
