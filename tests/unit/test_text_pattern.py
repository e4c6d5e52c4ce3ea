"""Patterns in queries: which are accepted, and what they match."""

from __future__ import annotations

import pytest

from meter.interfaces import RequestError
from meter.text_pattern import MAX_PATTERN_STATES
from meter.text_pattern import text_pattern


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("", "anything", None),
        ("^web-.*[0-9]$", "web-7", "a web-7"),
        ("prod|test", "latest", "lab"),
        ("(?i)Web[a-c]", "WEBB", "webd"),
        ("(?i)ä", "Ä", "a"),
        (r"\d{2,3}\.x", "12.x", "1.x"),
        (r"^\w+\s\S$", "a_1 x", "a_1 "),
        ("[]a]", "]", "["),
        (r"[^\]x-]", "a", "]x-"),
        ("[[:digit:]_]+$", "a_1", "a"),
        ("[+--]", ",", "."),
        ("a{2}b{0}", "aa", "a"),
        ("{a", "x{ax", "a"),
        ("a{,3}", "a{,3}", "aaa"),
        ("(?P<name>a)(?:b)?c", "ac", "abbc"),
        ("(|a)b", "b", "a"),
        (r"\Aa\z", "a", "ba"),
        (r"\x41\x{e4}\t", "Aä\t", "A"),
        ("a.b", "a\nb", "ab"),
        ("a+?$", "aa", "ab"),
        ("ü[à-ö]", "üä", "üa"),
        ("^compute[.]instance[.]", "compute.instance.exists", "compute-instance."),
    ],
)
def test_pattern_matches_what_it_describes(pattern: str, matching: str, other: str | None) -> None:
    assert text_pattern(pattern).matches(matching)
    assert other is None or not text_pattern(pattern).matches(other)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        (r"(a)\1", "back-references"),
        ("(?=a)", "look-around"),
        ("(?<!a)b", "look-around"),
        ("(?m)a", r"groups with \(\?"),
        ("***=a", "nothing to repeat"),
        ("a**", "cannot be repeated"),
        ("^*", "cannot be repeated"),
        ("a{2}{3}", "cannot be repeated"),
        ("a{256}", "repetition from 0 to 255"),
        ("a{3,2}", "repetition from 0 to 255"),
        ("(a{100}){100}", f"more than {MAX_PATTERN_STATES}"),
        ("a" * (MAX_PATTERN_STATES + 1), f"more than {MAX_PATTERN_STATES}"),
        ("(" * 60 + ")" * 60, "nested"),
        ("(", "not closed"),
        ("a)", "closing parenthesis"),
        ("[a", "not closed"),
        ("[b-a]", "not a range"),
        ("[[=a=]]", "collating"),
        ("[[:word", r"\[:…:\] takes"),
        (r"[\D]", "within brackets"),
        (r"\ba", r"escape \\b"),
        (r"\pL", r"escape \\p"),
        (r"\x{d800}", "not a character"),
        (r"\0", "octal"),
        ("\\", "escape"),
        ("(?i)[à-ö]", "ASCII"),
    ],
)
def test_unsupported_pattern_is_refused_with_the_reason(pattern: str, reason: str) -> None:
    with pytest.raises(RequestError, match=reason):
        text_pattern(pattern)
