"""No response can be cached or taken for another type, whatever its status and whoever writes it."""

from __future__ import annotations

import pytest

from tests.http_exchange import exchange
from tests.security.test_undecodable_requests import api_site
from tests.security.test_undecodable_requests import status_pages

HOST = b" HTTP/1.1\r\nHost: cloud\r\nX-Auth-Token: token\r\n"
REQUESTS = {
    "JSON": (200, b"GET /v2/samples" + HOST + b"\r\n"),
    "HEAD": (200, b"HEAD /v2/samples" + HOST + b"\r\n"),
    "one sample": (200, b"GET /v2/samples/s0" + HOST + b"\r\n"),
    "export": (200, b"GET /v2/samples" + HOST + b"Accept: text/csv\r\n\r\n"),
    "event stream": (200, b"GET /v2/live" + HOST + b"\r\n"),
    "web page": (200, b"GET /docs" + HOST + b"\r\n"),
    "OpenAPI document": (200, b"GET /openapi.json" + HOST + b"\r\n"),
    "versions": (200, b"GET /" + HOST + b"\r\n"),
    "preflight": (204, b"OPTIONS /" + HOST + b"Origin: http://a\r\nAccess-Control-Request-Method: GET\r\n\r\n"),
    "OPTIONS *": (200, b"OPTIONS *" + HOST + b"\r\n"),
    "invalid parameter": (400, b"GET /v2/samples?limit=0" + HOST + b"\r\n"),
    "undecodable header": (400, b"GET /v2/samples" + HOST + b"Accept: \xff\r\n\r\n"),
    "malformed request": (400, b"GET" + HOST + b"\r\n"),
    "no token": (401, b"GET /v2/samples HTTP/1.1\r\nHost: cloud\r\n\r\n"),
    "unknown path": (404, b"GET /none" + HOST + b"\r\n"),
    "unknown sample": (404, b"GET /v2/samples/none" + HOST + b"\r\n"),
    "method": (405, b"DELETE /v2/samples" + HOST + b"\r\n"),
    "method of *": (405, b"GET *" + HOST + b"\r\n"),
    "media type": (406, b"GET /v2/resources" + HOST + b"Accept: text/csv\r\n\r\n"),
    "alarms": (410, b"GET /v2/alarms" + HOST + b"\r\n"),
    "large body": (413, b"POST /v2/query/samples" + HOST + b"Content-Length: 99999999\r\n\r\n"),
    "long line": (414, b"GET /" + b"a" * 70_000),
    "body type": (415, b"POST /v2/query/samples" + HOST + b"Content-Type: text/plain\r\nContent-Length: 1\r\n\r\na"),
}
STATUS_REQUESTS = {
    "health": (200, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"),
    "readiness": (200, b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n"),
    "metrics": (200, b"GET /metrics HTTP/1.0\r\n\r\n"),
    "unknown page": (404, b"GET /none HTTP/1.1\r\nHost: a\r\n\r\n"),
    "method": (405, b"POST /healthz HTTP/1.1\r\nHost: a\r\n\r\n"),
    "malformed request": (400, b"nonsense\r\n\r\n"),
    "OPTIONS *": (200, b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
}


@pytest.mark.parametrize(
    ("pages", "status", "request_text"),
    [
        *(pytest.param(api_site, *case, id=f"API, {name}") for name, case in REQUESTS.items()),
        *(pytest.param(status_pages, *case, id=f"status pages, {name}") for name, case in STATUS_REQUESTS.items()),
    ],
)
def test_response_is_not_cached_and_not_sniffed(pages: type, status: int, request_text: bytes) -> None:
    response = exchange(pages(), request_text)
    assert response.status == status
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["server"] == "Meter"
    assert response.status in (200, 204) or response.problem() is None


def test_web_page_can_run_no_script_and_cannot_be_framed() -> None:
    policy = exchange(api_site(), REQUESTS["web page"][1]).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "script" not in policy
