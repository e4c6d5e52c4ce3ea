"""The token in the cookie of a browser, and where it counts."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from twisted.web.http_headers import Headers
from twisted.web.test.requesthelper import DummyRequest

from meter.api.auth.browser_session import ended_cookies
from meter.api.auth.browser_session import session_cookie
from meter.api.auth.requester import well_formed_token


def token(method: bytes = b"GET", **headers: str) -> str | None:
    request = DummyRequest([b""])
    request.method = method
    request.isSecure = lambda: False  # which DummyRequest lacks
    request.requestHeaders = Headers({name.replace("_", "-"): [value] for name, value in headers.items()})
    return well_formed_token(request)


def test_a_cookie_holds_the_token() -> None:
    assert token(cookie="a=1; meter_token=abc; b=2") == "abc"
    assert token(cookie="a=1") is None
    assert token(cookie="meter_token=") is None


def test_a_header_counts_more_than_the_cookie() -> None:
    assert token(cookie="meter_token=abc", x_auth_token="def") == "def"
    assert token(cookie="meter_token=abc", authorization="Bearer ghi") == "ghi"
    assert token(authorization="Basic ghi") is None


def test_two_tokens_are_none() -> None:
    assert token(x_auth_token="def", authorization="Bearer ghi") is None


@pytest.mark.parametrize(
    ("headers", "counts"),
    [
        ({}, False),
        ({"sec_fetch_site": "same-origin"}, True),
        ({"sec_fetch_site": "none"}, True),
        ({"sec_fetch_site": "same-site"}, False),
        ({"sec_fetch_site": "cross-site", "origin": "http://meter.example"}, False),
        ({"origin": "http://meter.example"}, True),
        ({"origin": "http://meter.example:8080"}, False),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "null"}, False),
    ],
)
def test_a_cookie_counts_in_a_post_only_from_our_own_pages(headers: Mapping[str, str], counts: bool) -> None:
    name = "__Host-meter_token" if "sec_fetch_site" in headers else "meter_token"  # it is sent over TLS
    found = token(b"POST", cookie=f"{name}=abc", host="meter.example", **headers)
    assert found == ("abc" if counts else None)


def test_cookies_are_for_this_site_and_not_for_scripts() -> None:
    assert session_cookie("abc", secure=True) == "__Host-meter_token=abc; Path=/; HttpOnly; SameSite=Lax; Secure"
    assert ended_cookies(secure=False)[0] == "meter_token=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax"


@pytest.mark.parametrize(
    ("headers", "counts"),
    [
        ({"host": "meter.example"}, True),
        ({"host": "meter.example", "sec_fetch_site": "none"}, False),
        ({"host": "meter.example:8443", "sec_fetch_site": "same-origin"}, False),
        ({"host": "192.0.2.7", "sec_fetch_site": "same-origin"}, False),
        ({"host": "meter.example", "origin": "https://meter.example"}, False),
        ({"host": "127.0.0.1:8777", "sec_fetch_site": "none"}, True),
        ({"host": "[::1]:8777", "sec_fetch_site": "none"}, True),
        ({"host": "localhost:8777", "sec_fetch_site": "none"}, True),
        ({"host": "meter.localhost", "sec_fetch_site": "none"}, True),
        ({"host": "[meter", "sec_fetch_site": "none"}, True),
    ],
)
def test_over_tls_a_cookie_that_another_host_of_the_domain_can_set_does_not_count(
    headers: Mapping[str, str], counts: bool
) -> None:
    assert token(cookie="meter_token=abc", **headers) == ("abc" if counts else None)
    assert token(cookie="__Host-meter_token=own; meter_token=abc", **headers) == "own"
