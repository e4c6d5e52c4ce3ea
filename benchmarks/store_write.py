"""How fast ``store.write`` is, beside bare inserts of the same narrow rows over the same kind of connection.

Both write batches of 1 000 samples of instances of Nova (metadata that change once a day) into a fresh database, in turn.
Printed are samples per second, the processor time that Python takes for each, beside that of reading its JSON once, and
bytes per sample. Neither a bus nor verifying signatures is in it: benchmarks.collector has both.

All rows, and their ids, are compared with what was written.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from typing import Any

from benchmarks import measuring
from benchmarks.measuring import Report
from benchmarks.measuring import Table
from benchmarks.workload import BATCH_SAMPLES
from benchmarks.workload import bare_inserts
from benchmarks.workload import messages
from meter.store import PostgresStore

BATCHES = 15
"""Transactions of a run, of each of both."""


async def measure(reactor: Any, report: Report, dsn: str, title: str, options: argparse.Namespace) -> None:
    source = messages()
    table = Table(title)
    sent: list[str] = []
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=0, writers=1)
    store.startService()
    await measuring.until_ready(reactor, store)

    async def write(batches: list[list[Any]]) -> None:
        for batch in batches:
            stored.append((await store.write(batch)).stored)

    stored: list[int] = []
    async with bare_inserts(reactor, dsn) as bare:
        for run in range(options.runs + 1):
            batches = [list(itertools.islice(source, BATCH_SAMPLES)) for _ in range(options.batches if run else 1)]
            samples = sum(map(len, batches))
            sent += (message.message_id for batch in batches for message in batch)
            texts = [json.dumps(message.fields) for message in batches[0]]
            begin = time.process_time()
            for text in texts:
                json.loads(text)
            reading = (time.process_time() - begin) / len(texts)
            bare_seconds = await bare.seconds(batches)
            took = await measuring.timed(write(batches))
            if not run:  # makes partitions and fills the dimension tables, as a collector does once
                continue
            table.add("bare inserts", samples / bare_seconds, "samples/s")
            table.add("store.write", samples / took.wall, "samples/s", "bare inserts")
            table.add("reading a sample's JSON", reading * 1e6, "µs of a core")
            table.add(
                "Python in store.write", took.processor / samples * 1e6, "µs of a core", "reading a sample's JSON"
            )
        report.compare("rows of bare inserts", len(sent), await bare.rows())
        bare_bytes = await bare.bytes() / len(sent)
    [(size,)] = measuring.rows(
        dsn,
        "SELECT sum(pg_total_relation_size(oid)) FROM pg_class"
        " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'bare'",
    )
    table.add("a row of bare inserts", bare_bytes, "bytes")
    table.add("a sample in the store", float(size) / len(sent), "bytes", "a row of bare inserts")
    report.table(table)
    report.compare("samples that store.write reported as stored", len(sent), sum(stored))
    report.compare_ids("samples in the store", sent, measuring.stored_ids(dsn))
    await store.stopService()


async def benchmark(reactor: Any, report: Report, options: argparse.Namespace) -> None:
    if options.dsn:
        report.line(measuring.settings_of("as it is", options.dsn))
        await measure(reactor, report, options.dsn, "", options)
        return
    for mode in measuring.modes(options):
        with measuring.postgresql_server(report, mode, options) as server:
            await measure(reactor, report, server.dsn(), mode, options)


def main() -> None:
    parser = measuring.with_postgresql(measuring.parser(__doc__, runs=10), "both")
    parser.add_argument("--batches", type=int, default=BATCHES, help="of 1 000 samples in a run (%(default)s)")
    parser.add_argument("--dsn", help="an empty database to measure, instead of a private server")
    measuring.run(benchmark, parser.parse_args())


if __name__ == "__main__":
    main()
