"""The pages ``/usage`` and ``/top`` over a store in memory: numbers, the rest, gaps, units, names, links and who sees what."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from functools import cache
from typing import Any
from urllib.parse import urlencode
from uuid import NAMESPACE_OID
from uuid import uuid5

import pytest
from twisted.internet.defer import Deferred

from meter.identity_report import IdentityName
from meter.identity_report import IdentityReport
from meter.message import MeteringMessage
from meter.testing import MemoryStore
from tests.api_client import NOON
from tests.api_client import ApiClient
from tests.api_client import Response
from tests.api_client import message
from tests.unit.api.auth.test_visibility import TOKENS

RANGE = {"start": "2026-11-22T12:00:00", "end": "2026-11-22T12:10:00"}
HOSTILE = ("<script>alert(1)</script>", '"><img src=x>', "\u202eevil", "n" * 300, "=cmd()")
PAGES = ("/usage", "/top")


class EmptyClient(ApiClient):
    """A client of an API whose store has nothing but what a test writes."""

    def __init__(self, *messages: MeteringMessage, **collaborators: Any) -> None:
        super().__init__(**collaborators)
        self.store.__init__(self.clock)  # type: ignore[misc]
        Deferred.fromCoroutine(self.store.write(messages))


@cache
def usual() -> ApiClient:
    """A client of an API with the usual samples, for tests that write none."""
    return ApiClient(auth=TOKENS)


def sent(*messages: MeteringMessage) -> EmptyClient:
    return EmptyClient(*messages, auth=TOKENS)


def asked(api: ApiClient, path: str = "/usage", who: str = "admin", **query: str) -> Response:
    accept = "text/csv" if path.endswith(".csv") else "text/html"
    return api(f"{path}?{urlencode({**RANGE, **query})}", headers={"X-Auth-Token": f"{who}-token", "Accept": accept})


def shown(api: ApiClient, path: str = "/usage", who: str = "admin", **query: str) -> str:
    response = asked(api, path, who, **query)
    assert response.status == 200, response.body
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    return response.body.decode()


def refused(api: ApiClient, path: str, **query: str) -> str:
    response = asked(api, path, **query)
    assert response.status == 400, response.body
    return html.unescape(response.body.decode())


def drawn(text: str) -> dict[str, list[float | None]]:
    found = re.search(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return {each["name"]: each["values"] for each in json.loads(found[1])["series"]}


def rows(api: ApiClient, path: str, who: str = "admin", **query: str) -> list[dict[str, str]]:
    response = asked(api, path, who, **query)
    assert response.status == 200, response.body
    assert response.headers["content-type"].startswith("text/csv")
    assert "attachment" in response.headers["content-disposition"]
    return list(csv.DictReader(io.StringIO(response.body.decode(), newline="")))


def gauge(minute: float, volume: float, resource: str, project: str | None = "blue", **more: Any) -> MeteringMessage:
    return message(
        minute,
        message_id=str(uuid5(NAMESPACE_OID, f"{resource} {minute} {more}")),
        **{
            "name": "memory",
            "type": "gauge",
            "unit": "MiB",
            "volume": volume,
            "resource_id": resource,
            "project_id": project,
            **more,
        },
    )


def delta(minute: float, volume: float, resource: str, project: str | None = "blue", **more: Any) -> MeteringMessage:
    return gauge(minute, volume, resource, project, **{"name": "requests", "type": "delta", "unit": "request", **more})


MANY = [delta(minute, n + 1, f"vm-{n:02}", f"p-{n:02}") for n in range(15) for minute in (0.5, 3.5)]
"""Deltas of 15 resources, each of its own project, in the first and the fourth minute."""


def test_counters_are_shown_as_increase_by_window_and_windows_without_samples_are_gaps() -> None:
    text = shown(usual(), meter="cpu", group="resource", window="60")
    assert drawn(text) == {"vm-1": [0, 10, *[None] * 8], "a/b c": [None, None, 0, *[None] * 7]}
    assert "Increase of cpu" in text
    assert "times in UTC" in text


def test_gauges_are_averages_by_default_and_the_average_of_the_rest_is_weighted() -> None:
    many = [gauge(0, 100 - n, f"vm-{n:02}") for n in range(10)]
    rest = [gauge(0, 1, "rest-1"), gauge(0.1, 1, "rest-1"), gauge(0.2, 1, "rest-1"), gauge(0.3, 5, "rest-2")]
    text = shown(sent(*many, *rest), meter="memory", group="resource", window="300")
    assert "Average of memory" in text
    assert drawn(text)["2 others"] == [2, None]
    assert re.findall(r"2 others</bdi></th>.*?<td class=\"n\">(.*?)</td>", text) == ["2"]
    line = rows(sent(*many, *rest), "/usage.csv", meter="memory", group="resource", window="300")[-1]
    assert (line["group_name"], line["value"], line["group_id"], line["unit"]) == ("2 others", "2", "", "MiB")


@pytest.mark.parametrize("measure", ["max", "min", "sum", "count", "avg"])
def test_the_rest_is_what_the_store_says_of_all_other_groups(measure: str) -> None:
    api = sent(*MANY, *(delta(1.5, 2, "vm-14", "p-14", unit="request"),))
    meter = {"meter": "requests", "group": "resource", "window": "60", "measure": measure}
    values = drawn(shown(api, **meter))
    others = values.pop("5 others")
    assert len(values) == 10
    if measure in ("sum", "count"):
        total = drawn(shown(api, **{**meter, "group": "none"}))["all"]
        parts = [[v for each in (*values.values(), others) if (v := each[n]) is not None] for n in range(10)]
        assert [sum(each) if each else None for each in parts] == total


def test_shares_add_up_to_the_whole() -> None:
    lines = rows(sent(*MANY), "/top.csv", meter="requests", by="project")
    assert [each["group_id"] for each in lines] == [f"p-{n:02}" for n in reversed(range(15))]
    assert sum(float(each["share"]) for each in lines) == pytest.approx(1)
    assert sum(int(each["value"]) for each in lines) == 2 * 120
    assert sum(int(each["samples"]) for each in lines) == 30


def test_the_smallest_groups_of_a_minimum_come_first() -> None:
    lines = rows(
        sent(*(gauge(1, n, f"vm-{n}") for n in (3, 1, 2))), "/top.csv", meter="memory", by="resource", measure="min"
    )
    assert [each["group_id"] for each in lines] == ["vm-1", "vm-2", "vm-3"]


def test_samples_without_a_project_are_a_group_and_belong_to_the_rest_of_many() -> None:
    few = shown(sent(delta(0, 5, "a", None), delta(0, 1, "b")), meter="requests", group="project", window="300")
    assert drawn(few) == {"no project": [5, None], "blue": [1, None]}
    many = shown(sent(*MANY, delta(0, 500, "a", None)), meter="requests", group="project", window="300")
    values = drawn(many)
    assert values["7 others"] == [500 + 2 * (1 + 2 + 3 + 4 + 5 + 6), None]
    assert len(values) == 10


def test_groups_of_flavors_also_if_a_name_looks_like_a_number() -> None:
    def of(resource: str, flavor: object, volume: float) -> MeteringMessage:
        return delta(0, volume, resource, resource_metadata={"flavor": {"name": flavor}})

    names: list[object] = ["m1.small", 5, "5", True, *(f"f{n}" for n in range(9))]
    api = sent(*(of(f"vm-{n}", name, 100 - n) for n, name in enumerate(names)))
    values = drawn(shown(api, meter="requests", group="flavor", window="300"))
    assert sum(each[0] or 0 for each in values.values()) == sum(100 - n for n in range(len(names)))
    assert values["5"] == [99 + 98, None]


def test_a_meter_with_two_units_shows_one_and_links_to_the_other() -> None:
    api = sent(gauge(0, 5, "a"), gauge(0, 6, "a", unit="GiB"), gauge(1, 7, "a", unit="GiB"))
    text = shown(api, meter="memory", group="resource", window="300")
    assert drawn(text) == {"a": [6.5, None]}
    assert "The samples have 2 units" in text
    assert drawn(shown(api, meter="memory", group="resource", window="300", unit="MiB")) == {"a": [5, None]}
    assert "No samples of" in shown(api, meter="memory", unit="TiB")


def test_a_measure_that_the_meter_does_not_have_is_replaced_and_said() -> None:
    text = shown(usual(), meter="disk.size", measure="increase")
    assert "has no increase: this is its average" in text


def test_a_meter_of_two_types_has_the_measures_of_both() -> None:
    api = sent(gauge(0, 5, "a"), gauge(1, 6, "a", type="cumulative", unit="B"))
    text = shown(api, meter="memory", group="resource")
    assert '<option value="avg" selected>' in text
    assert '<option value="increase"' not in text


@pytest.mark.parametrize("path", PAGES)
def test_projects_have_their_names(path: str) -> None:
    api = ApiClient(auth=TOKENS)
    at = NOON.isoformat()
    report = IdentityReport(
        "keystone", "r", at, (IdentityName("project", "blue", "Blue & <Sons>", at, "d1"),), ("project",)
    )
    Deferred.fromCoroutine(api.store.record_identities(report))
    text = shown(api, path, meter="cpu")
    assert "<bdi>Blue &amp; &lt;Sons&gt;</bdi></a><br><code>blue</code>" in text
    assert "project=blue&amp;group=resource" in text


def test_resources_have_their_display_names() -> None:
    api = sent(delta(0, 1, "id-1", resource_metadata={"display_name": "web-1"}), delta(0, 1, "id-2"))
    text = shown(api, "/top", meter="requests", by="resource")
    assert '<a href="/resource?id=id-1"><bdi>web-1</bdi></a><br><code>id-1</code>' in text
    assert '<a href="/resource?id=id-2"><bdi>id-2</bdi></a></th>' in text


@pytest.mark.parametrize("path", PAGES)
def test_a_tenant_sees_nothing_of_others(path: str) -> None:
    api = usual()
    text = shown(api, path, "blue", meter="cpu")
    assert "vm-1" in text
    assert "a/b c" not in text
    assert ">red<" not in text
    assert "project=red" not in text
    assert asked(api, path, "blue", meter="cpu", project="red").status == 403
    assert asked(api, path, "unscoped", meter="cpu").status == 403
    green = shown(api, path, "green", meter="cpu")
    assert "no samples of the meter <bdi>cpu</bdi> that you may see" in green
    assert rows(api, f"{path}.csv", "green", meter="cpu") == []


@pytest.mark.parametrize("path", PAGES)
def test_without_samples_the_page_says_why_and_what_to_do(path: str) -> None:
    assert "No samples are stored yet" in shown(sent(), path)
    api = usual()
    empty = shown(api, path, meter="cpu", start="2020-01-01", end="2020-01-02")
    assert "No samples of <bdi>cpu</bdi> match between 2020-01-01 00:00:00 UTC" in empty
    assert "range=30d" in empty
    assert "There are no samples of the meter <bdi>nothing</bdi>" in shown(api, path, meter="nothing")
    assert "without filters" in shown(api, path, meter="cpu", project="blue", start="2020-01-01", end="2020-01-02")


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("name", HOSTILE)
def test_names_of_others_are_text(path: str, name: str) -> None:
    api = sent(delta(0, 1, name, name, name=name, unit=name, resource_metadata={"display_name": name}))
    for by in ("project", "resource", "flavor", "user"):
        text = shown(api, path, meter=name, **{"group" if path == "/usage" else "by": by})
        main = text.split("<main", 1)[1]
        assert "<script>alert" not in main
        assert "<img" not in main
        assert main.count("<script") == main.count("</script>") == (path == "/usage")
    (line,) = rows(api, f"{path}.csv", meter=name)
    assert line["meter"] == (f"'{name}" if name.startswith("=") else name)


@pytest.mark.parametrize("path", PAGES)
def test_wrong_parameters_are_refused_by_a_page(path: str) -> None:
    api = usual()
    assert "use project, resource, user, flavor" in refused(api, path, **{"group" if path == "/usage" else "by": "x"})
    assert "Invalid input for field/attribute measure" in refused(api, path, measure="x")
    assert "start must be before end" in refused(api, path, start="2027-01-01")
    assert "invalid timestamp format" in refused(api, path, start="<script>")
    assert "cannot have the field timestamp" in refused(
        api, path, **{"q.field": "timestamp", "q.op": "gt", "q.value": "2026"}
    )
    assert "Unknown argument" in refused(api, path, unknown="1")


def test_a_window_that_is_too_short_is_refused() -> None:
    assert "a chart has at most 1000 windows" in refused(usual(), "/usage", start="2026-01-01", window="60")


@pytest.mark.parametrize("path", PAGES)
def test_terms_of_q_are_kept_in_every_link_and_in_the_form(path: str) -> None:
    term = {"q.field": "metadata.flavor.name", "q.value": "m1"}
    text = shown(usual(), path, meter="cpu", **term)
    assert '<input type="hidden" name="q[0].field" value="metadata.flavor.name">' in text
    assert "Only samples whose <code>metadata.flavor.name</code> is <bdi>m1</bdi>" in text
    links = [html.unescape(each) for each in re.findall(rf'href="({path}\?[^"]*)"', text)]
    assert len([each for each in links if "q%5B0%5D.field=metadata.flavor.name" in each]) > 10


@pytest.mark.parametrize("path", PAGES)
def test_the_link_to_the_api_answers_the_same(path: str) -> None:
    api = usual()
    query = {"meter": "cpu", "group" if path == "/usage" else "by": "project"}
    (link,) = re.findall(r'<a href="(/v2/[^"]*)">JSON', shown(api, path, **query))
    answer = api(html.unescape(link), headers={"X-Auth-Token": "admin-token"}).json
    found = {(each["groupby"]["project_id"], each["aggregate"]["increase"]) for each in answer}
    assert found == {(each["group_id"], float(each["value"])) for each in rows(api, f"{path}.csv", **query)}


def test_a_page_asks_the_store_a_handful_of_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    api = sent(*MANY)
    calls = []
    for name in ("meters", "statistics", "resources", "samples"):
        original = getattr(MemoryStore, name)

        def counted(self: Any, *args: Any, name: str = name, original: Any = original) -> Any:
            calls.append(name)
            return original(self, *args)

        monkeypatch.setattr(MemoryStore, name, counted)
    shown(api, meter="requests", group="resource")
    assert calls == ["meters", "statistics", "statistics", "statistics", "resources"]
    calls.clear()
    shown(api, "/top", meter="requests", by="project")
    assert calls == ["meters", "statistics"]


def test_links_say_what_the_url_left_to_the_page() -> None:
    headers = {"X-Auth-Token": "blue-token", "Accept": "text/html"}
    text = html.unescape(usual()("/top", headers=headers).body.decode())
    assert 'href="/top.csv?meter=cpu&range=30d&by=resource"' in text
    assert 'href="/usage?meter=cpu&range=30d&group=resource"' in text
    assert 'href="/top?meter=cpu&range=7d&by=resource"' in text
    text = html.unescape(usual()("/usage", headers=headers).body.decode())
    assert 'href="/usage.csv?meter=cpu&range=24h&group=resource"' in text
