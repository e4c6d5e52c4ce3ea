"""Swift with thousands of projects: what a cycle costs, and that the service is never asked more often than the budget says.

A stub Swift, a process of its own, answers each account after 1 ms and counts, in windows of one second that begin with
each request, how many came. Printed are the largest of these counts beside the budget, the time of the cycle beside that
which the budget alone takes, and the processor's time for an account of three samples beside that of a bare request.

No cycle may be shorter than the budget allows, and no window may have a tenth more requests than the budget, which late processes
bunch on a busy machine. Each account is asked for once, and each project has its three samples.

The default budget of Meter, 20 requests a second, is measured by tests/unit/pollsters/openstack/test_round_robin.py with a
clock of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections import deque
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
from meter.pollsters.openstack import storage

DELAY_SECONDS = 0.001
SERVICE = "object-store"
BUNCHED = 0.1
"""The part of the budget that may arrive in a window beyond it, where a process was late and then sent or read several at once."""


class Swift(Resource):
    """Answers tokens, the list of projects, and accounts.

    At ``/seen`` it answers how many requests for accounts came in one second at most, and how many in all, and forgets both.
    """

    isLeaf = True  # noqa: N815

    def __init__(self, projects: int) -> None:
        super().__init__()
        self.port = 0
        self._projects = projects
        self._last: deque[float] = deque()
        self._most = 0
        self._all = 0

    def render_POST(self, request: Any) -> bytes:
        request.setResponseCode(201)
        request.setHeader("X-Subject-Token", "token")
        endpoint = {"interface": "public", "url": f"http://127.0.0.1:{self.port}", "region": "R"}
        catalog = [{"type": each, "endpoints": [endpoint]} for each in ("identity", SERVICE)]
        times = {"issued_at": "2026-11-22T16:40:16Z", "expires_at": "2026-11-22T17:40:16Z"}
        return json.dumps({"token": {**times, "catalog": catalog}}).encode()

    def render_GET(self, request: Any) -> bytes | int:
        if request.path == b"/seen":
            seen = {"most": self._most, "all": self._all}
            self._most = self._all = 0
            self._last.clear()
            return json.dumps(seen).encode()
        if b"projects" in request.path:
            return json.dumps({"projects": [{"id": f"{number:032x}"} for number in range(self._projects)]}).encode()
        now = time.monotonic()
        self._last.append(now)
        while self._last[0] <= now - 1:
            self._last.popleft()
        self._all += 1
        self._most = max(self._most, len(self._last))
        for name in ("Object-Count", "Bytes-Used", "Container-Count"):
            request.setHeader(f"X-Account-{name}", "7")
        deferLater(reactor, DELAY_SECONDS, lambda: (request.write(b"[]"), request.finish()))
        return NOT_DONE_YET


def serve(projects: int) -> None:
    swift = Swift(projects)
    swift.port = reactor.listenTCP(0, Site(swift), interface="127.0.0.1").getHost().port
    print(swift.port, flush=True)
    reactor.run()


async def measure(port: int, report: Report, options: argparse.Namespace) -> None:
    projects, rate = options.projects, options.requests_per_second
    treq = HTTPClient(Agent(reactor, pool=HTTPConnectionPool(reactor)))
    url = f"http://127.0.0.1:{port}"

    async def seen() -> dict[str, int]:
        return await (await treq.get(f"{url}/seen")).json()

    async def bare() -> None:
        for number in range(projects):
            await (await treq.head(f"{url}/v1/AUTH_{number:032x}")).content()

    expected = {f"{number:032x}": 3 for number in range(projects)}
    table = Table(f"{projects} projects, {rate:g} requests/s")
    for _ in range(options.runs):
        alone = await measuring.timed(bare())
        await seen()
        limits = ServiceLimits(requests_per_second=rate, max_in_flight=8)
        web = LimitedHttpClient(HttpClient(treq, reactor), reactor, by_service={SERVICE: limits})

        async def send(request: HttpRequest, web: LimitedHttpClient = web) -> Any:
            return await web.send("identity", request)

        cloud = Cloud(web, Keystone(send, Credentials(auth_url=url, token="t"), reactor))
        cycle = Cycle(PluginContext("benchmark", None, reactor, {IOpenStack: cloud}))
        samples: list[Any] = []

        async def poll(samples: list[Any] = samples, cycle: Cycle = cycle) -> None:
            samples += await storage.poll(cycle)

        took = await measuring.timed(poll())
        counts = await seen()
        table.add("budget", rate, "requests/s")
        table.add("most requests in one second", counts["most"], "requests/s", "budget")
        alone_seconds = web.seconds_for(SERVICE, projects)
        table.add("time of the budget alone", alone_seconds, "s")
        table.add("time of the cycle", took.wall, "s", "time of the budget alone")
        table.add("bare request", alone.processor / projects * 1e3, "ms of a core")
        table.add("account of three samples", took.processor / projects * 1e3, "ms of a core", "bare request")
        report.compare("requests for accounts", projects, counts["all"])
        report.compare("one-second windows within the budget", True, counts["most"] <= rate * (1 + BUNCHED))
        report.compare("cycle as long as the budget alone takes, or longer", True, took.wall >= alone_seconds)
        report.compare("samples by project", expected, dict(Counter(sample.resource_id for sample in samples)))
    report.table(table)


async def benchmark(_: Any, report: Report, options: argparse.Namespace) -> None:
    command = [sys.executable, "-m", "benchmarks.central_accounts", "serve", str(options.projects)]
    stub = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=measuring.ROOT)  # noqa: ASYNC220
    try:
        assert stub.stdout is not None
        await measure(int(stub.stdout.readline()), report, options)
    finally:
        stub.kill()
        stub.wait()


def main() -> None:
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]))
        return
    parser = measuring.parser(__doc__, runs=3)
    parser.add_argument("--projects", type=int, default=2000, help="with an account each (%(default)s)")
    parser.add_argument("--requests-per-second", type=float, default=100.0, help="of the budget (%(default)s)")
    measuring.run(benchmark, parser.parse_args())


if __name__ == "__main__":
    main()
