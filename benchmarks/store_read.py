"""How fast the store answers, beside the best SQL over the raw rows in the same run; and how large a sample is, all in.

230 instances of 20 projects are polled every 300 s, 5 meters each (two cumulative, with restarts), with metadata that
change once a day: 3 days are a million samples, 30 are ten. The samples are made in SQL, a day at a time, and kept where a
DSN is given; all but the last hours are settled. Prints milliseconds, the best of a few, and ratios.

    .venv/bin/python -m benchmarks.store_read [DAYS [DSN]]

Seen on two busy cores with 3 days: see docs/scaling.rst.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Awaitable
from collections.abc import Callable
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from meter.message import read
from meter.message import sign
from meter.query import Aggregate
from meter.query import MetadataMatch
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.sample import Sample
from meter.services import sleep
from meter.signature import keyring
from meter.store import PostgresStore
from meter.store.partitions import WEEK
from tests.servers.postgresql import PostgreSQL
from tests.servers.postgresql import installed

INSTANCES, PROJECTS, TIMES = 230, 20, 9
METERS = (
    ("cpu", "cumulative", "ns"),
    ("disk.read.bytes", "cumulative", "B"),
    ("memory.usage", "gauge", "MB"),
    ("vcpus", "gauge", "vcpu"),
    ("cpu_util", "gauge", "%"),
)
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)

# A day of samples like those of a first poll, which the store itself has written: their series, metadata and forms.
A_DAY = """
INSERT INTO sample
SELECT %(day)s + interval '300 s' * poll + interval '1 ms' * (s.series_id %% 1000), now(), gen_random_uuid(),
    CASE WHEN m.type = 'cumulative' THEN (poll + 288 * (%(n)s %% 4)) * 1e9 + s.series_id ELSE (poll * 7 + s.series_id) %% 100 END,
    s.metadata_id, s.series_id, s.form_id, sha256(uuid_send(gen_random_uuid())), ''
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
    pool = store.keeping._pool
    for n in range(days):
        day = TODAY - timedelta(days=days - n)
        like = day - timedelta(microseconds=1)  # the poll that the others are made after
        if (await store.write(first_poll(like))).stored and not await pool.rows(
            "SELECT FROM sample WHERE timestamp >= %s AND timestamp < %s LIMIT 1",
            [day + timedelta(hours=1), day + WEEK / 7],
        ):
            await store.keeping._partitions.cover([day])
            made = f"WITH made AS ({A_DAY} RETURNING 1) SELECT count(*) FROM made"
            await pool.rows(made, {"day": day, "like": like, "n": n})
        sys.stderr.write(f"\rday {n + 1} of {days}")
    begin = time.perf_counter()
    settled = await store.keeping.settle(TODAY)
    sys.stderr.write(f"\rsettled {settled} hours and days in {time.perf_counter() - begin:.1f} s\n")
    await pool.rows("SELECT 1")


async def best(ask: Callable[[], Awaitable[object]]) -> float:
    """Return the shortest time, in milliseconds."""
    times = []
    for _ in range(TIMES):
        begin = time.perf_counter()
        await ask()
        times.append(time.perf_counter() - begin)
    return min(times) * 1000


async def measure(reactor, dsn: str, days: int) -> None:
    store = PostgresStore(
        reactor, dsn, clock=reactor, migrate=True, readers=1, writers=1, keep=True, statement_timeout_seconds=600
    )
    store.keeping._periodic.startService = lambda: None
    store.startService()
    while not (store.readiness().ready and store.keeping._pool.ready):
        await sleep(reactor, 0.01)
    await fill(store, days)
    pool = store.keeping._pool

    async def vacuum(session):
        await session.count("COMMIT")
        await session.count("VACUUM (ANALYZE)")
        await session.count("BEGIN")

    await pool.run(vacuum)
    start, end = TODAY - timedelta(days=days), TODAY
    range_ = SampleFilter(equals={"meter": "cpu"}, start=start, end=end)
    within = f"FROM sample s WHERE timestamp >= '{start}' AND timestamp < '{end}' AND {OF_CPU}"
    owned = within.replace("sample s", "sample s JOIN series x ON x.id = s.series_id")
    some = (
        *(Aggregate(name) for name in ("max", "min", "avg", "sum", "count", "stddev")),
        Aggregate("cardinality", "resource_id"),
    )
    steps = tuple(Aggregate(name) for name in ("increase", "rate", "integral"))
    one = "00000000-0000-4000-8000-000000000007"
    cases = {
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
            StatisticsQuery(
                filter=SampleFilter(
                    equals={"meter": "cpu"}, start=start, end=end, metadata=(MetadataMatch("flavor.name", "m1.large"),)
                )
            ),
            f"SELECT {STANDARD} {within} AND metadata_id IN (SELECT id FROM metadata WHERE document #> '{{flavor,name}}' = '\"m1.large\"')",
        ),
        "one resource, an odd range": (
            StatisticsQuery(
                filter=SampleFilter(equals={"meter": "cpu", "resource_id": one}, start=start + timedelta(minutes=7))
            ),
            f"SELECT {STANDARD} {within} AND series_id = ANY(ARRAY(SELECT x.id FROM series x JOIN resource r ON r.id = x.resource_id WHERE r.name = '{one}'))",
        ),
    }
    [[count]] = await pool.rows("SELECT count(*) FROM sample")
    [[size]] = await pool.rows(
        "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    [[rollups]] = await pool.rows("SELECT pg_total_relation_size('rollup')")
    print(f"{count} samples, {size / count:.0f} bytes each in all, {rollups / count:.0f} of them rollups")
    print(f"{'statistics':28} {'raw SQL':>10} {'store':>10} {'ratio':>7}")
    for name, (query, sql) in cases.items():
        raw = await best(lambda sql=sql: pool.rows(sql))
        asked = await best(lambda query=query: store.statistics(query))
        print(f"{name:28} {raw:7.1f} ms {asked:7.1f} ms {raw / asked:6.1f}x")
    print(f"{'samples, meters, resources':28}")
    everyone = SampleFilter()
    of_one = SampleFilter(equals={"resource_id": one})
    for name, ask in {
        "last 100 of a resource": lambda: store.samples(of_one, 100),
        "last 100 of all": lambda: store.samples(everyone, 100),
        "100 meters": lambda: store.meters(everyone, 100, False),
        "unique meters": lambda: store.meters(everyone, 100, True),
        "100 resources": lambda: store.resources(everyone, 100),
        "100 resources of 3 hours": lambda: store.resources(SampleFilter(start=end - timedelta(hours=3)), 100),
    }.items():
        print(f"{name:28} {'':10} {await best(ask):7.1f} ms")
    await store.stopService()


def main(reactor, *arguments: str) -> Deferred[None]:
    days = int(arguments[0]) if arguments else 3
    if len(arguments) > 1:
        return Deferred.fromCoroutine(measure(reactor, arguments[1], days))
    directory = tempfile.TemporaryDirectory(prefix="meter-benchmark-")
    server = PostgreSQL(installed(), Path(directory.name))
    server.start()

    def clean(result):
        server.kill()
        directory.cleanup()
        return result

    return Deferred.fromCoroutine(measure(reactor, server.dsn(), days)).addBoth(clean)


if __name__ == "__main__":
    react(main, sys.argv[1:])
