"""How long the questions of Ceilometer's old clients take over HTTP, with windows and ranges that begin at any time.

100 resources of 20 projects have a sample of each of 5 meters every minute, for 2 000 minutes: a million samples, the last of
them less than two hours old. All hours that have ended are finalized, as in a store that runs. Samples are taken within
three seconds, 20 s after each minute. ``--sizes`` asks the same questions also of ten times the minutes and of ten times the
resources. The daemon, ``twistd meter-api``, is a process of its own; server, daemon and client share the machine.

Each answer is compared with that of SQL over the raw rows. Where DuckDB is installed (``pip install duckdb``), its time is
printed too: a columnar engine that has the same samples, without ids and signatures, in its own process.
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode

from benchmarks import measuring
from benchmarks.api import answers
from benchmarks.api import body
from benchmarks.api import daemons
from benchmarks.api import until_listening
from benchmarks.measuring import Report
from benchmarks.measuring import Table
from benchmarks.store_read import ONE
from benchmarks.store_read import RETAIN
from benchmarks.store_read import alike
from benchmarks.store_read import first_poll
from benchmarks.store_read import milliseconds
from benchmarks.store_read import opened
from meter.daemon.services import sleep
from meter.store import PostgresStore

MINUTES, RESOURCES = 2000, 100
SIZES = {"1": (1, 1), "time": (10, 1), "resources": (1, 10)}
"""By name, how many times the minutes and how many times the resources."""

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)

# Samples like those of a poll that the store itself has written: their series, metadata and forms.
EVERY_MINUTE = """
INSERT INTO sample
SELECT %(start)s + interval '1 min' * n + interval '20 s'
    + interval '1 ms' * mod(hashint4(x.resource_id * 7919 + n) + 2147483648, 3000),
    now(), gen_random_uuid(),
    CASE WHEN m.type = 'cumulative' THEN n * 1e9 + s.series_id ELSE mod(n * 7 + s.series_id, 100) END,
    s.metadata_id, s.series_id, s.wire_format_id, sha256(uuid_send(gen_random_uuid())), ''
FROM generate_series(%(from)s, %(to)s - 1) AS n CROSS JOIN sample s JOIN series x ON x.id = s.series_id JOIN meter m ON m.id = x.meter_id
WHERE s.timestamp = %(like)s
"""

PLAIN = """
CREATE TABLE plain AS
SELECT m.name AS meter, r.name AS resource, p.name AS project, s.timestamp, s.volume, d.document #>> '{flavor,name}' AS flavor
FROM sample s JOIN series x ON x.id = s.series_id JOIN meter m ON m.id = x.meter_id JOIN resource r ON r.id = x.resource_id
JOIN project p ON p.id = x.project_id JOIN metadata d ON d.id = s.metadata_id
"""

STANDARD = "max(volume), min(volume), avg(volume), sum(volume), count(*), min(timestamp), max(timestamp)"
METER = "cpu_util"
LARGE = {"metadata.flavor.name": "m1.large"}


@dataclass(frozen=True, slots=True)
class Question:
    """A question for statistics of one meter, as Ceilometer's clients ask it."""

    start: datetime | None = None
    end: datetime | None = None
    period: int | None = None
    groupby: str | None = None
    equals: Mapping[str, str] = field(default_factory=dict)
    meter: str = METER

    @property
    def path(self) -> str:
        """The path of the question with its parameters."""
        conditions = [(name, "eq", value) for name, value in self.equals.items()]
        conditions += [("timestamp", "ge", self.start.isoformat())] if self.start else []
        conditions += [("timestamp", "lt", self.end.isoformat())] if self.end else []
        asked = [(f"q.{part}", each[n]) for each in conditions for n, part in enumerate(("field", "op", "value"))]
        asked += [("groupby", self.groupby)] if self.groupby else []
        asked += [("period", str(self.period))] if self.period else []
        return f"/v2/meters/{self.meter}/statistics?{urlencode(asked)}"

    def sql(self, bin: str) -> str:
        """Return the same as SQL over the table ``plain``; ``bin`` is an expression of a stride and an origin."""
        columns = {"metadata.flavor.name": "flavor", "resource_id": "resource", "project_id": "project"}
        conditions = [
            f"meter = '{self.meter}'",
            *(f"{columns[name]} = '{value}'" for name, value in self.equals.items()),
        ]
        conditions += [f"timestamp >= '{self.start.isoformat()}'"] if self.start else []
        conditions += [f"timestamp < '{self.end.isoformat()}'"] if self.end else []
        where = " AND ".join(conditions)
        origin = f"'{self.start.isoformat()}'" if self.start else f"(SELECT min(timestamp) FROM plain WHERE {where})"
        window = bin.format(seconds=self.period, origin=origin) if self.period else "NULL"
        group = columns[self.groupby] if self.groupby else "NULL"
        return f"SELECT {window} AS w, {group} AS g, {STANDARD} FROM plain WHERE {where} GROUP BY 1, 2"

    def row(self, statistics: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return a row of the answer with the columns of the SQL."""
        window = _time(statistics["period_start"]) if self.period else None
        group = statistics["groupby"][self.groupby] if self.groupby else None
        values = [statistics[name] for name in ("max", "min", "avg", "sum", "count")]
        return (window, group, *values, _time(statistics["duration_start"]), _time(statistics["duration_end"]))


def questions(end: datetime, minutes: int) -> dict[str, Question]:
    """Return the questions about statistics, of samples of that many ``minutes`` before ``end``."""
    start = end - minutes * MINUTE
    begin = start + 3 * HOUR
    return {
        "all": Question(),
        "per hour, start on the hour": Question(start=start, end=end, period=3600),
        "per hour, no start": Question(period=3600),
        "34 windows, no start": Question(period=3600 * minutes // MINUTES),
        "per hour, 8 h": Question(start=begin, end=begin + 8 * HOUR, period=3600),
        "per hour, 8 h shifted by 7 minutes": Question(
            start=begin + 7 * MINUTE, end=begin + 8 * HOUR + 7 * MINUTE, period=3600
        ),
        "per 10 minutes": Question(start=start, end=end, period=600),
        "per 10 minutes, no start": Question(period=600),
        "8 h": Question(start=begin, end=begin + 8 * HOUR),
        "8 h with odd ends": Question(start=begin + 7 * MINUTE, end=begin + 8 * HOUR + 13 * MINUTE),
        "metadata, 8 h": Question(start=begin, end=begin + 8 * HOUR, equals=LARGE),
        "metadata, 8 h with odd ends": Question(
            start=begin + 7 * MINUTE, end=begin + 8 * HOUR + 13 * MINUTE, equals=LARGE
        ),
        "metadata, 1 h with odd ends": Question(
            start=begin + HOUR + 7 * MINUTE, end=begin + 2 * HOUR + 7 * MINUTE, equals=LARGE
        ),
        "metadata, 10 minutes within an hour": Question(
            start=begin + HOUR + 20 * MINUTE, end=begin + HOUR + 30 * MINUTE, equals=LARGE
        ),
        "one resource": Question(equals={"resource_id": ONE}),
        "one resource, odd ends": Question(start=start + 7 * MINUTE, end=end - 7 * MINUTE, equals={"resource_id": ONE}),
        "one resource per hour, no start": Question(period=3600, equals={"resource_id": ONE}),
        "a project per hour, no start": Question(period=3600, equals={"project_id": f"{7:032x}"}),
        "per resource": Question(groupby="resource_id"),
        "per resource and hour": Question(start=start, end=end, period=3600, groupby="resource_id"),
        "per project and hour, no start": Question(period=3600, groupby="project_id"),
    }


LISTS: dict[str, tuple[str, str, Callable[[Any], object]]] = {
    "all resources": (
        "/v2/resources?limit=10000",
        "SELECT resource, project, min(timestamp), max(timestamp), array_agg(DISTINCT meter ORDER BY meter) FROM plain GROUP BY 1, 2",
        lambda each: (
            each["resource_id"],
            each["project_id"],
            _time(each["first_sample_timestamp"]),
            _time(each["last_sample_timestamp"]),
            sorted({link["rel"] for link in each["links"]} - {"self"}),
        ),
    ),
    "100 resources": (
        "/v2/resources?limit=100",
        "SELECT DISTINCT resource, project FROM plain ORDER BY 1 LIMIT 100",
        lambda each: (each["resource_id"], each["project_id"]),
    ),
    "all meters": (
        "/v2/meters?limit=10000",
        "SELECT DISTINCT meter, resource, project FROM plain",
        lambda each: (each["name"], each["resource_id"], each["project_id"]),
    ),
    "100 meters": (
        "/v2/meters?limit=100",
        "SELECT DISTINCT meter, resource, project FROM plain ORDER BY 1, 2 LIMIT 100",
        lambda each: (each["name"], each["resource_id"], each["project_id"]),
    ),
    "unique meters": ("/v2/meters?unique=True", "SELECT DISTINCT meter FROM plain", lambda each: (each["name"],)),
}
"""Lists by name: the path, the same as SQL, and what of an entry is compared."""


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


async def fill(store: PostgresStore, dsn: str, minutes: int, resources: int) -> None:
    """Write the samples, with metadata that change once in the middle, and finalize the hours that have ended."""
    end = datetime.now(UTC).replace(minute=20, second=0, microsecond=0) - HOUR
    start = end - minutes * MINUTE
    await store.maintenance._partitions.ensure([start + n * timedelta(days=7) for n in range(minutes // 10_080 + 2)])
    half = minutes // 2
    for first, last in ((0, half), (half, minutes)):
        like = start - timedelta(days=1) + first * MINUTE  # the poll that the others are made after
        poll = first_poll(like, resources)
        for n in range(0, len(poll), 1000):
            await store.write(poll[n : n + 1000])
        measuring.rows(dsn, EVERY_MINUTE, {"start": start, "from": first, "to": last, "like": like})
        measuring.rows(dsn, "DELETE FROM sample WHERE timestamp = %s", [like])
    measuring.rows(dsn, RETAIN)
    await store.maintenance.finalize(end)
    measuring.rows(dsn, PLAIN)
    measuring.rows(dsn, "VACUUM (ANALYZE)")


def duckdb_connection(dsn: str, directory: Path) -> Any:
    """Return a connection of DuckDB that has the table ``plain``; ``None`` if DuckDB is not installed."""
    try:
        duckdb = importlib.import_module("duckdb")
    except ImportError:
        return None
    file = directory / "plain.csv"
    import psycopg2

    with psycopg2.connect(dsn) as connection, connection.cursor() as cursor, file.open("w") as output:
        cursor.copy_expert(
            "COPY (SELECT meter, resource, project, timestamp AT TIME ZONE 'UTC', volume, flavor FROM plain ORDER BY 1, 2, 4) TO STDOUT CSV",
            output,
        )
    made = duckdb.connect()
    made.execute("SET TimeZone = 'UTC'")
    made.execute(
        "CREATE TABLE plain (meter VARCHAR, resource VARCHAR, project VARCHAR, timestamp TIMESTAMP, volume DOUBLE, flavor VARCHAR)"
    )
    made.execute(f"COPY plain FROM '{file}' (FORMAT csv)")
    file.unlink()
    return made


class Asking:
    """Asks one daemon on ``port``, and compares with SQL over the table ``plain``."""

    def __init__(
        self, reactor: Any, report: Report, table: Table, dsn: str, port: int, options: argparse.Namespace
    ) -> None:
        self._reactor = reactor
        self._report = report
        self._table = table
        self._dsn = dsn
        self._port = port
        self._runs = options.runs

    async def ask(
        self, name: str, path: str, sql: str, row: Callable[[Any], object], columnar: Callable[[], object] | None
    ) -> float:
        """Ask once for comparison, then measure; return the median in milliseconds."""
        try:
            given = json.loads(await self._first(path))
        except HTTPError as error:
            self._report.compare(name, "an answer", f"status {error.code}: {error.read().decode()[:200]}")
            return 0.0
        expected = measuring.rows(self._dsn, sql)
        found = [row(each) for each in given]
        shown = ("equal", "equal") if alike(expected, found) else (sorted(map(str, expected)), sorted(map(str, found)))
        self._report.compare(name, *shown)
        await answers(self._port, path, 2)
        for seconds, _ in await answers(self._port, path, self._runs):
            base = None
            if columnar is not None:
                base = f"{name}, DuckDB"
                took, _ = await milliseconds(_awaited(columnar))
                self._table.add(base, took, "ms")
            self._table.add(name, seconds * 1000, "ms", base)
        spread = self._table.spread(name)
        return spread.median if spread else 0.0

    async def _first(self, path: str) -> bytes:
        """Return an answer, once the daemon is connected to the database."""
        while True:
            try:
                return await body(self._port, path)
            except HTTPError as error:
                if error.code != 503:
                    raise
                await sleep(self._reactor, 0.1)


async def _awaited(work: Callable[[], object]) -> object:
    return work()


async def measure(
    reactor: Any, report: Report, dsn: str, name: str, options: argparse.Namespace
) -> Mapping[str, float]:
    """Measure all questions of one size; return the medians in milliseconds."""
    times, wider = SIZES[name]
    minutes, resources = options.minutes * times, options.resources * wider
    if not measuring.rows(dsn, "SELECT 1 FROM pg_class WHERE relname = 'plain'"):
        store = await opened(reactor, dsn, maintain=True)
        await fill(store, dsn, minutes, resources)
        await store.stopService()
    [(count, end)] = measuring.rows(dsn, "SELECT count(*), date_trunc('minute', max(timestamp)) + '1 min' FROM sample")
    report.line(f"samples: {count}")
    table = Table(f"{resources} resources, {minutes} minutes")
    medians = {}
    with measuring.directory() as directory:
        columnar = duckdb_connection(dsn, directory)
        with daemons(directory / "one", dsn, 1) as (port, processes):
            await until_listening(reactor, directory / "one", processes)
            asking = Asking(reactor, report, table, dsn, port, options)
            for question, asked in questions(end, minutes).items():
                if options.only and not any(part in question for part in options.only):
                    continue
                of_postgresql = "date_bin('{seconds} s', timestamp, {origin})"
                of_duckdb = asked.sql(
                    "time_bucket(INTERVAL '{seconds} s', timestamp, CAST({origin} AS TIMESTAMP))"
                ).replace("+00:00", "")
                fetch = columnar and (lambda sql=of_duckdb: columnar.execute(sql).fetchall())
                medians[question] = await asking.ask(question, asked.path, asked.sql(of_postgresql), asked.row, fetch)
            for question, (path, sql, row) in LISTS.items():
                if options.only and not any(part in question for part in options.only):
                    continue
                medians[question] = await asking.ask(question, path, sql, row, None)
    report.table(table)
    return medians


async def benchmark(reactor: Any, report: Report, options: argparse.Namespace) -> None:
    medians: dict[str, Mapping[str, float]] = {}
    if options.dsn:
        await measure(reactor, report, options.dsn, options.sizes[0], options)
        return
    for mode in measuring.modes(options):
        for size in options.sizes:
            with measuring.postgresql_server(report, mode, options) as server:
                medians[size] = await measure(reactor, report, server.dsn(), size, options)
    if "1" in medians and len(medians) > 1:
        for size in [each for each in medians if each != "1"]:
            report.line()
            report.line(f"times as long as of {options.resources} resources and {options.minutes} minutes: {size}")
            for name, value in medians[size].items():
                report.line(f"{name:40}  {value / medians['1'][name]:.2f}")


def main() -> None:
    parser = measuring.with_postgresql(measuring.parser(__doc__, runs=9), "not-durable")
    parser.add_argument("--minutes", type=int, default=MINUTES, help="of samples, at least 700 (%(default)s)")
    parser.add_argument("--resources", type=int, default=RESOURCES, help="at least 20 (%(default)s)")
    parser.add_argument(
        "--sizes",
        nargs="*",
        choices=SIZES,
        default=["1"],
        help="1, ten times the time, ten times the resources (%(default)s)",
    )
    parser.add_argument(
        "--dsn", help="a database that keeps the samples, instead of a private server; asked the first of the sizes"
    )
    parser.add_argument("--only", nargs="*", default=[], help="questions whose names contain one of these texts")
    measuring.run(benchmark, parser.parse_args())


if __name__ == "__main__":
    main()
