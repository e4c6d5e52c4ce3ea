"""``/v2/segments``: instances of a project in a period, paging, visibility."""

from __future__ import annotations

from datetime import timedelta
from hashlib import sha256
from typing import Any
from urllib.parse import quote

import pytest
from twisted.internet.defer import Deferred

from meter.api import Requester
from meter.api import StaticToken
from meter.api import StaticTokens
from meter.identity_report import IdentityName
from meter.identity_report import IdentityReport
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


def segment(state: str, began: str, ended: str, running: bool) -> dict[str, Any]:
    return {
        "state": state,
        "flavor": "m1.small",
        "running": running,
        "size": None,
        "project_id": "blue",
        "project_name": None,
        "user_id": "ann",
        "user_name": None,
        "name": "name of i1",
        "began": began,
        "began_told_by": "event",
        "began_within": 0.0,
        "ended": ended,
        "ended_told_by": "event",
        "ended_within": 0.0,
        "seconds": 7200.0,
    }


def test_deleted_instance_is_listed_with_its_segments(api: ApiClient) -> None:
    response = request(api, "?resource_id=i1")
    assert response.json == [
        {
            "resource_id": "i1",
            "kind": "instance",
            "unit": None,
            "project_id": "blue",
            "project_name": None,
            "user_id": "ann",
            "user_name": None,
            "display_name": "name of i1",
            "segments": [
                segment("active", "2026-11-22T07:00:00", "2026-11-22T09:00:00", running=True),
                segment("stopped", "2026-11-22T09:00:00", "2026-11-22T11:00:00", running=False),
            ],
            "seconds": [
                {"state": "active", "flavor": "m1.small", "size": None, "running": True, "seconds": 7200.0},
                {"state": "stopped", "flavor": "m1.small", "size": None, "running": False, "seconds": 7200.0},
            ],
            "contradictions": [],
        }
    ]


def test_segment_has_the_names_that_its_owner_had_at_its_end() -> None:
    carl = StaticToken(sha256(b"carl").hexdigest(), Requester(is_admin=False, project_id="blue", user_id="carl"))
    admin = StaticToken(sha256(b"admin-token").hexdigest(), Requester(is_admin=True))
    api = ApiClient(auth=StaticTokens([admin, carl]))
    Deferred.fromCoroutine(api.store.write(EVENTS))
    for hour, name in (("01", "azure"), ("10", "navy")):
        time = f"2026-11-22T{hour}:00:00"
        names = (IdentityName("project", "blue", name, time), IdentityName("user", "ann", f"Ann of {name}", time))
        report = IdentityReport("keystone", "m", time, names, ("project", "user"))
        Deferred.fromCoroutine(api.store.record_identities(report))

    def owners(query: str, token: str = "admin-token") -> list[tuple[str, str | None]]:
        [found] = request(api, f"?resource_id=i1{query}", token).json
        return [(each["project_name"], each["user_name"]) for each in (*found["segments"], found)]

    azure, navy = ("azure", "Ann of azure"), ("navy", "Ann of navy")
    assert owners("") == [azure, navy, navy]
    assert owners(f"&end={quote('2026-11-22T09:30:00')}") == [azure, azure, azure]
    assert owners("", "carl") == [("azure", None), ("navy", None), ("navy", None)]


def polled_volume(minute: float, size: int, state: str = "available", project: str = "blue") -> MeteringMessage:
    return message(
        minute,
        name="volume.size",
        type="gauge",
        unit="GiB",
        volume=size,
        resource_id="v1",
        project_id=project,
        resource_metadata={"name": "disk", "status": state, "_meter": {"interval": 300, "run": "exists"}},
        message_id=f"v1 {minute}",
    )


def test_volume_has_its_life_by_size_and_owner() -> None:
    api = ApiClient(auth=TOKENS)
    polls = [
        *(polled_volume(minute, 10) for minute in range(-60, -30, 5)),
        *(polled_volume(minute, 20) for minute in range(-30, -10, 5)),
        *(polled_volume(minute, 20, project="red") for minute in range(-10, 10, 5)),
    ]
    Deferred.fromCoroutine(api.store.write([*polls, *EVENTS]))
    assert "v1" not in hours(request(api))

    [volume] = request(api, "?kind=volume").json
    assert [(each["size"], each["project_id"], each["seconds"]) for each in volume["segments"]] == [
        (10, "blue", 1800),
        (20, "blue", 1200),
        (20, "red", 1200),
    ]
    assert (volume["kind"], volume["unit"], volume["project_id"], volume["display_name"]) == (
        *("volume", "GiB", "red", "disk"),
    )
    first = volume["segments"][0]
    assert (first["began_told_by"], first["began_within"], first["ended_within"]) == ("poll", 300, 300)
    assert (first["flavor"], first["running"]) == (None, None)
    assert volume["seconds"][0] == {
        "state": "available",
        "flavor": None,
        "size": 10,
        "running": None,
        "seconds": 1800,
    }

    # The former owner sees when it passed to another project, and nothing of that project.
    [former] = request(api, "?kind=volume", token="blue-token").json
    assert [each["ended"] for each in former["segments"]] == ["2026-11-22T11:30:00", "2026-11-22T11:50:00"]
    assert {each["project_id"] for each in former["segments"]} == {"blue"}
    [present] = request(api, "?kind=volume&project_id=red").json
    assert [each["ended"] for each in present["segments"]] == [None]

    assert [each["resource_id"] for each in request(api, "?kind=all").json] == ["i1", "i2", "i3", "v1"]
    assert [each["resource_id"] for each in request(api, "?kind=volume&kind=share").json] == ["v1"]
    assert request(api, "?kind=snapshot").json == []


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
        ("?limit=1001", "the maximum is 1000 resources"),
        ("?marker=x", "marker"),
        ("?instance=i1", "instance"),
        ("?kind=planet", "kind"),
        ("?kind=", "kind"),
    ],
)
def test_invalid_parameter_is_400_with_its_name(api: ApiClient, query: str, named: str) -> None:
    response = request(api, query)
    assert response.status == 400
    assert named in response.faultstring
