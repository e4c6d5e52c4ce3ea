"""``/v2/prices``: what tenants and administrators see of the price book."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock

from meter.identity_report import IdentityName
from meter.identity_report import IdentityReport
from meter.rating.book.watched_directory import WatchedPriceDirectory
from tests.api_client import ApiClient
from tests.unit.api.auth.test_visibility import TOKENS

BOOKS = """
[[book]]
name = "euro"
currency = "EUR"
timezone = "Europe/Paris"
issuer = "Example Cloud"
default = true
[[book]]
name = "yen"
currency = "JPY"
timezone = "Asia/Tokyo"
issuer = "Example Cloud"
[[sku]]
id = "vm"
usage = "exists"
resource_kind = "instance"
unit = "Hours"
by = ["flavor"]
[[tax]]
book = "euro"
category = "standard"
name = "VAT"
percent = 20
[[account]]
id = "acme"
projects = ["blue", "secret-2"]
[[account]]
id = "secret-3"
projects = ["red"]
book = "yen"
[[account]]
id = "secret-4"
"""

PRICE = '[[price]]\nbook = "{book}"\nsku = "vm"\nid = "{id}"\nprice = "{price}"\n{more}\n'
PRICES = [
    ("euro", "list", "1", 'list = "2"'),
    ("euro", "of blue", "3", 'project = "blue"'),
    ("euro", "of acme", "4", 'account = "acme"'),
    ("euro", "of domain", "5", 'domain = "d1"'),
    ("euro", "secret-domain", "6", 'domain = "d2"'),
    ("euro", "secret-project", "7", 'project = "green2"'),
    ("euro", "secret-project-2", "8", 'project = "secret-2"'),
    ("euro", "secret-account", "9", 'account = "secret-4"'),
    ("euro", "past", "10", 'match = {flavor = "old"}\nuntil = 2026-11-22'),
    ("euro", "future", "11", 'match = {flavor = "new"}\nfrom = 2027-01-01'),
    ("yen", "secret-yen", "12", ""),
]
SCOPED = [
    ("discount", 'percent = "7"'),
    ("minimum", 'amount = "7"\nper = "project"'),
    ("credit", 'amount = "7"'),
    ("fixed_charge", 'amount = "7"\nrecurring = true'),
]


def texts() -> str:
    tables = [PRICE.format(book=book, id=id, price=price, more=more) for book, id, price, more in PRICES]
    for kind, keys in SCOPED:
        for who in ("blue", "secret-2"):
            tables.append(
                f'[[{kind}]]\nbook = "euro"\nid = "{who} {kind}"\ndescription = ""\nproject = "{who}"\n{keys}\n'
            )
    return BOOKS + "".join(tables)


def prices_of(path: Path) -> WatchedPriceDirectory:
    return WatchedPriceDirectory(path, Clock(), in_thread=maybeDeferred)


@pytest.fixture
def api(tmp_path: Path) -> ApiClient:
    (tmp_path / "prices.toml").write_text(texts())
    api = ApiClient(auth=TOKENS, prices=prices_of(tmp_path))
    names = [IdentityName("project", "blue", "b", "1970-01-01T00:00:00", domain="d1")]
    report = IdentityReport("keystone", "m", "1970-01-01T00:00:00", tuple(names))
    Deferred.fromCoroutine(api.store.record_identities(report))
    return api


def get(api: ApiClient, who: str, query: str = "") -> Any:
    response = api(f"/v2/prices{query}", headers={"X-Auth-Token": f"{who}-token"})
    assert response.status == 200, response.body
    return response.json


def ids(book: Any) -> set[str]:
    return {each["id"] for sku in book["skus"] for each in sku["prices"]}


def test_tenant_sees_list_prices_and_those_agreed_with_itself_its_account_and_its_domain(api: ApiClient) -> None:
    [book] = get(api, "blue")
    assert book["book"] == "euro"
    assert ids(book) == {"list", "of blue", "of acme", "of domain", "future"}
    for kind in ("discounts", "minimums", "credits", "fixed_charges"):
        assert [each["id"].split()[0] for each in book[kind]] == ["blue"]
    assert [each["category"] for each in book["taxes"]] == ["standard"]


def test_tenant_without_an_agreement_sees_list_prices(api: ApiClient) -> None:
    [book] = get(api, "green")
    assert ids(book) == {"list", "future"}
    assert book["discounts"] == book["minimums"] == book["credits"] == book["fixed_charges"] == []


@pytest.mark.parametrize("who", ["blue", "green"])
@pytest.mark.parametrize("query", ["", "?day=2026-11-01", "?day=2030-01-01"])
def test_nothing_of_others_is_in_the_response(api: ApiClient, who: str, query: str) -> None:
    assert "secret" not in json.dumps(get(api, who, query))


def test_administrator_sees_everything(api: ApiClient) -> None:
    euro, yen = get(api, "admin")
    assert ids(euro) == {id for book, id, _, _ in PRICES if book == "euro"} - {"past"}
    assert ids(yen) == {"secret-yen"}
    assert len(euro["credits"]) == 2


def test_price_is_shown_with_all_that_it_depends_on(api: ApiClient) -> None:
    [book] = get(api, "green")
    [listed] = [each for each in book["skus"][0]["prices"] if each["id"] == "list"]
    assert listed == {
        "id": "list",
        "match": {},
        "from": None,
        "until": None,
        "project_id": None,
        "account_id": None,
        "domain_id": None,
        "mode": "unit",
        "tiers": [{"up_to": None, "list_price": "2", "price": "1"}],
        "package_size": None,
        "per": "account",
        "free": "0",
        "free_prorated": False,
        "per_month": False,
    }


def test_prices_of_a_day_are_those_that_are_valid_then(api: ApiClient) -> None:
    assert ids(get(api, "green", "?day=2026-11-21")[0]) == {"list", "past"}
    assert ids(get(api, "green", "?day=2027-01-01")[0]) == {"list", "future"}


@pytest.mark.parametrize("day", ["soon", "2026-02-29", "2026-11-01T00:00", "%30"])
def test_day_that_is_none_is_400(api: ApiClient, day: str) -> None:
    assert api(f"/v2/prices?day={day}", headers={"X-Auth-Token": "green-token"}).status == 400


def test_server_without_a_price_directory_says_so() -> None:
    response = ApiClient(auth=TOKENS)("/v2/prices", headers={"X-Auth-Token": "green-token"})
    assert response.status == 404
    assert b"Rating is not configured" in response.body


def test_faulty_price_directory_is_503_without_its_faults(tmp_path: Path, logged_errors: Any) -> None:
    (tmp_path / "prices.toml").write_text(BOOKS.replace('currency = "EUR"', 'currency = "secret"'))
    api = ApiClient(auth=TOKENS, prices=prices_of(tmp_path))
    response = api("/v2/prices", headers={"X-Auth-Token": "green-token"})
    assert response.status == 503
    assert b"secret" not in response.body
    assert logged_errors.flush()


def test_token_without_a_project_is_403(api: ApiClient) -> None:
    assert api("/v2/prices", headers={"X-Auth-Token": "unscoped-token"}).status == 403
