"""How fast usage is computed, kept and read, beside adding up the same samples or rows in SQL in the same run.

A region has ``--instances`` of ``--skus`` meters each, half gauges and half counters, in projects of twenty. Samples of one day are made
for ``--measured`` of them: computing that day is compared with adding their volumes up. The kept usage of a whole month of all of them
is made in SQL, as computing it would, and read as closing reads it: sums by day and project, and annexes by resource.
"""

from __future__ import annotations

import argparse
import resource
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

from benchmarks import measuring
from benchmarks.measuring import Report
from benchmarks.measuring import Table
from benchmarks.store_read import milliseconds
from meter.daemon.services import sleep
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import Sku
from meter.rating.period import BillingPeriod
from meter.rating.usage.measured_skus import measured_skus
from meter.store import PostgresStore

DAY = datetime(2026, 10, 14, tzinfo=UTC)
OVER = datetime(2026, 11, 6, tzinfo=UTC)

FILL_NAMES = """
INSERT INTO meter (name, type, unit)
SELECT 'meter.' || n, CASE WHEN n %% 2 = 0 THEN 'gauge' ELSE 'cumulative' END, 'x' FROM generate_series(1, %(skus)s) AS n;
INSERT INTO resource (name) SELECT 'vm-' || lpad(n::text, 6, '0') FROM generate_series(1, %(instances)s) AS n;
INSERT INTO project (name) SELECT 'project-' || lpad(n::text, 5, '0') FROM generate_series(1, %(instances)s / 20 + 1) AS n;
INSERT INTO run (name) VALUES ('boot');
INSERT INTO metadata (hash, text, document) VALUES ('x', '{"zone": "a"}', '{"zone": "a"}');
INSERT INTO series (meter_id, resource_id, project_id, polling_interval, run_kind, run_id)
SELECT m.id, r.id, 1 + r.id / 20, 300, 1, 1 FROM meter m CROSS JOIN resource r ORDER BY 1, 2
"""

SAMPLES = """
INSERT INTO sample
SELECT %(day)s + interval '300 s' * poll + interval '1 ms' * (x.resource_id %% 1000), now(), gen_random_uuid(), poll * 1000.1 + x.id, 1, x.id, 1, '', ''
FROM generate_series(-1, 288) AS poll CROSS JOIN series x WHERE x.resource_id <= %(measured)s
"""

ADDING_UP = """
SELECT series_id, sum(volume), min(timestamp), max(timestamp) FROM sample
WHERE timestamp >= %s AND timestamp < %s AND recorded_at <= now() GROUP BY series_id
"""

KEPT = """
INSERT INTO usage_atom (sku_id, day, resource_id, project_id, values_id, unmetered_seconds, quantity)
SELECT %(sku)s, day::date, r.id, 1 + r.id / 20, 1, 0, round(24 + r.id::numeric / 7, 9)
FROM generate_series(date '2026-10-01', date '2026-10-31', interval '1 day') AS day CROSS JOIN resource r
ORDER BY day, r.id
"""

NAMES = """
INSERT INTO usage_values (hash, document) VALUES (sha256(convert_to('{"zone": "a"}', 'UTF8')), '{"zone": "a"}') ON CONFLICT DO NOTHING;
INSERT INTO usage_resource SELECT id FROM resource ON CONFLICT DO NOTHING;
INSERT INTO usage_project SELECT id FROM project ON CONFLICT DO NOTHING
"""


def book_of(skus: int) -> PriceBook:
    """Return a book with a SKU for each meter."""
    return PriceBook(
        name="benchmark",
        currency="EUR",
        timezone=ZoneInfo("UTC"),
        grace_days=5,
        issuer="",
        text="",
        sha256="",
        default=True,
        skus={
            f"sku-{n:02}": Sku(
                id=f"sku-{n:02}",
                name="",
                service="",
                category="",
                usage="integral" if n % 2 == 0 else "increase",
                unit="",
                factor=Fraction(1, 3600),
                meter=f"meter.{n}",
                by=("zone",),
            )
            for n in range(1, skus + 1)
        },
    )


async def execute(store: PostgresStore, statement: str, parameters: Any = None) -> None:
    async def transaction(session: Any) -> None:
        await session.count(statement, parameters)

    await store.maintenance._pool.run(transaction)


async def opened(reactor: Any, dsn: str) -> PostgresStore:
    store = PostgresStore(
        reactor,
        dsn,
        clock=reactor,
        migrate=True,
        readers=1,
        writers=1,
        maintain=True,
        rating_connections=2,
        statement_timeout_seconds=600,
    )
    store.maintenance._periodic.startService = lambda: None
    store.maintenance._compaction.startService = lambda: None
    store.startService()
    while not (store.readiness().ready and store.rating.ready and store.maintenance._pool.ready):
        await sleep(reactor, 0.01)
    return store


async def measure(reactor: Any, report: Report, dsn: str, options: argparse.Namespace) -> None:
    store = await opened(reactor, dsn)
    pool, usage, book = store.maintenance._pool, store.rating.usage, book_of(options.skus)
    period = BillingPeriod.named("2026-10", book.timezone)
    await execute(store, FILL_NAMES, {"skus": options.skus, "instances": options.instances})
    await store.maintenance._partitions.ensure([DAY])
    await execute(store, SAMPLES, {"day": DAY, "measured": options.measured})
    measuring.rows(dsn, "VACUUM (ANALYZE)")
    samples = options.measured * options.skus * 288
    report.line(f"samples of the day: {samples}; kept rows of the month: {options.instances * options.skus * 31}")
    table = Table("rating")
    bare, _ = await milliseconds(pool.rows(ADDING_UP, [DAY, DAY + timedelta(days=1)]))
    table.add("adding a day of samples up in SQL", samples / bare * 1000, "samples/s")
    first, days = await milliseconds(usage.refresh(book, period, OVER))
    table.add(
        "computing usage, the first time", samples / first * 1000, "samples/s", "adding a day of samples up in SQL"
    )
    report.compare("days computed", 31, days)
    again, days = await milliseconds(usage.refresh(book, period, OVER))
    table.add("finding that nothing changed", again, "ms")
    report.compare("days computed again", 0, days)
    await keep_month(store, book)
    measuring.rows(dsn, "VACUUM (ANALYZE)")
    projects = await usage.projects(book, period)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(options.runs):
        adding, [[wanted]] = await milliseconds(pool.rows("SELECT sum(quantity) FROM usage_atom"))
        table.add("adding a kept month up in SQL", adding, "ms")
        took, total = await milliseconds(totals(usage, book, period, projects))
        table.add("totals of all projects, one by one", took, "ms", "adding a kept month up in SQL")
        report.compare("sum of totals", wanted, total)
        took, total = await milliseconds(annexes(usage, book, period, projects))
        table.add("annexes of all projects, one by one", took, "ms", "adding a kept month up in SQL")
        report.compare("sum of annexes", wanted, total)
        took, _ = await milliseconds(totals(usage, book, period, projects[:1]))
        table.add("totals of one project", took, "ms")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    table.add("memory that reading took", grown, "MB")
    report.table(table)
    await store.stopService()


async def keep_month(store: PostgresStore, book: PriceBook) -> None:
    """Put rows for all days, resources and SKUs where computing has put those of some."""
    known = await store.maintenance._pool.rows("SELECT fingerprint, id FROM usage_sku")
    ids = {bytes(fingerprint): id for fingerprint, id in known}
    await execute(store, "TRUNCATE usage_atom, usage_values RESTART IDENTITY")
    await execute(store, NAMES)
    for each in measured_skus(book):
        await execute(store, KEPT, {"sku": ids[each.fingerprint]})


async def totals(usage: Any, book: PriceBook, period: BillingPeriod, projects: list[str]) -> Decimal:
    """Read what closing reads of each project; return the sum."""
    total = Decimal(0)
    for project in projects:
        async for atom in usage.totals(book, period, [project]):
            total += atom.quantity
    return total


async def annexes(usage: Any, book: PriceBook, period: BillingPeriod, projects: list[str]) -> Decimal:
    """Read the annexes of all projects; return the sum."""
    total = Decimal(0)
    for project in projects:
        async for row in usage.annex(book, period, [project]):
            total += sum(row.days.values())
    return total


async def benchmark(reactor: Any, report: Report, options: argparse.Namespace) -> None:
    for mode in measuring.modes(options):
        with measuring.postgresql_server(report, mode, options) as server:
            await measure(reactor, report, server.dsn(), options)


def main() -> None:
    parser = measuring.with_postgresql(measuring.parser(__doc__), "durable")
    parser.add_argument("--instances", type=int, default=10_000, help="whose usage is kept (%(default)s)")
    parser.add_argument("--measured", type=int, default=1_000, help="whose samples of a day are made (%(default)s)")
    parser.add_argument("--skus", type=int, default=20, help="of each instance (%(default)s)")
    measuring.run(benchmark, parser.parse_args())


if __name__ == "__main__":
    main()
