"""How a database gets its schema, from several processes too."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import UTC
from datetime import datetime

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThread

from meter.identity import WEEK
from meter.identity import week_of
from meter.interfaces import Unavailable
from meter.query import Aggregate
from meter.query import MetadataMatch
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.store import PostgresStore
from meter.store.maintenance.partitions import partition_name
from meter.store.migrations import migrations
from tests.store_messages import message
from tests.waiting import until

UPGRADE_SECONDS = 120.0
"""For so long a process that upgrades may take; the test's own limit cannot end it."""

PROCESS = """
import sys
from twisted.internet import reactor
from twisted.logger import globalLogBeginner, textFileLogObserver
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.store import PostgresStore
globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
store = PostgresStore(reactor, sys.argv[1], clock=reactor, migrate=True, readers=0, writers=4)
store.startService()

def look():
    if not store.readiness().ready:
        return reactor.callLater(0.01, look)
    store.stopService().addBoth(lambda _: reactor.stop())

reactor.callLater(0, look)
reactor.run()
"""


def upgrading(dsn):
    """Start a process that upgrades, uses the store, and ends."""
    return subprocess.Popen([sys.executable, "-c", PROCESS, dsn], stderr=subprocess.PIPE)


def errors_of(process, seconds=UPGRADE_SECONDS):
    """Return what a process wrote to its standard error until it ended; kill one that does not end in time.

    Blocks, and for a limited time only: a thread of the reactor's pool that waits for ever keeps pytest from ending.
    """
    try:
        return process.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        written = process.communicate()[1].decode(errors="replace")
        raise AssertionError(f"the process did not end within {seconds} s:\n{written[-4000:]}") from None


@pytest_twisted.ensureDeferred
async def test_two_processes_upgrade_at_once_and_each_step_is_taken_once(postgresql):
    dsn = postgresql.dsn()
    processes = [upgrading(dsn) for _ in range(2)]
    errors = await gatherResults([deferToThread(errors_of, process) for process in processes], consumeErrors=True)

    assert [process.returncode for process in processes] == [0, 0]
    assert b"applying migration 1" in b"".join(errors)
    assert b"keeps trying" not in b"".join(errors)
    versions = postgresql.execute("SELECT version, name FROM schema_version ORDER BY version", dsn)
    assert versions == [(step.number, step.name) for step in migrations()]


def test_a_process_that_never_upgrades_is_ended_and_what_it_wrote_is_shown():
    process = subprocess.Popen(["/bin/sh", "-c", "echo keeps trying >&2; exec sleep 1000"], stderr=subprocess.PIPE)
    with pytest.raises(AssertionError, match=r"did not end within 1 s:\nkeeps trying"):
        errors_of(process, 1)
    assert process.returncode == -signal.SIGKILL


@pytest_twisted.ensureDeferred
async def test_a_reader_waits_for_the_schema_that_a_writer_makes(postgresql):
    dsn = postgresql.dsn()
    reader = PostgresStore(reactor, dsn, clock=reactor, migrate=False, readers=1, writers=0)
    writer = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=0, writers=1)
    reader.startService()
    await until(lambda: "schema version 0" in reader.readiness().reason)
    with pytest.raises(Unavailable, match="schema version 0"):
        await reader.message("x")

    writer.startService()
    await until(lambda: reader.readiness().ready)
    sent = message()
    await writer.write([sent])

    assert await reader.message(sent.message_id) == sent.fields
    await reader.stopService()
    await writer.stopService()


@pytest_twisted.ensureDeferred
async def test_a_schema_from_the_future_is_left_alone(postgresql):
    dsn = postgresql.dsn()
    postgresql.execute(
        "CREATE TABLE schema_version (version int PRIMARY KEY, name text, applied_at timestamptz);"
        "INSERT INTO schema_version VALUES (9999, 'flying cars', now())",
        dsn,
    )
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=0, writers=1)
    store.startService()
    await until(lambda: "install the newer Meter" in store.readiness().reason)

    assert postgresql.execute("SELECT to_regclass('sample')", dsn) == [(None,)]
    await store.stopService()


@pytest_twisted.ensureDeferred
async def test_what_an_older_version_stored_is_answered_after_the_upgrade(postgresql):
    for version in range(1, len(migrations())):
        dsn = postgresql.dsn()
        older = [step for step in migrations() if step.number <= version]
        for step in older:
            postgresql.execute(step.statements, dsn)
        postgresql.execute(
            "CREATE TABLE schema_version (version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());"
            f"INSERT INTO schema_version (version, name) SELECT n, 'step' FROM generate_series(1, {version}) AS n;"
            + STORED_BY_VERSION_1
            + stored_rollups(version),
            dsn,
        )
        store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=1, writers=1)
        store.startService()
        await until(lambda store=store: store.readiness().ready)

        assert await store.message(SENT["message_id"]) == SENT
        [row] = await store.statistics(StatisticsQuery(filter=SampleFilter()))
        assert (row.values["count"], row.values["sum"]) == (1, 2.5)
        large = SampleFilter(metadata=(MetadataMatch("flavor.vcpus", 1),))
        assert await store.statistics(StatisticsQuery(filter=large)) == [row]
        steps = StatisticsQuery(filter=SampleFilter(), aggregates=(Aggregate("increase"),))
        assert [row.values["increase"] for row in await store.statistics(steps)] == [0]
        assert postgresql.execute("SELECT DISTINCT run_kind, run_id, polling_interval FROM series", dsn) == [(0, 0, 0)]
        later = message("cpu", 1, resource_id="r1", metadata={"_meter": {"run": "a", "interval": 300}})
        assert (await store.write([later])).stored == 1
        assert await store.message(later.message_id) == later.fields
        assert len(await store.samples(SampleFilter(equals={"resource_id": "r1"}), 10)) == 2
        await store.stopService()


@pytest_twisted.ensureDeferred
async def test_steps_of_an_hour_that_an_older_version_found_tangled_are_told_by_its_samples(postgresql):
    dsn = postgresql.dsn()
    for step in migrations()[:5]:
        postgresql.execute(step.statements, dsn)
    versions = ", ".join(f"({step.number}, 'step')" for step in migrations()[:5])
    postgresql.execute(
        "CREATE TABLE schema_version (version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());"
        f"INSERT INTO schema_version (version, name) VALUES {versions};" + STORED_BY_VERSION_1 + TANGLED_BY_VERSION_5,
        dsn,
    )
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=1, writers=1)
    store.startService()
    await until(lambda: store.readiness().ready)

    flags = "SELECT series_id, overlap FROM rollup ORDER BY series_id"
    assert postgresql.execute(flags, dsn) == [(1, 2), (2, 2), (3, 0)]
    steps = StatisticsQuery(
        filter=SampleFilter(), groupby=("resource_id",), aggregates=(Aggregate("increase"), Aggregate("integral"))
    )
    rows = {row.group["resource_id"]: row.values for row in await store.statistics(steps)}
    # 2.5, 3.5, 4.5, 5.5, ten minutes apart, of two sources in turn; the lone resource has what its rollup says.
    assert rows["r1"] == {"increase": 3, "integral": pytest.approx((2.5 + 3.5 + 4.5) / 6)}
    assert rows["r2"] == {"increase": 77, "integral": 78}
    await store.stopService()


@pytest_twisted.ensureDeferred
async def test_dictionaries_of_an_older_version_are_needed_as_long_as_its_samples_and_collectors_may_need_them(
    postgresql,
):
    dsn = postgresql.dsn()
    for step in migrations()[:3]:
        postgresql.execute(step.statements, dsn)
    postgresql.execute(
        STORED_BY_VERSION_1
        + """
        INSERT INTO series (meter_id, resource_id) VALUES (1, 1);
        INSERT INTO metadata (hash, text, document) VALUES ('x', '{}', '{}');
        INSERT INTO sample SELECT '2100-01-01 00:00+00', now(), gen_random_uuid(), 1, 2, 2, 1, '', '' FROM sample;
        """,
        dsn,
    )
    postgresql.execute(migrations()[3].statements, dsn)

    columns = "SELECT DISTINCT data_type FROM information_schema.columns WHERE column_name = 'metadata_id'"
    assert postgresql.execute(columns, dsn) == [("integer",)]
    needed = "SELECT retained_until - now() BETWEEN '4 weeks' AND '5 weeks', retained_until = '2100-01-01' FROM {} ORDER BY id"
    for table in ("series", "metadata"):
        assert postgresql.execute(needed.format(table), dsn) == [(True, False), (False, True)]
    assert postgresql.execute(needed.format("wire_format"), dsn) == [(False, True)]
    postgresql.execute("INSERT INTO metadata (hash, text, document) VALUES ('y', '[]', '[]')", dsn)
    assert postgresql.execute("SELECT retained_until = 'infinity' FROM metadata WHERE hash = 'y'", dsn) == [(True,)]


@pytest_twisted.ensureDeferred
async def test_ids_that_an_older_version_stored_twice_stay_and_get_no_third_row(postgresql):
    dsn = postgresql.dsn()
    for step in migrations()[:5]:
        postgresql.execute(step.statements, dsn)
    at = datetime.now(UTC)
    week, weeks = week_of(at), ("2024-01-01", str(week_of(at)))
    postgresql.execute(
        "CREATE TABLE schema_version (version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());"
        "INSERT INTO schema_version (version, name) SELECT n, 'step' FROM generate_series(1, 5) AS n;"
        f"CREATE TABLE {partition_name(week)} PARTITION OF sample FOR VALUES FROM ('{week} 00:00+00') TO ('{week + WEEK} 00:00+00');"
        + STORED_BY_VERSION_1
        + "".join(
            f"INSERT INTO sample SELECT (timestamp '{monday}' AT TIME ZONE 'UTC') + n * interval '1 minute', recorded_at, '{id_}', n, metadata_id,"
            " series_id, wire_format_id, signature, verbatim_json FROM sample, generate_series(1, 2) n WHERE volume = 2.5;"
            for monday, id_ in zip(weeks, TWICE, strict=True)
        ),
        dsn,
    )
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=0, writers=1)
    store.startService()
    await until(lambda: store.readiness().ready)

    for monday, id_ in zip(weeks, TWICE, strict=True):
        minutes = [datetime.fromisoformat(f"{monday}T00:0{n}:00+00:00") for n in (1, 2, 3)]
        sent = [
            message("cpu", volume, at=moment, message_id=id_, user_id=None)
            for volume, moment in zip((1, 2, 2.5), minutes, strict=True)
        ]
        results = [await store.write([each]) for each in sent]
        assert [(each.stored, each.duplicates, len(each.refused)) for each in results] == [
            (0, 1, 0),
            (0, 1, 0),
            (0, 0, 1),
        ]
        assert "timestamp" in results[2].refused[0].reason
        fresh = message("cpu", 1, at=minutes[0])
        assert (await store.write([fresh, fresh])).stored == 1
    assert postgresql.execute("SELECT count(*) FROM sample", dsn) == [(7,)]
    indexes = postgresql.execute("SELECT indexname FROM pg_indexes WHERE indexname LIKE '%_since' ORDER BY 1", dsn)
    assert indexes == [(f"{table}_message_id_since",) for table in (partition_name(week), "sample_default")]
    await store.stopService()


@pytest_twisted.ensureDeferred
async def test_a_week_whose_ids_are_twice_in_the_default_partition_still_gets_its_own(postgresql):
    dsn = postgresql.dsn()
    for step in migrations()[:5]:
        postgresql.execute(step.statements, dsn)
    at = datetime.now(UTC)
    postgresql.execute(
        "CREATE TABLE schema_version (version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());"
        "INSERT INTO schema_version (version, name) SELECT n, 'step' FROM generate_series(1, 5) AS n;"
        + STORED_BY_VERSION_1
        + f"INSERT INTO sample SELECT timestamptz '{at}' - n * interval '1 microsecond', recorded_at, '{TWICE[0]}', n, metadata_id,"
        " series_id, wire_format_id, signature, verbatim_json FROM sample, generate_series(1, 2) n;",
        dsn,
    )
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=0, writers=1)
    store.startService()
    await until(lambda: store.readiness().ready)

    assert (await store.write([message(at=at)])).stored == 1
    assert postgresql.execute(f"SELECT count(*) FROM {partition_name(week_of(at))}", dsn) in ([(3,)], [(4,)])
    await store.stopService()


TWICE = ("0195d3f0-1111-7abc-8def-000000000001", "0195d3f0-1111-7abc-8def-000000000002")

SENT = {
    "source": "test",
    "counter_name": "cpu",
    "counter_type": "gauge",
    "counter_unit": "ns",
    "counter_volume": 2.5,
    "user_id": None,
    "project_id": "p1",
    "resource_id": "r1",
    "timestamp": "2026-11-18T12:00:00",
    "resource_metadata": {"flavor": {"vcpus": 1}},
    "message_id": "cb2e9b5a-9f0a-4a0e-8f5a-9c5d5c5f0d11",
    "message_signature": "ab" * 32,
}

STORED_BY_VERSION_1 = """
INSERT INTO meter (name, type, unit) VALUES ('cpu', 'gauge', 'ns');
INSERT INTO resource (name) VALUES ('r1');
INSERT INTO project (name) VALUES ('p1');
INSERT INTO source (name) VALUES ('test');
INSERT INTO series (meter_id, resource_id, project_id, source_id) VALUES (1, 1, 1, 1);
INSERT INTO metadata (hash, text, document)
    VALUES (sha256('{"flavor":{"vcpus":1}}'), '{"flavor":{"vcpus":1}}', '{"flavor":{"vcpus":1}}');
INSERT INTO wire_format (hash, text) SELECT sha256(convert_to(text, 'UTF8')), text FROM (VALUES (
    '[["source","counter_name","counter_type","counter_unit","counter_volume","user_id","project_id","resource_id",'
    '"timestamp","resource_metadata","message_id","message_signature"],"T0","float",[],"key-1"]')) AS _ (text);
INSERT INTO sample (timestamp, recorded_at, message_id, volume, metadata_id, series_id, wire_format_id, signature, verbatim_json)
    VALUES ('2026-11-18 12:00+00', '2026-11-18 12:01+00', 'cb2e9b5a-9f0a-4a0e-8f5a-9c5d5c5f0d11', 2.5, 1, 1, 1,
    decode(repeat('ab', 32), 'hex'), '');
"""

STORED_BY_VERSION_5 = """
INSERT INTO series (meter_id, resource_id, project_id, source_id) VALUES (1, 0, 1, 1);
INSERT INTO final_period (start, hours {tangled}) VALUES ('2026-11-18 12:00+00', 1 {false}), ('2026-11-18 00:00+00', 24 {false});
INSERT INTO rollup (start, first, last, count, smallest, largest, total, deviation, first_volume, last_volume,
        increase, integral, series_id, hours, metadata_run, metadata_id {overlap})
    SELECT start, '2026-11-18 12:00+00', '2026-11-18 12:00+00', 1, 2.5, 2.5, 2.5, 0, 2.5, 2.5, 0, 0, id, hours,
        2 - id, 2 - id {none}
    FROM final_period, series;
"""


def stored_rollups(version):
    """The statements with which ``version`` stored what its sample amounts to."""
    if version < 3:
        return ""
    if version < 5:
        return STORED_BY_VERSION_3
    if version == 5:
        return STORED_BY_VERSION_5.format(tangled=", tangled", false=", false", overlap="", none="")
    return STORED_BY_VERSION_5.format(tangled="", false="", overlap=", overlap", none=", 0")


TANGLED_BY_VERSION_5 = """
INSERT INTO source (name) VALUES ('other');
INSERT INTO resource (name) VALUES ('r2');
INSERT INTO series (meter_id, resource_id, project_id, source_id) VALUES (1, 1, 1, 2), (1, 2, 1, 1);
INSERT INTO sample SELECT timestamp + n * interval '10 minutes', recorded_at, gen_random_uuid(), volume + n, metadata_id,
    1 + n % 2, wire_format_id, signature, verbatim_json FROM sample, generate_series(1, 3) AS n;
INSERT INTO final_period (start, hours, tangled) VALUES ('2026-11-18 12:00+00', 1, true);
INSERT INTO rollup (start, first, last, count, smallest, largest, total, deviation, first_volume, last_volume,
        increase, integral, series_id, hours, metadata_run, metadata_id)
    SELECT '2026-11-18 12:00+00', min(timestamp), max(timestamp), count(*), min(volume), max(volume), sum(volume), 0,
        min(volume), max(volume), 7, 7, series_id, 1, 1, 1
    FROM sample GROUP BY series_id;
INSERT INTO rollup (start, first, last, count, smallest, largest, total, deviation, first_volume, last_volume,
        increase, integral, series_id, hours, metadata_run, metadata_id)
    VALUES ('2026-11-18 12:00+00', '2026-11-18 12:05+00', '2026-11-18 12:50+00', 2, 1, 78, 79, 0, 1, 78, 77, 78, 3, 1, 1, 1);
"""

STORED_BY_VERSION_3 = """
INSERT INTO final_period (start, hours, tangled)
    VALUES ('2026-11-18 12:00+00', 1, false), ('2026-11-18 00:00+00', 24, false);
INSERT INTO rollup (start, first, last, count, smallest, largest, total, deviation, first_volume, last_volume,
        increase, integral, series_id, hours)
    SELECT start, '2026-11-18 12:00+00', '2026-11-18 12:00+00', 1, 2.5, 2.5, 2.5, 0, 2.5, 2.5, 0, 0, 1, hours
    FROM final_period;
"""
