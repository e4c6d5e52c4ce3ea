"""The present month: its preview and forecast, its days and resources, for who pays and for a project among others."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from twisted.internet.defer import Deferred

from tests.api_client import ApiClient
from tests.unit.api.handlers.test_budgets import state
from tests.unit.api.handlers.test_cloudkitty import made

PREVIEWED = "/statement?id=2025-11."


@pytest.fixture(scope="module")
def api() -> ApiClient:
    return made()


def get(api: ApiClient, path: str, who: str = "admin") -> str:
    response = api(path, headers={"X-Auth-Token": f"{who}-token", "Accept": "*/*"})
    assert response.status == 200, response.body
    return response.body.decode()


def opened(api: ApiClient, query: str, who: str = "admin") -> Any:
    [entry] = api(f"/v2/statements?state=open&{query}", headers={"X-Auth-Token": f"{who}-token"}).json
    return entry


def shown(amount: str) -> str:
    return f"{float(amount):,.{len(amount.partition('.')[2])}f}".replace(",", "\u202f").replace("-", "\u2212")


def test_month_so_far_and_forecast_are_those_of_the_api(api: ApiClient) -> None:
    entry = opened(api, "project_id=shop")
    page = get(api, f"/statements?account_id={entry['account_id']}")
    assert "This month so far" in page
    assert f"{shown(entry['total'])} {entry['currency']}" in page
    assert f"{shown(entry['forecast'])} {entry['currency']}" in page
    assert "Computed" in page


def test_administrator_chooses_an_account_first(api: ApiClient) -> None:
    page = get(api, "/statements")
    assert "Choose an account" in page
    assert "<datalist" in page
    assert "<datalist" not in get(api, "/statements", "shop")


def test_project_sees_what_the_api_lets_it_see(api: ApiClient) -> None:
    for who in ("shop", "lab"):
        entry = opened(api, "", who)
        page = get(api, f"/statement?id={entry['statement_id']}", who)
        assert "The period is open" in page
        assert ("Sum of your project" in page) == entry["extract"]
        if entry["total"] is not None:
            assert shown(entry["total"]) in page


def test_days_and_resources_have_the_sums_of_the_api(api: ApiClient) -> None:
    entry = opened(api, "project_id=shop")
    at = f"id={entry['statement_id']}&project_id=shop"
    days, resources = get(api, f"/statement/days?{at}"), get(api, f"/statement/days?{at}&by=resource&sku=")
    assert '<th scope="row"><bdi>2025-11-' in days
    assert "<rect" in days
    assert "<rect" in resources


def test_days_of_another_project_are_refused(api: ApiClient) -> None:
    entry = opened(api, "", "lab")
    response = api(f"/statement/days?id={entry['statement_id']}&project_id=shop", headers={"X-Auth-Token": "lab-token"})
    assert response.status == 403


def test_without_a_project_nothing_is_shown(api: ApiClient) -> None:
    assert api("/statements", headers={"X-Auth-Token": "unscoped-token"}).status == 403


def test_only_budgets_of_the_chosen_account_are_shown_with_what_is_not_counted() -> None:
    api = made()
    shared, own = opened(api, "project_id=shop")["account_id"], opened(api, "project_id=shop")["projects"][0]
    states = [
        msgspec.structs.replace(state(name, **scope), name=name)
        for name, scope in (
            ("of-the-account", {"account_id": shared}),
            ("of-its-project", {"project_id": own}),
            ("of-another", {"account_id": "another"}),
            ("of-a-lone-project", {"project_id": "lone"}),
        )
    ]
    Deferred.fromCoroutine(api.store.rating.budgets.keep_states(states, [each.budget_id for each in states]))

    def budgets(query: str) -> set[str]:
        page = get(api, f"/statements{query}")
        return {each.name for each in states if f"<bdi>{each.name}</bdi>" in page}

    assert budgets("") == {each.name for each in states}
    assert budgets(f"?account_id={shared}") == {"of-the-account", "of-its-project"}
    assert budgets("?account_id=lone") == {"of-a-lone-project"}
    page = get(api, "/statements")
    assert "3 samples are missing" in page
    assert "before taxes" in page
