"""Errors: invalid requests, unsupported methods and missing paths, in the shapes that clients parse."""

from __future__ import annotations

import pytest

from tests.api_client import ApiClient
from tests.api_client import term


@pytest.fixture(scope="module")
def api() -> ApiClient:
    return ApiClient()


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
        ("samples?q.value=x", "1 given, but only 0 q.field"),
        ("samples?q.field=user&q.value=a&q.op=eq&q.op=eq", "q.op. Value: 'eq, eq'. 2 given, but only 1 q.field"),
        ("samples?q[0].value=a", "q[0].field. Value: 'None'. Mandatory field missing"),
        ("samples?q[0].field=a&q[00].field=b", "it can be given only once"),
        ("samples?q[0].field=a&q.field=b", "cannot be used together"),
        ("samples?q[0].colour=a", 'Unknown argument: "q[0].colour"'),
        ("samples?" + term("user", "a", op="like"), "Value should be one of: lt, le, eq, ne, ge, gt"),
        ("samples?" + term("project_id", "a", op="lt"), "Value: 'lt'. unimplemented operator for project_id"),
        ("samples?" + term("metadata.a", "a", op="ne"), "Value: 'ne'. unimplemented operator for metadata.a"),
        ("samples?" + term("timestamp", "2026-01-01", op="eq"), "Value: 'eq'. unimplemented operator for timestamp"),
        ("samples?" + term("timestamp", "2026-01-01"), "Value: 'eq'. unimplemented operator for timestamp"),
        ("samples?" + term("timestamp", "Remember Remember", op="gt"), "'Remember Remember'. invalid timestamp format"),
        ("samples?" + term("timestamp", "", op="gt"), "invalid timestamp format"),
        *(
            ("samples?" + term("timestamp", text, op="ge"), "invalid timestamp format")
            for text in ("202603", "2026-13", "2026-2-30", "26-3-1", "2026-", "2026-3-1x", "2026-3-1T1", "٢٠٢٦")
        ),
        ("samples?" + term("timestamp", "0001-01-01T00:00+14:00", op="gt"), "invalid timestamp format"),
        ("samples?" + term("search_offset", "5"), "search_offset cannot be used without timestamp"),
        (
            "samples?" + term("timestamp", "2026-01-01", op="gt") + "&" + term("search_offset", "x", op="eq"),
            "field/attribute search_offset. Value: 'x'. unable to convert to int",
        ),
        (
            "samples?" + term("timestamp", "2026-01-01", op="gt") + "&" + term("search_offset", "9" * 12, op="eq"),
            "the resulting time is out of range",
        ),
        (
            "samples?" + term("wings", "3"),
            "unrecognized field in query: [<Query 'wings' eq '3'>], valid keys: ['message_id'",
        ),
        ("samples?" + term("metadata.", "3"), "unrecognized field in query"),
        (
            "meters?" + term("timestamp", "2026-01-01", op="gt"),
            'Unknown argument: "timestamp": not valid for this resource',
        ),
        ("meters?" + term("search_offset", "1"), 'Unknown argument: "search_offset": not valid for this resource'),
        ("meters?" + term("meter", "cpu"), 'Unknown argument: "meter": unrecognized field'),
        ("resources?" + term("message_id", "s0"), 'Unknown argument: "message_id": unrecognized field'),
        (
            "samples?" + term("metadata.a", "5", kind="blob"),
            "The data type blob is not supported. The supported data type",
        ),
        (
            "samples?" + term("metadata.a", "five", kind="integer"),
            "Unable to convert the value five to the expected data type integer.",
        ),
        ("samples?" + term("metadata.a", "nan", kind="float"), "Unable to convert the value nan"),
        ("samples?" + term("metadata.a", "maybe", kind="boolean"), "Unable to convert the value maybe"),
        ("samples?" + term("metadata.a", "soon", kind="datetime"), "Unable to convert the value soon"),
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
            "meters/cpu/statistics?period=1&" + term("timestamp", "2016-11-22", op="ge"),
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
