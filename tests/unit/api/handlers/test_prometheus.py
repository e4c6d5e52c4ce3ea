"""Prometheus' HTTP API over a small cloud: the answers are those of the v2 API, in the forms that clients of Prometheus read."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import CancelledError
from twisted.internet.defer import Deferred

from meter.api import RequestLimits
from meter.api.handlers.prometheus import MAX_SELECTORS
from meter.api.handlers.prometheus import MAX_TIMEOUT_SECONDS
from meter.api.prometheus_operations import REFUSED
from meter.testing import MemoryStore
from tests.api_client import ApiClient
from tests.api_client import Response
from tests.metered_cloud import CPU_SECONDS
from tests.metered_cloud import END
from tests.metered_cloud import NOW
from tests.metered_cloud import START
from tests.metered_cloud import CloudClient
from tests.unit.api.auth.test_visibility import TOKENS

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
HOURS_2 = "sum by (resource) (increase(ceilometer_cpu[2h]))"


class PendingMeters(MemoryStore):
    """A store whose list of meters never comes, and which counts the cancelled queries."""

    cancelled = 0

    async def meters(self, *_: Any) -> Any:
        try:
            await Deferred()
        except CancelledError:
            self.cancelled += 1
            raise


@pytest.fixture(scope="module")
def api() -> CloudClient:
    return CloudClient()


@pytest.fixture(scope="module")
def cloud() -> CloudClient:
    """The same, with a token per project."""
    return CloudClient(auth=TOKENS)


def ask(api: ApiClient, endpoint: str, who: str = "", **arguments: Any) -> Response:
    """Send a request whose arguments are in the query string; ``match`` stands for ``match[]``."""
    pairs = {"match[]" if name == "match" else name: value for name, value in arguments.items()}
    headers = {"Authorization": f"Bearer {who}-token"} if who else {}
    return api(f"/api/v1/{endpoint}?{urlencode(pairs, doseq=True)}", headers=headers)


def vector(response: Response, label: str = "resource") -> dict[str, float]:
    assert response.status == 200, response.body
    assert response.json["status"] == "success"
    assert response.json["data"]["resultType"] == "vector"
    return {row["metric"].get(label): float(row["value"][1]) for row in response.json["data"]["result"]}


def error(response: Response) -> tuple[int, str, str]:
    assert response.json.keys() == {"status", "errorType", "error"}
    assert response.json["status"] == "error"
    assert response.headers["content-type"] == "application/json"
    return response.status, response.json["errorType"], response.json["error"]


# --- queries -------------------------------------------------------------------------------------------------------


def test_increase_equals_the_statistics_of_the_v2_api(api: CloudClient) -> None:
    statistics = api(
        "/v2/meters/cpu/statistics?aggregate.func=increase&groupby=resource_id&q.field=timestamp&q.op=ge"
        f"&q.value={START:%Y-%m-%dT%H:%M:%S}&q.field=timestamp&q.op=lt&q.value={END:%Y-%m-%dT%H:%M:%S}"
    ).json
    expected = {row["groupby"]["resource_id"]: row["aggregate"]["increase"] for row in statistics}
    assert expected == {name: 23 * seconds * 1e9 for name, seconds in CPU_SECONDS.items()}
    assert vector(ask(api, "query", query=HOURS_2, time=END.timestamp())) == expected


def test_windows_that_follow_one_another_have_all_steps(api: CloudClient) -> None:
    """The first step of a window leads from the sample before it, so that 20 minutes have the use of 20 minutes."""
    times = [END.timestamp() - 3600, END.timestamp()]
    each = [vector(ask(api, "query", query="increase(ceilometer_cpu[1h])", time=time)) for time in times]
    whole = vector(ask(api, "query", query="increase(ceilometer_cpu[2h])", time=times[1]))
    assert {name: sum(one[name] for one in each) for name in whole} == whole
    assert vector(ask(api, "query", query="rate(ceilometer_cpu[20m]) / 1e9", time=times[1])) == {
        name: seconds / 300 for name, seconds in CPU_SECONDS.items()
    }


@pytest.mark.parametrize(("window", "step"), [("20m", 600), ("1h", 3600), ("10m", 3600), ("30m", 5400)])
def test_a_window_has_the_same_value_at_one_time_and_in_a_range(api: CloudClient, window: str, step: int) -> None:
    expression, start = f"increase(ceilometer_cpu[{window}])", START.timestamp() + 1800
    answer = ask(api, "query_range", query=expression, start=start, end=END.timestamp(), step=step).json
    assert answer["data"]["result"]
    for series in answer["data"]["result"]:
        for time, value in series["values"]:
            assert vector(ask(api, "query", query=expression, time=time))[series["metric"]["resource"]] == float(value)


@pytest.mark.parametrize(
    "time", [str(END.timestamp()), f"{END.timestamp():.3f}", "2026-11-22T14:00:00Z", "2026-11-22T15:00:00+01:00"]
)
def test_time_is_seconds_or_rfc_3339(api: CloudClient, time: str) -> None:
    response = ask(api, "query", query="ceilometer_vcpus", time=time)
    assert vector(response) == {"vm-1": 1, "vm-2": 4, "vm-3": 4}
    assert response.json["data"]["result"][0]["value"][0] == END.timestamp()


def test_time_is_now_by_default(api: CloudClient) -> None:
    response = ask(api, "query", query="time()")
    assert response.json["data"] == {"resultType": "scalar", "result": [NOW.timestamp(), str(int(NOW.timestamp()))]}


@pytest.mark.parametrize(
    ("endpoint", "arguments"),
    [
        ("query", {"query": HOURS_2}),
        ("query_range", {"query": HOURS_2, "start": START.timestamp(), "end": END.timestamp(), "step": "5m"}),
        ("series", {"match[]": ["ceilometer_cpu", "ceilometer_volume_size"]}),
        ("labels", {"match[]": "ceilometer_cpu"}),
    ],
)
def test_form_in_the_body_is_the_same_question(api: CloudClient, endpoint: str, arguments: dict[str, Any]) -> None:
    form = urlencode(arguments, doseq=True)
    got = api(f"/api/v1/{endpoint}?{form}")
    posted = api(f"/api/v1/{endpoint}", method="POST", body=form.encode(), headers=FORM)
    assert got.status == posted.status == 200
    assert got.json["data"]
    assert got.body == posted.body


def test_range_has_a_value_per_step(api: CloudClient) -> None:
    first = START.timestamp() + 60
    times = {"start": first, "end": END.timestamp() + 60}
    for step in ("600", "10m", "600.0"):
        response = ask(api, "query_range", query="count(ceilometer_instance)", step=step, **times)
        data = response.json["data"]
        assert data["resultType"] == "matrix"
        [series] = data["result"]
        assert series == {"metric": {}, "values": [[first + 600 * n, "3"] for n in range(13)]}


def test_grafana_tests_the_data_source_with_sums_of_numbers(api: CloudClient) -> None:
    assert ask(api, "query", query="1+1", time=4).json["data"] == {"resultType": "scalar", "result": [4, "2"]}
    assert vector(ask(api, "query", query="vector(1)+1")) == {None: 2}


def test_more_series_than_the_limit_are_told(api: CloudClient) -> None:
    response = ask(api, "query", query="ceilometer_vcpus", limit=2)
    assert len(vector(response)) == 2
    assert response.json["warnings"] == ["results truncated due to limit"]
    assert "warnings" not in ask(api, "query", query="ceilometer_vcpus", limit=0).json
    for endpoint, arguments in (
        ("series", {"match": "ceilometer_vcpus"}),
        ("labels", {}),
        ("label/resource/values", {}),
    ):
        some = ask(api, endpoint, limit=1, **arguments).json
        assert len(some["data"]) == 1
        assert some["warnings"] == ["results truncated due to limit"]
        assert "warnings" not in ask(api, endpoint, limit=100, **arguments).json


BAD: list[tuple[str, dict[str, Any], int, str, str]] = [
    ("query", {}, 400, "bad_data", "no expression found in input"),
    ("query", {"query": "sum("}, 400, "bad_data", ""),
    ("query", {"query": "up", "time": "noon"}, 400, "bad_data", 'invalid parameter "time"'),
    ("query", {"query": "up", "timeout": "0"}, 400, "bad_data", 'invalid parameter "timeout"'),
    ("query", {"query": "up", "limit": "-1"}, 400, "bad_data", "limit must be non-negative"),
    ("query", {"query": "up", "colour": "red"}, 400, "bad_data", "colour"),
    ("query", {"query": ["up", "down"]}, 400, "bad_data", "only once"),
    ("query", {"query": "predict_linear(ceilometer_cpu[1h], 3600)"}, 400, "bad_data", "predict_linear"),
    ("query_range", {"query": "up", "end": 5, "step": 1}, 400, "bad_data", 'invalid parameter "start"'),
    ("query_range", {"query": "up", "start": 5, "step": 1}, 400, "bad_data", 'invalid parameter "end"'),
    ("query_range", {"query": "up", "start": 5, "end": 9}, 400, "bad_data", 'invalid parameter "step"'),
    ("query_range", {"query": "up", "start": 5, "end": 4, "step": 1}, 400, "bad_data", "before start"),
    ("query_range", {"query": "up", "start": 5, "end": 9, "step": 0}, 400, "bad_data", "zero or negative"),
    ("query_range", {"query": "up", "start": 5, "end": 9, "step": "-1"}, 400, "bad_data", "zero or negative"),
    ("query_range", {"query": "up", "start": 0, "end": 12000, "step": 1}, 400, "bad_data", "11,000 points"),
    ("series", {}, 400, "bad_data", "no match[]"),
    ("series", {"match": "ceilometer_cpu", "start": 9, "end": 5}, 400, "bad_data", "before start"),
    ("series", {"match": ["x"] * (MAX_SELECTORS + 1)}, 400, "bad_data", "selectors"),
    ("series", {"match": "sum(x)"}, 400, "bad_data", ""),
    ("label/x/values", {"start": "then"}, 400, "bad_data", 'invalid parameter "start"'),
    ("metadata", {"limit_per_metric": "x"}, 400, "bad_data", 'invalid parameter "limit_per_metric"'),
    *((f"{path}/x", {}, 404, "not_found", text) for path, text in REFUSED.items()),
    ("query_magic", {}, 404, "not_found", "does not serve GET /api/v1/query_magic"),
]


@pytest.mark.parametrize(("endpoint", "arguments", "status", "kind", "text"), BAD)
def test_error_has_the_form_of_prometheus(
    api: CloudClient, endpoint: str, arguments: dict[str, Any], status: int, kind: str, text: str
) -> None:
    found = error(ask(api, endpoint, **arguments))
    assert found[:2] == (status, kind)
    assert text in found[2]


@pytest.mark.parametrize("path", ["/api/v1/write", "/api/v1/read", "/api/v1/otlp/v1/metrics"])
def test_pushed_data_are_refused_by_name_whatever_their_type(api: CloudClient, path: str) -> None:
    headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy"}
    status, kind, text = error(api(path, method="POST", body=b"\x00", headers=headers))
    assert (status, kind) == (404, "not_found")
    assert text.startswith("Meter does not")


def test_method_that_an_endpoint_does_not_have_is_refused_by_name(api: CloudClient) -> None:
    assert error(api("/api/v1/query", method="DELETE")) == (
        404,
        "not_found",
        "Meter does not serve DELETE /api/v1/query.",
    )
    assert error(api("/api/v1/targets", method="POST"))[2] == "Meter does not serve POST /api/v1/targets."


def test_errors_of_every_operation_have_the_form_of_prometheus(cloud: CloudClient) -> None:
    response = ask(cloud, "query", query="up")
    assert error(response)[:2] == (401, "unauthorized")
    assert response.headers["www-authenticate"] == 'Token realm="meter"'
    assert error(ask(cloud, "query", "unscoped", query="up"))[:2] == (403, "forbidden")
    assert error(cloud("/api/v1/labels", headers={"Authorization": "Bearer blue-token", "Accept": "image/png"}))[
        :2
    ] == (
        406,
        "not_acceptable",
    )
    body = {"Authorization": "Bearer blue-token", "Content-Type": "text/plain"}
    assert error(cloud("/api/v1/query", method="POST", body=b"query=1", headers=body))[:2] == (415, "bad_data")


def test_a_busy_project_is_429() -> None:
    api = ApiClient(store=PendingMeters(), limits=RequestLimits(max_requests_per_project=1), auth=TOKENS)
    headers = {"Authorization": "Bearer blue-token"}
    api.pending("/api/v1/query?query=ceilometer_cpu", headers=headers)
    api.flush()
    response = api("/api/v1/query?query=ceilometer_cpu", headers=headers)
    assert error(response)[:2] == (429, "too_many_requests")
    assert "retry-after" in response.headers


@pytest.mark.parametrize(
    ("timeout", "seconds"), [("", MAX_TIMEOUT_SECONDS), ("&timeout=5s", 5.0), ("&timeout=1h", 120.0)]
)
def test_a_query_that_takes_too_long_is_cancelled_with_503(timeout: str, seconds: float) -> None:
    store = PendingMeters()
    api = ApiClient(store=store)
    responses: list[Response] = []
    asked: Deferred[Response] = api.pending(f"/api/v1/query?query=ceilometer_cpu{timeout}")
    asked.addCallback(responses.append)
    api.flush()
    api.clock.advance(seconds - 0.1)
    api.flush()
    assert responses == []
    api.clock.advance(0.2)
    api.flush()
    assert error(responses[0])[:2] == (503, "timeout")
    assert f"after {seconds:g} s" in responses[0].json["error"]
    assert store.cancelled == 1


# --- names, series, metadata -----------------------------------------------------------------------------------------


def test_labels_values_and_series_are_those_of_samples(api: CloudClient) -> None:
    assert {"__name__", "project", "resource", "unit", "user", "resource_name", "flavor_name"} <= set(
        ask(api, "labels").json["data"]
    )
    assert ask(api, "label/project/values").json["data"] == ["blue", "red"]
    assert "ceilometer_disk_device_read_bytes" in ask(api, "label/__name__/values").json["data"]
    assert ask(api, "label/flavor_name/values", match='ceilometer_cpu{project="red"}').json["data"] == ["m1.large"]
    assert ask(api, "label/nothing/values").json["data"] == []
    [series] = ask(api, "series", match='ceilometer_vcpus{resource="vm-3"}').json["data"]
    assert series["__name__"] == "ceilometer_vcpus"
    assert series["resource_name"] == 'db "1"'


def test_times_that_mean_ever_are_accepted(api: CloudClient) -> None:
    ever = {"start": "-9223372036854775.808", "end": "9223372036854775.807"}
    assert len(ask(api, "series", match="ceilometer_vcpus", **ever).json["data"]) == 3


def test_metadata_has_type_and_unit(api: CloudClient) -> None:
    data = ask(api, "metadata").json["data"]
    assert data["ceilometer_cpu"][0]["type"] == "counter"
    assert data["ceilometer_cpu"][0]["unit"] == "ns"
    assert data["ceilometer_memory_usage"][0]["type"] == "gauge"
    assert list(ask(api, "metadata", metric="ceilometer_cpu").json["data"]) == ["ceilometer_cpu"]
    assert len(ask(api, "metadata", limit=2).json["data"]) == 2
    assert ask(api, "metadata", metric="none").json["data"] == {}


def test_what_meter_does_not_have_is_empty(api: CloudClient) -> None:
    assert ask(api, "targets", state="active").json["data"] == {"activeTargets": [], "droppedTargets": []}
    assert ask(api, "rules").json["data"] == {"groups": []}
    assert ask(api, "alerts").json["data"] == {"alerts": []}
    assert ask(api, "query_exemplars", query="x", start=0, end=1).json["data"] == []


def test_status_says_what_serves_and_since_when(api: CloudClient) -> None:
    build = ask(api, "status/buildinfo").json["data"]
    assert (build["application"], build["version"]) == ("Meter", "2.42.0")
    runtime = ask(api, "status/runtimeinfo").json["data"]
    assert runtime["startTime"] == runtime["lastConfigTime"] == "2026-11-22T14:01:00Z"
    assert {"CWD", "reloadConfigSuccess", "corruptionCount", "goroutineCount", "GOMAXPROCS", "storageRetention"} <= set(
        runtime
    )


# --- tenants -------------------------------------------------------------------------------------------------------


def test_tenant_sees_their_own_project_alone(cloud: CloudClient) -> None:
    assert vector(ask(cloud, "query", "admin", query="count by (project) (ceilometer_instance)"), "project") == {
        "blue": 2,
        "red": 1,
    }
    assert vector(ask(cloud, "query", "blue", query="count by (project) (ceilometer_instance)"), "project") == {
        "blue": 2
    }
    assert vector(ask(cloud, "query", "blue", query='ceilometer_instance{project="red"}')) == {}
    assert vector(ask(cloud, "query", "blue", query='ceilometer_instance{project=~".*"}')) == {"vm-1": 1, "vm-2": 1}
    assert ask(cloud, "label/project/values", "blue").json["data"] == ["blue"]
    assert ask(cloud, "labels", "green").json["data"] == []
    assert ask(cloud, "metadata", "green").json["data"] == {}
    assert ask(cloud, "series", "blue", match='{project="red"}').json["data"] == []
    assert cloud("/federate?match[]=ceilometer_cpu", headers={"Authorization": "Bearer green-token"}).body == b""


# --- federation ------------------------------------------------------------------------------------------------------


def federate(api: ApiClient, *selectors: str) -> Response:
    return api("/federate?" + urlencode([("match[]", each) for each in selectors]))


def test_federate_has_the_newest_samples_at_their_own_time(api: CloudClient) -> None:
    response = federate(api, "ceilometer_cpu", 'ceilometer_vcpus{project="red"}', 'ceilometer_cpu{resource="vm-1"}')
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = {each.name: each for each in text_string_to_metric_families(response.body.decode())}
    assert {name: (each.type, len(each.samples)) for name, each in families.items()} == {
        "ceilometer_cpu": ("counter", 3),
        "ceilometer_vcpus": ("gauge", 1),
    }
    cpu = {each.labels["resource"]: each for each in families["ceilometer_cpu"].samples}
    assert {name: each.value for name, each in cpu.items()} == {
        name: 1e12 + 24 * seconds * 1e9 for name, seconds in CPU_SECONDS.items()
    }
    assert {each.timestamp for each in cpu.values()} == {END.timestamp()}
    assert families["ceilometer_vcpus"].samples[0].labels["resource_name"] == 'db "1"'


def test_federate_without_a_selector_is_refused(api: CloudClient) -> None:
    assert error(federate(api))[:2] == (400, "bad_data")
    assert error(federate(api, "sum(ceilometer_cpu)"))[:2] == (400, "bad_data")


def test_federate_has_nothing_of_what_is_not_measured_any_more() -> None:
    api = CloudClient()
    assert federate(api, "ceilometer_cpu").body
    api.clock.advance(4 * 3600)
    assert federate(api, "ceilometer_cpu").body == b""
