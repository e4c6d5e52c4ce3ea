"""Declarative REST pollsters, in TOML and as Ceilometer's dynamic pollsters."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from zope.interface.verify import verifyObject

from meter.declarative.pollster_files import load_user_pollsters
from meter.declarative.rest import RestPollster
from meter.declarative.rest.definition import RestDefinition
from meter.http import BadResponse
from meter.http import IHttpClient
from meter.http import LimitedHttpClient
from meter.http import ServiceLimits
from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import ICentralPollster
from meter.interfaces import ISkippedSamples
from meter.interfaces import Unavailable
from meter.openstack import IOpenStack
from meter.sample import Sample
from meter.testing import FakeCycle
from meter.testing import FakePluginContext
from tests.openstack_stub import JsonResponse
from tests.openstack_stub import StubCloud
from tests.openstack_stub import captured_cloud
from tests.openstack_stub import http
from tests.openstack_stub import openstack
from tests.openstack_stub import reply
from tests.unit.pollsters.openstack.test_pollster import SkippedSamples

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
value_mapping = { online = 1, battery = 2 }
default_value = -1
skip_values = ["unknown"]
resource = "serial"
"""

# From Ceilometer's administration guide for dynamic pollsters.
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

IDENTITY = """
- name: "dynamic.projects"
  sample_type: "gauge"
  unit: "project"
  value_attribute: "enabled"
  endpoint_type: "identity"
  url_path: "{path}"
"""

RADOSGW = """
- name: "dynamic.radosgw.api.request.{category}"
  sample_type: "gauge"
  unit: "request"
  value_attribute: "[categories].ops"
  url_path: "http://rgw.example/admin/usage"
  user_id_attribute: "user | value.split('$')[0]"
  project_id_attribute: "user | value.split('$') | value[0]"
  resource_id_attribute: "user | value.split ('$') | value[0] | value.strip()"
  response_entries_key: "summary"
  skip_sample_values: ["stat"]
"""

SERVERS = """
---
- name: "dynamic.servers"
  next_sample_url_attribute: "servers_links | filter(lambda v: v.get('rel') == 'next', value) | list(value) | value[0] | value.get('href')"
  sample_type: "gauge"
  unit: "server"
  value_attribute: "status"
  endpoint_type: compute
  url_path: "/v2.1/servers/detail"
  project_id_attribute: "tenant_id"
  metadata_fields: ["name", "status"]
  value_mapping: {ACTIVE: "1"}
  default_value: 0
  extra_metadata_fields_skip:
    - metadata: {status: "OFF"}
  extra_metadata_fields:
    - name: "project_name"
      endpoint_type: identity
      url_path: "'/v3/projects/' + str(sample['project_id'])"
      value: "name"
      extra_metadata_fields_cache_seconds: 1800
      metadata_fields: ["domain_id"]
      metadata_mapping: {domain_id: id}
      preserve_mapped_metadata: false
    - name: "domain_name"
      endpoint_type: identity
      url_path: "'/v3/domains/' + str(extra_metadata_by_name['project_name']['metadata']['id'])"
      value: "name"
"""

TOML = """
[[pollster]]
name = "servers"
meter = "server.disk.{name}"
type = "gauge"
unit = "GB"
service = "compute"
path = "/servers/detail"
items = "disks"
volume = "gb"
project = "tenant_id"

[[pollster.extra_metadata]]
name = "project_name"
service = "identity"
path = "'/v3/projects/' + str(sample['project_id'])"
value = "name"
metadata = { domain = "domain_id" }
"""


def written(directory: Path, **files: str) -> Path:
    for name, text in files.items():
        stem, _, suffix = name.rpartition("_")
        (directory / f"{stem}.{suffix}").write_text(text)
    return directory


def pollsters(directory: Path) -> dict[str, RestPollster]:
    decisions, problems = load_user_pollsters(str(directory))
    assert problems == []
    return {each.name: each.plugin for each in decisions}


def cycle_of(stub: StubCloud) -> FakeCycle:
    clock = Clock()
    web = LimitedHttpClient(http(stub, clock), clock, limits=ServiceLimits(requests_per_second=inf, attempts=1))
    providers = {IHttpClient: web, IOpenStack: openstack(stub, clock), ISkippedSamples: SkippedSamples()}
    return FakeCycle(providers, clock=clock)


async def polled(pollster: RestPollster, stub: StubCloud) -> list[Sample]:
    return list(await pollster.poll(cycle_of(stub)))


def ups(**fields: Any) -> RestPollster:
    base = {"meter": "ups.load", "type": "gauge", "unit": "%", "url": "http://ups.example/api", "volume": "load"}
    return RestPollster(RestDefinition.model_validate({**base, **fields}))


@pytest_twisted.ensureDeferred
async def test_definition_makes_samples_of_the_entries_on_all_pages(tmp_path: Path) -> None:
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
    assert stub.requests[1].query == {"page": ["2"]}


@pytest_twisted.ensureDeferred
async def test_value_mapping_default_value_and_skip_values_apply(tmp_path: Path) -> None:
    pollster = pollsters(written(tmp_path, ups_toml=UPS))["ups.state"]
    stub = StubCloud()
    states = ["online", "battery", "unknown", "on fire"]
    devices = [{"serial": state, "state": state} for state in states]
    stub.on("GET", "/api/devices", reply({"data": {"devices": devices}}))
    volumes = {each.resource_id: each.volume for each in await polled(pollster, stub)}
    assert volumes == {"online": 1, "battery": 2, "on fire": -1}


@pytest_twisted.ensureDeferred
async def test_dynamic_pollster_of_ceilometer_is_loaded_unchanged(tmp_path: Path) -> None:
    pollster = pollsters(written(tmp_path, magnum_yaml=MAGNUM))["dynamic.magnum.cluster"]
    stub = captured_cloud()
    token = stub._answers["POST", "/v3/auth/tokens"]

    def with_magnum(request: Any) -> JsonResponse:
        answer = token(request)
        body = answer.body.replace(b'"type": "placement"', b'"type": "container-infra"')
        return JsonResponse(answer.status, body, answer.headers)

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
    assert stub.requests[-1].header("OpenStack-API-Version") == "container-infra latest"


@pytest.mark.parametrize("path", ["/v3/projects", "v3/projects"])
@pytest_twisted.ensureDeferred
async def test_path_of_a_dynamic_pollster_is_resolved_like_a_link(path: str, tmp_path: Path) -> None:
    pollster = pollsters(written(tmp_path, a_yaml=IDENTITY.format(path=path)))["dynamic.projects"]
    stub = captured_cloud()
    await polled(pollster, stub)
    assert stub.requests[-1].path == "/v3/projects"  # the service's URL ends in /v3


@pytest_twisted.ensureDeferred
async def test_items_of_an_entry_make_several_meters(tmp_path: Path) -> None:
    pollster = pollsters(written(tmp_path, radosgw_yaml=RADOSGW))["dynamic.radosgw.api.request.{category}"]
    assert [each.name for each in pollster.meters] == ["dynamic.radosgw.api.request.*"]
    stub = StubCloud()
    categories = [
        {"category": "get_obj", "ops": 46},
        {"category": "put_obj", "ops": "many"},
        {"category": "list_bucket", "ops": 8},
        {"category": "stat", "ops": 1},
        {"ops": 8},
    ]
    users = [{"user": "p1$u", "categories": categories}, {"user": "p2$u", "categories": None}]
    stub.on("GET", "/admin/usage", reply({"entries": [], "summary": users}))
    cycle = cycle_of(stub)
    samples = list(await pollster.poll(cycle))
    assert [(each.name, each.volume, each.resource_id, each.project_id) for each in samples] == [
        ("dynamic.radosgw.api.request.get_obj", 46, "p1", "p1"),
        ("dynamic.radosgw.api.request.list_bucket", 8, "p1", "p1"),
    ]
    counted = cycle.provider(ISkippedSamples).counted
    assert {reason: count for (_, reason), count in counted.items()} == {"bad-volume": 1, "no-name": 1, "no-list": 1}


@pytest_twisted.ensureDeferred
async def test_xml_is_parsed_like_the_equivalent_json(tmp_path: Path) -> None:
    pollster = ups(entries="List.Bucket", volume="Size", resource="@id", responses=["xml", "json"])
    stub = StubCloud()
    xml = b'<?xml version="1.0"?><List><Bucket id="a"><Size>5</Size></Bucket><Bucket id="b"><Size>6</Size></Bucket></List>'
    stub.on("GET", "/api", JsonResponse(200, xml), reply({"List": {"Bucket": [{"@id": "c", "Size": 7}]}}))
    assert [(each.resource_id, each.volume) for each in await polled(pollster, stub)] == [("a", 5), ("b", 6)]
    assert [(each.resource_id, each.volume) for each in await polled(pollster, stub)] == [("c", 7)]


@pytest.mark.parametrize(
    "bomb",
    [
        b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><x>&b;</x>',
        b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>',
        b"<x>" * 5000,
        b"<x",
        b"",
    ],
)
@pytest_twisted.ensureDeferred
async def test_malformed_or_malicious_xml_is_a_bad_response(bomb: bytes) -> None:
    stub = StubCloud()
    stub.on("GET", "/api", JsonResponse(200, bomb))
    with pytest.raises(BadResponse, match="is not XML"):
        await polled(ups(responses=["xml"]), stub)


@pytest_twisted.ensureDeferred
async def test_text_is_one_entry() -> None:
    stub = StubCloud()
    stub.on("GET", "/api", JsonResponse(200, "load: 17 °".encode()))
    pollster = ups(responses=["json", "text"], volume=". | int(value.split(' ')[1])", resource=". | 'ups'")
    assert [(each.resource_id, each.volume) for each in await polled(pollster, stub)] == [("ups", 17)]


# --- extra metadata


def projects(stub: StubCloud, *names: str) -> None:
    for name in names:
        stub.on("GET", f"/v3/projects/{name}", reply({"project": {"id": name, "name": f"Ü {name}", "domain_id": "d"}}))
    stub.on("GET", "/v3/domains/d", reply({"domain": {"id": "d", "name": "Default"}}))


async def servers(pollster: RestPollster, cycle: FakeCycle) -> dict[str, Any]:
    return {each.resource_id: each.resource_metadata for each in await pollster.poll(cycle)}


@pytest_twisted.ensureDeferred
async def test_extra_metadata_is_requested_once_and_cached(tmp_path: Path) -> None:
    pollster = pollsters(written(tmp_path, servers_yaml=SERVERS))["dynamic.servers"]
    stub = captured_cloud()
    listed = [
        {"id": each, "tenant_id": f"p{each[-1]}", "status": "ACTIVE", "name": each} for each in ("s1", "s2", "t1")
    ]
    stub.on(
        "GET", "/v2.1/servers/detail", reply({"servers": [*listed, {"id": "s3", "tenant_id": "p1", "status": "OFF"}]})
    )
    projects(stub, "p1", "p2")
    cycle = cycle_of(stub)
    found = await servers(pollster, cycle)
    more = {"project_name": "Ü p1", "domain_name": "Default", "id": "d"}
    assert found["s1"] == {"name": "s1", "status": "ACTIVE"} | more
    assert found["s2"]["project_name"] == "Ü p2"
    assert found["s3"] == {"name": None, "status": "OFF"}  # extra_metadata_fields_skip
    requests = [stub.times("GET", path) for path in ("/v3/projects/p1", "/v3/projects/p2", "/v3/domains/d")]
    assert requests == [1, 1, 1]
    cycle.clock.advance(1801)
    await servers(pollster, cycle.following())
    assert stub.times("GET", "/v3/projects/p1") == 2
    assert stub.times("GET", "/v3/domains/d") == 1  # cached for an hour by default


@pytest_twisted.ensureDeferred
async def test_next_link_may_be_filtered_from_a_list_of_links(tmp_path: Path) -> None:
    pollster = pollsters(written(tmp_path, servers_yaml=SERVERS))["dynamic.servers"]
    stub = captured_cloud()
    projects(stub, "p1")
    links = [{"rel": "prev", "href": "/v2.1/servers/detail?marker=0"}]
    more = [*links, {"rel": "next", "href": "/v2.1/servers/detail?marker=1"}]
    first, last = ({"id": each, "tenant_id": "p1", "status": "ACTIVE"} for each in ("s1", "s2"))
    pages = [{"servers": [first], "servers_links": more}, {"servers": [last], "servers_links": links}]
    stub.on("GET", "/v2.1/servers/detail", *map(reply, pages))
    assert [each.resource_id for each in await polled(pollster, stub)] == ["s1", "s2"]


@pytest_twisted.ensureDeferred
async def test_toml_supports_items_and_extra_metadata(tmp_path: Path) -> None:
    pollster = pollsters(written(tmp_path, ours_toml=TOML))["servers"]
    stub = captured_cloud()
    disks = [{"name": "vda", "gb": 5}, {"name": "vdb", "gb": 7}]
    stub.on("GET", "/v2.1/servers/detail", reply({"servers": [{"id": "s1", "tenant_id": "p1", "disks": disks}]}))
    projects(stub, "p1")
    samples = list(await pollster.poll(cycle_of(stub)))
    assert [(each.name, each.volume) for each in samples] == [("server.disk.vda", 5), ("server.disk.vdb", 7)]
    assert samples[0].resource_metadata == {"project_name": "Ü p1", "domain": "d"}
    assert stub.times("GET", "/v3/projects/p1") == 1


@pytest_twisted.ensureDeferred
async def test_sample_is_sent_without_extra_metadata_that_cannot_be_fetched(tmp_path: Path) -> None:
    pollster = pollsters(written(tmp_path, servers_yaml=SERVERS))["dynamic.servers"]
    stub = captured_cloud()
    listed = [{"id": "s1", "tenant_id": "p1", "status": "ACTIVE"}, {"id": "s2", "tenant_id": "p1", "status": "ACTIVE"}]
    stub.on("GET", "/v2.1/servers/detail", reply({"servers": listed}))
    stub.on("GET", "/v3/projects/p1", reply({"error": "no such project"}, 404))
    cycle = cycle_of(stub)
    with capturedLogs() as logs:
        assert (await servers(pollster, cycle))["s1"] == {"name": None, "status": "ACTIVE"}
        await servers(pollster, cycle.following())
    assert stub.times("GET", "/v3/projects/p1") == 2  # once per cycle
    names = [each["what"] for each in logs if "samples lack" in each["log_format"]]
    assert names == ["project_name", "domain_name"]


@pytest.mark.parametrize("project", ["//evil.example/x", "http://evil.example/"])
@pytest_twisted.ensureDeferred
async def test_extra_metadata_is_not_requested_from_another_host(project: str, tmp_path: Path) -> None:
    elsewhere = SERVERS.replace("'/v3/projects/' + str(sample['project_id'])", "str(sample['project_id'])")
    pollster = pollsters(written(tmp_path, servers_yaml=elsewhere))["dynamic.servers"]
    stub = captured_cloud()
    stub.on("GET", "/v2.1/servers/detail", reply({"servers": [{"id": "s", "tenant_id": project, "status": "ACTIVE"}]}))
    assert "project_name" not in (await servers(pollster, cycle_of(stub)))["s"]
    assert not [each for each in stub.requests if "evil" in (each.header("Host") or "")]


def test_errors_in_extra_metadata_are_reported(tmp_path: Path) -> None:
    wrong = SERVERS.replace("endpoint_type: identity", "host_command: get-vm", 1)
    wrong += (
        SERVERS.replace("dynamic.servers", "other").replace("str(sample", "open(sample").lstrip().removeprefix("---")
    )
    _, problems = load_user_pollsters(str(written(tmp_path, a_yaml=wrong)))
    assert "extra_metadata_fields: host_command: not supported" in problems[0]
    assert "extra_metadata.1.path" in problems[1]
    assert "allowed are sample, extra_metadata_captured, extra_metadata_by_name" in problems[1]


def test_invalid_expression_in_extra_metadata_is_reported(tmp_path: Path) -> None:
    wrong = TOML.replace('"domain_id"', '"domain..id"')
    _, problems = load_user_pollsters(str(written(tmp_path, a_toml=wrong)))
    assert "extra_metadata.1.metadata" in problems[0]
    assert "'domain..id' should be names separated by dots" in problems[0]


@pytest_twisted.ensureDeferred
async def test_rest_pollster_is_disabled_if_the_catalogue_lacks_its_service(tmp_path: Path) -> None:
    pollster = pollsters(written(tmp_path, magnum_yaml=MAGNUM))["dynamic.magnum.cluster"]
    answer = await pollster.enabled(FakePluginContext({IOpenStack: openstack(captured_cloud())}))
    assert isinstance(answer, Disabled)
    assert "container-infra" in answer.reason
    assert isinstance(await ups().enabled(FakePluginContext()), Disabled)
    assert await ups().enabled(cycle_of(StubCloud())) == Enabled()


def test_errors_in_a_file_are_reported_and_valid_definitions_are_loaded(tmp_path: Path) -> None:
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
    multi = (
        MAGNUM + "- {name: 'x.{y}', sample_type: gauge, unit: u, value_attribute: v, url_path: p, endpoint_type: e}\n"
    )
    files = written(
        tmp_path, a_toml=wrong, b_toml="[pollster", c_yaml=multi, d_yaml="- 5\n- {host_command: rm, name: n}\n"
    )
    decisions, problems = load_user_pollsters(str(files))
    assert [each.name for each in decisions] == ["good", "dynamic.magnum.cluster"]
    text = "\n".join(problems)
    assert "a.toml:7: pollster 1 (a): volume" in text
    assert "\"__import__('os')\" is not allowed" in text
    assert "a.toml:10: pollster 2 (b): type: should be" in text
    assert "a.toml:13: pollster 2 (b): urls: unknown field; known are meter, type" in text
    assert "b.toml:1: not TOML" in text
    assert (
        f"c.yaml:{len(multi.splitlines())}: pollster 2 (x.{{y}}): the name of meter may end in one {{path}} into"
        in text
    )
    assert "d.yaml:1: pollster 1 (?): should be a mapping" in text
    assert "d.yaml:2: pollster 2 (n): host_command: not supported; Meter runs no code that a definition names" in text


def test_problems_name_fields_as_the_file_does_and_count_each_table_from_one(tmp_path: Path) -> None:
    of_ceilometer = "- {name: n, sample_type: gaug, unit: u, value_attribute: v, url_path: p, endpoint_type: e}\n"
    both = '[[pollster]]\nmeter = "a"\n[[exposition]]\nname = "b"\n'
    _, problems = load_user_pollsters(str(written(tmp_path, a_toml=both, b_yaml=of_ceilometer)))
    text = "\n".join(problems)
    assert 'b.yaml:1: pollster 1 (n): sample_type: should be "gauge", "delta" or "cumulative"' in text
    assert "a.toml:1: pollster 1 (a): type: " in text
    assert "a.toml:3: exposition 1 (b): " in text


def test_missing_directory_has_no_pollsters(tmp_path: Path) -> None:
    assert load_user_pollsters("") == load_user_pollsters(str(tmp_path / "none")) == ([], [])


@pytest_twisted.ensureDeferred
async def test_secret_is_read_from_its_file_and_sent(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("pass\n")
    stub = StubCloud()
    stub.on("GET", "/api", reply([]))
    await polled(ups(username="me", password_file=str(secret)), stub)
    await polled(ups(token_file=str(secret)), stub)
    assert [each.header("Authorization") for each in stub.requests] == ["Basic bWU6cGFzcw==", "Bearer pass"]
    with pytest.raises(Unavailable, match="secret cannot be read"):
        await polled(ups(token_file=str(tmp_path / "none")), stub)


@pytest.mark.parametrize(
    ("next_", "message"),
    [("http://evil.example/api", "another host"), ("/api?page=2", "loop")],
)
@pytest_twisted.ensureDeferred
async def test_next_link_to_another_host_or_in_a_loop_is_a_bad_response(next_: str, message: str) -> None:
    stub = StubCloud()
    stub.on("GET", "/api", reply({"all": [], "next": next_}))
    with pytest.raises(BadResponse, match=message):
        await polled(ups(entries="all", next="next"), stub)
    assert len(stub.requests) <= 3


@pytest_twisted.ensureDeferred
async def test_entries_without_a_valid_volume_or_resource_are_skipped() -> None:
    stub = StubCloud()
    loads: list[Any] = [1, None, "x", [], True, "0.5"]
    entries: list[Any] = [{"id": str(number), "load": load} for number, load in enumerate(loads)]
    stub.on("GET", "/api", reply([*entries, {"load": 1}, 5, None]))
    cycle = cycle_of(stub)
    samples = list(await ups().poll(cycle))
    assert {each.resource_id: each.volume for each in samples} == {"0": 1, "4": 1, "5": 0.5}
    assert sum(cycle.provider(ISkippedSamples).counted.values()) == 6


@pytest.mark.parametrize("wrong", [5, "text", {"a": 1, "b": []}, None])
@pytest_twisted.ensureDeferred
async def test_response_without_the_list_is_a_bad_response(wrong: Any) -> None:
    stub = StubCloud()
    stub.on("GET", "/api", reply(wrong))
    with pytest.raises(BadResponse, match="should be a list at 'data'"):
        await polled(ups(entries="data"), stub)
