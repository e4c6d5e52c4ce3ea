"""Pollsters of what exporters expose for Prometheus."""

from __future__ import annotations

import re
from datetime import UTC
from datetime import datetime
from math import inf
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from meter.counter_runs import run_of
from meter.declarative.exposition import ExpositionDefinition
from meter.declarative.exposition import ExpositionPollster
from meter.declarative.exposition import exposition_pollsters
from meter.declarative.exposition.definition import MetricDefinition
from meter.declarative.exposition.exposition import LINES_AT_ONCE
from meter.declarative.pollster_files import load_user_pollsters
from meter.http import BadResponse
from meter.http import IHttpClient
from meter.http import LimitedHttpClient
from meter.http import ServiceLimits
from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import ICentralPollster
from meter.interfaces import ISkippedSamples
from meter.interfaces import Unavailable
from meter.query import Aggregate
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.sample import Sample
from meter.signing_keys import keyring
from meter.testing import FakeCycle
from meter.testing import FakePluginContext
from meter.testing import MemoryStore
from tests.openstack_stub import JsonResponse
from tests.openstack_stub import StubCloud
from tests.openstack_stub import http
from tests.signed import received
from tests.unit.pollsters.openstack.test_pollster import SkippedSamples

ROOT = Path(__file__).parents[4]
KEYS = keyring(["secret"])
URL = "http://hv1.example:28282/metrics"

FILE = """
[[exposition]]
name = "kepler"
urls = ["http://hv1.example:28282/metrics", "http://hv2.example:28282/metrics"]

[[exposition.meters]]
metric = "kepler_vm_cpu_joules_total"
meter = "energy"
unit = "J"
where = { zone = "package" }
resource = "vm_id"
project = "tenant"
metadata = ["zone", "node_name"]
"""

KEPLER = """# HELP kepler_vm_cpu_joules_total Energy consumption of cpu at vm level in joules
# TYPE kepler_vm_cpu_joules_total counter
kepler_vm_cpu_joules_total{hypervisor="kvm",node_name="hv1",vm_id="i-1",zone="package",tenant="blue"} 1234.5
kepler_vm_cpu_joules_total{hypervisor="kvm",node_name="hv1",vm_id="i-1",zone="core",tenant="blue"} 1000
kepler_vm_cpu_joules_total{hypervisor="kvm",node_name="hv1",vm_id="i-2",zone="package"} 7
kepler_other_total{vm_id="i-1"} 9
# TYPE process_start_time_seconds gauge
process_start_time_seconds 1.76423760012e+09
"""


def definition(**fields: Any) -> ExpositionDefinition:
    meter = {"metric": "load", "meter": "ups.load", "unit": "%", "resource": "ups"}
    own = {name: fields.pop(name) for name in list(fields) if name not in ExpositionDefinition.model_fields}
    return ExpositionDefinition.model_validate({"name": "ups", "urls": [URL], "meters": [{**meter, **own}], **fields})


def pollster(**fields: Any) -> ExpositionPollster:
    [only] = exposition_pollsters(definition(**fields))
    return only


class Exporter:
    """One exporter, and a cycle that polls it."""

    def __init__(self, text: str | bytes, content_type: str = "text/plain; version=0.0.4") -> None:
        self.clock = Clock()
        self.stub = StubCloud()
        body = text if isinstance(text, bytes) else text.encode()
        self.stub.on("GET", "/metrics", JsonResponse(200, body, {"Content-Type": content_type}))
        web = LimitedHttpClient(
            http(self.stub, self.clock), self.clock, limits=ServiceLimits(requests_per_second=inf, attempts=1)
        )
        self.cycle = FakeCycle({IHttpClient: web, ISkippedSamples: SkippedSamples()}, clock=self.clock)

    async def samples(self, pollster: ExpositionPollster) -> list[Sample]:
        return list(await pollster.poll(self.cycle))

    @property
    def skipped(self) -> dict[str, int]:
        counted = self.cycle.provider(ISkippedSamples).counted
        return {reason: count for (_, reason), count in counted.items()}


def loaded(directory: Path, text: str) -> tuple[dict[str, Any], list[str]]:
    (directory / "own.toml").write_text(text)
    decisions, problems = load_user_pollsters(str(directory))
    return {each.name: each.plugin for each in decisions}, problems


@pytest_twisted.ensureDeferred
async def test_series_of_a_metric_become_samples(tmp_path: Path) -> None:
    found, problems = loaded(tmp_path, FILE)
    assert problems == []
    assert list(found) == ["kepler:hv1.example:28282", "kepler:hv2.example:28282"]
    first = found["kepler:hv1.example:28282"]
    assert verifyObject(ICentralPollster, first)
    one, two = await Exporter(KEPLER).samples(first)
    assert (one.name, one.type, one.unit, one.volume) == ("energy", "cumulative", "J", 1234.5)
    assert (one.resource_id, one.project_id) == ("i-1", "blue")
    assert one.resource_metadata == {"zone": "package", "node_name": "hv1"}
    assert (two.resource_id, two.project_id, two.volume) == ("i-2", None, 7)
    assert isinstance(two.volume, int)


async def runs(exporter: Exporter, counter: ExpositionPollster) -> dict[str, str | None]:
    return {
        each.resource_id: run_of(each.type, each.resource_metadata).name for each in await exporter.samples(counter)
    }


@pytest_twisted.ensureDeferred
async def test_run_is_known_where_the_exporter_says_when_a_series_was_created() -> None:
    text = 'x_total{id="a"} 5\nx_created{id="a"} 100.5\nx_total{id="b"} 5\nprocess_start_time_seconds 50\n'
    counter = pollster(metric="x_total", resource="id")
    assert await runs(Exporter(text), counter) == {"a": "hv1.example:28282/100.5", "b": None}
    anew = text.replace("100.5", "200.5")
    assert await runs(Exporter(anew), counter) == {"a": "hv1.example:28282/200.5", "b": None}


@pytest_twisted.ensureDeferred
async def test_counters_that_begin_anew_with_their_exporter_have_its_start_as_run() -> None:
    text = 'x_total{id="a"} 5\nprocess_start_time_seconds 1.76423760012e+09\n'
    counter = pollster(metric="x_total", resource="id", reset_with_exporter=True)
    assert await runs(Exporter(text), counter) == {"a": "hv1.example:28282/1764237600.12"}
    assert await runs(Exporter('x_total{id="a"} 5\n'), counter) == {"a": None}


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, 'x_total{{id="a"}} {0}\nx_created{{id="a"}} {1}\n'),
        ({"reset_with_exporter": True}, 'x_total{{id="a"}} {0}\nprocess_start_time_seconds {1}\n'),
        (
            {"reset_with_exporter": True, "sum": True},
            'x_total{{id="a",cpu="0"}} {0}\nx_total{{id="a",cpu="1"}} 0\nprocess_start_time_seconds {1}\n',
        ),
    ],
    ids=["created", "with its exporter", "sum"],
)
@pytest_twisted.ensureDeferred
async def test_counter_that_began_again_between_two_polls_counts_from_zero(fields: dict[str, Any], text: str) -> None:
    exporter = Exporter("")
    values = [(1000, 20), (1005, 20), (3, 130), (4, 130), (9, 60)]
    exporter.stub.on("GET", "/metrics", *(JsonResponse(200, text.format(*each).encode()) for each in values))
    counter = pollster(metric="x_total", resource="id", **fields)
    found: list[Sample] = []
    for _ in values:
        exporter.clock.advance(60)
        found += await exporter.samples(counter)
    # The last one counts since another time, which is before the last poll: what it counted until that poll is unknown.
    assert [(each.volume, each.timestamp.timestamp()) for each in found] == [
        *[(1000, 60), (1005, 120), (0, 130), (3, 180), (4, 240), (9, 300)]
    ]
    assert len({run_of(each.type, each.resource_metadata) for each in found[2:5]}) == 1
    store = MemoryStore()
    await store.write([received(each, KEYS, "test") for each in found])
    query = StatisticsQuery(filter=SampleFilter(equals={"meter": "ups.load"}), aggregates=(Aggregate("increase"),))
    assert [row.values["increase"] for row in await store.statistics(query)] == [9]


@pytest_twisted.ensureDeferred
async def test_series_created_between_two_polls_counts_from_zero() -> None:
    exporter = Exporter("")
    texts = ['x_total{id="a"} 5\n', 'x_total{id="a"} 6\nx_total{id="b"} 7\nx_created{id="b"} 100\n']
    exporter.stub.on("GET", "/metrics", *(JsonResponse(200, each.encode()) for each in texts))
    counter = pollster(metric="x_total", resource="id")
    exporter.clock.advance(60)
    await exporter.samples(counter)
    exporter.clock.advance(60)
    found = [(each.resource_id, each.volume, each.timestamp.timestamp()) for each in await exporter.samples(counter)]
    assert found == [("a", 6, 120), ("b", 0, 100), ("b", 7, 120)]
    # The agent does not know how long another one has polled it.
    assert len(await Exporter(texts[1]).samples(counter)) == 2


@pytest_twisted.ensureDeferred
async def test_gauge_of_an_exporter_that_was_restarted_is_not_opened_with_zero() -> None:
    exporter = Exporter("")
    texts = ['x{id="a"} 5\n', 'x{id="a"} 6\nx{id="b"} 7\nprocess_start_time_seconds 100\n']
    exporter.stub.on("GET", "/metrics", *(JsonResponse(200, each.encode()) for each in texts))
    gauge = pollster(metric="x", resource="id", type="gauge", reset_with_exporter=True)
    found: list[int | float] = []
    for _ in texts:
        exporter.clock.advance(60)
        found += [each.volume for each in await exporter.samples(gauge)]
    assert found == [5, 6, 7]


@pytest_twisted.ensureDeferred
async def test_run_that_began_after_the_last_poll_by_a_clock_that_is_ahead_begins_once() -> None:
    exporter = Exporter("")
    texts = [f'x_total{{id="a"}} {value}\nx_created{{id="a"}} 110\n' for value in (40, 45, 47)]
    exporter.stub.on("GET", "/metrics", *(JsonResponse(200, each.encode()) for each in texts))
    counter = pollster(metric="x_total", resource="id")
    found: list[int | float] = []
    for _ in texts:
        exporter.clock.advance(60)
        found += [each.volume for each in await exporter.samples(counter)]
    assert found == [40, 45, 47]


@pytest_twisted.ensureDeferred
async def test_sum_has_another_run_after_one_of_its_counters_was_reset() -> None:
    def text(first: int, second: int) -> JsonResponse:
        return JsonResponse(200, f'x_total{{id="a",cpu="0"}} {first}\nx_total{{id="a",cpu="1"}} {second}\n'.encode())

    exporter = Exporter("")
    exporter.stub.on("GET", "/metrics", text(5, 100), text(6, 110), text(7, 0), text(200, 5), text(201, 6))
    added = pollster(metric="x_total", resource="id", sum=True)
    found = []
    for _ in range(5):
        exporter.clock.advance(60)
        found.append(await runs(exporter, added))
    one, two, three, four, five = found
    assert one == two
    assert two != three == four == five
    restarted = Exporter('x_total{id="a",cpu="0"} 202\nx_total{id="a",cpu="1"} 7\n')
    restarted.clock.advance(600)
    assert await runs(restarted, added) not in (one, three)


@pytest_twisted.ensureDeferred
async def test_several_series_of_a_resource_are_refused_unless_they_are_to_be_added() -> None:
    text = 'x_total{id="a",cpu="0"} 5\nx_total{id="a",cpu="1"} 2.5\nx_total{id="b",cpu="0"} 1\nprocess_start_time_seconds 50\n'
    exporter = Exporter(text)
    samples = await exporter.samples(pollster(metric="x_total", resource="id"))
    assert [each.resource_id for each in samples] == ["b"]
    assert exporter.skipped == {"several-series": 1}
    added = {
        each.resource_id: each
        for each in await Exporter(text).samples(pollster(metric="x_total", resource="id", sum=True))
    }
    assert {name: each.volume for name, each in added.items()} == {"a": 7.5, "b": 1}
    # One more CPU makes the sum grow by what was counted before: it is another counter.
    more = text + 'x_total{id="a",cpu="2"} 100\n'
    [grown] = [
        each
        for each in await Exporter(more).samples(pollster(metric="x_total", resource="id", sum=True))
        if each.resource_id == "a"
    ]
    assert run_of("cumulative", grown.resource_metadata) != run_of("cumulative", added["a"].resource_metadata)


@pytest_twisted.ensureDeferred
async def test_series_of_several_owners_are_not_added() -> None:
    exporter = Exporter('load{ups="a",owner="blue",n="1"} 1\nload{ups="a",owner="red",n="2"} 2\n')
    assert await exporter.samples(pollster(sum=True, project="owner")) == []
    assert exporter.skipped == {"several-owners": 1}


@pytest_twisted.ensureDeferred
async def test_two_metrics_do_not_make_one_sample_twice() -> None:
    both = [{"metric": name, "meter": "ups.load", "unit": "%", "resource": "ups"} for name in ("load", "load_again")]
    exporter = Exporter('load{ups="a"} 1\nload_again{ups="a"} 2\nload_again{ups="b"} 3\n')
    samples = await exporter.samples(pollster(meters=both))
    assert [(each.resource_id, each.volume) for each in samples] == [("a", 1), ("b", 3)]
    assert exporter.skipped == {"several-series": 1}


@pytest.mark.parametrize(
    ("fields", "text", "type"),
    [
        ({}, "", "gauge"),
        ({}, "# TYPE load gauge\n", "gauge"),
        ({}, "# TYPE load counter\n", None),
        ({"type": "cumulative"}, "# TYPE load counter\n", "cumulative"),
        ({"type": "cumulative"}, "", "cumulative"),
        ({"type": "gauge"}, "# TYPE load counter\n", "gauge"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_type_is_that_of_the_exposition(fields: dict[str, Any], text: str, type: str | None) -> None:
    exporter = Exporter(text + 'load{ups="a"} 1\n')
    samples = await exporter.samples(pollster(**fields))
    assert [each.type for each in samples] == ([] if type is None else [type])
    assert exporter.skipped == ({"other-type": 1} if type is None else {})


@pytest_twisted.ensureDeferred
async def test_parts_of_histograms_and_summaries_are_metrics() -> None:
    text = (
        "# TYPE wait histogram\n"
        'wait_bucket{ups="a",le="1"} 3\nwait_count{ups="a"} 4\nwait_sum{ups="a"} 4.5\n'
        '# TYPE quantiles summary\nquantiles{ups="a",quantile="0.5"} 2\n'
    )
    [count] = await Exporter(text).samples(pollster(metric="wait_count"))
    assert (count.type, count.volume) == ("cumulative", 4)
    [half] = await Exporter(text).samples(pollster(metric="quantiles", where={"quantile": "0.5"}))
    assert (half.type, half.volume) == ("gauge", 2)


@pytest_twisted.ensureDeferred
async def test_values_that_are_no_volumes_and_series_without_resource_are_skipped_alone() -> None:
    exporter = Exporter(
        'load{ups="a"} NaN\nload{ups="b"} +Inf\nload{ups="c"} 1e300\nload 5\nload{ups=""} 6\nload{ups="d"} 7\n'
    )
    assert [each.resource_id for each in await exporter.samples(pollster())] == ["d"]
    assert exporter.skipped == {"bad-volume": 2, "bad-sample": 1, "no-id": 2}


@pytest_twisted.ensureDeferred
async def test_resource_can_be_a_text_of_labels_and_the_instance() -> None:
    text = 'load{node="n1",gpu="0"} 1\n'
    [sample] = await Exporter(text).samples(pollster(resource="{node}/gpu-{gpu}", metadata={"host": "instance"}))
    assert (sample.resource_id, sample.resource_metadata) == ("n1/gpu-0", {"host": "hv1.example:28282"})
    [own] = await Exporter('load{instance="other"} 1\n').samples(pollster(resource="instance"))
    assert own.resource_id == "other"


@pytest_twisted.ensureDeferred
async def test_time_of_a_series_is_that_of_the_exporter_if_it_states_one() -> None:
    text = 'load{ups="a"} 1 1764237600500\nload{ups="b"} 1\n'
    one, two = await Exporter(text).samples(pollster())
    assert one.timestamp == datetime(2025, 11, 27, 10, 0, 0, 500_000, tzinfo=UTC)
    assert two.timestamp == datetime.fromtimestamp(0, UTC)  # the clock's
    one, _ = await Exporter(text).samples(pollster(use_timestamps=False))
    assert one.timestamp == datetime.fromtimestamp(0, UTC)


@pytest_twisted.ensureDeferred
async def test_openmetrics_with_exemplars_and_times_in_seconds_is_read() -> None:
    text = (
        "# TYPE incus_cpu_seconds counter\n# UNIT incus_cpu_seconds seconds\n"
        'incus_cpu_seconds_total{name="c #1",project="default"} 12.5 1764237600.5 # {trace_id="x"} 0.67\n'
        "# EOF\n"
    )
    openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8"
    counter = pollster(metric="incus_cpu_seconds_total", resource="{project}/{name}", factor=1e9)
    [sample] = await Exporter(text, openmetrics).samples(counter)
    assert (sample.resource_id, sample.volume, sample.type) == ("default/c #1", 12_500_000_000, "cumulative")
    assert sample.timestamp == datetime(2025, 11, 27, 10, 0, 0, 500_000, tzinfo=UTC)
    with pytest.raises(BadResponse, match="cut off"):
        await Exporter(text.replace("# EOF", ""), openmetrics).samples(counter)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>not here</html>", "no exposition"),
        (b'{"load": 1}', "no exposition"),
        (b'load{ups="a} 1\n', "cannot be read"),
        (b'load{ups="a"} many\n', "cannot be read"),
        (b'load{ups="a"} 1 99999999999999999999\n', "cannot be read"),
        (b'load{ups="\xff"} 1\n', "UTF-8"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_is_no_exposition_is_a_bad_response(body: bytes, message: str) -> None:
    with pytest.raises(BadResponse, match=message):
        await Exporter(body).samples(pollster())


@pytest_twisted.ensureDeferred
async def test_label_values_are_unescaped_and_may_have_any_characters() -> None:
    text = 'load{ups="a\\"b\\\\n,}= 名"} 1\n'
    assert [each.resource_id for each in await Exporter(text).samples(pollster())] == ['a"b\\n,}= 名']


def test_many_series_are_parsed_in_slices() -> None:
    exporter = Exporter("".join(f'load{{ups="{n}"}} {n}\n' for n in range(3 * LINES_AT_ONCE)))
    result: list[Any] = []
    Deferred.fromCoroutine(exporter.samples(pollster())).addCallback(result.append)
    pauses = 0
    while not result:
        [pause] = exporter.clock.getDelayedCalls()
        exporter.clock.calls.remove(pause)
        pause.func(*pause.args, **pause.kw)
        pauses += 1
    assert pauses == 3
    assert len(result[0]) == 3 * LINES_AT_ONCE


@pytest_twisted.ensureDeferred
async def test_secret_that_cannot_be_read_and_a_daemon_without_client() -> None:
    with pytest.raises(Unavailable, match="its secret cannot be read"):
        await Exporter("").samples(pollster(token_file="/does/not/exist"))
    assert await pollster().enabled(FakePluginContext()) == Disabled("this daemon has no HTTP client")
    assert await pollster().enabled(Exporter("").cycle) == Enabled()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"urls": []}, "urls"),
        ({"urls": ["ftp://x"]}, "http:// or https://"),
        ({"urls": [URL, URL]}, "twice"),
        ({"type": "delta"}, "no deltas"),
        ({"resource": ""}, "should be a label"),
        ({"resource": "{node"}, "brace"),
        ({"resource": "a-b"}, "not the name of a label"),
        ({"where": {"a b": "c"}}, "not the name of a label"),
        ({"metadata": ["a b"]}, "not the name of a label"),
        ({"factor": 0}, "greater than 0"),
        ({"metric": "a b"}, "pattern"),
        ({"colour": 1}, "Extra inputs"),
    ],
)
def test_invalid_definition_is_an_error_that_says_what_would_be_right(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        definition(**fields)


def test_one_meter_has_one_type_and_unit() -> None:
    meters = [
        {"metric": "a_total", "meter": "m", "unit": "J", "resource": "id"},
        {"metric": "b", "meter": "m", "unit": "J", "resource": "id"},
    ]
    with pytest.raises(ValueError, match="the meter m is cumulative in J and gauge in J"):
        definition(meters=meters)


def test_errors_of_a_file_name_the_table_and_the_field(tmp_path: Path) -> None:
    _, problems = loaded(tmp_path, FILE.replace("where", "were"))
    [problem] = problems
    assert problem.startswith(
        f"{tmp_path / 'own.toml'}:10: exposition 1 (kepler): meters.1.were: unknown field; known are metric, "
    )
    _, [both] = loaded(tmp_path, FILE.replace("urls =", 'url = "http://x"\nurls ='))
    assert both.endswith("needs either url or urls, not both")
    found, twice = loaded(tmp_path, FILE + FILE.replace("energy", "power"))
    assert len(found) == len(twice) == 2
    assert all("is already used" in each for each in twice)


def test_every_field_is_documented() -> None:
    text = (ROOT / "docs/exposition-pollsters.rst").read_text()
    tables = [part for part in text.split("Field                 Meaning\n")[1:]]
    for table, model in zip(tables, (ExpositionDefinition, MetricDefinition), strict=True):
        rows = table.split("====\n")[1].splitlines()
        named = {name for row in rows if row and row[0] != " " for name in re.findall(r"\w+", row[:22])}
        named |= {name for row in rows for name in re.findall(r"``(\w+_file)``", row)}
        assert named - {"url"} == set(model.model_fields)


def test_examples_are_valid(tmp_path: Path) -> None:
    found, problems = loaded(tmp_path, (ROOT / "etc/pollsters.d/exporters.toml.off").read_text())
    assert problems == []
    assert {name.partition(":")[0] for name in found} == {"kepler", "incus", "dcgm", "kubevirt", "proxmox"}
