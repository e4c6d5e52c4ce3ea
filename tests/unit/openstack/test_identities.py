"""Names in Keystone: complete lists, lists that are not complete, and what may not be listed."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from meter.agent.identity_polling import IdentityPolling
from meter.identity_report import IdentityReport
from meter.identity_report import identity_report
from meter.interfaces import Publication
from meter.interfaces import Unavailable
from meter.openstack.identities import KeystoneIdentities
from meter.report import read_report
from tests.openstack_stub import StubCloud
from tests.openstack_stub import captured_cloud
from tests.openstack_stub import openstack
from tests.openstack_stub import reply
from tests.store_messages import KEYS


def entry(id: str, name: Any, domain: str | None = "d1") -> dict[str, Any]:
    return {"id": id, "name": name, "domain_id": domain, "enabled": True}


def cloud() -> StubCloud:
    stub = captured_cloud()
    stub.on("GET", "/v3/domains", reply({"domains": [{"id": "d1", "name": "Default"}], "links": {"next": None}}))
    stub.on("GET", "/v3/projects", reply({"projects": [entry("p2", "red"), entry("p1", "blue")]}))
    stub.on("GET", "/v3/users", reply({"users": [entry("u1", "ann")]}))
    return stub


async def listed(stub: StubCloud, **options: Any) -> list[IdentityReport]:
    source = KeystoneIdentities(openstack(stub), Clock(), origin="keystone", **options)
    return [report async for report in source.reports()]


def described(reports: list[IdentityReport]) -> list[tuple[str, dict[str, str], bool]]:
    return [
        (report.names[0].kind, {each.id: each.name for each in report.names}, bool(report.complete))
        for report in reports
    ]


@pytest_twisted.ensureDeferred
async def test_all_kinds_are_listed() -> None:
    reports = await listed(cloud())
    assert described(reports) == [
        ("domain", {"d1": "Default"}, True),
        ("project", {"p1": "blue", "p2": "red"}, True),
        ("user", {"u1": "ann"}, True),
    ]
    assert [each.domain for each in reports[1].names] == ["d1", "d1"]
    assert {report.at for report in reports} == {"1970-01-01T00:00:00"}


@pytest_twisted.ensureDeferred
async def test_users_are_listed_domain_by_domain() -> None:
    stub = cloud()
    stub.on("GET", "/v3/domains", reply({"domains": [{"id": "d1", "name": "a"}, {"id": "d2", "name": "b"}]}))
    stub.on("GET", "/v3/users", reply({"users": [entry("u2", "ann")]}), reply({"users": [entry("u1", "bob", "d2")]}))
    assert described(await listed(stub))[-1] == ("user", {"u1": "bob", "u2": "ann"}, True)
    assert [each.query["domain_id"] for each in stub.requests if each.path == "/v3/users"] == [["d1"], ["d2"]]


@pytest_twisted.ensureDeferred
async def test_names_of_users_are_not_requested_if_they_are_not_wanted() -> None:
    stub = cloud()
    assert [kind for kind, *_ in described(await listed(stub, users=False))] == ["domain", "project"]
    assert stub.times("GET", "/v3/users") == 0


@pytest_twisted.ensureDeferred
async def test_forbidden_list_is_replaced_by_that_of_the_own_projects_which_is_not_complete(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stub = cloud()
    for path in ("/v3/domains", "/v3/projects", "/v3/users"):
        stub.on("GET", path, reply({"error": {"message": "You are not authorized"}}, 403))
    stub.on("GET", "/v3/auth/domains", reply({"domains": []}))
    stub.on("GET", "/v3/auth/projects", reply({"projects": [entry("p1", "blue")]}))
    assert described(await listed(stub)) == [("project", {"p1": "blue"}, False)]


@pytest.mark.parametrize(
    "answer",
    [
        {"projects": [entry("p1", "blue")], "truncated": True},
        {"projects": [entry("p1", "blue"), {"id": "p2"}]},
        {"projects": [entry("p1", "blue"), entry("", "empty")]},
        {"projects": [entry("p1", "blue"), entry("x" * 256, "long")]},
        {"projects": [entry("p1", "blue"), entry("a\0b", "nul")]},
    ],
)
@pytest_twisted.ensureDeferred
async def test_list_that_lacks_something_is_not_complete(answer: Any) -> None:
    stub = cloud()
    stub.on("GET", "/v3/projects", reply(answer))
    assert described(await listed(stub))[1] == ("project", {"p1": "blue"}, False)


@pytest_twisted.ensureDeferred
async def test_empty_list_is_no_list_and_odd_names_are_stored() -> None:
    stub = cloud()
    stub.on("GET", "/v3/projects", reply({"projects": []}))
    stub.on("GET", "/v3/users", reply({"users": [entry("u1", "a\0" + "b" * 300), entry("u2", "مشروع")]}))
    reports = await listed(stub)
    assert [kind for kind, *_ in described(reports)] == ["domain", "user"]
    assert [each.name for each in reports[-1].names] == [("a\ufffd" + "b" * 300)[:255], "مشروع"]


@pytest_twisted.ensureDeferred
async def test_long_list_is_cut_into_parts_that_cover_all_ids() -> None:
    stub = cloud()
    stub.on("GET", "/v3/projects", reply({"projects": [entry(f"{n:04}", f"project {n}") for n in range(2500)]}))
    parts = [each for each in await listed(stub) if each.names[0].kind == "project"]
    assert [(len(each.names), each.after, each.until) for each in parts] == [
        (1000, "", "0999"),
        (1000, "0999", "1999"),
        (500, "1999", None),
    ]
    assert all(each.complete == ("project",) for each in parts)


class ConfirmingBus:
    """Confirms publications, unless it is ``away``."""

    def __init__(self) -> None:
        self.publications: list[Publication] = []
        self.away = False

    async def publish(self, publication: Publication) -> None:
        if self.away:
            raise Unavailable("no queue is bound for report.identities")
        self.publications.append(publication)


@pytest_twisted.ensureDeferred
async def test_reports_are_signed_and_published_once_in_each_interval() -> None:
    stub, clock, bus = cloud(), Clock(), ConfirmingBus()
    source = KeystoneIdentities(openstack(stub), clock, origin="keystone")
    polling = IdentityPolling(source, bus.publish, lambda _: KEYS.keys[0], clock)
    for _ in range(3):
        await polling.poll_once(frozenset({3600.0}))
    assert [each.routing_key for each in bus.publications] == ["report.identities"] * 3
    reports = [identity_report(read_report(each.body, KEYS).content) for each in bus.publications]
    assert [each.origin for each in reports] == ["keystone"] * 3
    clock.advance(3600)
    await polling.poll_once(frozenset({3600.0}))
    assert len(bus.publications) == 6


@pytest_twisted.ensureDeferred
async def test_poll_that_failed_is_repeated_and_what_worked_is_published() -> None:
    stub, clock, bus = cloud(), Clock(), ConfirmingBus()
    stub.on("GET", "/v3/users", reply({}, 500), reply({}, 500), reply({"users": [entry("u1", "ann")]}))
    source = KeystoneIdentities(openstack(stub), clock, origin="keystone")
    polling = IdentityPolling(source, bus.publish, lambda _: KEYS.keys[0], clock)
    attempt = polling.logging(polling.poll_once, lambda: 3600.0)
    with pytest.raises(Unavailable, match="users"):
        await polling.poll_once(frozenset({3600.0}))
    await attempt()  # logged
    assert len(bus.publications) == 4
    await attempt()
    assert len(bus.publications) == 7
    await attempt()
    assert len(bus.publications) == 7


@pytest_twisted.ensureDeferred
async def test_names_that_no_collector_takes_are_listed_again_until_one_does() -> None:
    stub, clock, bus = cloud(), Clock(), ConfirmingBus()
    source = KeystoneIdentities(openstack(stub), clock, origin="keystone")
    polling = IdentityPolling(source, bus.publish, lambda _: KEYS.keys[0], clock)
    attempt = polling.logging(polling.poll_once, lambda: 3600.0)
    bus.away = True
    for _ in range(3):
        await attempt()  # logged
    bus.away = False
    for _ in range(3):
        await attempt()
    assert [each.routing_key for each in bus.publications] == ["report.identities"] * 3
