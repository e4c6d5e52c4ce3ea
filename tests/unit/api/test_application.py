"""Error responses, request ids, HEAD, and cancellation when a client disconnects."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.server import Site

from meter.api import Api
from meter.archive_unavailable import ArchiveUnavailable
from meter.archive_unavailable import SamplesLost
from meter.interfaces import RequestError
from meter.testing import MemoryStore
from tests.api_client import ApiClient
from tests.hygiene import LoggedErrors


def test_unavailable_store_is_503_with_retry_after() -> None:
    api = ApiClient()
    api.store.unavailable = "no connection to db.example.org"
    response = api("/v2/samples")
    assert response.status == 503
    assert int(response.headers["retry-after"]) > 0
    assert response.json["error_message"]["faultcode"] == "Server"
    assert b"db.example.org" not in response.body
    api.store.unavailable = None
    assert api("/v2/samples").status == 200


def test_archive_server_that_is_away_is_503_with_its_name_and_weeks_and_without_the_reason() -> None:
    away = ArchiveUnavailable("cold", "2026-01-05", "2026-03-02", "no route to archive.example.org")
    response = ApiClient(store=FailingStore(away))("/v2/samples")
    assert response.status == 503
    assert int(response.headers["retry-after"]) > 0
    assert "the weeks of 2026-01-05 to 2026-03-02 are on the archive server cold" in response.faultstring
    assert b"example.org" not in response.body


def test_samples_that_are_lost_are_410_with_the_week_and_the_entry_of_the_audit_log() -> None:
    response = ApiClient(store=FailingStore(SamplesLost("cold", "2026-03-02", "2026-11-28", "17")))("/v2/samples")
    assert (response.status, "retry-after" in response.headers) == (410, False)
    assert "The samples of the week of 2026-03-02 are lost" in response.faultstring
    assert "entry 17 of the audit log" in response.faultstring


def test_request_error_of_the_store_is_400_with_its_text() -> None:
    response = ApiClient(store=FailingStore(RequestError("took longer than 30 s; narrow the range")))("/v2/samples")
    assert (response.status, response.faultstring) == (400, "took longer than 30 s; narrow the range")


def test_unexpected_error_is_500_without_its_text_and_logged_with_it(logged_errors: LoggedErrors) -> None:
    response = ApiClient(store=FailingStore(ZeroDivisionError("secret text")))("/v2/samples")
    assert response.status == 500
    assert response.json["error_message"]["faultcode"] == "Server"
    assert b"secret" not in response.body
    assert b"Traceback" not in response.body
    assert response.headers["content-type"] == "application/json"
    (event,) = logged_errors.flush(ZeroDivisionError)
    assert response.headers["x-openstack-request-id"] == event["request_id"]


def test_every_response_has_a_distinct_request_id() -> None:
    api = ApiClient()
    ids = [api(path).headers["x-openstack-request-id"] for path in ("/v2/samples", "/v2/samples", "/nowhere")]
    assert len(set(ids)) == 3
    assert all(one.startswith("req-") for one in ids)


def test_head_has_the_headers_of_get_without_the_body() -> None:
    api = ApiClient()
    head = api("/v2/samples", method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert int(head.headers["content-length"]) == len(api("/v2/samples").body)


def test_query_is_cancelled_when_the_client_disconnects() -> None:
    store = PendingStore()
    transport = StringTransport()
    channel = Site(Api(store, ApiClient().clock).resource(), reactor=ApiClient().clock).buildProtocol(None)
    assert channel is not None
    channel.makeConnection(transport)
    channel.dataReceived(b"GET /v2/samples HTTP/1.1\r\nHost: cloud\r\n\r\n")
    assert store.cancelled == 0
    channel.connectionLost(Failure(ConnectionError()))
    assert store.cancelled == 1


@pytest.mark.parametrize(
    "request_line",
    [
        b"B\xc3\xa9 /v2/samples HTTP/1.1",
        b"G;T / HTTP/1.1",
        b"GET /\xff HTTP/1.1",
        b"GET * HTTP/1.1",
    ],
)
def test_malformed_request_line_is_not_answered_in_html(request_line: bytes) -> None:
    transport = StringTransport()
    channel = Site(Api(MemoryStore(), ApiClient().clock).resource(), reactor=ApiClient().clock).buildProtocol(None)
    assert channel is not None
    channel.makeConnection(transport)
    channel.dataReceived(request_line + b"\r\nHost: cloud\r\nConnection: close\r\n\r\n")
    assert transport.value().startswith(b"HTTP/1.1 4")
    assert b"<" not in transport.value()
    channel.connectionLost(Failure(ConnectionError()))


class FailingStore(MemoryStore):
    """A store whose queries raise ``error``."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    async def samples(self, *_: Any) -> Any:
        raise self._error


class PendingStore(MemoryStore):
    """A store whose queries wait in ``queries``."""

    def __init__(self) -> None:
        super().__init__()
        self.queries: list[Deferred[Any]] = []
        self.cancelled = 0

    async def samples(self, *_: Any) -> Any:
        self.queries.append(Deferred())
        try:
            return await self.queries[-1]
        except CancelledError:
            self.cancelled += 1
            raise
