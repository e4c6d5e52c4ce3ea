"""The OpenStack client of pollsters: endpoints, the token, and listings page by page."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from meter.http import BadResponse
from meter.interfaces import IDependency
from meter.openstack import IOpenStack
from meter.openstack import Listing
from meter.openstack import NoService
from meter.openstack.catalogue import Catalogue
from meter.openstack.catalogue import versioned
from meter.openstack.cloud import Cloud
from tests.openstack_stub import JsonResponse
from tests.openstack_stub import StubCloud
from tests.openstack_stub import captured
from tests.openstack_stub import captured_cloud
from tests.openstack_stub import openstack
from tests.openstack_stub import reply

IMAGES = Listing(service="image", version="v2", path="images", key="images")
TOKENS = "/v3/auth/tokens"


async def listed(cloud: Cloud, listing: Listing = IMAGES) -> list[Any]:
    return [item async for page in cloud.pages(listing) for item in page.items]


def test_cloud_provides_its_interfaces() -> None:
    cloud = openstack(captured_cloud())
    assert verifyObject(IOpenStack, cloud)
    assert verifyObject(IDependency, cloud)


@pytest_twisted.ensureDeferred
async def test_listing_has_the_entries_of_all_pages() -> None:
    stub = captured_cloud()
    images = await listed(openstack(stub, page_size=25))
    assert len(images) == 34
    assert stub.times("GET", "/v2/images") == 2
    assert stub.requests[-1].query["marker"] == ["62ecf767-7e72-4af5-be9a-f42f4a7edef7"]


@pytest_twisted.ensureDeferred
async def test_page_has_the_time_of_its_response() -> None:
    stub, clock = captured_cloud(), Clock()
    clock.advance(1000)

    def late(_: object) -> JsonResponse:
        clock.advance(5)
        return captured("glance-02-images-page2")

    stub.on("GET", "/v2/images", captured("glance-01-images-page1"), late)
    cloud = openstack(stub, clock)
    assert [page.received_at.timestamp() async for page in cloud.pages(IMAGES)] == [1000, 1005]


@pytest_twisted.ensureDeferred
async def test_reading_only_the_first_page_requests_no_other() -> None:
    stub = captured_cloud()
    async for _ in openstack(stub, page_size=25).pages(IMAGES):
        break
    assert stub.times("GET", "/v2/images") == 1


@pytest_twisted.ensureDeferred
async def test_pages_after_the_first_are_prefetched() -> None:
    stub = captured_cloud()
    pages = [reply({"images": [], "next": f"/v2/images?marker={each}"}) for each in "abcd"]
    stub.on("GET", "/v2/images", *pages, reply({"images": []}))
    requests = [stub.times("GET", "/v2/images") async for _ in openstack(stub).pages(IMAGES)]
    assert requests == [1, 3, 4, 5, 5]


@pytest_twisted.ensureDeferred
async def test_next_request_is_sent_before_a_page_is_yielded() -> None:
    stub, clock = captured_cloud(), Clock()
    pages = [reply({"images": [], "next": f"/v2/images?marker={each}"}) for each in "ab"]
    stub.on("GET", "/v2/images", *pages, reply({"images": []}))
    seen: list[float] = []

    async def walk() -> None:
        async for _ in openstack(stub, reactor=clock).pages(IMAGES):
            seen.append(clock.seconds())

    walking = Deferred.fromCoroutine(walk())
    assert stub.times("GET", "/v2/images") == 3
    assert len(seen) == 1  # the third request is sent at the end of this iteration of the reactor
    clock.advance(0)
    await walking
    assert len(seen) == 3


@pytest_twisted.ensureDeferred
async def test_failed_prefetch_does_not_affect_the_page_before_it(logged_errors: Any) -> None:
    stub = captured_cloud()
    pages = [reply({"images": [{"id": each}], "next": f"/v2/images?marker={each}"}) for each in "ab"]
    stub.on("GET", "/v2/images", *pages, reply({}, 404))
    cloud = openstack(stub)
    found: list[Any] = []

    async def walk() -> None:
        async for page in cloud.pages(IMAGES):
            found.extend(page.items)

    with pytest.raises(BadResponse, match="404"):
        await walk()
    assert [each["id"] for each in found] == ["a", "b"]
    stub.on("GET", "/v2/images", *pages, reply({}, 404))
    async for page in cloud.pages(IMAGES):
        if page.items[0]["id"] == "b":
            break  # the failure of the prefetched page is dropped
    gc.collect()
    assert not logged_errors.flush()


@pytest_twisted.ensureDeferred
async def test_rejected_token_is_renewed_once() -> None:
    stub = captured_cloud()
    stub.on("GET", "/v2/images", reply({}, 401), captured("glance-02-images-page2"))
    assert len(await listed(openstack(stub))) == 9
    assert stub.times("POST", TOKENS) == 2
    stub.on("GET", "/v2/images", reply({}, 401))
    with pytest.raises(BadResponse, match="401"):
        await listed(openstack(stub))
    assert stub.times("POST", TOKENS) == 4


@pytest_twisted.ensureDeferred
async def test_listing_whose_pages_loop_fails() -> None:
    stub = captured_cloud()
    pages = [reply({"images": [], "next": f"/v2/images?marker={each}"}) for each in "abcdbcdbcdbcdbcd"]
    stub.on("GET", "/v2/images", *pages)
    with pytest.raises(BadResponse, match="pages of images loop"):
        await listed(openstack(stub))
    assert len(stub.requests) < 12


@pytest_twisted.ensureDeferred
async def test_listing_with_too_many_pages_fails() -> None:
    stub = captured_cloud()
    count = iter(range(10**9))
    stub.on("GET", "/v2/images", lambda _: reply({"images": [], "next": f"/v2/images?marker={next(count)}"}))
    with pytest.raises(BadResponse, match="more than 50 pages"):
        await listed(openstack(stub, max_pages=50))


@pytest_twisted.ensureDeferred
async def test_link_to_another_host_is_requested_from_the_same_service() -> None:
    stub = captured_cloud()
    away = {"images": [], "next": "http://evil.example/v2/images?marker=m"}
    stub.on("GET", "/v2/images", reply(away), captured("glance-02-images-page2"))
    assert len(await listed(openstack(stub))) == 9
    assert {each.header("Host") for each in stub.requests} == {"127.0.0.1:15000", "127.0.0.1:19292"}


@pytest.mark.parametrize(
    "first",
    [
        {"ports": [], "ports_links": [{"rel": "previous", "href": "x"}, {"rel": "next", "href": "http://n/?marker=m"}]},
        {"ports": [], "links": {"next": "http://k/?marker=m", "previous": None}},
        {"ports": [], "next": "?marker=m"},
    ],
)
@pytest_twisted.ensureDeferred
async def test_next_link_is_found_in_each_format(first: Any) -> None:
    stub = captured_cloud()
    stub.on("GET", "/v2.0/ports", reply(first), reply({"ports": [{"id": 1}], "ports_links": 3, "links": {}}))
    ports = Listing(service="network", version="v2.0", path="ports", key="ports")
    assert await listed(openstack(stub), ports) == [{"id": 1}]
    assert stub.requests[-1].query["marker"] == ["m"]


@pytest.mark.parametrize("wrong", [{}, [], {"images": None}, {"images": {}}, {"images": [1]}, None, "text"])
@pytest_twisted.ensureDeferred
async def test_page_without_a_list_of_objects_is_a_bad_response(wrong: Any) -> None:
    stub = captured_cloud()
    stub.on("GET", "/v2/images", reply(wrong))
    with pytest.raises(BadResponse, match="a list of objects under 'images'"):
        await listed(openstack(stub))


@pytest_twisted.ensureDeferred
async def test_redirect_is_not_followed() -> None:
    stub = captured_cloud()
    stub.on("GET", "/v2/images", JsonResponse(302, b"", {"Location": "http://evil.example/v2/images"}))
    with pytest.raises(BadResponse, match=r"redirected \(302\) to http://evil.example/v2/images"):
        await listed(openstack(stub))


@pytest_twisted.ensureDeferred
async def test_error_for_a_missing_service_names_the_services_of_the_catalogue() -> None:
    cloud = openstack(captured_cloud())
    with pytest.raises(
        NoService, match="no public endpoint of 'load-balancer'; it has block-storage, compute, identity"
    ):
        await cloud.url("load-balancer")
    elsewhere = openstack(captured_cloud(), region="Mars")
    with pytest.raises(NoService, match="in region 'Mars'"):
        await elsewhere.url("image")


@pytest.mark.parametrize("catalog", [None, 3, [None], [{"type": 1}], [{"type": "image", "endpoints": [{"url": 2}]}]])
def test_malformed_catalogue_is_empty(catalog: Any) -> None:
    assert Catalogue.read(catalog) == Catalogue()


@pytest.mark.parametrize(
    ("url", "version", "whole"),
    [
        ("http://h:9292", "v2", "http://h:9292/v2"),
        ("http://h/image/", "v2", "http://h/image/v2"),
        ("http://h/v2.1", "v2.1", "http://h/v2.1"),
        ("http://h/v3/28d7", "v3", "http://h/v3/28d7"),
        ("http://v3.example", "v3", "http://v3.example/v3"),
    ],
)
def test_version_is_appended_to_a_url_without_one(url: str, version: str, whole: str) -> None:
    assert versioned(url, version) == whole


def test_cloud_is_ready_when_keystone_issues_tokens() -> None:
    stub = captured_cloud()
    good = stub._answers["POST", TOKENS]
    stub.on("POST", TOKENS, captured("keystone-06-auth-tokens-401"))
    cloud = openstack(stub)
    cloud.startService()
    assert cloud.readiness().ready is False
    assert "rejects our credentials" in cloud.readiness().reason
    stub._answers["POST", TOKENS] = good
    cloud.startService()
    assert cloud.readiness().ready


def test_cloud_starts_while_keystone_is_unreachable() -> None:
    stub: StubCloud = StubCloud()
    stub.on("POST", TOKENS, JsonResponse(silent=True))
    cloud = openstack(stub)
    cloud.startService()
    assert cloud.readiness().ready is False
    cloud.stopService()
