"""What HTTP adds to the store's own time, and how fast pages, large answers and exports are, from one process and two.

The store is a PostgreSQL with a million samples (a tenth of them written, the others copied in SQL to earlier times).
What HTTP adds is measured in this process, all else on daemons, ``twistd meter-api``, that share a socket as under
systemd. Clients are processes of their own; server, PostgreSQL and clients share the machine. Pages and large answers are
compared with the store alone, asked in this process, an export with ``psql`` copying the same columns to CSV.

The samples that HTTP answers with are compared with those of the store; those of the export with what ``psql`` copied.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue

from benchmarks import measuring
from benchmarks.measuring import Report
from benchmarks.measuring import Table
from benchmarks.workload import BATCH_SAMPLES
from benchmarks.workload import messages
from meter.api import Api
from meter.api import make_site
from meter.daemon.services import sleep
from meter.query import SampleFilter
from meter.store import PostgresStore
from tests.servers.postgresql import PostgreSQL
from tests.servers.postgresql import installed

SAMPLES = 1_000_000
COPIES = 10
TOKEN = "the benchmark's"
CLIENTS = 4
PAGE, LARGE_PAGE = 100, 10_000

# Asks in a loop, and prints how long each answer took and how many braces and lines there were.
CLIENT = """
import socket, sys, time
port, token, path, accept, count = int(sys.argv[1]), *sys.argv[2:5], int(sys.argv[5])
connection = socket.create_connection(("127.0.0.1", port), timeout=120)

def received(size):
    data = connection.recv(size)
    if not data:
        raise EOFError("the response has no end")
    return data

request = f"GET {path} HTTP/1.1\\r\\nHost: x\\r\\nX-Auth-Token: {token}\\r\\nAccept: {accept}\\r\\n\\r\\n".encode()
for _ in range(count):
    braces = 0
    begin = time.perf_counter()
    connection.sendall(request)
    data = b""
    while b"\\r\\n\\r\\n" not in data:
        data += received(65536)
    head, _, body = data.partition(b"\\r\\n\\r\\n")
    assert b" 200 " in head, head
    lengths = [line for line in head.lower().split(b"\\r\\n") if line.startswith(b"content-length")]
    if lengths:
        left = int(lengths[0].split(b":")[1])
        while True:
            braces += body.count(b"{")
            left -= len(body)
            if left <= 0:
                break
            body = received(min(left, 1 << 20))
    else:
        tail = b""
        while True:
            braces += body.count(b"{")
            tail = (tail + body)[-7:]
            if tail == b"\\r\\n0\\r\\n\\r\\n":
                break
            body = received(1 << 20)
    print(time.perf_counter() - begin, braces)
"""

COPY = r"""\copy (SELECT s.message_id, m.name, m.type, m.unit, s.volume, r.name, p.name, u.name, o.name, s.timestamp,
 s.recorded_at, d.text, encode(s.signature, 'hex') FROM sample s JOIN series x ON x.id = s.series_id
 JOIN meter m ON m.id = x.meter_id JOIN resource r ON r.id = x.resource_id LEFT JOIN "user" u ON u.id = x.user_id
 LEFT JOIN project p ON p.id = x.project_id LEFT JOIN source o ON o.id = x.source_id
 JOIN metadata d ON d.id = s.metadata_id ORDER BY s.timestamp DESC, s.message_id DESC) TO '{file}' CSV"""

EARLIER = """
INSERT INTO sample SELECT s.timestamp - n * (SELECT max(timestamp) - min(timestamp) + interval '1 s' FROM sample),
    s.recorded_at, gen_random_uuid(), s.volume, s.metadata_id, s.series_id, s.wire_format_id, s.signature, s.verbatim_json
FROM generate_series(1, {copies}) AS n CROSS JOIN sample s
"""

CONFIGURATION = """
[meter]
state_dir = "{directory}"
[signing]
key = "unused"
[status]
listen = ""
[store]
dsn = "{dsn}"
replica_dsn = "{replica}"
[api]
listen = "systemd:domain=INET:name=meter-api.socket"
accept_samples = false
[api.auth]
mode = "tokens"
[[api.auth.tokens]]
sha256 = "{sha256}"
admin = true
"""

AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="meter-api.socket")
os.execv(sys.argv[2], sys.argv[2:])
"""


async def answers(port: int, path: str, count: int, accept: str = "*/*") -> list[tuple[float, int]]:
    """Return, for each of ``count`` answers that one client got, its seconds and how many braces there were."""
    arguments = ["-c", CLIENT, str(port), TOKEN, path, accept, str(count)]
    output, errors, code = await getProcessOutputAndValue(sys.executable, arguments, os.environ)
    if code:
        raise RuntimeError(f"a client ended with {code}: {errors.decode()}")
    return [(float(seconds), int(braces)) for seconds, braces in map(str.split, output.decode().splitlines())]


async def several(port: int, path: str, count: int) -> float:
    """Return how many answers a second several clients get together, each asking ``count`` times."""
    outcomes = await gatherResults(
        [Deferred.fromCoroutine(answers(port, path, count)) for _ in range(CLIENTS)], consumeErrors=True
    )
    # Clients start one after another: the rate of each while it asks, added up.
    return sum(count / sum(seconds for seconds, _ in each) for each in outcomes)


async def body(port: int, path: str, accept: str = "*/*") -> bytes:
    """Return one answer as it is."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", headers={"X-Auth-Token": TOKEN, "Accept": accept}
    )

    def ask() -> bytes:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.read()

    return await deferToThread(ask)


def server_seconds(pid: int) -> float:
    """Return the processor time that a PostgreSQL has used, with all its processes, also those that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ended = (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return ended + sum(measuring.processor_seconds(each) for each in (pid, *map(int, children)))


def ended_seconds() -> float:
    """Return the processor time of processes that this one has started and that have ended."""
    return sum(os.times()[2:4])


async def filled(reactor: Any, server: PostgreSQL, samples: int) -> str:
    """Return the DSN of a store that holds ``samples``."""
    dsn = server.dsn()
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=1, writers=1)
    store.startService()
    await measuring.until_ready(reactor, store)
    source = messages()
    for _ in range(samples // COPIES // BATCH_SAMPLES):
        await store.write(list(islice(source, BATCH_SAMPLES)))
    await store.stopService()
    server.execute(EARLIER.format(copies=COPIES - 1), dsn)
    server.execute("VACUUM ANALYZE", dsn)
    return dsn


@contextmanager
def daemons(
    directory: Path, dsn: str, count: int, replicas: Sequence[str] = ("",), more: str = ""
) -> Iterator[tuple[int, list[subprocess.Popen[bytes]]]]:
    """Run ``count`` daemons that share a socket; yield its port and them. They query ``replicas`` in turn; ``more`` is configuration."""
    directory.mkdir()
    sha256 = hashlib.sha256(TOKEN.encode()).hexdigest()
    twistd = Path(sys.executable).with_name("twistd")
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        processes = []
        for number in range(count):
            configuration = directory / f"meter-{number}.toml"
            replica = replicas[number % len(replicas)]
            configuration.write_text(
                CONFIGURATION.format(directory=directory, dsn=dsn, replica=replica, sha256=sha256) + more
            )
            daemon = [str(twistd), "-n", "--pidfile=", "meter-api", "--config", str(configuration)]
            command = [sys.executable, "-c", AS_SYSTEMD, str(listener.fileno()), *daemon]
            with (directory / f"log-{number}").open("wb") as log:
                processes.append(subprocess.Popen(command, pass_fds=[listener.fileno()], stdout=log, stderr=log))
        try:
            yield listener.getsockname()[1], processes
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()


async def until_listening(reactor: Any, directory: Path, processes: list[subprocess.Popen[bytes]]) -> None:
    """Wait until every daemon listens."""
    for number, process in enumerate(processes):
        while b"api listens on" not in (log := (directory / f"log-{number}").read_bytes()):
            if process.poll() is not None:
                raise RuntimeError(f"meter-api ended with {process.returncode}: {log.decode()[-2000:]}")
            await sleep(reactor, 0.05)


class Measurement:
    """Asks the store in this process, a site in this process, one daemon, and two."""

    def __init__(
        self,
        reactor: Any,
        report: Report,
        server: PostgreSQL,
        dsn: str,
        store: PostgresStore,
        options: argparse.Namespace,
    ) -> None:
        self._reactor = reactor
        self._server = server
        self._report = report
        self._dsn = dsn
        self._store = store
        self._options = options

    async def one_sample(self, table: Table) -> None:
        """Measure the processor time of one sample, from the store and over HTTP."""
        port = self._reactor.listenTCP(
            0, make_site(Api(self._store, self._reactor), self._reactor), interface="127.0.0.1"
        )
        number, requests = port.getHost().port, self._options.requests
        [one] = await self._store.samples(SampleFilter(), 1)
        filter = SampleFilter(equals={"message_id": one.message_id})
        path = f"/v2/samples/{one.message_id}"

        async def from_store() -> None:
            for _ in range(requests):
                await self._store.samples(filter, 1)

        for _ in range(self._options.runs):
            alone = (await measuring.timed(from_store())).processor / requests * 1e3
            served = (await measuring.timed(answers(number, path, requests))).processor / requests * 1e3
            table.add("a sample by its id, store", alone, "ms of a core")
            table.add("over HTTP", served, "ms of a core", "a sample by its id, store")
        self._report.compare("the sample by its id", one.message_id, json.loads(await body(number, path))["id"])
        await port.stopListening()

    async def pages(self, table: Table, one: int, two: int) -> None:
        """Measure pages, of one process on the port ``one`` and of two on ``two``."""
        path = f"/v2/samples?limit={PAGE}"
        requests = self._options.requests
        await gatherResults([Deferred.fromCoroutine(several(port, path, 20)) for port in (one, two)])

        async def from_store() -> None:
            for _ in range(requests):
                await self._store.samples(SampleFilter(), PAGE)

        base = f"pages of {PAGE}, store"
        for _ in range(self._options.runs):
            table.add(base, requests / (await measuring.timed(from_store())).wall, "pages/s")
            table.add(f"one process, {CLIENTS} clients", await several(one, path, requests), "pages/s", base)
            table.add(
                f"two processes, {CLIENTS} clients",
                await several(two, path, requests),
                "pages/s",
                f"one process, {CLIENTS} clients",
            )
        for port in (one, two):
            await self._compare(port, path, PAGE)

    async def large(self, table: Table, port: int) -> None:
        """Measure one large answer."""
        path = f"/v2/samples?limit={LARGE_PAGE}"
        expected = min(LARGE_PAGE, self._options.samples)
        base = f"{LARGE_PAGE} samples, store"
        for _ in range(self._options.runs):
            took = await measuring.timed(self._store.samples(SampleFilter(), LARGE_PAGE))
            table.add(base, expected / took.wall, "samples/s")
            [(seconds, _)] = await answers(port, path, 1)
            table.add("as JSON over HTTP", expected / seconds, "samples/s", base)
        await self._compare(port, path, LARGE_PAGE)

    async def export(self, table: Table, port: int, process: subprocess.Popen[bytes], directory: Path) -> None:
        """Measure all samples as CSV."""
        samples = self._options.samples
        before = measuring.memory_megabytes(process.pid)
        copied = directory / "copied.csv"
        for run in range(self._options.runs):
            began = server_seconds(self._server.pid) + ended_seconds()
            taken = await self._copy("/dev/null" if run else str(copied))
            copying = (server_seconds(self._server.pid) + ended_seconds() - began) / samples * 1e6
            table.add("psql, all samples as CSV", samples / taken, "samples/s")
            began = server_seconds(self._server.pid) + measuring.processor_seconds(process.pid)
            [(seconds, braces)] = await answers(port, "/v2/samples", 1, "text/csv")
            ended = server_seconds(self._server.pid) + measuring.processor_seconds(process.pid)
            table.add("all samples as CSV over HTTP", samples / seconds, "samples/s", "psql, all samples as CSV")
            table.add("psql and PostgreSQL", copying, "µs of a core per sample")
            exporting = (ended - began) / samples * 1e6
            table.add("daemon and PostgreSQL", exporting, "µs of a core per sample", "psql and PostgreSQL")
            self._report.compare("braces in the CSV", 2 * samples, braces)  # both of metadata
        table.add("memory before", before, "MiB")
        table.add("memory at its largest", measuring.memory_megabytes(process.pid), "MiB", "memory before")
        exported = (await body(port, "/v2/samples", "text/csv")).decode().splitlines()[1:]
        with copied.open(newline="") as file:
            expected = [(row[0], float(row[4]), row[5]) for row in csv.reader(file)]
        names = ("id", "volume", "resource_id")
        header = (await body(port, "/v2/samples?limit=1", "text/csv")).decode().splitlines()[0].split(",")
        places = [header.index(name) for name in names]
        found = [(row[places[0]], float(row[places[1]]), row[places[2]]) for row in csv.reader(exported)]
        self._report.compare("rows of the CSV", len(expected), len(found))
        pairs = zip(expected, found, strict=False)
        self._report.compare("rows that differ from those of psql", 0, sum(one != other for one, other in pairs))

    async def _copy(self, file: str) -> float:
        command = [str(installed() / "psql"), self._dsn, "-qc", " ".join(COPY.format(file=file).split())]
        begin = time.perf_counter()
        subprocess.run(command, check=True)  # noqa: ASYNC221 - nothing else is to run meanwhile
        return time.perf_counter() - begin

    async def _compare(self, port: int, path: str, limit: int) -> None:
        expected = [each.message_id for each in await self._store.samples(SampleFilter(), limit)]
        found = [each["id"] for each in json.loads(await body(port, path))]
        self._report.compare(f"samples of {path}", expected, found)


async def measure(reactor: Any, report: Report, server: PostgreSQL, title: str, options: argparse.Namespace) -> None:
    dsn = await filled(reactor, server, options.samples)
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=False, readers=4, writers=0)
    store.startService()
    await measuring.until_ready(reactor, store)
    measurement = Measurement(reactor, report, server, dsn, store, options)
    table = Table(title)
    with measuring.directory() as directory:
        await measurement.one_sample(table)
        with daemons(directory / "one", dsn, 1) as (one, [process]), daemons(directory / "two", dsn, 2) as (two, both):
            await until_listening(reactor, directory / "one", [process])
            await until_listening(reactor, directory / "two", both)
            await measurement.pages(table, one, two)
            await measurement.large(table, one)
            await measurement.export(table, one, process, directory)
    await store.stopService()
    report.table(table)


async def benchmark(reactor: Any, report: Report, options: argparse.Namespace) -> None:
    options.samples -= options.samples % (COPIES * BATCH_SAMPLES)
    report.line(f"samples: {options.samples}")
    for mode in measuring.modes(options):
        with measuring.postgresql_server(report, mode, options) as server:
            await measure(reactor, report, server, mode, options)


def main() -> None:
    parser = measuring.with_postgresql(measuring.parser(__doc__, runs=3), "durable")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="in the store, at least 10 000 (%(default)s)")
    parser.add_argument("--requests", type=int, default=400, help="that each client makes in a run (%(default)s)")
    measuring.run(benchmark, parser.parse_args())


if __name__ == "__main__":
    main()
