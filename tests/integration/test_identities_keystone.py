"""Names of projects, domains and users from a real Keystone, recorded in PostgreSQL: created, renamed, deleted."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC
from datetime import datetime
from typing import Any

import pytest_twisted
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.web.client import Agent
from twisted.web.client import HTTPConnectionPool

from meter.http import HttpRequest
from meter.http import HttpResponse
from meter.http import LimitedHttpClient
from meter.http import ServiceLimits
from meter.http.client import HttpClient
from meter.identity_names import IdentityFilter
from meter.identity_report import IdentityReport
from meter.openstack import Cloud
from meter.openstack import Credentials
from meter.openstack import Keystone
from meter.openstack.identities import KeystoneIdentities
from meter.store import PostgresStore
from tests.integration.test_store_rollups import running
from tests.servers.keystone import PASSWORD
from tests.servers.keystone import Keystone as KeystoneServer
from tests.servers.keystone import keystone  # noqa: F401 - a fixture


@asynccontextmanager
async def names_of(server: KeystoneServer, username: str, password: str, **scope: str) -> AsyncIterator[Any]:
    """Yield the names in ``server`` as a user with these credentials sees them."""
    agent = Agent(reactor, pool=HTTPConnectionPool(reactor, persistent=False))
    limits = ServiceLimits(attempts=1, requests_per_second=1000)
    client = LimitedHttpClient(HttpClient(HTTPClient(agent), reactor), reactor, limits=limits)

    async def send(request: HttpRequest) -> HttpResponse:
        return await client.send("identity", request)

    credentials = Credentials(auth_url=server.url, username=username, password=password, **scope)
    cloud = Cloud(client, Keystone(send, credentials, reactor), clock=reactor)
    cloud.startService()
    try:
        yield KeystoneIdentities(cloud, reactor, origin="keystone")
    finally:
        cloud.stopService()


async def record(store: PostgresStore, source: KeystoneIdentities) -> list[IdentityReport]:
    reports = [report async for report in source.reports()]
    assert source.problems == {}
    for report in reports:
        await store.record_identities(report)
    return reports


async def history(store: PostgresStore, kind: Any, id: str) -> list[tuple[str, bool]]:
    """Return names of an identity, and whether each is still valid."""
    found, _ = await store.identities(IdentityFilter(kind=kind, id=id), 10)
    for each in found:
        assert all(period.until == after.since for period, after in zip(each.names, each.names[1:], strict=False))
    return [(period.name, period.until is None) for each in found for period in each.names]


def made(server: KeystoneServer, kind: str, **members: str) -> str:
    admin = {"X-Auth-Token": server.token("admin", PASSWORD, "admin")}
    _, answer = server.ask("POST", f"/{kind}s", {kind: members}, **admin)
    return str(answer[kind]["id"])


def changed(server: KeystoneServer, kind: str, id: str, **members: Any) -> None:
    admin = {"X-Auth-Token": server.token("admin", PASSWORD, "admin")}
    server.ask("PATCH", f"/{kind}s/{id}", {kind: members}, **admin)


def deleted(server: KeystoneServer, kind: str, id: str) -> None:
    server.ask("DELETE", f"/{kind}s/{id}", **{"X-Auth-Token": server.token("admin", PASSWORD, "admin")})


@pytest_twisted.ensureDeferred
async def test_history_has_what_happened_to_projects_domains_and_users(
    postgresql: Any,
    keystone: KeystoneServer,  # noqa: F811
) -> None:
    async with (
        running(postgresql.dsn_with_schema()) as store,
        names_of(keystone, "admin", PASSWORD, project_name="admin") as source,
    ):
        reports = await record(store, source)
        assert {report.complete for report in reports} == {("domain",), ("project",), ("user",)}
        assert await history(store, "domain", "default") == [("Default", True)]

        domain = made(keystone, "domain", name="Müller & Söhne")
        project = made(keystone, "project", name="مشروع", domain_id=domain)
        user = made(keystone, "user", name="ann", domain_id=domain)
        await record(store, source)
        assert await history(store, "domain", domain) == [("Müller & Söhne", True)]
        assert await history(store, "project", project) == [("مشروع", True)]
        assert await history(store, "user", user) == [("ann", True)]
        created = datetime.now(UTC)

        changed(keystone, "project", project, name="東京")
        changed(keystone, "user", user, name="ann.miller")
        await record(store, source)
        await record(store, source)
        assert await history(store, "project", project) == [("مشروع", False), ("東京", True)]
        assert await history(store, "user", user) == [("ann", False), ("ann.miller", True)]

        changed(keystone, "domain", domain, enabled=False)
        deleted(keystone, "user", user)
        deleted(keystone, "domain", domain)  # and its project with it
        await record(store, source)
        assert await history(store, "project", project) == [("مشروع", False), ("東京", False)]
        assert await history(store, "user", user) == [("ann", False), ("ann.miller", False)]
        assert await history(store, "domain", domain) == [("Müller & Söhne", False)]

        then, now = (
            await store.names_at("project", [project], created),
            await store.names_at("project", [project], datetime.now(UTC)),
        )
        assert (then[project].name, then[project].domain, now[project].name) == ("مشروع", domain, "東京")
        found, _ = await store.identities(IdentityFilter(name="مشروع"), 10)
        assert [(each.kind, each.id) for each in found] == [("project", project)]


@pytest_twisted.ensureDeferred
async def test_credentials_of_a_tenant_list_its_project_and_delete_nothing(
    postgresql: Any,
    keystone: KeystoneServer,  # noqa: F811
) -> None:
    project = keystone.add("small", "sam", "sams")
    async with running(postgresql.dsn_with_schema()) as store:
        async with names_of(keystone, "admin", PASSWORD, project_name="admin") as source:
            await record(store, source)
        before, _ = await store.identities(IdentityFilter(), 1000)
        async with names_of(keystone, "sam", "sams", project_name="small") as source:
            reports = await record(store, source)
        assert {report.complete for report in reports} == {()}
        assert [each.id for report in reports for each in report.names if each.kind == "project"] == [project]
        assert (await store.identities(IdentityFilter(), 1000))[0] == before
        assert json.dumps([each.id for each in before]).count(project) == 1
