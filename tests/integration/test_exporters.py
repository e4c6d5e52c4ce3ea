"""A definition file makes samples of what a real exporter exposes: Prometheus itself."""

from __future__ import annotations

from math import inf
from pathlib import Path

import pytest_twisted
from twisted.internet import reactor

from meter.counter_runs import run_of
from meter.declarative.pollster_files import load_user_pollsters
from meter.http import IHttpClient
from meter.http import LimitedHttpClient
from meter.http import ServiceLimits
from meter.http.factory import create_client
from meter.http.tls import TlsOptions
from meter.interfaces import ISkippedSamples
from meter.sample import Sample
from meter.testing import FakeCycle
from tests.integration.test_prometheus_clients import RunningPrometheus
from tests.ports import free_port
from tests.unit.pollsters.openstack.test_pollster import SkippedSamples

DEFINITION = """
[[exposition]]
name = "prometheus"
url = "{url}/metrics"

[[exposition.meters]]
metric = "process_cpu_seconds_total"
meter = "prometheus.cpu"
unit = "ns"
factor = 1e9
resource = "instance"
reset_with_exporter = true

[[exposition.meters]]
metric = "go_goroutines"
meter = "prometheus.goroutines"
unit = "goroutine"
resource = "instance"

[[exposition.meters]]
metric = "prometheus_http_requests_total"
meter = "prometheus.requests"
unit = "request"
resource = "{{handler}}/{{code}}"

[[exposition.meters]]
metric = "prometheus_build_info"
meter = "prometheus"
unit = "server"
resource = "instance"
metadata = ["version"]

[[exposition.meters]]
metric = "go_gc_duration_seconds"
meter = "prometheus.pauses"
unit = "s"
resource = "instance"
"""


@pytest_twisted.ensureDeferred
async def test_metrics_of_a_real_exporter_become_samples(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    (tmp_path / "prometheus.yml").write_text("{}")
    (tmp_path / "own").mkdir()
    (tmp_path / "own/own.toml").write_text(DEFINITION.format(url=url))
    [decision], problems = load_user_pollsters(str(tmp_path / "own"))
    assert problems == []
    web = LimitedHttpClient(
        create_client(reactor, TlsOptions()), reactor, limits=ServiceLimits(requests_per_second=inf)
    )
    cycle = FakeCycle({IHttpClient: web, ISkippedSamples: SkippedSamples()}, clock=reactor)
    server = RunningPrometheus(tmp_path, url)
    try:
        await server.until_ready()
        samples: list[Sample] = list(await decision.plugin.poll(cycle))
    finally:
        await server.stop()
    found = {each.name: each for each in samples}
    assert {name: each.type for name, each in found.items()} == {
        "prometheus.cpu": "cumulative",
        "prometheus.goroutines": "gauge",
        "prometheus.requests": "cumulative",
        "prometheus": "gauge",
    }
    assert found["prometheus.cpu"].volume > 10**7
    assert run_of("cumulative", found["prometheus.cpu"].resource_metadata).name
    assert found["prometheus.goroutines"].volume > 5
    assert found["prometheus.requests"].resource_id.startswith("/")
    assert found["prometheus"].resource_metadata["version"]
    counted = cycle.provider(ISkippedSamples).counted
    assert {reason: count for (_, reason), count in counted.items()} == {"several-series": 1}  # one for each quantile
