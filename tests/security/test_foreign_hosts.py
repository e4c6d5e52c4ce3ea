"""Links do not lead to a host that the sender of a request made up, and no foreign web page reads an open API."""

from __future__ import annotations

from collections.abc import Collection

import pytest
from pydantic import ValidationError
from twisted.internet.address import IPv4Address
from twisted.internet.address import IPv6Address
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from meter.api import Api
from meter.api import HostPolicy
from meter.api import make_site
from meter.settings.api import ApiSection
from meter.testing import MemoryStore
from tests.api_client import SAMPLES
from tests.http_exchange import HERE
from tests.http_exchange import RawResponse
from tests.http_exchange import exchange

PATHS = ["/", "/v2/resources", "/v2/resources/vm-1", "/v2/samples?limit=1", "/v2/meters?limit=1", "/openapi.json"]
EVIL = "evil.example.org"
LAN = IPv4Address("TCP", "192.0.2.1", 8777)
FORWARDED = (
    f"X-Forwarded-Host: {EVIL}\r\nX-Forwarded-Proto: gopher\r\nForwarded: host={EVIL}\r\nX-Original-URL: /{EVIL}\r\n"
)


def ask(
    host: str | None,
    path: str = "/v2/resources/vm-1",
    *,
    names: Collection[str] = (),
    base_url: str | None = None,
    refuse_unknown: bool = False,
    local: object = HERE,
    version: str = "1.1",
    headers: str = "",
) -> RawResponse:
    clock = Clock()
    store = MemoryStore(clock)
    Deferred.fromCoroutine(store.write(SAMPLES))
    api = Api(store, clock, hosts=HostPolicy(names, base_url, refuse_unknown=refuse_unknown))
    line = "" if host is None else f"Host: {host}\r\n"
    return exchange(make_site(api, clock), f"GET {path} HTTP/{version}\r\n{line}{headers}\r\n".encode(), local=local)


def link(response: RawResponse) -> str:
    assert response.status == 200, response
    href = response.json["links"][0]["href"]
    assert isinstance(href, str)
    return href.removesuffix("/v2/resources/vm-1")


@pytest.mark.parametrize("url", ["javascript:alert(1)", "//evil", "https://a b", "https://a/\n", "ftp://a", "metering"])
def test_base_url_is_an_http_url(url: str) -> None:
    with pytest.raises(ValidationError):
        ApiSection(base_url=url)


@pytest.mark.parametrize("url", ["", "https://metering.example.org", "http://[::1]:8777/meter/"])
def test_usual_base_url_is_accepted(url: str) -> None:
    assert ApiSection(base_url=url).base_url == url


@pytest.mark.parametrize("name", ["https://a", "a:8777", "a/b", "*", ""])
def test_host_name_has_no_port_and_no_pattern(name: str) -> None:
    with pytest.raises(ValidationError):
        ApiSection(host_names=[name])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("host", [EVIL, f"{EVIL}:8777", "198.51.100.1", "localhost.evil.example.org"])
def test_foreign_host_is_in_no_link(path: str, host: str) -> None:
    response = ask(host, path, names=["metering.example.org"], headers=FORWARDED)
    assert response.status == 200
    assert host not in f"{response.headers}{response.body!r}"
    assert EVIL not in f"{response.headers}{response.body!r}"


def test_link_to_the_next_page_is_relative_for_a_foreign_host() -> None:
    response = ask(EVIL, "/v2/samples?limit=1")
    assert response.headers["link"].startswith("</v2/samples?limit=1&marker=")


def test_link_header_contains_no_second_link() -> None:
    response = ask("a", '/v2/samples?limit=1&q.field=meter&q.value=cpu&as_of=2030>;rel="next",<http://evil')
    assert response.status == 400
    response = ask("a", "/v2/samples?limit=1&marker=%3E,<http://evil>;")
    assert response.status == 400
    response = ask("a", '/v2/samples?limit=1&q.field=metadata.>,"<a>"&q.value=None')
    assert response.headers["link"].count("<") == response.headers["link"].count(">") == 1


@pytest.mark.parametrize(
    ("host", "local", "root"),
    [
        ("127.0.0.1:8777", HERE, "http://127.0.0.1:8777"),
        ("localhost:9000", HERE, "http://localhost:9000"),
        ("LOCALHOST", HERE, "http://LOCALHOST"),
        ("localhost", LAN, ""),
        ("192.0.2.1:8777", LAN, "http://192.0.2.1:8777"),
        ("192.0.2.1:8777", IPv6Address("TCP", "::ffff:192.0.2.1", 8777), "http://192.0.2.1:8777"),
        ("[2001:db8::1]:8777", IPv6Address("TCP", "2001:db8::1", 8777), "http://[2001:db8::1]:8777"),
        ("[2001:db8::2]", IPv6Address("TCP", "2001:db8::1", 8777), ""),
        ("127.0.0.1", LAN, ""),
        ("metering.example.org", LAN, "http://metering.example.org"),
        ("Metering.Example.ORG.:80", LAN, "http://Metering.Example.ORG.:80"),
        ("metering.example.org", UNIXAddress(b"/run/meter"), "http://metering.example.org"),
        ("localhost", UNIXAddress(b"/run/meter"), "http://localhost"),
        ("other.example.org", LAN, ""),
    ],
)
def test_links_follow_known_hosts_only(host: str, local: object, root: str) -> None:
    assert link(ask(host, names=["metering.example.org"], local=local)) == root


@pytest.mark.parametrize("host", [EVIL, "localhost", None])
def test_links_begin_with_the_base_url_whatever_the_host(host: str | None) -> None:
    response = ask(host, base_url="https://metering.example.org/meter/", version="1.0", headers=FORWARDED)
    assert link(response) == "https://metering.example.org/meter"


@pytest.mark.parametrize(
    "host",
    [
        "",
        "a b",
        "a/b",
        "a?b",
        "a#b",
        "a@b",
        "<script>",
        "a:b",
        "a:70000",
        "a:123456",
        "[",
        "[::1",
        "[::z]",
        "a,b",
        "a" * 300,
    ],
)
def test_malformed_host_is_400(host: str) -> None:
    response = ask(host)
    assert (response.status, response.problem()) == (400, None)


def test_missing_host_is_400_in_http_1_1_only() -> None:
    assert ask(None).status == 400
    assert link(ask(None, version="1.0")) == ""


@pytest.mark.parametrize("host", [EVIL, "meter.evil.example.org:8777"])
@pytest.mark.parametrize("path", PATHS)
def test_open_api_refuses_names_that_a_foreign_page_could_have(host: str, path: str) -> None:
    response = ask(host, path, names=["metering.example.org"], refuse_unknown=True)
    assert (response.status, response.problem()) == (421, None)
    assert b"vm-1" not in response.body


@pytest.mark.parametrize(
    "host", ["localhost:8777", "127.0.0.1", "[::1]:8777", "192.0.2.7", "metering.example.org", "own.example.org"]
)
def test_open_api_serves_its_own_names_and_all_addresses(host: str) -> None:
    response = ask(host, names=["metering.example.org"], base_url="https://own.example.org", refuse_unknown=True)
    assert response.status == 200
