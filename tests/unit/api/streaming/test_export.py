"""Export: every sample of a question as CSV or lines of JSON, in pages that nobody keeps."""

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
from meter.api import Limits
from meter.api.streaming import export as exporting
from meter.interfaces import RequestError
from meter.interfaces import Unavailable
from meter.message import read
from meter.message import sign
from meter.sample import Sample
from meter.signature import Keyring
from meter.testing import MemoryStore
from tests.asking import KEYS
from tests.asking import NOON
from tests.asking import Answer
from tests.asking import Asking
from tests.asking import message
from tests.hygiene import LoggedErrors

CSV = "text/csv"
LINES = "application/x-ndjson"


@pytest.fixture
def ask() -> Asking:
    ask = Asking(limits=Limits(default=2, largest=3))
    Deferred.fromCoroutine(ask.store.write([message(10 + n / 10, message_id=f"n{n}") for n in range(25)]))
    return ask


def exported(ask: Asking, path: str, media_type: str) -> Answer:
    answer = ask(path, headers={"Accept": media_type})
    assert (answer.status, answer.headers["content-type"]) == (200, media_type)
    return answer


def lines(answer: Answer) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in answer.body.splitlines()]


def test_lines_of_json_are_the_samples_of_the_question_all_of_them(ask: Asking, monkeypatch: Any) -> None:
    monkeypatch.setattr(exporting, "PAGE_SAMPLES", 4)
    found = lines(exported(ask, "/v2/samples", LINES))
    assert [sample["id"] for sample in found] == [f"n{n}" for n in reversed(range(25))] + ["s3", "s2", "s1", "s0"]
    assert found[-1] == ask("/v2/samples/s0").json


def test_csv_has_a_head_and_metadata_as_json(ask: Asking) -> None:
    head, *rows = list(csv.reader(io.StringIO(exported(ask, "/v2/meters/cpu", CSV).body.decode(), newline="")))
    assert head[:4] == ["counter_name", "counter_type", "counter_unit", "counter_volume"]
    assert len(rows) == 28
    last = dict(zip(head, rows[-1], strict=True))
    assert (last["message_id"], last["counter_volume"], last["user_id"]) == ("s0", "10.0", "ann")
    assert msgspec.json.decode(last["resource_metadata"]) == {"flavor.name": "m1", "size": "0"}


def test_csv_is_quoted_as_the_csv_module_does(ask: Asking) -> None:
    nasty = ["a,b", 'a"b', "a\nb", "a\rb", "a\r\nb", " a ", ",", '"', '"a"', "ä;\t'", "\n"]
    sent = [
        message(n, message_id=f"q{n}", name="odd", resource_id=text, user_id=text, resource_metadata={"k": text})
        for n, text in enumerate(nasty)
    ]
    Deferred.fromCoroutine(ask.store.write([*sent, message(60, message_id="q", name="odd", user_id=None)]))
    body = exported(ask, "/v2/samples?q.field=meter&q.value=odd", CSV).body.decode()
    rows = list(csv.reader(io.StringIO(body, newline=""), strict=True))
    assert [(row[5], row[7], msgspec.json.decode(row[11] or "null")) for row in rows[:0:-1]] == [
        *((text, text, {"k": text}) for text in nasty),
        ("vm-1", "", {}),
    ]
    again = io.StringIO(newline="")
    csv.writer(again).writerows(rows)
    assert again.getvalue() == body


def test_csv_of_unsigned_sample_has_an_empty_signature(ask: Asking) -> None:
    sample = Sample(name="odd", type="gauge", unit="", volume=1, resource_id="vm-1", timestamp=NOON)
    fields = sign(sample, KEYS, "test") | {"message_signature": ""}
    Deferred.fromCoroutine(ask.store.write([read(fields, Keyring([], accept_unsigned=True))]))
    for path in ("/v2/samples?q.field=meter&q.value=odd", "/v2/meters/odd"):
        [row] = csv.DictReader(io.StringIO(exported(ask, path, CSV).body.decode(), newline=""))
        assert row["message_signature"] == ""


def test_an_export_of_nothing_has_a_head_only(ask: Asking) -> None:
    assert exported(ask, "/v2/meters/none", CSV).body.startswith(b"counter_name,counter_type")
    assert len(exported(ask, "/v2/meters/none", CSV).body.splitlines()) == 1
    assert exported(ask, "/v2/meters/none", LINES).body == b""


@pytest.mark.parametrize("limit", [1, 4, 5, 8, 28, 29, 100])
def test_a_limit_of_an_export_may_be_any(ask: Asking, monkeypatch: Any, limit: int) -> None:
    monkeypatch.setattr(exporting, "PAGE_SAMPLES", 4)
    assert len(lines(exported(ask, f"/v2/samples?limit={limit}", LINES))) == min(limit, 29)


def test_a_complex_query_is_exported_too(ask: Asking) -> None:
    answer = ask.post("/v2/query/samples", {"filter": '{"=": {"user": "bob"}}'}, Accept=CSV)
    assert b"s2," in answer.body
    assert len(answer.body.splitlines()) == 2
    refused = ask.post("/v2/query/samples", {"orderby": '[{"volume": "asc"}]'}, Accept=CSV)
    assert (refused.status, "newest first" in refused.fault) == (400, True)


def test_json_is_what_comes_where_both_are_welcome(ask: Asking) -> None:
    assert ask("/v2/samples", headers={"Accept": "*/*"}).headers["content-type"] == "application/json"
    both = "text/csv;q=0.5, application/json"
    assert ask("/v2/samples", headers={"Accept": both}).headers["content-type"] == "application/json"
    assert ask("/v2/resources", headers={"Accept": CSV}).status == 406


def test_head_of_an_export_asks_for_no_more_than_a_page(ask: Asking) -> None:
    answer = ask("/v2/samples", method="HEAD", headers={"Accept": CSV})
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize(
    ("failure", "status"), [(RequestError("took too long"), 400), (Unavailable("no connection"), 503)]
)
def test_what_fails_before_the_first_page_has_a_status(failure: Exception, status: int) -> None:
    answer = Asking(store=Pages([failure]))("/v2/samples", headers={"Accept": CSV})
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"


# --- on the wire ---------------------------------------------------------------------------------------------------


class Pages(MemoryStore):
    """A store that answers each question for samples with the next of ``pages``, or waits until ``page`` gives it one."""

    def __init__(self, pages: Any = ()) -> None:
        super().__init__()
        self.pages = list(pages)
        self.questions: list[Deferred[Any]] = []

    async def samples(self, *_: Any) -> Any:
        if not self.pages:
            self.questions.append(Deferred())
            return await self.questions[-1]
        page = self.pages.pop(0)
        if isinstance(page, Exception):
            raise page
        return page


class Wire:
    """A client's connection to an API over ``store``, from the server's side."""

    def __init__(
        self, store: MemoryStore, path: bytes = b"/v2/samples", accept: bytes = b"application/x-ndjson"
    ) -> None:
        self.clock = Asking().clock
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
    """A transport that tells its channel, a moment later, when it was aborted."""

    channel: Any = None
    producer: Any

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def abortConnection(self) -> None:
        super().abortConnection()
        self._clock.callLater(0, self.channel.connectionLost, Failure(ConnectionError()))


@pytest.fixture
def thousand() -> list[Any]:
    ask = Asking()
    Deferred.fromCoroutine(ask.store.write([message(n, resource_id=f"r{n}") for n in range(1000)]))
    found: list[Any] = []
    from meter.query import SampleFilter

    Deferred.fromCoroutine(ask.store.samples(SampleFilter(), 1000)).addCallback(found.extend)
    return found


def test_the_database_is_at_most_one_page_ahead_of_the_client(thousand: list[Any]) -> None:
    store = Pages([thousand])
    wire = Wire(store)
    assert len(store.questions) == 1
    wire.transport.producer.pauseProducing()
    store.questions[0].callback(thousand)
    assert len(store.questions) == 2
    store.questions[1].callback(thousand)
    taken = len(wire.received)
    assert len(store.questions) == 2
    wire.transport.producer.resumeProducing()
    assert len(store.questions) == 3
    assert len(wire.received) > taken > 200_000
    store.questions[2].callback([])
    assert wire.received.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("outcome", [[], Failure(Unavailable("no connection")), Failure(ZeroDivisionError("defect"))])
def test_what_becomes_of_a_page_that_was_asked_for_in_vain_is_nothing_to_log(thousand: list[Any], outcome: Any) -> None:
    wire = Wire(store := Pages([thousand]))
    wire.transport.producer.pauseProducing()
    store.questions[0].callback(thousand)
    wire.channel.connectionLost(Failure(ConnectionError()))
    store.questions[1].callback(outcome)
    assert len(store.questions) == 2


def test_a_client_that_takes_nothing_is_given_up(thousand: list[Any]) -> None:
    wire = Wire(store := Pages([thousand]))
    wire.transport.producer.pauseProducing()
    store.questions[0].callback(thousand)
    wire.clock.advance(59)
    assert not wire.transport.disconnected
    wire.clock.advance(2)
    assert wire.transport.disconnected


def test_a_client_that_hangs_up_ends_the_export(thousand: list[Any]) -> None:
    wire = Wire(store := Pages([thousand]))
    wire.channel.connectionLost(Failure(ConnectionError()))
    store.questions[0].callback(thousand)
    assert len(store.questions) == 1


@pytest.mark.parametrize("failure", [Unavailable("no connection"), ZeroDivisionError("defect")])
def test_an_export_that_breaks_has_no_end(thousand: list[Any], failure: Exception, logged_errors: LoggedErrors) -> None:
    wire = Wire(Pages([thousand, failure]))
    assert wire.received.startswith(b"HTTP/1.1 200")
    assert not wire.received.endswith(b"0\r\n\r\n")
    assert wire.transport.disconnected
    logged_errors.flush(ZeroDivisionError)
