"""The v2 API: meters, samples, resources, versions and capabilities."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from meter.api import HostPolicy
from meter.batch_signature import parse_batch_signature
from meter.ceilometer_signature import BadSignature
from meter.message import cast
from meter.message import open_envelope
from meter.message import read
from meter.message import verified_batch
from meter.outgoing import sign
from meter.sample import Sample
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey
from tests.api_client import KEYS
from tests.api_client import NOON
from tests.api_client import SAMPLES
from tests.api_client import ApiClient
from tests.api_client import message
from tests.api_client import term


@pytest.fixture(scope="module")
def api() -> ApiClient:
    return ApiClient()


CPU_OF_VM_1 = {
    "counter_name": "cpu",
    "counter_type": "cumulative",
    "counter_unit": "ns",
    "counter_volume": 10.0,
    "resource_id": "vm-1",
    "project_id": "blue",
    "user_id": "ann",
    "source": "test",
    "timestamp": "2026-11-22T12:00:00",
    "recorded_at": "2026-11-22T12:10:00",
    "resource_metadata": {"size": "0", "flavor.name": "m1"},
    "message_id": "s0",
    "message_signature": None,
    "signature_scheme": "meter",
}


DISK_OF_VM_1 = {
    "id": "s3",
    "meter": "disk.size",
    "type": "gauge",
    "unit": "GB",
    "volume": 2.5,
    "resource_id": "vm-1",
    "project_id": None,
    "user_id": None,
    "source": "test",
    "timestamp": "2026-11-22T12:03:00",
    "recorded_at": "2026-11-22T12:10:00",
    "metadata": {},
    "message_signature": None,
    "signature_scheme": "meter",
}


A_B_C = {
    "resource_id": "a/b c",
    "project_id": "red",
    "user_id": "bob",
    "source": "test",
    "first_sample_timestamp": "2026-11-22T12:02:00",
    "last_sample_timestamp": "2026-11-22T12:02:00",
    "metadata": {},
    "links": [
        {"href": "http://cloud:8777/v2/resources/a/b c", "rel": "self"},
        {"href": "http://cloud:8777/v2/meters/cpu?q.field=resource_id&q.value=a/b c", "rel": "cpu"},
    ],
}


WHOLE_CPU = {
    "unit": "ns",
    "groupby": None,
    "period": 0,
    "period_start": "2026-11-22T12:00:00",
    "period_end": "2026-11-22T12:02:00",
    "duration": 120.0,
    "duration_start": "2026-11-22T12:00:00",
    "duration_end": "2026-11-22T12:02:00",
    "max": 60.0,
    "min": 10.0,
    "avg": 30.0,
    "sum": 90.0,
    "count": 3,
}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/meters/cpu?" + term("message_id", "s0"), [CPU_OF_VM_1]),
        ("/v2/meters/unknown", []),
        ("/v2/samples/s3", DISK_OF_VM_1),
        ("/v2/samples/s3/", DISK_OF_VM_1),
        ("/v2/samples?limit=1", [DISK_OF_VM_1]),
        ("/v2/samples?limit=&" + term("meter", "disk.size"), [DISK_OF_VM_1]),
        ("/v2/resources/a/b%20c", A_B_C),
        ("/v2/resources/a%2Fb%20c", A_B_C),
        ("/v2/resources/a%252Fb%2520c", A_B_C),
        ("/v2/resources?meter_links=0&" + term("project", "red"), [{**A_B_C, "links": A_B_C["links"][:1]}]),
        ("/v2/resources?meter_links=1&" + term("project", "red"), [A_B_C]),
        ("/v2/meters/cpu/statistics", [WHOLE_CPU]),
        ("/v2/meters/cpu/statistics/?period=0", [WHOLE_CPU]),
        ("/v2/meters/unknown/statistics", []),
    ],
)
def test_response_is_as_expected(api: ApiClient, path: str, body: Any) -> None:
    response = api(path)
    assert response.status == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json == body


@pytest.mark.parametrize("path", ["/dev//x", "%2Fdev%2F%2Fx", "%252Fdev%252F/x", "/dev//x/"])
def test_id_can_contain_slashes(path: str) -> None:
    api = ApiClient()
    Deferred.fromCoroutine(api.store.write([message(resource_id="/dev//x")]))
    assert api(f"/v2/resources/{path}").json["resource_id"] == "/dev//x"


def test_root_lists_the_version_with_its_link(api: ApiClient) -> None:
    (version,) = api("/").json["versions"]["values"]
    assert (version["id"], version["status"]) == ("v2", "stable")
    assert version["links"][0] == {"rel": "self", "href": "http://cloud:8777/v2"}
    assert version["media-types"][0]["base"] == "application/json"


def test_links_begin_with_the_configured_base_url() -> None:
    api = ApiClient(hosts=HostPolicy(base_url="https://metering.example.org/"))
    assert api("/v2/resources/vm-1").json["links"][0]["href"] == "https://metering.example.org/v2/resources/vm-1"


@pytest.mark.parametrize("host", ["<script>", "a:b", "a:70000", "[a", "[::z]", "a/b", ""])
def test_malformed_host_header_is_400(api: ApiClient, host: str) -> None:
    response = api("/", headers={"Host": host})
    assert (response.status, response.faultstring) == (400, "The Host header is malformed.")


def test_meters_are_listed_per_resource_or_unique(api: ApiClient) -> None:
    by_resource = api("/v2/meters").json
    assert [(meter["name"], meter["resource_id"], meter["meter_id"]) for meter in by_resource] == [
        ("cpu", "a/b c", "YS9iIGMrY3B1"),
        ("cpu", "vm-1", "dm0tMStjcHU="),
        ("disk.size", "vm-1", "dm0tMStkaXNrLnNpemU="),
    ]
    unique = api("/v2/meters?unique=True").json
    assert [(meter["name"], meter["resource_id"], meter["meter_id"]) for meter in unique] == [
        ("cpu", None, "Tm9uZStjcHU="),
        ("disk.size", None, "Tm9uZStkaXNrLnNpemU="),
    ]


def test_meter_in_two_units_is_listed_in_both() -> None:
    api = ApiClient()
    units = [message(minute, name="ram", type="gauge", unit=unit) for minute, unit in ((0, "MB"), (1, "MiB"))]
    Deferred.fromCoroutine(api.store.write(units))
    listed = api("/v2/meters?" + term("resource_id", "vm-1")).json
    assert [(one["name"], one["unit"]) for one in listed] == [
        ("cpu", "ns"),
        ("disk.size", "GB"),
        ("ram", "MB"),
        ("ram", "MiB"),
    ]
    assert len({one["meter_id"] for one in listed}) == 3  # made of resource and name, as in Ceilometer
    assert [link["rel"] for link in api("/v2/resources/vm-1").json["links"]] == [
        "self",
        "cpu",
        "disk.size",
        "ram",
        "ram",
    ]
    (resource,) = api("/v1/sources/test/resources?metadata.nothing=None&end_timestamp=2026-11-22T12:02").json[
        "resources"
    ]
    assert resource["meter"] == ["cpu", "ram"]


def test_capabilities_list_the_supported_features(api: ApiClient) -> None:
    able = api("/v2/capabilities").json
    assert able["storage"] == {"storage:production_ready": True}
    assert able["api"]["statistics:aggregation:selectable:stddev"] is True
    assert able["api"]["samples:query:complex"] is True


@pytest.mark.parametrize(("path", "what"), [("samples/nope", "Sample nope"), ("resources/no/pe", "Resource no/pe")])
def test_missing_entry_is_404_with_its_id(api: ApiClient, path: str, what: str) -> None:
    response = api(f"/v2/{path}")
    assert (response.status, response.faultstring) == (404, f"{what} Not Found")


@pytest.mark.parametrize("path", ["samples", "meters", "meters/cpu", "meters/cpu/statistics", "resources"])
def test_samples_recorded_after_as_of_are_excluded(api: ApiClient, path: str) -> None:
    assert api(f"/v2/{path}?as_of=2026-11-22T12:09:59").json == []
    assert api(f"/v2/{path}?as_of=2026-11-22T12:10:00").json == api(f"/v2/{path}").json != []


def test_proof_is_the_message_as_it_was_signed_the_key_and_the_batch() -> None:
    proof = ApiClient(keys=KEYS)("/v2/samples/s0/proof").json
    entry = SAMPLES[0].entry
    assert entry is not None
    signed = entry.batch.to_json()
    del signed["key_id"]
    assert proof == {
        "message": SAMPLES[0].fields,
        "scheme": "meter",
        "key_id": "key-1",
        "batch": {**signed, "count": 1, "position": 0},
        "voided": False,
    }
    received = open_envelope(cast([proof["message"]], parse_batch_signature({**proof["batch"], "key_id": "key-1"}, 1)))
    batch = verified_batch(received, 1, KEYS)
    assert read(proof["message"], KEYS, batch=batch).volume == 10
    with pytest.raises(BadSignature):
        read(proof["message"] | {"counter_volume": 11}, KEYS, batch=batch)


def test_proof_without_the_key_has_neither_digests_nor_ceilometers_signature(api: ApiClient) -> None:
    for each in (api, ApiClient(keys=Keyring([]))):
        proof = each("/v2/samples/s0/proof").json
        assert proof["batch"]["digests"] is None
        assert "message_signature" not in proof["message"]
        assert (proof["scheme"], proof["key_id"], proof["batch"]["count"]) == ("meter", "key-1", 1)


def test_proof_of_a_key_that_has_another_id_now_names_that_id_and_has_digests() -> None:
    renamed = Keyring([SigningKey("2027", b"new"), replace(KEYS.keys[0], id="2026")])
    proof, before = (ApiClient(keys=keys)("/v2/samples/s0/proof").json for keys in (renamed, KEYS))
    assert proof == {**before, "key_id": "2026"}


def test_proof_has_ceilometers_signature_only_if_the_setting_says_so() -> None:
    quiet = Keyring(KEYS.keys, ceilometer_signature=False)
    proof = ApiClient(keys=quiet)("/v2/samples/s0/proof").json
    assert "message_signature" not in proof["message"]
    assert proof["batch"]["digests"] is not None


@pytest_twisted.ensureDeferred
async def test_proof_of_a_foreign_message_is_its_own_signature() -> None:
    api, foreign = ApiClient(keys=KEYS), sign(foreign_sample(), KEYS, "test")
    await api.store.write([read(foreign, KEYS)])
    proof = api("/v2/samples/s9/proof").json
    assert proof == {"message": foreign, "scheme": "ceilometer", "key_id": "key-1", "batch": None, "voided": False}
    sample = api("/v2/samples/s9").json
    assert (sample["message_signature"], sample["signature_scheme"]) == (foreign["message_signature"], "ceilometer")


def foreign_sample() -> Sample:
    return Sample(name="cpu", type="gauge", unit="ns", volume=1, resource_id="r", message_id="s9", timestamp=NOON)


def test_proof_of_an_unknown_sample_is_404(api: ApiClient) -> None:
    assert api("/v2/samples/nope/proof").faultstring == "Sample nope Not Found"
