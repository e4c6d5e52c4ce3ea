"""Simple queries: the terms of ``q``, and the types of their values."""

from __future__ import annotations

from typing import Any

import pytest

from meter.api.request.simple_query import convert
from tests.api_client import ApiClient
from tests.api_client import term

ALL = {"s0", "s1", "s2", "s3"}


@pytest.fixture(scope="module")
def api() -> ApiClient:
    return ApiClient()


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("", ALL),
        (term("resource_id", "vm-1"), {"s0", "s1", "s3"}),
        (term("resource", "vm-1"), {"s0", "s1", "s3"}),
        (term("resource", "vm-1", op="eq", kind=""), {"s0", "s1", "s3"}),
        (term("user", "ann"), {"s0", "s1"}),
        (term("user_id", "None"), {"s3"}),
        (term("project", "None"), {"s3"}),
        (term("project_id", "red"), {"s2"}),
        (term("resource_id", "None"), set()),
        (term("source", "test"), ALL),
        (term("meter", "disk.size"), {"s3"}),
        (term("message_id", "s1"), {"s1"}),
        (term("resource_id", ""), set()),
        (term("user", "ann") + "&" + term("user", "bob"), {"s2"}),
        (term("user", "ann", n=0) + "&" + term("project", "blue", n=7), {"s0", "s1"}),
        # times: start inclusive, end exclusive where ge and lt are meant; any ISO 8601; offsets are converted
        (term("timestamp", "2026-11-22T12:01:00", op="ge"), {"s1", "s2", "s3"}),
        (term("timestamp", "2026-11-22T12:01:00", op="gt"), {"s2", "s3"}),
        (term("timestamp", "2026-11-22T12:01:00", op="le"), {"s0", "s1"}),
        (term("timestamp", "2026-11-22 12:01:00.0", op="lt"), {"s0"}),
        (term("timestamp", "2026-11-22T13:01:00+01:00", op="lt"), {"s0"}),
        (term("timestamp", "2026-11-22T12:01:00Z", op="lt"), {"s0"}),
        (term("timestamp", "2026-11-22", op="ge"), ALL),
        (term("timestamp", "2026-11-22", op="lt"), set()),
        (
            term("timestamp", "2026-11-22T12:03", op="ge") + "&" + term("timestamp", "2026-11-22T12:02", op="ge"),
            {"s2", "s3"},
        ),
        (
            term("timestamp", "2026-11-22T12:02", op="ge") + "&" + term("search_offset", "1", op="eq"),
            {"s1", "s2", "s3"},
        ),
        (term("timestamp", "2026-11-22T12:00", op="le") + "&" + term("search_offset", "1", op="eq"), {"s0", "s1"}),
        # metadata is compared with its type
        (term("metadata.size", "0"), {"s0"}),
        (term("metadata.size", "0", kind="integer"), {"s0"}),
        (term("metadata.size", "0", kind="string"), {"s1"}),
        (term("metadata.size", "'0'"), {"s1"}),
        (term("metadata.size", "0.0", kind="float"), {"s0"}),
        (term("metadata.on", "True"), {"s1"}),
        (term("metadata.on", "yes", kind="boolean"), {"s1"}),
        (term("metadata.on", "true"), set()),
        (term("resource_metadata.flavor.name", "m1"), {"s0"}),
        # short forms of times that Ceilometer accepted: the first moment of a day, a month, a year
        (term("timestamp", "2026-11-22T12:01:0", op="ge"), {"s1", "s2", "s3"}),
        (term("timestamp", "2026-11-22T12", op="ge"), ALL),
        (term("timestamp", "2026-1-2", op="ge"), ALL),
        (term("timestamp", "2026-11", op="ge"), ALL),
        (term("timestamp", "2026-12", op="ge"), set()),
        (term("timestamp", "2026", op="ge"), ALL),
        (term("timestamp", "2026", op="lt"), set()),
        (term("timestamp", "2026-11-22T13:01:00,5+01", op="lt"), {"s0", "s1"}),
        # None matches samples whose metadata lacks the key, or has null
        (term("metadata.size", "None"), {"s2", "s3"}),
        (term("metadata.on", "None"), {"s0", "s2", "s3"}),
        (term("metadata.flavor.name", "None") + "&" + term("meter", "cpu"), {"s1", "s2"}),
        (term("metadata.flavor", "None") + "&" + term("metadata.size", "0"), {"s0"}),
        (term("metadata.size", "None", kind="string"), set()),
        (term("metadata.size", "'None'"), set()),
        # a single operator applies to the first field, even if meant for the second
        ("q.field=timestamp&q.field=user&q.op=ge&q.value=2026-11-22&q.value=ann", {"s0", "s1"}),
    ],
)
def test_simple_query_matches(api: ApiClient, query: str, ids: set[str]) -> None:
    response = api(f"/v2/samples?{query}")
    assert response.status == 200, response.body
    assert {sample["id"] for sample in response.json} == ids


def test_meter_in_the_path_wins_over_one_in_the_query(api: ApiClient) -> None:
    assert {sample["counter_name"] for sample in api("/v2/meters/cpu?" + term("meter", "disk.size")).json} == {"cpu"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-5", -5),
        ("007", "007"),
        ("5.0", 5.0),
        ("1e3", 1000.0),
        ("1e999", "1e999"),
        ("9" * 5000, "9" * 5000),
        ("True", True),
        ("true", "true"),
        ("'5'", "5"),
        ('"five"', "five"),
        ("[1]", "[1]"),
        ("None", "None"),
        ("m1.tiny", "m1.tiny"),
        ("", ""),
    ],
)
def test_value_without_a_type_is_converted_like_a_literal(text: str, value: Any) -> None:
    converted = convert(text, "")
    assert converted == value
    assert type(converted) is type(value)
