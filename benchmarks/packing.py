"""How many bytes a sample takes in a packed and in an archived week, beside a week that is not packed, and how fast weeks are packed and moved.

Two weeks of polls every five minutes are made in the database: samples of Meter's agents, whose ids have a common end in a series and whose
proof is the signature of the batch, and samples of Ceilometer's agents, with random ids and a signature of 32 bytes each. Times,
delays and volumes vary as measured ones do. Bytes are those of the week's partition with its indexes, after ``REINDEX``, and those of
everything that is kept of the packed week; rollups and dimension tables, which stay as they are, are told beside them.

Then the week is archived on a second server of the same machine, and brought back.

All samples are compared, column by column, before and after, and so are the answers to questions that are asked of rows, of packed samples and of
archived ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Awaitable
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC
from datetime import date
from datetime import datetime
from datetime import timedelta
from functools import partial
from typing import Any

from benchmarks import measuring
from benchmarks.measuring import Report
from benchmarks.measuring import Table
from meter.daemon.services import sleep
from meter.query import Aggregate
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.sample_identity import week_of
from meter.store import PostgresStore
from meter.store.archive.archiver import Archiver
from meter.store.maintenance.partitions import partition_name
from meter.store.packing.packed_partitions import packed_partition_name
from meter.store.packing.packed_rows import SAMPLE_COLUMNS
from meter.store.packing.packed_rows import unpacked
from meter.store.packing.packer import Packer
from meter.store.postgres.connection import Connection
from meter.store.postgres.dsn import connection_parameters
from tests.archived import SERVER
from tests.archived import add_server

POLLS = 2016
"""Every five minutes of a week."""

KINDS = {"of Meter's agents": True, "of Ceilometer's agents": False}

DIMENSIONS = """
INSERT INTO meter (name, type, unit) VALUES ('cpu', 'cumulative', 'ns'), ('memory.usage', 'gauge', 'MiB'),
    ('disk.read.bytes', 'cumulative', 'B'), ('disk.read.requests', 'cumulative', 'request'), ('vcpus', 'gauge', 'vcpu');
INSERT INTO resource (name) SELECT 'instance-' || n FROM generate_series(1, {resources}) AS n;
INSERT INTO project (name) SELECT 'project-' || n FROM generate_series(1, 20) AS n;
INSERT INTO series (meter_id, resource_id, project_id, polling_interval)
SELECT m.id, r.id, 1 + r.id % 20, {interval} FROM resource r CROSS JOIN meter m ORDER BY r.id, m.id;
INSERT INTO metadata (hash, text, document)
SELECT sha256(n::text::bytea), '{{"day": ' || n || '}}', jsonb_build_object('day', n) FROM generate_series(1, {resources} * 7) AS n;
INSERT INTO wire_format (hash, text) VALUES ('a', '[[], "T6", "float", [], null, null]');
"""

# An id of a poll: 48 bits of time, the bits of the process, the number of the sample in the poll. Batches are of one meter.
SAMPLES = """
INSERT INTO sample (timestamp, recorded_at, message_id, volume, metadata_id, series_id, wire_format_id, signature, verbatim_json,
    batch_id, batch_position)
SELECT at, at + interval '0.4 s' + poll.recorded * interval '1 s',
    CASE WHEN {own} THEN (lpad(to_hex(1790000000000 + poll.n * 300000 + poll.millisecond), 12, '0') || '7a3c' || '9f3d5c7e01' || lpad(to_hex(x.id), 6, '0'))::uuid
        ELSE gen_random_uuid() END,
    CASE x.meter_id WHEN 1 THEN poll.n * 3e9 * (1 + x.id % 7) + floor(random() * 3e9)
        WHEN 2 THEN 512 + floor(random() * 64) WHEN 3 THEN poll.n * 40960 + 4096 * floor(random() * 9)
        WHEN 4 THEN poll.n * 10 + floor(random() * 9) ELSE 1 + x.id % 4 END,
    1 + (x.resource_id - 1) * 7 + poll.n / 288, x.id, 1,
    CASE WHEN {own} THEN '' ELSE uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) END, '',
    CASE WHEN {own} THEN poll.n * 1000 + x.meter_id * 100 + x.resource_id / 100 ELSE 0 END,
    CASE WHEN {own} THEN x.resource_id % 100 ELSE 0 END
FROM (SELECT n, floor(random() * 1000)::integer AS millisecond, random() AS recorded FROM generate_series(0, {polls} - 1) AS n) AS poll
CROSS JOIN LATERAL (SELECT *, '{monday} 00:00+00'::timestamptz + poll.n * interval '300 s' + poll.millisecond * interval '1 ms'
    + floor(random() * 20000) * interval '1 us' AS at FROM series ORDER BY id OFFSET 0) AS x
"""

EVERYTHING = f"""
SELECT md5(string_agg(row, '' ORDER BY id)) FROM (
    SELECT message_id AS id, md5(s::text) AS row FROM (
        SELECT {", ".join(SAMPLE_COLUMNS)} FROM sample
        UNION ALL {unpacked(SAMPLE_COLUMNS, first="'-infinity'::timestamptz", last="'infinity'::timestamptz")}
    ) AS s
) AS every
"""

OF_PACKED = """
SELECT pg_total_relation_size('{table}'), pg_total_relation_size('packed_message_id'),
    pg_total_relation_size('packed_batch') + pg_total_relation_size('series_list')
"""


Questions = dict[str, Callable[[], Awaitable[Any]]]


def questions(store: PostgresStore, monday: date) -> Questions:
    """Return what is asked of rows and of packed samples, by name."""
    start = datetime.combine(monday, datetime.min.time(), UTC)
    aggregates = tuple(Aggregate(name) for name in ("max", "min", "count"))
    day = SampleFilter(start=start + timedelta(days=1), end=start + timedelta(days=2))
    odd = SampleFilter(start=start + timedelta(hours=2, minutes=7), end=start + timedelta(hours=10, minutes=13))

    def statistics(filter: SampleFilter, **more: Any) -> Callable[[], Awaitable[Any]]:
        return lambda: store.statistics(StatisticsQuery(filter=filter, aggregates=aggregates, **more))

    of_cpu = replace(odd, equals={"meter": "cpu"})
    of_one = {"meter": "cpu", "resource_id": "instance-7"}
    return {
        "statistics of a day by hour": statistics(replace(day, equals={"meter": "cpu"}), period=3600),
        "statistics of 8 h with odd ends": statistics(of_cpu),
        "the same by resource": statistics(of_cpu, groupby=("resource_id",)),
        "statistics of one resource, odd ends": statistics(replace(odd, equals=of_one)),
        "1 000 samples of a meter, newest first": lambda: store.samples(replace(day, equals={"meter": "cpu"}), 1000),
        "all samples of one resource and meter": lambda: store.samples(SampleFilter(equals=of_one), 3000),
    }


async def ask(asked: Questions, table: Table, state: str, runs: int) -> dict[str, Any]:
    """Ask each question ``runs`` times and once more; return the answers."""
    answers = {}
    for name, question in asked.items():
        answers[name] = await question()
        for _ in range(runs):
            took = await measuring.timed(question())
            table.add(f"{name}, {state}", took.wall * 1000, "ms", None if state == "rows" else f"{name}, rows")
    return answers


async def measure(
    reactor: Any, report: Report, dsn: str, archive_dsn: str, kind: str, options: argparse.Namespace
) -> None:
    monday = week_of(datetime.now(UTC) - timedelta(weeks=4))
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=1, writers=1, maintain=True)
    store.startService()
    await measuring.until_ready(reactor, store)
    await store.maintenance._partitions.ensure([datetime.combine(monday, datetime.min.time(), UTC)])
    own = KINDS[kind]
    measuring.rows(dsn, DIMENSIONS.format(resources=options.resources, interval=300 if own else 0))
    measuring.rows(dsn, SAMPLES.format(own=own, polls=options.polls, monday=monday))
    table, of_week = Table(kind), partition_name(monday)
    if options.compression:
        for name, column in measuring.rows(dsn, COMPRESSED):
            measuring.rows(dsn, f"ALTER TABLE {name} ALTER COLUMN {column} SET COMPRESSION {options.compression}")
    await store.maintenance.finalize(datetime.now(UTC))
    store.maintenance._periodic.stopService()
    measuring.rows(dsn, f"VACUUM ANALYZE {of_week}")
    measuring.rows(dsn, f"REINDEX TABLE {of_week}")
    [(samples, plain, rollups)] = measuring.rows(
        dsn,
        f"SELECT (SELECT count(*) FROM sample), pg_total_relation_size('{of_week}'), pg_total_relation_size('rollup')",
    )
    before = measuring.rows(dsn, EVERYTHING)
    asked = questions(store, monday)
    answers = await ask(asked, table, "rows", options.runs)
    session = Connection(
        reactor,
        reactor,
        connection_parameters(dsn, statement_timeout_seconds=600, application_name="packing"),
        answer_seconds=600,
    )
    await session.open()
    took = await measuring.timed(Packer(session, partial(sleep, reactor, 0.1)).pack(monday))
    packed_answers = await ask(asked, table, "packed", options.runs)
    await report_sizes(report, dsn, table, monday, samples, plain, rollups)
    table.add("packing", samples / took.wall, "samples/s")
    add_server(dsn, archive_dsn)
    took = await measuring.timed(Archiver(session).archive(monday, SERVER))
    table.add("moving to the archive", samples / took.wall, "samples/s")
    archived_answers = await ask(asked, table, "archived", options.runs)
    [(here,)] = measuring.rows(dsn, f"SELECT pg_total_relation_size('{packed_partition_name(monday)}')")
    [(there,)] = measuring.rows(archive_dsn, "SELECT pg_total_relation_size('meter_archive.packed_samples')")
    table.add("an archived sample, its columns here", here / samples, "bytes")
    table.add("an archived sample, there", there / samples, "bytes")
    archived = measuring.rows(dsn, EVERYTHING)
    took = await measuring.timed(Archiver(session).unarchive(monday))
    table.add("bringing back", samples / took.wall, "samples/s")
    session.close()
    await store.stopService()
    report.table(table)
    report.compare("samples, column by column, archived", before, archived)
    report.compare("samples, column by column, brought back", before, measuring.rows(dsn, EVERYTHING))
    for name, answer in answers.items():
        report.compare(f"answer to {name}, packed", answer, packed_answers[name])
        report.compare(f"answer to {name}, archived", answer, archived_answers[name])


COMPRESSED = """
SELECT c.relname, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relname IN ('packed_samples', 'packed_message_id') AND a.attstorage = 'x' AND a.attnum > 0
"""


async def report_sizes(
    report: Report, dsn: str, table: Table, monday: date, samples: int, plain: int, rollups: int
) -> None:
    [(rows, ids, batches)] = measuring.rows(dsn, OF_PACKED.format(table=packed_partition_name(monday)))
    table.add("a sample that is not packed", plain / samples, "bytes")
    table.add("a packed sample", (rows + ids + batches) / samples, "bytes", "a sample that is not packed")
    table.add("of which its columns", rows / samples, "bytes")
    table.add("the index of ids", ids / samples, "bytes")
    table.add("and the series of batches", batches / samples, "bytes")
    table.add("rollups of a sample, which stay", rollups / samples, "bytes")


async def benchmark(reactor: Any, report: Report, options: argparse.Namespace) -> None:
    for mode in measuring.modes(options):
        with (
            measuring.postgresql_server(report, mode, options) as server,
            measuring.postgresql_server(report, mode, options) as archive,
        ):
            for kind in KINDS:
                await measure(reactor, report, server.dsn(), archive.dsn(), kind, options)


def main() -> None:
    parser = measuring.with_postgresql(measuring.parser(__doc__, runs=5), "not-durable")
    parser.add_argument("--resources", type=int, default=100, help="instances with five meters each (%(default)s)")
    parser.add_argument("--polls", type=int, default=POLLS, help="polls of each (%(default)s)")
    parser.add_argument("--compression", choices=("pglz", "lz4"), help="instead of the server's default")
    measuring.run(benchmark, parser.parse_args())


if __name__ == "__main__":
    main()
