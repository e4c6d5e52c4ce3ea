"""The pages of prices: whose prices are shown to whom, what is wrong with files, a new book, and quotes."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from twisted.internet.defer import Deferred

from meter.identity_report import IdentityName
from meter.identity_report import IdentityReport
from tests.api_client import ApiClient
from tests.api_client import Response
from tests.unit.api.auth.test_visibility import TOKENS
from tests.unit.api.handlers.test_prices import prices_of
from tests.unit.api.handlers.test_prices import texts

OWN_PAGE = {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/x-www-form-urlencoded"}


def client(tmp_path: Path, text: str) -> ApiClient:
    (tmp_path / "prices.toml").write_text(text)
    return ApiClient(auth=TOKENS, prices=prices_of(tmp_path))


@pytest.fixture
def api(tmp_path: Path) -> ApiClient:
    api = client(tmp_path, texts())
    names = [IdentityName("project", "blue", "b", "1970-01-01T00:00:00", domain="d1")]
    report = IdentityReport("keystone", "m", "1970-01-01T00:00:00", tuple(names))
    Deferred.fromCoroutine(api.store.record_identities(report))
    return api


def get(api: ApiClient, path: str, who: str = "admin") -> Response:
    return api(path, headers={"X-Auth-Token": f"{who}-token"})


def text(api: ApiClient, path: str, who: str = "admin") -> str:
    response = get(api, path, who)
    assert response.status == 200, response.body
    return response.body.decode()


def post(api: ApiClient, who: str = "admin", **fields: str) -> Response:
    headers = {"X-Auth-Token": f"{who}-token", **OWN_PAGE}
    return api("/prices/difference", method="POST", headers=headers, body=urlencode(fields).encode())


@pytest.mark.parametrize("query", ["", "?day=2026-11-01", "?account_id=secret-4", "?day=2030-01-01"])
@pytest.mark.parametrize("who", ["blue", "green"])
def test_nothing_of_others_is_on_the_page(api: ApiClient, who: str, query: str) -> None:
    assert "secret" not in text(api, f"/prices{query}", who)


def test_prices_agreed_with_the_requester_are_marked(api: ApiClient) -> None:
    page = text(api, "/prices", "blue")
    assert "your project <bdi>blue</bdi>" in page
    assert "your account <bdi>acme</bdi>" in page
    assert "your domain <bdi>d1</bdi>" in page
    assert "everybody" in page
    assert "your project" not in text(api, "/prices", "green")


def test_administrator_sees_the_book_in_force_and_chooses_an_account(api: ApiClient) -> None:
    page = text(api, "/prices?book=euro")
    assert "SHA-256" in page
    assert "project <bdi>green2</bdi>" in page
    chosen = text(api, "/prices?account_id=acme&day=&book=euro")
    assert "account <bdi>acme</bdi>" in chosen
    assert "green2" not in chosen
    assert "secret-yen" not in chosen


@pytest.mark.parametrize("query", ["account_id=nobody", "book=nothing", "day=yesterday", "marker=x", "unknown=1"])
def test_wrong_parameters_are_answered_by_a_page(api: ApiClient, query: str) -> None:
    response = get(api, f"/prices?{query}")
    assert response.status == 400
    assert response.body.startswith(b"<!doctype html>")


def test_without_rating_the_page_says_how_to_configure_it() -> None:
    assert "Rating is not configured" in text(ApiClient(auth=TOKENS), "/prices")
    assert get(ApiClient(auth=TOKENS), "/quote").status == 404
    assert get(ApiClient(auth=TOKENS), "/prices/difference").status == 404


def test_administrator_sees_what_is_wrong_with_the_files_and_others_do_not(tmp_path: Path, logged_errors: Any) -> None:
    api = client(tmp_path, '[[sku]]\nid = "vm"\nusage = "<b>"\n')
    page = text(api, "/prices")
    assert "<code>prices.toml</code>" in page
    assert "&lt;b&gt;" in page
    assert "prices.toml" not in text(api, "/prices", "blue")
    assert len(logged_errors.flush()) == 1


def test_many_prices_are_shown_page_by_page(tmp_path: Path) -> None:
    more = "".join(
        f'[[price]]\nbook = "euro"\nsku = "vm"\nid = "p{n}"\nprice = "1"\nmatch = {{flavor = "<f{n}>"}}\n'
        for n in range(150)
    )
    api = client(tmp_path, texts() + more)
    page = text(api, "/prices?book=euro", "green")
    assert page.count("<tr>") == 1 + 100 + 2
    assert "marker=100" in page
    assert "<f1>" not in page
    rest = text(api, "/prices?book=euro&marker=100", "green")
    assert all(f"&lt;f{n}&gt;" in page + rest for n in range(150))
    assert "marker=" not in rest


@pytest.mark.parametrize(("who", "price"), [("green", "1.00 EUR"), ("blue", "2.79 EUR")])
def test_quote_is_by_the_prices_of_the_requester(api: ApiClient, who: str, price: str) -> None:
    page = text(api, "/quote?sku=vm&count=1&hours=1&size=&quantity=&value.flavor=&month=2026-11", who)
    assert f">{price}</b>" in page
    assert "secret" not in page


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("sku=unknown", "has no SKU"),
        ("sku=vm&count=101", "from 1 to 100"),
        ("sku=vm&count=0", "from 1 to 100"),
        ("sku=vm&hours=x", "hours: "),
        ("sku=vm&value.%3Cb%3E=1", "&lt;b&gt;"),
        ("sku=vm&month=never", "is not a billing period"),
    ],
)
def test_what_does_not_fit_a_quote_is_said(api: ApiClient, query: str, problem: str) -> None:
    page = text(api, f"/quote?{query}")
    assert problem in page
    assert "Total" not in page


def test_new_book_is_for_administrators_and_from_the_own_page_only(api: ApiClient) -> None:
    assert get(api, "/prices/difference", "blue").status == 403
    assert post(api, "blue", text="x", period="2026-11").status == 403
    body = urlencode({"text": "x"}).encode()
    foreign = {"X-Auth-Token": "admin-token", **OWN_PAGE, "Sec-Fetch-Site": "cross-site"}
    assert api("/prices/difference", method="POST", headers=foreign, body=body).status == 403


def test_faults_of_a_new_book_are_shown_with_their_lines(api: ApiClient) -> None:
    response = post(api, text='[[book]]\nname = "euro"\n</textarea><script>', period="2026-11")
    assert response.status == 200
    page = response.body.decode()
    assert "The new book cannot be used" in page
    assert "<script>" not in page


def test_new_book_is_compared_and_nothing_is_kept(api: ApiClient, tmp_path: Path) -> None:
    before = (tmp_path / "prices.toml").read_text()
    response = post(api, text=texts(), period="2026-11")
    assert response.status == 200, response.body
    assert b"2026-11 by the new book" in response.body
    assert (tmp_path / "prices.toml").read_text() == before


@pytest.mark.parametrize(
    ("fields", "status"),
    [({"text": ""}, 400), ({"text": "x" * 131073}, 400), ({"text": "x" * 600_000}, 413)],
)
def test_size_of_a_new_book_is_limited(api: ApiClient, fields: dict[str, str], status: int) -> None:
    assert post(api, **fields).status == status


def test_month_of_a_comparison_must_be_one(api: ApiClient) -> None:
    assert post(api, text=texts(), period="soon").status == 400


def test_administrators_are_told_that_all_usage_has_a_price(api: ApiClient) -> None:
    assert "has a price, as far as usage is rated" in text(api, "/prices")
    assert "has a price" not in text(api, "/prices", "blue")
