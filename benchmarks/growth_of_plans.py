"""What retained weeks cost: questions whose answers do not depend on how many weeks there are, asked of stores with few and with many.

In each store one resource is polled daily in all weeks, and forty hourly on the last day; each week has its partition, and all hours are
final that can be. ``--weeks`` are the sizes of the stores; ``--packed`` packs all weeks but the last two. Each question is asked of the store
as the API asks it. The processor time is that of PostgreSQL for all statements of a question; beside it stands how many scans of partitions the
plans of these statements have: PostgreSQL plans each of them, whether it is read or not. All figures of a store are also printed divided by those
of the first one, and the answers are compared.
"""

from __future__ import annotations

import argparse
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from functools import partial
from statistics import median
from typing import Any
from uuid import NAMESPACE_OID
from uuid import uuid5

from benchmarks import measuring
from benchmarks.measuring import Report
from benchmarks.measuring import number
from benchmarks.region import nanoseconds
from benchmarks.store_read import opened
from meter.query import Aggregate
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.query import StoredResource
from meter.query import StoredSample
from meter.sample_identity import WEEK
from meter.sample_identity import start_of_week
from meter.store import PostgresStore
from meter.store.maintenance import partitions
from meter.store.packing.packer import Packer
from tests.packed import BlockingSession
from tests.packed import result
from tests.plans import count_partitions
from tests.store_messages import message

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
HOURLY = 40
"""How many resources are polled hourly on the last day."""

METERS = (("cpu", "cumulative", "ns"), ("memory.usage", "gauge", "MB"))
PAGE = 10
"""Samples of a page: fewer than the resource that is polled daily has in the smallest store."""

METADATA = {"flavor": {"name": "m1.large"}, "_meter": {"run": "one", "interval": 3600}}

Question = Callable[[PostgresStore], Awaitable[Any]]


def polls(end: datetime, weeks: int) -> list[Any]:
    """Return the messages of a store of ``weeks`` that end at ``end``."""
    daily = [(end - n * DAY - HOUR / 2, "daily") for n in range(7 * weeks - 1)]
    hourly = [(end - n * HOUR - HOUR / 4, f"hourly-{each:02}") for n in range(24) for each in range(HOURLY)]
    return [
        message(
            name,
            1000 - (end - at) / HOUR,
            at=at,
            type=type_,
            unit=unit,
            resource_id=resource,
            metadata=METADATA,
            message_id=str(uuid5(NAMESPACE_OID, f"{name} of {resource} {end - at} ago")),
        )
        for at, resource in daily + hourly
        for name, type_, unit in METERS
    ]


async def fill(store: PostgresStore, dsn: str, end: datetime, weeks: int, *, packed: bool) -> None:
    """Write the samples of ``weeks``, finalize their hours, and pack all weeks but the last two if they are to be ``packed``."""
    await store.maintenance._partitions.ensure([end - n * WEEK for n in range(weeks)])
    sent = sorted(polls(end, weeks), key=lambda each: each.fields["timestamp"])
    for first in range(0, len(sent), 500):
        await store.write(sent[first : first + 500])
    await store.maintenance.finalize(end)
    if packed:
        pack_before(dsn, end - 2 * WEEK)
    measuring.rows(dsn, "VACUUM ANALYZE")


def pack_before(dsn: str, before: datetime) -> None:
    """Pack the weeks that end before a time."""
    session = BlockingSession(dsn)
    packer = Packer(session, nothing)
    result(packer.open())
    for [monday] in measuring.rows(
        dsn, "SELECT DISTINCT date_trunc('week', timestamp AT TIME ZONE 'UTC')::date FROM sample ORDER BY 1"
    ):
        if start_of_week(monday) + WEEK < before:
            result(packer.pack(monday))
    session.close()


async def nothing() -> None:
    """Do not wait: nothing else is written."""


def questions(end: datetime) -> dict[str, Question]:
    """Return the questions by name."""
    hours, odd = (
        SampleFilter(equals={"meter": "cpu"}, start=end - shift - 8 * HOUR, end=end - shift)
        for shift in (timedelta(0), timedelta(minutes=7))
    )
    large = replace(odd, expression=None, metadata=())
    asked: dict[str, StatisticsQuery] = {
        "8 h": StatisticsQuery(filter=hours),
        "per hour, 8 h": StatisticsQuery(filter=hours, period=3600),
        "per 10 minutes, 8 h": StatisticsQuery(filter=hours, period=600),
        "8 h with odd ends": StatisticsQuery(filter=odd),
        "metadata, 8 h with odd ends": StatisticsQuery(filter=large, groupby=("metadata.flavor.name",)),
        "increase, 8 h": StatisticsQuery(filter=hours, aggregates=(Aggregate("increase"),)),
        "integral, 8 h": StatisticsQuery(filter=hours, aggregates=(Aggregate("integral"),)),
        "integral, 8 h with odd ends": StatisticsQuery(filter=odd, aggregates=(Aggregate("integral"),)),
        "percentile, 8 h": StatisticsQuery(filter=hours, aggregates=(Aggregate("percentile", "95"),)),
    }
    daily, hourly = (SampleFilter(equals={"resource_id": name}) for name in ("daily", "hourly-07"))
    every, lately = SampleFilter(), SampleFilter(start=end - 8 * HOUR)
    lists: dict[str, Question] = {
        "page of samples, 8 h": lambda store: store.samples(hours, PAGE),
        "resources with samples in 8 h": lambda store: store.resources(lately, 100),
        "meters with samples in 8 h": lambda store: store.meters(lately, 100, False),
        "newest page of samples": lambda store: store.samples(every, PAGE),
        "newest page of samples of a resource": lambda store: store.samples(daily, PAGE),
        "one resource": lambda store: store.resources(hourly, 100),
        "all resources": lambda store: store.resources(every, 100),
        "all meters": lambda store: store.meters(every, 100, False),
        "unique meters": lambda store: store.meters(every, 100, True),
    }
    return {**{name: partial(_statistics, query) for name, query in asked.items()}, **lists}


async def _statistics(query: StatisticsQuery, store: PostgresStore) -> Any:
    return await store.statistics(query)


def fixed(answer: Sequence[Any]) -> list[Any]:
    """Return what of an answer does not depend on the weeks: neither ids nor the first sample of the resource that is polled daily."""
    return [
        (each.name, each.resource_id, each.timestamp, each.volume)
        if isinstance(each, StoredSample)
        else (each.resource_id, each.last_sample, each.meters)
        if isinstance(each, StoredResource)
        else each
        for each in answer
    ]


async def measure(store: PostgresStore, end: datetime, runs: int) -> dict[str, tuple[float, int, list[Any]]]:
    """Return of each question the processor time in ms, the number of scans of partitions, and what of the answer is compared."""
    [[pid]] = await store._readers.rows("SELECT pg_backend_pid()")
    found = {}
    for name, question in questions(end).items():
        answer, planned = await count_partitions(store._readers, partial(question, store))
        taken = []
        for _ in range(runs):
            before = nanoseconds([pid])
            await question(store)
            taken.append((nanoseconds([pid]) - before) / 1e6)
        found[name] = median(taken), sum(planned), fixed(answer)
    return found


def show(report: Report, weeks: Sequence[int], found: Sequence[dict[str, tuple[float, int, list[Any]]]]) -> None:
    """Print a row for each question, with a column for each store."""
    report.line()
    report.line(
        f"{'ms of a core, and scans of partitions in the plans':45}"
        + "".join(f"{f'{n} weeks':>18} {'scans':>6}" for n in weeks)
    )
    for name, (first, _, expected) in found[0].items():
        cells = []
        for each in found:
            taken, planned, answer = each[name]
            cells.append(f"{f'{number(taken)} ({taken / first:.2f})':>18} {planned:>6}")
            report.compare(f"the answer of {name!r}", expected, answer)
        report.line(f"{name:45}" + "".join(cells))


async def benchmark(reactor: Any, report: Report, options: argparse.Namespace) -> None:
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    # A store that runs for long has partitions of weeks for which none would be created any more.
    partitions.MAX_AGE = max(partitions.MAX_AGE, (max(options.weeks) + 1) * WEEK)
    for mode in measuring.modes(options):
        with measuring.postgresql_server(report, mode, options) as server:
            found = []
            for weeks in options.weeks:
                dsn = server.dsn()
                store = await opened(reactor, dsn, maintain=True)
                try:
                    await fill(store, dsn, end, weeks, packed=options.packed)
                    found.append(await measure(store, end, options.runs))
                finally:
                    await store.stopService()
            show(report, options.weeks, found)


def main() -> None:
    parser = measuring.with_postgresql(measuring.parser(__doc__, runs=7), "not-durable")
    parser.add_argument(
        "--weeks", type=int, nargs="+", default=[2, 60], help="retained weeks of each store (%(default)s)"
    )
    parser.add_argument("--packed", action="store_true", help="pack all weeks but the last two")
    measuring.run(benchmark, parser.parse_args())


if __name__ == "__main__":
    main()
