"""Samples that clients send: by Ceilometer's rules, over the bus or at once, and what is said of those that are none."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from meter.api import SampleIngest
from meter.interfaces import Publication
from meter.interfaces import Unavailable
from meter.message import metering_messages
from meter.message import open_envelope
from meter.message import read
from meter.query import SampleFilter
from meter.signature import Keyring
from meter.testing import MemoryStore
from tests.asking import KEYS
from tests.asking import Answer
from tests.asking import Asking
from tests.unit.api.auth.test_visibility import TOKENS

APPLE: dict[str, Any] = {
    "counter_name": "apples",
    "counter_type": "gauge",
    "counter_unit": "apple",
    "counter_volume": 3,
    "resource_id": "tree",
}


class Bus:
    """Keeps what is published; set ``failure`` to have it raised."""

    def __init__(self) -> None:
        self.published: list[Publication] = []
        self.failure: Exception | None = None

    async def publish(self, publication: Publication) -> None:
        if self.failure is not None:
            raise self.failure
        self.published.append(publication)

    def messages(self) -> list[dict[str, Any]]:
        return [each for one in self.published for each in metering_messages(open_envelope(one.body))[0]]


class Orchard:
    """An API that takes samples, its bus and its store."""

    def __init__(self, keys: Keyring = KEYS) -> None:
        self.bus = Bus()
        self.store = MemoryStore()
        acceptance = SampleIngest(keys, "openstack", self.bus, self.store)  # type: ignore[arg-type]
        self.ask = Asking(acceptance=acceptance, store=self.store, auth=TOKENS)

    def post(self, content: Any, path: str = "/v2/meters/apples", who: str = "admin") -> Answer:
        return self.ask.post(path, content, **{"X-Auth-Token": f"{who}-token"})


@pytest.fixture
def orchard() -> Orchard:
    return Orchard()


def test_a_sample_is_signed_published_and_echoed(orchard: Orchard) -> None:
    answer = orchard.post([{**APPLE, "resource_metadata": {"a.b": "c", "a.d": "e", "f": "g"}}])
    assert answer.status == 201
    (message,) = orchard.bus.messages()
    taken = read(message, KEYS)
    assert taken.key_id == "key-1"
    assert (taken.name, taken.volume, taken.source, taken.project_id) == ("apples", 3, "openstack", None)
    assert taken.metadata == {"a": {"b": "c", "d": "e"}, "f": "g"}
    (publication,) = orchard.bus.published
    assert (publication.exchange, publication.routing_key) == ("metering", "metering.apples")
    assert answer.json == [
        {
            **APPLE,
            "counter_volume": 3.0,
            "project_id": None,
            "user_id": None,
            "source": "openstack",
            "timestamp": "2026-11-22T12:10:00",
            "resource_metadata": {"a.b": "c", "a.d": "e", "f": "g"},
            "message_id": message["message_id"],
            "message_signature": message["message_signature"],
        }
    ]


def test_a_tenants_sample_belongs_to_the_tenant(orchard: Orchard) -> None:
    (sample,) = orchard.post([APPLE], who="blue").json
    assert (sample["project_id"], sample["user_id"], sample["source"]) == ("blue", "ann", "blue:openstack")
    (sample,) = orchard.post([{**APPLE, "source": "farm", "project_id": "blue"}], who="blue").json
    assert sample["source"] == "blue:farm"


def test_a_tenant_cannot_send_for_others(orchard: Orchard) -> None:
    answer = orchard.post([{**APPLE, "project_id": "red"}], who="blue")
    assert (answer.status, orchard.bus.published) == (400, [])
    assert "can not post samples to other projects" in answer.fault
    assert orchard.post([{**APPLE, "project_id": "red"}]).status == 201
    assert orchard.ask.post("/v2/meters/apples", [APPLE]).status == 401


def test_direct_is_written_at_once(orchard: Orchard) -> None:
    (sample,) = orchard.post([APPLE], "/v2/meters/apples/?direct=True").json
    assert orchard.bus.published == []
    found = orchard.ask(f"/v2/samples/{sample['message_id']}", headers={"X-Auth-Token": "admin-token"})
    assert found.json["volume"] == 3.0


@pytest.mark.parametrize(
    ("given", "timestamp"),
    [
        (None, "2026-11-22T12:10:00"),
        ("2026-01-02T03:04:05.5", "2026-01-02T03:04:05.500000"),
        ("2026-01-02 03:04:05+02:00", "2026-01-02T01:04:05"),
    ],
)
def test_a_time_is_now_or_converted_to_utc(orchard: Orchard, given: str | None, timestamp: str) -> None:
    assert orchard.post([{**APPLE, "timestamp": given}]).json[0]["timestamp"] == timestamp


@pytest.mark.parametrize(("given", "volume"), [("3", 3), ("3.5", 3.5), (3.25, 3.25), (-1, -1), ("1e3", 1000.0)])
def test_a_volume_may_be_a_text_as_old_clients_send_it(orchard: Orchard, given: Any, volume: float) -> None:
    orchard.post([{**APPLE, "counter_volume": given}])
    (message,) = orchard.bus.messages()
    assert repr(message["counter_volume"]) == repr(volume)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"counter_name": "pears"}, "counter_name. Value: 'pears'. should be apples"),
        ({"message_id": "x"}, "The message_id must not be set"),
        ({"counter_type": "heap"}, "The counter type must be: gauge, delta, cumulative"),
        ({"counter_unit": None}, "counter_unit. Value: 'None'. Mandatory field missing."),
        ({"resource_id": None}, "resource_id. Value: 'None'. Mandatory field missing."),
        ({"counter_volume": "many"}, "counter_volume. Value: 'many'. unable to convert to float"),
        ({"counter_volume": "nan"}, "volume of apples must be finite"),
        ({"counter_volume": True}, "counter_volume"),
        ({"counter_volume": 10**400}, "counter_volume"),
        ({"resource_id": ""}, "resource_id must be a non-empty text"),
        ({"resource_id": "x" * 600}, "resource_id must be at most 512 characters"),
        ({"resource_id": "a\0b"}, "NUL"),
        ({"resource_metadata": {"a": "b\0"}}, "NUL"),
        ({"resource_metadata": {"a": {"b": "c"}}}, "resource_metadata"),
        ({"resource_metadata": {"a": 1}}, "resource_metadata"),
        ({"resource_metadata": {"." * 5000: "x"}}, "may be at most 100 deep"),
        ({"resource_metadata": {"_meter": "x"}}, "_meter is reserved"),
        ({"resource_metadata": {"_meter.run": "hv1/1"}}, "_meter is reserved"),
        ({"resource_metadata": "a=b"}, "resource_metadata"),
        ({"timestamp": "soon"}, "timestamp. Value: 'soon'. invalid timestamp format"),
        ({"timestamp": ""}, "timestamp. Value: ''. invalid timestamp format"),
        ({"recorded_at": ""}, "recorded_at. Value: ''. invalid timestamp format"),
        ({"recorded_at": "soon"}, "recorded_at. Value: 'soon'. invalid timestamp format"),
        ({"timestamp": 5}, "timestamp"),
        ({"counter_volume": ""}, "counter_volume. Value: ''. unable to convert to float"),
        ({"wings": 2}, "Unknown attribute: wings"),
    ],
    ids=str,
)
def test_what_is_no_sample_is_400_and_none_is_taken(orchard: Orchard, change: dict[str, Any], fault: str) -> None:
    answer = orchard.post([APPLE, {**APPLE, **change}])
    assert answer.status == 400
    assert fault in answer.fault
    assert orchard.bus.published == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"counter_unit": ""}, {"counter_unit": ""}),
        ({"message_id": ""}, {}),
        ({"message_id": None}, {}),
        ({"source": "", "user_id": "", "project_id": ""}, {"source": "openstack", "user_id": None, "project_id": None}),
        ({"recorded_at": "2026-01-02T03:04:05"}, {}),
        ({"resource_metadata": None}, {"resource_metadata": {}}),
        ({"resource_metadata": {"a": None}}, {"resource_metadata": {"a": None}}),
        ({"resource_metadata": {"a": ""}}, {"resource_metadata": {"a": ""}}),
        ({"resource_metadata": {"a": "b", "a.b": "c"}}, {"resource_metadata": {"a": "b", "a.b": "c"}}),
        ({"resource_metadata": {"a.b.c": "d", "a.b": None}}, {"resource_metadata": {"a": {"b": None, "b.c": "d"}}}),
        ({"resource_metadata": {"a.b.c": "d", "a": "e"}}, {"resource_metadata": {"a": "e", "a.b.c": "d"}}),
    ],
    ids=str,
)
def test_what_the_bus_takes_is_taken(orchard: Orchard, change: dict[str, Any], found: dict[str, Any]) -> None:
    answer = orchard.post([{**APPLE, **change}])
    assert answer.status == 201, answer.body
    (message,) = orchard.bus.messages()
    assert read(message, KEYS).key_id == "key-1"
    assert {name: message[name] for name in found} == found
    assert answer.json[0]["resource_metadata"] == (change.get("resource_metadata") or {})
    assert orchard.post([{**APPLE, **change}], "/v2/meters/apples?direct=1").status == 201


def test_no_key_of_metadata_is_lost_and_each_can_be_asked_for(orchard: Orchard) -> None:
    orchard.post([{**APPLE, "resource_metadata": {"a": "b", "a.b": "c"}}], "/v2/meters/apples?direct=1")
    for query in ("metadata.a&q.value=b", "metadata.a.b&q.value=c"):
        (found,) = orchard.ask(f"/v2/samples?q.field={query}", headers={"X-Auth-Token": "admin-token"}).json
        assert found["metadata"] == {"a": "b", "a.b": "c"}


def test_an_empty_project_is_the_tenants_own(orchard: Orchard) -> None:
    assert orchard.post([{**APPLE, "project_id": ""}], who="blue").json[0]["project_id"] == "blue"


@pytest.mark.parametrize("body", [b"", b"[]", b"null"])
def test_nothing_is_no_samples(orchard: Orchard, body: bytes) -> None:
    assert orchard.post(body).fault == "Samples should be included in request body"


def test_a_sample_that_says_something_twice_is_400(orchard: Orchard) -> None:
    body = msgspec.json.encode([APPLE]).replace(b'"counter_volume":3', b'"counter_volume":3,"counter_volume":4')
    assert orchard.post(body).fault == 'The body cannot be read: it has "counter_volume" twice in one object'


@pytest.mark.parametrize("body", [{"a": 1}, [3], ["x"], 3])
def test_a_body_of_another_shape_is_400(orchard: Orchard, body: Any) -> None:
    assert orchard.post(body).fault.startswith("The body must be a list of samples")


def test_a_bus_that_is_away_is_503_and_one_that_refuses_400(orchard: Orchard) -> None:
    orchard.bus.failure = Unavailable("no connection to the broker")
    answer = orchard.post([APPLE])
    assert (answer.status, "no connection to the broker" in answer.fault) == (503, True)
    assert "retry-after" in answer.headers
    orchard.bus.failure = ValueError("too large")
    assert orchard.post([APPLE]).status == 400


def test_a_time_without_a_key_is_400() -> None:
    assert "no signing key covers" in Orchard(Keyring([])).post([APPLE]).fault


def test_where_samples_are_not_taken_they_are_refused() -> None:
    ask = Asking()
    answer = ask.post("/v2/meters/apples", [APPLE])
    assert answer.status == 403
    assert "accept_samples" in answer.fault
    assert len(ask("/v2/samples").json) == 4


def test_another_method_is_told_both(orchard: Orchard) -> None:
    answer = orchard.ask("/v2/meters/apples", method="DELETE")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, POST")


def test_nothing_of_a_bad_batch_is_written(orchard: Orchard) -> None:
    orchard.post([APPLE, {**APPLE, "counter_type": "heap"}], "/v2/meters/apples?direct=1")
    answers: list[Any] = []
    from twisted.internet.defer import Deferred

    Deferred.fromCoroutine(orchard.store.samples(SampleFilter(), 9)).addCallback(answers.append)
    assert answers == [[]]
