"""Statistics: groups, windows, aggregates and units."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from meter.api import RequestLimits
from tests.api_client import ApiClient
from tests.api_client import message
from tests.api_client import term


@pytest.fixture(scope="module")
def api() -> ApiClient:
    return ApiClient()


def test_limit_of_windows_covers_all_groups_together() -> None:
    api = ApiClient(limits=RequestLimits(max_windows=2))
    path = "/v2/meters/cpu/statistics?period=60&groupby=resource_id"
    assert len(api(f"{path}&{term('resource_id', 'vm-1')}").json) == 2
    response = api(path)
    assert response.status == 400
    assert response.faultstring.startswith("There are more than 2 rows of windows and groups: use a longer period")


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


def test_statistics_have_a_row_per_window_with_samples(api: ApiClient) -> None:
    rows = api("/v2/meters/cpu/statistics?period=60&" + term("timestamp", "2026-11-22T11:59:30", op="ge")).json
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
    query = term("timestamp", start, op="ge") + "&" + term("search_offset", offset, op="eq")
    (row,) = api(f"/v2/meters/cpu/statistics?{query}").json
    assert row["count"] == 3
    assert (row["duration"], row["duration_start"], row["duration_end"]) == duration


@pytest.mark.parametrize(
    ("meter", "query", "value"),
    [
        ("cpu", "aggregate.func=increase", {"increase": 10.0}),
        ("cpu", "aggregate.func=rate", {"rate": 10 / 60}),
        ("disk.size", "aggregate.func=integral", {"integral": 0.0}),
        ("cpu", "aggregate.func=percentile&aggregate.param=50", {"percentile/50": 20.0}),
        ("unknown", "aggregate.func=rate", None),
    ],
)
def test_aggregates_of_counters_and_gauges(api: ApiClient, meter: str, query: str, value: Any) -> None:
    response = api(f"/v2/meters/{meter}/statistics?{query}")
    assert response.status == 200
    assert [row["aggregate"] for row in response.json] == ([] if value is None else [value])
