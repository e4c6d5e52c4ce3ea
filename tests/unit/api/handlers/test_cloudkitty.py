"""``/v2/summary`` and ``/v2/dataframes`` in CloudKitty's format: what tenants and administrators see, groups, pages and errors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from meter.api.auth.requester import Requester
from meter.api.auth.static_tokens import StaticTokens
from meter.rating.book.price_book import PriceScope
from tests.api_client import ApiClient
from tests.rated_month import FixedPrices
from tests.rated_month import keep_usage
from tests.unit.api.auth.test_visibility import token

NOVEMBER = "begin=2025-10-31T22:00:00&end=2025-12-01T00:00:00"
TOKENS = StaticTokens(
    [
        token("shop-token", Requester(is_admin=False, project_id="shop")),
        token("lab-token", Requester(is_admin=False, project_id="lab")),
        token("unscoped-token", Requester(is_admin=False)),
        token("admin-token", Requester(is_admin=True)),
    ]
)


def a_year_before() -> Clock:
    """A clock that the client sets to a time in the worked month, a year before that of its samples."""
    clock = Clock()
    clock.rightNow = -365 * 86400.0
    return clock


def made(**collaborators: Any) -> ApiClient:
    prices = FixedPrices(None)  # type: ignore[arg-type]
    api = ApiClient(auth=TOKENS, prices=prices, clock=a_year_before(), **collaborators)
    Deferred.fromCoroutine(keep_usage(api.store)).addCallback(lambda directory: setattr(prices, "directory", directory))
    return api


@pytest.fixture(scope="module")
def api() -> ApiClient:
    return made()


def get(api: ApiClient, path: str, who: str = "admin") -> Any:
    response = api(path, headers={"X-Auth-Token": f"{who}-token"})
    assert response.status == 200, response.body
    return response.json


def refused(api: ApiClient, path: str, who: str = "admin") -> tuple[int, str]:
    response = api(path, headers={"X-Auth-Token": f"{who}-token"})
    return response.status, response.body.decode()


def test_summary_has_the_columns_of_cloudkitty(api: ApiClient) -> None:
    found = get(api, f"/v2/summary?{NOVEMBER}&groupby=type,project_id&filters=project_id:lab")
    assert found == {
        "total": 2,
        "columns": ["begin", "end", "qty", "rate", "type", "project_id"],
        "results": [
            ["2025-10-31T22:00:00+00:00", "2025-12-01T00:00:00+00:00", 0.5, 0.00625, "vm", "lab"],
            found["results"][1],
        ],
        "format": "table",
    }


def test_summary_can_be_a_list_of_objects(api: ApiClient) -> None:
    found = get(api, f"/v2/summary?{NOVEMBER}&groupby=type&filters=project_id:lab&response_format=object")
    assert found["results"][0] == {
        "begin": "2025-10-31T22:00:00+00:00",
        "end": "2025-12-01T00:00:00+00:00",
        "qty": 0.5,
        "rate": 0.00625,
        "type": "vm",
    }
    assert "columns" not in found


def test_tenant_sees_their_own_project(api: ApiClient) -> None:
    found = get(api, f"/v2/summary?{NOVEMBER}&groupby=project_id", "shop")
    assert [row[4] for row in found["results"]] == ["shop"]
    [row] = get(api, f"/v2/summary?{NOVEMBER}&filters=project_id:shop", "shop")["results"]
    assert row[2:] == found["results"][0][2:4]


def test_tenant_may_not_ask_for_another_project(api: ApiClient) -> None:
    assert refused(api, f"/v2/summary?{NOVEMBER}&filters=project_id:shop", "lab")[0] == 401
    found = get(api, f"/v2/summary?{NOVEMBER}&filters=project_id:shop,project_id:lab&groupby=project_id", "lab")
    assert [row[4] for row in found["results"]] == ["lab"]


def test_requester_without_a_project_sees_nothing(api: ApiClient) -> None:
    assert refused(api, f"/v2/summary?{NOVEMBER}", "unscoped")[0] in (401, 403)


def test_sums_of_several_currencies_are_refused(api: ApiClient) -> None:
    status, text = refused(api, f"/v2/summary?{NOVEMBER}")
    assert (status, "group by currency" in text) == (400, True)
    found = get(api, f"/v2/summary?{NOVEMBER}&groupby=currency")
    assert [row[4] for row in found["results"]] == ["EUR", "JPY", "KWD"]


def test_pages_of_a_summary(api: ApiClient) -> None:
    every = get(api, f"/v2/summary?{NOVEMBER}&groupby=time-d", "shop")
    page = get(api, f"/v2/summary?{NOVEMBER}&groupby=time-d&limit=2&offset=1", "shop")
    assert page["total"] == every["total"] == len(every["results"]) > 10
    assert page["results"] == every["results"][1:3]


def test_without_costs_a_summary_is_empty(api: ApiClient) -> None:
    found = get(api, "/v2/summary?begin=2025-01-01&end=2025-02-01")
    assert found == {"total": 0, "columns": [], "results": [], "format": "table"}


def test_data_frames_are_resources_and_days(api: ApiClient) -> None:
    found = get(api, f"/v2/dataframes?{NOVEMBER}&filters=type:vm", "lab")
    assert found == {
        "total": 1,
        "dataframes": [
            {
                "usage": {
                    "vm": [
                        {
                            "vol": {"unit": "Hours", "qty": 0.5},
                            "rating": {"price": 0.00625},
                            "groupby": {"id": "job-1", "project_id": "lab"},
                            "metadata": {"flavor": "m1.small", "currency": "EUR", "account_id": "acme"},
                        }
                    ]
                },
                "period": {"begin": "2025-11-29T23:00:00+00:00", "end": "2025-11-30T23:00:00+00:00"},
            }
        ],
    }


def test_pages_of_data_frames(api: ApiClient) -> None:
    def points(page: Any) -> list[Any]:
        return [
            (frame["period"], sku, point)
            for frame in page["dataframes"]
            for sku in frame["usage"]
            for point in frame["usage"][sku]
        ]

    every = get(api, f"/v2/dataframes?{NOVEMBER}", "shop")
    page = get(api, f"/v2/dataframes?{NOVEMBER}&offset=3&limit=5", "shop")
    assert page["total"] == every["total"]
    assert points(page) == points(every)[3:8]


def test_a_resource_can_be_asked_for(api: ApiClient) -> None:
    [row] = get(api, f"/v2/summary?{NOVEMBER}&groupby=id&filters=id:job-1", "lab")["results"]
    assert row[2:] == [0.5, 0.00625, "job-1"]


def test_default_is_the_present_month(api: ApiClient) -> None:
    [row] = get(api, "/v2/summary", "lab")["results"]
    assert row[:2] == ["2025-11-01T00:00:00+00:00", "2025-12-01T00:00:00+00:00"]


@pytest.mark.parametrize(
    "query",
    [
        "groupby=nothing",
        "groupby=time,time-d",
        "filters=type",
        "filters=nothing:x",
        "begin=2025-11-02&end=2025-11-01",
        "begin=2024-11-01&end=2025-11-01",
        "begin=0001-01-01&end=0001-01-02",
        "response_format=xml",
        "limit=0",
        "limit=1000000",
        "offset=-1",
        "begin=yesterday",
    ],
)
def test_invalid_arguments_are_errors(api: ApiClient, query: str) -> None:
    assert refused(api, f"/v2/summary?{query}")[0] == 400


def test_times_are_accepted_as_the_client_writes_them(api: ApiClient) -> None:
    times = "begin=2025-11-01+00%3A00%3A00%2B00%3A00&end=2025-12-01+00%3A00%3A00"
    assert get(api, f"/v2/dataframes?{times}", "lab")["total"] > 0


def test_without_a_price_directory_rating_is_not_configured() -> None:
    status, text = refused(ApiClient(auth=TOKENS), "/v2/summary")
    assert (status, "not configured" in text) == (404, True)


def test_names_of_values_are_those_of_the_books(api: ApiClient) -> None:
    found = get(api, f"/v2/summary?{NOVEMBER}&groupby=flavor&filters=type:vm", "shop")
    assert [row[4] for row in found["results"]] == ["m1.large", "m1.small"]


# --- open statements -----------------------------------------------------------------------------------------------


def test_open_statement_of_an_account_is_a_preview(api: ApiClient) -> None:
    [entry] = get(api, "/v2/statements?state=open&account_id=acme")
    assert (entry["statement_id"], entry["state"], entry["projects"]) == ("2025-11.acme", "open", ["lab", "shop"])
    assert entry["total"] is not None
    assert entry["forecast"] is not None
    document = get(api, "/v2/statements/2025-11.acme")
    assert (document["statement"]["state"], document["signature"]) == ("open", "")
    assert document["statement"]["total"] == entry["total"]


def test_tenant_sees_the_extract_of_an_open_statement(api: ApiClient) -> None:
    [entry] = get(api, "/v2/statements?state=open", "lab")
    assert (entry["extract"], entry["total"], entry["forecast"], entry["projects"]) == (True, None, None, ["lab"])
    part = get(api, f"/v2/statements/{entry['statement_id']}", "lab")
    assert part["format"] == "meter-statement-extract-1"
    assert {line["key"].split("/")[1] for line in part["lines"]} == {"lab"}


@pytest.mark.parametrize("path", ["/v2/statements/2025-11.sakura", "/v2/statements/2025-11.nobody", "/v2/statements/x"])
def test_open_statement_of_others_is_as_one_that_does_not_exist(api: ApiClient, path: str) -> None:
    assert refused(api, path, "lab")[0] == 404


def test_open_statement_of_another_account_is_not_listed(api: ApiClient) -> None:
    assert get(api, "/v2/statements?state=open&account_id=sakura", "lab") == []


def test_charges_for_all_make_no_statement_of_an_account_that_nobody_knows() -> None:
    prices: Any = FixedPrices(None)  # type: ignore[arg-type]
    api = ApiClient(auth=TOKENS, prices=prices, clock=a_year_before())
    directory: list[Any] = []
    Deferred.fromCoroutine(keep_usage(api.store)).addCallback(directory.append)
    book = directory[0].books["eur"]
    for_all = tuple(replace(each, scope=PriceScope()) for each in book.fixed_charges)
    prices.directory = replace(directory[0], books={**directory[0].books, "eur": replace(book, fixed_charges=for_all)})
    assert get(api, "/v2/statements?state=open&account_id=nobody") == []
    assert len(get(api, "/v2/statements?state=open&account_id=acme")) == 1


def test_page_of_a_preview_says_that_it_is_one(api: ApiClient) -> None:
    response = api("/v2/statements/2025-11.acme?format=html", headers={"X-Auth-Token": "admin-token"})
    assert b"Preview of a statement" in response.body


def test_annex_is_there_when_the_statement_is_closed(api: ApiClient) -> None:
    assert refused(api, "/v2/statements/2025-11.acme/annex")[0] == 404


@pytest.mark.parametrize("query", ["state=open", "state=half", "state=open&account_id=acme&period=soon"])
def test_invalid_questions_about_open_statements_are_errors(api: ApiClient, query: str) -> None:
    assert refused(api, f"/v2/statements?{query}")[0] == 400


def test_without_a_price_directory_there_are_no_open_statements() -> None:
    assert get(ApiClient(auth=TOKENS), "/v2/statements?state=open&account_id=acme") == []


def test_account_without_a_book_is_an_error(api: ApiClient) -> None:
    other = made()
    prices: Any = FixedPrices(None)  # type: ignore[arg-type]
    directory: list[Any] = []
    Deferred.fromCoroutine(keep_usage(other.store)).addCallback(directory.append)
    accounts = {**directory[0].accounts, "acme": replace(directory[0].accounts["acme"], book="gone")}
    prices.directory = replace(directory[0], accounts=accounts)
    broken = ApiClient(auth=TOKENS, store=other.store, prices=prices, clock=a_year_before())
    status, text = refused(broken, "/v2/statements?state=open&account_id=acme")
    assert (status, "no price book" in text) == (400, True)
