"""How fast one collector takes samples from RabbitMQ into committed rows, beside bare inserts of the same narrow rows.

Nova-like samples of 960 bytes and more, signed, in casts of 100, wait in RabbitMQ; a real ``twistd meter-collector``
takes them, verifies each signature, and acknowledges after the commit. RabbitMQ, PostgreSQL and the collector share
the processors. Prints samples per second, the ratio to bare inserts in the same run, and the collector's memory.

    .venv/bin/python -m benchmarks.collector [THOUSANDS OF SAMPLES]
"""

from __future__ import annotations

import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import psycopg2
from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults
from twisted.internet.task import react

from benchmarks.store_write import BATCH
from benchmarks.store_write import bare_seconds
from benchmarks.store_write import messages
from meter.bus.amqp import AmqpBus
from meter.bus.batches import batch_publications
from meter.daemon.services import sleep
from meter.message import sign
from meter.sample import Sample
from meter.signature import keyring
from meter.store.postgres.connection import Connection
from meter.store.postgres.dsn import connection_parameters
from tests.servers.postgresql import PostgreSQL
from tests.servers.postgresql import installed as postgresql_installed
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.rabbitmq import installed as rabbitmq_installed
from tests.system.daemons import SECRET
from tests.system.daemons import House

THOUSANDS = 100
PADDING = {f"user_metadata.tag{number}": "x" * 40 for number in range(6)}
"""Makes a sample as large as one of Nova's."""


def signed(count: int):
    """Return ``count`` signed messages as Nova's instances give them, and as the store reads them."""
    keys = keyring([SECRET])
    read = list(islice(messages(), count))
    sent = [
        sign(
            Sample(
                name=each.name,
                type=each.type,
                unit=each.unit,
                volume=each.volume,
                resource_id=each.resource_id,
                project_id=each.project_id,
                user_id=each.user_id,
                timestamp=each.timestamp,
                resource_metadata={**each.metadata, **PADDING},
                message_id=each.message_id,
            ),
            keys,
            "openstack",
        )
        for each in read
    ]
    return read, sent


async def fill(reactor, url: str, sent) -> int:
    """Publish everything and return the bytes per sample."""
    bus = AmqpBus(reactor, url, clock=reactor)
    bus.startService()
    while not bus.readiness().ready:
        await sleep(reactor, 0.05)
    publications = batch_publications(sent)
    for first in range(0, len(publications), 200):
        await gatherResults([Deferred.fromCoroutine(bus.publish(each)) for each in publications[first : first + 200]])
    await bus.stopService()
    return sum(len(each.body) for each in publications) // len(sent)


def stored(dsn: str) -> int:
    with psycopg2.connect(dsn) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM sample")
        return cursor.fetchone()[0]


async def until_stored(reactor, collector, count: int) -> float:
    """Return when ``count`` samples had been committed."""
    while collector.metric('meter_collected_samples_total{outcome="stored"}') < count:
        await sleep(reactor, 0.25)  # asking costs the collector time too
    return time.perf_counter()


async def measure(reactor, count: int, broker: RabbitMQ, database: PostgreSQL, directory: Path) -> None:
    read, sent = signed(count)
    dsn, url = database.dsn(), broker.vhost()
    connection = Connection(
        reactor, reactor, connection_parameters(dsn, statement_timeout_seconds=60, application_name="benchmark")
    )
    await connection.open()
    bare = await bare_seconds(connection, [read[first : first + BATCH] for first in range(0, count, BATCH)])
    connection.close()

    house = House(directory, bus=url, store=dsn)
    try:
        collector = house.daemon("meter-collector").start().until_ready()
        collector.stop()  # its queue is there now, and fills
        size = await fill(reactor, url, sent)
        collector.start()
        first = await until_stored(reactor, collector, 1)
        begun = collector.metric('meter_collected_samples_total{outcome="stored"}')
        last = await until_stored(reactor, collector, count)
        memory = collector.metric("process_resident_memory_bytes") or _resident_bytes(collector.process.pid)
        assert stored(dsn) == count
    finally:
        house.close()
    speed = (count - begun) / (last - first)
    print(f"a sample on the wire      {size:8} bytes")
    print(f"bare inserts              {count / bare:8.0f} samples/s")
    print(f"collector, into the store {speed:8.0f} samples/s")
    print(f"ratio                     {speed * bare / count:8.2f}")
    print(f"collector's memory        {memory / 2**20:8.0f} MiB")


def _resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def main(reactor, *arguments: str) -> Deferred[None]:
    count = 1000 * int(arguments[0] if arguments else THOUSANDS)
    directory = tempfile.TemporaryDirectory(prefix="meter-benchmark-")
    path = Path(directory.name)
    for name in ("broker", "database", "daemons"):
        (path / name).mkdir()
    path.chmod(0o755)
    database, broker = (
        PostgreSQL(postgresql_installed(), path / "database"),
        RabbitMQ(rabbitmq_installed(), path / "broker"),
    )
    database.start()
    broker.start()

    def clean(result):
        broker.close()
        database.kill()
        directory.cleanup()
        return result

    return Deferred.fromCoroutine(measure(reactor, count, broker, database, path / "daemons")).addBoth(clean)


if __name__ == "__main__":
    react(main, sys.argv[1:])
