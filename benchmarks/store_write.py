"""How fast ``store.write`` is, beside bare inserts of the same narrow rows over the same kind of connection.

Both write batches of 1 000 samples as Nova instances give them (metadata that changes once a day) into a fresh database,
in turn. Prints samples per second, the ratio of the two, the processor time that Python took, and bytes per sample.

    .venv/bin/python -m benchmarks.store_write [DSN]

Without a DSN a private server is started from Debian's package. Seen on two quiet cores: 60 000 to 70 000 samples a second,
1.8 times the time of bare inserts (1.7 to 1.9 in five runs), 7 µs of Python and 226 bytes per sample, as their ids are
all in the order of time (docs/decisions/0005-store-layout.rst).
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from meter.daemon.services import sleep
from meter.message import MeteringMessage
from meter.message import read
from meter.message import sign
from meter.sample import Sample
from meter.signature import keyring
from meter.store import PostgresStore
from meter.store.postgres.connection import Connection
from meter.store.postgres.dsn import connection_parameters
from tests.servers.postgresql import PostgreSQL
from tests.servers.postgresql import installed

TURNS, BATCHES = 10, 8
"""So often each has its turn, and so many batches it writes then."""

BATCH = 1000
INSTANCES = 230
PROJECTS = 20
METERS = (("cpu", "cumulative", "ns"), ("memory.usage", "gauge", "MiB"), ("disk.read.bytes", "cumulative", "B"))
START = datetime.now(UTC) - timedelta(days=2)

# The rows of the store without what makes them a store: no dictionaries, two indexes, one table.
BARE_TABLE = """
CREATE TABLE IF NOT EXISTS bare (
    timestamp timestamptz NOT NULL, recorded_at timestamptz NOT NULL, message_id uuid NOT NULL, volume float8 NOT NULL,
    metadata_id integer NOT NULL, series_id integer NOT NULL, wire_format_id integer NOT NULL, signature bytea NOT NULL, rest text NOT NULL,
    UNIQUE (message_id)
);
CREATE INDEX IF NOT EXISTS bare_series ON bare (series_id, timestamp)
"""
BARE_INSERT = """
INSERT INTO bare SELECT t, now(), m, v, md, s, f, decode(g, 'hex'), ''
FROM unnest(%s::timestamptz[], %s::uuid[], %s::float8[], %s::integer[], %s::integer[], %s::integer[], %s::text[])
    AS _ (t, m, v, md, s, f, g)
ON CONFLICT DO NOTHING
"""


def messages() -> Iterator[MeteringMessage]:
    """Signed messages of one polling cycle after another, without end."""
    keys = keyring(["a secret of the benchmark"])
    instances = [str(uuid.UUID(int=random.getrandbits(128))) for _ in range(INSTANCES)]
    cycle = 0
    while True:
        at = START + timedelta(seconds=300 * cycle, microseconds=random.randrange(10**6))
        for number, instance in enumerate(instances):
            metadata = {
                "display_name": f"instance-{number}",
                "host": f"compute-{number % 10}",
                "flavor": {"id": "1", "name": "m1.tiny", "vcpus": 1, "ram": 512, "disk": 1, "ephemeral": 0, "swap": 0},
                "image": {"id": "6d1f", "links": [{"rel": "bookmark", "href": "http://nova/images/6d1f"}]},
                "status": "active",
                "day": str(at.date()),
            }
            for name, type_, unit in METERS:
                sample = Sample(
                    name=name,
                    type=type_,
                    unit=unit,
                    volume=cycle * 1000 + number if type_ == "cumulative" else random.random() * 512,
                    resource_id=instance,
                    project_id=f"project-{number % PROJECTS}",
                    user_id=f"user-{number % PROJECTS}",
                    timestamp=at,
                    resource_metadata=metadata,
                )
                yield read(sign(sample, keys, "openstack"), keys)
        cycle += 1


async def bare_seconds(connection: Connection, batches: list[list[MeteringMessage]]) -> float:
    """Return how long the bare inserts take."""
    await connection.count(BARE_TABLE)
    rows = [
        [
            "{" + ",".join(column) + "}"
            for column in zip(
                *(
                    (
                        message.timestamp.isoformat(),
                        message.message_id,
                        repr(float(message.volume)),
                        str(number % 500),
                        str(number % (INSTANCES * len(METERS))),
                        "1",
                        message.fields["message_signature"],
                    )
                    for number, message in enumerate(batch)
                ),
                strict=True,
            )
        ]
        for batch in batches
    ]
    begin = time.perf_counter()
    for columns in rows:
        await connection.count("BEGIN")
        await connection.count(BARE_INSERT, columns)
        await connection.count("COMMIT")
    return time.perf_counter() - begin


async def measure(reactor, dsn: str) -> None:
    source = messages()
    connection = Connection(
        reactor, reactor, connection_parameters(dsn, statement_timeout_seconds=60, application_name="benchmark")
    )
    await connection.open()
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=0, writers=1)
    store.startService()
    while not store.readiness().ready:
        await sleep(reactor, 0.01)

    # Makes partitions and fills the dictionaries, as a collector does once.
    assert (await store.write([next(source) for _ in range(BATCH)])).stored == BATCH
    bare = written = python = 0.0
    for _ in range(TURNS):
        batches = [[next(source) for _ in range(BATCH)] for _ in range(BATCHES)]
        bare += await bare_seconds(connection, batches)
        begin, cpu = time.perf_counter(), time.process_time()
        for batch in batches:
            assert (await store.write(batch)).stored == BATCH
        written, python = written + time.perf_counter() - begin, python + time.process_time() - cpu
    [[size]] = await connection.rows(
        "SELECT sum(pg_total_relation_size(oid)) FROM pg_class"
        " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'bare'"
    )
    [[bare_size]] = await connection.rows("SELECT pg_total_relation_size('bare')")
    total = TURNS * BATCHES * BATCH
    print(f"bare inserts   {total / bare:10.0f} samples/s   {bare_size / total:6.0f} bytes/sample")
    print(f"store.write    {total / written:10.0f} samples/s   {size / (total + BATCH):6.0f} bytes/sample")
    print(f"ratio          {written / bare:10.2f}")
    print(f"Python         {python / total * 1e6:10.1f} µs/sample")
    await store.stopService()
    connection.close()


def main(reactor, *arguments: str) -> Deferred[None]:
    if arguments:
        return Deferred.fromCoroutine(measure(reactor, arguments[0]))
    directory = tempfile.TemporaryDirectory(prefix="meter-benchmark-")
    server = PostgreSQL(installed(), Path(directory.name))
    server.start()

    def clean(result):
        server.kill()
        directory.cleanup()
        return result

    return Deferred.fromCoroutine(measure(reactor, server.dsn())).addBoth(clean)


if __name__ == "__main__":
    react(main, sys.argv[1:])
