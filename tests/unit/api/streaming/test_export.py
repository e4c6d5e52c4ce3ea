"""Export: all samples of a query as CSV or JSON lines, in pages that are not buffered."""

from __future__ import annotations

import csv
import io
from typing import Any

import msgspec
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.server import Site

from meter.api import Api
from meter.api import RequestLimits
from meter.api.streaming import export as export_module
from meter.interfaces import RequestError
from meter.interfaces import Unavailable
from meter.message import read
from meter.outgoing import sign
from meter.sample import Sample
from meter.signing_keys import Keyring
from meter.spreadsheet import restore
from meter.testing import MemoryStore
from tests.api_client import KEYS
from tests.api_client import NOON
from tests.api_client import ApiClient
from tests.api_client import Response
from tests.api_client import message
from tests.hygiene import LoggedErrors

CSV = "text/csv"
LINES = "application/x-ndjson"


@pytest.fixture
def api() -> ApiClient:
    api = ApiClient(limits=RequestLimits(default_limit=2, max_limit=3))
    Deferred.fromCoroutine(api.store.write([message(10 + n / 10, message_id=f"n{n}") for n in range(25)]))
    return api


def exported(api: ApiClient, path: str, media_type: str) -> Response:
    response = api(path, headers={"Accept": media_type})
    assert (response.status, response.headers["content-type"]) == (200, media_type)
    return response


def lines(response: Response) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in response.body.splitlines()]


def test_json_lines_export_has_all_samples_of_the_query(api: ApiClient, monkeypatch: Any) -> None:
    monkeypatch.setattr(export_module, "PAGE_SAMPLES", 4)
    found = lines(exported(api, "/v2/samples", LINES))
    assert [sample["id"] for sample in found] == [f"n{n}" for n in reversed(range(25))] + ["s3", "s2", "s1", "s0"]
    assert found[-1] == api("/v2/samples/s0").json


def test_csv_export_has_a_header_and_metadata_as_json(api: ApiClient) -> None:
    head, *rows = list(csv.reader(io.StringIO(exported(api, "/v2/meters/cpu", CSV).body.decode(), newline="")))
    assert head[:4] == ["counter_name", "counter_type", "counter_unit", "counter_volume"]
    assert len(rows) == 28
    last = dict(zip(head, rows[-1], strict=True))
    assert (last["message_id"], last["counter_volume"], last["user_id"]) == ("s0", "10.0", "ann")
    assert msgspec.json.decode(last["resource_metadata"]) == {"flavor.name": "m1", "size": "0"}


def test_csv_export_is_quoted_like_the_csv_module(api: ApiClient) -> None:
    nasty = ["a,b", 'a"b', "a\nb", "a\rb", "a\r\nb", " a ", ",", '"', '"a"', "ä;\t'", "\n"]
    sent = [
        message(n, message_id=f"q{n}", name="odd", resource_id=text, user_id=text, resource_metadata={"k": text})
        for n, text in enumerate(nasty)
    ]
    Deferred.fromCoroutine(api.store.write([*sent, message(60, message_id="q", name="odd", user_id=None)]))
    body = exported(api, "/v2/samples?q.field=meter&q.value=odd", CSV).body.decode()
    rows = list(csv.reader(io.StringIO(body, newline=""), strict=True))
    assert [(restore(row[5]), restore(row[7]), msgspec.json.decode(row[11] or "null")) for row in rows[:0:-1]] == [
        *((text, text, {"k": text}) for text in nasty),
        ("vm-1", "", {}),
    ]
    again = io.StringIO(newline="")
    csv.writer(again).writerows(rows)
    assert again.getvalue() == body


def test_csv_of_unsigned_sample_has_an_empty_signature(api: ApiClient) -> None:
    sample = Sample(name="odd", type="gauge", unit="", volume=1, resource_id="vm-1", timestamp=NOON)
    fields = sign(sample, KEYS, "test") | {"message_signature": ""}
    Deferred.fromCoroutine(api.store.write([read(fields, Keyring([], accept_unsigned=True))]))
    for path in ("/v2/samples?q.field=meter&q.value=odd", "/v2/meters/odd"):
        [row] = csv.DictReader(io.StringIO(exported(api, path, CSV).body.decode(), newline=""))
        assert row["message_signature"] == ""


def test_empty_csv_export_has_only_a_header(api: ApiClient) -> None:
    assert exported(api, "/v2/meters/none", CSV).body.startswith(b"counter_name,counter_type")
    assert len(exported(api, "/v2/meters/none", CSV).body.splitlines()) == 1
    assert exported(api, "/v2/meters/none", LINES).body == b""


@pytest.mark.parametrize("limit", [1, 4, 5, 8, 28, 29, 100])
def test_limit_of_an_export_can_exceed_the_maximum(api: ApiClient, monkeypatch: Any, limit: int) -> None:
    monkeypatch.setattr(export_module, "PAGE_SAMPLES", 4)
    assert len(lines(exported(api, f"/v2/samples?limit={limit}", LINES))) == min(limit, 29)


def test_complex_query_can_be_exported(api: ApiClient) -> None:
    response = api.post("/v2/query/samples", {"filter": '{"=": {"user": "bob"}}'}, Accept=CSV)
    assert b"s2," in response.body
    assert len(response.body.splitlines()) == 2
    refused = api.post("/v2/query/samples", {"orderby": '[{"volume": "asc"}]'}, Accept=CSV)
    assert (refused.status, "newest first" in refused.faultstring) == (400, True)


def test_json_is_preferred_to_an_export(api: ApiClient) -> None:
    assert api("/v2/samples", headers={"Accept": "*/*"}).headers["content-type"] == "application/json"
    both = "text/csv;q=0.5, application/json"
    assert api("/v2/samples", headers={"Accept": both}).headers["content-type"] == "application/json"
    assert api("/v2/resources", headers={"Accept": CSV}).status == 406


def test_head_of_an_export_has_no_body(api: ApiClient) -> None:
    response = api("/v2/samples", method="HEAD", headers={"Accept": CSV})
    assert (response.status, response.body) == (200, b"")


@pytest.mark.parametrize(
    ("failure", "status"), [(RequestError("took too long"), 400), (Unavailable("no connection"), 503)]
)
def test_error_before_the_first_page_has_its_own_status(failure: Exception, status: int) -> None:
    response = ApiClient(store=PagedStore([failure]))("/v2/samples", headers={"Accept": CSV})
    assert response.status == status
    assert response.headers["content-type"] == "application/json"


# --- on a connection -----------------------------------------------------------------------------------------------


class PagedStore(MemoryStore):
    """A store that returns the next of ``pages`` for each query; without one, the query waits in ``queries``."""

    def __init__(self, pages: Any = ()) -> None:
        super().__init__()
        self.pages = list(pages)
        self.queries: list[Deferred[Any]] = []

    async def samples(self, *_: Any) -> Any:
        if not self.pages:
            self.queries.append(Deferred())
            return await self.queries[-1]
        page = self.pages.pop(0)
        if isinstance(page, Exception):
            raise page
        return page


class Connection:
    """The server side of a client's connection to an API over ``store``."""

    def __init__(
        self, store: MemoryStore, path: bytes = b"/v2/samples", accept: bytes = b"application/x-ndjson"
    ) -> None:
        self.clock = ApiClient().clock
        self.transport = Transport(self.clock)
        channel: Any = Site(Api(store, self.clock).resource(), reactor=self.clock).buildProtocol(None)
        channel.makeConnection(self.transport)
        self.channel = channel
        self.transport.channel = channel
        channel.dataReceived(b"GET %b HTTP/1.1\r\nHost: cloud\r\nAccept: %b\r\n\r\n" % (path, accept))

    @property
    def received(self) -> bytes:
        return self.transport.value()


class Transport(StringTransport):
    """A transport that reports the loss of the connection to its channel after an abort."""

    channel: Any = None
    producer: Any

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def abortConnection(self) -> None:
        super().abortConnection()
        self._clock.callLater(0, self.channel.connectionLost, Failure(ConnectionError()))


@pytest.fixture
def thousand_rows() -> list[Any]:
    api = ApiClient()
    Deferred.fromCoroutine(api.store.write([message(n, resource_id=f"r{n}") for n in range(1000)]))
    found: list[Any] = []
    from meter.query import SampleFilter

    Deferred.fromCoroutine(api.store.samples(SampleFilter(), 1000)).addCallback(found.extend)
    return found


def test_export_queries_at_most_one_page_ahead_of_the_client(thousand_rows: list[Any]) -> None:
    store = PagedStore([thousand_rows])
    connection = Connection(store)
    assert len(store.queries) == 1
    connection.transport.producer.pauseProducing()
    store.queries[0].callback(thousand_rows)
    assert len(store.queries) == 2
    store.queries[1].callback(thousand_rows)
    taken = len(connection.received)
    assert len(store.queries) == 2
    connection.transport.producer.resumeProducing()
    assert len(store.queries) == 3
    assert len(connection.received) > taken > 200_000
    store.queries[2].callback([])
    assert connection.received.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("outcome", [[], Failure(Unavailable("no connection")), Failure(ZeroDivisionError("defect"))])
def test_abandoned_page_is_not_logged(thousand_rows: list[Any], outcome: Any) -> None:
    connection = Connection(store := PagedStore([thousand_rows]))
    connection.transport.producer.pauseProducing()
    store.queries[0].callback(thousand_rows)
    connection.channel.connectionLost(Failure(ConnectionError()))
    store.queries[1].callback(outcome)
    assert len(store.queries) == 2


def test_client_that_reads_nothing_is_disconnected(thousand_rows: list[Any]) -> None:
    connection = Connection(store := PagedStore([thousand_rows]))
    connection.transport.producer.pauseProducing()
    store.queries[0].callback(thousand_rows)
    connection.clock.advance(59)
    assert not connection.transport.disconnected
    connection.clock.advance(10)
    assert connection.transport.disconnected


def test_disconnecting_client_ends_the_export(thousand_rows: list[Any]) -> None:
    connection = Connection(store := PagedStore([thousand_rows]))
    connection.channel.connectionLost(Failure(ConnectionError()))
    store.queries[0].callback(thousand_rows)
    assert len(store.queries) == 1


@pytest.mark.parametrize("failure", [Unavailable("no connection"), ZeroDivisionError("defect")])
def test_failed_export_is_aborted_without_a_final_chunk(
    thousand_rows: list[Any], failure: Exception, logged_errors: LoggedErrors
) -> None:
    connection = Connection(PagedStore([thousand_rows, failure]))
    assert connection.received.startswith(b"HTTP/1.1 200")
    assert not connection.received.endswith(b"0\r\n\r\n")
    assert connection.transport.disconnected
    logged_errors.flush(ZeroDivisionError)
