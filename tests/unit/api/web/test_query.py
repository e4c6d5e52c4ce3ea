"""The page ``/query``: questions, answers by the API's own handlers, command lines, errors beside the field, and who sees what."""

from __future__ import annotations

import html
import json
import re
import shlex
from functools import cache
from urllib.parse import urlencode

import pytest

from tests.api_client import ApiClient
from tests.api_client import Response
from tests.unit.api.auth.test_visibility import TOKENS
from tests.unit.api.web.test_usage import HOSTILE
from tests.unit.api.web.test_usage import delta
from tests.unit.api.web.test_usage import sent

STATISTICS = [("ask", "statistics"), ("meter", "cpu"), ("range", "1h")]


@cache
def usual() -> ApiClient:
    return ApiClient(auth=TOKENS)


def asked(query: list[tuple[str, str]], who: str = "admin", api: ApiClient | None = None) -> Response:
    headers = {"X-Auth-Token": f"{who}-token", "Accept": "text/html"}
    return (api or usual())(f"/query?{urlencode(query)}", headers=headers)


def shown(query: list[tuple[str, str]], who: str = "admin", api: ApiClient | None = None) -> str:
    response = asked(query, who, api)
    assert response.status == 200, response.body
    return response.body.decode()


def table(text: str) -> list[dict[str, str]]:
    """The rows of the answer by column."""
    found = re.search(r'<table class="answer">(.*?)</table>', text, re.DOTALL)
    if found is None:
        return []
    columns = [html.unescape(each) for each in re.findall(r'<th scope="col"[^>]*><bdi>(.*?)</bdi>', found[1])]
    cell = re.compile(r"<td[^>]*>(?:<a [^>]*>|<details>.*?<pre>)?<bdi>(.*?)</bdi>", re.DOTALL)
    body = [cell.findall(row) for row in found[1].split("<tr>")[2:]]
    return [dict(zip(columns, map(html.unescape, cells), strict=True)) for cells in body]


def url_of(text: str) -> str:
    (url,) = re.findall(r'<a href="([^"]*)" class="text">GET', text)
    return html.unescape(url)


def command_of(text: str) -> list[str]:
    (command,) = re.findall(r"<pre [^>]*><code>(.*?)</code></pre>", text, re.DOTALL)
    return shlex.split(html.unescape(command))


def problem(text: str) -> str:
    (found,) = re.findall(r'<p class="problem"[^>]*>(.*?)</p>', text)
    return html.unescape(found)


def test_without_a_question_the_page_says_what_to_do() -> None:
    text = shown([])
    assert "then press <b>Ask</b>" in text
    assert '<option value="cpu">cpu (ns, cumulative)</option>' in text
    assert "curl" not in text


def test_statistics_are_those_of_the_api_as_table_chart_url_and_command() -> None:
    text = shown(
        [*STATISTICS, ("period", "60"), ("groupby", "project_id"), ("aggregate", "max"), ("aggregate", "percentile/50")]
    )
    url = url_of(text)
    answer = usual()(url, headers={"X-Auth-Token": "admin-token"}).json
    assert [each["groupby"]["project_id"] for each in answer] == ["blue", "blue", "red"]
    rows = table(text)
    assert [(each["project_id"], each["max"], each["percentile/50"]) for each in rows] == [
        ("blue", "10", "10"),
        ("blue", "20", "20"),
        ("red", "60", "60"),
    ]
    assert rows[0]["period_start"] == "2026-11-22 12:00:00 UTC"
    found = re.search(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    assert {each["name"]: each["values"] for each in json.loads(found[1])["series"]} == {
        "red": [None, None, 60],
        "blue": [10, 20, None],
    }
    command = command_of(text)
    assert command[:4] == ["curl", "-s", "-H", "X-Auth-Token: $TOKEN"]
    assert command[4] == "http://cloud:8777" + url
    assert "admin-token" not in text


def test_the_command_is_quoted_for_the_shell() -> None:
    api = sent(delta(0, 1, "a", name="it's $(date) `id`"))
    text = shown([("ask", "statistics"), ("meter", "it's $(date) `id`"), ("range", "1h")], api=api)
    command = re.findall(r"<pre [^>]*><code>(.*?)</code></pre>", text, re.DOTALL)
    assert html.unescape(command[0]).endswith(f" {shlex.quote('http://cloud:8777' + url_of(text))}")
    assert len(table(text)) == 1


@pytest.mark.parametrize("kind", ["samples", "meters", "resources"])
def test_lists_are_those_of_the_api(kind: str) -> None:
    text = shown([("ask", kind), ("range", "1h")])
    answer = usual()(url_of(text), headers={"X-Auth-Token": "admin-token"}).json
    name = "id" if kind == "samples" else "resource_id"
    assert [each[name] for each in table(text)] == [each[name] for each in answer]
    assert len(answer) > 1


def test_samples_of_a_meter_have_links_units_and_metadata() -> None:
    text = shown(
        [("ask", "samples"), ("meter", "cpu"), ("range", "1h"), ("q.field", "metadata.size"), ("q.value", "0")]
    )
    (row,) = table(text)
    assert (row["meter"], row["unit"], row["volume"], row["timestamp"]) == (
        "cpu",
        "ns",
        "10",
        "2026-11-22 12:00:00 UTC",
    )
    assert json.loads(row["metadata"])["flavor.name"] == "m1"
    assert '<a href="/resource?id=vm-1">' in text


def test_empty_rows_of_the_form_are_no_terms() -> None:
    empty = [
        ("q[0].field", ""),
        ("q[0].op", "eq"),
        ("q[0].value", ""),
        ("q[0].type", ""),
        ("groupby", ""),
        ("period", ""),
    ]
    text = shown(
        [
            *STATISTICS,
            *empty,
            ("q[1].field", "resource_id"),
            ("q[1].op", "eq"),
            ("q[1].value", "vm-1"),
            ("q[1].type", ""),
        ]
    )
    assert len(table(text)) == 1
    assert url_of(text).count("q.field") == 3


def test_many_entries_have_pages() -> None:
    api = sent(*(delta(n / 60, n, f"vm-{n:03}") for n in range(150)))
    text = shown([("ask", "samples"), ("range", "1h"), ("q.field", "meter"), ("q.value", "requests")], api=api)
    assert len(table(text)) == 100
    (following,) = re.findall(r'<a href="([^"]*)" rel="next"', text)
    headers = {"X-Auth-Token": "admin-token", "Accept": "text/html"}
    rest = api(html.unescape(following), headers=headers).body.decode()
    assert [each["resource_id"] for each in table(rest)] == [f"vm-{n:03}" for n in reversed(range(50))]
    assert 'rel="next"' not in rest


def test_more_rows_of_statistics_than_the_page_has_are_counted() -> None:
    api = sent(*(delta(n / 60, n, f"vm-{n:03}") for n in range(150)))
    query = [
        ("ask", "statistics"),
        ("meter", "requests"),
        ("range", "1h"),
        ("groupby", "resource_id"),
        ("period", "60"),
    ]
    text = shown(query, api=api)
    assert len(table(text)) == 100
    assert "The first 100 of 150 rows" in text
    assert "the 10 largest of 150 groups" in text


@pytest.mark.parametrize(
    ("query", "said", "field"),
    [
        ([*STATISTICS, ("period", "x")], "field/attribute period", "period"),
        ([*STATISTICS, ("period", "-1")], "Period must be positive.", "period"),
        ([*STATISTICS, ("aggregate", "median")], "Invalid aggregation function: median", "aggregate"),
        ([*STATISTICS, ("groupby", "colour")], "Invalid groupby fields", "groupby"),
        ([*STATISTICS, ("q.field", "colour"), ("q.value", "1")], "unrecognized field in query", "q"),
        ([("ask", "statistics"), ("range", "1h")], "choose one", "meter"),
        ([("ask", "samples"), ("start", "yesterday")], "invalid timestamp format", "range"),
        ([("ask", "samples"), ("range", "2h")], "use 1h, 6h", "range"),
        ([("ask", "alarms")], "use statistics, samples", "meter"),
        ([("ask", "meters"), ("marker", "x")], "taken from the Link header", "marker"),
        (
            [*STATISTICS[:1], ("meter", "disk.size"), ("aggregate", "increase")],
            "requires a cumulative meter",
            "aggregate",
        ),
    ],
)
def test_an_invalid_question_shows_the_error_of_the_api_beside_the_field(
    query: list[tuple[str, str]], said: str, field: str
) -> None:
    text = shown(query)
    assert said in problem(text)
    assert f'class="problem" role="alert" id="problem-{field}"' in text
    assert '<table class="answer">' not in text


def test_fields_keep_what_was_asked() -> None:
    text = shown(
        [
            *STATISTICS,
            ("q.field", 'a"><b>'),
            ("q.op", "ne"),
            ("q.value", "<i>"),
            ("aggregate", "percentile/12"),
            ("groupby", "metadata.x"),
        ]
    )
    assert 'value="a&#34;&gt;&lt;b&gt;"' in text
    assert "<option selected>ne</option>" in text
    assert 'value="percentile/12" checked' in text
    assert 'value="metadata.x" checked' in text


def test_a_tenant_sees_what_the_api_shows() -> None:
    rows = table(shown([*STATISTICS, ("groupby", "project_id")], "blue"))
    assert [each["project_id"] for each in rows] == ["blue"]
    assert "Not Authorized to access project red" in problem(
        shown([*STATISTICS, ("q.field", "project_id"), ("q.value", "red")], "blue")
    )
    assert table(shown([("ask", "samples"), ("range", "1h")], "green")) == []
    assert "The answer is empty" in shown([("ask", "samples"), ("range", "1h")], "green")
    assert asked([("ask", "samples")], "unscoped").status == 403


@pytest.mark.parametrize("name", HOSTILE)
def test_names_of_others_are_text(name: str) -> None:
    api = sent(
        delta(
            0, 1, name, name, name=name, unit=name, resource_metadata={"display_name": name, "flavor": {"name": name}}
        )
    )
    for query in (
        [("ask", "samples")],
        [("ask", "resources")],
        [("ask", "meters")],
        [("ask", "statistics"), ("meter", name), ("groupby", "metadata.flavor.name"), ("period", "60")],
    ):
        main = shown([*query, ("range", "1h")], api=api).split("<main", 1)[1]
        assert "<script>alert" not in main
        assert "<img" not in main
        assert table(main) != []


def test_units_are_warned_of() -> None:
    api = sent(delta(0, 1, "a"), delta(1, 1, "a", unit="B"))
    text = shown([("ask", "statistics"), ("meter", "requests"), ("range", "1h"), ("period", "60")], api=api)
    assert "the samples have 2 units: B, request; each unit has its own rows" in text


def test_a_range_that_ends_now_has_whole_windows() -> None:
    text = shown([("ask", "statistics"), ("meter", "cpu"), ("range", "24h"), ("period", "3600")])
    assert "q.value=2026-11-21T13:00:00Z" in url_of(text)
    exact = [("ask", "statistics"), ("meter", "cpu"), ("start", "2026-11-21T12:34:00"), ("period", "3600")]
    assert "q.value=2026-11-21T12:34:00Z" in url_of(shown(exact))


def test_a_relative_address_is_left_to_the_reader() -> None:
    api = ApiClient(auth=TOKENS, hosts=None)
    text = shown(STATISTICS, api=api)
    assert '"$METER"' in html.unescape(text)
    assert "<code>METER</code> is the address of this API" in text


def promql(expression: str, **more: str) -> list[tuple[str, str]]:
    return [("ask", "promql"), ("expr", expression), *({"range": "1h", "period": "300", **more}.items())]


def test_promql_is_answered_by_the_api_of_prometheus() -> None:
    text = shown(promql("sum by (project) (ceilometer_cpu)"))
    url = url_of(text)
    assert url.startswith("/api/v1/query_range?query=sum%20by" if "%20" in url else "/api/v1/query_range?query=sum+by")
    assert url.endswith("&start=2026-11-22T11:20:00Z&end=2026-11-22T12:15:00Z&step=300")
    answer = usual()(url, headers={"X-Auth-Token": "admin-token"}).json["data"]["result"]
    newest = {each["metric"]["project"]: each["values"][-1][1] for each in answer}
    assert newest == {"blue": "20", "red": "60"}
    assert {each["project"]: each["value"] for each in table(text)} == newest
    found = re.search(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    chart = json.loads(found[1])
    points = {each["metric"]["project"]: len(each["values"]) for each in answer}
    assert {each["name"]: 12 - each["values"].count(None) for each in chart["series"]} == {
        f"project={project}": count for project, count in points.items()
    }
    assert command_of(text)[4] == "http://cloud:8777" + url


@pytest.mark.parametrize(
    ("query", "said", "field"),
    [
        (promql("sum("), "parse error", "expr"),
        (promql(""), "enter an expression", "expr"),
        (promql("ceilometer_cpu", period="x"), "valid duration", "period"),
        (promql("ceilometer_cpu", range="", start="never"), "invalid timestamp", "range"),
    ],
)
def test_an_expression_that_is_wrong_is_said_beside_its_field(
    query: list[tuple[str, str]], said: str, field: str
) -> None:
    text = shown(query)
    assert said in problem(text)
    assert f'id="problem-{field}"' in text


def test_a_tenant_gets_only_own_series() -> None:
    assert [each["project"] for each in table(shown(promql("ceilometer_cpu"), "blue"))] == ["blue"]
    assert "The answer is empty" in shown(promql("ceilometer_cpu"), "green")
