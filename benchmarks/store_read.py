"""How fast the store answers, beside the best SQL over the raw rows in the same run; and how large a sample is, all in.

230 instances of 20 projects are polled every 300 s, 5 meters each (two cumulative, with restarts), with metadata that
change once a day: 3 days are a million samples, 30 are ten. The samples are made in SQL, a day at a time, and kept where a
DSN is given; hours and days are finalized, weeks that are over compacted. Printed are milliseconds of SQL and of the store, in
turn; of more than 3 days also what the last 3 of them cost, to compare with a run in which they are all there is.

Each answer of the store is compared with that of the SQL.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from decimal import Decimal
from math import isclose
from typing import Any

from benchmarks import measuring
from benchmarks.measuring import Report
from benchmarks.measuring import Table
from benchmarks.workload import received
from meter.bus.batches import batch_publications
from meter.daemon.services import sleep
from meter.message import MeteringMessage
from meter.outgoing import Signer
from meter.query import Aggregate
from meter.query import MetadataMatch
from meter.query import SampleFilter
from meter.query import Statistics
from meter.query import StatisticsQuery
from meter.query import StoredResource
from meter.sample import Sample
from meter.sample_identity import WEEK
from meter.sample_identity import week_of
from meter.signing_keys import keyring
from meter.store import PostgresStore
from meter.store.postgres.pool import Session

INSTANCES, PROJECTS = 230, 20
METERS = (
    ("cpu", "cumulative", "ns"),
    ("disk.read.bytes", "cumulative", "B"),
    ("memory.usage", "gauge", "MB"),
    ("vcpus", "gauge", "vcpu"),
    ("cpu_util", "gauge", "%"),
)
ONE = "00000000-0000-4000-8000-000000000007"
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)

RETAIN = "UPDATE series SET retained_until = 'infinity'"
"""Series have later samples than those that the store itself has written."""

# A day of samples like those of a first poll, which the store itself has written: their series, metadata and forms.
A_DAY = """
INSERT INTO sample
SELECT %(day)s + interval '300 s' * poll + interval '1 ms' * (s.series_id %% 1000), now(), gen_random_uuid(),
    CASE WHEN m.type = 'cumulative' THEN (poll + 288 * (%(n)s %% 4)) * 1e9 + s.series_id ELSE (poll * 7 + s.series_id) %% 100 END,
    s.metadata_id, s.series_id, s.wire_format_id, sha256(uuid_send(gen_random_uuid())), ''
FROM generate_series(0, 287) AS poll CROSS JOIN sample s JOIN series x ON x.id = s.series_id JOIN meter m ON m.id = x.meter_id
WHERE s.timestamp = %(like)s
"""

# The least work that finalizing a day could be.
ADDING_UP = """
SELECT count(*) FROM (
    SELECT series_id, date_bin('1 h', timestamp, '2020-01-01'), min(volume), max(volume), sum(volume), count(*)
    FROM sample WHERE timestamp >= %s GROUP BY 1, 2 OFFSET 0) AS _
"""

PLAIN_TABLE = """
CREATE TABLE plain AS SELECT * FROM sample LIMIT 200000;
CREATE UNIQUE INDEX ON plain (message_id);
CREATE INDEX ON plain (series_id, timestamp);
SELECT pg_total_relation_size('plain')::float8 / (SELECT count(*) FROM plain)
"""

OF_CPU = "series_id = ANY(ARRAY(SELECT x.id FROM series x JOIN meter m ON m.id = x.meter_id WHERE m.name = 'cpu'))"
STANDARD_NAMES = "most, least, mean, total, count, first, last"
STANDARD = (
    "max(volume) AS most, min(volume) AS least, avg(volume) AS mean, sum(volume) AS total, count(*) AS count,"
    " min(timestamp) AS first, max(timestamp) AS last"
)


def first_poll(at: datetime, instances: int) -> list[MeteringMessage]:
    """Return a sample of each meter and instance, as they are read from the bus."""
    keys = keyring(["a secret of the benchmark"])
    signer = Signer(keys, "openstack")
    samples = (
        Sample(
            name=name,
            type=type_,
            unit=unit,
            volume=number,
            resource_id=f"00000000-0000-4000-8000-{number:012}",
            project_id=f"{number % PROJECTS:032x}",
            user_id=f"{number % PROJECTS + 1000:032x}",
            timestamp=at,
            resource_metadata={
                "display_name": f"instance-{number}",
                "host": f"compute-{number % 10}",
                "flavor": {"id": "1", "name": "m1.tiny" if number % 4 else "m1.large", "vcpus": 1, "ram": 512},
                "image": {"id": "6d1f", "links": [{"rel": "bookmark", "href": "http://nova/images/6d1f"}]},
                "day": str(at.date()),
            },
        )
        for number in range(instances)
        for name, type_, unit in METERS
    )
    return list(received(batch_publications(map(signer.message, samples)), keys))


async def fill(store: PostgresStore, dsn: str, days: int, instances: int, table: Table | None = None) -> None:
    """Write ``days`` of samples, up to today, and finalize them; where there is a ``table``, measure that for each day."""
    pool = store.maintenance._pool
    for n in range(days):
        day = TODAY - timedelta(days=days - n)
        like = day - timedelta(microseconds=1)  # the poll that the others are made after
        if not (await store.write(first_poll(like, instances))).stored or await pool.rows(
            "SELECT FROM sample WHERE timestamp >= %s AND timestamp < %s LIMIT 1",
            [day + timedelta(hours=1), day + WEEK / 7],
        ):
            continue
        await pool.run(_retain)
        await store.maintenance._partitions.ensure([day])
        made = f"WITH made AS ({A_DAY} RETURNING 1) SELECT count(*) FROM made"
        [[count]] = await pool.rows(made, {"day": day, "like": like, "n": n})
        if table is not None:
            bare, _ = await milliseconds(pool.rows(ADDING_UP, [day]))
            finalizing, _ = await milliseconds(store.maintenance.finalize(day + WEEK / 7))
            table.add("adding up in SQL", count / bare * 1000, "samples/s")
            table.add("finalizing hours and days", count / finalizing * 1000, "samples/s", "adding up in SQL")
    await store.maintenance.finalize(TODAY)
    await store.maintenance.compact(week_of(TODAY))
    measuring.rows(dsn, "VACUUM (ANALYZE)")


async def _retain(session: Session) -> None:
    await session.count(RETAIN)


async def opened(
    reactor: Any, dsn: str, *, maintain: bool = False, readers: int = 1, writers: int = 1
) -> PostgresStore:
    """Return a store that is ready, and does no maintenance by itself."""
    store = PostgresStore(
        reactor,
        dsn,
        clock=reactor,
        migrate=True,
        readers=readers,
        writers=writers,
        maintain=maintain,
        statement_timeout_seconds=600,
    )
    store.maintenance._periodic.startService = lambda: None
    store.startService()
    while not (store.readiness().ready and (store.maintenance._pool.ready or not maintain)):
        await sleep(reactor, 0.01)
    return store


@dataclass(frozen=True, slots=True)
class StatisticsCase:
    """A query for statistics, and the best SQL over samples that we know for it.

    ``columns`` names what the SQL returns: ``period_start``, a grouping, the label of an aggregate, ``first`` or ``last``.
    """

    query: StatisticsQuery
    sql: str
    columns: tuple[str, ...]

    def row(self, statistics: Statistics) -> tuple[Any, ...]:
        """Return a row of the store's answer with the columns of the SQL."""
        times = {"period_start": statistics.period_start, "first": statistics.first, "last": statistics.last}
        known = {**statistics.values, **statistics.group, **times}
        return tuple(known[name] for name in self.columns)


STANDARD_COLUMNS = ("max", "min", "avg", "sum", "count", "first", "last")


def statistics(start: datetime, end: datetime) -> dict[str, StatisticsCase]:
    """Return queries for statistics of a meter."""
    range_ = SampleFilter(equals={"meter": "cpu"}, start=start, end=end)
    within = f"FROM sample s WHERE timestamp >= '{start}' AND timestamp < '{end}' AND {OF_CPU}"
    owned = within.replace("sample s", "sample s JOIN series x ON x.id = s.series_id")
    odd_start, odd_end = start + timedelta(minutes=7), end - timedelta(minutes=7)
    described = within.replace("sample s", "sample s JOIN metadata d ON d.id = s.metadata_id")
    flavor = "d.document #>> '{flavor,name}'"
    some = (
        *(Aggregate(name) for name in ("max", "min", "avg", "sum", "count", "stddev")),
        Aggregate("cardinality", "resource_id"),
    )
    steps = tuple(Aggregate(name) for name in ("increase", "rate", "integral"))
    return {
        "everything": StatisticsCase(
            StatisticsQuery(filter=range_),
            f"SELECT {STANDARD} {within}",
            STANDARD_COLUMNS,
        ),
        "per hour": StatisticsCase(
            StatisticsQuery(filter=range_, period=3600),
            f"SELECT date_bin('1 h', timestamp, '{start}'), {STANDARD} {within} GROUP BY 1 ORDER BY 1",
            ("period_start", *STANDARD_COLUMNS),
        ),
        "per resource": StatisticsCase(
            StatisticsQuery(filter=range_, groupby=("resource_id",)),
            f"SELECT r.name, {STANDARD_NAMES} FROM (SELECT resource_id, {STANDARD} {owned} GROUP BY 1) AS _"
            " JOIN resource r ON r.id = resource_id ORDER BY 1",
            ("resource_id", *STANDARD_COLUMNS),
        ),
        "per project": StatisticsCase(
            StatisticsQuery(filter=range_, groupby=("project_id",)),
            f"SELECT p.name, {STANDARD_NAMES} FROM (SELECT project_id, {STANDARD} {owned} GROUP BY 1) AS _"
            " JOIN project p ON p.id = project_id ORDER BY 1",
            ("project_id", *STANDARD_COLUMNS),
        ),
        "per resource and hour": StatisticsCase(
            StatisticsQuery(filter=range_, groupby=("resource_id",), period=3600),
            f"SELECT hour, r.name, {STANDARD_NAMES} FROM (SELECT date_bin('1 h', timestamp, '{start}') AS hour, resource_id,"
            f" {STANDARD} {owned} GROUP BY 1, 2) AS _ JOIN resource r ON r.id = resource_id ORDER BY 1, 2",
            ("period_start", "resource_id", *STANDARD_COLUMNS),
        ),
        "stddev, cardinality": StatisticsCase(
            StatisticsQuery(filter=range_, aggregates=some),
            f"SELECT {STANDARD}, stddev_pop(volume), count(DISTINCT resource_id) {owned}",
            (*STANDARD_COLUMNS, "stddev", "cardinality/resource_id"),
        ),
        "increase, integral": StatisticsCase(
            StatisticsQuery(filter=range_, aggregates=steps),
            "SELECT sum(increase), sum(increase / seconds), sum(integral) / 3600 FROM (SELECT series_id,"
            " sum(CASE WHEN volume >= b THEN volume - b WHEN b IS NOT NULL THEN volume END) AS increase,"
            " sum(extract(epoch FROM timestamp - t)::float8) AS seconds,"
            " sum(b * extract(epoch FROM timestamp - t)::float8) AS integral"
            f" FROM (SELECT series_id, volume, timestamp, lag(volume) OVER w AS b, lag(timestamp) OVER w AS t {within}"
            " WINDOW w AS (PARTITION BY series_id ORDER BY timestamp)) AS _ GROUP BY series_id) AS _",
            ("increase", "rate", "integral"),
        ),
        "metadata filter": StatisticsCase(
            StatisticsQuery(filter=replace(range_, metadata=(MetadataMatch("flavor.name", "m1.large"),))),
            f"SELECT {STANDARD} {within} AND metadata_id = ANY(ARRAY("
            "SELECT id FROM metadata WHERE document #> '{flavor,name}' = '\"m1.large\"'))",
            STANDARD_COLUMNS,
        ),
        "per metadata": StatisticsCase(
            StatisticsQuery(filter=range_, groupby=("metadata.flavor.name",)),
            f"SELECT {flavor}, {STANDARD} {described} GROUP BY 1 ORDER BY 1",
            ("metadata.flavor.name", *STANDARD_COLUMNS),
        ),
        "one resource, odd ends": StatisticsCase(
            StatisticsQuery(
                filter=replace(
                    range_,
                    equals={"meter": "cpu", "resource_id": ONE},
                    start=odd_start,
                    end=odd_end,
                )
            ),
            f"SELECT {STANDARD} FROM sample WHERE timestamp >= '{odd_start}' AND timestamp < '{odd_end}' AND {OF_CPU}"
            " AND series_id = ANY(ARRAY("
            f"SELECT x.id FROM series x JOIN resource r ON r.id = x.resource_id WHERE r.name = '{ONE}'))",
            STANDARD_COLUMNS,
        ),
    }


@dataclass(frozen=True, slots=True)
class PageCase:
    """A query for a page, the best SQL that we know for it, and what of a row of both is compared."""

    ask: Callable[[], Awaitable[Sequence[Any]]]
    sql: str
    of_store: Callable[[Any], object]
    of_sql: Callable[[Any], object] = tuple


def pages(store: PostgresStore, end: datetime) -> dict[str, PageCase]:
    """Return queries for samples, meters and resources."""
    everyone = SampleFilter()
    of_one = SampleFilter(equals={"resource_id": ONE})
    lately = end - timedelta(hours=3)
    newest = "SELECT * FROM sample s WHERE s.series_id = x.id {} ORDER BY s.timestamp DESC LIMIT {}"
    oldest = "SELECT s.timestamp FROM sample s WHERE s.series_id = x.id {} ORDER BY s.timestamp LIMIT 1"
    resources = (
        "SELECT r.name, min(oldest.timestamp), max(s.timestamp), max(p.name), max(u.name), array_agg(DISTINCT m.name),"
        " (array_agg(d.text ORDER BY s.timestamp DESC))[1]"
        " FROM (SELECT * FROM resource ORDER BY name LIMIT 100) r JOIN series x ON x.resource_id = r.id"
        ' JOIN meter m ON m.id = x.meter_id LEFT JOIN project p ON p.id = x.project_id LEFT JOIN "user" u ON u.id = x.user_id'
        f" CROSS JOIN LATERAL ({newest}) s CROSS JOIN LATERAL ({oldest}) oldest JOIN metadata d ON d.id = s.metadata_id"
        " GROUP BY r.name ORDER BY r.name"
    )
    since = f"AND s.timestamp >= '{lately}'"

    def of_resource(each: StoredResource) -> object:
        facts = (each.resource_id, each.first_sample, each.last_sample, each.project_id, each.user_id)
        return (*facts, sorted(each.meters))

    def of_resource_row(row: Sequence[Any]) -> object:
        return (*row[:5], sorted(row[5]))

    return {
        "last 100 of a resource": PageCase(
            lambda: store.samples(of_one, 100),
            f"SELECT s.message_id::text, s.*, d.text FROM series x CROSS JOIN LATERAL ({newest.format('', 100)}) s"
            " JOIN metadata d ON d.id = s.metadata_id"
            f" WHERE x.resource_id = (SELECT id FROM resource WHERE name = '{ONE}') ORDER BY s.timestamp DESC LIMIT 100",
            lambda sample: sample.message_id,
            lambda row: row[0],
        ),
        # Some are of one moment, which only their ids distinguish.
        "last 100 of all": PageCase(
            lambda: store.samples(everyone, 100),
            "SELECT s.timestamp, s.*, d.text FROM sample s JOIN metadata d ON d.id = s.metadata_id"
            " ORDER BY s.timestamp DESC LIMIT 100",
            lambda sample: sample.timestamp,
            lambda row: row[0],
        ),
        "100 meters": PageCase(
            lambda: store.meters(everyone, 100, False),
            "SELECT m.name, m.type, m.unit, r.name, u.name, p.name FROM series x JOIN meter m ON m.id = x.meter_id"
            " JOIN resource r ON r.id = x.resource_id LEFT JOIN project p ON p.id = x.project_id"
            f' LEFT JOIN "user" u ON u.id = x.user_id WHERE EXISTS ({newest.format("", 1)}) ORDER BY 1, 4 LIMIT 100',
            lambda each: (each.name, each.type, each.unit, each.resource_id, each.user_id, each.project_id),
        ),
        "unique meters": PageCase(
            lambda: store.meters(everyone, 100, True),
            "SELECT name, type, unit FROM meter m WHERE EXISTS ("
            f"SELECT FROM series x WHERE x.meter_id = m.id AND EXISTS ({newest.format('', 1)})) ORDER BY 1, 2, 3 LIMIT 100",
            lambda each: (each.name, each.type, each.unit),
        ),
        "100 resources": PageCase(
            lambda: store.resources(everyone, 100), resources.format("", 1, ""), of_resource, of_resource_row
        ),
        "100 resources of 3 hours": PageCase(
            lambda: store.resources(SampleFilter(start=lately), 100),
            resources.format(since, 1, since),
            of_resource,
            of_resource_row,
        ),
    }


def alike(expected: Sequence[Sequence[Any]], found: Sequence[Sequence[Any]]) -> bool:
    """Say whether rows are equal in any order; numbers may differ in the last digits, as they are added up in another."""
    if len(expected) != len(found):
        return False
    pairs = zip(sorted(expected, key=_key), sorted(found, key=_key), strict=True)
    return all(_equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True))


def _key(row: Sequence[Any]) -> tuple[str, ...]:
    """Return what distinguishes rows: their times and groups."""
    return tuple(str(value) for value in row if isinstance(value, str | datetime))


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, int | float | Decimal) and isinstance(b, int | float | Decimal):
        return isclose(float(a), float(b), rel_tol=1e-9)
    return bool(a == b)


async def milliseconds(work: Awaitable[Any]) -> tuple[float, Any]:
    """Await ``work`` and return how long it took, and its result."""
    begin = time.perf_counter()
    result = await work
    return (time.perf_counter() - begin) * 1000, result


def add_sizes(report: Report, dsn: str, table: Table) -> None:
    """Add how large a sample is, beside a row of a plain table with two indexes."""
    [(count, size, rollups)] = measuring.rows(
        dsn,
        "SELECT (SELECT count(*) FROM sample), sum(pg_total_relation_size(oid))::float8, pg_total_relation_size('rollup')"
        " FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace",
    )
    report.line(f"samples: {count}")
    [(bare,)] = measuring.rows(dsn, PLAIN_TABLE)
    measuring.rows(dsn, "DROP TABLE plain")
    table.add("a row of a plain table", bare, "bytes")
    table.add("a sample in the store", size / count, "bytes", "a row of a plain table")
    table.add("of it rollups", rollups / count, "bytes", "a row of a plain table")


async def measure(reactor: Any, report: Report, dsn: str, options: argparse.Namespace) -> None:
    days = options.days
    store = await opened(reactor, dsn, maintain=True)
    sizes = Table("samples")
    await fill(store, dsn, days, options.instances, sizes)
    add_sizes(report, dsn, sizes)
    report.table(sizes)
    pool = store.maintenance._pool
    for asked in sorted({days, min(days, 3)}, reverse=True):
        table = Table(f"statistics of {asked} days")
        for name, case in statistics(TODAY - timedelta(days=asked), TODAY).items():
            for run in range(options.runs + 1):
                raw, rows = await milliseconds(pool.rows(case.sql))
                took, answer = await milliseconds(store.statistics(case.query))
                if run:  # the first reads pages from disk
                    table.add(f"{name}, SQL", raw, "ms")
                    table.add(f"{name}, store", took, "ms", f"{name}, SQL")
            found = [case.row(each) for each in answer]
            shown = ("equal", "equal") if alike(rows, found) else (sorted(rows, key=_key), sorted(found, key=_key))
            report.compare(f"statistics of {asked} days, {name}", *shown)
        report.table(table)
    table = Table("samples, meters, resources")
    for name, page in pages(store, TODAY).items():
        for run in range(options.runs + 1):
            raw, rows = await milliseconds(pool.rows(page.sql))
            took, answer = await milliseconds(page.ask())
            if run:
                table.add(f"{name}, SQL", raw, "ms")
                table.add(f"{name}, store", took, "ms", f"{name}, SQL")
        report.compare(name, list(map(page.of_sql, rows)), list(map(page.of_store, answer)))
    report.table(table)
    await store.stopService()


async def benchmark(reactor: Any, report: Report, options: argparse.Namespace) -> None:
    if options.dsn:
        report.line(measuring.settings_of("as it is", options.dsn))
        await measure(reactor, report, options.dsn, options)
        return
    for mode in measuring.modes(options):
        with measuring.postgresql_server(report, mode, options) as server:
            await measure(reactor, report, server.dsn(), options)


def main() -> None:
    parser = measuring.with_postgresql(measuring.parser(__doc__), "durable")
    parser.add_argument("--days", type=int, default=3, help="of samples (%(default)s)")
    parser.add_argument(
        "--instances", type=int, default=INSTANCES, help="at least 8, 1 445 samples a day each (%(default)s)"
    )
    parser.add_argument("--dsn", help="a database that keeps the samples, instead of a private server")
    measuring.run(benchmark, parser.parse_args())


if __name__ == "__main__":
    main()
