"""``/v2/completeness``: what tenants and administrators see, periods, pages and errors."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from meter.identity_report import IdentityName
from meter.identity_report import IdentityReport
from meter.sample import utc_text
from tests.api_client import ApiClient
from tests.api_client import message
from tests.ledger_rows import LedgerRows
from tests.ledger_rows import seconds
from tests.store_messages import NOON as NOON_OF_ROWS
from tests.unit.api.auth.test_visibility import TOKENS

NOON = "2026-11-18T12:00:00"
HOUR = "start=2026-11-18T12:00&end=2026-11-18T13:00"


def identity(project: str, name: str, at: float) -> IdentityReport:
    """A report that a project had the name, some seconds after noon."""
    time = utc_text(NOON_OF_ROWS + timedelta(seconds=at))
    return IdentityReport("keystone", f"{project} {at}", time, (IdentityName("project", project, name, time, "d1"),))


@pytest.fixture(scope="module")
def api() -> ApiClient:
    """Two projects, measured by two agents, one of which missed three cycles of *blue*, and skipped one for a reason."""
    api = ApiClient(auth=TOKENS)
    rows = LedgerRows()
    first, second = rows.agent("hv1"), rows.agent("hv2")
    rows.run(first, 0, 600)
    rows.run(first, 1800, 86100)
    rows.run(second, 0, 86100)
    rows.metered(first, "vm-1", project="blue")
    rows.metered(second, "vm-2", project="red")
    rows.metered(second, "vm-3", project="")
    rows.exception(first, "skipped", 2100, 2400, reason="hv1 said: /var/run/secret")
    rows.into_memory(api.store)
    for resource, project, absent in (
        ("vm-1", "blue", (900, 1200, 1500, 2100)),
        ("vm-2", "red", ()),
        ("vm-3", None, ()),
    ):
        samples = [
            message(
                resource_id=resource,
                project_id=project,
                timestamp=NOON_OF_ROWS.fromtimestamp(seconds(at), NOON_OF_ROWS.tzinfo),
                resource_metadata={"_meter": {"interval": 300}},
                message_id=f"{resource} {at}",
            )
            for at in range(0, 7200, 300)
            if at not in absent
        ]
        Deferred.fromCoroutine(api.store.write(samples))
    for name, at in (("Bleu", -86400), ("Blau", 1800), ("Blue", 3601)):
        Deferred.fromCoroutine(api.store.record_identities(identity("blue", name, at)))
    Deferred.fromCoroutine(api.store.record_identities(identity("red", "Rosso", -3600)))
    return api


@pytest.mark.parametrize(
    ("query", "who", "names"),
    [
        ("", "admin", [None]),
        ("&project_id=red", "admin", ["Rosso"]),
        ("&group=project_id", "admin", [None, "Blau", "Rosso"]),
        ("&by=hour&group=meter", "blue", ["Blau"]),
    ],
)
def test_row_of_a_project_has_its_name_at_the_end_of_the_row(
    api: ApiClient, query: str, who: str, names: list[str | None]
) -> None:
    assert [row["project_name"] for row in get(api, f"/v2/completeness?{HOUR}{query}", who)] == names


def get(api: ApiClient, path: str, who: str = "admin") -> Any:
    response = api(path, headers={"X-Auth-Token": f"{who}-token"})
    assert response.status == 200, response.body
    return response.json


def status(api: ApiClient, path: str, who: str = "admin") -> int:
    return api(path, headers={"X-Auth-Token": f"{who}-token"}).status


def test_administrator_sees_the_sum_of_all_projects(api: ApiClient) -> None:
    [row] = get(api, f"/v2/completeness?{HOUR}")
    assert row == {
        "start": NOON,
        "end": "2026-11-18T13:00:00",
        "group": {},
        "project_name": None,
        "expected": 36,
        "received": 32,
        "unexpected": 0,
        "late": 0,
        "missing": 4,
        "percent": 88.8888,
        "causes": {"agent not running": 3, "skipped": 1},
        "skipped": {"hv1 said: /var/run/secret": 1},
    }


def test_tenant_sees_their_own_project_and_not_what_agents_said(api: ApiClient) -> None:
    [row] = get(api, f"/v2/completeness?{HOUR}", "blue")
    assert (row["expected"], row["causes"], row["skipped"]) == (12, {"agent not running": 3, "skipped": 1}, {})
    [row] = get(api, f"/v2/completeness?{HOUR}", "green")
    assert (row["expected"], row["percent"]) == (0, None)


@pytest.mark.parametrize("path", ["", "/gaps", "/closable"])
def test_tenant_who_names_another_project_is_refused(api: ApiClient, path: str) -> None:
    assert status(api, f"/v2/completeness{path}?{HOUR}&project_id=red", "blue") == 401


def test_tenant_sees_gaps_without_hosts(api: ApiClient) -> None:
    found = get(api, f"/v2/completeness/gaps?{HOUR}", "blue")
    assert [(gap["cause"], gap["agent"], gap["pollster"], gap["reason"]) for gap in found] == [
        ("agent not running", None, None, None),
        ("skipped", None, None, None),
    ]
    for path in ("gaps", "closable"):
        response = api(f"/v2/completeness/{path}?{HOUR}", headers={"X-Auth-Token": "blue-token"})
        assert b"hv1" not in response.body
    assert get(api, f"/v2/completeness/gaps?{HOUR}", "green") == []


def test_gap_has_its_times_agent_and_cause(api: ApiClient) -> None:
    [gap, _] = get(api, f"/v2/completeness/gaps?{HOUR}")
    assert gap == {
        "start": "2026-11-18T12:15:00",
        "end": "2026-11-18T12:30:00",
        "cause": "agent not running",
        "reason": "no report of the cycle has arrived, while the process of the agent went on",
        "agent": "meter-compute@hv1",
        "pollster": None,
        "resources": ["vm-1"],
        "resource_count": 1,
        "samples": 3,
        "exact": True,
    }


@pytest.mark.parametrize("parameters", ["agent=meter-compute@hv1", "group=agent"])
def test_agents_are_not_shown_to_tenants(api: ApiClient, parameters: str) -> None:
    assert status(api, f"/v2/completeness?{HOUR}&{parameters}", "blue") == 403
    assert status(api, f"/v2/completeness?{HOUR}&{parameters}") == 200


def test_groups(api: ApiClient) -> None:
    rows = get(api, f"/v2/completeness?{HOUR}&group=project_id")
    assert [(row["group"], row["missing"]) for row in rows] == [
        ({"project_id": None}, 0),
        ({"project_id": "blue"}, 4),
        ({"project_id": "red"}, 0),
    ]


def test_pages_follow_each_other(api: ApiClient) -> None:
    first = api(f"/v2/completeness?{HOUR}&group=resource_id&limit=2", headers={"X-Auth-Token": "admin-token"})
    assert [row["group"]["resource_id"] for row in first.json] == ["vm-1", "vm-2"]
    following = first.headers["link"].partition(">")[0].lstrip("<")
    last = api(following[following.index("/v2") :], headers={"X-Auth-Token": "admin-token"})
    assert [row["group"]["resource_id"] for row in last.json] == ["vm-3"]
    assert "link" not in last.headers


def test_rows_by_hour(api: ApiClient) -> None:
    rows = get(api, "/v2/completeness?start=2026-11-18T12:00&end=2026-11-18T14:00&by=hour&project_id=blue")
    assert [(row["start"], row["missing"]) for row in rows] == [(NOON, 4), ("2026-11-18T13:00:00", 0)]


@pytest.mark.parametrize(
    "parameters",
    [
        "start=2026-11-18&end=2026-11-18",
        "start=2026-11-18&end=2024-11-18",
        "start=2024-01-01&end=2026-01-01",
        "start=2026-01-01&end=2026-02-01&by=hour",
        f"{HOUR}&by=minute",
        f"{HOUR}&group=user_id",
        f"{HOUR}&marker=x",
        f"{HOUR}&marker=99999999999",
        "start=noon",
        "end=0001-01-01&limit=0",
    ],
)
def test_invalid_arguments_are_400(api: ApiClient, parameters: str) -> None:
    assert status(api, f"/v2/completeness?{parameters}") == 400


def test_longest_period_of_gaps(api: ApiClient) -> None:
    assert status(api, "/v2/completeness/gaps?start=2026-01-01&end=2026-06-01") == 400
    assert status(api, "/v2/completeness/closable?start=2020-01-01&end=2026-06-01") == 400


def test_period_may_not_be_closed_while_samples_are_missing(api: ApiClient) -> None:
    answer = get(api, f"/v2/completeness/closable?{HOUR}")
    assert answer["closable"] is False
    assert [(each["code"], each["cause"], each["samples"]) for each in answer["reasons"]] == [
        ("samples missing", "agent not running", 3),
        ("samples missing", "skipped", 1),
    ]
    answer = get(api, f"/v2/completeness/closable?{HOUR}&project_id=red")
    assert (answer["closable"], answer["reasons"]) == (True, [])


def test_agents_for_administrators(api: ApiClient) -> None:
    hosts = [(each["host"], each["state"], each["resources"]) for each in get(api, "/v2/completeness/agents")]
    assert hosts == [("hv1", "silent", 1), ("hv2", "silent", 2)]


def test_unmetered_resources_are_those_of_the_last_reconciliation() -> None:
    api = ApiClient(auth=TOKENS)
    reconciled = [
        message(
            minute,
            name=name,
            type="gauge",
            volume=volume,
            resource_id="reconciliation/instance",
            resource_metadata={"kind": "instance", "ids": ids},
            message_id=f"{name} {minute}",
        )
        for minute, name, volume, ids in (
            (0, "meter.reconciliation.misses", 5, ["a", "b", "c", "d", "e"]),
            (5, "meter.reconciliation.misses", 2, ["a", "b"]),
            (5, "meter.reconciliation.ghosts", 0, []),
        )
    ]
    Deferred.fromCoroutine(api.store.write(reconciled))

    assert get(api, "/v2/completeness/unmetered") == [
        {
            "kind": "instance",
            "at": "2026-11-22T12:05:00",
            "not_metered": 2,
            "not_metered_ids": ["a", "b"],
            "not_listed": 0,
            "not_listed_ids": [],
        }
    ]
