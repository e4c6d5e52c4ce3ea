"""Paging: limits, markers and links to the next page."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred

from meter.api import RequestLimits
from tests.api_client import ApiClient
from tests.api_client import message
from tests.api_client import term


@pytest.fixture(scope="module")
def api() -> ApiClient:
    return ApiClient()


def test_response_has_the_default_limit() -> None:
    api = ApiClient(limits=RequestLimits(default_limit=2))
    assert len(api("/v2/samples").json) == 2
    assert len(api("/v2/samples?limit=3").json) == 3


def test_pages_of_samples_are_linked_and_end() -> None:
    api = ApiClient()
    path, seen = "/v2/samples?limit=3&" + term("source", "test"), []
    while path:
        response = api(path)
        seen.append([sample["id"] for sample in response.json])
        Deferred.fromCoroutine(api.store.write([message(9)]))
        link = response.headers.get("link", "")
        assert not link or link.endswith('>; rel="next"')
        path = link.partition(">")[0].removeprefix("<http://cloud:8777")
    assert seen == [["s3", "s2", "s1"], ["s0"]]


@pytest.mark.parametrize(
    ("path", "key", "found"),
    [
        ("/v2/meters?limit=1", "meter_id", ["YS9iIGMrY3B1", "dm0tMStjcHU=", "dm0tMStkaXNrLnNpemU="]),
        ("/v2/meters?limit=1&unique=1", "name", ["cpu", "disk.size"]),
        ("/v2/resources?limit=1", "resource_id", ["a/b c", "vm-1"]),
    ],
)
def test_pages_of_meters_and_resources_are_linked_and_end(
    api: ApiClient, path: str, key: str, found: list[str]
) -> None:
    seen = []
    while path:
        response = api(path)
        seen += [one[key] for one in response.json]
        path = response.headers.get("link", "").partition(">")[0].removeprefix("<http://cloud:8777")
    assert seen == found


@pytest.mark.parametrize("marker", ["x", "WyJhIiwiYiJd", "W10", "eA", "WyJcdTAwMDAiXQ"])
def test_marker_of_another_list_is_400(api: ApiClient, marker: str) -> None:
    assert "it must be taken from the Link header" in api(f"/v2/resources?marker={marker}").faultstring


def test_full_last_page_has_no_link(api: ApiClient) -> None:
    assert "link" not in api("/v2/samples?limit=4").headers
    assert "link" not in api("/v2/meters/cpu").headers
    assert "limit=2&marker=" in api("/v2/meters/cpu?limit=2").headers["link"]
