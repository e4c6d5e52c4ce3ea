"""Swift with thousands of projects: what a cycle costs, and that the service is never asked more often than the budget says.

    python -m benchmarks.central_accounts [projects] [requests per second]

A stub Swift, a process of its own, answers each account after 1 ms and counts, in windows of one second that begin with
each request, how many came. Printed are the longest window, the time of the cycle beside that of the budget alone, and
the processor's time for an account of three samples.

5 000 projects at 100 a second, on a machine with 2 cores: at most 98 requests in any second, 52.6 s of which the budget
alone takes 52.5 s, 1.4 ms of one core for each, nearly all of it Twisted's and treq's. With the budget of 20 a second that
is the default the same takes 262 s of a cycle of 300: tests/unit/pollsters/openstack/test_round_robin.py has that with a
clock of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import deque
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
from meter.pollsters.openstack import storage

DELAY_SECONDS = 0.001
SERVICE = "object-store"


class Swift(Resource):
    """Answers tokens, the list of projects, accounts, and at ``/most`` how many came in one second at most."""

    isLeaf = True  # noqa: N815

    def __init__(self, projects: int) -> None:
        super().__init__()
        self.port = 0
        self._projects = projects
        self._last: deque[float] = deque()
        self._most = 0

    def render_POST(self, request: Any) -> bytes:
        request.setResponseCode(201)
        request.setHeader("X-Subject-Token", "token")
        endpoint = {"interface": "public", "url": f"http://127.0.0.1:{self.port}", "region": "R"}
        catalog = [{"type": each, "endpoints": [endpoint]} for each in ("identity", SERVICE)]
        times = {"issued_at": "2026-11-22T16:40:16Z", "expires_at": "2026-11-22T17:40:16Z"}
        return json.dumps({"token": {**times, "catalog": catalog}}).encode()

    def render_GET(self, request: Any) -> bytes | int:
        if request.path == b"/most":
            return str(self._most).encode()
        if b"projects" in request.path:
            return json.dumps({"projects": [{"id": f"{number:032x}"} for number in range(self._projects)]}).encode()
        now = time.monotonic()
        self._last.append(now)
        while self._last[0] <= now - 1:
            self._last.popleft()
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


async def measure(port: int, projects: int, requests_per_second: float) -> None:
    treq = HTTPClient(Agent(reactor, pool=HTTPConnectionPool(reactor)))
    web = LimitedHttpClient(
        HttpClient(treq, reactor),
        reactor,
        by_service={SERVICE: Limits(requests_per_second=requests_per_second, max_in_flight=8)},
    )

    async def send(request: HttpRequest) -> Any:
        return await web.send("identity", request)

    url = f"http://127.0.0.1:{port}"
    cloud = Cloud(web, Keystone(send, Credentials(auth_url=url, token="t"), reactor))
    cycle = Cycle(PluginContext("benchmark", None, reactor, {IOpenStack: cloud}))
    began, processor = time.perf_counter(), time.process_time()
    samples = list(await storage.poll(cycle))
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    assert len(samples) == 3 * projects, len(samples)
    most = await (await treq.get(f"{url}/most")).text()
    budget = web.seconds_for(SERVICE, projects)
    print(f"{projects} projects at {requests_per_second:g} a second: {most} requests in a second at most")
    print(
        f"cycle: {seconds:.1f} s, the budget alone takes {budget:.1f} s; {processor / projects * 1e3:.2f} ms of a core each"
    )


async def main(projects: int, requests_per_second: float) -> None:
    command = [sys.executable, "-m", "benchmarks.central_accounts", "serve", str(projects)]
    stub = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
    try:
        assert stub.stdout is not None
        await measure(int(stub.stdout.readline()), projects, requests_per_second)
    finally:
        stub.kill()
        stub.wait()


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]))
    else:
        given = [float(each) for each in sys.argv[1:]]
        react(lambda _: Deferred.fromCoroutine(main(int((given or [5000])[0]), (given[1:] or [100.0])[0])))
