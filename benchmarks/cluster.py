"""What a sample costs in a cluster of Citus, a coordinator and two workers, beside one server: writing and finalizing.

Both stores get the same batches in turn, as collectors write them, and finalize the same hours. Printed is the processor time of all
processes of the servers, those of the cluster together, and that of the coordinator alone. It needs the extension.

All samples are counted in both stores, and the rollups of both compared.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import measuring
from benchmarks.measuring import Report
from benchmarks.measuring import Table
from benchmarks.workload import messages
from meter.message import MeteringMessage
from meter.store import PostgresStore
from tests.servers.citus import CitusCluster
from tests.servers.citus import extension_missing
from tests.servers.postgresql import PostgreSQL
from tests.servers.postgresql import installed
from tests.servers.postgresql import upgrade
from tests.spread import spread

BATCH_SAMPLES = 5000
"""As large as a cluster wants them: each transaction goes to all workers."""

TICKS = 100.0
COUNT = "SELECT count(*) FROM sample"
ROLLUPS = """
SELECT r.start, r.hours, m.name, x.resource_id > 0, sum(r.count), min(r.first), max(r.last)
FROM rollup r JOIN series x ON x.id = r.series_id JOIN meter m ON m.id = x.meter_id GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
"""


def seconds(servers: Sequence[PostgreSQL]) -> float:
    """Return the processor time of the servers and of their processes, also of those that have ended."""
    total = 0.0
    for server in servers:
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        for pid in (str(server.pid), *children):
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except FileNotFoundError:
                continue
            total += sum(map(int, fields[11:15])) / TICKS
    return total


async def _write(store: PostgresStore, batches: Sequence[Sequence[MeteringMessage]]) -> None:
    for batch in batches:
        await store.write(batch)


async def measure(
    reactor: Any, report: Report, stores: dict[str, tuple[str, Sequence[PostgreSQL]]], options: argparse.Namespace
) -> None:
    table = Table("")
    opened = {}
    for name, (dsn, _) in stores.items():
        store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=0, writers=1, maintain=True)
        store.maintenance._periodic.startService = lambda: None  # it is measured by itself
        store.startService()
        await measuring.until_ready(reactor, store)
        opened[name] = store
    source = messages()
    written = 0
    until = datetime.now(UTC) + timedelta(days=2)

    async def timed(name: str, what: str, unit: str, times: float, work: Callable[[], Any]) -> None:
        baseline = None if name == "one server" else f"{what}, one server"
        before = [seconds([server]) for server in stores[name][1]]
        await work()
        took = [seconds([server]) - was for server, was in zip(stores[name][1], before, strict=True)]
        table.add(f"{what}, {name}", sum(took) * times, unit, baseline)
        if baseline:
            table.add(f"{what}, its coordinator", took[0] * times, unit, baseline)

    for run in range(options.runs + 1):
        batches = [list(itertools.islice(source, BATCH_SAMPLES)) for _ in range(options.batches if run else 1)]
        written += sum(map(len, batches))
        for name, store in opened.items():
            if run:
                each = 1e6 / sum(map(len, batches))
                await timed(name, "writing", "µs of a core per sample", each, partial(_write, store, batches))
            else:  # makes partitions and fills the dimension tables
                await _write(store, batches)
    for name, store in opened.items():
        finalize = partial(store.maintenance.finalize, until)
        await timed(name, "finalizing", "µs of a core per sample", 1e6 / written, finalize)
    report.table(table)
    found = {name: measuring.rows(dsn, ROLLUPS) for name, (dsn, _) in stores.items()}
    for name, (dsn, _) in stores.items():
        report.compare(f"samples, {name}", written, measuring.rows(dsn, COUNT)[0][0])
    report.compare("rollups", found["one server"], found["the cluster"])
    for store in opened.values():
        await store.stopService()


async def benchmark(reactor: Any, report: Report, options: argparse.Namespace) -> None:
    binaries = installed()
    if binaries is None or (missing := extension_missing(binaries)):
        raise measuring.NotInstalled(missing if binaries else "PostgreSQL")
    with measuring.directory() as directory:

        def folder(name: str) -> Path:
            made = directory / name
            made.mkdir()
            return made

        one, cluster = PostgreSQL(binaries, folder("one")), CitusCluster(binaries, folder)
        try:
            one.start()
            cluster.start()
            dsn = cluster.dsn()
            upgrade(dsn)
            spread(dsn, shards_per_worker=options.shards)
            report.line(f"shards: {options.shards} a worker, 2 workers; batches of {BATCH_SAMPLES} samples")
            stores = {"one server": (one.dsn_with_schema(), [one]), "the cluster": (dsn, cluster.nodes)}
            await measure(reactor, report, stores, options)
        finally:
            one.kill()
            cluster.kill()


def main() -> None:
    parser = measuring.parser(__doc__, runs=4)
    parser.add_argument("--batches", type=int, default=6, help="in a run (%(default)s)")
    parser.add_argument("--shards", type=int, default=4, help="on each worker (%(default)s)")
    measuring.run(benchmark, parser.parse_args())


if __name__ == "__main__":
    main()
