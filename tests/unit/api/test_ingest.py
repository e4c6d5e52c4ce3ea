"""Samples that clients POST: validation, signing, publication, and direct writes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from meter.api import SampleIngest
from meter.interfaces import Publication
from meter.interfaces import Unavailable
from meter.message import metering_messages
from meter.message import open_envelope
from meter.message import read_cast
from meter.query import SampleFilter
from meter.signing_keys import Keyring
from meter.testing import MemoryStore
from tests.api_client import KEYS
from tests.api_client import ApiClient
from tests.api_client import Response
from tests.unit.api.auth.test_visibility import TOKENS

APPLE: dict[str, Any] = {
    "counter_name": "apples",
    "counter_type": "gauge",
    "counter_unit": "apple",
    "counter_volume": 3,
    "resource_id": "tree",
}
CUSTOM = {**APPLE, "counter_name": "custom.apples"}
"""A sample that a tenant may submit."""


class RecordingBus:
    """Records publications; raises ``failure`` if set."""

    def __init__(self) -> None:
        self.published: list[Publication] = []
        self.failure: Exception | None = None

    async def publish(self, publication: Publication) -> None:
        if self.failure is not None:
            raise self.failure
        self.published.append(publication)

    def messages(self) -> list[dict[str, Any]]:
        return [each for one in self.published for each in metering_messages(open_envelope(one.body))]


class IngestApi:
    """An API that accepts samples, its bus and its store."""

    def __init__(self, keys: Keyring = KEYS) -> None:
        self.bus = RecordingBus()
        self.store = MemoryStore()
        ingest = SampleIngest(keys, "openstack", self.bus, self.store)  # type: ignore[arg-type]
        self.api = ApiClient(ingest=ingest, store=self.store, auth=TOKENS)

    def post(self, content: Any, path: str = "/v2/meters/apples", who: str = "admin") -> Response:
        return self.api.post(path, content, **{"X-Auth-Token": f"{who}-token"})


@pytest.fixture
def ingest_api() -> IngestApi:
    return IngestApi()


def test_posted_sample_is_signed_published_and_echoed(ingest_api: IngestApi) -> None:
    response = ingest_api.post([{**APPLE, "resource_metadata": {"a.b": "c", "a.d": "e", "f": "g"}}])
    assert response.status == 201
    (message,) = ingest_api.bus.messages()
    (taken,) = read_cast(ingest_api.bus.published[0].body, KEYS)
    assert (taken.key_id, taken.scheme) == ("key-1", "meter")
    assert (taken.name, taken.volume, taken.source, taken.project_id) == ("apples", 3, "openstack", None)
    assert taken.metadata == {"a": {"b": "c", "d": "e"}, "f": "g"}
    (publication,) = ingest_api.bus.published
    assert (publication.exchange, publication.routing_key) == ("metering", "metering.apples")
    assert response.json == [
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
            "signature_scheme": "meter",
        }
    ]


def test_sample_of_a_tenant_belongs_to_the_tenant(ingest_api: IngestApi) -> None:
    (sample,) = ingest_api.post([CUSTOM], "/v2/meters/custom.apples", who="blue").json
    assert (sample["project_id"], sample["user_id"], sample["source"]) == ("blue", "ann", "blue:openstack")
    farmed = {**CUSTOM, "source": "farm", "project_id": "blue"}
    (sample,) = ingest_api.post([farmed], "/v2/meters/custom.apples", who="blue").json
    assert sample["source"] == "blue:farm"


def test_tenant_cannot_post_samples_of_other_projects(ingest_api: IngestApi) -> None:
    response = ingest_api.post([{**APPLE, "project_id": "red"}], who="blue")
    assert (response.status, ingest_api.bus.published) == (400, [])
    assert "can not post samples to other projects" in response.faultstring
    assert ingest_api.post([{**APPLE, "project_id": "red"}]).status == 201
    assert ingest_api.api.post("/v2/meters/apples", [APPLE]).status == 401


def test_direct_sample_is_written_to_the_store(ingest_api: IngestApi) -> None:
    (sample,) = ingest_api.post([APPLE], "/v2/meters/apples/?direct=True").json
    assert ingest_api.bus.published == []
    found = ingest_api.api(f"/v2/samples/{sample['message_id']}", headers={"X-Auth-Token": "admin-token"})
    assert found.json["volume"] == 3.0


@pytest.mark.parametrize(
    ("given", "timestamp"),
    [
        (None, "2026-11-22T12:10:00"),
        ("2026-01-02T03:04:05.5", "2026-01-02T03:04:05.500000"),
        ("2026-01-02 03:04:05+02:00", "2026-01-02T01:04:05"),
    ],
)
def test_timestamp_defaults_to_now_and_is_converted_to_utc(
    ingest_api: IngestApi, given: str | None, timestamp: str
) -> None:
    assert ingest_api.post([{**APPLE, "timestamp": given}]).json[0]["timestamp"] == timestamp


@pytest.mark.parametrize(("given", "volume"), [("3", 3), ("3.5", 3.5), (3.25, 3.25), (-1, -1), ("1e3", 1000.0)])
def test_volume_can_be_a_string_as_old_clients_send_it(ingest_api: IngestApi, given: Any, volume: float) -> None:
    ingest_api.post([{**APPLE, "counter_volume": given}])
    (message,) = ingest_api.bus.messages()
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
        ({"counter_volume": "nan"}, "counter_volume. Value: 'nan'. must be a finite number"),
        ({"counter_volume": True}, "counter_volume"),
        ({"counter_volume": 10**400}, "counter_volume"),
        ({"counter_volume": 1.5e308}, "counter_volume. Value: '1.5e+308'. must be a finite number: 0, or from"),
        ({"counter_volume": "1e31"}, "counter_volume. Value: '1e+31'. must be a finite number: 0, or from"),
        ({"counter_volume": 5e-324}, "counter_volume. Value: '5e-324'. must be a finite number: 0, or from"),
        ({"resource_id": ""}, "resource_id must be a non-empty text"),
        ({"resource_id": "x" * 600}, "resource_id must be at most 512 characters"),
        ({"resource_id": "a\0b"}, "NUL"),
        ({"resource_metadata": {"a": "b\0"}}, "NUL"),
        ({"resource_metadata": {"a": {"b": "c"}}}, "resource_metadata"),
        ({"resource_metadata": {"a": 1}}, "resource_metadata"),
        ({"resource_metadata": {"." * 5000: "x"}}, "at most 100 levels"),
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
def test_invalid_sample_is_400_and_no_sample_is_published(
    ingest_api: IngestApi, change: dict[str, Any], fault: str
) -> None:
    response = ingest_api.post([APPLE, {**APPLE, **change}])
    assert response.status == 400
    assert fault in response.faultstring
    assert ingest_api.bus.published == []


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
def test_unusual_valid_sample_is_accepted(ingest_api: IngestApi, change: dict[str, Any], found: dict[str, Any]) -> None:
    response = ingest_api.post([{**APPLE, **change}])
    assert response.status == 201, response.body
    (message,) = ingest_api.bus.messages()
    assert read_cast(ingest_api.bus.published[0].body, KEYS)[0].key_id == "key-1"
    assert {name: message[name] for name in found} == found
    assert response.json[0]["resource_metadata"] == (change.get("resource_metadata") or {})
    assert ingest_api.post([{**APPLE, **change}], "/v2/meters/apples?direct=1").status == 201


def test_every_key_of_metadata_is_kept_and_can_be_queried(ingest_api: IngestApi) -> None:
    ingest_api.post([{**APPLE, "resource_metadata": {"a": "b", "a.b": "c"}}], "/v2/meters/apples?direct=1")
    for query in ("metadata.a&q.value=b", "metadata.a.b&q.value=c"):
        (found,) = ingest_api.api(f"/v2/samples?q.field={query}", headers={"X-Auth-Token": "admin-token"}).json
        assert found["metadata"] == {"a": "b", "a.b": "c"}


def test_empty_project_is_the_one_of_the_tenant(ingest_api: IngestApi) -> None:
    (sample,) = ingest_api.post([{**CUSTOM, "project_id": ""}], "/v2/meters/custom.apples", who="blue").json
    assert sample["project_id"] == "blue"


@pytest.mark.parametrize("body", [b"", b"[]", b"null"])
def test_empty_body_is_400(ingest_api: IngestApi, body: bytes) -> None:
    assert ingest_api.post(body).faultstring == "Samples should be included in request body"


def test_sample_with_a_duplicate_key_is_400(ingest_api: IngestApi) -> None:
    body = msgspec.json.encode([APPLE]).replace(b'"counter_volume":3', b'"counter_volume":3,"counter_volume":4')
    assert (
        ingest_api.post(body).faultstring == 'The body cannot be decoded: duplicate key "counter_volume" in an object'
    )


@pytest.mark.parametrize("body", [{"a": 1}, [3], ["x"], 3])
def test_body_that_is_not_a_list_of_objects_is_400(ingest_api: IngestApi, body: Any) -> None:
    assert ingest_api.post(body).faultstring.startswith("The body must be a list of samples")


def test_unavailable_bus_is_503_and_rejecting_bus_is_400(ingest_api: IngestApi) -> None:
    ingest_api.bus.failure = Unavailable("no connection to the broker")
    response = ingest_api.post([APPLE])
    assert (response.status, b"broker" in response.body) == (503, False)
    assert "retry-after" in response.headers
    ingest_api.bus.failure = ValueError("too large")
    assert ingest_api.post([APPLE]).status == 400


def test_timestamp_without_a_signing_key_is_400() -> None:
    assert "no key of [signing] may sign the sample" in IngestApi(Keyring([])).post([APPLE]).faultstring


def test_post_is_403_if_samples_are_not_accepted() -> None:
    api = ApiClient()
    response = api.post("/v2/meters/apples", [APPLE])
    assert response.status == 403
    assert "accept_samples" in response.faultstring
    assert len(api("/v2/samples").json) == 4


def test_unsupported_method_is_405_with_the_allowed_methods(ingest_api: IngestApi) -> None:
    response = ingest_api.api("/v2/meters/apples", method="DELETE")
    assert (response.status, response.headers["allow"]) == (405, "GET, HEAD, POST")


def test_batch_with_an_invalid_sample_is_not_written(ingest_api: IngestApi) -> None:
    ingest_api.post([APPLE, {**APPLE, "counter_type": "heap"}], "/v2/meters/apples?direct=1")
    responses: list[Any] = []
    from twisted.internet.defer import Deferred

    Deferred.fromCoroutine(ingest_api.store.samples(SampleFilter(), 9)).addCallback(responses.append)
    assert responses == [[]]
