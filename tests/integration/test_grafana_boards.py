"""The boards for Grafana: it knows every field, every metric is one of Meter's, and every panel shows something of a cloud."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from grafana_foundation_sdk.models.prometheus import Dataquery

from meter.api import RequestLimits
from meter.api.prometheus.names import metric_name
from tests.api_client import Response
from tests.metered_cloud import END
from tests.metered_cloud import NOW
from tests.metered_cloud import START
from tests.metered_cloud import CloudClient
from tests.unit.api.auth.test_visibility import TOKENS
from tests.unit.test_house_rules import families
from tests.unit.test_house_rules import meters
from tests.unit.test_house_rules import providers

TOP = Path(__file__).parents[2]
GRAFANA = TOP / "etc/grafana"
BOARDS = {name: json.loads((GRAFANA / f"{name}.json").read_text()) for name in ("region", "project")}
RATE_INTERVAL = "20m"
"""What Grafana makes of ``$__rate_interval`` with the interval of the data source, 5 minutes: four times as much."""

TARGETS = [
    pytest.param(board, target, id=f"{board}-{panel['title']}-{target['refId']}")
    for board, document in BOARDS.items()
    for panel in document["panels"]
    for target in panel.get("targets", ())
]


@pytest.fixture(scope="module")
def api() -> CloudClient:
    return CloudClient(auth=TOKENS)


def replay(api: CloudClient, target: dict[str, Any], project: str, who: str = "admin") -> Response:
    """Send the request of Grafana for ``target`` of a board of the last two hours."""
    variables = {"$__rate_interval": RATE_INTERVAL, "$__range": "2h", "$project": project}
    expression = re.sub(r"\$\w+", lambda found: variables[found[0]], target["expr"])
    if target["instant"]:
        path, times = "query", {"time": NOW.timestamp()}
    else:
        path, times = "query_range", {"start": START.timestamp(), "end": END.timestamp(), "step": 300}
    form = urlencode({"query": expression, **times})
    headers = {"Authorization": f"Bearer {who}-token", "Content-Type": "application/x-www-form-urlencoded"}
    return api(f"/api/v1/{path}", method="POST", body=form.encode(), headers=headers)


@pytest.mark.parametrize(("board", "target"), TARGETS)
def test_no_panel_is_empty(api: CloudClient, board: str, target: dict[str, Any]) -> None:
    response = replay(api, target, ".*")
    assert response.status == 200, response.body
    rows = response.json["data"]["result"]
    assert rows
    assert "warnings" not in response.json
    values = [float(text) for row in rows for _, text in row.get("values", [row.get("value")])]
    assert any(value > 0 for value in values) or "ghosts" in target["expr"]
    for label in re.findall(r"{{(\w+)}}", target.get("legendFormat", "")):
        assert all(label in row["metric"] for row in rows)


@pytest.mark.parametrize("target", [each.values[1] for each in TARGETS if each.values[0] == "project"])
def test_board_of_the_project_shows_a_tenant_their_own(api: CloudClient, target: dict[str, Any]) -> None:
    rows = replay(api, target, "(blue|red)", "blue").json["data"]["result"]
    assert "vm-3" not in json.dumps(rows)
    assert 'db \\"1\\"' not in json.dumps(rows)


def test_all_panels_of_a_tenant_can_load_at_once() -> None:
    limits = RequestLimits()
    panels = [panel["targets"] for panel in BOARDS["project"]["panels"] if "targets" in panel]
    assert len(panels) <= limits.max_requests_per_project
    assert sum(not targets[0]["instant"] for targets in panels) <= limits.max_costly_per_project


def test_variable_of_the_project_lists_the_visible_ones(api: CloudClient) -> None:
    [variable] = [each for each in BOARDS["project"]["templating"]["list"] if each["type"] == "query"]
    [(metric, label)] = re.findall(r"label_values\((\w+), (\w+)\)", variable["query"])
    for who, projects in (("admin", ["blue", "red"]), ("blue", ["blue"])):
        question = urlencode({"match[]": metric, "start": START.timestamp(), "end": END.timestamp()})
        answer = api(f"/api/v1/label/{label}/values?{question}", headers={"Authorization": f"Bearer {who}-token"})
        assert answer.json["data"] == projects


def metrics(document: Any) -> set[str]:
    return set(re.findall(r"\bceilometer_\w+", json.dumps(document)))


@pytest.mark.parametrize("board", BOARDS)
def test_every_metric_is_that_of_a_meter(board: str) -> None:
    plugins = [plugin for family in families(TOP) for plugin in providers(family)]
    known = {metric_name(meter.name) for meter in meters(plugins)}
    assert len(metrics(BOARDS[board])) > 10
    assert metrics(BOARDS[board]) - known == set()


def differences(given: Any, read: Any, path: str = "") -> Iterator[str]:
    """Yield the paths of members that were lost or changed when Grafana's own types read them."""
    if isinstance(given, dict) and isinstance(read, dict):
        for name in given:
            yield from differences(given[name], read[name], f"{path}/{name}") if name in read else [f"{path}/{name}"]
    elif isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        for n, pair in enumerate(zip(given, read, strict=True)):
            yield from differences(*pair, f"{path}/{n}")
    elif given != read:
        yield path


def read_by(model: Any, given: Any) -> Any:
    return json.loads(JSONEncoder(sort_keys=True).encode(model.from_json(given)))


@pytest.mark.parametrize("board", BOARDS)
def test_grafana_knows_every_member_of_the_board(board: str) -> None:
    document = BOARDS[board]
    assert list(differences(document, read_by(Dashboard, document))) == []
    for panel in document["panels"]:
        for target in panel.get("targets", ()):
            assert list(differences(target, read_by(Dataquery, target))) == []
        if panel["type"] != "row":
            model = importlib.import_module(f"grafana_foundation_sdk.models.{panel['type']}").Options
            assert list(differences(panel["options"], read_by(model, panel["options"]))) == [], panel["title"]


def test_a_member_that_grafana_does_not_know_is_noticed() -> None:
    document = json.loads(json.dumps(BOARDS["region"]))
    document["panels"][1]["colour"] = "red"
    assert list(differences(document, read_by(Dashboard, document))) == ["/panels/1/colour"]


@pytest.mark.parametrize("board", BOARDS)
def test_panels_have_ids_of_their_own_and_do_not_overlap(board: str) -> None:
    panels = BOARDS[board]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above
    assert all(each["gridPos"]["x"] + each["gridPos"]["w"] <= 24 for each in panels)


def test_boards_name_each_other_and_are_provisioned() -> None:
    links = {link["url"] for document in BOARDS.values() for link in document["links"]}
    assert links == {f"/d/{document['uid']}" for document in BOARDS.values()}
    [source] = yaml.safe_load((GRAFANA / "datasource.yaml").read_text())["datasources"]
    assert (source["type"], source["jsonData"]["timeInterval"]) == ("prometheus", "5m")
    [provider] = yaml.safe_load((GRAFANA / "dashboards.yaml").read_text())["providers"]
    assert provider["type"] == "file"
