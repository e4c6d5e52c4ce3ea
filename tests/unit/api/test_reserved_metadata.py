"""Meter's reserved member of the metadata: absent from responses, except from proofs."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred

from tests.api_client import ApiClient
from tests.api_client import message

RESERVED = {"_meter": {"run": "hv1/1/vda", "interval": 300}}
SENT = message(4, message_id="s9", resource_id="vm-9", resource_metadata={**RESERVED, "display_name": "nine"})


@pytest.fixture
def api() -> ApiClient:
    api = ApiClient()
    Deferred.fromCoroutine(api.store.write([SENT]))
    return api


@pytest.mark.parametrize("media_type", ["application/json", "text/csv", "application/x-ndjson"])
@pytest.mark.parametrize(
    "path",
    [
        "/v2/samples?q.field=resource_id&q.value=vm-9",
        "/v2/samples/s9",
        "/v2/meters/cpu?q.field=resource_id&q.value=vm-9",
        "/v2/resources",
        "/v2/resources/vm-9",
        "/v1/resources",
        "/v1/resources/vm-9/meters/cpu",
    ],
)
def test_responses_do_not_show_the_reserved_member(api: ApiClient, path: str, media_type: str) -> None:
    response = api(path, headers={"Accept": f"{media_type}, */*;q=0.1"})

    assert response.status == 200
    assert b"nine" in response.body
    assert b"_meter" not in response.body
    assert b"hv1/1" not in response.body


def test_complex_query_can_filter_by_the_reserved_member(api: ApiClient) -> None:
    response = api.post("/v2/query/samples", {"filter": '{"=": {"metadata._meter.run": "hv1/1/vda"}}'})

    assert [each["metadata"] for each in response.json] == [{"display_name": "nine"}]


def test_proof_contains_the_reserved_member(api: ApiClient) -> None:
    assert api("/v2/samples/s9/proof").json["message"]["resource_metadata"]["_meter"] == RESERVED["_meter"]
