"""What a hostile tenant costs another tenant, and how long single requests hold the reactor.

The store is a PostgreSQL with samples of twenty projects. First, in this process, a ticker of 5 ms measures its largest gap
while one kind of large request is answered. Then a daemon, ``twistd meter-api``, serves two tenants. One of them asks for
pages and statistics, in turn alone and beside the other, which does all that its token allows at full rate: exports that it
reads slowly, live streams, statistics, complex queries and posts of a megabyte; somebody without a token sends made-up
ones. The clients are processes of their own; the hostile ones have a lower priority, as if they ran on another machine.

The answers of the first tenant are compared with those that it gets alone. ``/healthz`` is asked meanwhile.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults
from twisted.internet.task import LoopingCall
from twisted.internet.utils import getProcessOutputAndValue

from benchmarks import measuring
from benchmarks.api import filled
from benchmarks.measuring import Report
from benchmarks.measuring import Table
from benchmarks.workload import KEYS
from benchmarks.workload import METERS
from meter.api import Api
from meter.api import SampleIngest
from meter.api import make_site
from meter.daemon.full_collections import FullCollections
from meter.daemon.services import sleep
from meter.store import PostgresStore

SAMPLES = 600_000
TENANT, HOSTILE = "project-1", "project-2"

POST = json.dumps(
    [
        {
            "counter_name": "custom.posted",
            "counter_type": "gauge",
            "counter_unit": "thing",
            "counter_volume": number,
            "resource_id": f"thing-{number % 100}",
        }
        for number in range(7_400)
    ]
)
"""A post of one megabyte."""

PAGE_PATH = "/v2/samples?limit=100"
STATISTICS_PATH = "/v2/meters/cpu/statistics?period=86400&groupby=resource_id"

# Asks in turn for each path, and prints how long each answer took, its status and a digest of it.
CLIENT = """
import hashlib, http.client, sys, time
port, token, count, *paths = sys.argv[1:]
connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=120)
for _ in range(int(count)):
    for path in paths:
        begin = time.perf_counter()
        connection.request("GET", path, headers={"X-Auth-Token": token, "Accept": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
        print(time.perf_counter() - begin, answer.status, hashlib.sha256(body).hexdigest(), path)
        time.sleep(0.02)
"""

# Does everything at once, and prints at its end how often each kind of request got each status.
ATTACK = """
import asyncio, collections, os, signal, sys
port, token, post = int(sys.argv[1]), sys.argv[2], open(sys.argv[3], "rb").read()
os.nice(19)
outcomes = collections.Counter()

async def ask(request, read_seconds=0.0):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**16)
    try:
        writer.write(request)
        await writer.drain()
        head = await reader.readuntil(b"\\r\\n\\r\\n")
        while await reader.read(1024 if read_seconds else 2**20):
            await asyncio.sleep(read_seconds)
        return head.split()[1].decode()
    finally:
        writer.close()

async def loop(kind, request, read_seconds=0.0):
    while True:
        try:
            outcomes[kind, await ask(request() if callable(request) else request, read_seconds)] += 1
        except (OSError, asyncio.IncompleteReadError):
            outcomes[kind, "closed"] += 1
            await asyncio.sleep(0.01)

def get(path, accept="application/json", token=token):
    return (f"GET {path} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\nX-Auth-Token: {token}\\r\\n"
            f"Accept: {accept}\\r\\n\\r\\n").encode()

def posted(path, body):
    return (f"POST {path} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\nX-Auth-Token: {token}\\r\\n"
            f"Content-Type: application/json\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n").encode() + body

QUERY = posted("/v2/query/samples", b'{"filter": "{\\\\"and\\\\": [{\\\\">\\\\": {\\\\"volume\\\\": 1}}, '
    b'{\\\\"=\\\\": {\\\\"metadata.flavor.vcpus\\\\": 1}}]}", "orderby": "[{\\\\"volume\\\\": \\\\"asc\\\\"}]", "limit": 1000}')
KINDS = [
    ("slow export", 3, 100, get("/v2/samples", "text/csv"), 1.0),
    ("live stream", 10, 50, get("/v2/live", "text/event-stream"), 0.0),
    ("statistics", 3, 8, get("/v2/meters/cpu/statistics?period=300&groupby=resource_id"), 0.0),
    ("complex query", 2, 8, QUERY, 0.0),
    ("post of 1 MB", 2, 24, posted("/v2/meters/custom.posted?direct=True", post), 0.0),
    ("page", 10, 0, get("/v2/samples?limit=1000"), 0.0),
    ("made-up token", 8, 8, lambda: get("/v2/samples", token=os.urandom(16).hex()), 0.0),
]

async def main():
    tasks = [asyncio.ensure_future(loop(kind, request, seconds)) for kind, within, beyond, request, seconds in KINDS
             for _ in range(within if sys.argv[4] == "within" else beyond)]
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    print("started", flush=True)
    await stopped.wait()
    for task in tasks:
        task.cancel()
    for (kind, status), count in sorted(outcomes.items()):
        print(f"{kind} got {status}: {count}")

asyncio.run(main())
"""

CONFIGURATION = """
[meter]
state_dir = "{directory}"
[signing]
key = "unused"
[bus]
url = "amqp://guest:guest@127.0.0.1:1/"
[status]
listen = "tcp:{status}:interface=127.0.0.1"
[store]
dsn = "{dsn}"
[api]
listen = "tcp:{port}:interface=127.0.0.1"
max_connections_per_address = 1000
accept_samples = true
[api.auth]
mode = "tokens"
"""

TOKEN = """
[[api.auth.tokens]]
sha256 = "{sha256}"
project_id = "{project}"
"""


@contextmanager
def daemon(directory: Path, dsn: str) -> Iterator[tuple[int, int]]:
    """Run a daemon with a token for each of the two tenants, its project; yield its port and its status port."""
    port, status = (measuring_port() for _ in range(2))
    text = CONFIGURATION.format(directory=directory, dsn=dsn, port=port, status=status)
    for project in (TENANT, HOSTILE):
        text += TOKEN.format(sha256=hashlib.sha256(project.encode()).hexdigest(), project=project)
    configuration = directory / "meter.toml"
    configuration.write_text(text)
    twistd = str(Path(sys.executable).with_name("twistd"))
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [twistd, "-n", "--pidfile=", "meter-api", "--config", str(configuration)], stdout=log, stderr=log
        )
    try:
        yield port, status
    finally:
        process.terminate()
        process.wait()


def measuring_port() -> int:
    """Return a free port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        number: int = probe.getsockname()[1]
        return number


async def asked(port: int, token: str, count: int, *paths: str) -> list[tuple[float, int, str, str]]:
    """Return seconds, status, digest and path of each of ``count`` answers to each path."""
    arguments = ["-c", CLIENT, str(port), token, str(count), *paths]
    output, errors, code = await getProcessOutputAndValue(sys.executable, arguments, os.environ)
    if code:
        raise RuntimeError(f"a client ended with {code}: {errors.decode()}")
    lines = map(str.split, output.decode().splitlines())
    return [(float(seconds), int(status), digest, path) for seconds, status, digest, path in lines]


@contextmanager
def attack(port: int, directory: Path, extent: str, outcomes: Counter[str]) -> Iterator[None]:
    """Run the hostile tenant; count in ``outcomes`` how often each kind of request got each status.

    It either uses all that it can have, ``within`` its limits, or goes ``beyond`` them, where most requests are refused.
    """
    post = directory / "post"
    post.write_text(POST)
    process = subprocess.Popen(
        [sys.executable, "-c", ATTACK, str(port), HOSTILE, str(post), extent], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield
    finally:
        process.terminate()
        for line in process.stdout.read().splitlines():
            what, _, count = line.rpartition(": ")
            outcomes[f"{extent} its limits, {what}"] += int(count)
        process.stdout.close()
        process.wait()


async def tenants(reactor: Any, report: Report, dsn: str, title: str, options: argparse.Namespace) -> None:
    """Measure the answers of one tenant, alone and beside the hostile one."""
    table = Table(title)
    paths = {PAGE_PATH: "a page of 100", STATISTICS_PATH: "statistics"}
    with measuring.directory() as directory, daemon(directory, dsn) as (port, status):
        await until_answering(reactor, directory, port)
        await asked(port, TENANT, 5, *paths)  # fills the caches
        outcomes: Counter[str] = Counter()
        failed, different = 0, 0
        for _ in range(options.runs):
            alone = await asked(port, TENANT, options.requests, *paths)
            expected = {path: digest for _, _, digest, path in alone}
            failed += sum(code != 200 for _, code, _, _ in alone)
            for path, name in paths.items():
                table.add(f"{name}, alone", _median(alone, path) * 1e3, "ms")
            for extent in ("within", "beyond"):
                with attack(port, directory, extent, outcomes):
                    await sleep(reactor, options.before_seconds)
                    answers, health = await gatherResults(
                        [
                            Deferred.fromCoroutine(asked(port, TENANT, options.requests, *paths)),
                            Deferred.fromCoroutine(asked(status, "", options.requests, "/healthz")),
                        ]
                    )
                failed += sum(code != 200 for _, code, _, _ in [*answers, *health])
                different += sum(code == 200 and digest != expected[path] for _, code, digest, path in answers)
                for path, name in paths.items():
                    beside = f"{name}, beside a tenant {extent} its limits"
                    table.add(beside, _median(answers, path) * 1e3, "ms", f"{name}, alone")
                table.add(f"/healthz beside a tenant {extent} its limits", _median(health, "/healthz") * 1e3, "ms")
                table.add(f"the slowest /healthz, {extent}", max(seconds for seconds, *_ in health) * 1e3, "ms")
                await sleep(reactor, 2.0)
    report.table(table)
    for what, count in sorted(outcomes.items()):
        report.line(f"{what}: {count}")
    report.compare("answers of the other tenant, and of /healthz, that are not 200", 0, failed)
    report.compare("answers of the other tenant that differ from those alone", 0, different)


def _median(answers: list[tuple[float, int, str, str]], path: str) -> float:
    return median(seconds for seconds, _, _, asked_path in answers if asked_path == path)


async def until_answering(reactor: Any, directory: Path, port: int) -> None:
    """Wait until the daemon answers from the store."""
    while True:
        try:
            [(_, status, _, _)] = await asked(port, TENANT, 1, "/v2/samples?limit=1")
        except RuntimeError:
            status = 0
        if status == 200:
            return
        await sleep(reactor, 0.2)


# --- how long single requests hold the reactor -----------------------------------------------------------------------


class Ticker:
    """Ticks every 5 ms while it is entered; ``largest_gap`` is how much this thread worked at most between two ticks.

    That is processor time, in seconds: other processes, for which the thread has to wait, do not matter.
    """

    def __init__(self, reactor: Any) -> None:
        self._call = LoopingCall(self._tick)
        self._call.clock = reactor
        self._last = 0.0
        self.largest_gap = 0.0

    def _tick(self) -> None:
        now = time.thread_time()
        self.largest_gap = max(self.largest_gap, now - self._last)
        self._last = now

    def __enter__(self) -> Ticker:
        self._last = time.thread_time()
        self._call.start(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        self._tick()
        self._call.stop()


async def posts(port: int, directory: Path, count: int) -> None:
    """Send ``count`` posts of one megabyte at the same time."""
    post = directory / "post"
    post.write_text(POST)
    url = f"http://127.0.0.1:{port}/v2/meters/custom.posted?direct=True"
    command = ["-sS", "--fail", "-o", "/dev/null", "-H", "Content-Type: application/json", "--data-binary", f"@{post}"]
    outcomes = await gatherResults(
        [getProcessOutputAndValue("curl", [*command, url], os.environ) for _ in range(count)], consumeErrors=True
    )
    failed = [errors.decode() for _, errors, code in outcomes if code]
    if failed:
        raise RuntimeError(f"{len(failed)} posts failed: {failed[0]}")


async def gaps(reactor: Any, report: Report, dsn: str, title: str, options: argparse.Namespace) -> None:
    """Measure the largest gap of a ticker during each kind of large request."""
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=4, writers=2)
    store.startService()
    await measuring.until_ready(reactor, store)
    ingest = SampleIngest(KEYS, "openstack", None, store)  # type: ignore[arg-type] # direct posts need no bus
    api = Api(store, reactor, ingest=ingest)
    port = reactor.listenTCP(0, make_site(api, reactor), interface="127.0.0.1")
    number = port.getHost().port
    collections = FullCollections(reactor, lambda: api.busy)
    collections.startService()
    table = Table(title)
    statuses: set[int] = set()
    requests = {
        "10 000 samples as JSON": "/v2/samples?limit=10000",
        f"statistics of {options.samples // len(METERS)} windows": "/v2/meters/cpu/statistics?period=300&groupby=resource_id",
    }
    with measuring.directory() as directory:
        for _ in range(options.runs):
            with Ticker(reactor) as ticker:
                await sleep(reactor, 1.0)
            table.add("largest gap without requests", ticker.largest_gap * 1e3, "ms")
            for name, path in requests.items():
                with Ticker(reactor) as ticker:
                    statuses |= {status for _, status, _, _ in await asked(number, "", 1, path)}
                table.add(name, ticker.largest_gap * 1e3, "ms")
            for name, count in (("a post of 1 MB", 1), (f"{options.posts} posts of 1 MB", options.posts)):
                with Ticker(reactor) as ticker:
                    await posts(number, directory, count)
                table.add(name, ticker.largest_gap * 1e3, "ms")
    await port.stopListening()
    await collections.stopService()
    await store.stopService()
    report.table(table)
    report.compare("statuses of the large requests", {200}, statuses)


async def benchmark(reactor: Any, report: Report, options: argparse.Namespace) -> None:
    report.line(f"samples: {options.samples}")
    for mode in measuring.modes(options):
        with measuring.postgresql_server(report, mode, options) as server:
            dsn = await filled(reactor, server, options.samples)
            await tenants(reactor, report, dsn, mode, options)
            await gaps(reactor, report, dsn, mode, options)


def main() -> None:
    parser = measuring.with_postgresql(measuring.parser(__doc__, runs=3), "durable")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="in the store, at least 10 000 (%(default)s)")
    parser.add_argument(
        "--requests", type=int, default=60, help="of each kind that the tenant makes in a run (%(default)s)"
    )
    parser.add_argument("--posts", type=int, default=24, help="of 1 MB at the same time (%(default)s)")
    parser.add_argument(
        "--before-seconds", type=float, default=5.0, help="for which the hostile tenant works first (%(default)s)"
    )
    measuring.run(benchmark, parser.parse_args())


if __name__ == "__main__":
    main()
