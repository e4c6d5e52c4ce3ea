"""Every byte in every place of a request gets a response in JSON that is no server error, and no traceback in the log."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.web.server import Site
from twisted.web.test.requesthelper import DummyChannel

from meter.api import Api
from meter.api import HostPolicy
from meter.api import Requester
from meter.api import SampleIngest
from meter.api import StaticToken
from meter.api import StaticTokens
from meter.api import make_site
from meter.daemon.status import status_site
from meter.testing import MemoryStore
from tests.api_client import KEYS
from tests.api_client import SAMPLES
from tests.http_exchange import RawResponse
from tests.http_exchange import exchange
from tests.unit.api.test_ingest import RecordingBus

TOKEN_SHA256 = "3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0"
"""Of ``token``."""

PLACES = {
    "a header value": b"GET /v2/samples HTTP/1.1\r\nHost: cloud\r\nX-Auth-Token: token\r\nUser-Agent: a%bc\r\n\r\n",
    "X-Auth-Token": b"GET /v2/samples HTTP/1.1\r\nHost: cloud\r\nX-Auth-Token: token%b\r\n\r\n",
    "Accept": b"GET /v2/samples HTTP/1.1\r\nHost: cloud\r\nX-Auth-Token: token\r\nAccept: text/csv%b\r\n\r\n",
    "Accept of an error": b"GET /v2/nothing HTTP/1.1\r\nHost: cloud\r\nAccept: text/csv%b\r\n\r\n",
    "Origin": b"GET /v2/samples HTTP/1.1\r\nHost: cloud\r\nX-Auth-Token: token\r\nOrigin: http://a%b\r\n\r\n",
    "a preflight": (
        b"OPTIONS /v2/samples HTTP/1.1\r\nHost: cloud\r\nOrigin: http://a\r\nAccess-Control-Request-Method: %b\r\n\r\n"
    ),
    "Content-Type": (
        b"POST /v2/query/samples HTTP/1.1\r\nHost: cloud\r\nX-Auth-Token: token\r\nContent-Type: application/json%b\r\n"
        b"Content-Length: 2\r\n\r\n{}"
    ),
    "Content-Encoding": (
        b"POST /v2/query/samples HTTP/1.1\r\nHost: cloud\r\nX-Auth-Token: token\r\nContent-Type: application/json\r\n"
        b"Content-Encoding: identity%b\r\nContent-Length: 2\r\n\r\n{}"
    ),
    "Host": b"GET /v2/samples HTTP/1.1\r\nHost: cloud%b\r\nX-Auth-Token: token\r\n\r\n",
    "Cookie": b"GET /v2/samples HTTP/1.1\r\nHost: cloud\r\nX-Auth-Token: token\r\nCookie: a=%b\r\n\r\n",
    "Expect": b"GET /v2/samples HTTP/1.1\r\nHost: cloud\r\nX-Auth-Token: token\r\nExpect: %b\r\n\r\n",
    "Connection": b"GET /v2/samples HTTP/1.1\r\nHost: cloud\r\nX-Auth-Token: token\r\nConnection: %b\r\n\r\n",
    "Content-Length": b"POST /v2/query/samples HTTP/1.1\r\nHost: cloud\r\nContent-Length: 0%b\r\n\r\n",
    "Transfer-Encoding": b"POST /v2/query/samples HTTP/1.1\r\nHost: cloud\r\nTransfer-Encoding: chunked%b\r\n\r\n0\r\n\r\n",
    "a header name": b"GET /v2/samples HTTP/1.1\r\nHost: cloud\r\nX-Auth-Token: token\r\nX-A%b: b\r\n\r\n",
    "the method": b"GET%b /v2/samples HTTP/1.1\r\nHost: cloud\r\nX-Auth-Token: token\r\n\r\n",
    "the target": b"GET %b/v2/samples HTTP/1.1\r\nHost: cloud\r\nX-Auth-Token: token\r\n\r\n",
    "the path": b"GET /v2/samples/%b HTTP/1.1\r\nHost: cloud\r\nX-Auth-Token: token\r\n\r\n",
    "the end of the path": b"GET /v2/samples%b HTTP/1.1\r\nHost: cloud\r\nX-Auth-Token: token\r\n\r\n",
    "the query": b"GET /v2/samples?limit=1&q.field=%b&q.value=x HTTP/1.1\r\nHost: cloud\r\nX-Auth-Token: token\r\n\r\n",
    "the version": b"GET /v2/samples HTTP/1.%b\r\nHost: cloud\r\nX-Auth-Token: token\r\n\r\n",
    "a chunk size": (
        b"POST /v2/query/samples HTTP/1.1\r\nHost: cloud\r\nX-Auth-Token: token\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n2%b\r\n{}\r\n0\r\n\r\n"
    ),
    "a trailer": (
        b"POST /v2/query/samples HTTP/1.1\r\nHost: cloud\r\nX-Auth-Token: token\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nA: %b\r\n\r\n"
    ),
    "a JSON body": (
        b"POST /v2/query/samples HTTP/1.1\r\nHost: cloud\r\nX-Auth-Token: token\r\nContent-Type: application/json\r\n"
        b'Content-Length: 13\r\n\r\n{"filter":"%b"}'
    ),
    "a JSON body of samples": (
        b"POST /v2/meters/a HTTP/1.1\r\nHost: cloud\r\nX-Auth-Token: token\r\nContent-Type: application/json\r\n"
        b'Content-Length: 12\r\n\r\n[{"id":"%b"}]'
    ),
    "a form": (
        b"GET /v2/samples HTTP/1.1\r\nHost: cloud\r\nX-Auth-Token: token\r\nContent-Length: 7\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\n\r\nlimit=%b"
    ),
}
"""Requests with a place for one byte."""

ESCAPED = {name: PLACES[name] for name in ("the path", "the end of the path", "the query", "a form")}


def api_site(clock: Clock | None = None) -> Site:
    """Return the site of an API with a token and a store in memory."""
    clock = clock or Clock()
    store = MemoryStore(clock)
    Deferred.fromCoroutine(store.write(SAMPLES))
    auth = StaticTokens([StaticToken(TOKEN_SHA256, Requester(is_admin=True))])
    ingest = SampleIngest(KEYS, "test", RecordingBus(), store)
    api = Api(store, clock, auth=auth, ingest=ingest, hosts=HostPolicy(["cloud"]), cors_origins=["*"])
    return make_site(api, clock)


def status_pages() -> Site:
    """Return the status site of a daemon without dependencies."""
    return status_site([], lambda: b"a 1\n", "text/plain", Clock())


def is_served(response: RawResponse) -> bool:
    """Whether a response is a success, or an error in JSON that is the client's fault."""
    return 200 <= response.status < 300 or response.problem() is None


def hostile(places: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    for place, request in places.items():
        for byte in range(256):
            yield f"byte {byte:#04x} in {place}", request.replace(b"%b", bytes([byte]))


@pytest.mark.parametrize("place", PLACES)
def test_any_byte_in_any_place_gets_no_server_error_from_the_api(place: str) -> None:
    site = api_site()
    answered = 0
    for what, request in hostile({place: PLACES[place]}):
        response = exchange(site, request)
        # A byte can make a request incomplete, which gets no response until the connection times out.
        assert response.status == 0 or is_served(response), f"{what}: {response}"
        answered += response.status != 0
    assert answered > 200


@pytest.mark.parametrize("place", PLACES)
def test_any_byte_in_any_place_gets_no_server_error_from_the_status_pages(place: str) -> None:
    site = status_pages()
    for what, request in hostile({place: PLACES[place].replace(b"/v2/samples", b"/readyz")}):
        response = exchange(site, request)
        assert response.status == 0 or is_served(response), f"{what}: {response}"


@pytest.mark.parametrize("place", ESCAPED)
def test_any_escaped_byte_gets_no_server_error(place: str) -> None:
    site = api_site()
    for byte in range(256):
        request = ESCAPED[place].replace(b"%b", b"%%%02X" % byte).replace(b"Length: 7", b"Length: 9")
        response = exchange(site, request)
        assert is_served(response), f"{byte:#04x}: {response}"


@pytest.mark.parametrize("site", [api_site(), status_pages()], ids=["API", "status pages"])
@pytest.mark.parametrize(
    "header", ["X-Auth-Token", "Accept", "Origin", "Content-Type", "Host", "User-Agent", "X-Unknown"]
)
@pytest.mark.parametrize("value", [b"\xff", b"\xc3(", b"a\x01b", b"\x7f", b"\xed\xa0\x80"])
def test_header_that_is_not_text_is_400(site: Site, header: str, value: bytes) -> None:
    response = exchange(site, b"GET /readyz HTTP/1.1\r\n%b: a%b\r\n\r\n" % (header.encode(), value))
    assert response.problem() is None
    assert response.status == 400
    assert header.lower() in response.json["error_message"]["faultstring"].lower()


@pytest.mark.parametrize("header", ["Host", "X-Auth-Token", "Content-Type", "Origin", "Content-Length"])
def test_duplicate_header_is_400(header: str) -> None:
    lines = {"Host": "cloud", "X-Auth-Token": "token", "Content-Type": "application/json", "Content-Length": "2"}
    lines.setdefault(header, "http://a")
    head = "".join(f"{name}: {value}\r\n" for name, value in [*lines.items(), (header, lines[header])])
    response = exchange(api_site(), f"POST /v2/query/samples HTTP/1.1\r\n{head}\r\n{{}}".encode())
    assert (response.status, response.problem()) == (400, None)


def test_accept_header_can_be_given_in_parts() -> None:
    request = (
        b"GET /v2/samples HTTP/1.1\r\nHost: cloud\r\nX-Auth-Token: token\r\nAccept: image/png\r\nAccept: %b\r\n\r\n"
    )
    assert exchange(api_site(), request % b"*/*").status == 200
    assert exchange(api_site(), request % b"text/plain").status == 406


@pytest.mark.parametrize(
    "request_text",
    [
        b"POST /v2/query/samples HTTP/1.1\r\nHost: cloud\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"POST /v2/query/samples HTTP/1.1\r\nHost: cloud\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nHost: cloud\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 5000,
        b"POST / HTTP/1.1\r\nHost: cloud\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: cloud\r\n\r\n",
        b"GET http://cloud/v2/samples HTTP/1.1\r\nHost: cloud\r\n\r\n",
        b"GET v2/samples HTTP/1.1\r\nHost: cloud\r\n\r\n",
        b"GET * HTTP/1.1\r\nHost: cloud\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : cloud\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a" * 70_000,
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 2000 + b"\r\n",
    ],
    ids=range(13),
)
@pytest.mark.parametrize("pages", [api_site, status_pages], ids=["API", "status pages"])
def test_malformed_request_gets_an_error_in_json(pages: type, request_text: bytes) -> None:
    response = exchange(pages(), request_text)
    assert response.problem() is None, response
    assert b"Twisted" not in response.body


def test_request_that_is_not_ascii_can_be_logged() -> None:
    """Twisted logs the representation of a request, which raises an exception for such a target."""
    response = exchange(api_site(), b"HEAD /v2/samples?\x84 HTTP/1.1\r\nHost: cloud\r\n\r\n")
    assert response.status == 400
    request = api_site().requestFactory(DummyChannel())  # type: ignore[arg-type]
    request.method, request.uri = b"G\xc3\xa9T", b"/\x84"
    assert repr(request) == "<BoundedRequest G\\xc3\\xa9T /\\x84>"


def test_nothing_is_processed_after_a_malformed_request() -> None:
    smuggled = b"GET /v2/samples HTTP/1.1\r\nHost: cloud\r\nX-Auth-Token: token\r\n\r\n"
    response = exchange(api_site(), b"GET / HTTP/1.1\r\nbad\r\n\r\n" + smuggled)
    assert response.status == 400
    assert b"HTTP/1.1 200" not in response.body
