"""CORS: headers for allowed origins, none for others."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred

from tests.api_client import ApiClient
from tests.api_client import message

ORIGIN = "https://dashboard.example.org"
NOT_EXPOSED = {
    "content-encoding",
    "cache-control",
    "content-type",
    "content-length",
    "date",
    "server",
    "transfer-encoding",
    "vary",
    "connection",
    "x-content-type-options",
}
"""Headers that scripts can always read, or have no use for."""

PREFLIGHT = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}


@pytest.mark.parametrize("origins", [[ORIGIN], ["*"]])
def test_allowed_origin_gets_cors_headers(origins: list[str]) -> None:
    api = ApiClient(cors_origins=origins)
    preflight = api("/v2/query/samples", method="OPTIONS", headers=PREFLIGHT)
    assert (preflight.status, preflight.body) == (204, b"")
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert "X-Auth-Token" in preflight.headers["access-control-allow-headers"]
    response = api("/v2/samples", headers={"Origin": ORIGIN})
    assert response.headers["access-control-allow-origin"] == ORIGIN


def test_every_response_header_is_exposed_to_allowed_origins() -> None:
    api = ApiClient(cors_origins=[ORIGIN])
    units = [message(minute, name="ram", type="gauge", unit=unit) for minute, unit in ((0, "MB"), (1, "MiB"))]
    Deferred.fromCoroutine(api.store.write(units))
    paths = ["/v2/samples?limit=1", "/v2/meters/ram/statistics", "/v1/projects/blue/meters/ram/volume/sum", "/none"]
    for path in paths:
        response = api(path, headers={"Origin": ORIGIN})
        exposed = set(response.headers["access-control-expose-headers"].split(", "))
        assert {"link", "warning", "retry-after", "www-authenticate", "x-openstack-request-id"} <= exposed
        own = {name.lower() for name in response.headers if not name.lower().startswith("access-control-")}
        assert own - NOT_EXPOSED <= exposed, path


@pytest.mark.parametrize("origins", [[], ["https://other.example.org"]])
def test_other_origin_gets_no_cors_headers(origins: list[str]) -> None:
    api = ApiClient(cors_origins=origins)
    assert api("/v2/samples", method="OPTIONS", headers=PREFLIGHT).status == 405
    assert "access-control-allow-origin" not in api("/v2/samples", headers={"Origin": ORIGIN}).headers
