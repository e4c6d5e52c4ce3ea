"""Listing images: how much the agent adds to the bare time of the requests, and what it keeps meanwhile.

A stub Glance, a process of its own, answers each page of 100 after 1 ms. The same pages are asked for with nothing but
``treq``, and by the pollster: token, budget, paging, samples. Printed are both times, on the wall and of the processor, and
the peak of the heap while walking over a tenth of the pages and over all.

The ids of the images that both have met are compared with those that the stub has, and two samples have to be of each.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tracemalloc
from math import inf
from typing import Any

from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.web.client import Agent
from twisted.web.client import HTTPConnectionPool
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from twisted.web.server import Site

from benchmarks import measuring
from benchmarks.measuring import Report
from benchmarks.measuring import Table
from meter.agent.cycle import Cycle
from meter.agent.cycle import PluginContext
from meter.http import HttpClient
from meter.http import HttpRequest
from meter.http import LimitedHttpClient
from meter.http import ServiceLimits
from meter.openstack import Cloud
from meter.openstack import Credentials
from meter.openstack import IOpenStack
from meter.openstack import Keystone
from meter.openstack import Listing
from meter.pollsters.openstack import image

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
    web = LimitedHttpClient(HttpClient(client(), reactor), reactor, limits=ServiceLimits(requests_per_second=inf))

    async def send(request: HttpRequest) -> Any:
        return await web.send("identity", request)

    url = f"http://127.0.0.1:{port}"
    keystone = Keystone(send, Credentials(auth_url=url, token="t"), reactor)
    return Cloud(web, keystone, page_size=PAGE, max_pages=10**6, clock=reactor)


async def bare(port: int, images: int) -> list[str]:
    """Return the ids of the images."""
    treq, ids = client(), []
    for first in range(0, images, PAGE):
        response = await treq.get(f"http://127.0.0.1:{port}/v2/images?marker={first}")
        ids += (image["id"] for image in json.loads(await response.content())["images"])
    return ids


async def polled(port: int) -> list[Any]:
    """Return the samples of the pollster."""
    return list(await image.poll(Cycle(PluginContext("benchmark", None, reactor, {IOpenStack: cloud_at(port)}))))


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
    """Return the result of ``work`` with the port of a stub that has ``images``."""
    command = [sys.executable, "-m", "benchmarks.central_images", "serve", str(images)]
    stub = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=measuring.ROOT)  # noqa: ASYNC220
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


async def benchmark(_: Any, report: Report, options: argparse.Namespace) -> None:
    images = options.images
    table = Table(f"{images} images")
    expected = [str(number) for number in range(images)]

    async def times(port: int) -> None:
        for _ in range(options.runs):
            results: dict[str, list[Any]] = {}

            async def asked(results: dict[str, list[Any]] = results) -> None:
                results["bare"] = await bare(port, images)

            async def sampled(results: dict[str, list[Any]] = results) -> None:
                results["polled"] = await polled(port)

            without, with_ = await measuring.timed(asked()), await measuring.timed(sampled())
            table.add("requests alone, wall", without.wall, "s")
            table.add("polled, wall", with_.wall, "s", "requests alone, wall")
            table.add("requests alone", without.processor / images * 1e6, "µs of a core per image")
            table.add("polled", with_.processor / images * 1e6, "µs of a core per image", "requests alone")
            report.compare_ids("images of the requests alone", expected, results["bare"])
            polled_ids = [sample.resource_id for sample in results["polled"]]
            report.compare("samples", 2 * images, len(polled_ids))
            report.compare_ids("images with samples", expected, list(set(polled_ids)))

    await serving(images, times)
    few, many = await serving(images // 10, peak_bytes), await serving(images, peak_bytes)
    table.add(f"heap with {images // 10} images", few / 1e6, "MB")
    table.add(f"heap with {images} images", many / 1e6, "MB", f"heap with {images // 10} images")
    report.table(table)


def main() -> None:
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]))
        return
    parser = measuring.parser(__doc__)
    parser.add_argument("--images", type=int, default=10_000, help="a multiple of 1 000 (%(default)s)")
    measuring.run(benchmark, parser.parse_args())


if __name__ == "__main__":
    main()
