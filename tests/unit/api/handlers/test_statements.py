"""``/v2/statements``: whole documents for who pays, extracts for projects among others, formats, annex and keys."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from meter.api.handlers import statements as handlers
from meter.api.rating_services import RatingServices
from meter.daemon.shared_slices import SharedSlices
from meter.rating.exports.focus_check import focus_problems
from meter.rating.statements.annex import annex_line
from meter.rating.statements.published_keys import PublishedKeys
from meter.rating.statements.statement import read_statement
from meter.rating.statements.statement import statement_sha256
from meter.rating.statements.statement_keys import key_id_of
from meter.rating.statements.statement_keys import public_pem
from tests.api_client import ApiClient
from tests.api_client import Response
from tests.closed_statements import annex_pages
from tests.closed_statements import annex_rows
from tests.closed_statements import close_both
from tests.closed_statements import closing
from tests.closed_statements import own_statement
from tests.closed_statements import shared_statement
from tests.hygiene import LoggedErrors
from tests.statement_documents import KEY
from tests.statement_documents import signed
from tests.unit.api.auth.test_visibility import TOKENS

SHARED = "/v2/statements/2026-11.acme"
OWN = "/v2/statements/2026-11.b%252Fue"


@pytest.fixture(scope="module")
def api() -> ApiClient:
    api = ApiClient(auth=TOKENS)
    Deferred.fromCoroutine(close_both(api.store))
    return api


def get(api: ApiClient, path: str, who: str = "admin", **headers: str) -> Response:
    return api(path, headers={"X-Auth-Token": f"{who}-token", **headers})


def ids(api: ApiClient, path: str, who: str = "admin") -> list[str]:
    response = get(api, path, who)
    assert response.status == 200, response.body
    return [entry["statement_id"] for entry in response.json]


def test_administrators_see_all_statements(api: ApiClient) -> None:
    assert ids(api, "/v2/statements") == ["2026-11.acme", "2026-11.b%2Fue"]
    [shared, own] = get(api, "/v2/statements").json
    assert shared == {
        "statement_id": "2026-11.acme",
        "state": "closed",
        "account_id": "acme",
        "account_name": "Acme <b>Ltd</b> & Söhne",
        "period": "2026-11",
        "currency": "EUR",
        "total": "53.95",
        "closed_at": "2026-12-06T08:00:01",
        "closed_by": "operator",
        "projects": ["blue", "green"],
        "extract": False,
        "forecast": None,
    }
    assert own["projects"] == ["blue"]


def test_statements_without_any_are_an_empty_list() -> None:
    assert ApiClient()("/v2/statements").json == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("account_id=acme", ["2026-11.acme"]),
        ("project_id=green", ["2026-11.acme"]),
        ("project_id=blue", ["2026-11.acme", "2026-11.b%2Fue"]),
        ("period=2026-10", []),
        ("period=2026-11&account_id=b/ue", ["2026-11.b%2Fue"]),
        ("limit=1", ["2026-11.acme"]),
    ],
)
def test_list_is_filtered(api: ApiClient, query: str, expected: list[str]) -> None:
    assert ids(api, f"/v2/statements?{query}") == expected


def test_pages_follow_each_other(api: ApiClient) -> None:
    link = get(api, "/v2/statements?limit=1").headers["link"]
    assert link == '<http://cloud:8777/v2/statements?limit=1&marker=1>; rel="next"'
    last = get(api, "/v2/statements?limit=1&marker=1")
    assert [entry["statement_id"] for entry in last.json] == ["2026-11.b%2Fue"]
    assert "link" not in last.headers


def test_tenant_sees_statements_with_something_of_their_project(api: ApiClient) -> None:
    assert ids(api, "/v2/statements", "blue") == ["2026-11.acme", "2026-11.b%2Fue"]
    assert ids(api, "/v2/statements", "green") == ["2026-11.acme"]


def test_tenant_sees_no_name_total_and_projects_of_a_shared_account_in_the_list(api: ApiClient) -> None:
    [shared, own] = get(api, "/v2/statements", "blue").json
    assert (shared["extract"], shared["account_name"], shared["total"], shared["projects"]) == (
        True,
        None,
        None,
        ["blue"],
    )
    assert (own["extract"], own["account_name"], own["total"]) == (False, "Blue", "8.21")
    assert shared["closed_by"] is own["closed_by"] is None


def test_tenant_may_not_ask_for_another_project(api: ApiClient) -> None:
    assert get(api, "/v2/statements?project_id=green", "blue").status == 401


@pytest.mark.parametrize("path", [SHARED.replace("acme", "nobody"), OWN, f"{OWN}/annex"])
def test_statement_of_others_is_not_read_for_a_tenant(
    api: ApiClient, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    def read(*_args: object) -> None:
        raise AssertionError("the time that this takes tells that there is a statement, and its size")

    statements = type(api.store.rating.statements)
    monkeypatch.setattr(statements, "statement", read)
    monkeypatch.setattr(statements, "annex_pages", read)
    assert get(api, path, "green").status == 404


def test_document_verifies_as_the_file_does(api: ApiClient) -> None:
    response = get(api, SHARED)
    document = read_statement(response.body)
    assert document == signed(shared_statement())
    assert response.headers["content-type"].startswith("application/json")


@pytest.mark.parametrize("path", [OWN, "/v2/statements/2026-11.b%2Fue", "/v2/statements/2026-11.b/ue"])
def test_tenant_sees_the_whole_statement_of_their_project_alone(api: ApiClient, path: str) -> None:
    assert read_statement(get(api, path, "blue").body) == signed(own_statement())


def test_project_among_others_sees_its_own_lines_and_nothing_else(api: ApiClient) -> None:
    response = get(api, SHARED, "blue")
    part = response.json
    assert part["format"] == "meter-statement-extract-1"
    assert [line["key"].split("/")[0] for line in part["lines"]] == ["usage"] * 3 + ["discount", "correction"]
    assert part["amount"] == "13.37"
    text = response.body.decode()
    for secret in ("green", "router", "Acme", "High Street", "PO-7", "53.95", "44.96", "8640", "host c3", '"number"'):
        assert secret not in text


def test_correction_in_an_extract_names_the_statement_and_not_its_line(api: ApiClient) -> None:
    [line] = [each for each in get(api, SHARED, "blue").json["lines"] if each["kind"] == "correction"]
    assert line["amends_statement_id"] == "2026-10.acme"
    assert "amends" not in line


@pytest.mark.parametrize("path", [OWN, f"{OWN}/annex", "/v2/statements/2026-11.nobody"])
def test_statement_of_others_is_as_one_that_does_not_exist(api: ApiClient, path: str) -> None:
    response = get(api, path, "green")
    assert response.status == 404
    assert response.faultstring.startswith("There is no statement")


def test_extract_has_no_other_format_than_json(api: ApiClient) -> None:
    assert get(api, f"{SHARED}?format=csv", "blue").status == 403
    assert get(api, f"{SHARED}?format=html", "blue").status == 403
    assert get(api, f"{SHARED}?format=json", "blue").status == 200


def test_lines_are_available_as_csv(api: ApiClient) -> None:
    by_parameter, by_header = get(api, f"{SHARED}?format=csv"), get(api, SHARED, Accept="text/csv")
    assert by_parameter.body == by_header.body
    found = list(csv.DictReader(io.StringIO(by_parameter.body.decode(), newline="")))
    assert sum(Decimal(row["amount"]) for row in found) == shared_statement().total


def test_page_has_its_hash_and_a_policy_that_allows_nothing_but_its_style(api: ApiClient) -> None:
    response = get(api, SHARED, Accept="text/html")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["content-security-policy"].startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert statement_sha256(shared_statement()) in response.body.decode()


def test_focus_passes_the_check(api: ApiClient) -> None:
    lines = io.StringIO(get(api, f"{SHARED}?format=focus").body.decode(), newline="")
    assert focus_problems(lines, shared_statement()) == []


def test_unknown_format_is_an_error(api: ApiClient) -> None:
    response = get(api, f"{SHARED}?format=pdf")
    assert (response.status, "use json, csv, html, focus" in response.faultstring) == (400, True)


def test_annex_is_the_file_that_was_hashed(api: ApiClient) -> None:
    assert get(api, f"{SHARED}/annex").body == b"".join(map(annex_line, annex_rows()))


def test_response_with_an_annex_that_was_altered_is_aborted_before_its_end(logged_errors: LoggedErrors) -> None:
    altered = ApiClient(auth=TOKENS)
    Deferred.fromCoroutine(altered.store.rating.statements.add(closing(signed(shared_statement())), annex_pages([])))
    pages = list(map(annex_line, annex_rows()))
    pages[0] = pages[0].replace(b"1", b"7", 1)

    async def stored(*_: Any) -> AsyncIterator[bytes]:
        for page in pages:
            yield page

    sent: list[bytes] = []

    async def send() -> None:
        async for chunk in handlers._with_sha256(stored(), shared_statement().annex_sha256):
            sent.append(chunk)

    failed = Deferred.fromCoroutine(send())
    failed.addErrback(lambda failure: sent.append(str(failure.value).encode()))
    assert sent[:-1] == pages[:-1]
    assert b"the SHA-256 of the stored annex is" in sent[-1]
    with pytest.raises(AssertionError, match="ResponseNeverReceived"):  # the annex in the store is empty
        get(altered, f"{SHARED}/annex")
    logged_errors.flush()


@pytest.mark.parametrize("chosen", ["json", "csv", "html", "focus"])
def test_statement_is_written_as_a_whole_before_its_reader_gets_the_first_chunk(
    api: ApiClient, monkeypatch: pytest.MonkeyPatch, chosen: str
) -> None:
    monkeypatch.setattr(handlers, "MEMORY_BYTES", 100)
    monkeypatch.setattr(handlers, "RAW_BYTES", 100)
    whole = get(api, f"{SHARED}?format={chosen}").body
    made = handlers.TEXT_FORMATS[chosen]
    told: list[str] = []

    def write(signed: Any, sha256: str) -> Iterator[str]:
        yield from made.write(signed, sha256)
        told.append("written")

    content = handlers._content

    async def reading(file: Any) -> AsyncIterator[bytes]:
        told.append("read")
        async for chunk in content(file):
            yield chunk
        assert file.closed

    monkeypatch.setattr(handlers, "TEXT_FORMATS", {chosen: replace(made, write=write)})
    monkeypatch.setattr(handlers, "_content", reading)
    assert get(api, f"{SHARED}?format={chosen}").body == whole
    assert told == ["written", "read"]


def test_tenant_sees_their_own_rows_of_the_annex(api: ApiClient) -> None:
    rows = [json.loads(line) for line in get(api, f"{SHARED}/annex", "green").body.splitlines()]
    assert [(row["project_id"], row["resource_id"]) for row in rows] == [("green", "router-1")]


def test_requester_without_a_project_sees_nothing(api: ApiClient) -> None:
    for path in ("/v2/statements", SHARED, f"{SHARED}/annex"):
        assert get(api, path, "unscoped").status in (401, 403)


def keys_of(services: RatingServices | None, clock: Clock | None = None) -> Any:
    return ApiClient(rating=services, **({"clock": clock} if clock else {}))("/v2/statement-keys")


def test_no_configuration_has_no_keys() -> None:
    assert keys_of(None).json == []


def test_public_keys_are_published_and_a_new_one_within_a_minute(tmp_path: Path) -> None:
    clock = Clock()
    services = RatingServices(keys=PublishedKeys(tmp_path, clock))
    api = ApiClient(rating=services, clock=clock)
    assert api("/v2/statement-keys").json == []
    id, pem = key_id_of(KEY.public_key()), public_pem(KEY.public_key())
    (tmp_path / f"{id}.pem").write_text(pem)
    clock.advance(61)
    assert api("/v2/statement-keys").json == [{"key_id": id, "public_key": pem, "algorithm": "Ed25519"}]


def test_keys_that_cannot_be_read_are_a_state(tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text("rubbish")
    response = keys_of(RatingServices(keys=PublishedKeys(tmp_path, Clock())))
    assert response.status == 503
    assert b"x.pem" not in response.body


@pytest.mark.parametrize("chosen", ["json", "csv", "html", "focus"])
def test_long_statement_is_rendered_in_slices(chosen: str) -> None:
    clock = TickingClock()
    slices = SharedSlices(clock)
    api = ApiClient(auth=TOKENS, clock=clock, slices=slices)
    document = shared_statement()
    lines = tuple(msgspec.structs.replace(line, number=n) for n in range(60) for line in document.lines)
    long = signed(msgspec.structs.replace(document, lines=lines))
    Deferred.fromCoroutine(api.store.rating.statements.add(closing(long), annex_pages([])))
    pending = api.pending(f"{SHARED}?format={chosen}", headers={"X-Auth-Token": "admin-token"})
    while not pending.called:
        clock.advance(0)
        api.flush()
        assert slices.turns < 100_000
    assert slices.turns > 100


class TickingClock(Clock):
    """Each look at it takes half a millisecond."""

    def seconds(self) -> float:
        self.rightNow += 0.0005
        return float(self.rightNow)


def test_period_that_is_none_is_refused(api: ApiClient) -> None:
    response = get(api, "/v2/statements?period=2026-99")
    assert response.status == 400
