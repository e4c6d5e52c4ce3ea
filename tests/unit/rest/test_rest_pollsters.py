"""REST pollsters by description: ours, and Ceilometer's dynamic pollsters as they are."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import ICentralPollster
from meter.interfaces import IOmissions
from meter.interfaces import Unavailable
from meter.openstack import BadAnswer
from meter.openstack import IOpenStack
from meter.openstack import IWeb
from meter.openstack import Limits
from meter.openstack import Web
from meter.rest import RestPollster
from meter.rest import own_pollsters
from meter.rest.definition import RestDefinition
from meter.rest.expressions import BadExpression
from meter.rest.expressions import NoValue
from meter.rest.expressions import expression
from meter.sample import Sample
from meter.testing import FakeCycle
from meter.testing import FakeSurroundings
from tests.openstack_stub import Reply
from tests.openstack_stub import StubCloud
from tests.openstack_stub import captured_cloud
from tests.openstack_stub import http
from tests.openstack_stub import openstack
from tests.openstack_stub import reply
from tests.unit.pollsters.test_openstack import Omissions

UPS = """
[[pollster]]
meter = "ups.load"
type = "gauge"
unit = "%"
url = "http://ups.example/api/devices?page=1"
entries = "data.devices"
volume = "load.percent"
resource = "serial"
project = "owner"
metadata = { name = "name", room = "place.room" }
next = "data.next"

[[pollster]]
name = "ups.state"
meter = "ups.state"
type = "gauge"
unit = "state"
url = "http://ups.example/api/devices"
entries = "data.devices"
volume = "state"
words = { online = 1, battery = 2 }
otherwise = -1
skip = ["unknown"]
resource = "serial"
"""

# As in Ceilometer's administration guide for dynamic pollsters.
MAGNUM = """
---
- name: "dynamic.magnum.cluster"
  sample_type: "gauge"
  unit: "cluster"
  value_attribute: "status"
  endpoint_type: "container-infra"
  url_path: "v1/clusters"
  metadata_fields:
    - "labels"
    - "uuid"
    - "name"
  metadata_mapping:
    name: "display_name"
  preserve_mapped_metadata: false
  skip_sample_values: ["DELETED"]
  value_mapping:
    CREATE_IN_PROGRESS: "0"
    CREATE_FAILED: "1"
    CREATE_COMPLETE: "2"
  default_value: 0
  resource_id_attribute: "uuid"
  headers:
    - Openstack-API-Version: "container-infra latest"
"""


def written(directory: Path, **files: str) -> Path:
    for name, text in files.items():
        stem, _, suffix = name.rpartition("_")
        (directory / f"{stem}.{suffix}").write_text(text)
    return directory


def pollsters(directory: Path) -> dict[str, RestPollster]:
    decisions, problems = own_pollsters(str(directory))
    assert problems == []
    return {each.name: each.plugin for each in decisions}


def cycle_of(stub: StubCloud) -> FakeCycle:
    clock = Clock()
    web = Web(http(stub, clock), clock, limits=Limits(requests_per_second=inf, attempts=1))
    providers = {IWeb: web, IOpenStack: openstack(stub, clock), IOmissions: Omissions()}
    return FakeCycle(providers, clock=clock)


async def polled(pollster: RestPollster, stub: StubCloud) -> list[Sample]:
    return list(await pollster.poll(cycle_of(stub)))


def ups(**more: Any) -> RestPollster:
    base = {"meter": "ups.load", "type": "gauge", "unit": "%", "url": "http://ups.example/api", "volume": "load"}
    return RestPollster(RestDefinition.model_validate({**base, **more}))


@pytest_twisted.ensureDeferred
async def test_an_api_becomes_a_meter_by_description(tmp_path: Path) -> None:
    pollster = pollsters(written(tmp_path, ups_toml=UPS))["ups.load"]
    assert verifyObject(ICentralPollster, pollster)
    stub = StubCloud()
    device = {"serial": "S1", "load": {"percent": "12.5"}, "owner": "p1", "name": "Ü 名", "place": {"room": 7}}
    first = {"data": {"devices": [device], "next": "/api/devices?page=2"}}
    second = {"data": {"devices": [{**device, "serial": 2, "load": {"percent": 80}}], "next": None}}
    stub.on("GET", "/api/devices", reply(first), reply(second))
    one, two = await polled(pollster, stub)
    assert (one.name, one.type, one.unit, one.volume) == ("ups.load", "gauge", "%", 12.5)
    assert (one.resource_id, one.project_id) == ("S1", "p1")
    assert one.resource_metadata == {"name": "Ü 名", "room": 7}
    assert (two.resource_id, two.volume) == ("2", 80)
    assert stub.asked[1].query == {"page": ["2"]}


@pytest_twisted.ensureDeferred
async def test_words_become_numbers_and_some_are_skipped(tmp_path: Path) -> None:
    pollster = pollsters(written(tmp_path, ups_toml=UPS))["ups.state"]
    stub = StubCloud()
    states = ["online", "battery", "unknown", "on fire"]
    devices = [{"serial": state, "state": state} for state in states]
    stub.on("GET", "/api/devices", reply({"data": {"devices": devices}}))
    volumes = {each.resource_id: each.volume for each in await polled(pollster, stub)}
    assert volumes == {"online": 1, "battery": 2, "on fire": -1}


@pytest_twisted.ensureDeferred
async def test_ceilometers_yaml_loads_as_it_is(tmp_path: Path) -> None:
    pollster = pollsters(written(tmp_path, magnum_yaml=MAGNUM))["dynamic.magnum.cluster"]
    stub = captured_cloud()
    token = stub._answers["POST", "/v3/auth/tokens"]

    def with_magnum(asked: Any) -> Reply:
        answer = token(asked)
        body = answer.body.replace(b'"type": "placement"', b'"type": "container-infra"')
        return Reply(answer.status, body, answer.headers)

    stub.on("POST", "/v3/auth/tokens", with_magnum)
    clusters = [
        {"uuid": "c1", "status": "CREATE_COMPLETE", "name": "one", "labels": {"a": 1}, "project_id": "p"},
        {"uuid": "c2", "status": "DELETED"},
        {"uuid": "c3", "status": "ROLLBACK"},
    ]
    stub.on("GET", "/v1/clusters", reply({"clusters": clusters}))
    one, three = await polled(pollster, stub)
    assert (one.resource_id, one.volume, one.project_id) == ("c1", 2, "p")
    assert one.resource_metadata == {"labels": {"a": 1}, "uuid": "c1", "display_name": "one"}
    assert three.volume == 0
    assert stub.asked[-1].header("OpenStack-API-Version") == "container-infra latest"


@pytest_twisted.ensureDeferred
async def test_it_is_off_where_the_catalogue_lacks_its_service(tmp_path: Path) -> None:
    pollster = pollsters(written(tmp_path, magnum_yaml=MAGNUM))["dynamic.magnum.cluster"]
    answer = await pollster.enabled(FakeSurroundings({IOpenStack: openstack(captured_cloud())}))
    assert isinstance(answer, Disabled)
    assert "container-infra" in answer.reason
    assert isinstance(await ups().enabled(FakeSurroundings()), Disabled)
    assert await ups().enabled(cycle_of(StubCloud())) == Enabled()


def test_what_is_wrong_in_a_file_is_told_and_the_rest_works(tmp_path: Path) -> None:
    wrong = """
[[pollster]]
meter = "a"
type = "gauge"
unit = "x"
url = "http://h/"
volume = "v | __import__('os')"
[[pollster]]
meter = "b"
type = "guage"
unit = "x"
volume = "v"
urls = "http://h/"
[[pollster]]
meter = "good"
type = "gauge"
unit = "x"
url = "http://h/"
volume = "v"
"""
    multi = MAGNUM + "- {name: 'x.{y}', sample_type: gauge, unit: u, value_attribute: v, url_path: p}\n"
    files = written(
        tmp_path, a_toml=wrong, b_toml="[pollster", c_yaml=multi, d_yaml="- 5\n- {host_command: rm, name: n}\n"
    )
    decisions, problems = own_pollsters(str(files))
    assert [each.name for each in decisions] == ["good", "dynamic.magnum.cluster"]
    told = "\n".join(problems)
    assert "a.toml: pollster 1 (a): volume" in told
    assert "is not understood here" in told
    assert "pollster 2 (b): urls: there is no such field; known are meter, type" in told
    assert "b.toml: cannot be read" in told
    assert "several metrics from one entry" in told
    assert "d.yaml: pollster 1 (?): should be a mapping" in told
    assert "host_command: not done by Meter" in told


def test_no_directory_has_no_pollsters(tmp_path: Path) -> None:
    assert own_pollsters("") == own_pollsters(str(tmp_path / "none")) == ([], [])


@pytest_twisted.ensureDeferred
async def test_a_secret_is_read_from_its_file_and_sent(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("pass\n")
    stub = StubCloud()
    stub.on("GET", "/api", reply([]))
    await polled(ups(username="me", password_file=str(secret)), stub)
    await polled(ups(token_file=str(secret)), stub)
    assert [each.header("Authorization") for each in stub.asked] == ["Basic bWU6cGFzcw==", "Bearer pass"]
    with pytest.raises(Unavailable, match="secret cannot be read"):
        await polled(ups(token_file=str(tmp_path / "none")), stub)


@pytest.mark.parametrize(
    ("next_", "said"),
    [("http://evil.example/api", "elsewhere"), ("/api?page=2", "in circles")],
)
@pytest_twisted.ensureDeferred
async def test_pages_lead_neither_elsewhere_nor_in_circles(next_: str, said: str) -> None:
    stub = StubCloud()
    stub.on("GET", "/api", reply({"all": [], "next": next_}))
    with pytest.raises(BadAnswer, match=said):
        await polled(ups(entries="all", next="next"), stub)
    assert len(stub.asked) <= 3


@pytest_twisted.ensureDeferred
async def test_entries_that_make_no_sample_cost_themselves_only() -> None:
    stub = StubCloud()
    loads: list[Any] = [1, None, "x", [], True, "0.5"]
    entries: list[Any] = [{"id": str(number), "load": load} for number, load in enumerate(loads)]
    stub.on("GET", "/api", reply([*entries, {"load": 1}, 5, None]))
    cycle = cycle_of(stub)
    samples = list(await ups().poll(cycle))
    assert {each.resource_id: each.volume for each in samples} == {"0": 1, "4": 1, "5": 0.5}
    assert sum(cycle.provider(IOmissions).counted.values()) == 6


@pytest.mark.parametrize("wrong", [5, "text", {"a": 1, "b": []}, None])
@pytest_twisted.ensureDeferred
async def test_an_answer_without_the_list_is_a_bad_answer(wrong: Any) -> None:
    stub = StubCloud()
    stub.on("GET", "/api", reply(wrong))
    with pytest.raises(BadAnswer, match="should be a list at 'data'"):
        await polled(ups(entries="data"), stub)


# --- expressions


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b.1", 20),
        ("a.b.7", None),
        ("a.none.x", None),
        (".", {"a": {"b": [10, 20]}, "s": "7 GB"}),
        ("a.b | value[0] * 2", 20),
        ("a.b | sum(value) / len(value)", 15),
        ("s | value.split(' ')[0] | int(value) * 1024", 7168),
        ("a | value.get('c', 3)", 3),
        ("s | 1 if value.endswith('GB') else 0", 1),
        ("s | value == 'x' or value == '7 GB'", True),
        ("s | value[:1] in ['7']", True),
        ("none | value * 2", None),
    ],
)
def test_an_expression_is_a_place_and_operations(text: str, value: Any) -> None:
    assert expression(text).value({"a": {"b": [10, 20]}, "s": "7 GB"}) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a..b",
        "a | __import__('os')",
        "a | value.__class__",
        "a | [x for x in value]",
        "a | (lambda: 1)()",
        "a | 9 ** 9 ** 9",
        "a | open('/etc/passwd')",
        "a | value.format(1)",
        "a | 1 +",
        "a | " + "(" * 500,
        "x" * 1001,
    ],
)
def test_what_is_more_than_reckoning_is_refused(text: str) -> None:
    with pytest.raises(BadExpression):
        expression(text)


@pytest.mark.parametrize("text", ["a | value / 0", "a | value['x']", "a | 'x' * 1000000000", "a | '%999999d' % value"])
def test_reckoning_that_fails_has_no_value(text: str) -> None:
    with pytest.raises(NoValue):
        expression(text).value({"a": 1})
