"""The OpenAPI document and the docs page are complete and self-contained."""

from __future__ import annotations

import re
from typing import Any

import pytest

from meter.api.operations import OPERATIONS
from tests.api_client import ApiClient


@pytest.fixture(scope="module")
def api() -> ApiClient:
    return ApiClient()


def test_every_operation_is_described_once(api: ApiClient) -> None:
    document = api("/openapi.json").json
    assert document["openapi"] == "3.1.0"
    assert document["servers"] == [{"url": "http://cloud:8777"}]
    described = [one["operationId"] for path in document["paths"].values() for one in path.values()]
    assert sorted(described) == sorted(operation.name for operation in OPERATIONS)


def references(document: Any) -> set[str]:
    if isinstance(document, dict):
        inner = {found for value in document.values() for found in references(value)}
        return inner | ({document["$ref"]} if isinstance(document.get("$ref"), str) else set())
    return {found for value in document for found in references(value)} if isinstance(document, list) else set()


def test_every_reference_resolves(api: ApiClient) -> None:
    document = api("/openapi.json").json
    for reference in references(document):
        place = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def test_parameters_bodies_and_schemas_are_described(api: ApiClient) -> None:
    paths = api("/openapi.json").json["paths"]
    statistics = {each["name"] for each in paths["/v2/meters/{meter}/statistics"]["get"]["parameters"]}
    assert {"meter", "q.field", "q.op", "period", "groupby", "aggregate.func", "aggregate.param", "as_of"} <= statistics
    assert set(paths["/v2/samples"]["get"]["responses"]["200"]["content"]) == {
        "application/json",
        "text/csv",
        "application/x-ndjson",
    }
    posted = paths["/v2/meters/{meter}"]["post"]
    assert posted["requestBody"]["content"]["application/json"]["schema"]["type"] == "array"
    assert "201" in posted["responses"]


def test_docs_page_loads_no_other_files(api: ApiClient) -> None:
    response = api("/docs", headers={"Accept": "text/html"})
    assert (response.status, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
    page = response.body.decode()
    assert all(f'id="{operation.name}"' in page for operation in OPERATIONS)
    assert not re.search(r"https?://|<script|src=|@import", page)
