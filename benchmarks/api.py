"""What HTTP adds to the store's own time, how many pages a second one process gives, and how fast an export is.

The server is this process, over a PostgreSQL with some 100 000 samples; clients are processes of their own. An export is
compared with ``psql`` copying the same columns out of the same tables to CSV.

    .venv/bin/python -m benchmarks.api [SAMPLES]

Seen on a 2-core machine that had other work too (three runs): see docs/api.rst, "How fast".
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.internet.utils import getProcessOutputAndValue

from benchmarks.store_write import messages
from meter.api import Api
from meter.api import site
from meter.query import SampleFilter
from meter.services import sleep
from meter.store import PostgresStore
from tests.servers.postgresql import PostgreSQL
from tests.servers.postgresql import installed

BATCH = 1000

CLIENT = """
import socket, sys
host, port, path, accept, count = "127.0.0.1", int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
connection = socket.create_connection((host, port))
total = 0
for _ in range(count):
    connection.sendall(f"GET {path} HTTP/1.1\\r\\nHost: x\\r\\nAccept: {accept}\\r\\n\\r\\n".encode())
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
        more = body
        while True:
            total += more.count(b"{")
            tail = (tail + more)[-7:]
            if tail == b"\\r\\n0\\r\\n\\r\\n":
                break
            more = connection.recv(1 << 20)
print(total)
"""

COPY = r"""\copy (SELECT s.message_id, m.name, m.type, m.unit, s.volume, r.name, p.name, u.name, o.name, s.timestamp,
 s.recorded_at, d.text, encode(s.signature, 'hex') FROM sample s JOIN series x ON x.id = s.series_id
 JOIN meter m ON m.id = x.meter_id JOIN resource r ON r.id = x.resource_id LEFT JOIN "user" u ON u.id = x.user_id
 LEFT JOIN project p ON p.id = x.project_id LEFT JOIN source o ON o.id = x.source_id
 JOIN metadata d ON d.id = s.metadata_id ORDER BY s.timestamp DESC, s.message_id DESC) TO '/dev/null' CSV"""


async def clients(
    port: int, path: str, count: int, accept: str = "*/*", several: int = 1, braces: int | None = None
) -> float:
    """Return how many seconds ``several`` clients take that ask ``count`` times each; ``braces`` must come."""
    arguments = ["-c", CLIENT, str(port), path, accept, str(count)]
    begin = time.perf_counter()
    runs = [getProcessOutputAndValue(sys.executable, arguments, os.environ) for _ in range(several)]
    for run in runs:
        output, errors, code = await run
        assert code == 0, errors.decode()
        assert braces is None or int(output) == braces, (output, braces)
    return time.perf_counter() - begin


async def measure(reactor, server: PostgreSQL, samples: int) -> None:
    dsn = server.dsn()
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=4, writers=1)
    store.startService()
    while not store.readiness().ready:
        await sleep(reactor, 0.01)
    source = messages()
    for _ in range(samples // BATCH):
        await store.write([next(source) for _ in range(BATCH)])
    server.execute("ANALYZE", dsn)
    port = reactor.listenTCP(0, site(Api(store, reactor), reactor), interface="127.0.0.1")
    number = port.getHost().port
    [one] = await store.samples(SampleFilter(), 1)

    count = 500
    filter = SampleFilter(equals={"message_id": one.message_id})
    begin = time.process_time()
    for _ in range(count):
        await store.samples(filter, 1)
    alone = (time.process_time() - begin) / count
    begin = time.process_time()
    await clients(number, f"/v2/samples/{one.message_id}", count)
    served = (time.process_time() - begin) / count
    print(
        f"one sample           store {alone * 1e3:6.2f} ms of CPU   over HTTP {served * 1e3:6.2f} ms   HTTP adds {(served - alone) * 1e3:.2f} ms"
    )

    seconds = await clients(number, "/v2/samples?limit=100", 150, several=4)
    print(f"pages of 100         {600 / seconds:8.0f} requests/s")

    begin = time.perf_counter()
    rows = await store.samples(SampleFilter(), 10_000)
    asked = time.perf_counter() - begin
    seconds = await clients(number, "/v2/samples?limit=10000", 3) / 3
    print(
        f"JSON of {len(rows)}        {len(rows) / seconds:8.0f} samples/s over HTTP; the store alone {len(rows) / asked:8.0f}"
    )

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = await clients(number, "/v2/samples", 1, accept="text/csv", braces=2 * samples)  # both of metadata
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    begin = time.perf_counter()
    subprocess.run(  # noqa: ASYNC221 - nothing else is to run meanwhile
        [installed() / "psql", dsn, "-qc", " ".join(COPY.split())], check=True
    )
    copied = time.perf_counter() - begin
    print(
        f"export of {samples}     {samples / seconds:8.0f} samples/s   psql {samples / copied:8.0f}   ratio {copied / seconds:.2f}   memory +{grown:.0f} MB of {before / 1024:.0f}"
    )
    await port.stopListening()
    await store.stopService()


def main(reactor, samples: str = "100000") -> Deferred[None]:
    directory = tempfile.TemporaryDirectory(prefix="meter-benchmark-")
    server = PostgreSQL(installed(), Path(directory.name))
    server.start()

    def clean(result):
        server.kill()
        directory.cleanup()
        return result

    return Deferred.fromCoroutine(measure(reactor, server, int(samples))).addBoth(clean)


if __name__ == "__main__":
    react(main, sys.argv[1:])
