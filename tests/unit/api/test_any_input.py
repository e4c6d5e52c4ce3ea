"""Property tests: every request gets a response in a documented shape, never 500 and never HTML."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from meter.api import RequestLimits
from meter.api.ingest import ATTRIBUTES
from tests.api_client import ApiClient
from tests.api_client import Response
from tests.unit.api.test_application import PendingStore
from tests.unit.api.test_ingest import APPLE
from tests.unit.api.test_ingest import IngestApi

INGEST_API = IngestApi()
API = ApiClient()
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


def is_valid(response: Response) -> bool:
    if response.status == 200:
        return isinstance(response.json, list | dict)
    return 400 <= response.status < 500 and response.json.keys() == {"error_message"}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["q.field", "q.op", "q.value", "q.type", "limit", "as_of"]) | TEXTS, TEXTS)))
def test_arbitrary_query_string_gets_a_valid_response(pairs: list[tuple[str, str]]) -> None:
    query = "&".join(f"{quote(name)}={quote(value)}" for name, value in pairs)
    assert is_valid(API(f"/v2/samples?{query}"))


@settings(max_examples=50, deadline=None)
@given(TEXTS, TEXTS, st.sampled_from(["", "integer", "float", "string", "boolean", "datetime"]))
def test_arbitrary_key_and_value_of_metadata_can_be_queried(key: str, value: str, kind: str) -> None:
    query = f"q.field=metadata.{quote(key)}&q.value={quote(value)}&q.type={kind}"
    assert is_valid(API(f"/v2/meters/cpu?{query}"))
    assert is_valid(API(f"/v2/meters/cpu/statistics?groupby=metadata.{quote(key)}"))


@settings(max_examples=50, deadline=None)
@given(EXPRESSIONS | SCALARS)
def test_arbitrary_expression_gets_a_valid_response(expression: Any) -> None:
    response = API.post("/v2/query/samples", {"filter": msgspec.json.encode(expression).decode()})
    assert is_valid(response)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=60))
def test_arbitrary_body_gets_a_valid_response(body: bytes) -> None:
    assert is_valid(API.post("/v2/query/samples", body))
    assert is_valid(INGEST_API.post(body))


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(ATTRIBUTES)), SCALARS | st.dictionaries(TEXTS, SCALARS, max_size=3)))
def test_arbitrary_sample_is_accepted_or_rejected(fields: dict[str, Any]) -> None:
    response = INGEST_API.post([{**APPLE, **fields}])
    assert response.status == 201 or is_valid(response)


@settings(max_examples=50, deadline=None)
@given(TEXTS)
def test_arbitrary_path_gets_a_valid_response(text: str) -> None:
    for path in ("/v2/samples/", "/v2/meters/", "/v2/resources/", "/v1/projects/"):
        assert is_valid(API(path + quote(text, safe="")))
    # Hypothesis finds names in the code: of pages, such as "prices", and of addresses of Prometheus, whose errors have another form.
    assert API("/" + quote(text, safe="")).status < 500


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", "((((a*)*)*)*)*b", "[", "\\", "*"])
def test_arbitrary_pattern_gets_a_valid_response(pattern: str) -> None:
    response = API.post("/v2/query/samples", {"filter": msgspec.json.encode({"=~": {"meter": pattern}}).decode()})
    assert is_valid(response)


def test_request_beyond_the_concurrency_limit_is_503() -> None:
    store = PendingStore()
    api = ApiClient(store=store, limits=RequestLimits(max_requests=2))
    waiting: list[Deferred[Response]] = [api.pending("/v2/samples"), api.pending("/v2/samples")]
    api.flush()
    refused = api("/v2/samples")
    assert (refused.status, "retry-after" in refused.headers) == (503, True)
    for query in store.queries:
        query.callback([])
    api.flush()
    assert all(response.called for response in waiting)
    more = api.pending("/v2/samples")
    api.flush()
    store.queries[-1].callback([])
    api.flush()
    assert more.called
