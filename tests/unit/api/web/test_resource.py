"""The page ``/resource``: life, meters, completeness, metadata, samples, and what tenants see."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from twisted.internet.defer import Deferred

from meter.api.web.resource import PAGE_SAMPLES
from meter.interfaces import RequestError
from tests.api_client import KEYS
from tests.api_client import NOON
from tests.api_client import ApiClient
from tests.api_client import message
from tests.unit.api.auth.test_visibility import TOKENS
from tests.unit.api.handlers.test_completeness import api as ledger_api
from tests.unit.api.handlers.test_segments import EVENTS
from tests.unit.api.handlers.test_segments import event_sample
from tests.unit.api.web.test_resources import get
from tests.unit.api.web.test_resources import text_of

assert ledger_api  # a fixture
HOSTILE = '"><script>alert(1)</script>'
MANY = [
    message(-n, resource_id="busy", name=("cpu", "vcpus")[n % 2], message_id=f"busy {n}", volume=n) for n in range(250)
]


@pytest.fixture(scope="module")
def api() -> ApiClient:
    api = ApiClient(auth=TOKENS, keys=KEYS)
    passed = [
        event_sample(-300, "create.end", instance="passed", project="red"),
        event_sample(-60, "create.end", instance="passed", project="blue"),
    ]
    hostile = [event_sample(-60, "create.end", instance=HOSTILE)]
    Deferred.fromCoroutine(api.store.write([*EVENTS, *MANY, *passed, *hostile]))
    return api


def test_life_with_states_flavor_and_deletion(api: ApiClient) -> None:
    page = text_of(get(api, "/resource?id=i1&range=24h"))
    assert "<h1>name of i1</h1>" in page
    assert "Ended on 2026-11-22 11:00:00 UTC, last state stopped." in page
    assert re.search(r'<rect class="running"[^>]*/><text class="label running"[^>]*>active<', page)
    assert "m1.small" in page
    assert '<th scope="row" class="time">2026-11-22 09:00:00</th><td class="time">2026-11-22 11:00:00</td>' in page


def test_resource_without_a_kind_has_no_life_and_says_so(api: ApiClient) -> None:
    assert "No samples tell its states in this period" in text_of(get(api, "/resource?id=vm-1"))


def test_meters_have_their_newest_values(api: ApiClient) -> None:
    page = text_of(get(api, "/resource?id=vm-1"))
    assert re.search(r"<bdi>cpu</bdi></th><td>cumulative</td><td class=\"n\">20</td><td><bdi>ns</bdi></td>", page)
    assert re.search(r"<bdi>disk.size</bdi></th><td>gauge</td><td class=\"n\">2.5</td><td><bdi>GB</bdi></td>", page)


def test_chart_is_of_the_chosen_meter(api: ApiClient) -> None:
    assert "Increase of cpu" in text_of(get(api, "/resource?id=vm-1"))
    assert "Average of disk.size" in text_of(get(api, "/resource?id=vm-1&meter=disk.size"))
    assert 'data-chart="time-series"' not in text_of(get(api, "/resource?id=vm-1&meter=nothing"))


def test_samples_are_pages_newest_first_each_with_a_link_to_its_proof(api: ApiClient) -> None:
    first = text_of(get(api, "/resource?id=busy"))
    assert first.count(">Verify</a>") == PAGE_SAMPLES
    link = re.search(r'href="([^"]+)#samples" rel="next"', first)
    assert link is not None
    second = text_of(get(api, link.group(1).replace("&amp;", "&")))
    ids = re.findall(r"/sample\?id=busy\+(\d+)", first + second)
    assert ids == [str(n) for n in range(2 * PAGE_SAMPLES)]


def test_samples_of_one_meter(api: ApiClient) -> None:
    page = text_of(get(api, "/resource?id=busy&meter=vcpus"))
    assert re.findall(r"/sample\?id=busy\+(\d+)", page)[:3] == ["1", "3", "5"]
    assert "<option selected>vcpus</option>" in page


def test_metadata_are_shown_as_the_api_flattens_them(api: ApiClient) -> None:
    assert "<bdi>flavor.name</bdi></th><td><bdi>m1.small</bdi>" in text_of(get(api, "/resource?id=i1"))


def test_hostile_id_and_name_are_text_everywhere(api: ApiClient) -> None:
    page = text_of(get(api, "/resource?id=%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E"))
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


@pytest.mark.parametrize(("id", "who"), [("nope", "admin"), ("i3", "blue"), ("i1", "green"), ("%F0%9F%92%A9", "admin")])
def test_unknown_resource_and_that_of_another_project_are_404_alike(api: ApiClient, id: str, who: str) -> None:
    response = get(api, f"/resource?id={id}", who)
    assert response.status == 404
    assert b"Not Found" in response.body
    assert api(f"/v2/resources/{id}", headers={"X-Auth-Token": f"{who}-token"}).status == 404


def test_tenant_sees_neither_the_former_owner_nor_their_time(api: ApiClient) -> None:
    page = text_of(get(api, "/resource?id=passed&range=24h", "blue"))
    began = '<th scope="row" class="time">2026-11-22 07:00:00</th>'
    whole = text_of(get(api, "/resource?id=passed&range=24h"))
    assert ("<code>red</code>" in page, began in page) == (False, False)
    assert ("<code>red</code>" in whole, began in whole) == (True, True)


def test_completeness_with_gaps_and_without_agents_for_tenants(ledger_api: ApiClient) -> None:
    query = "id=vm-1&start=2026-11-18T12:00&end=2026-11-18T14:00"
    page = text_of(get(ledger_api, f"/resource?{query}"))
    assert "4 of 24 missing" in page
    assert "agent not running" in page
    assert "meter-compute@hv1" in page
    for_tenant = text_of(get(ledger_api, f"/resource?{query}", "blue"))
    assert "agent not running" in for_tenant
    assert "hv1" not in for_tenant
    assert "secret" not in for_tenant


def test_part_that_fails_does_not_take_the_rest_away(api: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(*_: object) -> None:
        raise RequestError("the query took longer than 30 s")

    monkeypatch.setattr(api.store, "completeness", slow)
    page = text_of(get(api, "/resource?id=i1"))
    assert "This part cannot be shown: the query took longer than 30 s." in page
    assert "Ended on" in page


@pytest.mark.parametrize(
    "query", ["", "id=", "id=i1&range=2y", "id=i1&start=x", "id=i1&marker=x", "id=i1&range=1h&end=2026"]
)
def test_wrong_parameters_are_a_page_with_status_400(api: ApiClient, query: str) -> None:
    assert get(api, f"/resource?{query}").status == 400


def test_period_in_the_future_and_one_of_years(api: ApiClient) -> None:
    future = text_of(get(api, "/resource?id=i1&start=2027-01-01&end=2027-01-02"))
    assert "Nothing is known of this period." in future
    start = NOON - timedelta(days=2000)
    assert get(api, f"/resource?id=i1&start={start:%Y-%m-%d}&end=2026-12-01").status == 200
