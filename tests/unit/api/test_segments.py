"""Segments over the API: what a biller asks of an instance, a project and a month, and what a tenant may see of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from twisted.internet.defer import Deferred

from meter.message import MeteringMessage
from tests.asking import NOON
from tests.asking import Answer
from tests.asking import Asking
from tests.asking import message
from tests.unit.api.auth.test_visibility import TOKENS

HOUR = 60


def said(
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


LIVES = [
    said(-5 * HOUR, "create.end"),
    said(-3 * HOUR, "power_off.end", "stopped"),
    said(-1 * HOUR, "delete.end", "deleted", volume=0),
    said(-2 * HOUR, "create.end", instance="i2"),
    said(-4 * HOUR, "create.end", instance="i3", project="red"),
    # A hypervisor says under the same name that there is a domain.
    message(-4 * HOUR, name="instance", type="gauge", resource_id="i4", resource_metadata={"status": "active"}),
]


@pytest.fixture(scope="module")
def ask() -> Asking:
    asking = Asking(auth=TOKENS)
    Deferred.fromCoroutine(asking.store.write(LIVES))
    return asking


def at(minute: float) -> str:
    return quote((NOON + timedelta(minutes=minute)).isoformat())


def asked(ask: Asking, query: str = "", token: str = "admin-token") -> Answer:
    return ask(f"/v2/segments{query}", headers={"X-Auth-Token": token})


def spent(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer.body
    return {
        each["resource_id"]: {row["state"]: row["seconds"] / 3600 for row in each["seconds"]} for each in answer.json
    }


def test_an_instance_that_was_deleted_is_told_with_its_segments(ask: Asking) -> None:
    answer = asked(ask, "?resource_id=i1")
    assert answer.json == [
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


def test_all_instances_of_a_project_are_told_for_a_period(ask: Asking) -> None:
    period = f"&start={at(-4 * HOUR)}&end={at(0)}"
    assert spent(asked(ask, f"?project_id=blue{period}")) == {
        "i1": {"active": 1.0, "stopped": 2.0},
        "i2": {"active": 2.0},
    }
    assert spent(asked(ask, f"?{period[1:]}"))["i3"] == {"active": 4.0}


def test_what_lasts_is_counted_until_now(ask: Asking) -> None:
    [told] = asked(ask, "?resource_id=i2").json
    assert told["segments"][0]["ended"] is None
    assert told["seconds"][0]["seconds"] == 2 * 3600 + 600  # it is ten past noon


@pytest.mark.parametrize(
    "end", ["2026-12-01", "2036-12-01", "9999-12-31T23:59:59.999999", "2026-11-22T14:10:00%2B02:00"]
)
def test_what_is_to_come_is_not_counted(ask: Asking, end: str) -> None:
    assert spent(asked(ask, f"?resource_id=i2&end={end}")) == {"i2": {"active": pytest.approx(2 + 1 / 6)}}
    assert asked(ask, f"?start=2026-11-30&end={end}").status == (400 if end < "2026-11-30" else 200)
    assert asked(ask, "?start=2026-11-30").json == []


def test_as_of_a_time_nothing_after_it_is_counted(ask: Asking) -> None:
    asking = Asking(auth=TOKENS)
    Deferred.fromCoroutine(asking.store.write(LIVES))
    as_of = quote(NOON.replace(minute=30).isoformat())
    asking.clock.advance(20 * 60)
    first = asked(asking, f"?resource_id=i2&as_of={as_of}")
    assert spent(first) == {"i2": {"active": 2.5}}
    asking.clock.advance(365 * 86400)
    assert asked(asking, f"?resource_id=i2&as_of={as_of}").json == first.json


@pytest.mark.parametrize("name", ["resource_id", "project_id", "start", "end"])
def test_an_empty_value_or_null_is_refused_where_it_would_leave_out_nothing(ask: Asking, name: str) -> None:
    assert asked(ask, f"?{name}=").status == 400
    answer = ask(
        "/v2/segments",
        headers={"X-Auth-Token": "admin-token", "Content-Type": "application/json"},
        body=f'{{"{name}": null}}'.encode(),
    )
    assert answer.status == 400


def test_an_instance_that_did_not_exist_in_the_period_is_left_out(ask: Asking) -> None:
    assert spent(asked(ask, f"?project_id=blue&start={at(-30)}&end={at(0)}")) == {"i2": {"active": 0.5}}
    assert asked(ask, "?resource_id=nonesuch").json == []
    assert asked(ask, "?resource_id=i4").json == []


def test_pages_lead_to_every_instance_once(ask: Asking) -> None:
    found: list[str] = []
    query = "?limit=1"
    while query:
        answer = asked(ask, query)
        assert len(answer.json) <= 1
        found += [each["resource_id"] for each in answer.json]
        link = answer.headers.get("link", "")
        query = "?" + link.partition("?")[2].partition(">")[0] if link else ""
    assert found == ["i1", "i2", "i3"]


def test_a_tenant_sees_the_instances_of_their_own_project(ask: Asking) -> None:
    assert set(spent(asked(ask, token="blue-token"))) == {"i1", "i2"}
    assert spent(asked(ask, "?resource_id=i3", token="blue-token")) == {}
    assert asked(ask, "?project_id=red", token="blue-token").status == 401
    assert asked(ask, token="unscoped-token").status == 403
    assert asked(ask, token="none").status == 401


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("?start=soon", "start"),
        ("?end=2026-13-01", "end"),
        (f"?start={at(1)}&end={at(0)}", "start must be before end"),
        ("?limit=0", "Limit must be positive"),
        ("?limit=1001", "at most 1000 instances"),
        ("?marker=x", "marker"),
        ("?instance=i1", "instance"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(ask: Asking, query: str, named: str) -> None:
    answer = asked(ask, query)
    assert answer.status == 400
    assert named in answer.fault
