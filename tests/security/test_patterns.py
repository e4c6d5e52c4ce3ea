"""A pattern in a query takes time linear in what it is matched with, and means the same to PostgreSQL and to RE2."""

from __future__ import annotations

import json
from typing import Any

import psycopg2
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from meter.interfaces import RequestError
from meter.text_pattern import MAX_PATTERN_STATES
from meter.text_pattern import text_pattern
from tests.api_client import ApiClient

TEXTS = st.text(st.sampled_from("abcAB01 .-_[]^$\\\n\t{}()äÄ*|"), max_size=8)
ATOMS = st.sampled_from(
    [
        *"abAB0 -_äÄ.",
        *(r"\.", r"\d", r"\w", r"\S", r"\\", r"\[", r"\t", r"\x61", r"\}"),
        *(
            "[ab]",
            "[^ab]",
            "[a-c0]",
            "[]^-]",
            r"[\]\\]",
            "[[:alpha:]_]",
            r"[\d.]",
            "[^\n]",
            "[$|*]",
            "{",
            "}",
            "^",
            "$",
        ),
    ]
)
REPETITIONS = st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{1,3}", "{0}", "{2,}", "+?", "??"])


def combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    several = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        several.map("".join),
        several.map("|".join),
        st.tuples(inner, REPETITIONS).map(lambda parts: f"({parts[0]}){parts[1]}"),
        st.tuples(inner, REPETITIONS).map(lambda parts: f"(?:{parts[0]}|){parts[1]}"),
    )


PATTERNS = st.tuples(
    st.sampled_from(["", "", "(?i)"]),
    st.recursive(st.tuples(ATOMS, REPETITIONS).map("".join), combined, max_leaves=6),
).map("".join)


@pytest.fixture(scope="module")
def cursor(request: Any) -> Any:
    postgresql = request.getfixturevalue("postgresql")
    with psycopg2.connect(postgresql.dsn_with_schema()) as connection, connection.cursor() as cursor:
        yield cursor


def test_postgresql_and_re2_match_the_same_texts(cursor: Any) -> None:
    @settings(max_examples=1500)
    @given(PATTERNS, st.lists(TEXTS, min_size=1, max_size=6))
    def same(given: str, texts: list[str]) -> None:
        try:
            pattern = text_pattern(given)
        except RequestError:
            return
        cursor.execute(
            """SELECT array_agg(t COLLATE "C" ~ %s ORDER BY n) FROM unnest(%s::text[]) WITH ORDINALITY AS _ (t, n)""",
            (pattern.text, texts),
        )
        assert cursor.fetchone()[0] == [pattern.matches(text) for text in texts], (given, pattern.text)

    same()


CATASTROPHIC = (
    r"^(a+)+$",
    r"(a|aa)+$",
    r"(.*a){20}x",
    r"(a*)*b",
    r"(a?){250}a{250}",
    r"(a|b)*a(a|b){200}$",
    "(" * 40 + "a" + "*)" * 40,
    r"(.{0,255}x){3}",
    f"[^a]{{{255}}}.{{255}}",
)


@pytest.mark.parametrize("given", CATASTROPHIC)
def test_pattern_that_makes_others_backtrack_is_matched_or_refused(cursor: Any, given: str) -> None:
    pattern = text_pattern(given)
    texts = ["a" * 500 + "!", "ab" * 250]
    cursor.execute("SET statement_timeout = '20s'")  # without back-references PostgreSQL needs milliseconds
    cursor.execute("""SELECT array_agg(t COLLATE "C" ~ %s) FROM unnest(%s::text[]) AS _ (t)""", (pattern.text, texts))
    assert cursor.fetchone()[0] == [pattern.matches(text) for text in texts]


@pytest.mark.parametrize("given", [r"(a+)\1", r"(?=a)a", "((((a{99}){99}){99}){99})", f"(a{{{MAX_PATTERN_STATES}}})"])
def test_pattern_without_a_linear_match_or_of_great_size_is_400(given: str) -> None:
    api = ApiClient()
    response = api.post("/v2/query/samples", {"filter": json.dumps({"=~": {"resource_id": given}})})
    assert response.status == 400
    assert "is not a regular expression of the supported syntax" in response.faultstring
