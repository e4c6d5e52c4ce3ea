"""What a browser is told of a failure, and clients as before."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.test.requesthelper import DummyRequest

from meter.api import Api
from meter.api import Requester
from meter.api import make_site
from meter.api.auth.browser_session import BrowserSession
from meter.api.errors import ApiError
from meter.api.web.failure_page import render_failure_page
from meter.interfaces import Unavailable
from meter.testing import MemoryStore
from tests.api_client import ApiClient
from tests.http_exchange import RawResponse
from tests.http_exchange import exchange
from tests.sign_in import Browser
from tests.sign_in import text_of


class AwayStore(MemoryStore):
    async def meters(self, *arguments: Any) -> Any:
        raise Unavailable("postgresql at 10.0.0.1 does not answer")


def test_unknown_paths_are_pages_for_browsers_and_json_for_clients() -> None:
    browser = Browser(ApiClient())
    page = browser.get("/nothing/here")
    assert (page.status, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "There is no such page" in text_of(page)
    assert "req-" in text_of(page)
    assert browser.api("/nothing/here").headers["content-type"] == "application/json"


def test_a_method_that_a_page_does_not_have_is_a_page_and_names_those_that_it_has() -> None:
    browser = Browser(ApiClient())
    page = browser.send("/?a=1")
    assert (page.status, page.headers["content-type"]) == (405, "text/html; charset=utf-8")
    assert "GET" in page.headers["allow"]


@pytest.mark.parametrize("path", ["/", "/sign-in", "/static/style.css", "/favicon.ico", "/docs", "/nothing"])
def test_head_is_get_without_a_body(path: str) -> None:
    api = ApiClient()
    accept = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    head, get = (api(path, method=method, headers=accept) for method in ("HEAD", "GET"))
    assert head.status == get.status
    assert head.headers["content-type"] == get.headers["content-type"]
    assert head.body == b""


@pytest.mark.parametrize("path", ["/", "/sign-in", "/project", "/static/style.css"])
def test_options_names_the_methods_of_a_page(path: str) -> None:
    response = ApiClient()(path, method="OPTIONS")
    assert response.status < 500
    assert "GET" in response.headers["allow"]


def test_a_store_that_is_away_is_told_in_words_with_the_way_to_try_again() -> None:
    api = ApiClient()
    api = ApiClient(store=AwayStore(api.clock))
    page = Browser(api).get("/")
    assert page.status == 503
    assert "its database, or another part that it needs, does not answer" in text_of(page)
    assert f"Try again in {page.headers['retry-after']} s." in text_of(page)
    assert b"10.0.0.1" not in page.body
    assert b'aria-label="Pages"' in page.body


def test_wrong_parameters_are_told_with_the_value_escaped() -> None:
    page = Browser(ApiClient()).get("/?none=<script>")
    assert page.status == 400
    assert b"<script>" not in page.body


def test_a_page_of_another_project_says_so_and_leads_to_the_choice_of_one() -> None:
    request = DummyRequest([b""])
    request.method, request.uri = b"GET", b"/usage?project=red"
    requester = Requester(False, "blue", "ann", None, "Ann", "The blue project")
    request.browser_session = BrowserSession("keystone", requester)
    body = render_failure_page(request, Failure(ApiError(401, "Not Authorized to access project red")))
    assert request.responseCode == 403
    assert b"another project than that of your token" in body
    assert b'href="/project?next=%2Fusage%3Fproject%3Dred"' in body
    assert b"Ann" in body


def test_static_files_are_compressed_for_who_accepts_it() -> None:
    def ask(accepted: str) -> RawResponse:
        site = make_site(Api(MemoryStore(Clock()), Clock()), Clock())
        line = f"Accept-Encoding: {accepted}\r\n" if accepted else ""
        return exchange(site, f"GET /static/style.css HTTP/1.1\r\nHost: 127.0.0.1\r\n{line}\r\n".encode())

    plain, compressed = ask(""), ask("br, gzip;q=0.8")
    assert compressed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(compressed.body) == plain.body
    assert len(compressed.body) < len(plain.body) / 2
    assert "Accept-Encoding" in compressed.headers["vary"]
    assert "content-encoding" not in plain.headers
    assert "content-encoding" not in ask("gzip;q=0, br").headers


def test_the_icon_is_where_browsers_look_for_it() -> None:
    icon = ApiClient()("/favicon.ico")
    assert (icon.status, icon.headers["content-type"].partition(";")[0]) == (200, "image/svg+xml")
