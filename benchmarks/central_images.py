"""Listing images: how much the agent adds to the bare time of the requests, and what it keeps meanwhile.

    python benchmarks/central_images.py [images]

A stub Glance, a process of its own, answers each page of 100 after 1 ms. The same pages are asked for once with nothing
but ``treq``, and once by the pollster: token, budget, paging, samples. Printed are both times, their ratio (to be below
2), the processor time in both, and the peak of the heap while walking over a tenth of the pages and over all.

On a machine with 2 cores and little else to do: bare 0.20 s, polled 0.25 s, ratio 1.26. The processor works 0.22 s for 20 000
samples instead of 0.04 s, most of it while the next page is under way. Asked for one after the other it was 1.87. The
heap peaks at 0.5 MB for 1 000 images and at 0.7 MB for 10 000.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Awaitable
from math import inf
from typing import Any

from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.task import react
from twisted.web.client import Agent
from twisted.web.client import HTTPConnectionPool
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from twisted.web.server import Site

from meter.agent.cycle import Cycle
from meter.agent.cycle import PluginContext
from meter.http import HttpClient
from meter.http import HttpRequest
from meter.http import LimitedHttpClient
from meter.http import Limits
from meter.openstack import Cloud
from meter.openstack import Credentials
from meter.openstack import IOpenStack
from meter.openstack import Keystone
from meter.openstack import Listing
from meter.pollsters.openstack import image

PAGE = 100
ROUNDS = 5
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
    web = LimitedHttpClient(HttpClient(client(), reactor), reactor, limits=Limits(requests_per_second=inf))

    async def send(request: HttpRequest) -> Any:
        return await web.send("identity", request)

    url = f"http://127.0.0.1:{port}"
    keystone = Keystone(send, Credentials(auth_url=url, token="t"), reactor)
    return Cloud(web, keystone, page_size=PAGE, max_pages=10**6, clock=reactor)


async def bare(port: int, images: int) -> None:
    treq = client()
    for first in range(0, images, PAGE):
        response = await treq.get(f"http://127.0.0.1:{port}/v2/images?marker={first}")
        await response.content()


async def polled(port: int, images: int) -> None:
    cycle = Cycle(PluginContext("benchmark", None, reactor, {IOpenStack: cloud_at(port)}))
    samples = list(await image.poll(cycle))
    assert len(samples) == 2 * images, len(samples)


async def timed(work: Awaitable[None]) -> tuple[float, float]:
    """Seconds on the wall and on the processor."""
    wall, processor = time.perf_counter(), time.process_time()
    await work
    return time.perf_counter() - wall, time.process_time() - processor


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
    stub = subprocess.Popen([sys.executable, __file__, "serve", str(images)], stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
    try:
        assert stub.stdout is not None
        return await work(int(stub.stdout.readline()))
    finally:
        stub.kill()
        stub.wait()


def serve(images: int) -> None:
    glance = Glance(images)
    glance.port = reactor.listenTCP(0, Site(glance), interface="127.0.0.1").getHost().port
    print(glance.port, flush=True)
    reactor.run()


async def main(images: int) -> None:
    async def times(port: int) -> None:
        runs = [(await timed(bare(port, images)), await timed(polled(port, images))) for _ in range(ROUNDS)]
        without, with_ = (min(each) for each in zip(*runs, strict=True))
        print(f"best of {ROUNDS}: bare {without[0]:.2f} s, polled {with_[0]:.2f} s, ratio {with_[0] / without[0]:.2f}")
        print(f"processor: bare {without[1]:.2f} s, polled {with_[1]:.2f} s")

    await serving(images, times)
    few, many = await serving(images // 10, peak_bytes), await serving(images, peak_bytes)
    print(f"peak of the heap: {few / 1e6:.1f} MB for {images // 10} images, {many / 1e6:.1f} MB for {images}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]))
    else:
        react(lambda _: Deferred.fromCoroutine(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)))
