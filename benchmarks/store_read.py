"""How fast the store answers, beside the best SQL over the raw rows in the same run; and how large a sample is, all in.

230 instances of 20 projects are polled every 300 s, 5 meters each (two cumulative, with restarts), with metadata that
change once a day: 3 days are a million samples, 30 are ten. The samples are made in SQL, a day at a time, and kept where a
DSN is given; hours and days are settled, weeks that are over compact. Prints milliseconds, the best of a few, and ratios;
of more than 3 days also what the last 3 of them cost, to compare with a run in which they are all there is.

    .venv/bin/python -m benchmarks.store_read [DAYS [DSN]]

Seen on two cores: see docs/scaling.rst.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Coroutine
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from meter.daemon.services import sleep
from meter.identity import WEEK
from meter.identity import week_of
from meter.message import read
from meter.message import sign
from meter.query import Aggregate
from meter.query import MetadataMatch
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.sample import Sample
from meter.signature import keyring
from meter.store import PostgresStore
from tests.servers.postgresql import PostgreSQL
from tests.servers.postgresql import installed

INSTANCES, PROJECTS, TIMES = 230, 20, 7
METERS = (
    ("cpu", "cumulative", "ns"),
    ("disk.read.bytes", "cumulative", "B"),
    ("memory.usage", "gauge", "MB"),
    ("vcpus", "gauge", "vcpu"),
    ("cpu_util", "gauge", "%"),
)
ONE = "00000000-0000-4000-8000-000000000007"
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)

# A day of samples like those of a first poll, which the store itself has written: their series, metadata and forms.
A_DAY = """
INSERT INTO sample
SELECT %(day)s + interval '300 s' * poll + interval '1 ms' * (s.series_id %% 1000), now(), gen_random_uuid(),
    CASE WHEN m.type = 'cumulative' THEN (poll + 288 * (%(n)s %% 4)) * 1e9 + s.series_id ELSE (poll * 7 + s.series_id) %% 100 END,
    s.metadata_id, s.series_id, s.wire_format_id, sha256(uuid_send(gen_random_uuid())), ''
FROM generate_series(0, 287) AS poll CROSS JOIN sample s JOIN series x ON x.id = s.series_id JOIN meter m ON m.id = x.meter_id
WHERE s.timestamp = %(like)s
"""

OF_CPU = "series_id = ANY(ARRAY(SELECT x.id FROM series x JOIN meter m ON m.id = x.meter_id WHERE m.name = 'cpu'))"
STANDARD = "max(volume), min(volume), avg(volume), sum(volume), count(*), min(timestamp), max(timestamp)"


def first_poll(at: datetime):
    """Return a sample of each meter and instance, as they are read from the bus."""
    keys = keyring(["a secret of the benchmark"])
    return [
        read(
            sign(
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
                ),
                keys,
                "openstack",
            ),
            keys,
        )
        for number in range(INSTANCES)
        for name, type_, unit in METERS
    ]


async def fill(store: PostgresStore, days: int) -> None:
    """Have ``days`` of samples, up to today, and settle them."""
    pool = store.maintenance._pool
    for n in range(days):
        day = TODAY - timedelta(days=days - n)
        like = day - timedelta(microseconds=1)  # the poll that the others are made after
        if (await store.write(first_poll(like))).stored and not await pool.rows(
            "SELECT FROM sample WHERE timestamp >= %s AND timestamp < %s LIMIT 1",
            [day + timedelta(hours=1), day + WEEK / 7],
        ):
            await store.maintenance._partitions.ensure([day])
            made = f"WITH made AS ({A_DAY} RETURNING 1) SELECT count(*) FROM made"
            await pool.rows(made, {"day": day, "like": like, "n": n})
        sys.stderr.write(f"\rday {n + 1} of {days}")
    begin = time.perf_counter()
    finalized = await store.maintenance.finalize(TODAY)
    sys.stderr.write(f"\rsettled {finalized} hours and days in {time.perf_counter() - begin:.1f} s\n")
    await store.maintenance.compact(week_of(TODAY))
    await pool.rows("SELECT 1")


async def best(ask: Callable[[], Awaitable[object]]) -> float:
    """Return the shortest time, in milliseconds."""
    times = []
    for _ in range(TIMES):
        begin = time.perf_counter()
        await ask()
        times.append(time.perf_counter() - begin)
    return min(times) * 1000


async def opened(reactor, dsn: str, *, maintain: bool = False, readers: int = 1, writers: int = 1) -> PostgresStore:
    """Return a store that is ready, and keeps house only when it is told to."""
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


def statistics(start: datetime, end: datetime) -> dict[str, tuple[StatisticsQuery, str]]:
    """Return questions for statistics of a meter, and the best SQL over samples that we know for each."""
    range_ = SampleFilter(equals={"meter": "cpu"}, start=start, end=end)
    within = f"FROM sample s WHERE timestamp >= '{start}' AND timestamp < '{end}' AND {OF_CPU}"
    owned = within.replace("sample s", "sample s JOIN series x ON x.id = s.series_id")
    described = within.replace("sample s", "sample s JOIN metadata d ON d.id = s.metadata_id")
    flavor = "d.document #> '{flavor,name}'"
    some = (
        *(Aggregate(name) for name in ("max", "min", "avg", "sum", "count", "stddev")),
        Aggregate("cardinality", "resource_id"),
    )
    steps = tuple(Aggregate(name) for name in ("increase", "rate", "integral"))
    return {
        "everything": (StatisticsQuery(filter=range_), f"SELECT {STANDARD} {within}"),
        "per hour": (
            StatisticsQuery(filter=range_, period=3600),
            f"SELECT date_bin('1 h', timestamp, '{start}'), {STANDARD} {within} GROUP BY 1 ORDER BY 1",
        ),
        "per resource": (
            StatisticsQuery(filter=range_, groupby=("resource_id",)),
            f"SELECT resource_id, {STANDARD} {owned} GROUP BY 1 ORDER BY 1",
        ),
        "per project": (
            StatisticsQuery(filter=range_, groupby=("project_id",)),
            f"SELECT project_id, {STANDARD} {owned} GROUP BY 1 ORDER BY 1",
        ),
        "per resource and hour": (
            StatisticsQuery(filter=range_, groupby=("resource_id",), period=3600),
            f"SELECT date_bin('1 h', timestamp, '{start}'), resource_id, {STANDARD} {owned} GROUP BY 1, 2 ORDER BY 1, 2",
        ),
        "stddev, cardinality": (
            StatisticsQuery(filter=range_, aggregates=some),
            f"SELECT {STANDARD}, stddev_pop(volume), count(DISTINCT resource_id) {owned}",
        ),
        "increase, integral": (
            StatisticsQuery(filter=range_, aggregates=steps),
            "SELECT sum(CASE WHEN volume >= b THEN volume - b WHEN b IS NOT NULL THEN volume END), sum(b * extract(epoch FROM timestamp - t))"
            f" FROM (SELECT volume, timestamp, lag(volume) OVER w AS b, lag(timestamp) OVER w AS t {within}"
            " WINDOW w AS (PARTITION BY series_id ORDER BY timestamp)) AS _",
        ),
        "metadata filter": (
            StatisticsQuery(filter=replace(range_, metadata=(MetadataMatch("flavor.name", "m1.large"),))),
            f"SELECT {STANDARD} {described} AND {flavor} = '\"m1.large\"'",
        ),
        "per metadata": (
            StatisticsQuery(filter=range_, groupby=("metadata.flavor.name",)),
            f"SELECT {flavor}, {STANDARD} {described} GROUP BY 1 ORDER BY 1",
        ),
        "one resource, odd ends": (
            StatisticsQuery(
                filter=replace(
                    range_,
                    equals={"meter": "cpu", "resource_id": ONE},
                    start=start + timedelta(minutes=7),
                    end=end - timedelta(minutes=7),
                )
            ),
            f"SELECT {STANDARD} {within} AND series_id = ANY(ARRAY("
            f"SELECT x.id FROM series x JOIN resource r ON r.id = x.resource_id WHERE r.name = '{ONE}'))",
        ),
    }


def pages(store: PostgresStore, end: datetime) -> dict[str, tuple[Callable[[], Awaitable[object]], str]]:
    """Return other questions, and the best SQL that we know for each."""
    everyone = SampleFilter()
    of_one = SampleFilter(equals={"resource_id": ONE})
    lately = end - timedelta(hours=3)
    newest = "SELECT * FROM sample s WHERE s.series_id = x.id {} ORDER BY s.timestamp DESC LIMIT {}"
    oldest = "SELECT s.timestamp FROM sample s WHERE s.series_id = x.id {} ORDER BY s.timestamp LIMIT 1"
    resources = (
        "SELECT r.name, min(oldest.timestamp), max(s.timestamp), array_agg(DISTINCT m.name),"
        " (array_agg(d.text ORDER BY s.timestamp DESC))[1], max(p.name), max(u.name)"
        " FROM (SELECT * FROM resource ORDER BY name LIMIT 100) r JOIN series x ON x.resource_id = r.id"
        ' JOIN meter m ON m.id = x.meter_id LEFT JOIN project p ON p.id = x.project_id LEFT JOIN "user" u ON u.id = x.user_id'
        f" CROSS JOIN LATERAL ({newest}) s CROSS JOIN LATERAL ({oldest}) oldest JOIN metadata d ON d.id = s.metadata_id"
        " GROUP BY r.name ORDER BY r.name"
    )
    since = f"AND s.timestamp >= '{lately}'"
    return {
        "last 100 of a resource": (
            lambda: store.samples(of_one, 100),
            f"SELECT s.*, d.text FROM series x CROSS JOIN LATERAL ({newest.format('', 100)}) s"
            " JOIN metadata d ON d.id = s.metadata_id"
            f" WHERE x.resource_id = (SELECT id FROM resource WHERE name = '{ONE}') ORDER BY s.timestamp DESC LIMIT 100",
        ),
        "last 100 of all": (
            lambda: store.samples(everyone, 100),
            "SELECT s.*, d.text FROM sample s JOIN metadata d ON d.id = s.metadata_id ORDER BY s.timestamp DESC LIMIT 100",
        ),
        "100 meters": (
            lambda: store.meters(everyone, 100, False),
            "SELECT m.name, m.type, m.unit, r.name, u.name, p.name FROM series x JOIN meter m ON m.id = x.meter_id"
            " JOIN resource r ON r.id = x.resource_id LEFT JOIN project p ON p.id = x.project_id"
            f' LEFT JOIN "user" u ON u.id = x.user_id WHERE EXISTS ({newest.format("", 1)}) ORDER BY 1, 4 LIMIT 100',
        ),
        "unique meters": (
            lambda: store.meters(everyone, 100, True),
            "SELECT name, type, unit FROM meter m WHERE EXISTS ("
            f"SELECT FROM series x WHERE x.meter_id = m.id AND EXISTS ({newest.format('', 1)})) ORDER BY 1, 2, 3 LIMIT 100",
        ),
        "100 resources": (lambda: store.resources(everyone, 100), resources.format("", 1, "")),
        "100 resources of 3 hours": (
            lambda: store.resources(SampleFilter(start=lately), 100),
            resources.format(since, 1, since),
        ),
    }


async def measure(reactor, dsn: str, days: int) -> None:
    store = await opened(reactor, dsn, maintain=True)
    await fill(store, days)
    pool = store.maintenance._pool

    async def vacuum(session):
        await session.count("COMMIT")
        await session.count("VACUUM (ANALYZE)")
        await session.count("BEGIN")

    await pool.run(vacuum)
    [[count]] = await pool.rows("SELECT count(*) FROM sample")
    [[size]] = await pool.rows(
        "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    [[rollups]] = await pool.rows("SELECT pg_total_relation_size('rollup')")
    print(f"{count} samples, {size / count:.0f} bytes each in all, {rollups / count:.0f} of them rollups")
    for asked in sorted({days, 3}, reverse=True):
        print(f"{f'statistics of {asked} days':28} {'raw SQL':>10} {'store':>10} {'ratio':>7}")
        for name, (query, sql) in statistics(TODAY - timedelta(days=asked), TODAY).items():
            raw = await best(lambda sql=sql: pool.rows(sql))
            told = await best(lambda query=query: store.statistics(query))
            print(f"{name:28} {raw:7.1f} ms {told:7.1f} ms {raw / told:6.1f}x")
    print(f"{'samples, meters, resources':28} {'raw SQL':>10} {'store':>10} {'ratio':>7}")
    for name, (ask, sql) in pages(store, TODAY).items():
        raw, told = await best(lambda sql=sql: pool.rows(sql)), await best(ask)
        print(f"{name:28} {raw:7.1f} ms {told:7.1f} ms {raw / told:6.1f}x")
    await store.stopService()


def on_a_server(measure: Callable[[str], Coroutine[Any, Any, None]], *dsn: str) -> Deferred[None]:
    """Fire when ``measure`` is done with the database at ``dsn``, or with a new one on a server of its own."""
    if dsn:
        return Deferred.fromCoroutine(measure(*dsn))
    directory = tempfile.TemporaryDirectory(prefix="meter-benchmark-")
    server = PostgreSQL(installed(), Path(directory.name))
    server.start()

    def clean(result):
        server.kill()
        directory.cleanup()
        return result

    return Deferred.fromCoroutine(measure(server.dsn())).addBoth(clean)


def main(reactor, days: str = "3", *dsn: str) -> Deferred[None]:
    return on_a_server(lambda dsn: measure(reactor, dsn, int(days)), *dsn)


if __name__ == "__main__":
    react(main, sys.argv[1:])
