"""``/v2/identities``: who sees which names, by which parameters, page by page."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from meter.api import Requester
from meter.api import StaticToken
from meter.api import StaticTokens
from meter.identity_report import IdentityChange
from meter.identity_report import IdentityKind
from meter.identity_report import IdentityName
from meter.identity_report import IdentityReport
from tests.api_client import ApiClient

EIGHT, NINE, TEN = (f"2026-11-20T{hour}:00:00" for hour in ("08", "09", "10"))


def names(at: str, kind: IdentityKind, **by_id: str) -> IdentityReport:
    entries = tuple(IdentityName(kind, id, name, at, "d1") for id, name in by_id.items())
    return IdentityReport("keystone", f"{kind} {at}", at, entries, (kind,))


REPORTS = (
    names(EIGHT, "project", p1="blue", p2="red"),
    names(EIGHT, "domain", d1="Customers", d2="Others"),
    names(EIGHT, "user", ann="Ann", bob="Bob"),
    IdentityReport("notification", "n", NINE, changes=(IdentityChange("project", "p1", NINE, "updated"),)),
    names(TEN, "project", p1="navy"),
)


def token(text: str, requester: Requester) -> StaticToken:
    return StaticToken(hashlib.sha256(text.encode()).hexdigest(), requester)


TOKENS = StaticTokens(
    [
        token("admin", Requester(is_admin=True)),
        token("ann", Requester(is_admin=False, project_id="p1", user_id="ann")),
        token("nobody", Requester(is_admin=False, project_id="p9")),
        token("unscoped", Requester(is_admin=False, user_id="ann")),
    ]
)


@pytest.fixture(scope="module")
def api() -> ApiClient:
    api = ApiClient(auth=TOKENS)
    for report in REPORTS:
        failures: list[Any] = []
        Deferred.fromCoroutine(api.store.record_identities(report)).addErrback(failures.append)
        assert not failures
    return api


def asked(api: ApiClient, query: str = "", who: str = "admin") -> Any:
    response = api(f"/v2/identities{query}", headers={"X-Auth-Token": who})
    return response.json if response.status == 200 else response.status


def ids(entries: Any) -> list[str]:
    return [each["id"] for each in entries]


def test_identity_has_all_of_its_names(api: ApiClient) -> None:
    assert asked(api, "?kind=project&id=p1") == [
        {
            "kind": "project",
            "id": "p1",
            "names": [
                {
                    "name": "blue",
                    "domain_id": "d1",
                    "since": EIGHT,
                    "since_exact": False,
                    "until": NINE,
                    "until_exact": True,
                },
                {
                    "name": "navy",
                    "domain_id": "d1",
                    "since": NINE,
                    "since_exact": True,
                    "until": None,
                    "until_exact": False,
                },
            ],
        }
    ]


def test_administrator_sees_all_in_order_of_kind_and_id(api: ApiClient) -> None:
    assert ids(asked(api)) == ["d1", "d2", "p1", "p2", "ann", "bob"]


def test_tenant_sees_the_own_project_its_domain_and_the_own_user(api: ApiClient) -> None:
    assert ids(asked(api, who="ann")) == ["d1", "p1", "ann"]
    assert asked(api, "?name=red", "ann") == []
    assert asked(api, "?id=bob", "ann") == []
    assert asked(api, who="nobody") == []
    assert asked(api, who="unscoped") == 403


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("?name=blue", ["p1"]),
        ("?name=red", ["p2"]),
        ("?name=navy&kind=user", []),
        (f"?name=blue&at={EIGHT}", ["p1"]),
        (f"?name=blue&at={NINE}", []),
        (f"?kind=project&at={TEN}", ["p1"]),
        ("?at=1999-01-01T00:00:00", []),
        ("?name=%00", []),
        ("?id=a%00b", []),
    ],
)
def test_names_are_found_by_kind_name_and_time(api: ApiClient, query: str, found: list[str]) -> None:
    answer = asked(api, query)
    assert answer == 400 if "%00" in query else ids(answer) == found


def test_deleted_project_stays_readable(api: ApiClient) -> None:
    [project] = asked(api, "?name=red")
    assert [(each["name"], each["until"]) for each in project["names"]] == [("red", TEN)]


@pytest.mark.parametrize("query", ["?kind=role", "?at=soon", "?marker=x", "?limit=0", "?marker=WyJyb2xlIiwgImEiXQ"])
def test_invalid_argument_is_400(api: ApiClient, query: str) -> None:
    assert asked(api, query) == 400


def test_pages_follow_each_other(api: ApiClient) -> None:
    seen: list[str] = []
    path = "/v2/identities?limit=2"
    while path:
        response = api(path, headers={"X-Auth-Token": "admin"})
        seen += ids(response.json)
        link = response.headers.get("link", "")
        path = link[1 : link.index(">")].removeprefix("http://cloud:8777") if link else ""
    assert seen == ["d1", "d2", "p1", "p2", "ann", "bob"]
