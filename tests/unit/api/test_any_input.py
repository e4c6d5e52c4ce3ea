"""Whatever a client sends is answered in the documented shape: never with a defect, never in HTML."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from meter.api import Limits
from meter.api.ingest import ATTRIBUTES
from tests.asking import Answer
from tests.asking import Asking
from tests.unit.api.test_failures import Waiting
from tests.unit.api.test_ingest import APPLE
from tests.unit.api.test_ingest import Orchard

ORCHARD = Orchard()
ASK = Asking()
TEXTS = st.text(max_size=20)
FIELDS = st.sampled_from(["meter", "volume", "timestamp", "metadata.size", "recorded_at", "resource"]) | TEXTS
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
LEAVES = st.builds(
    lambda operator, field, value: {operator: {field: value}},
    st.sampled_from(["=", "!=", "<", "<=", ">", ">=", "=~", "=<", "=>", "in", "and", "not"]) | TEXTS,
    FIELDS,
    SCALARS | st.lists(SCALARS, max_size=3),
)
EXPRESSIONS = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(lambda word, parts: {word: parts}, st.sampled_from(["and", "or"]), st.lists(inner, max_size=3))
        | st.builds(lambda part: {"not": part}, inner)
    ),
    max_leaves=8,
)


def is_well_answered(answer: Answer) -> bool:
    if answer.status == 200:
        return isinstance(answer.json, list | dict)
    return 400 <= answer.status < 500 and answer.json.keys() == {"error_message"}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["q.field", "q.op", "q.value", "q.type", "limit", "as_of"]) | TEXTS, TEXTS)))
def test_any_query_string_is_answered(pairs: list[tuple[str, str]]) -> None:
    query = "&".join(f"{quote(name)}={quote(value)}" for name, value in pairs)
    assert is_well_answered(ASK(f"/v2/samples?{query}"))


@settings(max_examples=50, deadline=None)
@given(TEXTS, TEXTS, st.sampled_from(["", "integer", "float", "string", "boolean", "datetime"]))
def test_any_key_and_value_of_metadata_may_be_asked_for(key: str, value: str, kind: str) -> None:
    query = f"q.field=metadata.{quote(key)}&q.value={quote(value)}&q.type={kind}"
    assert is_well_answered(ASK(f"/v2/meters/cpu?{query}"))
    assert is_well_answered(ASK(f"/v2/meters/cpu/statistics?groupby=metadata.{quote(key)}"))


@settings(max_examples=50, deadline=None)
@given(EXPRESSIONS | SCALARS)
def test_any_expression_is_answered(expression: Any) -> None:
    answer = ASK.post("/v2/query/samples", {"filter": msgspec.json.encode(expression).decode()})
    assert is_well_answered(answer)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=60))
def test_any_body_is_answered(body: bytes) -> None:
    assert is_well_answered(ASK.post("/v2/query/samples", body))
    assert is_well_answered(ORCHARD.post(body))


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(ATTRIBUTES)), SCALARS | st.dictionaries(TEXTS, SCALARS, max_size=3)))
def test_any_sample_is_taken_or_refused(fields: dict[str, Any]) -> None:
    answer = ORCHARD.post([{**APPLE, **fields}])
    assert answer.status == 201 or is_well_answered(answer)


@settings(max_examples=50, deadline=None)
@given(TEXTS)
def test_any_path_is_answered(text: str) -> None:
    for path in ("/v2/samples/", "/v2/meters/", "/v2/resources/", "/v1/projects/", "/"):
        assert is_well_answered(ASK(path + quote(text, safe="")))


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", "((((a*)*)*)*)*b", "[", "\\", "*"])
def test_no_pattern_takes_long_or_is_a_defect(pattern: str) -> None:
    answer = ASK.post("/v2/query/samples", {"filter": msgspec.json.encode({"=~": {"meter": pattern}}).decode()})
    assert is_well_answered(answer)


def test_who_comes_when_there_are_as_many_as_may_be_is_told_to_try_again() -> None:
    store = Waiting()
    ask = Asking(store=store, limits=Limits(requests=2))
    waiting: list[Deferred[Answer]] = [ask.pending("/v2/samples"), ask.pending("/v2/samples")]
    ask.flush()
    refused = ask("/v2/samples")
    assert (refused.status, "retry-after" in refused.headers) == (503, True)
    for question in store.questions:
        question.callback([])
    ask.flush()
    assert all(answer.called for answer in waiting)
    more = ask.pending("/v2/samples")
    ask.flush()
    store.questions[-1].callback([])
    ask.flush()
    assert more.called
