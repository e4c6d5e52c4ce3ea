"""``/v2/segments``: instances of a project in a period, paging, visibility."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from twisted.internet.defer import Deferred

from meter.message import MeteringMessage
from tests.api_client import NOON
from tests.api_client import ApiClient
from tests.api_client import Response
from tests.api_client import message
from tests.unit.api.auth.test_visibility import TOKENS

HOUR = 60


def event_sample(
    minute: float, event: str, state: str = "active", instance: str = "i1", project: str = "blue", volume: float = 1
) -> MeteringMessage:
    metadata = {
        "event_type": f"compute.instance.{event}",
        "state": state,
        "flavor": {"name": "m1.small"},
        "display_name": f"name of {instance}",
    }
    return message(
        minute,
        name="instance",
        type="gauge",
        unit="instance",
        volume=volume,
        resource_id=instance,
        project_id=project,
        resource_metadata=metadata,
        message_id=f"{instance} {minute} {event}",
    )


EVENTS = [
    event_sample(-5 * HOUR, "create.end"),
    event_sample(-3 * HOUR, "power_off.end", "stopped"),
    event_sample(-1 * HOUR, "delete.end", "deleted", volume=0),
    event_sample(-2 * HOUR, "create.end", instance="i2"),
    event_sample(-4 * HOUR, "create.end", instance="i3", project="red"),
    # Pollsters of a hypervisor send the same meter for each domain, without an event.
    message(-4 * HOUR, name="instance", type="gauge", resource_id="i4", resource_metadata={"status": "active"}),
]


@pytest.fixture(scope="module")
def api() -> ApiClient:
    api = ApiClient(auth=TOKENS)
    Deferred.fromCoroutine(api.store.write(EVENTS))
    return api


def at(minute: float) -> str:
    return quote((NOON + timedelta(minutes=minute)).isoformat())


def request(api: ApiClient, query: str = "", token: str = "admin-token") -> Response:
    return api(f"/v2/segments{query}", headers={"X-Auth-Token": token})


def hours(response: Response) -> dict[str, Any]:
    assert response.status == 200, response.body
    return {
        each["resource_id"]: {row["state"]: row["seconds"] / 3600 for row in each["seconds"]} for each in response.json
    }


def test_deleted_instance_is_listed_with_its_segments(api: ApiClient) -> None:
    response = request(api, "?resource_id=i1")
    assert response.json == [
        {
            "resource_id": "i1",
            "project_id": "blue",
            "user_id": "ann",
            "display_name": "name of i1",
            "segments": [
                {
                    "state": "active",
                    "flavor": "m1.small",
                    "running": True,
                    "began": "2026-11-22T07:00:00",
                    "ended": "2026-11-22T09:00:00",
                    "seconds": 7200.0,
                },
                {
                    "state": "stopped",
                    "flavor": "m1.small",
                    "running": False,
                    "began": "2026-11-22T09:00:00",
                    "ended": "2026-11-22T11:00:00",
                    "seconds": 7200.0,
                },
            ],
            "seconds": [
                {"state": "active", "flavor": "m1.small", "running": True, "seconds": 7200.0},
                {"state": "stopped", "flavor": "m1.small", "running": False, "seconds": 7200.0},
            ],
        }
    ]


def test_instances_of_a_project_are_listed_for_a_period(api: ApiClient) -> None:
    period = f"&start={at(-4 * HOUR)}&end={at(0)}"
    assert hours(request(api, f"?project_id=blue{period}")) == {
        "i1": {"active": 1.0, "stopped": 2.0},
        "i2": {"active": 2.0},
    }
    assert hours(request(api, f"?{period[1:]}"))["i3"] == {"active": 4.0}


def test_current_state_counts_until_now(api: ApiClient) -> None:
    [instance] = request(api, "?resource_id=i2").json
    assert instance["segments"][0]["ended"] is None
    assert instance["seconds"][0]["seconds"] == 2 * 3600 + 600  # it is ten past noon


@pytest.mark.parametrize(
    "end", ["2026-12-01", "2027-1", "2036", "9999-12-31T23:59:59.999999", "2026-11-22T14:10:00%2B02:00"]
)
def test_future_does_not_count(api: ApiClient, end: str) -> None:
    assert hours(request(api, f"?resource_id=i2&end={end}")) == {"i2": {"active": pytest.approx(2 + 1 / 6)}}
    assert request(api, f"?start=2026-11-30&end={end}").status == (400 if end < "2026-11-30" else 200)
    assert request(api, "?start=2026-11-30").json == []


def test_time_after_as_of_does_not_count(api: ApiClient) -> None:
    api = ApiClient(auth=TOKENS)
    Deferred.fromCoroutine(api.store.write(EVENTS))
    as_of = quote(NOON.replace(minute=30).isoformat())
    api.clock.advance(20 * 60)
    first = request(api, f"?resource_id=i2&as_of={as_of}")
    assert hours(first) == {"i2": {"active": 2.5}}
    api.clock.advance(365 * 86400)
    assert request(api, f"?resource_id=i2&as_of={as_of}").json == first.json


@pytest.mark.parametrize("name", ["resource_id", "project_id", "start", "end"])
def test_empty_value_or_null_of_a_filter_is_400(api: ApiClient, name: str) -> None:
    assert request(api, f"?{name}=").status == 400
    response = api(
        "/v2/segments",
        headers={"X-Auth-Token": "admin-token", "Content-Type": "application/json"},
        body=f'{{"{name}": null}}'.encode(),
    )
    assert response.status == 400


def test_instance_that_did_not_exist_in_the_period_is_not_listed(api: ApiClient) -> None:
    assert hours(request(api, f"?project_id=blue&start={at(-30)}&end={at(0)}")) == {"i2": {"active": 0.5}}
    assert request(api, "?resource_id=nonesuch").json == []
    assert request(api, "?resource_id=i4").json == []


def test_pages_have_every_instance_once(api: ApiClient) -> None:
    found: list[str] = []
    query = "?limit=1"
    while query:
        response = request(api, query)
        assert len(response.json) <= 1
        found += [each["resource_id"] for each in response.json]
        link = response.headers.get("link", "")
        query = "?" + link.partition("?")[2].partition(">")[0] if link else ""
    assert found == ["i1", "i2", "i3"]


def test_tenant_sees_the_instances_of_their_own_project(api: ApiClient) -> None:
    assert set(hours(request(api, token="blue-token"))) == {"i1", "i2"}
    assert hours(request(api, "?resource_id=i3", token="blue-token")) == {}
    assert request(api, "?project_id=red", token="blue-token").status == 401
    assert request(api, token="unscoped-token").status == 403
    assert request(api, token="none").status == 401


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("?start=soon", "start"),
        ("?end=2026-13-01", "end"),
        (f"?start={at(1)}&end={at(0)}", "start must be before end"),
        ("?limit=0", "Limit must be positive"),
        ("?limit=1001", "the maximum is 1000 instances"),
        ("?marker=x", "marker"),
        ("?instance=i1", "instance"),
    ],
)
def test_invalid_parameter_is_400_with_its_name(api: ApiClient, query: str, named: str) -> None:
    response = request(api, query)
    assert response.status == 400
    assert named in response.faultstring
