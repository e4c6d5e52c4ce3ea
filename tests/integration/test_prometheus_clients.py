"""Clients of Prometheus and of Aetos ask Meter over a loopback port, and get what the v2 API answers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request
from urllib.request import urlopen

import pytest
import pytest_twisted
import yaml
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue

from meter.api import Api
from meter.api import IAuth
from meter.api import NoAuth
from meter.api import make_site
from meter.daemon.services import sleep
from tests.metered_cloud import CPU_SECONDS
from tests.metered_cloud import END
from tests.metered_cloud import INTERVAL
from tests.metered_cloud import POLLS
from tests.metered_cloud import START
from tests.metered_cloud import metered_cloud
from tests.ports import free_port
from tests.servers import cloudkitty
from tests.servers.prometheus import prometheus
from tests.servers.prometheus import promtool
from tests.unit.api.auth.test_visibility import TOKENS

HOUR = END - timedelta(hours=1)
CORE_HOUR_NS = 3600 * 10**9


class ServedCloud:
    """The cloud behind one URL."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def increase_by_resource(self, who: str = "") -> dict[str, float]:
        """Return what the v2 API says of the CPU time of the last hour before the last poll, from the poll before it."""
        query = [pair for op, time in {"ge": START, "lt": END}.items() for pair in term(op, time)]
        path = "/v2/meters/cpu/statistics?" + urlencode(
            [("aggregate.func", "increase"), ("groupby", "resource_id"), ("period", 3600), *query]
        )
        rows = json.loads(await deferToThread(fetch, self.url + path, who))
        return {
            row["groupby"]["resource_id"]: row["aggregate"]["increase"]
            for row in rows
            if row["period_start"] == f"{HOUR:%Y-%m-%dT%H:%M:%S}"
        }


def term(op: str, time: datetime) -> list[tuple[str, str]]:
    return [("q.field", "timestamp"), ("q.op", op), ("q.value", time.strftime("%Y-%m-%dT%H:%M:%S"))]


def fetch(url: str, who: str = "") -> bytes:
    headers = {"X-Auth-Token": f"{who}-token"} if who else {}
    try:
        with urlopen(Request(url, headers=headers), timeout=20) as response:
            content: bytes = response.read()
    except HTTPError as refused:  # it is a response, with a socket of its own
        refused.close()
        raise
    return content


async def serve(auth: IAuth, start: datetime = START) -> AsyncIterator[ServedCloud]:
    store, clock = metered_cloud(start)
    served: Any = make_site(Api(store, clock, auth=auth), reactor)  # type: ignore[arg-type]
    port = reactor.listenTCP(0, served, interface="127.0.0.1")
    yield ServedCloud(f"http://127.0.0.1:{port.getHost().port}")
    await port.stopListening()


@pytest_twisted.async_yield_fixture
async def cloud() -> AsyncIterator[ServedCloud]:
    """The cloud with a token per project."""
    async for each in serve(TOKENS):
        yield each


@pytest_twisted.async_yield_fixture
async def open_cloud() -> AsyncIterator[ServedCloud]:
    """The cloud without authentication, for clients that have none."""
    async for each in serve(NoAuth()):
        yield each


# --- python-observabilityclient ------------------------------------------------------------------------------------


def observe(url: str, who: str) -> dict[str, Any]:
    """Ask as an OpenStack service does, whose session finds Meter in the catalogue as ``metric-storage``."""
    import requests
    from keystoneauth1.session import Session
    from keystoneauth1.token_endpoint import Token
    from observabilityclient.v1.client import Client

    with requests.Session() as connections:
        return questions(Client(Session(auth=Token(url, f"{who}-token"), session=connections)))


def questions(client: Any) -> dict[str, Any]:
    times = f"@ {END.timestamp():.0f}"
    prom = client.prometheus_client
    return {
        "list": client.query.list(),
        "shown": [(each.labels["resource"], each.value) for each in client.query.show("ceilometer_vcpus")],
        "increase": {
            each.labels["resource"]: float(each.value)
            for each in client.query.query(f"sum by (resource) (increase(ceilometer_cpu[1h] {times}))")
        },
        "series": prom.series(["ceilometer_vcpus"]),
        "labels": prom.labels(),
        "projects": prom.label_values("project"),
    }


@pytest.mark.filterwarnings(
    "ignore:The osc_lib.version module:DeprecationWarning"
)  # osc-lib 4 says so of its own import
@pytest.mark.parametrize(("who", "projects"), [("admin", ["blue", "red"]), ("blue", ["blue"])])
@pytest_twisted.ensureDeferred
async def test_observabilityclient_gets_what_its_project_may_see(
    cloud: ServedCloud, who: str, projects: list[str]
) -> None:
    found = await deferToThread(observe, cloud.url, who)
    assert "ceilometer_cpu" in found["list"]
    assert found["increase"] == await cloud.increase_by_resource(who)
    assert found["increase"]
    assert found["projects"] == projects
    assert {each["project"] for each in found["series"]} == set(projects)
    assert {name for name, _ in found["shown"]} == {each["resource"] for each in found["series"]}
    assert "resource" in found["labels"]


@pytest_twisted.ensureDeferred
async def test_observabilityclient_with_a_prefix_in_the_url_and_an_error(cloud: ServedCloud) -> None:
    def ask() -> str:
        from observabilityclient.prometheus_client import PrometheusAPIClient
        from observabilityclient.prometheus_client import PrometheusAPIClientError

        client = PrometheusAPIClient(cloud.url.removeprefix("http://"))
        client.set_basic_auth("any", "blue-token")
        assert client.query("count(ceilometer_instance)")[0].value == "2"
        try:
            client.query("predict_linear(ceilometer_cpu[1h], 60)")
        except PrometheusAPIClientError as error:
            return str(error)
        return ""

    text = await deferToThread(ask)
    assert text.startswith("[400] ")
    assert "predict_linear" in text


# --- promtool ------------------------------------------------------------------------------------------------------


async def ask_promtool(url: str, *words: str) -> tuple[str, str, int]:
    output, errors, code = await getProcessOutputAndValue(
        promtool(), ["query", *words[:1], "-o", "json", url, *words[1:]]
    )
    return output.decode(), errors.decode(), code


def with_token(url: str) -> str:
    """Debian's promtool has no option for a token; it sends the password in the URL by basic authentication."""
    return url.replace("http://", "http://any:blue-token@")


@pytest_twisted.ensureDeferred
async def test_promtool_asks_at_one_time_and_over_a_range(cloud: ServedCloud) -> None:
    url, end = with_token(cloud.url), str(int(END.timestamp()))
    expression = "sum by (resource) (increase(ceilometer_cpu[1h]))"
    output, errors, code = await ask_promtool(url, "instant", expression, f"--time={end}")
    assert (code, errors) == (0, "")
    found = {each["metric"]["resource"]: float(each["value"][1]) for each in json.loads(output)}
    assert found == await cloud.increase_by_resource("blue")
    times = [f"--start={HOUR.timestamp():.0f}", f"--end={end}", "--step=1h"]
    output, errors, code = await ask_promtool(url, "range", expression, *times)
    assert (code, errors) == (0, "")
    last = {each["metric"]["resource"]: float(each["values"][-1][1]) for each in json.loads(output)}
    assert last == found


@pytest_twisted.ensureDeferred
async def test_promtool_lists_series_and_values_and_tells_errors(cloud: ServedCloud) -> None:
    url = with_token(cloud.url)
    times = [f"--start={START.timestamp():.0f}", f"--end={END.timestamp():.0f}"]
    output, errors, code = await ask_promtool(url, "series", "--match=ceilometer_vcpus", *times)
    assert (code, errors) == (0, "")
    assert {each["resource"] for each in json.loads(output)} == {"vm-1", "vm-2"}
    output, errors, code = await ask_promtool(url, "labels", "flavor_name", *times)
    assert (code, errors) == (0, "")
    assert json.loads(output) == ["m1.large", "m1.small"]
    output, errors, code = await ask_promtool(url, "instant", "predict_linear(ceilometer_cpu[1h], 60)")
    assert code != 0
    assert "bad_data" in errors
    assert "predict_linear" in errors


# --- Prometheus ----------------------------------------------------------------------------------------------------


@pytest_twisted.async_yield_fixture
async def cloud_of_now() -> AsyncIterator[ServedCloud]:
    """The cloud, whose last poll was a minute ago: Prometheus refuses samples that are hours older than others."""
    now = datetime.now(UTC).replace(microsecond=0)
    async for each in serve(TOKENS, now - (POLLS - 1) * INTERVAL - timedelta(minutes=1)):
        yield each


@pytest_twisted.ensureDeferred
async def test_prometheus_scrapes_the_newest_samples_with_their_times(
    cloud_of_now: ServedCloud, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("blue-token")
    scrape = yaml.safe_load((Path(__file__).parents[2] / "etc/prometheus/prometheus.yml").read_text())[
        "scrape_configs"
    ][1]
    scrape |= {
        "scrape_interval": "1s",
        "scrape_timeout": "1s",
        "authorization": {"credentials_file": str(tmp_path / "token")},
    }
    scrape["static_configs"] = [{"targets": [cloud_of_now.url.removeprefix("http://")]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": [scrape]}))
    url = f"http://127.0.0.1:{free_port()}"
    asked = f"{url}/api/v1/query?{urlencode({'query': 'ceilometer_cpu[1h]'})}"
    found: list[Any] = []

    server = RunningPrometheus(tmp_path, url)
    try:
        while not found:  # the test's time limit ends it
            await sleep(reactor, 0.2)
            with contextlib.suppress(OSError):  # it does not listen yet
                found = json.loads(await deferToThread(fetch, asked))["data"]["result"]
    finally:
        await server.stop()
    answer = json.loads(
        await deferToThread(fetch, f"{cloud_of_now.url}/api/v1/query?{urlencode({'query': 'ceilometer_cpu'})}", "blue")
    )
    expected = {each["metric"]["resource"]: each["value"][1] for each in answer["data"]["result"]}
    assert expected == {name: str(10**12 + 24 * CPU_SECONDS[name] * 10**9) for name in ("vm-1", "vm-2")}
    assert {each["metric"]["resource"]: float(each["values"][-1][1]) for each in found} == {
        name: float(text) for name, text in expected.items()
    }
    assert {each["metric"]["job"] for each in found} == {"meter-usage"}
    times = await deferToThread(
        fetch, f"{cloud_of_now.url}/api/v1/query?{urlencode({'query': 'max(timestamp(ceilometer_cpu))'})}", "blue"
    )
    assert {each["values"][0][0] for each in found} == {float(json.loads(times)["data"]["result"][0]["value"][1])}


class ServerProcess(ProcessProtocol):
    """Fires ``ended`` at the end of the process."""

    def __init__(self, ended: Deferred[None]) -> None:
        self._ended = ended

    def processEnded(self, reason: Any) -> None:
        self._ended.callback(None)


class RunningPrometheus:
    """A server on the configuration in ``directory``, which answers at ``url``."""

    def __init__(self, directory: Path, url: str) -> None:
        self._ended: Deferred[None] = Deferred()
        self._url = url
        words = [
            prometheus(),
            f"--config.file={directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address={url.removeprefix('http://')}",
            "--log.level=error",
        ]
        protocol = ServerProcess(self._ended)
        self._process = reactor.spawnProcess(protocol, words[0], words, env={}, path=str(directory))  # type: ignore[attr-defined]

    async def until_ready(self) -> None:
        """Wait until it answers; the test's time limit ends that."""
        while True:
            with contextlib.suppress(OSError):
                await deferToThread(fetch, f"{self._url}/-/ready")
                return
            await sleep(reactor, 0.2)

    async def stop(self) -> None:
        self._process.signalProcess("TERM")
        await self._ended


# --- CloudKitty ----------------------------------------------------------------------------------------------------

METRICS = {
    "metrics": {
        "ceilometer_cpu": {
            "unit": "core-hour",
            "factor": "1/1000000000",
            "groupby": ["resource"],
            "metadata": ["flavor_name"],
            "extra_args": {"aggregation_method": "sum", "range_function": "rate"},
        },
        "ceilometer_vcpus": {"unit": "vcpu", "groupby": ["resource"], "extra_args": {"aggregation_method": "max"}},
    }
}
"""What docs/prometheus.rst tells operators to configure: over periods of an hour, the rate is the hours that were used."""


async def collect(collector: str, url: str, token: str = "") -> dict[str, Any]:
    """Return what CloudKitty collects of project blue for the last hour."""
    words = [
        *("-W", "ignore", "-c", cloudkitty.COLLECT, collector, url, token, json.dumps(METRICS)),
        *(HOUR.isoformat(), END.isoformat(), "blue"),
    ]
    python = await deferToThread(cloudkitty.python)
    output, errors, code = await getProcessOutputAndValue(str(python), words)
    assert code == 0, errors.decode()
    found: dict[str, Any] = json.loads(output)
    return found


def assert_collected(points: dict[str, Any], increases: dict[str, float]) -> None:
    assert {each["groupby"]["resource"]: float(each["qty"]) for each in points["ceilometer_cpu"]} == {
        name: pytest.approx(increase / CORE_HOUR_NS, rel=1e-8) for name, increase in increases.items()
    }
    assert {each["metadata"]["flavor_name"] for each in points["ceilometer_cpu"]} == {"m1.small", "m1.large"}
    assert {each["groupby"]["resource"]: float(each["qty"]) for each in points["ceilometer_vcpus"]} == {
        "vm-1": 1.0,
        "vm-2": 4.0,
    }


@pytest_twisted.ensureDeferred
async def test_cloudkittys_collector_for_aetos_collects_with_a_token(cloud: ServedCloud) -> None:
    points = await collect("aetos", cloud.url, "blue-token")
    assert_collected(points, await cloud.increase_by_resource("blue"))


@pytest_twisted.ensureDeferred
async def test_cloudkittys_collector_for_prometheus_collects_one_project_of_all(open_cloud: ServedCloud) -> None:
    points = await collect("prometheus", open_cloud.url)
    increases = await open_cloud.increase_by_resource()
    assert_collected(points, {name: value for name, value in increases.items() if name != "vm-3"})


@pytest_twisted.ensureDeferred
async def test_cloudkittys_collector_for_prometheus_sends_a_token_as_password(cloud: ServedCloud) -> None:
    points = await collect("prometheus", cloud.url, "blue-token")
    assert_collected(points, await cloud.increase_by_resource("blue"))
