"""Matchers match whole values, and know which values are the only ones."""

from __future__ import annotations

import pytest

from meter.api.prometheus.matchers import LabelMatcher
from meter.api.prometheus.matchers import all_match


@pytest.mark.parametrize(
    ("operator", "pattern", "value", "matches"),
    [
        ("=", "a", "a", True),
        ("=", "", "", True),
        ("!=", "a", "", True),
        ("=~", "a", "ab", False),
        ("=~", "a|ab", "ab", True),
        ("=~", "a.b", "a\nb", True),
        ("=~", "", "", True),
        ("=~", ".+", "", False),
        ("=~", "(?i)STRASSE", "strasse", True),
        ("=~", "ж.*", "жить", True),
        ("!~", "a.*", "ba", True),
        ("!~", "a.*", "ab", False),
    ],
)
def test_value_matches_as_a_whole(operator, pattern, value, matches):
    assert LabelMatcher("x", operator, pattern).matches(value) is matches


def test_label_that_is_missing_is_empty():
    labels = (("a", "1"),)
    assert all_match([LabelMatcher("b", "=", ""), LabelMatcher("b", "!=", "x"), LabelMatcher("a", "=", "1")], labels)
    assert not all_match([LabelMatcher("b", "!=", "")], labels)


@pytest.mark.parametrize(
    ("operator", "pattern", "values"),
    [
        ("=", "a", ("a",)),
        ("=", "", None),
        ("!=", "a", None),
        ("!~", "a", None),
        ("=~", "a|b-1", ("a", "b-1")),
        ("=~", "(a|b)", ("a", "b")),
        ("=~", r"a\.b|c\|d", ("a.b", "c|d")),
        ("=~", "a.b", None),
        ("=~", "a|", None),
        ("=~", "|a", None),
        ("=~", "a*", None),
        ("=~", "(a|b)|c", None),
        ("=~", r"a\\|b", None),
        ("=~", r"a\d", None),
        ("=~", "", None),
    ],
)
def test_only_values_are_those_of_a_list_of_literals(operator, pattern, values):
    matcher = LabelMatcher("x", operator, pattern)
    assert matcher.only_values == values
    assert all(matcher.matches(value) for value in values or ())
