"""What clients are told when the API cannot answer, and what a client that leaves does to others: nothing."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.server import Site

from meter.api import Api
from meter.interfaces import RequestError
from meter.testing import MemoryStore
from tests.asking import Asking
from tests.hygiene import LoggedErrors


def test_a_store_that_is_away_is_503_and_come_again() -> None:
    ask = Asking()
    ask.store.unavailable = "no connection to db.example.org"
    answer = ask("/v2/samples")
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json["error_message"]["faultcode"] == "Server"
    assert "no connection to db.example.org" in answer.fault
    ask.store.unavailable = None
    assert ask("/v2/samples").status == 200


def test_what_the_store_cannot_answer_is_400_with_its_reason() -> None:
    answer = Asking(store=Breaking(RequestError("took longer than 30 s; narrow the range")))("/v2/samples")
    assert (answer.status, answer.fault) == (400, "took longer than 30 s; narrow the range")


def test_a_defect_is_500_without_its_text_and_logged_with_it(logged_errors: LoggedErrors) -> None:
    answer = Asking(store=Breaking(ZeroDivisionError("secret text")))("/v2/samples")
    assert answer.status == 500
    assert answer.json["error_message"]["faultcode"] == "Server"
    assert b"secret" not in answer.body
    assert b"Traceback" not in answer.body
    assert answer.headers["content-type"] == "application/json"
    (event,) = logged_errors.flush(ZeroDivisionError)
    assert answer.headers["x-openstack-request-id"] == event["request_id"]


def test_every_answer_has_an_id_of_its_own() -> None:
    ask = Asking()
    ids = [ask(path).headers["x-openstack-request-id"] for path in ("/v2/samples", "/v2/samples", "/nowhere")]
    assert len(set(ids)) == 3
    assert all(one.startswith("req-") for one in ids)


def test_head_is_get_without_the_body() -> None:
    ask = Asking()
    head = ask("/v2/samples", method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert int(head.headers["content-length"]) == len(ask("/v2/samples").body)


def test_the_store_stops_looking_when_the_client_hangs_up() -> None:
    store = Waiting()
    transport = StringTransport()
    channel = Site(Api(store, Asking().clock).resource(), reactor=Asking().clock).buildProtocol(None)
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
def test_what_is_hardly_http_is_not_answered_in_html(request_line: bytes) -> None:
    transport = StringTransport()
    channel = Site(Api(MemoryStore(), Asking().clock).resource(), reactor=Asking().clock).buildProtocol(None)
    assert channel is not None
    channel.makeConnection(transport)
    channel.dataReceived(request_line + b"\r\nHost: cloud\r\nConnection: close\r\n\r\n")
    assert transport.value().startswith(b"HTTP/1.1 4")
    assert b"<" not in transport.value()
    channel.connectionLost(Failure(ConnectionError()))


class Breaking(MemoryStore):
    """A store whose questions raise."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    async def samples(self, *_: Any) -> Any:
        raise self._error


class Waiting(MemoryStore):
    """A store that answers when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.questions: list[Deferred[Any]] = []
        self.cancelled = 0

    async def samples(self, *_: Any) -> Any:
        self.questions.append(Deferred())
        try:
            return await self.questions[-1]
        except CancelledError:
            self.cancelled += 1
            raise
