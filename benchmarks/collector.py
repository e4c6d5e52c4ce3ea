"""How fast one collector takes samples from RabbitMQ into committed rows, beside bare inserts of the same narrow rows.

Samples of instances of Nova of about 1.2 kB, each with Ceilometer's signature, wait in RabbitMQ in signed batches of 100.
A real ``twistd meter-collector`` takes them, verifies each batch, commits, and acknowledges. RabbitMQ, PostgreSQL and
the collector share the processors. Printed are samples per second, the collector's own processor time per sample beside
that of the least that has to be done (the JSON of the envelope and of the message in it, one HMAC), and its memory.

The speed is that between the first transaction of a run and its last, by ``recorded_at`` of its rows. The ids of all
rows are compared with those that were published; nothing may be a duplicate, refused or a dead letter.
"""

from __future__ import annotations

import argparse
import hmac
import itertools
import json
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults

from benchmarks import measuring
from benchmarks.measuring import Report
from benchmarks.measuring import Table
from benchmarks.workload import BATCH_SAMPLES
from benchmarks.workload import METERS
from benchmarks.workload import PADDING
from benchmarks.workload import bare_inserts
from benchmarks.workload import outgoing_messages
from benchmarks.workload import received
from meter.bus.amqp import AmqpBus
from meter.bus.batches import batch_publications
from meter.interfaces import Publication
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey
from tests.system.daemons import SECRET
from tests.system.daemons import Daemon
from tests.system.daemons import House
from tests.system.daemons import fetch

SAMPLES, INSTANCES = 60_000, 5_000
PUBLISHED_AT_ONCE = 200
LOOK_SECONDS = 0.25
"""How often the collector is asked how far it is, which takes it some processor time as well."""

TAKEN = "meter_collected_samples_total"

SPEED = """
SELECT (count(*) - count(*) FILTER (WHERE recorded_at = last)) / nullif(extract(epoch FROM max(last) - min(recorded_at)), 0)
FROM (SELECT recorded_at, max(recorded_at) OVER () AS last FROM sample WHERE message_id = ANY(%s::uuid[])) AS _
"""


def reading_seconds(publications: Sequence[Publication]) -> float:
    """Return the processor time per sample of the least that a collector has to do with a message."""
    samples = 0
    begin = time.process_time()
    for each in publications:
        batch = json.loads(json.loads(each.body)["oslo.message"])["args"]["data"]
        samples += len(batch)
        hmac.digest(b"key", each.body, "sha256")
    return (time.process_time() - begin) / samples


async def publish(reactor: Any, url: str, publications: Sequence[Publication]) -> None:
    """Publish everything; returns when RabbitMQ has confirmed it."""
    bus = AmqpBus(reactor, url, clock=reactor)
    bus.startService()
    await measuring.until_ready(reactor, bus)
    for first in range(0, len(publications), PUBLISHED_AT_ONCE):
        batch = publications[first : first + PUBLISHED_AT_ONCE]
        await gatherResults([Deferred.fromCoroutine(bus.publish(each)) for each in batch])
    await bus.stopService()


def counted(collector: Daemon, metric: str) -> float:
    """Return the sum of a metric of the collector over all its labels; 0 while it does not answer."""
    _, body = fetch(f"http://127.0.0.1:{collector.status_port}/metrics")
    lines = body.decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == metric)


async def measure(
    reactor: Any, report: Report, title: str, url: str, dsn: str, directory: Path, options: argparse.Namespace
) -> None:
    keys = Keyring([SigningKey("default", SECRET.encode())])
    source = outgoing_messages(keys, PADDING, options.instances)
    table = Table(title)
    sent: list[str] = []
    house = House(directory, bus=url, store=dsn)
    collector = house.daemon("meter-collector")
    try:
        collector.start().until_ready()
        pid = collector.process.pid
        empty = measuring.memory_megabytes(pid)
        async with bare_inserts(reactor, dsn) as bare:
            for run in range(options.runs + 1):
                # The first run makes partitions and fills the dimension tables; it is not measured.
                batch = list(itertools.islice(source, options.samples if run else options.instances * len(METERS)))
                ids = [each.fields["message_id"] for each in batch]
                publications = batch_publications(batch)
                messages = list(received(publications, keys))
                split = [messages[first : first + BATCH_SAMPLES] for first in range(0, len(messages), BATCH_SAMPLES)]
                bare_speed = len(batch) / await bare.seconds(split)
                del batch, messages, split
                least = reading_seconds(publications)
                sent += ids

                collector.send(signal.SIGSTOP)  # until its queue is full: it remembers what it knows of the store
                try:
                    await publish(reactor, url, publications)
                    processor = measuring.processor_seconds(pid)
                finally:
                    collector.send(signal.SIGCONT)
                await measuring.until_counted(
                    reactor,
                    lambda: counted(collector, TAKEN),
                    len(sent),
                    every=LOOK_SECONDS,
                    stalled_seconds=options.stalled_seconds,
                )
                processor = measuring.processor_seconds(pid) - processor
                if not run:
                    continue

                [(speed,)] = measuring.rows(dsn, SPEED, [ids])
                table.add("bare inserts", bare_speed, "samples/s")
                table.add("collector", float(speed) if speed else None, "samples/s", "bare inserts")
                table.add("reading a sample", least * 1e6, "µs of a core")
                table.add("collector's processor time", processor / len(ids) * 1e6, "µs of a core", "reading a sample")
        table.add("memory without work", empty, "MiB")
        table.add("memory at its largest", measuring.memory_megabytes(pid), "MiB", "memory without work")
        unstored = counted(collector, TAKEN) - collector.metric(f'{TAKEN}{{outcome="stored"}}')
        dead = counted(collector, "meter_dead_letters_total")
    finally:
        house.close()
    size = sum(len(each.body) for each in publications) / len(ids)
    report.line(f"a sample on the bus: {measuring.number(size)} bytes")
    report.table(table)
    report.compare_ids("samples in the store", sent, measuring.stored_ids(dsn))
    report.compare("samples that the collector counted as duplicate, conflict or refused", 0, unstored)
    report.compare("dead letters", 0, dead)


async def benchmark(reactor: Any, report: Report, options: argparse.Namespace) -> None:
    report.line(f"samples in a run: {options.samples}, of {options.instances} instances with {len(METERS)} meters each")
    with measuring.rabbitmq_server(report) as broker:
        for mode in measuring.modes(options):
            with measuring.postgresql_server(report, mode, options) as database, measuring.directory() as directory:
                await measure(reactor, report, mode, broker.vhost(), database.dsn(), directory, options)


def main() -> None:
    parser = measuring.with_stall(measuring.with_postgresql(measuring.parser(__doc__), "both"))
    parser.add_argument("--instances", type=int, default=INSTANCES, help="that have samples (%(default)s)")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="of a run (%(default)s)")
    measuring.run(benchmark, parser.parse_args())


if __name__ == "__main__":
    main()
