"""Names of projects, domains and users: tenants learn only their own, and no replayed, cut or future report changes a history."""

from __future__ import annotations

import hashlib
from datetime import UTC
from datetime import datetime
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from meter.api import Requester
from meter.api import StaticToken
from meter.api import StaticTokens
from meter.identity_names import IdentityFilter
from meter.identity_report import IdentityName
from meter.identity_report import IdentityReport
from meter.message import BadMessage
from meter.openstack.identities import KeystoneIdentities
from meter.testing import MemoryStore
from tests.api_client import ApiClient
from tests.openstack_stub import captured_cloud
from tests.openstack_stub import openstack
from tests.openstack_stub import reply

SECRETS = ("merger-with-rival", "mallory", "Rival Corp")


def listing(hour: int, **names: str) -> IdentityReport:
    at = f"2026-11-20T{hour:02}:00:00"
    entries = tuple(IdentityName("project", id, name, at, f"domain of {id}") for id, name in names.items())
    return IdentityReport("keystone", f"list at {hour}", at, entries, ("project",))


def store_at(hour: int) -> MemoryStore:
    clock = Clock()
    clock.advance(datetime(2026, 11, 20, hour, tzinfo=UTC).timestamp())
    return MemoryStore(clock)


async def names(store: MemoryStore) -> list[tuple[str, bool]]:
    found, _ = await store.identities(IdentityFilter(), 10)
    return [(period.name, period.until is None) for each in found for period in each.names]


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?id=theirs",
        "?name=merger-with-rival",
        "?kind=user&id=mallory",
        "?kind=domain&name=Rival%20Corp",
        "?at=2026-11-20T08:30:00",
        "?limit=1",
        "?marker=WyJkb21haW4iLCIiXQ",
        "?id=own&id=theirs",
    ],
)
def test_tenant_learns_no_name_of_others(query: str) -> None:
    tenant = Requester(is_admin=False, project_id="own", user_id="ann")
    api = ApiClient(auth=StaticTokens([StaticToken(hashlib.sha256(b"t").hexdigest(), tenant)]))
    at = "2026-11-20T08:00:00"
    others = (
        IdentityName("project", "theirs", "merger-with-rival", at, "rival"),
        IdentityName("user", "mallory", "mallory", at, "rival"),
        IdentityName("domain", "rival", "Rival Corp", at),
        IdentityName("project", "own", "ours", at, "house"),
    )
    Deferred.fromCoroutine(api.store.record_identities(IdentityReport("keystone", "m", at, others)))

    response = api(f"/v2/identities{query}", headers={"X-Auth-Token": "t"})
    assert response.status in (200, 400)
    assert not any(secret.encode() in response.body for secret in SECRETS if secret not in query)
    assert response.status == 400 or all(each["id"] == "own" for each in response.json)


@pytest_twisted.ensureDeferred
async def test_replayed_report_does_not_bring_back_a_former_name() -> None:
    store = store_at(12)
    for report in (listing(8, p="former"), listing(9, p="present"), listing(10, p="present")):
        await store.record_identities(report)
    for report in (listing(8, p="former"), listing(8, p="former")):
        await store.record_identities(report)
    assert await names(store) == [("former", False), ("present", True)]


@pytest_twisted.ensureDeferred
async def test_report_from_a_clock_that_is_ahead_deletes_nothing() -> None:
    store = store_at(12)
    await store.record_identities(listing(8, p="present"))
    with pytest.raises(BadMessage):
        await store.record_identities(listing(14))
    assert await names(store) == [("present", True)]


@pytest.mark.parametrize(
    "answer",
    [{"projects": []}, {"projects": [], "truncated": True}, {"projects": [{"id": None}]}, {"projects": None}, {}],
)
@pytest_twisted.ensureDeferred
async def test_list_of_keystone_that_cannot_be_all_deletes_nothing(answer: Any) -> None:
    clock = Clock()
    clock.advance(datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp())
    store = MemoryStore(clock)
    await store.record_identities(listing(8, p="present"))
    stub = captured_cloud()
    stub.on("GET", "/v3/domains", reply({"domains": [{"id": "d", "name": "Default"}]}))
    stub.on("GET", "/v3/projects", reply(answer))
    async for report in KeystoneIdentities(openstack(stub), clock, origin="keystone", users=False).reports():
        await store.record_identities(report)
    assert ("present", True) in await names(store)
