"""Content negotiation, and the types of bodies."""

from __future__ import annotations

import pytest
from twisted.web.test.requesthelper import DummyRequest

from meter.api.request.media_types import accepts_gzip
from tests.api_client import ApiClient


@pytest.fixture(scope="module")
def api() -> ApiClient:
    return ApiClient()


FOR_BROWSERS = (
    "text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8",
    "application/json; q=0.0, text/html",
)


@pytest.mark.parametrize("accept", FOR_BROWSERS)
def test_a_browser_gets_a_page_at_the_root(api: ApiClient, accept: str) -> None:
    response = api("/", headers={"Accept": accept})
    assert response.status == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert b"<h1>Overview</h1>" in response.body


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("application/json", 200),
        ("*/*", 200),
        ("application/*", 200),
        ("text/javascript", 200),
        ("text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8", 200),
        ("application/xml, application/json;q=0.1", 200),
        ("application/xml", 406),
        ("text/xml", 406),
        ("application/json;q=0, text/plain", 406),
        ("application/json; charset=utf-8", 200),
        ("application/json;charset=UTF-8;q=0.5", 200),
        ('application/json; profile="a,b"; version=2', 200),
        ("APPLICATION/JSON", 200),
        ("application/*;version=2", 200),
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", 200),
        ("text/javascript; charset=utf-8", 200),
        ("json", 200),
        ("application/json;q=high", 200),
        (", ;", 200),
        ("application/xml; charset=utf-8", 406),
        ("application/json; charset=utf-8; q=0", 406),
        ("application/json; q=0.0, text/html", 406),
        ("*/*;q=0", 406),
    ],
)
@pytest.mark.parametrize("path", ["/v2/samples", "/v2/meters", "/v2/meters/cpu/statistics", "/v1/meters", "/"])
def test_response_is_json_or_406(api: ApiClient, path: str, accept: str, status: int) -> None:
    if path == "/" and accept in FOR_BROWSERS:
        return
    response = api(path, headers={"Accept": accept})
    assert response.status == status
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("text/csv; header=present", "text/csv"),
        ("application/json;q=0.5, text/csv;charset=utf-8;q=0.6", "text/csv"),
        ("text/csv;q=0.5, application/json;charset=utf-8", "application/json"),
        ("text/csv;q=0, application/x-ndjson;q=0.1, */*;q=0", "application/x-ndjson"),
        ("application/json;q=0, */*", "text/csv"),
    ],
)
def test_preferred_media_type_is_returned(api: ApiClient, accept: str, media_type: str) -> None:
    assert api("/v2/samples", headers={"Accept": accept}).headers["content-type"] == media_type


def test_json_with_quality_zero_excludes_its_aliases(api: ApiClient) -> None:
    assert api("/v2/meters", headers={"Accept": "application/json;q=0, */*"}).status == 406


def test_body_of_a_non_json_type_is_415(api: ApiClient) -> None:
    response = api("/v2/samples", body=b"x", headers={"Content-Type": "text/plain; charset=utf-8"})
    assert (response.status, response.faultstring) == (415, "Unknown mimetype: text/plain")


@pytest.mark.parametrize(
    ("header", "accepted"),
    [("", False), ("br, GZIP ; q=0.8", True), ("gzip;q=0, br", False), ("gzip; q=0.000", False), ("x-gzip", False)],
)
def test_a_response_is_compressed_only_for_clients_that_name_gzip(header: str, *, accepted: bool) -> None:
    request = DummyRequest([])
    request.requestHeaders.setRawHeaders(b"accept-encoding", [header.encode()])
    assert accepts_gzip(request) is accepted
