"""Many clients of the API: how many pages they get from several processes, on one server and on a primary with its replica.

The store is that of ``benchmarks/api.py``. Clients are the connections of one process, each of which asks again as soon as it has its answer;
processes of the API share a socket as under systemd. On two servers every second process queries the replica. All share the machine:
with two cores, more processes than cores show that nothing is lost by them, and not what more machines would give.

The samples in all answers are counted, and a page of each process is compared with that of the store.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from twisted.internet.utils import getProcessOutputAndValue

from benchmarks import api
from benchmarks import measuring
from benchmarks.measuring import Report
from benchmarks.measuring import Table
from meter.daemon.services import sleep
from meter.query import SampleFilter
from meter.store import PostgresStore
from tests.servers.postgresql import PostgreSQL
from tests.servers.postgresql import installed

PAGE = 100
MAX_REQUESTS = """
[api.shares]
max_requests_per_project = 1000
max_requests_per_address = 1000
"""

# All connections ask at once, and again until each has its count; prints the seconds and the braces in all answers.
CLIENTS = """
import re, selectors, socket, sys, time
port, token, path, connections, count = int(sys.argv[1]), *sys.argv[2:4], int(sys.argv[4]), int(sys.argv[5])
request = f"GET {path} HTTP/1.1\\r\\nHost: x\\r\\nX-Auth-Token: {token}\\r\\nAccept: */*\\r\\n\\r\\n".encode()
waiting, braces = selectors.DefaultSelector(), 0
begin = time.perf_counter()
for _ in range(connections):
    made = socket.create_connection(("127.0.0.1", port), timeout=120)
    waiting.register(made, selectors.EVENT_READ, [count, b""])
    made.sendall(request)
while waiting.get_map():
    for key, _ in waiting.select():
        state = key.data
        received = key.fileobj.recv(1 << 18)
        if not received:
            raise EOFError("a response has no end")
        state[1] += received
        head, blank, body = state[1].partition(b"\\r\\n\\r\\n")
        if not blank or len(body) < int(re.search(rb"(?i)content-length: (\\d+)", head)[1]):
            continue
        assert b" 200 " in head, head + body
        braces += body.count(b'"message_signature"')
        state[:] = state[0] - 1, b""
        if state[0]:
            key.fileobj.sendall(request)
        else:
            waiting.unregister(key.fileobj)
            key.fileobj.close()
print(time.perf_counter() - begin, braces)
"""


async def pages(port: int, path: str, clients: int, count: int) -> tuple[float, int]:
    """Return the seconds in which ``clients`` got ``count`` pages each, and how many samples those had."""
    arguments = ["-c", CLIENTS, str(port), api.TOKEN, path, str(clients), str(count)]
    output, errors, code = await getProcessOutputAndValue(sys.executable, arguments, os.environ)
    if code:
        raise RuntimeError(f"the clients ended with {code}: {errors.decode()}")
    seconds, samples = output.split()
    return float(seconds), int(samples)


async def measure(
    reactor: Any, report: Report, primary: PostgreSQL, standby: PostgreSQL, dsn: str, options: argparse.Namespace
) -> None:
    replica = dsn.replace(f":{primary.port}/", f":{standby.port}/")
    [[position]] = primary.execute("SELECT pg_current_wal_lsn()::text")
    while standby.execute(f"SELECT pg_last_wal_replay_lsn() >= '{position}'") != [(True,)]:
        await sleep(reactor, 0.1)
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=False, readers=1, writers=0)
    store.startService()
    await measuring.until_ready(reactor, store)
    expected = [each.message_id for each in await store.samples(SampleFilter(), PAGE)]
    await store.stopService()
    path, table = f"/v2/samples?limit={PAGE}", Table(f"pages of {PAGE}, {options.clients} clients")
    base = ""
    for _ in range(options.runs):
        for servers, replicas in (("one server", [""]), ("primary and replica", ["", replica])):
            for processes in options.processes:
                with (
                    measuring.directory() as directory,
                    api.daemons(directory / "api", dsn, processes, replicas, MAX_REQUESTS) as (port, running),
                ):
                    await api.until_listening(reactor, directory / "api", running)
                    await pages(port, path, options.clients, 1)  # fills caches
                    before = sum(measuring.processor_seconds(each.pid) for each in running)
                    seconds, samples = await pages(port, path, options.clients, options.requests)
                    after = sum(measuring.processor_seconds(each.pid) for each in running)
                    asked = options.clients * options.requests
                    name = f"{processes} process{'es' if processes > 1 else ''}, {servers}"
                    base = base or name
                    table.add(name, asked / seconds, "pages/s", base)
                    table.add(f"{name}: processes", (after - before) / asked * 1e3, "ms of a core per page")
                    report.compare(f"samples of {name}", asked * len(expected), samples)
                    found = [each["id"] for each in json.loads(await api.body(port, path))]
                    report.compare(f"the page of {name}", expected, found)
    report.table(table)


async def benchmark(reactor: Any, report: Report, options: argparse.Namespace) -> None:
    options.samples -= options.samples % (api.COPIES * api.BATCH_SAMPLES)
    report.line(f"samples: {options.samples}")
    for mode in measuring.modes(options):
        with measuring.postgresql_server(report, mode, options) as primary, measuring.directory() as directory:
            dsn = await api.filled(reactor, primary, options.samples)
            binaries = installed()
            assert binaries is not None
            standby = PostgreSQL(binaries, directory, {"shared_buffers": options.shared_buffers}, primary=primary)
            try:
                standby.start()
                await measure(reactor, report, primary, standby, dsn, options)
            finally:
                standby.kill()


def main() -> None:
    parser = measuring.with_postgresql(measuring.parser(__doc__, runs=3), "durable")
    parser.add_argument("--samples", type=int, default=100_000, help="in the store, at least 10 000 (%(default)s)")
    parser.add_argument("--clients", type=int, default=50, help="connections that ask (%(default)s)")
    parser.add_argument("--requests", type=int, default=40, help="that each client makes in a run (%(default)s)")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4], help="of the API (1 2 4)")
    measuring.run(benchmark, parser.parse_args())


if __name__ == "__main__":
    main()
