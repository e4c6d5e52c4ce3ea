"""Usage without a price: the operation, the page of prices and the Overview, for administrators alone."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from meter.rating.period import BillingPeriod
from tests.api_client import NOON
from tests.api_client import ApiClient
from tests.api_client import Response
from tests.api_client import message
from tests.unit.api.auth.test_visibility import TOKENS
from tests.unit.api.handlers.test_prices import prices_of

BOOK = """
[[book]]
name = "eur"
currency = "EUR"
timezone = "UTC"
issuer = "Cloud"
default = true

[[sku]]
id = "volumes"
category = "Storage"
usage = "sum"
meter = "volume.made"
unit = "Volumes"
factor = "1"
by = ["kind"]

[[price]]
sku = "volumes"
match = { kind = "hdd" }
price = "1"
"""
EVERYTHING = BOOK + '\n[[price]]\nsku = "volumes"\nprice = "2"\n'


def made(tmp_path: Path, text: str = BOOK) -> ApiClient:
    (tmp_path / "prices.toml").write_text(text)
    prices = prices_of(tmp_path)
    api = ApiClient(auth=TOKENS, prices=prices)
    kinds = {"v1": "hdd", "v2": "<i>ssd", "v3": "<i>ssd"}
    samples = [
        message(
            message_id=id,
            name="volume.made",
            type="delta",
            volume=1,
            resource_id=id,
            project_id="blue",
            resource_metadata={"kind": kind},
        )
        for id, kind in kinds.items()
    ]
    now = datetime.fromtimestamp(api.clock.seconds(), UTC)

    async def prepare() -> None:
        await api.store.write(samples)
        [book] = (await prices.current()).books.values()
        await api.store.rating.usage.refresh(book, BillingPeriod.containing(now, book.timezone), now)

    outcome: list[Any] = []
    Deferred.fromCoroutine(prepare()).addBoth(outcome.append)
    assert outcome == [None], outcome
    return api


@pytest.fixture
def api(tmp_path: Path) -> ApiClient:
    return made(tmp_path)


def get(api: ApiClient, path: str, who: str = "admin", **headers: str) -> Response:
    return api(path, headers={"X-Auth-Token": f"{who}-token", **headers})


def test_operation_tells_what_was_used_by_how_many(api: ApiClient) -> None:
    [entry] = get(api, "/v2/unpriced-usage").json
    month = f"{NOON:%Y-%m}"
    assert (entry["period"], entry["book"], entry["sku"], entry["meter"]) == (month, "eur", "volumes", "volume.made")
    assert (entry["values"], entry["quantity"], entry["unit"]) == ({"kind": "<i>ssd"}, "2", "Volumes")
    assert (entry["resources"], entry["projects"], entry["accounts"]) == (2, 1, 1)
    assert entry["from"] == f"{NOON:%Y-%m-%d}"


def test_page_of_prices_and_overview_name_it_with_links(api: ApiClient) -> None:
    page = get(api, "/prices").body.decode()
    assert "&lt;i&gt;ssd" in page
    assert "<i>ssd" not in page
    [link] = [
        part.partition('"')[0].replace("&amp;", "&")
        for part in page.split('<a href="')[1:]
        if part.startswith("/usage?meter=")
    ]
    usage = get(api, link).body.decode()
    assert "Sum of <bdi>volume.made</bdi> by project" in usage
    overview = get(api, "/", Accept="text/html,application/xhtml+xml").body.decode()
    assert f"usage without a price in {NOON:%Y-%m}: volumes" in overview
    assert 'href="/prices#unpriced"' in overview


def test_tenants_see_nothing_of_it(api: ApiClient) -> None:
    assert get(api, "/v2/unpriced-usage", "blue").status == 403
    assert "ssd" not in get(api, "/prices", "blue").body.decode()
    overview = get(api, "/", "blue", Accept="text/html,application/xhtml+xml").body.decode()
    assert "usage without a price" not in overview


def test_usage_with_a_price_for_everybody_is_not_even_read(tmp_path: Path) -> None:
    api = made(tmp_path, EVERYTHING)
    api.store.rating.usage = None
    assert get(api, "/v2/unpriced-usage").json == []
    assert "has a price, as far as usage is rated" in get(api, "/prices").body.decode()


def test_without_rating_there_is_no_such_thing() -> None:
    assert get(ApiClient(auth=TOKENS), "/v2/unpriced-usage").status == 404


def test_an_answer_is_kept_for_a_few_minutes(api: ApiClient) -> None:
    first = get(api, "/v2/unpriced-usage").json
    usage, api.store.rating.usage = api.store.rating.usage, None
    api.clock.advance(299)
    assert get(api, "/v2/unpriced-usage").json == first
    api.store.rating.usage = usage
    usage._kept.clear()
    assert get(api, "/v2/unpriced-usage").json == first
    api.clock.advance(1)
    assert get(api, "/v2/unpriced-usage").json == []
