"""Ceph's RADOS gateway, with responses as its admin ops API documents them."""

from __future__ import annotations

from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

import meter.pollsters.openstack as family
from meter.http import IHttpClient
from meter.http import LimitedHttpClient
from meter.http import ServiceLimits
from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import ICentralPollster
from meter.interfaces import ISkippedSamples
from meter.interfaces import Unavailable
from meter.openstack import IOpenStack
from meter.pollsters.openstack.radosgw import RadosgwOptions
from meter.pollsters.openstack.radosgw import signature_headers
from meter.testing import FakeCycle
from meter.testing import FakePluginContext
from tests.openstack_stub import JsonResponse
from tests.openstack_stub import ReceivedRequest
from tests.openstack_stub import StubCloud
from tests.openstack_stub import captured_cloud
from tests.openstack_stub import http
from tests.openstack_stub import openstack
from tests.openstack_stub import reply
from tests.unit.pollsters.openstack.test_pollster import SkippedSamples

# As in the gateway's documentation of GET /admin/bucket and GET /admin/usage.
BUCKETS = [
    {
        "bucket": "photos",
        "owner": "one",
        "usage": {
            "rgw.main": {"size": 1500, "size_actual": 4096, "size_kb": 2, "size_kb_actual": 4, "num_objects": 3},
            "rgw.multimeta": {"size": 27, "size_kb": 1, "num_objects": 1},
        },
    },
    {"bucket": "フォト", "owner": "one", "usage": {"rgw.main": {"size_kb": 2, "num_objects": 5}}},
    {"bucket": "empty", "owner": "one", "usage": {}},
]
SUMMARY = [{"user": "one", "categories": [], "total": {"bytes_sent": 1, "bytes_received": 2, "ops": 102}}]


def gateway(buckets: Any = BUCKETS, summary: Any = SUMMARY, project: str = "one") -> StubCloud:
    stub = captured_cloud()
    stub.on("GET", "/v3/projects", reply({"projects": [{"id": "one"}, {"id": "two"}]}))

    def answer(document: Any) -> Any:
        return lambda request: (
            reply(document) if request.query["uid"] == [project] else reply({"Code": "NoSuchUser"}, 404)
        )

    stub.on("GET", "/admin/bucket", answer(buckets))
    stub.on("GET", "/admin/usage", answer({"entries": [], "summary": summary}))
    return stub


def cycle_of(stub: StubCloud) -> FakeCycle:
    clock = Clock()
    clock.advance(1_000_000_000)
    web = LimitedHttpClient(http(stub, clock), clock, limits=ServiceLimits(requests_per_second=inf, attempts=1))
    return FakeCycle(
        {IHttpClient: web, IOpenStack: openstack(stub, clock), ISkippedSamples: SkippedSamples()}, clock=clock
    )


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    return {"url": "http://rgw.example:7480/admin", "access_key": "meter", "secret_key_file": str(secret)}


async def volumes(stub: StubCloud, options: dict[str, Any]) -> dict[tuple[str, str], float]:
    pollster = family.radosgw.configured(RadosgwOptions(**options))
    return {(each.name, each.resource_id): each.volume for each in await pollster.poll(cycle_of(stub))}


def test_signature_equals_the_example_in_amazons_documentation() -> None:
    secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    date = "Tue, 27 Mar 2007 19:36:42 +0000"
    assert signature_headers("GET", "/johnsmith/photos/puppy.jpg", "AKIAIOSFODNN7EXAMPLE", secret, date) == {
        "Date": date,
        "Authorization": "AWS AKIAIOSFODNN7EXAMPLE:bWq2s1WEIj+Ydj0vQ697zp+IXMU=",
    }


@pytest_twisted.ensureDeferred
async def test_project_has_samples_of_buckets_totals_and_requests(options: dict[str, Any]) -> None:
    stub = gateway()
    assert await volumes(stub, options) == {
        ("radosgw.containers.objects", "one/photos"): 4,
        ("radosgw.containers.objects.size", "one/photos"): 1527,
        ("radosgw.containers.objects", "one/フォト"): 5,
        ("radosgw.containers.objects.size", "one/フォト"): 2048,
        ("radosgw.containers.objects", "one/empty"): 0,
        ("radosgw.containers.objects.size", "one/empty"): 0,
        ("radosgw.objects", "one"): 9,
        ("radosgw.objects.size", "one"): 3575,
        ("radosgw.objects.containers", "one"): 3,
        ("radosgw.api.request", "one"): 102,
    }
    request: ReceivedRequest = next(each for each in stub.requests if each.path == "/admin/bucket")
    date = "Sun, 09 Sep 2001 01:46:40 GMT"
    assert (
        request.header("Authorization")
        == signature_headers("GET", request.path, "meter", "s3cret", date)["Authorization"]
    )
    assert request.header("Date") == date
    assert request.query == {"uid": ["one"], "stats": ["True"], "format": ["json"]}


@pytest_twisted.ensureDeferred
async def test_project_may_have_a_tenant_of_its_own(options: dict[str, Any]) -> None:
    found = await volumes(gateway(project="one$one"), {**options, "user": "{project}${project}"})
    assert found["radosgw.api.request", "one"] == 102


@pytest_twisted.ensureDeferred
async def test_bucket_without_usage_suppresses_the_totals(options: dict[str, Any]) -> None:
    wrong = [{"bucket": "odd", "usage": {"rgw.main": {"size": -1, "num_objects": 1}}}, {"bucket": "none"}, *BUCKETS]
    stub = gateway(wrong, [{"total": {"ops": "many"}}])
    found = await volumes(stub, options)
    assert ("radosgw.containers.objects", "one/photos") in found
    assert found["radosgw.objects.containers", "one"] == 5
    assert not {"radosgw.objects", "radosgw.objects.size", "radosgw.api.request"} & {name for name, _ in found}


@pytest.mark.parametrize(
    "answer", [JsonResponse(403, b'{"Code":"AccessDenied"}'), reply({"not": "a list"}), JsonResponse(200, b"<")]
)
@pytest_twisted.ensureDeferred
async def test_unexpected_response_makes_no_samples(options: dict[str, Any], answer: JsonResponse) -> None:
    stub = gateway()
    stub.on("GET", "/admin/bucket", answer)
    pollster = family.radosgw.configured(RadosgwOptions(**options))
    cycle = cycle_of(stub)
    with suppress(Unavailable):
        assert list(await pollster.poll(cycle)) == []
    assert {name for name, _ in cycle.provider(ISkippedSamples).counted} == {"radosgw"}


@pytest_twisted.ensureDeferred
async def test_pollster_is_disabled_without_a_gateway(options: dict[str, Any], tmp_path: Path) -> None:
    context = FakePluginContext({IOpenStack: openstack(captured_cloud())})
    assert verifyObject(ICentralPollster, family.radosgw)
    assert isinstance(await family.radosgw.enabled(context), Disabled)
    assert await family.radosgw.configured(RadosgwOptions(**options)).enabled(context) == Enabled()
    with pytest.raises(Unavailable, match="secret cannot be read"):
        await volumes(gateway(), {**options, "secret_key_file": str(tmp_path / "none")})
