"""Listing images: how much the agent adds to the bare time of the requests, and what it keeps meanwhile.

    python benchmarks/central_images.py [images]

A stub Glance in this process answers each page of 100 after 1 ms. The same pages are asked for once with nothing but
``treq``, and once by the pollster: token, budget, paging, samples. Printed are both times and their ratio (to be below
2), and the growth of the heap per page at its peak, apart from the samples that are made, with a tenth of the pages and
with all.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import tracemalloc
from math import inf
from typing import Any

from twisted.internet import asyncioreactor

asyncioreactor.install(asyncio.new_event_loop())

from treq.client import HTTPClient  # noqa: E402
from twisted.internet import reactor  # noqa: E402
from twisted.internet.defer import Deferred  # noqa: E402
from twisted.internet.task import deferLater  # noqa: E402
from twisted.internet.task import react  # noqa: E402
from twisted.web.client import Agent  # noqa: E402
from twisted.web.client import HTTPConnectionPool  # noqa: E402
from twisted.web.resource import Resource  # noqa: E402
from twisted.web.server import NOT_DONE_YET  # noqa: E402
from twisted.web.server import Site  # noqa: E402

from meter.cycle import Cycle  # noqa: E402
from meter.cycle import Surroundings  # noqa: E402
from meter.openstack import Cloud  # noqa: E402
from meter.openstack import Credentials  # noqa: E402
from meter.openstack import Http  # noqa: E402
from meter.openstack import IOpenStack  # noqa: E402
from meter.openstack import Keystone  # noqa: E402
from meter.openstack import Limits  # noqa: E402
from meter.openstack import Listing  # noqa: E402
from meter.openstack import Request  # noqa: E402
from meter.openstack import Web  # noqa: E402
from meter.pollsters.openstack import image  # noqa: E402

PAGE = 100
DELAY_SECONDS = 0.001
IMAGE = {
    "name": "an image",
    "status": "active",
    "visibility": "private",
    "size": 21430272,
    "owner": "b6e8cc20ee9c457e83f13218eca89c43",
    "container_format": "bare",
    "disk_format": "qcow2",
    "checksum": "d41d8cd98f00b204e9800998ecf8427e",
    "os_hash_value": "0" * 128,
    "min_disk": 0,
    "min_ram": 0,
    "tags": [],
    "created_at": "2026-11-22T16:39:25Z",
    "updated_at": "2026-11-22T16:39:25Z",
}


class Glance(Resource):
    """Answers tokens and pages of images."""

    isLeaf = True  # noqa: N815

    def __init__(self, images: int) -> None:
        super().__init__()
        self.port = 0
        self._images = images

    def render_POST(self, request: Any) -> bytes:
        request.setResponseCode(201)
        request.setHeader("X-Subject-Token", "token")
        endpoint = {"interface": "public", "url": f"http://127.0.0.1:{self.port}", "region": "R"}
        times = {"issued_at": "2026-11-22T16:40:16Z", "expires_at": "2026-11-22T17:40:16Z"}
        return json.dumps({"token": {**times, "catalog": [{"type": "image", "endpoints": [endpoint]}]}}).encode()

    def render_GET(self, request: Any) -> int:
        first = int(request.args.get(b"marker", [b"0"])[0])
        images = [{**IMAGE, "id": str(number)} for number in range(first, first + PAGE)]
        page: dict[str, Any] = {"images": images}
        if first + PAGE < self._images:
            page["next"] = f"/v2/images?marker={first + PAGE}"
        body = json.dumps(page).encode()
        deferLater(reactor, DELAY_SECONDS, lambda: (request.write(body), request.finish()))
        return NOT_DONE_YET


def client() -> HTTPClient:
    return HTTPClient(Agent(reactor, pool=HTTPConnectionPool(reactor)))


def cloud_at(port: int) -> Cloud:
    web = Web(Http(client(), reactor), reactor, limits=Limits(requests_per_second=inf))

    async def send(request: Request) -> Any:
        return await web.exchange("identity", request)

    url = f"http://127.0.0.1:{port}"
    keystone = Keystone(send, Credentials(auth_url=url, token="t"), reactor)
    return Cloud(web, keystone, page_size=PAGE, most_pages=10**6)


async def bare(port: int, images: int) -> float:
    treq, began = client(), time.perf_counter()
    for first in range(0, images, PAGE):
        response = await treq.get(f"http://127.0.0.1:{port}/v2/images?marker={first}")
        await response.content()
    return time.perf_counter() - began


async def polled(port: int, images: int) -> float:
    cycle = Cycle(Surroundings("benchmark", None, reactor, {IOpenStack: cloud_at(port)}))
    began = time.perf_counter()
    samples = list(await image.poll(cycle))
    assert len(samples) == 2 * images, len(samples)
    return time.perf_counter() - began


async def peak_bytes(port: int) -> int:
    """Walk over all pages as the pollster does, without keeping samples."""
    listing = Listing(service="image", version="v2", path="images", key="images")
    cloud = cloud_at(port)
    tracemalloc.start()
    async for _ in cloud.pages(listing):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


async def serving(images: int, work: Any) -> Any:
    glance = Glance(images)
    listening = reactor.listenTCP(0, Site(glance), interface="127.0.0.1")
    glance.port = listening.getHost().port
    try:
        return await work(glance.port)
    finally:
        listening.stopListening()


async def main(images: int) -> None:
    async def times(port: int) -> None:
        await bare(port, images // 10)
        for _ in range(3):
            without, with_ = await bare(port, images), await polled(port, images)
            print(f"bare {without:.2f} s, polled {with_:.2f} s, ratio {with_ / without:.2f}")

    await serving(images, times)
    few, many = await serving(images // 10, peak_bytes), await serving(images, peak_bytes)
    print(f"peak of the heap: {few / 1e6:.1f} MB for {images // 10} images, {many / 1e6:.1f} MB for {images}")


if __name__ == "__main__":
    react(lambda _: Deferred.fromCoroutine(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)))
