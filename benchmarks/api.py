"""What HTTP adds to the store's own time, and how fast pages, large answers and exports are, from one process and two.

The store is a PostgreSQL with a million samples (a tenth of them written, the others copied in SQL to earlier times).
What HTTP adds is measured in this process, all else on daemons, ``twistd meter-api``, that share a socket as under
systemd. Clients are processes of their own; server, PostgreSQL and clients share the machine. An export is compared with
``psql`` copying the same columns out of the same tables to CSV.

    .venv/bin/python -m benchmarks.api [SAMPLES]

Seen on a machine with two cores: see docs/api.rst, "How fast".
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults
from twisted.internet.task import react
from twisted.internet.utils import getProcessOutputAndValue

from benchmarks.store_write import messages
from meter.api import Api
from meter.api import make_site
from meter.daemon.services import sleep
from meter.query import SampleFilter
from meter.store import PostgresStore
from tests.servers.postgresql import PostgreSQL
from tests.servers.postgresql import installed

BATCH = 1000
COPIES = 10
TOKEN = "the benchmark's"
CLIENTS = 4

# Asks in a loop after a line from its parent, and prints how long each answer took and how many braces there were.
CLIENT = """
import socket, sys, time
port, token, path, accept, count = int(sys.argv[1]), *sys.argv[2:5], int(sys.argv[5])
connection = socket.create_connection(("127.0.0.1", port))
request = f"GET {path} HTTP/1.1\\r\\nHost: x\\r\\nX-Auth-Token: {token}\\r\\nAccept: {accept}\\r\\n\\r\\n".encode()
braces = 0
for _ in range(count):
    begin = time.perf_counter()
    connection.sendall(request)
    data = b""
    while b"\\r\\n\\r\\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\\r\\n\\r\\n")
    assert b" 200 " in head, head
    lengths = [line for line in head.lower().split(b"\\r\\n") if line.startswith(b"content-length")]
    if lengths:
        left = int(lengths[0].split(b":")[1]) - len(body)
        while left > 0:
            left -= len(connection.recv(min(left, 1 << 20)))
    else:
        tail = b""
        while True:
            braces += body.count(b"{")
            tail = (tail + body)[-7:]
            if tail == b"\\r\\n0\\r\\n\\r\\n":
                break
            body = connection.recv(1 << 20)
    print(time.perf_counter() - begin, braces)
"""

COPY = r"""\copy (SELECT s.message_id, m.name, m.type, m.unit, s.volume, r.name, p.name, u.name, o.name, s.timestamp,
 s.recorded_at, d.text, encode(s.signature, 'hex') FROM sample s JOIN series x ON x.id = s.series_id
 JOIN meter m ON m.id = x.meter_id JOIN resource r ON r.id = x.resource_id LEFT JOIN "user" u ON u.id = x.user_id
 LEFT JOIN project p ON p.id = x.project_id LEFT JOIN source o ON o.id = x.source_id
 JOIN metadata d ON d.id = s.metadata_id ORDER BY s.timestamp DESC, s.message_id DESC) TO '/dev/null' CSV"""

EARLIER = """
INSERT INTO sample SELECT s.timestamp - n * (SELECT max(timestamp) - min(timestamp) + interval '1 s' FROM sample),
    s.recorded_at, gen_random_uuid(), s.volume, s.metadata_id, s.series_id, s.wire_format_id, s.signature, s.rest
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
    assert code == 0, errors.decode()
    return [(float(seconds), int(braces)) for seconds, braces in map(str.split, output.decode().splitlines())]


async def filled(reactor, server: PostgreSQL, samples: int) -> str:
    """Return the DSN of a store that holds ``samples``."""
    dsn = server.dsn()
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=1, writers=1)
    store.startService()
    while not store.readiness().ready:
        await sleep(reactor, 0.01)
    source = messages()
    for _ in range(samples // COPIES // BATCH):
        await store.write([next(source) for _ in range(BATCH)])
    await store.stopService()
    server.execute(EARLIER.format(copies=COPIES - 1), dsn)
    server.execute("VACUUM ANALYZE", dsn)
    return dsn


async def what_http_adds(reactor, dsn: str, count: int = 500) -> None:
    """Print the processor time of one sample, from the store and over HTTP."""
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=False, readers=4, writers=0)
    store.startService()
    while not store.readiness().ready:
        await sleep(reactor, 0.01)
    port = reactor.listenTCP(0, make_site(Api(store, reactor), reactor), interface="127.0.0.1")
    [one] = await store.samples(SampleFilter(), 1)
    filter = SampleFilter(equals={"message_id": one.message_id})
    begin = time.process_time()
    for _ in range(count):
        await store.samples(filter, 1)
    alone = (time.process_time() - begin) / count
    begin = time.process_time()
    await answers(port.getHost().port, f"/v2/samples/{one.message_id}", count)
    served = (time.process_time() - begin) / count
    print(
        f"one sample           store {alone * 1e3:.2f} ms of CPU   over HTTP {served * 1e3:.2f} ms   HTTP adds {(served - alone) * 1e3:.2f} ms"
    )
    await port.stopListening()
    await store.stopService()


@contextmanager
def daemons(directory: Path, dsn: str, count: int) -> Iterator[tuple[int, list[subprocess.Popen[bytes]]]]:
    """Run ``count`` daemons that share a socket; yield its port and them."""
    configuration = directory / "meter.toml"
    sha256 = hashlib.sha256(TOKEN.encode()).hexdigest()
    configuration.write_text(CONFIGURATION.format(directory=directory, dsn=dsn, sha256=sha256))
    twistd = Path(sys.executable).with_name("twistd")
    daemon = [str(twistd), "-n", "--pidfile=", "meter-api", "--config", str(configuration)]
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        command = [sys.executable, "-c", AS_SYSTEMD, str(listener.fileno()), *daemon]
        processes = []
        for number in range(count):
            with (directory / f"log-{number}").open("wb") as log:
                processes.append(subprocess.Popen(command, pass_fds=[listener.fileno()], stdout=log, stderr=log))
        try:
            yield listener.getsockname()[1], processes
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()


def peak_megabytes(process: subprocess.Popen[bytes]) -> float:
    """Return how much memory ``process`` had at its largest."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


async def several(port: int, path: str, count: int, clients: int) -> float:
    """Return how many answers a second ``clients`` get together, each asking ``count`` times."""
    outcomes = await gatherResults(
        [Deferred.fromCoroutine(answers(port, path, count)) for _ in range(clients)], consumeErrors=True
    )
    # Clients start one after another: the rate of each while it asks, added up.
    return sum(count / sum(seconds for seconds, _ in each) for each in outcomes)


async def measure(reactor, server: PostgreSQL, directory: Path, samples: int) -> None:
    dsn = await filled(reactor, server, samples)
    await what_http_adds(reactor, dsn)
    for count in (1, 2):
        with daemons(directory, dsn, count) as (port, processes):
            while any(b"api listens on" not in (directory / f"log-{n}").read_bytes() for n in range(count)):
                await sleep(reactor, 0.05)
            await several(port, "/v2/samples?limit=100", 20, CLIENTS)
            rate = await several(port, "/v2/samples?limit=100", 400, CLIENTS)
            print(f"pages of 100         {rate:8.0f} requests/s, {CLIENTS} clients, processes: {count}")
            if count > 1:
                break
            seconds = median([seconds for seconds, _ in await answers(port, "/v2/samples?limit=10000", 10)])
            print(f"JSON of 10000        {10_000 / seconds:8.0f} samples/s")
            before = peak_megabytes(processes[0])
            [(seconds, braces)] = await answers(port, "/v2/samples", 1, "text/csv")
            assert braces == 2 * samples, braces  # both of metadata
            after = peak_megabytes(processes[0])
    begin = time.perf_counter()
    subprocess.run(  # noqa: ASYNC221 - nothing else is to run meanwhile
        [installed() / "psql", dsn, "-qc", " ".join(COPY.split())], check=True
    )
    copied = time.perf_counter() - begin
    print(
        f"export of {samples}    {samples / seconds:8.0f} samples/s   psql {samples / copied:8.0f}   ratio {copied / seconds:.2f}   memory {after:.0f} MB at most, {before:.0f} before"
    )


def main(reactor, samples: str = "1000000") -> Deferred[None]:
    directory = tempfile.TemporaryDirectory(prefix="meter-benchmark-")
    (Path(directory.name) / "server").mkdir()
    os.chmod(directory.name, 0o755)
    server = PostgreSQL(installed(), Path(directory.name) / "server")
    server.start()

    def clean(result):
        server.kill()
        directory.cleanup()
        return result

    return Deferred.fromCoroutine(measure(reactor, server, Path(directory.name), int(samples))).addBoth(clean)


if __name__ == "__main__":
    react(main, sys.argv[1:])
