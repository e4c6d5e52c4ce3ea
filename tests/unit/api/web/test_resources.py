"""The page ``/resources``: search, pages, states, hostile names, and what tenants see."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest
from twisted.internet.defer import Deferred

from meter.api.web.resource_search import PAGE_RESOURCES
from meter.message import MeteringMessage
from tests.api_client import ApiClient
from tests.api_client import Response
from tests.api_client import message
from tests.unit.api.auth.test_visibility import TOKENS
from tests.unit.api.handlers.test_segments import EVENTS

HTML = {"Accept": "text/html,application/xhtml+xml"}
HOSTILE = ("<script>alert(1)</script>", '"><img src=x>', "\u202eevil", "x" * 300, "{{ 7 * 7 }}")


def named(n: int, name: str | None, project: str = "blue") -> MeteringMessage:
    return message(
        name="volume",
        type="gauge",
        resource_id=f"volume-{n:05}",
        project_id=project,
        resource_metadata={} if name is None else {"display_name": name, "status": "in-use"},
        message_id=f"named {n}",
    )


@pytest.fixture(scope="module")
def api() -> ApiClient:
    api = ApiClient(auth=TOKENS)
    many = [named(n, f"data {n}") for n in range(250)]
    hostile = [named(90_000 + n, name) for n, name in enumerate((*HOSTILE, None))]
    Deferred.fromCoroutine(api.store.write([*EVENTS, *many, *hostile]))
    return api


def get(api: ApiClient, path: str, who: str = "admin") -> Response:
    return api(path, headers={**HTML, "X-Auth-Token": f"{who}-token"})


def text_of(response: Response) -> str:
    assert response.status == 200, response.body
    return response.body.decode()


def listed(response: Response) -> list[str]:
    return re.findall(r'href="/resource\?id=([^"]+)"', text_of(response))


def test_resources_have_names_kinds_and_states(api: ApiClient) -> None:
    rows = dict(
        re.findall(
            r'<tr><th scope="row" class="what"><a href="/resource\?id=(\w+)">(.*?)</tr>',
            text_of(get(api, "/resources")),
        )
    )
    assert "name of i1" in rows["i1"]
    assert "deleted" in rows["i1"]
    assert "active" in rows["i2"]
    assert "instance" in rows["i2"]
    assert "2026-11-22 10:00:00" in rows["i2"]


def test_pages_lead_through_all_resources_once(api: ApiClient) -> None:
    found: list[str] = []
    path = "/resources"
    while path:
        response = get(api, path)
        page = listed(response)
        assert len(page) <= PAGE_RESOURCES
        found += page
        link = re.search(r'href="([^"]+)" rel="next"', text_of(response))
        path = link.group(1).replace("&amp;", "&") if link else ""
    assert len(found) == len(set(found)) == 262
    assert found == sorted(found)


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("id=volume-0012", [f"volume-{n:05}" for n in range(120, 130)]),
        ("id=i1", ["i1"]),
        ("id=I1", []),
        ("name=DATA+24", [f"volume-{n:05}" for n in (24, *range(240, 250))]),
        ("kind=instance", ["i1", "i2", "i3", "i4"]),
        ("kind=instance&name=of+i3", ["i3"]),
        ("project=red&kind=", ["a%2Fb+c", "i3"]),
        ("meter=disk.size", ["vm-1"]),
        ("meter=nothing", []),
        ("kind=instance&meter=cpu", []),
    ],
)
def test_search(api: ApiClient, query: str, ids: list[str]) -> None:
    assert listed(get(api, f"/resources?{query}")) == ids


def test_resource_that_is_found_by_its_kind_is_shown_with_all_its_meters(api: ApiClient) -> None:
    Deferred.fromCoroutine(api.store.write([message(-700, resource_id="i2", message_id="cpu of i2")]))
    page = text_of(get(api, "/resources?kind=instance&id=i2"))
    assert '<td class="n">2</td>' in page
    assert "2026-11-22 00:20:00" in page


def test_search_for_a_name_ends_after_a_bounded_number_of_resources_and_goes_on(
    api: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meter.api.web.resource_search.SEARCHED_RESOURCES", 50)
    monkeypatch.setattr("meter.api.web.resource_search.MAX_SEARCHED", 100)
    first = get(api, "/resources?name=data+249")
    assert listed(first) == []
    link = re.search(r'href="([^"]+)" rel="next">Search on', text_of(first))
    assert link is not None
    second = get(api, link.group(1).replace("&amp;", "&"))
    third = re.search(r'href="([^"]+)" rel="next">Search on', text_of(second))
    assert third is not None
    assert listed(get(api, third.group(1).replace("&amp;", "&"))) == ["volume-00249"]


def test_hostile_names_are_text(api: ApiClient) -> None:
    page = text_of(get(api, "/resources?id=volume-9"))
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "<bdi>\u202eevil</bdi>" in page
    assert "x" * 300 in page
    assert "{{ 7 * 7 }}" in page
    assert '<a href="/resource?id=volume-90005"><code>volume-90005</code>' in page


def test_tenant_sees_the_own_resources_only(api: ApiClient) -> None:
    page = get(api, "/resources?kind=instance", "blue")
    assert listed(page) == ["i1", "i2", "i4"]
    assert "Project" not in text_of(page)
    assert listed(get(api, "/resources", "green")) == []
    assert get(api, "/resources?project=red", "blue").status == 403
    assert get(api, "/resources", "unscoped").status == 403


@pytest.mark.parametrize("query", ["kind=<script>", "marker=x", "unknown=1", "id=a&id=b"])
def test_wrong_parameters_are_a_page_with_status_400(api: ApiClient, query: str) -> None:
    response = get(api, f"/resources?{quote(query, safe='=&')}")
    assert response.status == 400
    assert response.headers["content-type"].startswith("text/html")
    assert b"<script>" not in response.body


def test_nothing_found_and_nothing_stored_are_said() -> None:
    api = ApiClient()
    assert "No resource matches" in text_of(get(api, "/resources?id=zzz"))
    api.store = type(api.store)(api.clock)
    assert "No resource has samples yet" in text_of(get(ApiClient(store=api.store, clock=api.clock), "/resources"))
