"""What daemons cost while nothing happens, how soon they measure, and what their metrics cost.

*Idle*: each daemon is started with RabbitMQ and PostgreSQL of its own, and left alone; after ``--settle-seconds`` its processor
time is taken for ``--idle-seconds``, and its memory. The agents poll libvirt's test driver, or no cloud, once at the start.
*Start*: ``twistd meter`` with the embedded PostgreSQL and the test driver, from the start of the process until the API
answers with a sample; first in an empty directory, where a database is made, then again in the same one.
*Metrics*: collectors store the same samples with their metrics, and with all counters and histograms of prometheus-client doing
nothing; the processor time of the collector is compared, turn by turn.

The ids of the samples that were sent are compared with those stored, and each start with a sample that its API answers.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

from benchmarks import measuring
from benchmarks.collector import publish
from benchmarks.measuring import Report
from benchmarks.measuring import Table
from benchmarks.measuring import memory_megabytes
from benchmarks.measuring import processor_seconds
from benchmarks.workload import PADDING
from benchmarks.workload import outgoing_messages
from meter.bus.batches import batch_publications
from meter.daemon.services import sleep
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey
from tests.system.daemons import SECRET
from tests.system.daemons import Daemon
from tests.system.daemons import House
from tests.system.daemons import fetch

IDLE = {
    "meter-collector": "",
    "meter-api": "",
    "meter-compute": '[compute]\nlibvirt_uri = "test:///default"\n',
    "meter-central": "",
}
"""The daemons in the order of their start, with their configuration: nobody takes an agent's samples before a collector is there."""

WITHOUT_METRICS = """
import prometheus_client
for each, method in (("Counter", "inc"), ("Histogram", "observe"), ("Gauge", "set"), ("Summary", "observe")):
    setattr(getattr(prometheus_client, each), method, lambda *_, **__: None)
"""
"""A ``sitecustomize`` module, which Python imports at its start."""

EMBEDDED = """
[meter]
state_dir = "{directory}/state"
[bus]
url = "local:"
[store]
dsn = "embedded:{directory}/postgresql"
[signing]
key = "for this benchmark"
[compute]
libvirt_uri = "test:///default"
[status]
listen = "tcp:{status_port}:interface=127.0.0.1"
[api]
listen = "tcp:{api_port}:interface=127.0.0.1"
"""

LOOK_SECONDS = 0.02


async def measure_idle(reactor: Any, report: Report, house: House, options: argparse.Namespace) -> None:
    """Measure what each daemon uses while nothing happens."""
    table = Table("idle")
    polling = "[polling]\ninterval_seconds = 3600\n"
    daemons = [house.daemon(name, polling + config).start().until_ready() for name, config in IDLE.items()]
    await sleep(reactor, options.settle_seconds)
    pids = {each.name: each.process.pid for each in daemons if each.process is not None}
    for _ in range(options.runs):
        before = {name: processor_seconds(pid) for name, pid in pids.items()}
        began = time.monotonic()
        await sleep(reactor, options.idle_seconds)
        seconds = time.monotonic() - began
        for name, pid in pids.items():
            table.add(f"{name}: processor", (processor_seconds(pid) - before[name]) / seconds * 100, "% of a core")
            table.add(f"{name}: memory", memory_megabytes(pid, "VmRSS"), "MiB")
    report.table(table)
    for each in daemons:
        report.compare(f"{each.name} is ready in the end", 200, each.readiness()["status"])
        each.stop()


async def measure_start(reactor: Any, report: Report, directory: Path, options: argparse.Namespace) -> None:
    """Measure how long it takes until the first sample."""
    table = Table("from the start of the process to the first sample")
    for run in range(options.runs):
        house = House(directory / str(run))
        house.directory.mkdir()
        daemon = house.daemon("meter", base=EMBEDDED)
        newest = ""
        try:
            for name in ("an empty directory", "an existing database"):
                began = time.monotonic()
                daemon.start()
                before = newest
                while (newest := newest_sample(daemon)) in ("", before):
                    if time.monotonic() - began > options.stalled_seconds:
                        break
                    await sleep(reactor, LOOK_SECONDS)
                table.add(name, time.monotonic() - began, "s")
                report.compare(f"a new sample after the start with {name}", True, newest not in ("", before))
                daemon.stop()
        finally:
            house.close()
    report.table(table)


def newest_sample(daemon: Daemon) -> str:
    """Return the id of the newest sample; empty while the API has none or does not answer."""
    status, body = fetch(f"{daemon.api}/v2/samples?limit=1")
    samples = json.loads(body) if status == 200 else []
    return samples[0]["id"] if samples else ""


async def measure_metrics(
    reactor: Any, report: Report, broker: Any, database: Any, directory: Path, options: argparse.Namespace
) -> None:
    """Measure what metrics cost a collector."""
    (directory / "sitecustomize.py").write_text(WITHOUT_METRICS)
    keys = Keyring([SigningKey("default", SECRET.encode())])
    source = outgoing_messages(keys, PADDING, options.instances)
    table = Table("collector, a sample")
    names = ("without metrics", "with metrics")
    for run in range(options.runs + 1):  # the first is not measured: it makes partitions and fills caches
        for name in names:
            url, dsn = broker.vhost(), database.dsn()
            house = House(directory / f"{name}-{run}", bus=url, store=dsn)
            house.directory.mkdir()
            collector = house.daemon("meter-collector")
            if name == "without metrics":
                collector.extra_environment["PYTHONPATH"] = str(directory)
            try:
                collector.start().until_ready()
                process = collector.process
                assert process is not None
                messages = list(itertools.islice(source, options.samples))
                ids = [each.fields["message_id"] for each in messages]
                before = processor_seconds(process.pid)
                await publish(reactor, url, batch_publications(messages))
                await measuring.until_counted(
                    reactor,
                    lambda dsn=dsn: measuring.rows(dsn, "SELECT count(*) FROM sample")[0][0],
                    len(ids),
                    every=0.5,
                    stalled_seconds=options.stalled_seconds,
                )
                used = processor_seconds(process.pid) - before
                if run:
                    baseline = names[0] if name == names[1] else None
                    table.add(name, used / len(ids) * 1e6, "µs of a core", baseline)
                report.compare_ids(f"samples stored {name}", ids, measuring.stored_ids(dsn))
                counted = collector.metric('meter_collected_samples_total{outcome="stored"}')
                report.compare(f"samples counted {name}", 0 if name == names[0] else len(ids), counted)
            finally:
                house.close()
    report.table(table)


async def benchmark(reactor: Any, report: Report, options: argparse.Namespace) -> None:
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed has its bytecode
    with measuring.directory() as directory:
        await measure_start(reactor, report, directory, options)
    with (
        measuring.rabbitmq_server(report) as broker,
        measuring.postgresql_server(report, options.mode, options) as database,
        measuring.directory() as directory,
    ):
        house = House(directory, bus=broker.vhost(), store=database.dsn())
        try:
            await measure_idle(reactor, report, house, options)
        finally:
            house.close()
        with measuring.directory() as directory:
            await measure_metrics(reactor, report, broker, database, directory, options)


def main() -> None:
    parser = measuring.with_stall(measuring.with_postgresql(measuring.parser(__doc__, runs=3), "not-durable"))
    parser.add_argument("--settle-seconds", type=float, default=20.0, help="between start and idleness (%(default)s)")
    parser.add_argument("--idle-seconds", type=float, default=30.0, help="of a run (%(default)s)")
    parser.add_argument("--instances", type=int, default=1000, help="that have samples (%(default)s)")
    parser.add_argument("--samples", type=int, default=30_000, help="of a run (%(default)s)")
    measuring.run(benchmark, parser.parse_args())


if __name__ == "__main__":
    main()
