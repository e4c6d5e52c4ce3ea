"""The samples that several benchmarks write, and the bare inserts of the same rows that they are compared with."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import asynccontextmanager
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from itertools import islice
from typing import Any

from meter.bus.batches import batch_publications
from meter.interfaces import Publication
from meter.message import MeteringMessage
from meter.message import read_cast
from meter.outgoing import OutgoingMessage
from meter.outgoing import Signer
from meter.sample import Sample
from meter.signing_keys import Keyring
from meter.signing_keys import keyring
from meter.store.postgres.connection import Connection
from meter.store.postgres.dsn import connection_parameters

BATCH_SAMPLES = 1000
"""Samples of one transaction."""

INSTANCES = 230
PROJECTS = 20
METERS = (("cpu", "cumulative", "ns"), ("memory.usage", "gauge", "MiB"), ("disk.read.bytes", "cumulative", "B"))
KEYS = keyring(["a secret of the benchmark"])

PADDING = {f"user_metadata.tag{tag}": "x" * 40 for tag in range(6)}
"""Makes a sample as large as one that Ceilometer's agents send of an instance of Nova: 1.2 kB."""

# The narrow rows of the store in one table with two indexes, without dimension tables, partitions or rollups.
_TABLE = """
CREATE TABLE IF NOT EXISTS bare (
    timestamp timestamptz NOT NULL, recorded_at timestamptz NOT NULL, message_id uuid NOT NULL, volume float8 NOT NULL,
    metadata_id integer NOT NULL, series_id integer NOT NULL, wire_format_id integer NOT NULL, signature bytea NOT NULL, verbatim_json text NOT NULL,
    UNIQUE (message_id)
);
CREATE INDEX IF NOT EXISTS bare_series ON bare (series_id, timestamp)
"""
_INSERT = """
INSERT INTO bare SELECT t, now(), m, v, md, s, f, decode(g, 'hex'), ''
FROM unnest(%s::timestamptz[], %s::uuid[], %s::float8[], %s::integer[], %s::integer[], %s::integer[], %s::text[])
    AS _ (t, m, v, md, s, f, g)
ON CONFLICT DO NOTHING
"""


def outgoing_messages(
    keys: Keyring = KEYS, padding: Mapping[str, str] | None = None, instances: int = INSTANCES
) -> Iterator[OutgoingMessage]:
    """Yield messages of one polling cycle of all ``instances`` after another, without end, from two days ago on."""
    start = datetime.now(UTC) - timedelta(days=2)
    uuids = [str(uuid.UUID(int=random.getrandbits(128))) for _ in range(instances)]
    cycle = 0
    while True:
        at = start + timedelta(seconds=300 * cycle, microseconds=random.randrange(10**6))
        signer = Signer(keys, "openstack")
        for number, instance in enumerate(uuids):
            metadata = {
                "display_name": f"instance-{number}",
                "host": f"compute-{number % 10}",
                "flavor": {"id": "1", "name": "m1.tiny", "vcpus": 1, "ram": 512, "disk": 1, "ephemeral": 0, "swap": 0},
                "image": {"id": "6d1f", "links": [{"rel": "bookmark", "href": "http://nova/images/6d1f"}]},
                "status": "active",
                "day": str(at.date()),
                **(padding or {}),
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
                yield signer.message(sample)
        cycle += 1


def messages() -> Iterator[MeteringMessage]:
    """Yield the same samples as the store takes them: read from the bus, their signatures verified."""
    source = outgoing_messages()
    while True:
        yield from received(batch_publications(islice(source, BATCH_SAMPLES)), KEYS)


def received(publications: Iterable[Publication], keys: Keyring) -> Iterator[MeteringMessage]:
    """Yield the messages of ``publications`` as a collector reads them, their signatures verified."""
    for publication in publications:
        yield from read_cast(publication.body, keys)


class BareInserts:
    """Inserts rows of the same widths as the store's, one transaction for each batch, and nothing else."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.inserted = 0

    async def seconds(self, batches: Sequence[Sequence[MeteringMessage]]) -> float:
        """Insert ``batches`` and return how long it took; their arrays are made before."""
        prepared = [_columns(batch) for batch in batches]
        begin = time.perf_counter()
        for columns in prepared:
            await self._connection.count("BEGIN")
            self.inserted += await self._connection.count(_INSERT, columns)
            await self._connection.count("COMMIT")
        return time.perf_counter() - begin

    async def rows(self) -> int:
        """Return how many rows there are."""
        [[count]] = await self._connection.rows("SELECT count(*) FROM bare")
        return count

    async def bytes(self) -> int:
        """Return how large the table is with its indexes."""
        [[size]] = await self._connection.rows("SELECT pg_total_relation_size('bare')")
        return size


@asynccontextmanager
async def bare_inserts(reactor: Any, dsn: str):
    """Make the table and the connection of bare inserts, of the kind that the store has."""
    connection = Connection(
        reactor, reactor, connection_parameters(dsn, statement_timeout_seconds=60, application_name="benchmark")
    )
    await connection.open()
    try:
        await connection.count(_TABLE)
        yield BareInserts(connection)
    finally:
        connection.close()


def _columns(batch: Sequence[MeteringMessage]) -> list[str]:
    """Return the arrays of a batch, in PostgreSQL's notation."""
    values = (
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
    )
    return ["{" + ",".join(column) + "}" for column in zip(*values, strict=True)]
