"""Complex queries: valid and invalid expressions, orders and limits."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.api_client import ApiClient
from tests.api_client import Response

PATH = "/v2/query/samples"


@pytest.fixture(scope="module")
def api() -> ApiClient:
    return ApiClient()


def query(api: ApiClient, filter: Any = None, orderby: Any = None, **body: Any) -> Response:
    for name, content in (("filter", filter), ("orderby", orderby)):
        if content is not None:
            body[name] = content if isinstance(content, str) else json.dumps(content)
    return api.post(PATH, body)


@pytest.mark.parametrize(
    ("expression", "ids"),
    [
        (None, ["s3", "s2", "s1", "s0"]),
        ("", ["s3", "s2", "s1", "s0"]),
        ({}, ["s3", "s2", "s1", "s0"]),
        ({"=": {"meter": "cpu"}}, ["s2", "s1", "s0"]),
        ({"=": {"counter_name": "cpu"}}, ["s2", "s1", "s0"]),
        ({"!=": {"counter_name": "cpu"}}, ["s3"]),
        ({">": {"volume": 19}}, ["s2", "s1"]),
        ({"=>": {"counter_volume": 20.0}}, ["s2", "s1"]),
        ({"<=": {"timestamp": "2026-11-22T12:01:00"}}, ["s1", "s0"]),
        ({"=<": {"timestamp": "2026-11-22T13:01:00+01:00"}}, ["s1", "s0"]),
        ({"<": {"recorded_at": "2026-11-22T12:10:00"}}, []),
        ({"=~": {"resource": "^vm-[0-9]$"}}, ["s3", "s1", "s0"]),
        ({"in": {"user": ["bob", "eve"]}}, ["s2"]),
        ({"IN": {"volume": [10, 60.0]}}, ["s2", "s0"]),
        ({"in": {"metadata.size": [0, 1]}}, ["s0"]),
        ({"=": {"metadata.size": 0}}, ["s0"]),
        ({"=": {"metadata.size": "0"}}, ["s1"]),
        ({"=": {"resource_metadata.flavor.name": "m1"}}, ["s0"]),
        ({"=": {"metadata.on": True}}, ["s1"]),
        ({"AND": [{"=": {"meter": "cpu"}}, {"Not": {"=": {"user": "ann"}}}]}, ["s2"]),
        ({"or": [{"=": {"unit": "GB"}}, {"=": {"message_id": "s0"}}]}, ["s3", "s0"]),
        ({"not": {"=": {"project_id": "blue"}}}, ["s3", "s2"]),
        ({"=": {"type": "gauge"}}, ["s3"]),
    ],
    ids=str,
)
def test_expression_matches(api: ApiClient, expression: Any, ids: list[str]) -> None:
    response = query(api, expression)
    assert response.status == 200, response.body
    assert [sample["id"] for sample in response.json] == ids


@pytest.mark.parametrize(
    ("order", "ids"),
    [
        ([{"timestamp": "asc"}], ["s0", "s1", "s2", "s3"]),
        ([{"counter_volume": "DESC"}], ["s2", "s1", "s0", "s3"]),
        ([{"meter": "desc"}, {"volume": "asc"}], ["s3", "s0", "s1", "s2"]),
        ([], ["s3", "s2", "s1", "s0"]),
    ],
)
def test_samples_are_in_the_requested_order(api: ApiClient, order: Any, ids: list[str]) -> None:
    assert [sample["id"] for sample in query(api, None, order).json] == ids


def test_limit_can_be_a_string_as_old_clients_send_it(api: ApiClient) -> None:
    assert len(query(api, limit="2").json) == len(query(api, limit=2).json) == 2
    assert query(api, limit="0").faultstring == "Limit must be positive"
    assert query(api, limit="many").status == 400


def test_limit_can_be_an_integral_float(api: ApiClient) -> None:
    assert len(query(api, limit=2.0).json) == 2
    assert (
        query(api, limit=2.5).faultstring
        == "Invalid input for field/attribute limit. Value: '2.5'. it must be an integer."
    )
    assert len(query(api, limit=None).json) == 4


@pytest.mark.parametrize(
    "body", [b'{"filter": "[", "filter": ""}', b"null", b'{"filter": null}', b'{"filter": "null"}']
)
def test_filter_that_is_null_or_given_twice_is_400(api: ApiClient, body: bytes) -> None:
    assert api.post(PATH, body).status == 400


@pytest.mark.parametrize(("time", "found"), [("2026", 4), ("2026-12", 0), ("2026-1-2", 4)])
def test_times_in_an_expression_can_have_a_short_form(api: ApiClient, time: str, found: int) -> None:
    assert len(query(api, {">=": {"timestamp": time}}).json) == found


def test_pages_of_a_complex_query_are_linked(api: ApiClient) -> None:
    first = query(api, {"=": {"meter": "cpu"}}, limit=2)
    second = api.post(
        first.headers["link"].partition(">")[0].removeprefix("<http://cloud:8777"),
        {"filter": '{"=": {"meter": "cpu"}}'},
    )
    assert [sample["id"] for sample in first.json + second.json] == ["s2", "s1", "s0"]


def nots(depth: int) -> str:
    return '{"not": ' * depth + '{"=": {"meter": "cpu"}}' + "}" * depth


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("[", "invalid JSON"),
        ('{"=": {"meter": "cpu"}, "=": {"user": "ann"}}', 'duplicate key "=" in an object'),
        ('{"=": {"meter": "cpu", "meter": "disk.size"}}', 'duplicate key "meter" in an object'),
        ([], "exactly one key, got a list of length 0"),
        ("3", "exactly one key, got 3"),
        ({"=": {"meter": "cpu"}, "<": {"volume": 1}}, "exactly one key, got an object of length 2"),
        ({"=": {}}, "exactly one key"),
        ({"==": {"meter": "cpu"}}, "unknown operator '=='"),
        ({"=": {"wings": 1}}, "unknown field 'wings'"),
        ({"=": {"resource_metadata": "x"}}, "unknown field 'resource_metadata'"),
        ({"=": {"metadata.": 1}}, "unknown field 'metadata.'"),
        ({"and": [{"=": {"meter": "cpu"}}]}, "and requires a list of at least two expressions"),
        ({"or": {"=": {"meter": "cpu"}}}, "or requires a list of at least two expressions"),
        ({"not": [{"=": {"meter": "cpu"}}]}, "exactly one key, got a list of length 1"),
        ({"in": {"meter": []}}, "at least one value"),
        ({"in": {"meter": "cpu"}}, "at least one value"),
        ({"=": {"meter": 3}}, "meter requires a string, got 3"),
        ({"=": {"meter": None}}, "meter requires a string, got None"),
        ({"<": {"volume": "3"}}, "volume requires a number"),
        ({"<": {"volume": 10**400}}, "is out of range"),
        ({"=": {"volume": True}}, "volume requires a number"),
        ({"<": {"timestamp": "soon"}}, "Failed to parse the timestamp value 'soon'"),
        ({"<": {"timestamp": 5}}, "Failed to parse the timestamp value 5"),
        ({"=": {"metadata.a": [1]}}, "metadata requires a string, a number or a boolean"),
        ({"=": {"metadata.a": "\0"}}, "NUL"),
        ({"=": {"metadata.\0": "a"}}, "unknown field"),
        ({"=~": {"volume": "3"}}, "=~ requires a string field and a string pattern"),
        ({"=~": {"meter": "a" * 501}}, "at most 500 characters"),
        ({"=~": {"meter": "("}}, "not a regular expression"),
        (nots(50), "nested more than 32 levels deep"),
        (nots(1000), "Filter expression not valid: "),
        ({"in": {"meter": ["x"] * 501}}, "more than 500 conditions"),
        ({"or": [{"=": {"meter": "x"}}] * 501}, "more than 500 conditions"),
    ],
)
def test_invalid_expression_is_400_with_the_reason(api: ApiClient, expression: Any, fault: str) -> None:
    response = query(api, expression)
    assert response.status == 400
    assert fault in response.faultstring
    assert len(response.body) < 1000


@pytest.mark.parametrize(
    "order",
    [
        '"timestamp"',
        [{"wings": "asc"}],
        [{"metadata.a": "asc"}],
        [{"timestamp": "up"}],
        [{"timestamp": "asc", "meter": "asc"}],
        [{"timestamp": 1}],
        [{"meter": "asc"}] * 100,
    ],
)
def test_invalid_order_is_400(api: ApiClient, order: Any) -> None:
    response = query(api, None, order)
    assert response.status == 400
    assert response.faultstring.startswith("Order-by expression not valid: ")


@pytest.mark.parametrize(
    "body",
    [
        b"[",
        b"3",
        b'{"filters": "x"}',
        b'{"filter": {"=": {}}}',
        b'{"limit": []}',
        b'{"limit": true}',
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_body_that_is_not_a_complex_query_is_400(api: ApiClient, body: bytes) -> None:
    response = api.post(PATH, body)
    assert response.status == 400
    assert response.json["error_message"]["faultcode"] == "Client"


def test_complex_query_without_a_body_matches_everything(api: ApiClient) -> None:
    assert len(api.post(PATH, b"").json) == 4
