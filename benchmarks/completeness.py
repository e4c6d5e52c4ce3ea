"""How fast the completeness ledger answers, beside counting the samples in SQL in the same run.

A region of hosts is polled every 300 s, 20 meters of each instance. Its run lengths, exceptions and rollups of each hour and day are made
in SQL, as the collector and maintenance make them, without the samples themselves: the ledger must not count samples. One project has
58 instances by default: 10 million samples in 30 days. Its samples alone are made too, with ``--days`` of ``--counted-days``,
to compare with. One host missed a day in the middle.

Each answer from summaries of days is compared with the same answer computed from run lengths and rollups, for the last
``--compared-days``. The region is also asked for where only hours are summarized.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from benchmarks import measuring
from benchmarks.measuring import Report
from benchmarks.measuring import Table
from benchmarks.store_read import TODAY
from benchmarks.store_read import milliseconds
from benchmarks.store_read import opened
from meter.completeness_query import CompletenessQuery
from meter.completeness_query import CompletenessRow
from meter.store import PostgresStore

METERS = 20
POLLS = 288
"""Polls in a day."""

LARGE = "large"
"""The project whose month is asked for."""

# Each project but the large one has 20 instances, which lie on consecutive hosts.
FILL_NAMES = """
INSERT INTO meter (name, type, unit) SELECT 'meter.' || n, 'gauge', 'x' FROM generate_series(1, %(meters)s) AS n;
INSERT INTO resource (name) SELECT 'vm-' || lpad(n::text, 6, '0') FROM generate_series(1, %(instances)s) AS n;
INSERT INTO project (name) SELECT 'large' UNION ALL SELECT 'project-' || n FROM generate_series(1, %(instances)s / 20 + 1) AS n;
INSERT INTO agent (name, daemon, host) SELECT 'meter-compute@hv' || n, 'meter-compute', 'hv' || n FROM generate_series(1, %(hosts)s) AS n;
INSERT INTO meter_list (hash, meters) SELECT 'x', array_agg(name ORDER BY name) FROM meter;
CREATE TABLE placed AS SELECT r.id AS resource_id, r.name AS resource, p.id AS project_id, p.name AS project, a.id AS agent_id
FROM resource r
JOIN project p ON p.name = CASE WHEN r.id <= %(large)s THEN 'large' ELSE 'project-' || r.id / 20 END
JOIN agent a ON a.host = 'hv' || 1 + r.id %% %(hosts)s;
INSERT INTO metered_resource (agent_id, pollster, interval, resource, project, meter_list_id, first_due)
SELECT agent_id, 'all', 300, resource, project, 1, %(start)s FROM placed;
INSERT INTO series (meter_id, resource_id, project_id, polling_interval)
SELECT m.id, placed.resource_id, placed.project_id, 300 FROM placed CROSS JOIN meter m ORDER BY m.id, placed.resource_id;
INSERT INTO cycle_run (agent_id, boot, interval, first_sequence, first_due, last_due, cycles, pollsters)
SELECT a.id, gen_random_uuid(), 300, 1, day, day + interval '86100 s', %(polls)s, '{all}'
FROM agent a CROSS JOIN generate_series(%(start)s, %(end)s::timestamptz - interval '1 day', interval '24 hours') AS day
WHERE a.host <> 'hv1' OR day <> %(missed)s
"""

ROLLUPS = """
INSERT INTO rollup (start, first, last, count, min_volume, max_volume, sum_volume, squared_deviations, first_volume, last_volume,
    increase, integral, series_id, hours, metadata_run, metadata_id, overlap)
SELECT period, period, period + make_interval(hours => %(hours)s, secs => -300), 12 * %(hours)s, 1, 1, 12 * %(hours)s, 0, 1, 1, 0,
    %(hours)s, x.id, %(hours)s, 1, 1, 0
FROM series x JOIN placed ON placed.resource_id = x.resource_id JOIN agent a ON a.id = placed.agent_id
CROSS JOIN generate_series(%(day)s::timestamptz, %(day)s::timestamptz + interval '23 hours', make_interval(hours => %(hours)s)) AS period
WHERE x.resource_id > 0 AND (a.host <> 'hv1' OR %(day)s::timestamptz <> %(missed)s::timestamptz)
ORDER BY x.meter_id, x.id
"""

FINAL = """
INSERT INTO final_period (start, hours)
SELECT period, %(hours)s FROM generate_series(%(start)s, %(end)s::timestamptz - interval '1 hour', make_interval(hours => %(hours)s)) AS period
"""

SAMPLES = """
INSERT INTO sample
SELECT %(day)s + interval '300 s' * poll, now(), gen_random_uuid(), 1, 1, x.id, 1, '', ''
FROM generate_series(0, 287) AS poll CROSS JOIN series x JOIN placed ON placed.resource_id = x.resource_id
WHERE placed.project = 'large'
"""

COUNTED = """
SELECT count(*) FROM sample s WHERE s.timestamp >= %s AND s.timestamp < %s
AND s.series_id = ANY(ARRAY(SELECT x.id FROM series x JOIN project p ON p.id = x.project_id WHERE p.name = 'large'))
"""


async def execute(store: PostgresStore, statement: str, parameters: Any = None) -> None:
    async def transaction(session: Any) -> None:
        await session.count(statement, parameters)

    await store.maintenance._pool.run(transaction)


async def fill(store: PostgresStore, dsn: str, options: argparse.Namespace) -> None:
    """Make the region, up to today."""
    start = TODAY - timedelta(days=options.days)
    missed = start + timedelta(days=options.days // 2)
    common = {"start": start, "end": TODAY, "missed": missed, "meters": METERS, "polls": POLLS}
    sizes = {"instances": options.instances, "hosts": options.hosts, "large": options.large}
    await execute(store, FILL_NAMES, {**common, **sizes})
    for n in range(options.days):
        day = start + timedelta(days=n)
        # Hours of the last days only: nothing reads those of days that are final.
        for hours in (24, 1) if n >= options.days - 2 else (24,):
            await execute(store, ROLLUPS, {**common, "hours": hours, "day": day})
        if n >= options.days - options.counted_days:
            await store.maintenance._partitions.ensure([day])
            await execute(store, SAMPLES, {"day": day})
    for hours in (1, 24):
        await execute(store, FINAL, {**common, "hours": hours})
    await execute(store, "DELETE FROM completeness_change")
    measuring.rows(dsn, "VACUUM (ANALYZE)")


def questions(days: int) -> dict[str, CompletenessQuery]:
    """Return what is asked about the last ``days``."""
    month = {"start": TODAY - timedelta(days=days), "end": TODAY}
    return {
        "month of a project": CompletenessQuery(**month, project_id=LARGE),
        "month of a project, by day": CompletenessQuery(**month, project_id=LARGE, by="day"),
        "month of a project, per meter": CompletenessQuery(**month, project_id=LARGE, group="meter"),
        "region by day": CompletenessQuery(**month, by="day"),
        "region by day and agent": CompletenessQuery(**month, by="day", group="agent"),
        "month of an agent": CompletenessQuery(**month, agent="meter-compute@hv1"),
    }


def hour_questions() -> dict[str, CompletenessQuery]:
    """Return what is asked about days of which only hours are summarized."""
    days = {"start": TODAY - timedelta(days=2), "end": TODAY}
    return {
        "two days of the region by day, from hours": CompletenessQuery(**days, by="day"),
        "two days of the region by hour": CompletenessQuery(**days, by="hour"),
        "two days of a project by hour": CompletenessQuery(**days, project_id=LARGE, by="hour"),
    }


def live_questions(options: argparse.Namespace) -> dict[str, CompletenessQuery]:
    """Return what is asked that no summary answers."""
    day = {"start": TODAY - timedelta(days=1), "end": TODAY}
    return {
        "month of a resource": CompletenessQuery(
            start=TODAY - timedelta(days=options.days), end=TODAY, resource_id="vm-000001"
        ),
        "day of a project by hour": CompletenessQuery(**day, project_id=LARGE, by="hour"),
    }


async def measure(reactor: Any, report: Report, dsn: str, options: argparse.Namespace) -> None:
    store = await opened(reactor, dsn, maintain=True)
    filling, _ = await milliseconds(fill(store, dsn, options))
    samples = options.days * POLLS * METERS
    report.line(f"samples of the project: {samples * options.large}; of the region: {samples * options.instances}")
    report.line(f"filling: {filling / 1000:.0f} s")
    now = TODAY + timedelta(hours=1)
    compared_days = min(options.days, options.compared_days)
    computed: dict[str, Sequence[CompletenessRow]] = {}
    table = Table("completeness")
    for name, query in {**questions(compared_days), **hour_questions()}.items():
        took, computed[name] = await milliseconds(store.completeness(query, now, 1_000_000))
        table.add(
            f"{name}, {compared_days} days computed" if name in questions(1) else f"{name}, computed",
            took,
            "ms",
        )
    summarized = 0
    took = 0.0
    while made := await timed_summaries(store, now):
        took, summarized = took + made[0], summarized + made[1]
    table.add("summarizing an hour or a day", took / max(1, summarized), "ms")
    [[days]] = await store.maintenance._pool.rows("SELECT count(*) FROM completeness_day WHERE level = 0")
    report.compare("days summarized", options.days, days)
    for name, query in questions(compared_days).items():
        report.compare(name, computed[name], await store.completeness(query, now, 1_000_000))
    measuring.rows(dsn, "VACUUM (ANALYZE)")
    pool = store.maintenance._pool
    for run in range(options.runs + 1):
        counted = [TODAY - timedelta(days=options.counted_days), TODAY]
        raw, _ = await milliseconds(pool.rows(COUNTED, counted))
        whole = raw * options.days / options.counted_days
        if run:
            table.add("counting the project's samples in SQL", whole, "ms")
        for name, query in questions(options.days).items():
            took, _ = await milliseconds(store.completeness(query, now, 1_000_000))
            if run:
                table.add(name, took, "ms", "counting the project's samples in SQL")
        for name, query in live_questions(options).items():
            took, rows = await milliseconds(store.completeness(query, now, 1_000_000))
            if run:
                table.add(name, took, "ms", "counting the project's samples in SQL")
    await execute(store, "DELETE FROM completeness_day WHERE start >= %s", [TODAY - timedelta(days=2)])
    for run in range(options.runs + 1):
        for name, query in hour_questions().items():
            took, rows = await milliseconds(store.completeness(query, now, 1_000_000))
            if run:
                table.add(name, took, "ms", "counting the project's samples in SQL")
            else:
                report.compare(name, computed[name], rows)
    report.table(table)
    await store.stopService()


async def timed_summaries(store: PostgresStore, now: Any) -> tuple[float, int] | None:
    """Let the store summarize once; return the milliseconds and how many hours and days, ``None`` if there were none."""
    took, made = await milliseconds(store.maintenance.summarize(now))
    return (took, made) if made else None


async def benchmark(reactor: Any, report: Report, options: argparse.Namespace) -> None:
    for mode in measuring.modes(options):
        with measuring.postgresql_server(report, mode, options) as server:
            await measure(reactor, report, server.dsn(), options)


def main() -> None:
    parser = measuring.with_postgresql(measuring.parser(__doc__), "durable")
    parser.add_argument("--days", type=int, default=30, help="of the period (%(default)s)")
    parser.add_argument("--counted-days", type=int, default=3, help="of which samples are made (%(default)s)")
    parser.add_argument("--compared-days", type=int, default=3, help="of which answers are compared (%(default)s)")
    parser.add_argument("--hosts", type=int, default=100, help="in the region (%(default)s)")
    parser.add_argument(
        "--instances", type=int, default=2000, help="in the region, 5 760 samples a day each (%(default)s)"
    )
    parser.add_argument("--large", type=int, default=58, help="instances of the project (%(default)s)")
    measuring.run(benchmark, parser.parse_args())


if __name__ == "__main__":
    main()
