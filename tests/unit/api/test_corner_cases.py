"""Corner cases of the v2 API, as tables of requests and responses."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from twisted.internet.defer import Deferred

from meter.api import Limits
from tests.api_client import KEYS
from tests.api_client import SAMPLES
from tests.api_client import ApiClient
from tests.api_client import message

ALL = {"s0", "s1", "s2", "s3"}


@pytest.fixture(scope="module")
def api() -> ApiClient:
    return ApiClient()


def q(field: str, value: str, op: str | None = None, kind: str | None = None, n: int | None = None) -> str:
    """Return one term, in the parallel form, or in the indexed form where ``n`` is given."""
    prefix = "q" if n is None else f"q[{n}]"
    members = {"field": field, "op": op, "value": value, "type": kind}
    return "&".join(f"{prefix}.{name}={quote(text)}" for name, text in members.items() if text is not None)


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("", ALL),
        (q("resource_id", "vm-1"), {"s0", "s1", "s3"}),
        (q("resource", "vm-1"), {"s0", "s1", "s3"}),
        (q("resource", "vm-1", op="eq", kind=""), {"s0", "s1", "s3"}),
        (q("user", "ann"), {"s0", "s1"}),
        (q("user_id", "None"), {"s3"}),
        (q("project", "None"), {"s3"}),
        (q("project_id", "red"), {"s2"}),
        (q("resource_id", "None"), set()),
        (q("source", "test"), ALL),
        (q("meter", "disk.size"), {"s3"}),
        (q("message_id", "s1"), {"s1"}),
        (q("resource_id", ""), set()),
        (q("user", "ann") + "&" + q("user", "bob"), {"s2"}),
        (q("user", "ann", n=0) + "&" + q("project", "blue", n=7), {"s0", "s1"}),
        # times: start inclusive, end exclusive where ge and lt are meant; any ISO 8601; offsets are converted
        (q("timestamp", "2026-11-22T12:01:00", op="ge"), {"s1", "s2", "s3"}),
        (q("timestamp", "2026-11-22T12:01:00", op="gt"), {"s2", "s3"}),
        (q("timestamp", "2026-11-22T12:01:00", op="le"), {"s0", "s1"}),
        (q("timestamp", "2026-11-22 12:01:00.0", op="lt"), {"s0"}),
        (q("timestamp", "2026-11-22T13:01:00+01:00", op="lt"), {"s0"}),
        (q("timestamp", "2026-11-22T12:01:00Z", op="lt"), {"s0"}),
        (q("timestamp", "2026-11-22", op="ge"), ALL),
        (q("timestamp", "2026-11-22", op="lt"), set()),
        (q("timestamp", "2026-11-22T12:03", op="ge") + "&" + q("timestamp", "2026-11-22T12:02", op="ge"), {"s2", "s3"}),
        (q("timestamp", "2026-11-22T12:02", op="ge") + "&" + q("search_offset", "1", op="eq"), {"s1", "s2", "s3"}),
        (q("timestamp", "2026-11-22T12:00", op="le") + "&" + q("search_offset", "1", op="eq"), {"s0", "s1"}),
        # metadata is compared with its type
        (q("metadata.size", "0"), {"s0"}),
        (q("metadata.size", "0", kind="integer"), {"s0"}),
        (q("metadata.size", "0", kind="string"), {"s1"}),
        (q("metadata.size", "'0'"), {"s1"}),
        (q("metadata.size", "0.0", kind="float"), {"s0"}),
        (q("metadata.on", "True"), {"s1"}),
        (q("metadata.on", "yes", kind="boolean"), {"s1"}),
        (q("metadata.on", "true"), set()),
        (q("resource_metadata.flavor.name", "m1"), {"s0"}),
        # short forms of times that Ceilometer accepted: the first moment of a day, a month, a year
        (q("timestamp", "2026-11-22T12:01:0", op="ge"), {"s1", "s2", "s3"}),
        (q("timestamp", "2026-11-22T12", op="ge"), ALL),
        (q("timestamp", "2026-1-2", op="ge"), ALL),
        (q("timestamp", "2026-11", op="ge"), ALL),
        (q("timestamp", "2026-12", op="ge"), set()),
        (q("timestamp", "2026", op="ge"), ALL),
        (q("timestamp", "2026", op="lt"), set()),
        (q("timestamp", "2026-11-22T13:01:00,5+01", op="lt"), {"s0", "s1"}),
        # None matches samples whose metadata lacks the key, or has null
        (q("metadata.size", "None"), {"s2", "s3"}),
        (q("metadata.on", "None"), {"s0", "s2", "s3"}),
        (q("metadata.flavor.name", "None") + "&" + q("meter", "cpu"), {"s1", "s2"}),
        (q("metadata.flavor", "None") + "&" + q("metadata.size", "0"), {"s0"}),
        (q("metadata.size", "None", kind="string"), set()),
        (q("metadata.size", "'None'"), set()),
        # a single operator applies to the first field, even if meant for the second
        ("q.field=timestamp&q.field=user&q.op=ge&q.value=2026-11-22&q.value=ann", {"s0", "s1"}),
    ],
)
def test_simple_query_matches(api: ApiClient, query: str, ids: set[str]) -> None:
    response = api(f"/v2/samples?{query}")
    assert response.status == 200, response.body
    assert {sample["id"] for sample in response.json} == ids


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("samples?name2=a&name1=b", 'Unknown argument: "name1, name2"'),
        ("samples/s0?limit=1", 'Unknown argument: "limit"'),
        ("resources/vm-1?q.field=a&q.value=b", 'Unknown argument: "q.field, q.value"'),
        ("capabilities?x", 'Unknown argument: "x"'),
        (
            "samples?limit=1&limit=1",
            "Invalid input for field/attribute limit. Value: '1, 1'. it can be given only once.",
        ),
        ("samples?limit=NaN", "Invalid input for field/attribute limit. Value: 'NaN'. unable to convert to int"),
        ("samples?limit=0", "Limit must be positive"),
        ("meters?limit=-1", "Limit must be positive"),
        ("resources?limit=1000000000000", "Value: '1000000000000'. the maximum is 10000"),
        ("meters?unique=perhaps", "Value: 'perhaps'. unable to convert to bool"),
        ("samples?q=a", "Invalid input for field/attribute q. Value: 'a'."),
        ("samples?q.field=user", "Invalid input for field/attribute value. Value: 'None'. Mandatory field missing"),
        ("samples?q.value=x", "1 values given for 0 q.field"),
        ("samples?q.field=user&q.value=a&q.op=eq&q.op=eq", "q.op. Value: 'eq, eq'. 2 values given for 1 q.field"),
        ("samples?q[0].value=a", "q[0].field. Value: 'None'. Mandatory field missing"),
        ("samples?q[0].field=a&q[00].field=b", "it can be given only once"),
        ("samples?q[0].field=a&q.field=b", "cannot be used together"),
        ("samples?q[0].colour=a", 'Unknown argument: "q[0].colour"'),
        ("samples?" + q("user", "a", op="like"), "Value should be one of: lt, le, eq, ne, ge, gt"),
        ("samples?" + q("project_id", "a", op="lt"), "Value: 'lt'. unimplemented operator for project_id"),
        ("samples?" + q("metadata.a", "a", op="ne"), "Value: 'ne'. unimplemented operator for metadata.a"),
        ("samples?" + q("timestamp", "2026-01-01", op="eq"), "Value: 'eq'. unimplemented operator for timestamp"),
        ("samples?" + q("timestamp", "2026-01-01"), "Value: 'eq'. unimplemented operator for timestamp"),
        ("samples?" + q("timestamp", "Remember Remember", op="gt"), "'Remember Remember'. invalid timestamp format"),
        ("samples?" + q("timestamp", "", op="gt"), "invalid timestamp format"),
        *(
            ("samples?" + q("timestamp", text, op="ge"), "invalid timestamp format")
            for text in ("202603", "2026-13", "2026-2-30", "26-3-1", "2026-", "2026-3-1x", "2026-3-1T1", "٢٠٢٦")
        ),
        ("samples?" + q("timestamp", "0001-01-01T00:00+14:00", op="gt"), "invalid timestamp format"),
        ("samples?" + q("search_offset", "5"), "search_offset cannot be used without timestamp"),
        (
            "samples?" + q("timestamp", "2026-01-01", op="gt") + "&" + q("search_offset", "x", op="eq"),
            "field/attribute search_offset. Value: 'x'. unable to convert to int",
        ),
        (
            "samples?" + q("timestamp", "2026-01-01", op="gt") + "&" + q("search_offset", "9" * 12, op="eq"),
            "the resulting time is out of range",
        ),
        (
            "samples?" + q("wings", "3"),
            "unrecognized field in query: [<Query 'wings' eq '3'>], valid keys: ['message_id'",
        ),
        ("samples?" + q("metadata.", "3"), "unrecognized field in query"),
        (
            "meters?" + q("timestamp", "2026-01-01", op="gt"),
            'Unknown argument: "timestamp": not valid for this resource',
        ),
        ("meters?" + q("search_offset", "1"), 'Unknown argument: "search_offset": not valid for this resource'),
        ("meters?" + q("meter", "cpu"), 'Unknown argument: "meter": unrecognized field'),
        ("resources?" + q("message_id", "s0"), 'Unknown argument: "message_id": unrecognized field'),
        (
            "samples?" + q("metadata.a", "5", kind="blob"),
            "The data type blob is not supported. The supported data type",
        ),
        (
            "samples?" + q("metadata.a", "five", kind="integer"),
            "Unable to convert the value five to the expected data type integer.",
        ),
        ("samples?" + q("metadata.a", "nan", kind="float"), "Unable to convert the value nan"),
        ("samples?" + q("metadata.a", "maybe", kind="boolean"), "Unable to convert the value maybe"),
        ("samples?" + q("metadata.a", "soon", kind="datetime"), "Unable to convert the value soon"),
        ("samples?" + "&".join(["q.field=user&q.value=a"] * 101), "at most 100 terms"),
        ("samples?" + "&".join(["q.op="] * 2001), "at most 2000 parameters"),
        ("samples?q.field=%ff", "must be percent-encoded UTF-8"),
        ("samples?q.field=user&q.value=a%00b", "must not contain NUL"),
        ("samples/a%00b", "must not contain NUL"),
        ("samples/%ff", "The path must be percent-encoded UTF-8"),
        ("meters/cpu/statistics?groupby=wings", 'Unknown argument: "wings": Invalid groupby fields'),
        ("meters/cpu/statistics?groupby=metadata.", "Invalid groupby fields"),
        ("meters/cpu/statistics?aggregate.func=mmm", "Invalid aggregation function: mmm"),
        (
            "meters/cpu/statistics?aggregate.func=cardinality&aggregate.param=injection_attack",
            "Bad aggregate: cardinality.injection_attack",
        ),
        ("meters/cpu/statistics?aggregate.func=cardinality", "Bad aggregate: cardinality.None"),
        ("meters/cpu/statistics?aggregate.func=max&aggregate.param=user_id", "Bad aggregate: max.user_id"),
        ("meters/cpu/statistics?aggregate.func=percentile", "Bad aggregate: percentile.None: aggregate.param must be"),
        ("meters/cpu/statistics?aggregate.func=percentile&aggregate.param=101", "must be a number from 0 to 100"),
        ("meters/cpu/statistics?aggregate.func=percentile&aggregate.param=nan", "must be a number from 0 to 100"),
        (
            "meters/cpu/statistics?aggregate.func=integral",
            "integral requires a gauge meter, but cpu is a cumulative meter; use increase.",
        ),
        (
            "meters/disk.size/statistics?aggregate.func=rate",
            "rate requires a cumulative meter, but disk.size is a gauge meter; use avg.",
        ),
        (
            "meters/disk.size/statistics?aggregate.func=max&aggregate.func=increase",
            "increase requires a cumulative meter, but disk.size is a gauge meter; use max and min, or integral.",
        ),
        ("samples?as_of=yesterday", "Invalid input for field/attribute as_of. Value: 'yesterday'. invalid timestamp"),
        ("samples?as_of=", "Invalid input for field/attribute as_of. Value: ''. it must not be empty"),
        ("samples?marker=", "Invalid input for field/attribute marker. Value: ''. it must not be empty"),
        ("meters/cpu/statistics?groupby[0]=", 'Unknown argument: "": Invalid groupby fields'),
        ("meters/cpu/statistics?groupby[0]=user_id&groupby[00]=source", "it can be given only once"),
        ("meters/cpu/statistics?groupby[0]=user_id&groupby[0]=source", "it can be given only once"),
        ("meters/cpu/statistics?groupby[0]=user_id&groupby=source", "groupby and groupby[…] cannot be used together"),
        ("meters/cpu/statistics?groupby[]=user_id", 'Unknown argument: "groupby[]"'),
        ("samples?limit[0]=1", 'Unknown argument: "limit[0]"'),
        ("samples?limit=1.0", "Value: '1.0'. unable to convert to int"),
        (
            "samples?marker=x",
            "Invalid input for field/attribute marker. Value: 'x'. it must be taken from the Link header",
        ),
        ("samples?marker=MjAyNi0xMS0yMg", "it must be taken from the Link header"),
        ("live?limit=1", 'Unknown argument: "limit"'),
        ("meters/cpu/statistics?aggregate=max", "use aggregate.func and aggregate.param"),
        ("meters/cpu/statistics?period=-1", "Period must be positive."),
        ("meters/cpu/statistics?period=" + "9" * 40, "Invalid period 9999"),
        (
            "meters/cpu/statistics?period=1&" + q("timestamp", "2016-11-22", op="ge"),
            "Invalid period 1: it makes 315576600 windows",
        ),
        ("meters/cpu/statistics?limit=1", 'Unknown argument: "limit"'),
    ],
)
def test_invalid_request_is_400_with_the_reason(api: ApiClient, path: str, fault: str) -> None:
    response = api(f"/v2/{path}")
    assert response.status == 400
    assert fault in response.faultstring
    assert response.json["error_message"].keys() == {"debuginfo", "faultcode", "faultstring"}
    assert response.json["error_message"]["faultcode"] == "Client"


def test_limit_of_windows_covers_all_groups_together() -> None:
    api = ApiClient(limits=Limits(max_windows=2))
    path = "/v2/meters/cpu/statistics?period=60&groupby=resource_id"
    assert len(api(f"{path}&{q('resource_id', 'vm-1')}").json) == 2
    response = api(path)
    assert response.status == 400
    assert response.faultstring.startswith("There are more than 2 rows of windows and groups: use a longer period")


CPU_OF_VM_1 = {
    "counter_name": "cpu",
    "counter_type": "cumulative",
    "counter_unit": "ns",
    "counter_volume": 10.0,
    "resource_id": "vm-1",
    "project_id": "blue",
    "user_id": "ann",
    "source": "test",
    "timestamp": "2026-11-22T12:00:00",
    "recorded_at": "2026-11-22T12:10:00",
    "resource_metadata": {"size": "0", "flavor.name": "m1"},
    "message_id": "s0",
    "message_signature": SAMPLES[0].fields["message_signature"],
}
DISK_OF_VM_1 = {
    "id": "s3",
    "meter": "disk.size",
    "type": "gauge",
    "unit": "GB",
    "volume": 2.5,
    "resource_id": "vm-1",
    "project_id": None,
    "user_id": None,
    "source": "test",
    "timestamp": "2026-11-22T12:03:00",
    "recorded_at": "2026-11-22T12:10:00",
    "metadata": {},
    "message_signature": SAMPLES[3].fields["message_signature"],
}
A_B_C = {
    "resource_id": "a/b c",
    "project_id": "red",
    "user_id": "bob",
    "source": "test",
    "first_sample_timestamp": "2026-11-22T12:02:00",
    "last_sample_timestamp": "2026-11-22T12:02:00",
    "metadata": {},
    "links": [
        {"href": "http://cloud:8777/v2/resources/a/b c", "rel": "self"},
        {"href": "http://cloud:8777/v2/meters/cpu?q.field=resource_id&q.value=a/b c", "rel": "cpu"},
    ],
}
WHOLE_CPU = {
    "unit": "ns",
    "groupby": None,
    "period": 0,
    "period_start": "2026-11-22T12:00:00",
    "period_end": "2026-11-22T12:02:00",
    "duration": 120.0,
    "duration_start": "2026-11-22T12:00:00",
    "duration_end": "2026-11-22T12:02:00",
    "max": 60.0,
    "min": 10.0,
    "avg": 30.0,
    "sum": 90.0,
    "count": 3,
}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/meters/cpu?" + q("message_id", "s0"), [CPU_OF_VM_1]),
        ("/v2/meters/unknown", []),
        ("/v2/samples/s3", DISK_OF_VM_1),
        ("/v2/samples/s3/", DISK_OF_VM_1),
        ("/v2/samples?limit=1", [DISK_OF_VM_1]),
        ("/v2/samples?limit=&" + q("meter", "disk.size"), [DISK_OF_VM_1]),
        ("/v2/resources/a/b%20c", A_B_C),
        ("/v2/resources/a%2Fb%20c", A_B_C),
        ("/v2/resources/a%252Fb%2520c", A_B_C),
        ("/v2/resources?meter_links=0&" + q("project", "red"), [{**A_B_C, "links": A_B_C["links"][:1]}]),
        ("/v2/resources?meter_links=1&" + q("project", "red"), [A_B_C]),
        ("/v2/meters/cpu/statistics", [WHOLE_CPU]),
        ("/v2/meters/cpu/statistics/?period=0", [WHOLE_CPU]),
        ("/v2/meters/unknown/statistics", []),
    ],
)
def test_response_is_as_expected(api: ApiClient, path: str, body: Any) -> None:
    response = api(path)
    assert response.status == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json == body


@pytest.mark.parametrize("path", ["/dev//x", "%2Fdev%2F%2Fx", "%252Fdev%252F/x", "/dev//x/"])
def test_id_can_contain_slashes(path: str) -> None:
    api = ApiClient()
    Deferred.fromCoroutine(api.store.write([message(resource_id="/dev//x")]))
    assert api(f"/v2/resources/{path}").json["resource_id"] == "/dev//x"


def test_root_lists_the_version_with_its_link(api: ApiClient) -> None:
    (version,) = api("/").json["versions"]["values"]
    assert (version["id"], version["status"]) == ("v2", "stable")
    assert version["links"][0] == {"rel": "self", "href": "http://cloud:8777/v2"}
    assert version["media-types"][0]["base"] == "application/json"


def test_links_begin_with_the_configured_base_url() -> None:
    api = ApiClient(base_url="https://metering.example.org/")
    assert api("/v2/resources/vm-1").json["links"][0]["href"] == "https://metering.example.org/v2/resources/vm-1"


@pytest.mark.parametrize("host", ["<script>", "a" * 80, "a..b"])
def test_invalid_host_header_is_not_repeated_in_the_response(api: ApiClient, host: str) -> None:
    response = api("/", headers={"Host": host})
    assert response.headers["content-type"] == "application/json"
    assert b"<" not in response.body
    assert response.status in (200, 400)


def test_meters_are_listed_per_resource_or_unique(api: ApiClient) -> None:
    by_resource = api("/v2/meters").json
    assert [(meter["name"], meter["resource_id"], meter["meter_id"]) for meter in by_resource] == [
        ("cpu", "a/b c", "YS9iIGMrY3B1"),
        ("cpu", "vm-1", "dm0tMStjcHU="),
        ("disk.size", "vm-1", "dm0tMStkaXNrLnNpemU="),
    ]
    unique = api("/v2/meters?unique=True").json
    assert [(meter["name"], meter["resource_id"], meter["meter_id"]) for meter in unique] == [
        ("cpu", None, "Tm9uZStjcHU="),
        ("disk.size", None, "Tm9uZStkaXNrLnNpemU="),
    ]


def test_meter_in_the_path_wins_over_one_in_the_query(api: ApiClient) -> None:
    assert {sample["counter_name"] for sample in api("/v2/meters/cpu?" + q("meter", "disk.size")).json} == {"cpu"}


def test_response_has_the_default_limit() -> None:
    api = ApiClient(limits=Limits(default_limit=2))
    assert len(api("/v2/samples").json) == 2
    assert len(api("/v2/samples?limit=3").json) == 3


def test_statistics_have_a_row_per_group_with_the_requested_name(api: ApiClient) -> None:
    rows = api(
        "/v2/meters/cpu/statistics?groupby=project_id&groupby=resource_metadata.flavor.name&groupby=project_id"
    ).json
    assert [row["groupby"] for row in rows] == [
        {"project_id": "blue", "resource_metadata.flavor.name": "m1"},
        {"project_id": "blue", "resource_metadata.flavor.name": None},
        {"project_id": "red", "resource_metadata.flavor.name": None},
    ]


def test_groupby_can_be_indexed(api: ApiClient) -> None:
    numbered = api("/v2/meters/cpu/statistics?groupby[1]=user_id&groupby[0]=project_id")
    assert numbered.json == api("/v2/meters/cpu/statistics?groupby=project_id&groupby=user_id").json
    assert {(row["groupby"]["project_id"], row["groupby"]["user_id"]) for row in numbered.json} == {
        ("blue", "ann"),
        ("red", "bob"),
    }


def test_statistics_of_a_meter_in_two_units_have_separate_rows_and_a_warning() -> None:
    api = ApiClient()
    units = [message(minute, name="ram", type="gauge", unit=unit) for minute, unit in ((0, "MB"), (1, "MiB"))]
    Deferred.fromCoroutine(api.store.write(units))
    response = api("/v2/meters/ram/statistics")
    assert sorted((row["unit"], row["count"]) for row in response.json) == [("MB", 1), ("MiB", 1)]
    assert response.headers["warning"] == '299 - "the samples have 2 units: MB, MiB; each unit has its own rows"'
    assert "warning" not in api("/v2/meters/cpu/statistics").headers


def test_meter_in_two_units_is_listed_in_both() -> None:
    api = ApiClient()
    units = [message(minute, name="ram", type="gauge", unit=unit) for minute, unit in ((0, "MB"), (1, "MiB"))]
    Deferred.fromCoroutine(api.store.write(units))
    listed = api("/v2/meters?" + q("resource_id", "vm-1")).json
    assert [(one["name"], one["unit"]) for one in listed] == [
        ("cpu", "ns"),
        ("disk.size", "GB"),
        ("ram", "MB"),
        ("ram", "MiB"),
    ]
    assert len({one["meter_id"] for one in listed}) == 3  # made of resource and name, as in Ceilometer
    assert [link["rel"] for link in api("/v2/resources/vm-1").json["links"]] == [
        "self",
        "cpu",
        "disk.size",
        "ram",
        "ram",
    ]
    (resource,) = api("/v1/sources/test/resources?metadata.nothing=None&end_timestamp=2026-11-22T12:02").json[
        "resources"
    ]
    assert resource["meter"] == ["cpu", "ram"]


def test_statistics_have_a_row_per_window_with_samples(api: ApiClient) -> None:
    rows = api("/v2/meters/cpu/statistics?period=60&" + q("timestamp", "2026-11-22T11:59:30", op="ge")).json
    assert [(row["period"], row["period_start"], row["period_end"], row["count"]) for row in rows] == [
        (60, "2026-11-22T11:59:30", "2026-11-22T12:00:30", 1),
        (60, "2026-11-22T12:00:30", "2026-11-22T12:01:30", 1),
        (60, "2026-11-22T12:01:30", "2026-11-22T12:02:30", 1),
    ]


def test_selected_standard_aggregates_have_their_usual_members_too(api: ApiClient) -> None:
    aggregates = "aggregate.func=cardinality&aggregate.param=resource_id&aggregate.func=max&aggregate.func=max"
    (row,) = api(f"/v2/meters/cpu/statistics?{aggregates}").json
    assert row["aggregate"] == {"cardinality/resource_id": 2.0, "max": 60.0}
    assert row["max"] == 60.0
    assert not {"min", "avg", "sum", "count"} & row.keys()


def test_all_standard_aggregates_can_be_selected(api: ApiClient) -> None:
    chosen = "&".join(f"aggregate.func={function}" for function in ("max", "min", "avg", "sum", "count"))
    (row,) = api(f"/v2/meters/cpu/statistics?{chosen}").json
    values = {"max": 60.0, "min": 10.0, "avg": 30.0, "sum": 90.0, "count": 3}
    assert row["aggregate"] == values
    assert {name: row[name] for name in values} == values
    assert isinstance(row["count"], int)


def test_selected_new_aggregates_are_in_aggregate_only(api: ApiClient) -> None:
    (row,) = api("/v2/meters/cpu/statistics?aggregate.func=stddev&aggregate.func=increase").json
    assert row["aggregate"].keys() == {"stddev", "increase"}
    assert not {"max", "min", "avg", "sum", "count", "stddev", "increase"} & row.keys()


@pytest.mark.parametrize(
    ("start", "offset", "duration"),
    [
        ("2026-11-22T12:01:00", "1", (60.0, "2026-11-22T12:01:00", "2026-11-22T12:02:00")),
        ("2026-11-22T12:05:00", "5", (None, None, None)),
    ],
)
def test_search_offset_widens_the_range_and_not_the_duration(
    api: ApiClient, start: str, offset: str, duration: tuple[Any, ...]
) -> None:
    query = q("timestamp", start, op="ge") + "&" + q("search_offset", offset, op="eq")
    (row,) = api(f"/v2/meters/cpu/statistics?{query}").json
    assert row["count"] == 3
    assert (row["duration"], row["duration_start"], row["duration_end"]) == duration


def test_capabilities_list_the_supported_features(api: ApiClient) -> None:
    able = api("/v2/capabilities").json
    assert able["storage"] == {"storage:production_ready": True}
    assert able["api"]["statistics:aggregation:selectable:stddev"] is True
    assert able["api"]["samples:query:complex"] is True


# --- paths, methods and media types --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2", 404),
        ("GET", "/v2/", 404),
        ("GET", "/v1", 404),
        ("GET", "/v2/events", 404),
        ("GET", "/v2/event_types/x/traits", 404),
        ("POST", "/v2/samples", 405),
        ("DELETE", "/v2/meters", 405),
        ("PUT", "/v2/resources/x", 405),
        ("GET", "/v2/alarms", 410),
        ("GET", "/v2/alarms/id/history", 410),
        ("POST", "/v2/query/alarms", 410),
        ("POST", "/v2/query/alarms/history", 410),
    ],
)
def test_http_error_is_an_object_if_json_is_accepted_and_a_string_otherwise(
    api: ApiClient, method: str, path: str, status: int
) -> None:
    plain = api(path, method=method, headers={"Accept": "*/*"})
    assert plain.status == status
    assert plain.headers["content-type"] == "application/json"
    assert plain.json["error_message"].startswith(f"{status} ")
    by_name = api(path, method=method, headers={"Accept": "application/json"})
    assert by_name.status == status
    assert by_name.json["error_message"].keys() == {"code", "title", "description"}
    assert by_name.json["error_message"]["code"] == status


def test_405_has_the_allowed_methods(api: ApiClient) -> None:
    assert api("/v2/samples", method="POST").headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(("path", "what"), [("samples/nope", "Sample nope"), ("resources/no/pe", "Resource no/pe")])
def test_missing_entry_is_404_with_its_id(api: ApiClient, path: str, what: str) -> None:
    response = api(f"/v2/{path}")
    assert (response.status, response.faultstring) == (404, f"{what} Not Found")


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("application/json", 200),
        ("*/*", 200),
        ("application/*", 200),
        ("text/javascript", 200),
        ("text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8", 200),
        ("application/xml, application/json;q=0.1", 200),
        ("application/xml", 406),
        ("text/xml", 406),
        ("application/json;q=0, text/plain", 406),
        ("application/json; charset=utf-8", 200),
        ("application/json;charset=UTF-8;q=0.5", 200),
        ('application/json; profile="a,b"; version=2', 200),
        ("APPLICATION/JSON", 200),
        ("application/*;version=2", 200),
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", 200),
        ("text/javascript; charset=utf-8", 200),
        ("json", 200),
        ("application/json;q=high", 200),
        (", ;", 200),
        ("application/xml; charset=utf-8", 406),
        ("application/json; charset=utf-8; q=0", 406),
        ("application/json; q=0.0, text/html", 406),
        ("*/*;q=0", 406),
    ],
)
@pytest.mark.parametrize("path", ["/v2/samples", "/v2/meters", "/v2/meters/cpu/statistics", "/v1/meters", "/"])
def test_response_is_json_or_406(api: ApiClient, path: str, accept: str, status: int) -> None:
    response = api(path, headers={"Accept": accept})
    assert response.status == status
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("text/csv; header=present", "text/csv"),
        ("application/json;q=0.5, text/csv;charset=utf-8;q=0.6", "text/csv"),
        ("text/csv;q=0.5, application/json;charset=utf-8", "application/json"),
        ("text/csv;q=0, application/x-ndjson;q=0.1, */*;q=0", "application/x-ndjson"),
        ("application/json;q=0, */*", "text/csv"),
    ],
)
def test_preferred_media_type_is_returned(api: ApiClient, accept: str, media_type: str) -> None:
    assert api("/v2/samples", headers={"Accept": accept}).headers["content-type"] == media_type


def test_json_with_quality_zero_excludes_its_aliases(api: ApiClient) -> None:
    assert api("/v2/meters", headers={"Accept": "application/json;q=0, */*"}).status == 406


@pytest.mark.parametrize(
    "method", ["OPTIONS", "PUT", "PATCH", "TRACE", "CONNECT", "PROPFIND", "M-SEARCH", "V+2", "FOO"]
)
@pytest.mark.parametrize(
    ("path", "status", "allow"),
    [
        ("/", 405, "GET, HEAD"),
        ("/v2/samples", 405, "GET, HEAD"),
        ("/v2/meters/cpu", 405, "GET, HEAD, POST"),
        ("/v2/query/samples", 405, "POST"),
        ("/v1/meters", 405, "GET, HEAD"),
        ("/v2/nothing", 404, None),
        ("/v2/alarms", 410, None),
    ],
)
def test_unknown_method_is_405_with_the_allowed_methods(
    api: ApiClient, method: str, path: str, status: int, allow: str | None
) -> None:
    response = api(path, method=method, headers={"Accept": "application/json"})
    assert (response.status, response.headers.get("allow")) == (status, allow)
    assert response.json["error_message"]["code"] == status


@pytest.mark.parametrize(
    "path", ["/", "/v2/samples", "/v2/meters/cpu/statistics", "/v2/nothing", "/v2/samples?limit=0"]
)
def test_head_equals_get_without_a_body(api: ApiClient, path: str) -> None:
    head, get = api(path, method="HEAD"), api(path)
    assert (head.status, head.body) == (get.status, b"")
    assert head.headers["content-length"] == str(len(get.body))


def test_body_of_a_non_json_type_is_415(api: ApiClient) -> None:
    response = api("/v2/samples", body=b"x", headers={"Content-Type": "text/plain; charset=utf-8"})
    assert (response.status, response.faultstring) == (415, "Unknown mimetype: text/plain")


# --- aggregates, pages, times of recording -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("meter", "asked", "value"),
    [
        ("cpu", "aggregate.func=increase", {"increase": 10.0}),
        ("cpu", "aggregate.func=rate", {"rate": 10 / 60}),
        ("disk.size", "aggregate.func=integral", {"integral": 0.0}),
        ("cpu", "aggregate.func=percentile&aggregate.param=50", {"percentile/50": 20.0}),
        ("unknown", "aggregate.func=rate", None),
    ],
)
def test_aggregates_of_counters_and_gauges(api: ApiClient, meter: str, asked: str, value: Any) -> None:
    response = api(f"/v2/meters/{meter}/statistics?{asked}")
    assert response.status == 200
    assert [row["aggregate"] for row in response.json] == ([] if value is None else [value])


def test_pages_of_samples_are_linked_and_end() -> None:
    api = ApiClient()
    path, seen = "/v2/samples?limit=3&" + q("source", "test"), []
    while path:
        response = api(path)
        seen.append([sample["id"] for sample in response.json])
        Deferred.fromCoroutine(api.store.write([message(9)]))
        link = response.headers.get("link", "")
        assert not link or link.endswith('>; rel="next"')
        path = link.partition(">")[0].removeprefix("<http://cloud:8777")
    assert seen == [["s3", "s2", "s1"], ["s0"]]


@pytest.mark.parametrize(
    ("path", "key", "found"),
    [
        ("/v2/meters?limit=1", "meter_id", ["YS9iIGMrY3B1", "dm0tMStjcHU=", "dm0tMStkaXNrLnNpemU="]),
        ("/v2/meters?limit=1&unique=1", "name", ["cpu", "disk.size"]),
        ("/v2/resources?limit=1", "resource_id", ["a/b c", "vm-1"]),
    ],
)
def test_pages_of_meters_and_resources_are_linked_and_end(
    api: ApiClient, path: str, key: str, found: list[str]
) -> None:
    seen = []
    while path:
        response = api(path)
        seen += [one[key] for one in response.json]
        path = response.headers.get("link", "").partition(">")[0].removeprefix("<http://cloud:8777")
    assert seen == found


@pytest.mark.parametrize("marker", ["x", "WyJhIiwiYiJd", "W10", "eA", "WyJcdTAwMDAiXQ"])
def test_marker_of_another_list_is_400(api: ApiClient, marker: str) -> None:
    assert "it must be taken from the Link header" in api(f"/v2/resources?marker={marker}").faultstring


def test_full_last_page_has_no_link(api: ApiClient) -> None:
    assert "link" not in api("/v2/samples?limit=4").headers
    assert "link" not in api("/v2/meters/cpu").headers
    assert "limit=2&marker=" in api("/v2/meters/cpu?limit=2").headers["link"]


@pytest.mark.parametrize("path", ["samples", "meters", "meters/cpu", "meters/cpu/statistics", "resources"])
def test_samples_recorded_after_as_of_are_excluded(api: ApiClient, path: str) -> None:
    assert api(f"/v2/{path}?as_of=2026-11-22T12:09:59").json == []
    assert api(f"/v2/{path}?as_of=2026-11-22T12:10:00").json == api(f"/v2/{path}").json != []


def test_proof_is_the_message_as_it_was_signed_and_the_key(api: ApiClient) -> None:
    proof = api("/v2/samples/s0/proof").json
    assert proof == {"message": SAMPLES[0].fields, "key_id": "key-1"}
    assert KEYS.verify(proof["message"], SAMPLES[0].timestamp) == "key-1"
    assert api("/v2/samples/nope/proof").faultstring == "Sample nope Not Found"
