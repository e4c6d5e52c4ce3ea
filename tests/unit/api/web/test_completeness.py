"""The page ``/completeness``: numbers, the map, gaps of a cell, closing, and what tenants see."""

from __future__ import annotations

import re
from html import unescape
from unittest.mock import patch

import pytest
from twisted.internet.defer import Deferred

from meter.api.web.charts.heat_map import MAX_MARKS
from meter.interfaces import RequestError
from tests.api_client import ApiClient
from tests.api_client import message
from tests.ledger_rows import LedgerRows
from tests.store_messages import after
from tests.unit.api.auth.test_visibility import TOKENS
from tests.unit.api.handlers.test_completeness import api as ledger_api
from tests.unit.api.web.test_resources import get
from tests.unit.api.web.test_resources import text_of

assert ledger_api  # a fixture
DAY = "start=2026-11-18T10:00&end=2026-11-19T10:00"
HOSTS = 12
TWO_HOURS = "start=2026-11-18T12:00&end=2026-11-18T14:00"


@pytest.fixture(scope="module")
def many_hosts() -> ApiClient:
    """HOSTS hosts, of which each second one has missed all cycles of an hour, and the last one most of the day."""
    api = ApiClient(auth=TOKENS)
    rows = LedgerRows()
    for n in range(HOSTS):
        agent = rows.agent(f"hv{n:03}")
        rows.metered(agent, f"vm-{n}", project=f"p{n:03}")
        if n == HOSTS - 1:
            rows.run(agent, 0, 300)
            rows.run(agent, 40_000, 40_300, boot="00000000-0000-0000-0000-000000000002")
        else:
            rows.run(agent, 0, 86_100)
    rows.into_memory(api.store)
    samples = [
        message(
            resource_id=f"vm-{n}",
            project_id=f"p{n:03}",
            timestamp=after(at),
            resource_metadata={"_meter": {"interval": 300}},
            message_id=f"vm-{n} {at}",
        )
        for n in range(HOSTS - 1)
        for at in range(0, 10_800, 900)
        if n % 2 or not 3600 <= at < 7200
    ]
    Deferred.fromCoroutine(api.store.write(samples))
    return api


def cells(page: str) -> dict[str, str]:
    """Return the links of the map's cells by their texts."""
    found = re.findall(r'<a href="([^"]+)#gaps"><title>([^<]+)</title><rect', page)
    return {unescape(title): unescape(link) for link, title in found}


def test_numbers_by_cause(ledger_api: ApiClient) -> None:
    page = text_of(get(ledger_api, f"/completeness?{TWO_HOURS}"))
    assert 'Missing <b class="big">4</b>' in page
    assert '<th scope="row">agent not running</th><td class="n">3</td>' in page
    assert '<th scope="row">skipped</th><td class="n">1</td>' in page


def test_a_click_on_a_cell_shows_its_gaps_with_causes(ledger_api: ApiClient) -> None:
    page = text_of(get(ledger_api, f"/completeness?{DAY}"))
    link = cells(page)["meter-compute@hv1, 2026-11-18 12:00 UTC: 4 of 12 missing"]
    shown = text_of(get(ledger_api, f"/completeness{link}"))
    assert "4 of 12 expected samples are missing: agent not running 3, skipped 1." in shown
    assert "2026-11-18 12:15:00" in shown
    assert 'href="/resource?id=vm-1"' in shown
    assert "hv1 said" in shown


def test_map_by_project_has_names_and_the_samples_of_no_project(ledger_api: ApiClient) -> None:
    page = text_of(get(ledger_api, f"/completeness?by=project&{TWO_HOURS}"))
    assert any(title.startswith("Blue, 2026-11-18 12:00 UTC: 4 of 12") for title in cells(page))
    assert "without project" in page


def test_tenant_sees_the_own_project_without_agents_and_reasons(ledger_api: ApiClient) -> None:
    page = text_of(get(ledger_api, f"/completeness?{TWO_HOURS}&row=blue&at=2026-11-18T12:00", "blue"))
    assert 'Missing <b class="big">4</b>' in page
    assert "agent not running" in page
    for hidden in ("hv1", "hv2", "Rosso", "secret", "not metered", "Audits"):
        assert hidden not in page
    assert get(ledger_api, "/completeness?by=agent", "blue").status == 403
    assert get(ledger_api, "/completeness?row=red", "blue").status == 403
    assert get(ledger_api, "/completeness?project=red", "blue").status == 403
    assert get(ledger_api, "/completeness", "unscoped").status == 403


def test_closing_has_its_reasons(ledger_api: ApiClient) -> None:
    page = text_of(get(ledger_api, f"/completeness?{TWO_HOURS}"))
    assert '<span class="badge warn">no</span>' in page
    assert "samples missing" in page


def test_nothing_expected_is_not_called_complete() -> None:
    page = text_of(get(ApiClient(), "/completeness"))
    assert "whether something is missing is unknown" in page
    assert "100" not in re.sub(r"<[^>]+>", "", page.split("<main")[1].split("</section>")[0]).replace("2026", "")


def test_map_of_many_hosts_begins_with_the_worst_and_pages_lead_through_all(
    many_hosts: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meter.api.web.completeness.PAGE_ROWS", 5)
    seen: list[str] = []
    path = f"/completeness?by=agent&{DAY}"
    sizes = []
    while path:
        page = text_of(get(many_hosts, path))
        sizes.append(len(page.encode()))
        names = re.findall(r"<title>(meter-compute@hv\d+): all of the period", page)
        seen += names
        assert len(cells(page)) <= MAX_MARKS
        link = re.search(r'href="([^"]+)" rel="next">Next rows', page)
        path = "/completeness" + unescape(link.group(1)) if link else ""
    assert sorted(seen) == [f"meter-compute@hv{n:03}" for n in range(HOSTS)]
    assert seen[0] == "meter-compute@hv011"
    assert max(sizes) < 80_000


def test_questions_do_not_grow_with_the_hosts(many_hosts: ApiClient) -> None:
    asked = []
    original = many_hosts.store.completeness

    async def completeness(query: object, *rest: object) -> object:
        asked.append(query)
        return await original(query, *rest)  # type: ignore[arg-type]

    with patch.object(many_hosts.store, "completeness", completeness):
        text_of(get(many_hosts, f"/completeness?by=agent&{DAY}"))
    assert len(asked) <= 4


def test_part_that_fails_leaves_the_rest(ledger_api: ApiClient) -> None:
    async def slow(*_: object) -> None:
        raise RequestError("the query took longer than 30 s")

    with patch.object(ledger_api.store, "completeness_gaps", slow):
        page = text_of(get(ledger_api, f"/completeness?{TWO_HOURS}&gaps=true"))
    assert "This part cannot be shown: the query took longer than 30 s." in page
    assert 'Missing <b class="big">4</b>' in page


def test_gaps_of_a_long_period_are_asked_for_by_day(ledger_api: ApiClient) -> None:
    page = text_of(get(ledger_api, "/completeness?start=2026-09-01&end=2026-11-20&gaps=true"))
    assert "choose an hour or a day" in page


@pytest.mark.parametrize(
    "query",
    [
        "by=host",
        "range=2y",
        "start=2020-01-01&end=2026-01-01",
        "start=x",
        "at=2026-11-18",
        f"{TWO_HOURS}&row=a&at=2026-11-20",
        f"{TWO_HOURS}&row=a&at=x",
        "marker=x",
        "gap_marker=-1",
        "start=9999-12-31T22:00&end=9999-12-31T23:30",
    ],
)
def test_wrong_parameters_are_a_page_with_status_400(ledger_api: ApiClient, query: str) -> None:
    response = get(ledger_api, f"/completeness?{query}")
    assert response.status == 400
    assert response.headers["content-type"].startswith("text/html")
