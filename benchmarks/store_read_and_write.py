"""How long questions to the store take while a collector writes at full speed beside them, and while nobody does.

A million samples are stored (three days, unless told otherwise, of :mod:`benchmarks.store_read`). One process asks, one question after the other:
statistics by the hour, by resource, about metadata, and the last 100 samples of a resource. Another process writes the
samples of today in batches of 1 000, over two connections, as fast as it can. Prints the median and the 99th percentile
of both, and their ratios.

    .venv/bin/python -m benchmarks.store_read_and_write [DAYS [DSN]]

Seen: see docs/scaling.rst.
"""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
import time
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterator
from datetime import timedelta

from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults
from twisted.internet.task import react

from benchmarks.store_read import INSTANCES
from benchmarks.store_read import TODAY
from benchmarks.store_read import fill
from benchmarks.store_read import first_poll
from benchmarks.store_read import on_a_server
from benchmarks.store_read import opened
from meter.message import MeteringMessage
from meter.query import MetadataMatch
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.store import PostgresStore

DAYS = 3
BATCH, BATCHES = 1000, 200
ALONE_SECONDS = 6.0
WRITING = "writing"
"""What the process that writes says when it begins."""


def questions(store: PostgresStore) -> Iterator[Callable[[], Awaitable[object]]]:
    """Yield questions without end, each kind as often as the others."""
    start = TODAY - timedelta(days=DAYS)
    equals = {"meter": "cpu"}
    lately = SampleFilter(equals=equals, start=TODAY - timedelta(days=1), end=TODAY)
    large = SampleFilter(equals=equals, start=start, end=TODAY, metadata=(MetadataMatch("flavor.name", "m1.large"),))
    asked = (
        StatisticsQuery(filter=lately, period=3600),
        StatisticsQuery(filter=SampleFilter(equals=equals, start=start, end=TODAY), groupby=("resource_id",)),
        StatisticsQuery(filter=large),
    )
    for number in itertools.count():
        for query in asked:
            yield lambda query=query: store.statistics(query)
        one = SampleFilter(equals={"resource_id": f"00000000-0000-4000-8000-{number % INSTANCES:012}"})
        yield lambda one=one: store.samples(one, 100)


async def latencies(store: PostgresStore, going_on: Callable[[], bool]) -> list[float]:
    """Return the milliseconds that each question took, sorted, one asked after the other while ``going_on``."""
    took = []
    for ask in questions(store):
        begin = time.perf_counter()
        await ask()
        took.append((time.perf_counter() - begin) * 1000)
        if not going_on():
            return sorted(took)
    raise AssertionError("there is no end of questions")


def at(took: list[float], percent: float) -> float:
    """Return the value below which ``percent`` of the sorted ``took`` lie."""
    return took[min(math.ceil(len(took) * percent / 100), len(took)) - 1]


def batches() -> Iterator[list[MeteringMessage]]:
    """Yield what is polled from midnight on, every second, in batches."""
    polls = (first_poll(TODAY + timedelta(seconds=n)) for n in itertools.count())
    messages = itertools.chain.from_iterable(polls)
    while True:
        yield list(itertools.islice(messages, BATCH))


async def write(reactor, dsn: str) -> None:
    """Write while another process asks: say when it begins, and in the end how many samples a second it were."""
    prepared = list(itertools.islice(batches(), BATCHES))
    store = await opened(reactor, dsn, readers=0, writers=2)
    await store.write(prepared.pop())
    print(WRITING, flush=True)
    begin = time.perf_counter()

    async def turn(mine: list[list[MeteringMessage]]) -> None:
        for batch in mine:
            assert (await store.write(batch)).stored == BATCH

    await gatherResults([Deferred.fromCoroutine(turn(prepared[n::2])) for n in range(2)])
    print(f"{len(prepared) * BATCH / (time.perf_counter() - begin):.0f}", flush=True)
    await store.stopService()


def writing(dsn: str) -> subprocess.Popen[str]:
    """Return the process that writes, as it begins to."""
    command = [sys.executable, "-m", "benchmarks.store_read_and_write", dsn, WRITING]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline().strip() == WRITING
    return writer


async def measure(reactor, dsn: str, days: int) -> None:
    keeper = await opened(reactor, dsn, maintain=True)
    await fill(keeper, days)
    pool = keeper.maintenance._pool
    store = await opened(reactor, dsn, writers=0)
    await latencies(store, iter([True] * 200 + [False]).__next__)  # warm

    until = time.perf_counter() + ALONE_SECONDS
    alone = await latencies(store, lambda: time.perf_counter() < until)

    writer = writing(dsn)
    observe_queue = await latencies(store, lambda: writer.poll() is None)
    speed = writer.communicate()[0].strip()
    await pool.rows(
        "WITH gone AS (DELETE FROM sample WHERE timestamp >= %s RETURNING 1) SELECT count(*) FROM gone", [TODAY]
    )

    print(f"{'':12} {'questions':>10} {'median':>10} {'p99':>10}")
    for name, took in (("alone", alone), (f"{speed}/s", observe_queue)):
        print(f"{name:12} {len(took):10} {at(took, 50):7.1f} ms {at(took, 99):7.1f} ms")
    print(f"{'ratio':23} {at(observe_queue, 50) / at(alone, 50):8.1f}x {at(observe_queue, 99) / at(alone, 99):9.1f}x")
    await gatherResults([store.stopService(), keeper.stopService()])


def main(reactor, *arguments: str) -> Deferred[None]:
    if arguments[1:] == (WRITING,):
        return Deferred.fromCoroutine(write(reactor, arguments[0]))
    days = int(arguments[0]) if arguments else DAYS
    return on_a_server(lambda dsn: measure(reactor, dsn, days), *arguments[1:])


if __name__ == "__main__":
    react(main, sys.argv[1:])
