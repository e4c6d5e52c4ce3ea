"""Parameters in the body of a GET are parsed or rejected, never ignored."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from meter.api.operation import Operation
from meter.api.operations import OPERATIONS
from tests.api_client import ApiClient
from tests.api_client import Response

API = ApiClient()
ANN = {"field": "user", "value": "ann"}
CURL = "application/x-www-form-urlencoded"


def request(path: str, body: Any, content_type: str | None = "application/json", method: str = "GET") -> Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {} if content_type is None else {"Content-Type": content_type}
    return API(path, method=method, body=content, headers=headers)


@pytest.mark.parametrize(
    ("path", "body", "same"),
    [
        ("/v2/samples", {"q": [ANN]}, "q.field=user&q.value=ann"),
        ("/v2/samples", {"q": [{**ANN, "op": "eq", "type": ""}]}, "q.field=user&q.value=ann"),
        ("/v2/samples", {"q": [{**ANN, "op": None, "type": None}]}, "q.field=user&q.value=ann"),
        ("/v2/samples", {"q": [{"field": "user", "value": ""}]}, "q.field=user&q.value="),
        (
            "/v2/samples",
            {"q": [{"field": "timestamp", "op": "ge", "value": "2026-11-22T12:01:00+00:00"}, ANN]},
            "q.field=timestamp&q.op=ge&q.value=2026-11-22T12:01:00&q.field=user&q.op=eq&q.value=ann",
        ),
        ("/v2/samples", {"q": [{"field": "metadata.size", "value": "0", "type": "string"}]}, "q.field=metadata.size&q.value=0&q.type=string"),
        ("/v2/meters", {"q": [ANN]}, "q.field=user&q.value=ann"),
        ("/v2/resources", {"q": [ANN], "meter_links": 0}, "q.field=user&q.value=ann&meter_links=0"),
        ("/v2/meters/cpu", {"q": [ANN], "limit": 1}, "q.field=user&q.value=ann&limit=1"),
        ("/v2/samples", {"limit": 2}, "limit=2"),
        ("/v2/samples", {"limit": 2.0}, "limit=2"),
        ("/v2/samples", {"limit": "2"}, "limit=2"),
        ("/v2/samples", {"limit": None, "q": []}, ""),
        ("/v2/samples", {"as_of": "2026-11-22T12:09:59"}, "as_of=2026-11-22T12:09:59"),
        ("/v2/meters", {"unique": True}, "unique=True"),
        ("/v2/meters", {"unique": "yes"}, "unique=yes"),
        (
            "/v2/meters/cpu/statistics",
            {"period": 60.0, "groupby": ["resource_id", "user_id"], "aggregate": [{"func": "max", "param": None}]},
            "period=60&groupby=resource_id&groupby=user_id&aggregate.func=max",
        ),
        (
            "/v2/meters/cpu/statistics",
            {"aggregate": [{"func": "cardinality", "param": "resource_id"}, {"func": "avg"}]},
            "aggregate.func=cardinality&aggregate.func=avg&aggregate.param=resource_id",
        ),
        ("/v2/meters/cpu/statistics", {"groupby": None, "aggregate": None, "period": None}, ""),
        ("/v1/meters", {"metadata.size": "0", "end_timestamp": "2026-11-23"}, "metadata.size=0&end_timestamp=2026-11-23"),
        ("/v1/sources/test/meters/cpu", {"start_timestamp": "2026-11-22T12:01:00"}, "start_timestamp=2026-11-22T12:01:00"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8", CURL, None])
def test_json_body_is_equivalent_to_a_query_string(path: str, body: Any, same: str, content_type: str | None) -> None:
    response = request(path, body, content_type)
    assert response.status == 200, response.body
    assert response.json == API(f"{path}?{same}").json
    assert request(path, body, content_type, "HEAD").status == 200


def test_body_with_the_default_type_of_curl_can_be_a_form() -> None:
    assert (
        request("/v2/samples", b"q.field=user&q.value=ann", CURL).json
        == API("/v2/samples?q.field=user&q.value=ann").json
    )
    assert request("/v2/samples", b"limit=1\n", None).json == API("/v2/samples?limit=1").json


@pytest.mark.parametrize("body", [b"", b" \n", b"{}"])
def test_empty_body_matches_everything(body: bytes) -> None:
    assert len(request("/v2/samples", body).json) == 4


def test_query_string_and_body_are_combined() -> None:
    assert [one["id"] for one in request("/v2/samples?limit=1", {"q": [ANN]}).json] == ["s1"]


@pytest.mark.parametrize(
    ("query", "body", "named"),
    [
        ("limit=1", {"limit": 2}, "limit"),
        ("q.field=user&q.value=bob", {"q": [ANN]}, "q"),
        ("q[0].field=user&q[0].value=bob", {"q": [ANN]}, "q"),
        ("limit=1", b"limit=1", "limit"),
        ("as_of=2026-11-22T13:00&limit=1", {"as_of": "2026-11-22T13:00", "limit": 1}, "as_of, limit"),
    ],
)
def test_parameter_in_query_string_and_body_is_400(query: str, body: Any, named: str) -> None:
    response = request(f"/v2/samples?{query}", body, CURL)
    assert response.status == 400
    assert response.faultstring == f"Parameter {named} was given several times: in the query string and in the body."


@pytest.mark.parametrize(
    ("path", "body", "fault"),
    [
        ("samples", b"{", "The body cannot be decoded: invalid JSON"),
        ("samples", b'{"q": [}', "The body cannot be decoded: invalid JSON"),
        ("samples", b'{"limit": NaN}', "The body cannot be decoded: invalid JSON"),
        ("samples", b"\xff", "The body cannot be decoded: invalid JSON"),
        ("samples", b'{"q": "\\ud800"}', "The body cannot be decoded: invalid JSON"),
        ("samples", b"[" * 30000, "The body cannot be decoded: invalid JSON"),
        ("samples", [], "must be a JSON object"),
        ("samples", None, "must be a JSON object"),
        ("samples", 3, "must be a JSON object"),
        ("samples", {"colour": "red"}, 'Unknown argument: "colour"'),
        ("samples", {"q.field": "user", "q.value": "ann"}, 'Unknown argument: "q.field"'),
        ("samples", {"q": None}, "q. Value: 'None'. null is not a filter"),
        ("samples", {"as_of": None}, "as_of. Value: 'None'. null is not a filter"),
        ("samples", {"marker": None}, "marker. Value: 'None'. null is not a filter"),
        ("samples", {"as_of": ""}, "as_of. Value: ''. it must not be empty"),
        ("samples", {"q": ANN}, "q. Value: '{\"field\": \"user\", \"value\": \"ann\"}'. it must be a list."),
        ("samples", {"q": [None]}, "q[0]. Value: 'null'. it must be an object"),
        ("samples", {"q": [ANN, "ann"]}, "q[1]. Value: '\"ann\"'. it must be an object"),
        ("samples", {"q": [{}]}, "q[0].field. Value: 'None'. Mandatory field missing."),
        ("samples", {"q": [{"field": "user"}]}, "q[0].value. Value: 'None'. Mandatory field missing."),
        ("samples", {"q": [{"field": "user", "value": None}]}, "q[0].value. Value: 'None'. Mandatory field missing."),
        ("samples", {"q": [{"field": None, "value": "ann"}]}, "q[0].field. Value: 'None'. Mandatory field missing."),
        ("samples", {"q": [{"field": "user", "value": 3}]}, "q[0].value. Value: '3'. it must be a string."),
        ("samples", {"q": [{**ANN, "colour": "red"}]}, "Unknown attribute for argument q: colour"),
        ("samples", {"q": [{**ANN, "op": "like"}]}, "Value should be one of"),
        ("samples", {"q": [ANN] * 101}, "at most 100 terms"),
        ("samples", {"q": [{"field": "user", "value": "a\0b"}]}, "must not contain NUL"),
        ("samples", {"limit": 1.5}, "limit. Value: '1.5'. it must be an integer."),
        ("samples", b'{"limit": 1e400}', "The body cannot be decoded: invalid JSON"),
        ("samples", {"limit": True}, "limit. Value: 'true'. it must be an integer."),
        ("samples", {"limit": []}, "limit. Value: '[]'. it must be an integer."),
        ("samples", {"limit": 0}, "Limit must be positive"),
        ("samples", {"limit": 10**100}, "limit"),
        ("meters", {"unique": 3}, "unique. Value: '3'. it must be a string."),
        ("meters/cpu/statistics", {"groupby": "user_id"}, "groupby. Value: '\"user_id\"'. it must be a list."),
        ("meters/cpu/statistics", {"groupby": [None]}, "groupby[0]. Value: 'null'. it must be a string."),
        ("meters/cpu/statistics", {"groupby": [""]}, "Invalid groupby fields"),
        ("meters/cpu/statistics", {"aggregate": [{"param": "user_id"}]}, "aggregate[0].func. Value: 'None'. Mandatory"),
        ("meters/cpu/statistics", {"aggregate": "max"}, "it must be a list."),
        ("samples/s0", {"q": [ANN]}, 'Unknown argument: "q"'),
        ("resources/vm-1", {"q": [ANN]}, 'Unknown argument: "q"'),
        ("capabilities", {"limit": 1}, 'Unknown argument: "limit"'),
    ],
)  # fmt: skip
def test_invalid_body_is_400_with_the_reason(path: str, body: Any, fault: str) -> None:
    response = request(f"/v2/{path}", b"null" if body is None else body)
    assert response.status == 400
    assert fault in response.faultstring
    assert len(response.body) < 1000


def test_duplicate_key_in_a_body_is_400() -> None:
    response = request("/v2/samples", b'{"q": [{"field": "user", "value": "ann"}], "q": []}')
    assert (response.status, response.faultstring) == (
        400,
        'The body cannot be decoded: duplicate key "q" in an object',
    )


def test_invalid_form_is_400() -> None:
    assert request("/v2/samples", b"everything", CURL).faultstring == 'Unknown argument: "everything"'
    assert request("/v2/samples", b"q.field=%ff", CURL).faultstring == "The body must be percent-encoded UTF-8."
    assert request("/v2/samples", b"user=\xe4nn", CURL).faultstring == "The body must be percent-encoded UTF-8."


def test_body_of_a_get_that_is_too_long_is_400() -> None:
    response = request("/v2/samples", {"q": [{"field": "user", "value": "a" * 40_000}]})
    assert (response.status, "at most 32768 bytes" in response.faultstring) == (400, True)


@pytest.mark.parametrize("media_type", ["text/plain", "application/xml", "multipart/form-data; boundary=x"])
def test_body_of_an_unsupported_type_is_415(media_type: str) -> None:
    assert request("/v2/samples", {"q": [ANN]}, media_type).status == 415


def test_compressed_body_is_415() -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert API("/v2/samples", body=b"\x1f\x8b", headers=headers).status == 415


def test_link_to_the_next_page_contains_the_parameters_of_the_body(  # a link is followed without the body
) -> None:
    body = {"q": [{"field": "metadata.size", "value": "Ä&b = 1"}], "limit": 1}
    assert "link" not in request("/v2/samples", body).headers
    first = request("/v2/samples", {"q": [ANN], "limit": 1})
    following = first.headers["link"].partition(">")[0].removeprefix("<http://cloud:8777")
    assert [one["id"] for one in [*first.json, *API(following).json]] == ["s1", "s0"]
    assert "link" not in API(following).headers
    again = request("/v2/samples?limit=1", {"q": [ANN]})
    assert again.headers["link"].count("limit=1") == 1


@pytest.mark.parametrize("operation", OPERATIONS, ids=[operation.name for operation in OPERATIONS])
def test_every_operation_rejects_an_unknown_member_of_the_body(operation: Operation) -> None:
    path = quote(operation.path.replace("{meter}", "cpu").replace("{id}", "s0"))
    response = request(path, {"colour": "red"}, method=operation.method)
    assert response.status in (400, 403, 406)
    if operation.media_types[0] == "application/json":
        assert response.status != 406


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["q", "limit", "field", "value", "op", "as_of", "marker"]) | st.text(max_size=5), inner, max_size=4
    ),
    max_leaves=10,
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(JSON | st.dictionaries(st.sampled_from(["q", "limit", "as_of", "marker"]), JSON), st.sampled_from([CURL, None, "application/json"]))  # fmt: skip
def test_arbitrary_body_gets_a_valid_response(body: Any, content_type: str | None) -> None:
    response = request("/v2/samples", body, content_type)
    assert response.status in (200, 400)
    if response.status == 200:
        assert isinstance(response.json, list)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40), st.sampled_from([CURL, None, "application/json"]))
def test_arbitrary_bytes_get_a_valid_response(body: bytes, content_type: str | None) -> None:
    assert request("/v2/meters/cpu/statistics", body, content_type).status in (200, 400)
