"""How long queries of the store take while a collector writes at full speed beside them, and while nobody does.

A million samples are stored (by default three days of benchmarks.store_read). One process sends queries, one after
the other: statistics by the hour, by resource, with a condition on metadata, and the last 100 samples of a resource. Another
process writes samples of today in batches of 1 000, over two connections, as fast as it can. Both take turns: queries
alone, queries beside the writer. Printed are the median and the 99th percentile of each run's queries.

Statistics of days before today may not change while today is written, which is compared; so are the rows written.
"""

from __future__ import annotations

import argparse
import itertools
import math
import subprocess
import sys
import time
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults
from twisted.internet.task import react

from benchmarks import measuring
from benchmarks.measuring import Report
from benchmarks.measuring import Table
from benchmarks.store_read import INSTANCES
from benchmarks.store_read import TODAY
from benchmarks.store_read import fill
from benchmarks.store_read import first_poll
from benchmarks.store_read import opened
from meter.message import MeteringMessage
from meter.query import MetadataMatch
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.store import PostgresStore

DAYS = 3
BATCH_SAMPLES = 1000
BATCHES = 100
"""Transactions that are written in a run."""
SECONDS_OF_RUN = 3600
"""How far apart the times are from which on the runs write, a poll a second: a run writes 100 or 2 000 polls."""
WRITERS = 2
WRITE = "write"
WRITING = "writing"
"""What the process that writes says when it begins."""

PAGE = 100


def queries(store: PostgresStore, days: int, instances: int) -> Iterator[tuple[str, Callable[[], Awaitable[Any]]]]:
    """Yield queries without end, each kind as often as the others."""
    start = TODAY - timedelta(days=days)
    equals = {"meter": "cpu"}
    lately = SampleFilter(equals=equals, start=TODAY - timedelta(days=1), end=TODAY)
    large = SampleFilter(equals=equals, start=start, end=TODAY, metadata=(MetadataMatch("flavor.name", "m1.large"),))
    asked = {
        "hours": StatisticsQuery(filter=lately, period=3600),
        "resources": StatisticsQuery(
            filter=SampleFilter(equals=equals, start=start, end=TODAY), groupby=("resource_id",)
        ),
        "metadata": StatisticsQuery(filter=large),
    }
    for number in itertools.count():
        for name, query in asked.items():
            yield name, lambda query=query: store.statistics(query)
        one = SampleFilter(equals={"resource_id": f"00000000-0000-4000-8000-{number % instances:012}"})
        yield "samples", lambda one=one: store.samples(one, PAGE)


class Asker:
    """Sends one query after the other, and compares each answer with the first of its kind."""

    def __init__(self, store: PostgresStore, options: argparse.Namespace) -> None:
        self._store = store
        self._options = options
        self._first: dict[str, Any] = {}
        self.differing = 0

    async def ask(self, going_on: Callable[[], bool]) -> list[float]:
        """Return the milliseconds that each query took, sorted, while ``going_on``."""
        took: list[float] = []
        for name, ask in queries(self._store, self._options.days, self._options.instances):
            begin = time.perf_counter()
            answer = await ask()
            took.append((time.perf_counter() - begin) * 1000)
            # The newest samples change while they are written; that there are as many does not.
            comparable = len(answer) if name == "samples" else answer
            self.differing += comparable != self._first.setdefault(name, comparable)
            if not going_on():
                return sorted(took)
        raise AssertionError("there is no end of queries")


def at(took: list[float], percent: float) -> float:
    """Return the value below which ``percent`` of the sorted ``took`` lie."""
    return took[min(math.ceil(len(took) * percent / 100), len(took)) - 1]


def batches(first: int, instances: int) -> Iterator[list[MeteringMessage]]:
    """Yield what is polled every second from ``first`` seconds after midnight on, in batches."""
    polls = (first_poll(TODAY + timedelta(seconds=n), instances) for n in itertools.count(first))
    messages = itertools.chain.from_iterable(polls)
    while True:
        yield list(itertools.islice(messages, BATCH_SAMPLES))


async def write(reactor: Any, dsn: str, first: int, count: int, instances: int) -> None:
    """Write while another process asks: say when it begins, and in the end how many samples a second were stored."""
    prepared = list(itertools.islice(batches(first, instances), count + 1))
    store = await opened(reactor, dsn, readers=0, writers=WRITERS)
    await store.write(prepared.pop())
    print(WRITING, flush=True)
    begin = time.perf_counter()

    async def stored(mine: list[list[MeteringMessage]]) -> int:
        return sum([(await store.write(batch)).stored for batch in mine])

    sums = await gatherResults([Deferred.fromCoroutine(stored(prepared[n::WRITERS])) for n in range(WRITERS)])
    print(f"{sum(sums) / (time.perf_counter() - begin):.0f} {sum(sums)}", flush=True)
    await store.stopService()


def writer(dsn: str, first: int, count: int, instances: int) -> subprocess.Popen[str]:
    """Return the process that writes, as it begins to."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.store_read_and_write",
        WRITE,
        dsn,
        *map(str, (first, count, instances)),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=measuring.ROOT)
    assert process.stdout is not None
    if process.stdout.readline().strip() != WRITING:
        raise RuntimeError(f"the process that writes ended with {process.wait()}")
    return process


async def measure(reactor: Any, report: Report, dsn: str, title: str, options: argparse.Namespace) -> None:
    filler = await opened(reactor, dsn, maintain=True)
    await fill(filler, dsn, options.days, options.instances)
    store = await opened(reactor, dsn, writers=0)
    asker = Asker(store, options)
    await asker.ask(iter([True] * 200 + [False]).__next__)  # warm
    table = Table(title)
    expected, asked = measuring.rows(dsn, "SELECT count(*) FROM sample")[0][0], 0
    for run in range(options.runs):
        until = time.perf_counter() + options.alone_seconds
        alone = await asker.ask(lambda until=until: time.perf_counter() < until)
        process = writer(dsn, run * SECONDS_OF_RUN, options.batches, options.instances)
        try:
            beside = await asker.ask(lambda process=process: process.poll() is None)
        finally:
            with suppress(ProcessLookupError):
                output, _ = process.communicate()
        speed, stored = map(float, output.split())
        report.compare("samples that the writer stored", options.batches * BATCH_SAMPLES, stored)
        expected += (options.batches + 1) * BATCH_SAMPLES
        asked += len(alone) + len(beside)
        table.add("written meanwhile", speed, "samples/s")
        for percent, name in ((50, "median"), (99, "99th percentile")):
            table.add(f"{name}, alone", at(alone, percent), "ms")
            table.add(f"{name}, beside the writer", at(beside, percent), "ms", f"{name}, alone")
    report.line(f"queries: {asked}")
    report.table(table)
    report.compare("answers that are not those of before", 0, asker.differing)
    report.compare("samples in the store", expected, measuring.rows(dsn, "SELECT count(*) FROM sample")[0][0])
    measuring.rows(dsn, "DELETE FROM sample WHERE timestamp >= %s", [TODAY])
    await gatherResults([store.stopService(), filler.stopService()])


async def benchmark(reactor: Any, report: Report, options: argparse.Namespace) -> None:
    if options.dsn:
        report.line(measuring.settings_of("as it is", options.dsn))
        await measure(reactor, report, options.dsn, "", options)
        return
    for mode in measuring.modes(options):
        with measuring.postgresql_server(report, mode, options) as server:
            await measure(reactor, report, server.dsn(), mode, options)


def main() -> None:
    if sys.argv[1:2] == [WRITE]:
        dsn, *numbers = sys.argv[2:]
        react(lambda reactor: Deferred.fromCoroutine(write(reactor, dsn, *map(int, numbers))))
    parser = measuring.with_postgresql(measuring.parser(__doc__, runs=3), "both")
    parser.add_argument("--days", type=int, default=DAYS, help="of samples (%(default)s)")
    parser.add_argument(
        "--instances", type=int, default=INSTANCES, help="at least 8, 1 445 samples a day each (%(default)s)"
    )
    parser.add_argument("--batches", type=int, default=BATCHES, help="of 1 000 samples, written in a run (%(default)s)")
    parser.add_argument("--alone-seconds", type=float, default=4.0, help="of queries without a writer (%(default)s)")
    parser.add_argument("--dsn", help="a database that keeps the samples, instead of a private server")
    measuring.run(benchmark, parser.parse_args())


if __name__ == "__main__":
    main()
