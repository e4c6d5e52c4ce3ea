"""The v1 API."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from meter.api import RequestLimits
from tests.api_client import SAMPLES
from tests.api_client import ApiClient
from tests.api_client import message
from tests.unit.api.auth.test_visibility import TOKENS


@pytest.fixture(scope="module")
def api() -> ApiClient:
    return ApiClient()


@pytest.mark.parametrize(
    ("path", "key", "found"),
    [
        ("meters", "name", ["cpu", "cpu", "disk.size"]),
        ("resources/vm-1/meters", "name", ["cpu", "disk.size"]),
        ("resources/a/b%20c/meters", "name", ["cpu"]),
        ("users/ann/meters", "name", ["cpu"]),
        ("projects/red/meters", "resource_id", ["a/b c"]),
        ("sources/test/meters", "name", ["cpu", "cpu", "disk.size"]),
        ("sources/none/meters", "name", []),
        ("resources", "resource_id", ["a/b c", "vm-1"]),
        ("users/bob/resources", "resource_id", ["a/b c"]),
        ("projects/blue/resources", "timestamp", ["2026-11-22T12:01:00"]),
        ("sources/test/resources?end_timestamp=2026-11-22T12:02:00", "resource_id", ["vm-1"]),
        ("resources/vm-1/meters/cpu", "message_id", ["s1", "s0"]),
        ("projects/red/meters/cpu", "message_id", ["s2"]),
        ("users/ann/meters/cpu?start_timestamp=2026-11-22T12:01:00", "message_id", ["s1"]),
        ("sources/test/meters/cpu?start_timestamp=2026-11-22T12:02:00&search_offset=1", "message_id", ["s2", "s1"]),
        ("sources/test/meters/cpu?metadata.size=0", "message_id", ["s0"]),
        ("sources/test/meters/cpu?metadata.size=None", "message_id", ["s2"]),
        ("sources/test/meters/cpu?end_timestamp=2026-12", "message_id", ["s2", "s1", "s0"]),
        ("sources/test/meters/cpu?metadata.flavor.name=m1", "message_id", ["s0"]),
    ],
)
def test_v1_list_has_the_expected_entries(api: ApiClient, path: str, key: str, found: list[str]) -> None:
    response = api(f"/v1/{path}")
    assert response.status == 200, response.body
    ((_, listed),) = response.json.items()
    assert [one[key] for one in listed] == found


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("users", {"users": ["ann", "bob"]}),
        ("sources/test/users", {"users": ["ann", "bob"]}),
        ("sources/none/users", {"users": []}),
        ("projects", {"projects": ["blue", "red"]}),
        ("sources/test/projects", {"projects": ["blue", "red"]}),
        ("sources/test", {"name": "test"}),
        (
            "resources/vm-1/meters/cpu/duration",
            {"start_timestamp": "2026-11-22T12:00:00", "end_timestamp": "2026-11-22T12:01:00", "duration": 60.0},
        ),
        (
            "resources/vm-1/meters/cpu/duration?start_timestamp=2026-11-22T12:00:30&search_offset=1",
            {"start_timestamp": "2026-11-22T12:00:30", "end_timestamp": "2026-11-22T12:01:00", "duration": 30.0},
        ),
        (
            "resources/vm-1/meters/none/duration",
            {"start_timestamp": None, "end_timestamp": None, "duration": None},
        ),
        ("resources/vm-1/meters/cpu/volume/max", {"volume": 20.0}),
        ("resources/vm-1/meters/cpu/volume/sum", {"volume": 30.0}),
        ("projects/red/meters/cpu/volume/max", {"volume": 60.0}),
        ("projects/red/meters/none/volume/sum", {"volume": None}),
    ],
)
def test_v1_response_is_as_expected(api: ApiClient, path: str, body: Any) -> None:
    response = api(f"/v1/{path}")
    assert (response.status, response.json) == (200, body)


def test_event_is_a_sample_as_it_was_signed_without_ceilometers_signature(api: ApiClient) -> None:
    (event,) = api("/v1/sources/test/meters/cpu?metadata.size=0").json["events"]
    assert event == {**SAMPLES[0].fields, "message_signature": None}


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("sources/none", 404, "Source none Not Found"),
        ("meters?limit=3", 400, 'Unknown argument: "limit"'),
        ("meters?start_timestamp=soon", 400, "invalid timestamp format"),
        ("meters?start_timestamp=", 400, "start_timestamp. Value: ''. it must not be empty"),
        ("meters?end_timestamp=", 400, "end_timestamp. Value: ''. it must not be empty"),
        ("meters?search_offset=1", 400, "cannot be used without timestamp"),
        ("meters?metadata.a=1&metadata.a=2", 400, "it can be given only once"),
    ],
)
def test_invalid_v1_request_has_the_reason(api: ApiClient, path: str, status: int, text: str) -> None:
    response = api(f"/v1/{path}")
    assert (response.status, text in response.faultstring) == (status, True)


@pytest.mark.parametrize(("function", "volume"), [("max", 1.0), ("sum", 2.0)])
def test_volume_of_samples_in_two_units_has_a_warning(function: str, volume: float) -> None:
    api = ApiClient()
    units = [message(minute, name="ram", type="gauge", unit=unit) for minute, unit in ((0, "MB"), (1, "MiB"))]
    Deferred.fromCoroutine(api.store.write(units))
    for owner in ("resources/vm-1", "projects/blue"):
        response = api(f"/v1/{owner}/meters/ram/volume/{function}")
        assert response.json == {"volume": volume}
        assert response.headers["warning"] == (
            '299 - "the samples have 2 units: MB, MiB; the value combines them without conversion"'
        )
        assert "warning" not in api(f"/v1/{owner}/meters/cpu/volume/{function}").headers


def test_response_beyond_the_limit_is_400() -> None:
    api = ApiClient(limits=RequestLimits(max_limit=2))
    assert api("/v1/sources/test/meters/cpu").status == 400
    assert "more than 2" in api("/v1/meters").faultstring
    assert api("/v1/resources").status == 200


def test_project_of_another_tenant_is_404() -> None:
    api = ApiClient(auth=TOKENS)
    headers = {"X-Auth-Token": "blue-token"}
    assert api("/v1/projects/red/meters", headers=headers).status == 404
    assert api("/v1/projects/red/meters/cpu/volume/sum", headers=headers).status == 404
    assert len(api("/v1/projects/blue/meters/cpu", headers=headers).json["events"]) == 2
    assert api("/v1/projects", headers=headers).json == {"projects": ["blue"]}
