"""The pages of statements: what administrators, payers and projects see, and what was checked."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from meter.api.rating_services import RatingServices
from meter.rating.statements.published_keys import PublishedKeys
from meter.rating.statements.statement import SignedStatement
from meter.rating.statements.statement import Statement
from meter.rating.statements.statement import statement_sha256
from meter.rating.statements.statement_keys import key_id_of
from meter.rating.statements.statement_keys import public_pem
from tests.api_client import ApiClient
from tests.api_client import Response
from tests.closed_statements import annex_pages
from tests.closed_statements import annex_rows
from tests.closed_statements import close_both
from tests.closed_statements import closing
from tests.closed_statements import shared_statement
from tests.statement_documents import KEY
from tests.statement_documents import signed
from tests.unit.api.auth.test_visibility import TOKENS


def client(tmp_path: Path) -> ApiClient:
    (tmp_path / f"{key_id_of(KEY.public_key())}.pem").write_text(public_pem(KEY.public_key()))
    return ApiClient(auth=TOKENS, rating=RatingServices(keys=PublishedKeys(tmp_path, Clock())))


@pytest.fixture
def api(tmp_path: Path) -> ApiClient:
    api = client(tmp_path)
    Deferred.fromCoroutine(close_both(api.store))
    return api


def by_key(statement: Statement) -> SignedStatement:
    """Return a statement that names the key by which it is signed."""
    return msgspec.structs.replace(signed(statement), key_id=key_id_of(KEY.public_key()))


def close(api: ApiClient, statement: SignedStatement) -> None:
    Deferred.fromCoroutine(api.store.rating.statements.add(closing(statement), annex_pages(annex_rows())))


def get(api: ApiClient, path: str, who: str = "admin") -> Response:
    return api(path, headers={"X-Auth-Token": f"{who}-token"})


def text(api: ApiClient, path: str, who: str = "admin") -> str:
    response = get(api, path, who)
    assert response.status == 200, response.body
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    return response.body.decode()


def test_list_has_totals_as_they_were_billed_and_escapes_names(api: ApiClient) -> None:
    page = text(api, "/statements")
    assert "53.95 EUR" in page
    assert "Acme &lt;b&gt;Ltd&lt;/b&gt; &amp; Söhne" in page
    assert "<b>Ltd" not in page
    assert 'href="/statement?id=2026-11.b%252Fue"' in page


def test_list_of_a_project_has_no_totals_and_names_of_accounts_that_it_shares(api: ApiClient) -> None:
    page = text(api, "/statements", "green")
    assert "53.95" not in page
    assert "Acme" not in page
    assert "extract of your project" in page
    assert "b%252Fue" not in page


def test_without_rating_the_page_says_how_to_configure_it() -> None:
    page = text(ApiClient(auth=TOKENS), "/statements")
    assert "Rating is not configured" in page
    assert "price_directory" in page
    assert "No statement is closed yet" in page


def test_more_statements_than_a_page_has_are_linked(api: ApiClient) -> None:
    async def close_many() -> None:
        for n in range(101):
            statement = shared_statement()
            account = msgspec.structs.replace(statement.account, id=f"a{n:03}", name=f"a{n:03}")
            statement = msgspec.structs.replace(statement, statement_id=f"2026-11.a{n:03}", account=account)
            await api.store.rating.statements.add(closing(signed(statement)), annex_pages(annex_rows()))

    Deferred.fromCoroutine(close_many())
    assert text(api, "/statements").count('<a href="/statement?id=') == 100
    assert 'rel="next" href="/statements?marker=100"' in text(api, "/statements")
    assert text(api, "/statements?marker=100").count('<a href="/statement?id=') == 3


def test_statement_shows_lines_by_project_total_and_what_was_checked(tmp_path: Path) -> None:
    api = client(tmp_path)
    close(api, by_key(shared_statement()))
    page = text(api, "/statement?id=2026-11.acme")
    for line in shared_statement().lines:
        assert f"{line.amount:,f}".replace("-", "\u2212").replace(",", "\u202f") in page
    assert "53.95 EUR" in page
    assert "closed, signed and verified" in page
    assert f"Ed25519, key {key_id_of(KEY.public_key())}" in page
    assert "meter-rate verify --keys" in page
    for each in ("json", "csv", "html", "focus"):
        assert f'href="/v2/statements/2026-11.acme?format={each}"' in page
    assert 'href="/v2/statements/2026-11.acme/annex"' in page


def test_altered_statement_is_called_so(tmp_path: Path) -> None:
    api = client(tmp_path)
    document = by_key(shared_statement())
    altered = msgspec.structs.replace(
        document, statement=msgspec.structs.replace(document.statement, total=Decimal("1.00"))
    )
    close(api, altered)
    page = text(api, "/statement?id=2026-11.acme")
    assert "verification failed" in page
    assert "it was altered" in page


def test_without_keys_the_signature_was_not_checked() -> None:
    api = ApiClient(auth=TOKENS)
    Deferred.fromCoroutine(close_both(api.store))
    assert "the signature was not checked" in text(api, "/statement?id=2026-11.acme")


def test_project_sees_its_extract_and_nothing_of_others(api: ApiClient) -> None:
    page = text(api, "/statement?id=2026-11.acme", "green")
    for secret in ("53.95", "Acme", "blue", "Söhne", "closed, signed"):
        assert secret not in page
    assert "green project" in page
    assert "format=csv" not in page


@pytest.mark.parametrize("path", ["/statement", "/statement/days"])
def test_statement_of_others_does_not_exist(api: ApiClient, path: str) -> None:
    response = get(api, f"{path}?id=2026-11.b%252Fue&project_id=green", "green")
    assert response.status == 404
    assert b"There is no statement" in response.body


def test_one_project_can_be_chosen(api: ApiClient) -> None:
    page = text(api, "/statement?id=2026-11.acme&project_id=green")
    assert "Project <bdi>green project" in page
    assert "Project <bdi>blue project" not in page


def test_difference_to_the_month_before_and_the_chain_are_shown(tmp_path: Path) -> None:
    api = client(tmp_path)
    statement = shared_statement()
    before = msgspec.structs.replace(
        statement,
        statement_id="2026-10.acme",
        period=msgspec.structs.replace(statement.period, name="2026-10"),
        lines=statement.lines[:1],
    )
    close(api, by_key(before))
    close(api, by_key(msgspec.structs.replace(statement, previous_sha256=statement_sha256(before))))
    assert "follows 2026-10.acme" in text(api, "/statement?id=2026-11.acme")
    assert "Difference to 2026-10" in text(api, "/statement?id=2026-11.acme")
    assert "Difference" not in text(api, "/statement?id=2026-10.acme")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/statement", 400),
        ("/statement?id=nothing", 404),
        ("/statement?id=2026-11.acme&marker=x", 400),
        ("/statements?marker=-1", 400),
        ("/statements?unknown=1", 400),
        ("/statement/days?id=2026-11.acme", 400),
        ("/statement/days?id=2026-11.acme&project_id=blue&by=hour", 400),
        ("/statement/days?id=2026-11.acme&project_id=blue", 404),
    ],
)
def test_wrong_parameters_are_answered_by_a_page(api: ApiClient, path: str, status: int) -> None:
    response = get(api, path)
    assert response.status == status
    assert response.body.startswith(b"<!doctype html>")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("2026-11.acme?format=csv", 'attachment; filename="statement-2026-11.acme.csv"'),
        ("2026-11.acme?format=focus", 'attachment; filename="statement-2026-11.acme.focus.csv"'),
        ("2026-11.acme?format=html", 'inline; filename="statement-2026-11.acme.html"'),
        ("2026-11.b%252Fue?format=json", 'attachment; filename="statement-2026-11.b_2Fue.json"'),
        ("2026-11.acme/annex", 'attachment; filename="statement-2026-11.acme.annex.jsonl"'),
    ],
)
def test_downloads_have_names_that_any_file_system_has(api: ApiClient, path: str, expected: str) -> None:
    assert get(api, f"/v2/statements/{path}").headers["content-disposition"] == expected
