"""Which share of a collector's time cycle reports take, beside the samples of the same polling cycles.

The samples of the domains of some agents, and the cycle reports of these agents, are received by the consumers of a collector, in
turn: each delivery is verified and committed. Of twelve reports of an agent, as in an hour with the default interval, the first
lists all its series; the figures are for one cycle. Printed are the time until all is committed and the processor time of the
collector. Neither the bus nor PostgreSQL's own processor time is in the latter.

All rows of samples are counted, and the cycles and resources in the tables of the ledger.
"""

from __future__ import annotations

import argparse
import itertools
import uuid
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterable
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults

from benchmarks import measuring
from benchmarks.measuring import Report
from benchmarks.measuring import Table
from benchmarks.workload import KEYS
from benchmarks.workload import METERS
from benchmarks.workload import PADDING
from benchmarks.workload import outgoing_messages
from meter.bus.batches import batch_publications
from meter.bus.dead_letters import DeadLetterPublisher
from meter.collector.reports import ReportConsumer
from meter.collector.samples import SampleConsumer
from meter.cycle_report import CycleReport
from meter.cycle_report import PollReport
from meter.cycle_report import SeriesGroup
from meter.daemon.metrics import CollectingMetrics
from meter.daemon.report_metrics import ReportMetrics
from meter.interfaces import Delivery
from meter.interfaces import Publication
from meter.report import report_publication
from meter.sample import utc_text
from meter.store import PostgresStore

AGENTS, INSTANCES = 50, 100
CYCLES = 12
PREFETCH = 200


class NoBus:
    """Takes no dead letter: there must be none."""

    async def publish(self, publication: Publication) -> None:
        raise AssertionError(f"a dead letter: {publication.headers}")


def reports(agents: int, instances: int, run: int) -> list[list[Publication]]:
    """Return the reports of ``CYCLES`` cycles of all agents, cycle by cycle; each run is a boot of its own."""
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=20 - run)
    found = []
    for cycle in range(CYCLES):
        of_cycle = []
        for agent in range(agents):
            ids = tuple(f"{agent}-{n:032}" for n in range(instances))
            groups = tuple(
                SeriesGroup((name,), ids[begin : begin + 5], f"project-{begin}")
                for name, _, _ in METERS
                for begin in range(0, instances, 5)
            )
            polls = tuple(
                PollReport(name, 300.0, "ok", instances, 0.1, whole=not cycle, series=() if cycle else groups[n::3])
                for n, (name, _, _) in enumerate(METERS)
            )
            content = CycleReport(
                agent=f"meter-compute@host-{agent}",
                daemon="meter-compute",
                host=f"host-{agent}",
                boot=str(uuid.UUID(int=run * agents + agent)),
                sequence=cycle + 1,
                due=utc_text(start + timedelta(seconds=300 * cycle)),
                polls=polls,
            )
            of_cycle.append(report_publication("cycle", content, KEYS.keys[0]))
        found.append(of_cycle)
    return found


async def deliver(receive: Callable[[Delivery], Awaitable[None]], publications: Iterable[Publication]) -> None:
    """Return once every publication is received, at most ``PREFETCH`` at a time."""
    rest = iter(publications)
    while some := list(itertools.islice(rest, PREFETCH)):
        await gatherResults([Deferred.fromCoroutine(received(receive, each)) for each in some])


async def received(receive: Callable[[Delivery], Awaitable[None]], publication: Publication) -> None:
    await receive(Delivery(body=publication.body, exchange=publication.exchange, routing_key=publication.routing_key))


async def measure(reactor: Any, report: Report, dsn: str, title: str, options: argparse.Namespace) -> None:
    table = Table(title)
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=0, writers=2)
    store.startService()
    await measuring.until_ready(reactor, store)
    registry = CollectorRegistry()
    dead = DeadLetterPublisher(NoBus(), reactor)
    samples = SampleConsumer(
        store, KEYS, dead, reactor, batch_samples=1000, batch_seconds=0.05, metrics=CollectingMetrics(registry)
    )
    ledger = ReportConsumer(store, None, KEYS, dead, reactor, metrics=ReportMetrics(registry))  # type: ignore[arg-type]
    instances = options.agents * options.instances
    source = outgoing_messages(KEYS, PADDING, instances)
    count = instances * len(METERS)
    for run in range(options.runs + 1):
        batches = batch_publications(list(itertools.islice(source, count)))
        cycles = reports(options.agents, options.instances, run)
        of_samples = await measuring.timed(deliver(samples.receive, batches))
        of_reports = await measuring.timed(deliver(ledger.receive, (each for cycle in cycles for each in cycle)))
        if not run:  # makes partitions and fills the dimension tables, as a collector does once
            continue
        for name, took in (("samples", of_samples), ("reports", of_reports)):
            per_cycle = 1 if name == "samples" else CYCLES
            table.add(f"{name} of a cycle", took.wall / per_cycle * 1e3, "ms", "samples of a cycle")
            table.add(f"processor time of {name}", took.processor / per_cycle * 1e3, "ms", "processor time of samples")
    report.table(table)
    runs = options.runs + 1
    [(stored,)] = measuring.rows(dsn, "SELECT count(*) FROM sample")
    report.compare("samples in the store", runs * count, stored)
    [(cycles_told,)] = measuring.rows(dsn, "SELECT sum(cycles) FROM cycle_run")
    report.compare("cycles in the ledger", runs * CYCLES * options.agents, int(cycles_told))
    [(metered,)] = measuring.rows(dsn, "SELECT count(*) FROM metered_resource WHERE until_due = 'infinity'")
    report.compare("metered resources in the ledger", instances * len(METERS), metered)
    await store.stopService()


async def benchmark(reactor: Any, report: Report, options: argparse.Namespace) -> None:
    for mode in measuring.modes(options):
        with measuring.postgresql_server(report, mode, options) as server:
            await measure(reactor, report, server.dsn(), mode, options)


def main() -> None:
    parser = measuring.with_postgresql(measuring.parser(__doc__), "durable")
    parser.add_argument("--agents", type=int, default=AGENTS, help="compute agents (%(default)s)")
    parser.add_argument("--instances", type=int, default=INSTANCES, help="instances of each (%(default)s)")
    measuring.run(benchmark, parser.parse_args())


if __name__ == "__main__":
    main()
