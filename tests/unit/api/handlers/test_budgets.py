"""``/v2/budgets``: what tenants and administrators see of budgets."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock

from meter.rating.book.watched_directory import WatchedPriceDirectory
from meter.rating.budgets.budget_state import BudgetGap
from meter.rating.budgets.budget_state import BudgetScope
from meter.rating.budgets.budget_state import BudgetState
from meter.rating.budgets.budget_state import BudgetThreshold
from tests.api_client import ApiClient
from tests.unit.api.auth.test_visibility import TOKENS

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOSTILE = "<script>„Größe“\0\r\n予算"


def state(budget_id: str, period: str = "2026-11", **scope: str) -> BudgetState:
    return BudgetState(
        budget_id=budget_id,
        name=HOSTILE,
        scope=BudgetScope(**scope),
        sku=None,
        period=period,
        start=datetime(2026, 10, 31, 23, tzinfo=UTC),
        end=datetime(2026, 11, 30, 23, tzinfo=UTC),
        currency="EUR",
        unit=None,
        limit=Decimal("1000.00"),
        used=Decimal("812.40"),
        forecast=None,
        evaluated_at=NOON,
        thresholds=(
            BudgetThreshold(basis="used", percent=Decimal(80), reached_at=NOON),
            BudgetThreshold(basis="forecast", percent=Decimal("100.5")),
        ),
        gaps=(BudgetGap(code="missing", text="3 samples are missing", samples=3),),
    )


STATES = [
    state("acme", account_id="acme"),
    state("blue-eur", project_id="blue"),
    state("blue-old", "2026-10", project_id="blue"),
    state("d1", domain_id="d1"),
    state("green-eur", project_id="green"),
]


@pytest.fixture
def prices(tmp_path: Path) -> WatchedPriceDirectory:
    return WatchedPriceDirectory(tmp_path, Clock(), in_thread=maybeDeferred)


@pytest.fixture
def api(prices: WatchedPriceDirectory) -> ApiClient:
    api = ApiClient(auth=TOKENS, prices=prices)
    ids = [each.budget_id for each in STATES]
    Deferred.fromCoroutine(api.store.rating.budgets.keep_states(STATES, ids))
    return api


def call(api: ApiClient, who: str, query: str = "") -> Any:
    return api(f"/v2/budgets{query}", headers={"X-Auth-Token": f"{who}-token"})


def ids(api: ApiClient, who: str, query: str = "") -> list[str]:
    response = call(api, who, query)
    assert response.status == 200, response.body
    return [each["budget_id"] for each in response.json]


def test_budget_is_shown_with_its_figures_thresholds_and_gaps(api: ApiClient) -> None:
    [shown] = call(api, "blue", "?budget_id=blue-eur").json
    assert shown == {
        "budget_id": "blue-eur",
        "name": HOSTILE,
        "project_id": "blue",
        "account_id": None,
        "domain_id": None,
        "sku": None,
        "period": "2026-11",
        "start": "2026-10-31T23:00:00",
        "end": "2026-11-30T23:00:00",
        "currency": "EUR",
        "unit": None,
        "limit": "1000.00",
        "used": "812.40",
        "used_percent": "81.24",
        "forecast": None,
        "forecast_percent": None,
        "left": "187.60",
        "complete": False,
        "gaps": [{"code": "missing", "text": "3 samples are missing", "seconds": 0, "samples": 3}],
        "thresholds": [
            {"basis": "used", "percent": "80", "reached_at": "2026-11-20T12:00:00"},
            {"basis": "forecast", "percent": "100.5", "reached_at": None},
        ],
        "evaluated_at": "2026-11-20T12:00:00",
    }


def test_tenant_sees_budgets_of_the_own_project_alone(api: ApiClient) -> None:
    assert ids(api, "blue") == ["blue-eur", "blue-old"]
    assert ids(api, "blue", "?project_id=blue&period=2026-11") == ["blue-eur"]
    for hidden in ("green-eur", "acme", "d1"):
        assert ids(api, "blue", f"?budget_id={hidden}") == []


def test_administrator_sees_all(api: ApiClient) -> None:
    assert ids(api, "admin") == ["acme", "blue-eur", "blue-old", "d1", "green-eur"]
    assert ids(api, "admin", "?project_id=green") == ["green-eur"]
    assert ids(api, "admin", "?period=2026-10") == ["blue-old"]


def test_project_of_others_is_401_and_none_is_403(api: ApiClient) -> None:
    assert call(api, "blue", "?project_id=green").status == 401
    assert call(api, "unscoped").status == 403


def test_pages_follow_each_other(api: ApiClient) -> None:
    response = call(api, "admin", "?limit=2")
    assert [each["budget_id"] for each in response.json] == ["acme", "blue-eur"]
    link = response.headers["link"].partition(">")[0].partition("?")[2]
    assert ids(api, "admin", f"?{link}") == ["blue-old", "d1"]
    assert "link" not in call(api, "admin", "?limit=2&marker=4").headers


@pytest.mark.parametrize("period", ["soon", "2026", "2026-13", "2026-11-01", "0000-01", "\0", "２０２６-11"])
def test_period_that_is_none_is_400(api: ApiClient, period: str) -> None:
    assert call(api, "blue", f"?period={quote(period)}").status == 400


@pytest.mark.parametrize("name", ["%", "'; DROP TABLE webhook; --", "予算", "x" * 5000])
def test_odd_ids_are_those_of_no_budget(api: ApiClient, name: str) -> None:
    assert ids(api, "admin", f"?budget_id={quote(name)}") == []


def test_server_without_a_price_directory_says_so() -> None:
    response = call(ApiClient(auth=TOKENS), "blue")
    assert response.status == 404
    assert b"Rating is not configured" in response.body


def test_unavailable_store_is_503(api: ApiClient) -> None:
    api.store.unavailable = "no database"
    assert call(api, "blue").status == 503
