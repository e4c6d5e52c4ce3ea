"""Writing to PostgreSQL: exactness, partitions, concurrent collectors, and what a database refuses."""

from __future__ import annotations

import re
import uuid
from contextlib import asynccontextmanager
from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest
import pytest_twisted
from hypothesis import HealthCheck
from hypothesis import given
from hypothesis import settings
from msgspec.structs import replace
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults

from meter.message import read
from meter.message_ids import new_message_id
from meter.query import MetadataMatch
from meter.query import SampleFilter
from meter.query import WriteResult
from meter.sample_identity import WEEK
from meter.sample_identity import compared_range
from meter.sample_identity import week_of
from meter.store import PostgresStore
from meter.store.maintenance.partitions import partition_name
from meter.store.write import dimensions
from meter.store.write.duplicates import nearby_parameters
from meter.store.write.duplicates import some_ids
from meter.store.write.inserts import INSERT_NEW_SAMPLES
from meter.store.write.inserts import INSERT_SAMPLES
from meter.store.write.writer import SampleWriter
from meter.stored_batch import verify_stored_batch
from tests.signed import stored_message
from tests.store_messages import KEYS
from tests.store_messages import NOON
from tests.store_messages import as_written
from tests.store_messages import message
from tests.store_messages import messages
from tests.waiting import until

ALL = SampleFilter()


@asynccontextmanager
async def running(dsn, **options):
    store = PostgresStore(reactor, dsn, clock=reactor, **{"migrate": True, "readers": 1, "writers": 1, **options})
    store.startService()
    try:
        await until(lambda: store.readiness().ready)
        yield store
    finally:
        await store.stopService()


def drawn(count):
    """Return many random messages. Tests run inside the reactor, where a property cannot wait for an answer itself."""
    found = []

    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(sent=messages())
    def draw(sent):
        found.append(sent)

    draw()
    return found


def without_signature(fields):
    return {name: value for name, value in fields.items() if name != "message_signature"}


@pytest_twisted.ensureDeferred
async def test_any_message_comes_back_as_it_was_signed(postgresql):
    batch = list({sent.message_id: sent for sent in drawn(200)}.values())
    async with running(postgresql.dsn_with_schema()) as store:
        assert await store.write(batch) == WriteResult(stored=len(batch), duplicates=0)

        for sent in batch:
            proof = await store.proof(sent.message_id)
            assert (proof.key_id, proof.scheme) == (sent.key_id, sent.scheme)
            if sent.entry is not None:
                assert as_written(proof.message) == as_written(without_signature(sent.fields))
                assert verify_stored_batch(proof.batch, KEYS.get("key-1")).signature_matches
            else:
                assert as_written(proof.message) == as_written(sent.fields)
                assert sent.key_id is None or read(dict(proof.message), KEYS).key_id == "key-1"
            sample = await store.sample(sent.message_id, ALL)
            assert repr((sample.volume, sample.metadata)) == repr((sent.volume, sent.metadata))
            assert (sample.message_id, sample.timestamp) == (sent.message_id, sent.timestamp)
            assert (sample.name, sample.unit, sample.resource_id) == (sent.name, sent.unit, sent.resource_id)
            assert (sample.user_id, sample.project_id, sample.source) == (sent.user_id, sent.project_id, sent.source)


@pytest_twisted.ensureDeferred
async def test_collectors_that_write_the_same_samples_at_once_store_each_once(postgresql):
    dsn = postgresql.dsn_with_schema()
    now = datetime.now(UTC)
    batch = [
        message(volume=n, at=now, resource_id=f"r{n % 50}", metadata={"n": n % 7}, user_id=f"u{n % 3}")
        for n in range(300)
    ]
    async with running(dsn, writers=2) as one, running(dsn, writers=2) as other:
        writes = [one.write(batch), other.write(batch[::-1]), one.write(batch[100:]), other.write(batch[:200])]
        results = await gatherResults([Deferred.fromCoroutine(write) for write in writes], consumeErrors=True)

        assert sum(result.stored for result in results) == 300
        assert sum(result.duplicates for result in results) == 700
        assert not any(result.refused for result in results)
    assert postgresql.execute("SELECT count(*), count(DISTINCT message_id) FROM sample", dsn) == [(300, 300)]
    assert postgresql.execute("SELECT count(*) FROM resource", dsn) == [(50,)]
    assert postgresql.execute("SELECT count(*) FROM metadata", dsn) == [(7,)]


@pytest.mark.parametrize("across", [False, True], ids=["in one week", "over the boundary of two weeks"])
@pytest_twisted.ensureDeferred
async def test_collectors_that_write_two_facts_with_one_id_at_once_store_one_of_them(postgresql, across):
    dsn = postgresql.dsn_with_schema()
    monday = datetime.combine(week_of(datetime.now(UTC)), datetime.min.time(), UTC)
    at = monday + timedelta(minutes=5)
    batch = [message(volume=n, at=at) for n in range(100)]
    shift = timedelta(minutes=10 if across else -1)
    again = [message(volume=each.volume, at=at - shift, message_id=each.message_id) for each in batch]
    async with running(dsn) as one, running(dsn) as other:
        await one.write([message(at=at), message(at=at - shift)])  # makes the partitions and the series
        for _ in range(3):
            await other.write([message(at=at)])
        writes = [Deferred.fromCoroutine(one.write(batch)), Deferred.fromCoroutine(other.write(again))]
        results = await gatherResults(writes, consumeErrors=True)

    assert sum(result.stored for result in results) == 100
    assert [refusal.kind for result in results for refusal in result.refused] == ["conflict"] * 100
    ids = {each.message_id for each in batch}
    rows = postgresql.execute("SELECT message_id::text FROM sample", dsn)
    assert sorted(found for [found] in rows if found in ids) == sorted(ids)


@pytest_twisted.ensureDeferred
async def test_ids_are_looked_up_by_index_in_three_weeks_only(postgresql):
    dsn = postgresql.dsn_with_schema()
    now = datetime.now(UTC)
    async with running(dsn) as store:
        await store.write([message(at=now - timedelta(days=days)) for days in range(0, 60, 7)])
        # No statistics, and a plan made when the partitions were nearly empty.
        statement = INSERT_SAMPLES.replace("%s", "{}")
        given = [
            "ARRAY[now()]",
            "'{1}'",
            f"'{{{uuid.uuid4()}}}'",
            "'{1}'",
            "'{1}'",
            "'{1}'",
            "'{1}'",
            "'{\"\"}'",
            "'{}'",
            "'{0}'",
            "'{0}'",
        ]
        first, last = compared_range(week_of(now))
        plan = postgresql.execute(
            "SET enable_seqscan = off; EXPLAIN " + statement.format(*given, *[f"'{first}'", f"'{last}'"] * 2), dsn
        )
    lines = [line for [line] in plan if "Scan" in line and "sample_2" in line]
    assert len(lines) == 3
    assert all("_message_id on" in line for line in lines)
    assert not any("sample_default" in line for [line] in plan)
    assert any("voided_sample_message_id on" in line for [line] in plan)


@pytest.mark.parametrize("days", [-7, 0, 7])
@pytest_twisted.ensureDeferred
async def test_an_id_of_this_or_an_adjacent_week_is_found_whatever_ids_come_with_it(postgresql, days):
    dsn = postgresql.dsn()
    now = datetime.now(UTC) - timedelta(days=7)
    ids = [new_message_id() for _ in range(3)]
    stored, *others = [message(volume=n, at=now, message_id=id) for n, id in enumerate(ids)]
    again = message(volume=0, at=now + timedelta(days=days), message_id=ids[0])
    async with running(dsn) as store:
        await store.write([stored])
        result = await store.write([others[0], again, others[1]])

        assert (result.stored, result.duplicates) == (2, 0 if days else 1)
        assert [refusal.kind for refusal in result.refused] == ["conflict"] * bool(days)
    assert postgresql.execute("SELECT count(*), count(DISTINCT message_id) FROM sample", dsn) == [(3, 3)]


@pytest_twisted.ensureDeferred
async def test_ids_near_those_of_a_batch_are_looked_for_by_index_in_two_weeks_and_some_ids_in_its_own(postgresql):
    dsn = postgresql.dsn()
    now = datetime.now(UTC)
    async with running(dsn) as store:
        await store.write([message(at=now - timedelta(days=days)) for days in range(0, 60, 7)])
        given = ["ARRAY[now()]", "'{1}'", f"'{{{uuid.uuid4()}}}'", *["'{1}'"] * 4, "'{}'", "'{}'", "'{0}'", "'{0}'"]
        nearby = nearby_parameters(week_of(now), [])
        times = [f"'{time}'" for time in nearby[2:]]
        ids = [f"ARRAY['{uuid.uuid4()}'::uuid]"] * 2
        _, begin, end = some_ids(week_of(now), ["-"])
        own = [ids[0], f"'{begin}'", f"'{end}'"]
        statement = INSERT_NEW_SAMPLES.replace("%s", "{}").format(*given, *ids, *times, *own)
        plan = postgresql.execute("SET enable_seqscan = off; EXPLAIN " + statement, dsn)
    indexes = {found[0] for [line] in plan if (found := re.findall(r"sample_\d+_\d\d_\d\d_message_id\b", line))}
    weeks = [partition_name(week_of(now) + timedelta(weeks=weeks)) for weeks in (-1, 0, 1)]
    assert indexes == {f"{name}_message_id" for name in weeks}
    assert not any("Seq Scan on sample_2" in line for [line] in plan)
    assert any("voided_sample_message_id on" in line for [line] in plan)


@pytest.mark.parametrize("repeated", [slice(None), slice(400, 500)], ids=["all", "one publication"])
@pytest_twisted.ensureDeferred
async def test_repeats_of_a_publication_are_found_without_an_error_in_the_log_of_postgresql(
    postgresql, repeated, monkeypatch
):
    dsn = postgresql.dsn()
    now = datetime.now(UTC)
    transactions = []
    store_once = SampleWriter._store

    async def noted(self, session, records, careful=False):
        transactions.append(careful)
        return await store_once(self, session, records, careful)

    monkeypatch.setattr(SampleWriter, "_store", noted)
    batch, new = (
        [message(volume=n, at=now, message_id=new_message_id()) for n in range(count)] for count in (1000, 900)
    )
    again = batch[repeated]
    async with running(dsn) as store:
        await store.write(again)
        result = await store.write([*new[:450], *again, *new[450:]][:1000])
    repeats = min(len(again), 550)
    assert (result.stored, result.duplicates) == (1000 - repeats, repeats)
    assert transactions == [False, False], "a transaction that fails, and writes to the log, is repeated carefully"


@pytest_twisted.ensureDeferred
async def test_usual_messages_are_stored_without_verbatim_json(postgresql):
    dsn = postgresql.dsn_with_schema()
    ours = [message(volume=volume, metadata={"a": [1, {"b": None}]}) for volume in (1, 1.5, 10**15)]
    theirs = {**message().fields, "user_name": "ann", "project_name": None, "monotonic_time": 12.25}
    theirs = replace(message(), received=theirs, message_id=theirs["message_id"], entry=None)
    async with running(dsn) as store:
        await store.write([*ours, theirs])
        assert await stored_message(store, theirs.message_id) == theirs.fields

    assert postgresql.execute("SELECT count(*) FROM sample WHERE verbatim_json LIKE '{%'", dsn) == [(0,)]


@pytest_twisted.ensureDeferred
async def test_sample_that_the_database_rejects_is_found_in_its_batch(postgresql):
    # Two texts of 512 characters that PostgreSQL cannot squeeze into one row of an index.
    long_name, long_unit = ("".join(chr(0x10000 + (n * 7919 + k) % 0xFFFF) for n in range(512)) for k in (1, 2))
    batch = [message(volume=n) for n in range(20)]
    batch[13] = message(long_name, unit=long_unit)
    async with running(postgresql.dsn_with_schema()) as store:
        result = await store.write(batch)

        assert result.stored == 19
        [refusal] = result.refused
        assert refusal.index == 13
        assert "index row size" in refusal.cause


@pytest_twisted.ensureDeferred
async def test_large_metadata_is_stored(postgresql):
    big = message(metadata={"text": "x" * 2**20})
    many = message(metadata={f"name {n}": n for n in range(10_000)})
    async with running(postgresql.dsn_with_schema()) as store:
        assert (await store.write([big, many])).stored == 2

        assert (await stored_message(store, big.message_id)) == big.fields
        found = await store.samples(SampleFilter(metadata=(MetadataMatch("name 9999", 9999),)), 10)
        assert [sample.message_id for sample in found] == [many.message_id]


def weeks_with_partitions(postgresql, dsn):
    rows = postgresql.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'sample'::regclass", dsn
    )
    return {name for [name] in rows} - {"sample_default"}


@pytest_twisted.ensureDeferred
async def test_partitions_are_created_when_needed_and_one_week_ahead(postgresql):
    dsn = postgresql.dsn_with_schema()
    now = datetime.now(UTC)
    last_month = week_of(now - timedelta(days=30))
    async with running(dsn) as store:
        await store.write([message(at=now), message(at=now - timedelta(days=30))])

    expected = {week_of(now), week_of(now) + WEEK, last_month, last_month + WEEK}
    assert weeks_with_partitions(postgresql, dsn) == {partition_name(week) for week in expected}
    assert postgresql.execute("SELECT count(*) FROM sample_default", dsn) == [(0,)]


@pytest_twisted.ensureDeferred
async def test_collectors_that_need_a_partition_at_once_create_it_once(postgresql):
    dsn = postgresql.dsn_with_schema()
    now = datetime.now(UTC)
    async with running(dsn) as one, running(dsn) as other:
        both = [Deferred.fromCoroutine(store.write([message(at=now)])) for store in (one, other)]
        await gatherResults(both, consumeErrors=True)

        for store in (one, other):
            assert store._sample_writer._partitions._existing == {week_of(now)}


@pytest_twisted.ensureDeferred
async def test_wrong_timestamps_create_no_partitions(postgresql):
    dsn = postgresql.dsn_with_schema()
    async with running(dsn) as store:
        times = [datetime(year, 1, 1, tzinfo=UTC) for year in range(1, 9999, 99)]
        assert (await store.write([message(at=at) for at in times])).stored == len(times)

    assert weeks_with_partitions(postgresql, dsn) == set()


@pytest_twisted.ensureDeferred
async def test_new_partition_takes_its_samples_from_the_default_partition(postgresql):
    dsn = postgresql.dsn_with_schema()
    now = datetime.now(UTC)
    early, later = message(at=now), message(at=now)
    async with running(dsn) as store:
        store._sample_writer._partitions.failed_weeks.failed(week_of(now), reactor.seconds())
        await store.write([early])
        assert postgresql.execute("SELECT count(*) FROM sample_default", dsn) == [(1,)]

        store._sample_writer._partitions.failed_weeks.succeeded(week_of(now))
        assert (await store.write([later, early])).duplicates == 1

        assert await stored_message(store, early.message_id) == early.fields
    assert postgresql.execute("SELECT count(*) FROM sample_default", dsn) == [(0,)]


@pytest_twisted.ensureDeferred
async def test_cached_ids_are_dropped_when_another_database_may_have_taken_over(postgresql):
    dsn = postgresql.dsn_with_schema()
    async with running(dsn) as store:
        await store.write([message(resource_id="a"), message(resource_id="b")])
        # A standby that missed the last transactions gives the same numbers to other names.
        postgresql.execute("UPDATE resource SET name = 'c' WHERE name = 'a'", dsn)
        generation = store._writers.generation
        postgresql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'meter writers'",
            dsn,
        )
        await until(lambda: store._writers.generation > generation)

        sent = message(resource_id="a")
        await store.write([sent])
        assert (await store.sample(sent.message_id, ALL)).resource_id == "a"


@pytest_twisted.ensureDeferred
async def test_caches_of_ids_are_bounded(postgresql):
    async with running(postgresql.dsn_with_schema(), cached_ids=10) as store:
        for start in range(0, 100, 20):
            await store.write([message(resource_id=f"r{n}", metadata={"n": n}) for n in range(start, start + 20)])
        assert len(store._sample_writer._series._young) + len(store._sample_writer._series._old) <= 40
        assert (await store.write([message(resource_id="r3", message_id=str(uuid.uuid4()))])).stored == 1
        assert len(await store.resources(ALL, 1000)) == 100


@pytest_twisted.ensureDeferred
async def test_series_and_metadata_that_a_collector_has_forgotten_are_found_and_not_upserted(postgresql, monkeypatch):
    upserted = []
    for name in ("upsert_series", "upsert_metadata"):
        whole = getattr(dimensions, name)

        async def counted(session, *arguments, whole=whole):
            upserted.append(list(arguments[-1]))
            return await whole(session, *arguments)

        monkeypatch.setattr(dimensions, name, counted)
    different = [
        *({"resource_id": text} for text in ("r1", "R1", 'r "1"', "r\\1", "{r,1}", "NULL", "r'1", "ä\u20ac\U0001f600", " ")),
        *({"user_id": text} for text in (None, "NULL", "0")),
        *({"project_id": text, "source": text} for text in ("p2", "s2")),
        *({"type": type_, "unit": unit} for type_, unit in (("gauge", "B"), ("delta", "B"), ("gauge", ""))),
        *({"metadata": {"_meter": meter}} for meter in ({"run": "a"}, {"run": "A"}, {"interval": 0.1}, {"interval": 1e-7})),
        {"type": "cumulative", "metadata": {"host": "a"}},
        {"type": "cumulative", "metadata": {"instance_host": "a"}},
    ]  # fmt: skip
    dsn = postgresql.dsn_with_schema()
    of_all = "SELECT message_id, series_id, metadata_id FROM sample ORDER BY timestamp"
    async with running(dsn, cached_ids=1) as store:
        first = [message(at=n, **options) for n, options in enumerate(different)]
        assert (await store.write(first)).stored == len(first)
        assert [len(each) for each in upserted] == [len(different), 7]
        upserted.clear()

        again = [message(at=1000 + n, **options) for n, options in enumerate(different)]
        assert (await store.write(again)).stored == len(again)
        assert upserted == []
        new = [message(at=2000 + n, resource_id=f"r{n}", metadata={"n": n}) for n in range(3)]
        assert (await store.write([*new, message(at=3000)])).stored == 4
        assert [len(each) for each in upserted] == [2, 3]  # r1 of this name, user and project is known
        upserted.clear()

        assert (await store.write([message(at=WEEK + timedelta(seconds=1) + NOON)])).stored == 1
        assert [len(each) for each in upserted] == [1, 1]  # to be retained for longer

        rows = postgresql.execute(of_all, dsn)
        assert [row[1:] for row in rows[: len(first)]] == [row[1:] for row in rows[len(first) : 2 * len(first)]]
        for each in [*first, *again]:
            assert await stored_message(store, each.message_id) == each.fields
