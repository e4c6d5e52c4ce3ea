"""Questions about metadata that few resources have read the samples and rollups of these alone, and answer what those that read all would."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from datetime import timedelta

import psycopg2.extras
import pytest
import pytest_twisted
from twisted.internet import reactor

from meter.query import Aggregate
from meter.query import Comparison
from meter.query import In
from meter.query import MetadataMatch
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.store.maintenance.maintenance import Retention
from meter.store.postgres.sql import Sql
from meter.store.query.metadata import documents_with_any
from meter.store.query.metadata import metadata_equals_any
from meter.testing import MemoryStore
from tests.integration.test_store_rollups import HOUR
from tests.integration.test_store_rollups import START
from tests.integration.test_store_rollups import Usage
from tests.integration.test_store_rollups import comparable
from tests.integration.test_store_rollups import finalized
from tests.integration.test_store_rollups import running
from tests.packed import pack_all_blocking
from tests.plans import count_rows_read
from tests.store_messages import message

WIDE = "UPDATE metadata_known SET since = 'infinity'"
"""Makes questions read all resources, as those of a store do of which the samples were there before."""

OF_ALL = "UPDATE metadata_known SET since = '-infinity'"
PAIRS = """
SELECT count(*), count(DISTINCT (d.id, r.id)) FROM metadata_resource l LEFT JOIN metadata d ON d.id = l.metadata_id
LEFT JOIN resource r ON r.id = l.resource_id
"""
STEPS = (Aggregate("count"), Aggregate("increase"), Aggregate("integral"))


class Named(Usage):
    """Draws messages of many resources, each of which has two names in turn, and questions about one of the names."""

    def message(self):
        drawn = super().message()
        resource = self.random.randrange(40)
        name = f"vm-{resource}-{self.random.choice([0, 0, 0, 1])}"
        return message(
            drawn.name,
            drawn.volume,
            at=drawn.timestamp,
            type=drawn.type,
            unit=drawn.unit,
            resource_id=f"r{resource}",
            project_id=self.random.choice(["p", None]),
            metadata={"name": {"of": name}} if resource % 2 else {"name.of": name, "size": resource},
        )

    def query(self):
        resource = self.random.randrange(42)
        drawn = super().query()
        metadata, expression = self.random.choice(
            [
                ((MetadataMatch("name.of", f"vm-{resource}-0"),), None),
                ((MetadataMatch("name.of", f"vm-{resource}-1"), MetadataMatch("size", resource)), None),
                ((), In("metadata.name.of", (f"vm-{resource}-1", "vm-3-1"))),
                ((), Comparison("metadata.size", "=", float(resource))),
                ((MetadataMatch("name.of", f"vm-{resource}-0"),), Comparison("project_id", "!=", "p")),
            ]
        )
        bounds = {"start": None} if (drawn.filter.end or START) < (drawn.filter.start or START) else {}
        equals = {field: value for field, value in drawn.filter.equals.items() if field == "meter"}
        return replace(
            drawn, filter=replace(drawn.filter, **bounds, equals=equals, metadata=metadata, expression=expression)
        )


async def same_by_both_ways(postgresql, dsn, store, memory, draw_query, count):
    queries = [draw_query() for _ in range(count)]
    answers = [await store.statistics(query) for query in queries]
    postgresql.execute(WIDE, dsn)
    wide = [await store.statistics(query) for query in queries]
    postgresql.execute(OF_ALL, dsn)
    for query, answer, other in zip(queries, answers, wide, strict=True):
        assert comparable(answer) == comparable(await memory.statistics(query)), query
        assert comparable(answer) == comparable(other), query
    assert any(answers)


@pytest.mark.parametrize("state", ["late samples", "final", "packed"])
@pytest_twisted.ensureDeferred
async def test_statistics_of_the_metadata_of_few_resources_are_those_of_the_samples(postgresql, state):
    usage, memory = Named(1), MemoryStore(reactor)
    dsn = postgresql.dsn_with_schema()
    async with running(dsn) as store:
        for _ in range(2):
            batch = [usage.message() for _ in range(150)]
            for each in (store, memory):
                await each.write(batch)
            if state == "late samples":  # then the second half of them is late
                await store.maintenance.finalize(START + 20 * HOUR)
        if state != "late samples":
            await finalized(store)
        if state == "packed":
            pack_all_blocking(dsn)
            assert postgresql.execute("SELECT 1 FROM packed_samples LIMIT 1", dsn)
        await same_by_both_ways(postgresql, dsn, store, memory, usage.query, 8)


MOST_ROWS_OF_ONE = 20
"""One resource has nine samples; a row before the range may be looked at, too."""


async def three_hours(store, resources: int) -> None:
    """Write three hours of ``resources``, the last of which is not final."""
    minutes = [START + timedelta(minutes=20 * n) for n in range(9)]
    await store.write(
        [
            message(resource_id=f"r{each}", at=at, metadata={"display_name": f"vm-{each}"})
            for each in range(resources)
            for at in minutes
        ]
    )
    await store.maintenance.finalize(START + 2 * HOUR + timedelta(minutes=30))


async def rows_of_one(store) -> dict[str, tuple[int, float]]:
    """Return of each question about the metadata of one resource how many samples it reads, and how many it counts.

    Of rollups PostgreSQL reads those of other series, too, where it expects the table to have few.
    """
    name = (MetadataMatch("display_name", "vm-7"),)
    found = {}
    for title, odd in (("hours", timedelta()), ("odd ends", timedelta(minutes=7))):
        for aggregates in (STEPS[:1], STEPS):
            filter = SampleFilter(equals={"meter": "cpu"}, start=START + odd, end=START + 3 * HOUR, metadata=name)
            query = StatisticsQuery(filter=filter, aggregates=aggregates)
            [row], read = await count_rows_read(store._readers, lambda query=query: store.statistics(query))
            tables = sum(read.tables[table] for table in ("sample", "packed_samples"))
            found[f"{title}, {len(aggregates)} aggregates"] = tables, row.values["count"]
    return found


@pytest_twisted.ensureDeferred
async def test_statistics_of_the_metadata_of_one_resource_read_as_many_rows_however_many_resources_there_are(
    postgresql,
):
    for resources in (40, 400):
        dsn = postgresql.dsn_with_schema()
        # PostgreSQL scans a table of a few pages, rather than to use its index.
        postgresql.execute(f"ALTER DATABASE {dsn.rpartition('/')[2]} SET enable_seqscan = off", dsn)
        async with running(dsn) as store:
            await three_hours(store, resources)
            found = await rows_of_one(store)
            assert all(read <= MOST_ROWS_OF_ONE for read, _ in found.values()), (resources, found)
            assert {count for _, count in found.values()} == {9, 8}
            postgresql.execute(WIDE, dsn)
            found = await rows_of_one(store)
            assert all(read > resources for read, _ in found.values()), (resources, found)


@pytest_twisted.ensureDeferred
async def test_metadata_of_many_resources_are_read_of_all(postgresql):
    async with running(postgresql.dsn_with_schema()) as store:
        await store.write([message(resource_id=f"r{n}", metadata={"host": "h", "n": n % 2}) for n in range(30)])
        for match, count in ((MetadataMatch("host", "h"), 30), (MetadataMatch("n", 1), 15), (MetadataMatch("n", 2), 0)):
            rows = await store.statistics(StatisticsQuery(filter=SampleFilter(metadata=(match,)), aggregates=STEPS[:1]))
            assert [row.values["count"] for row in rows] == [count] * bool(count)


@pytest_twisted.ensureDeferred
async def test_resources_of_samples_that_were_there_before_the_upgrade_are_not_overlooked(postgresql):
    dsn = postgresql.dsn_with_schema()
    async with running(dsn) as store:
        for n, hours in ((1, 0), (2, 10)):
            await store.write([message(resource_id=f"r{n}", at=START + hours * HOUR, metadata={"name": "both"})])
            if n == 1:  # as the upgrade leaves it
                postgresql.execute(
                    f"DELETE FROM metadata_resource; UPDATE metadata_known SET since = '{START + HOUR}'", dsn
                )
        both = SampleFilter(metadata=(MetadataMatch("name", "both"),))
        for start, count in ((None, 2), (START, 2), (START + 2 * HOUR, 1)):
            query = StatisticsQuery(filter=replace(both, start=start), aggregates=STEPS[:1])
            assert [row.values["count"] for row in await store.statistics(query)] == [count]


WITHOUT_STEP = """
DROP FUNCTION add_resources_of_metadata, delete_resources_of_metadata, delete_metadata_of_resources CASCADE;
DROP TABLE metadata_resource, metadata_known;
DROP INDEX metadata_document;
DELETE FROM schema_version WHERE version >= (SELECT version FROM schema_version WHERE name = 'resources_of_metadata')
"""


@pytest_twisted.ensureDeferred
async def test_upgrade_knows_the_resources_of_samples_in_the_future(postgresql):
    """Otherwise a clock that is wrong by years would keep questions from reading few resources for as long."""
    dsn = postgresql.dsn_with_schema()
    past, future = datetime(2020, 11, 16, tzinfo=UTC), datetime(2199, 11, 16, tzinfo=UTC)
    async with running(dsn) as store:
        await store.write([message(resource_id="r1", at=past, metadata={"name": "both"})])
        await store.write([message(resource_id="r2", at=future, metadata={"name": "both"})])
    postgresql.execute(WITHOUT_STEP, dsn)
    async with running(dsn) as store:
        [[since]] = postgresql.execute("SELECT since FROM metadata_known", dsn)
        assert since == past + timedelta(microseconds=1)
        assert postgresql.execute(PAIRS, dsn) == [(1, 1)]
        both = SampleFilter(metadata=(MetadataMatch("name", "both"),))
        for start, count in ((past, 2), (since, 1), (None, 2)):
            query = StatisticsQuery(filter=replace(both, start=start), aggregates=STEPS[:1])
            assert [row.values["count"] for row in await store.statistics(query)] == [count]


@pytest_twisted.ensureDeferred
async def test_resources_of_metadata_that_are_no_longer_used_are_deleted(postgresql):
    week = timedelta(weeks=1)
    dsn = postgresql.dsn_with_schema()
    async with running(dsn, retention=Retention(days=14, rollup_days=14)) as store:
        for at, old in ((START - 10 * week, "old"), (START, "new")):
            batch = [message(resource_id=f"r-{old}", at=at, metadata={"name": name}) for name in (old, "shared")]
            assert (await store.write(batch)).stored == 2
        assert postgresql.execute(PAIRS, dsn) == [(4, 4)]
        for _ in range(10):  # while autovacuum has a partition locked, the next run drops it
            await store.maintenance.finalize(START + HOUR)
            await store.maintenance.expire(START + HOUR)
            await store.maintenance.collect_garbage()
            if postgresql.execute("SELECT 1 FROM garbage_collected WHERE dimension = 'resource'", dsn):
                break
        assert postgresql.execute(PAIRS, dsn) == [(2, 2)]


KEYS = [
    "a",
    "a.b",
    "a.b.c",
    "c",
    "é",
    'quo"te',
    "a.0",
    "0",
    "a[0]",
    "a.b[1].c",
    "a.-1",
    "a. 0",
    "1.2.3.4.5.6",
    "w.x.y.z.v.u",
]
VALUES = ["v", "", "1", 1, 1.0, 0, 1e300, -2.5, True, False, "é", 'quo"te', "\\", "null", 10**30]


def document(drawn, depth=0):
    if depth == 3 or drawn.random() < 0.3:
        return drawn.choice([*VALUES, None])
    if depth and drawn.random() < 0.3:
        return [document(drawn, depth + 1) for _ in range(drawn.randrange(3))]
    names = ["a", "b", "c", "a.b", "b.c", "a.b.c", "0", "é", 'quo"te', "1.2.3.4.5.6", "x"]
    return {drawn.choice(names): document(drawn, depth + 1) for _ in range(drawn.randrange(4))}


def test_index_overlooks_no_document_that_equals(postgresql):
    drawn = random.Random(20)
    documents = [each for _ in range(3000) if isinstance(each := document(drawn), dict)]
    deep = {"w": {"x": {"y": {"z": {"v": {"u": "v"}}}}}}
    dsn = postgresql.dsn_with_schema()
    found = 0
    with psycopg2.connect(dsn) as connection, connection.cursor() as cursor:
        psycopg2.extras.execute_values(
            cursor,
            "INSERT INTO metadata (hash, text, document) VALUES %s",
            [(str(n).encode(), "", psycopg2.extras.Json(each)) for n, each in enumerate([*documents, deep])],
        )
        cursor.execute("SET enable_seqscan = off")
        for key in KEYS:
            for values in [[value] for value in VALUES] + [["v", 1]]:
                equal, indexed = metadata_equals_any(key, values), documents_with_any(key, values)
                ids = _ids(cursor, equal)
                if indexed is None:
                    continue
                found += len(ids)
                assert ids <= _ids(cursor, indexed), (key, values)
    assert found > 500
    assert documents_with_any("a.0", ["v"]) is None
    assert documents_with_any("a", [START]) is None
    assert documents_with_any(".".join("a" * 10_000), ["v"]) is None
    connection.close()


def _ids(cursor, condition: Sql) -> set[int]:
    cursor.execute(f"SELECT d.id FROM metadata d WHERE {condition}", condition.parameters)
    return {id for (id,) in cursor.fetchall()}


@pytest.mark.parametrize("statement", ["INSERT INTO sample SELECT * FROM given", "UPDATE sample SET metadata_id = 2"])
@pytest_twisted.ensureDeferred
async def test_whoever_changes_samples_adds_the_resources_of_their_metadata(postgresql, statement):
    dsn = postgresql.dsn_with_schema()
    async with running(dsn) as store:
        await store.write([message(resource_id="r1", metadata={"n": 1}), message(resource_id="r2", metadata={"n": 2})])
    postgresql.execute(
        "CREATE TABLE given AS SELECT * FROM sample LIMIT 0; INSERT INTO given SELECT (jsonb_populate_record(s, jsonb_build_object("
        "'message_id', gen_random_uuid(), 'metadata_id', 3 - s.metadata_id))).* FROM sample s;" + statement,
        dsn,
    )
    pairs = postgresql.execute("SELECT count(*) FROM metadata_resource", dsn)
    assert pairs == [(4 if statement.startswith("INSERT") else 3,)]
