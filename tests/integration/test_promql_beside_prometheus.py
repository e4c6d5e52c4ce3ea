"""Answers of Meter and of Debian's Prometheus to the same expressions over the same samples of gauges.

No sample lies on an edge of a window, because the edges differ: Meter's windows are ``start <= timestamp < end``.
"""

from __future__ import annotations

import json
import math
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import ensureDeferred

from meter.api.prometheus.evaluation import evaluate_instant
from meter.api.prometheus.evaluation import evaluate_range
from meter.api.prometheus.results import Matrix
from meter.api.prometheus.results import PromqlError
from meter.api.prometheus.results import ScalarPoint
from meter.api.prometheus.results import Vector
from meter.api.prometheus.source import PromqlSource
from meter.testing import MemoryStore
from tests.ports import free_port
from tests.promql import source_of
from tests.servers.prometheus import prometheus
from tests.servers.prometheus import run_promtool
from tests.store_messages import NOON
from tests.store_messages import message

START_SECONDS = 60
BASE = NOON.timestamp()
HOUR = 3600

METADATA_LABELS = {"resource_name": "display_name", "flavor_name": "flavor.name"}


def gauges() -> Iterator[tuple[str, dict[str, str], float, float]]:
    """Yield samples: meter, labels, seconds after noon, volume. One resource is away for an hour, one ends early."""
    for number, (resource, project, flavor) in enumerate(
        [("r1", "p1", "small"), ("r2", "p1", "large"), ("r3", "p2", "small"), ("r4", "p2", "")]
    ):
        labels = {"resource": resource, "project": project, "user": "u1", "unit": "MB", "resource_name": f"vm {number}"}
        if flavor:
            labels["flavor_name"] = flavor
        for poll in range(48):
            at = poll * 300 + 7 + number
            if (resource == "r2" and 12 <= poll < 24) or (resource == "r3" and poll > 30):
                continue
            yield "memory", labels, at, 1024.0 * (number + 1)
            yield "memory.usage", labels, at + 1, ((poll * 37 + number * 101) % 89) * (number + 0.5) - 20
            if resource != "r4":
                yield "vcpus", labels | {"unit": "vcpu"}, at + 2, float(number % 2 + poll // 20)


EXPRESSIONS = """
42
-3.5e2
1 + 2 * 3 ^ 2 % 5
10 / 0 - 3 > bool 1
-10 / 0
0 / 0
7 % -3
2 ^ -1
(1 == bool 2) + (3 <= bool 3)
1 atan2 2
time()
time() - 5
vector(7)
scalar(vector(8)) + 1
ceilometer_memory
ceilometer_memory_usage
{__name__="ceilometer_memory"}
{__name__=~"ceilometer_(memory|vcpus)", project="p1"}
ceilometer_memory{project!="p1"}
ceilometer_memory{resource=~"r[12]"}
ceilometer_memory{resource!~"r1|r2"}
ceilometer_memory{resource=~"r"}
ceilometer_memory{flavor_name=""}
ceilometer_memory{flavor_name!=""}
ceilometer_memory{flavor_name=~"sma.*|"}
ceilometer_memory{nothing=""}
ceilometer_memory{nothing="x"}
ceilometer_memory{resource_name="vm 2"}
ceilometer_nothing
ceilometer_memory_usage offset 30m
ceilometer_memory_usage offset -30m
ceilometer_memory_usage @ 1795010000
ceilometer_memory_usage @ 1795010000 offset 1h
ceilometer_memory_usage @ start()
ceilometer_memory_usage @ end()
sum(ceilometer_memory)
sum by (project) (ceilometer_memory_usage)
sum without (resource, resource_name, flavor_name) (ceilometer_memory_usage)
avg by (project, flavor_name) (ceilometer_memory_usage)
min(ceilometer_memory_usage)
max by (nothing) (ceilometer_memory_usage)
count by (project) (ceilometer_memory_usage > 0)
group by (project) (ceilometer_memory_usage)
stddev(ceilometer_memory_usage)
stdvar by (project) (ceilometer_memory_usage)
topk(2, ceilometer_memory_usage)
bottomk(1, ceilometer_memory_usage)
topk by (project) (1, ceilometer_memory_usage)
topk(0, ceilometer_memory_usage)
quantile(0.5, ceilometer_memory_usage)
quantile by (project) (0.9, ceilometer_memory_usage)
quantile(1.5, ceilometer_memory_usage)
quantile(-1, ceilometer_memory_usage)
avg_over_time(ceilometer_memory_usage[30m])
min_over_time(ceilometer_memory_usage[1h])
max_over_time(ceilometer_memory_usage[1h])
sum_over_time(ceilometer_memory_usage[20m])
count_over_time(ceilometer_memory_usage[1h])
last_over_time(ceilometer_memory_usage[1h])
present_over_time(ceilometer_memory_usage[1h])
stddev_over_time(ceilometer_memory_usage[1h])
stdvar_over_time(ceilometer_memory_usage[2h])
quantile_over_time(0.9, ceilometer_memory_usage[10m])
quantile_over_time(0.25, ceilometer_memory_usage[1h])
quantile_over_time(2, ceilometer_memory_usage[1h])
max_over_time(ceilometer_memory_usage[1h] offset 1h)
max_over_time(ceilometer_memory_usage[1h] @ 1795010000)
sum by (project) (avg_over_time(ceilometer_memory_usage[30m]))
absent(ceilometer_memory)
absent(ceilometer_nothing{project="p", resource=~"x", user="u", user="v"})
absent(ceilometer_nothing{resource!="r2", resource="r1"})
absent(ceilometer_memory{resource="r2"})
absent(sum(ceilometer_nothing{project="p"}))
absent_over_time(ceilometer_memory{resource="r2"}[10m])
absent_over_time(ceilometer_nothing{project="p"}[10m])
ceilometer_memory / 1024
1024 / ceilometer_memory_usage
ceilometer_memory_usage % 7
ceilometer_memory_usage ^ 2
ceilometer_memory_usage ^ 0.5
-ceilometer_memory_usage
ceilometer_memory_usage > 10
10 > ceilometer_memory_usage
ceilometer_memory_usage > bool 10
ceilometer_memory_usage == 10
ceilometer_memory_usage != -20
ceilometer_memory_usage / ceilometer_memory
ceilometer_memory_usage < ceilometer_memory
ceilometer_memory_usage * 100 > bool ceilometer_memory
ceilometer_memory / on (resource) ceilometer_vcpus
ceilometer_memory / ignoring (unit) ceilometer_vcpus
ceilometer_memory > on (resource) ceilometer_vcpus
ceilometer_memory / ceilometer_vcpus
ceilometer_memory / on (project) group_left sum by (project) (ceilometer_memory)
sum by (project) (ceilometer_memory) / on (project) group_right ceilometer_memory
ceilometer_vcpus * on (resource) group_left (flavor_name, project) ceilometer_memory
ceilometer_memory and on (resource) ceilometer_vcpus
ceilometer_memory and on () vector(1)
ceilometer_memory unless on (resource) ceilometer_vcpus
ceilometer_vcpus or on (resource) ceilometer_memory
ceilometer_memory{project="p1"} or ceilometer_memory
ceilometer_memory_usage > 20 or ceilometer_memory_usage < 0
ceilometer_memory / on (project) ceilometer_memory
ceilometer_nothing / on (project) ceilometer_memory
ceilometer_memory / on (project) (ceilometer_memory_usage > 1e6)
(ceilometer_memory_usage{resource="r2"} > 0) < on () ceilometer_memory
ceilometer_memory > bool on () group_right ceilometer_nothing
sum by (project) (ceilometer_memory) / on (project) ceilometer_memory
ceilometer_memory + on (project) group_left ceilometer_memory
scalar(ceilometer_memory)
scalar(ceilometer_memory{resource="r1"}) / 2
abs(ceilometer_memory_usage)
ceil(ceilometer_memory_usage / 3)
floor(ceilometer_memory_usage / 3)
round(ceilometer_memory_usage / 3)
round(ceilometer_memory_usage, 10)
round(ceilometer_memory_usage, Inf)
sgn(ceilometer_memory_usage)
sqrt(ceilometer_memory_usage)
exp(ceilometer_memory_usage)
ln(ceilometer_memory_usage)
log2(ceilometer_memory)
log10(ceilometer_memory)
clamp(ceilometer_memory_usage, 0, 50)
clamp(ceilometer_memory_usage, 50, 0)
clamp_min(ceilometer_memory_usage, 0)
clamp_max(ceilometer_memory_usage, 0)
timestamp(ceilometer_memory)
timestamp(ceilometer_memory + 1)
timestamp(ceilometer_memory offset 10m)
sort(ceilometer_memory_usage)
sort_desc(ceilometer_memory_usage)
label_replace(ceilometer_memory, "number", "$1", "resource", "r(.)")
label_replace(ceilometer_memory, "both", "${1}x$2-$$", "resource_name", "(v)(m).*")
label_replace(ceilometer_memory, "user", "", "resource", ".*")
label_replace(ceilometer_memory, "x", "y", "resource", "1")
label_replace(ceilometer_memory, "resource", "same", "resource", ".*")
label_replace(ceilometer_memory, "1x", "y", "resource", ".*")
sum(ceilometer_memory) without (nothing) > 1
ceilometer_memory{
sum(
rate(ceilometer_memory)
{nothing=~".*"}
1 == 2
no_function(ceilometer_memory)
topk(ceilometer_memory, ceilometer_memory)
""".strip().splitlines()


class PrometheusServer:
    """A Prometheus over blocks of samples."""

    def __init__(self, directory: Path) -> None:
        address = f"127.0.0.1:{free_port()}"
        (directory / "prometheus.yml").write_text("scrape_configs: []\n")
        self._url = f"http://{address}"
        with (directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    prometheus(),
                    f"--config.file={directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={directory / 'data'}",
                    "--storage.tsdb.retention.time=100y",
                    f"--web.listen-address={address}",
                    "--query.lookback-delta=15m",
                ],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"{self._url}/-/ready", timeout=5):
                    return
            except OSError as error:
                if isinstance(error, urllib.error.HTTPError):  # it is a response, with a socket of its own
                    error.close()
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.1)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)

    def answer(self, path: str, **parameters: Any) -> Any:
        """Return the ``data`` of an answer, ``None`` for an error."""
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self._url}/api/v1/{path}?{query}", timeout=30) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            assert json.load(error)["status"] == "error"
            return None


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    directory = tmp_path_factory.mktemp("prometheus")
    lines = []
    for meter, labels, at, volume in gauges():
        inner = ",".join(f'{name}="{value}"' for name, value in labels.items())
        lines.append((meter, f"ceilometer_{meter.replace('.', '_')}{{{inner}}} {volume!r} {BASE + at}"))
    lines.sort(key=lambda each: each[0])
    (directory / "samples.txt").write_text("\n".join([*(line for _, line in lines), "# EOF", ""]))
    run_promtool("tsdb", "create-blocks-from", "openmetrics", "samples.txt", "data", cwd=directory)
    server = PrometheusServer(directory)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def source() -> PromqlSource:
    store = MemoryStore()
    messages = [
        message(
            meter,
            volume,
            at=at,
            unit=labels["unit"],
            resource_id=labels["resource"],
            project_id=labels["project"],
            user_id=labels["user"],
            metadata={
                "display_name": labels["resource_name"],
                **({"flavor": {"name": labels["flavor_name"]}} if "flavor_name" in labels else {}),
            },
        )
        for meter, labels, at, volume in gauges()
    ]
    pytest_twisted.blockon(ensureDeferred(store.write(messages)))
    return source_of(store, metadata_labels=METADATA_LABELS)


def number(text: str) -> float:
    return float(text.replace("Inf", "inf"))


def theirs(data: Any) -> Any:
    """Return an answer of Prometheus, comparable with :func:`ours`."""
    if data is None:
        return "error"
    result = data["result"]
    if data["resultType"] == "scalar":
        return number(result[1])
    return {
        tuple(sorted(each["metric"].items())): {
            at: number(value) for at, value in (each["values"] if "values" in each else [each["value"]])
        }
        for each in result
    }


def ours(result: Any) -> Any:
    match result:
        case ScalarPoint(point):
            return point.value
        case Vector(samples):
            assert len({each.labels for each in samples}) == len(samples)
            return {each.labels: {each.point.time: each.point.value} for each in samples}
        case Matrix(series):
            return {each.labels: {point.time: point.value for point in each.points} for each in series}
    raise AssertionError(result)


def equal(one: Any, two: Any) -> bool:
    if isinstance(one, dict) and isinstance(two, dict):
        return list(sorted(one)) == list(sorted(two)) and all(equal(one[key], two[key]) for key in one)
    if isinstance(one, float) and isinstance(two, float):
        return (math.isnan(one) and math.isnan(two)) or one == pytest.approx(two, rel=1e-9, abs=1e-9)
    return bool(one == two)


@pytest.mark.parametrize("expression", EXPRESSIONS)
@pytest_twisted.ensureDeferred
async def test_expression_has_the_value_that_prometheus_computes(
    peer: PrometheusServer, source: PromqlSource, expression: str
) -> None:
    for at in (BASE + HOUR, BASE + 1.5 * HOUR + 30, BASE + 3 * HOUR, BASE + 9 * HOUR):
        try:
            answer = ours((await evaluate_instant(expression, at, source)).result)
        except PromqlError:
            answer = "error"
        expected = theirs(peer.answer("query", query=expression, time=at))
        assert equal(answer, expected), (at - BASE, answer, expected)
        if expression.startswith(("sort", "topk(2")):
            assert list(answer) == list(expected)
    for step, first in ((600, 0), (HOUR, 0), (420, 90)):
        start, end = BASE + first, BASE + 4 * HOUR
        try:
            answer = ours((await evaluate_range(expression, start, end, step, source)).result)
        except PromqlError:
            answer = "error"
        expected = theirs(peer.answer("query_range", query=expression, start=start, end=end, step=step))
        assert equal(answer, expected), (step, answer, expected)
