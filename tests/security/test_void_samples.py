"""An administrator takes samples out of all answers: they are kept, marked and counted, and can be put back exactly."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.utils import getProcessOutputAndValue

from meter.api.auth.requester import Requester
from meter.api.auth.visibility import VisibleStore
from meter.api.rendering import v2 as rendering
from meter.query import Aggregate
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.store import Retention
from tests.integration.test_store_rollups import DAY
from tests.integration.test_store_rollups import HOUR
from tests.integration.test_store_rollups import START
from tests.integration.test_store_rollups import finalized
from tests.integration.test_store_rollups import running
from tests.signed import stored_message
from tests.store_messages import as_written
from tests.store_messages import message

ALL = SampleFilter()
AGGREGATES = tuple(Aggregate(name) for name in ("sum", "count", "stddev", "integral"))
BY_RESOURCE = StatisticsQuery(filter=ALL, groupby=("resource_id",), aggregates=AGGREGATES)
BY_PROJECT = StatisticsQuery(filter=ALL, groupby=("project_id",))
BY_HOUR = StatisticsQuery(filter=SampleFilter(start=START), period=3600)

BILLED = [message("cpu", n, at=START + n * timedelta(minutes=20), resource_id="vm") for n in range(1, 8)]
FORGED = [
    message("cpu", 1000, at=START + n * timedelta(minutes=20), resource_id=resource, project_id="p2")
    for n, resource in enumerate(("vm", "other", "other", "other"), 1)
]


@pytest.fixture
def database(postgresql, tmp_path):
    """A database and the commands on it; returns exit status, report and errors."""
    dsn = postgresql.dsn_with_schema()
    file = tmp_path / "meter.toml"
    file.write_text(f'[store]\ndsn = "{dsn}"\n[signing]\nkey = "k"\n')

    async def command(name, *arguments):
        out, errors, status = await getProcessOutputAndValue(
            sys.executable,
            ["-c", f"from meter.commands.{name} import main; main()", "--config", str(file), *arguments],
            env=os.environ,
            reactor=reactor,
        )
        return status, json.loads(out) if out.startswith(b"{") else out.decode(), errors.decode()

    command.dsn = dsn
    command.execute = lambda statement: postgresql.execute(statement, dsn)
    return command


def ids(messages):
    return [each.message_id for each in messages]


def rounded(values):
    """Rollups and samples sum up in different orders."""
    return {name: round(value, 9) for name, value in values.items()}


async def answers(store):
    """Every answer that the samples have a part in."""
    samples = await store.samples(ALL, 100)
    return {
        "samples": [(each.message_id, each.volume, each.recorded_at) for each in samples],
        "meters": await store.meters(ALL, 100, False),
        "resources": await store.resources(ALL, 100),
        **{
            name: [
                (row.group, row.period_start, row.first, row.last, rounded(row.values))
                for row in await store.statistics(query)
            ]
            for name, query in {"by resource": BY_RESOURCE, "by project": BY_PROJECT, "by hour": BY_HOUR}.items()
        },
    }


@pytest.mark.parametrize("final", [True, False], ids=["final", "not final"])
@pytest_twisted.ensureDeferred
async def test_voided_samples_are_in_no_answer_and_come_back_exactly(database, final):
    async with running(database.dsn) as store:
        await store.write(BILLED)
        if final:
            await finalized(store)
        before = await answers(store)
        await store.write(FORGED)
        if final:
            await finalized(store)
        with_forged = await answers(store)
        assert with_forged != before

        status, report, errors = await database("db", "void", "--json", "--reason", "not ours", *ids(FORGED))
        assert (status, report["voided"], errors) == (0, 4, "")
        assert await answers(store) == before
        if final:
            assert await store.maintenance.finalize(START + 2 * DAY) > 0
            assert await answers(store) == before
        assert await store.sample(FORGED[0].message_id, ALL) is None
        status, report, _ = await database("db", "status", "--json")
        assert report["voided_samples"] == 4

        status, report, _ = await database("db", "unvoid", "--json", "--reason", "they were", *ids(FORGED))
        assert (status, report["restored"]) == (0, 4)
        assert await answers(store) == with_forged
        if final:
            assert await store.maintenance.finalize(START + 2 * DAY) > 0
            assert await answers(store) == with_forged
        for each in FORGED:
            assert as_written(await stored_message(store, each.message_id)) == as_written(each.fields)
        assert database.execute("SELECT count(*) FROM voided_sample") == [(0,)]


@pytest_twisted.ensureDeferred
async def test_administrators_alone_get_the_proof_of_a_voided_sample(database):
    id = FORGED[0].message_id
    async with running(database.dsn) as store:
        await store.write(FORGED)
        before = await store.proof(id)
        await database("db", "void", "--json", "--reason", "x", id)
        found = {
            is_admin: await VisibleStore(store, Requester(is_admin=is_admin, project_id="p2")).proof(id)
            for is_admin in (True, False)
        }
        assert found == {True: replace(before, voided=True), False: None}
        assert (rendering.proof(found[True], None).voided, rendering.proof(before, None).voided) == (True, False)
        assert await VisibleStore(store, Requester(is_admin=True)).proof("unknown") is None
        await database("db", "unvoid", "--json", "--reason", "x", id)
        assert await VisibleStore(store, Requester(is_admin=True)).proof(id) == before


@pytest_twisted.ensureDeferred
async def test_hour_without_other_samples_leaves_no_rollup_behind(database):
    alone = message("cpu", 1000, at=START + 5 * HOUR, resource_id="vm")
    async with running(database.dsn) as store:
        await store.write([*BILLED, alone])
        await finalized(store)
        await database("db", "void", "--json", "--reason", "x", alone.message_id)
        await finalized(store)
        [row] = await store.statistics(StatisticsQuery(filter=ALL))
        assert (row.values["sum"], row.values["count"]) == (28, 7)
        assert database.execute(
            f"SELECT count(*) FROM rollup WHERE hours = 1 AND start = '{START + 5 * HOUR}' OR max_volume >= 1000"
        ) == [(0,)]


@pytest_twisted.ensureDeferred
async def test_repeat_of_a_voided_sample_is_a_duplicate_and_another_fact_a_conflict(database):
    [forged] = FORGED[:1]
    async with running(database.dsn) as store:
        await store.write([forged])
        await database("db", "void", "--json", "--reason", "x", forged.message_id)

        result = await store.write([forged])
        assert (result.stored, result.duplicates, result.refused) == (0, 1, ())
        for other in (
            message("cpu", 5, at=forged.timestamp, message_id=forged.message_id, resource_id="vm", project_id="p2"),
            message("cpu", 1000, at=forged.timestamp + timedelta(days=7), message_id=forged.message_id),
        ):
            result = await store.write([other])
            assert (result.stored, [refusal.kind for refusal in result.refused]) == (0, ["conflict"])
        assert list(await store.samples(ALL, 10)) == []


@pytest_twisted.ensureDeferred
async def test_thousands_are_counted_first_and_voided_and_restored_as_one_entry(database):
    flood = [
        message("cpu", 10**6, at=START + n * timedelta(seconds=7), resource_id="vm", project_id="p2")
        for n in range(3000)
    ]
    selection = (
        "--meter",
        "cpu",
        "--resource",
        "vm",
        "--project",
        "p2",
        "--start",
        "2026-11-16",
        "--end",
        "2026-11-17",
    )
    async with running(database.dsn) as store:
        await store.write(BILLED)
        before = await answers(store)
        await store.write(flood)

        status, report, _ = await database("db", "void", "--json", "--dry-run", *selection)
        assert (status, report["would_be_voided"]) == (0, 3000)
        assert report["meters"] == [{"meter": "cpu", "project_id": "p2", "samples": 3000, "resources": 1}]
        assert (
            database.execute("SELECT count(*) FROM voided_sample UNION ALL SELECT count(*) FROM audit_entry")
            == [(0,)] * 2
        )

        status, _, errors = await database("db", "void", "--reason", "flood", "--expect", "2999", *selection)
        assert (status, "3000 samples are selected, not 2999: nothing was changed" in errors) == (3, True)

        status, report, _ = await database("db", "void", "--json", "--reason", "flood", "--expect", "3000", *selection)
        assert (status, report["voided"]) == (0, 3000)
        assert await answers(store) == before
        assert database.execute("SELECT DISTINCT audit_seq, reason FROM voided_sample") == [(1, "flood")]

        status, report, _ = await database("db", "unvoid", "--json", "--reason", "no flood", "--entry", "1")
        assert (status, report["restored"]) == (0, 3000)
        assert len(await store.samples(ALL, 5000)) == 3007


@pytest_twisted.ensureDeferred
async def test_who_and_why_are_listed_and_a_reason_is_required(database):
    async with running(database.dsn) as store:
        await store.write(FORGED)
        status, _, errors = await database("db", "void", FORGED[0].message_id)
        assert (status, "--reason" in errors) == (3, True)
        status, _, errors = await database("db", "void", "--reason", "x", "--start", "2026-11-16")
        assert (status, "name samples by their ids" in errors) == (3, True)

        await database("db", "void", "--reason", "a forged volume\n", "--who", "alice", FORGED[0].message_id)
        _, report, _ = await database("db", "voided", "--json")
        [sample] = report["samples"]
        assert (sample["message_id"], sample["volume"], sample["resource_id"]) == (FORGED[0].message_id, 1000.0, "vm")
        assert (sample["voided_by"], sample["reason"], sample["audit_entry"]) == ("alice", "a forged volume", 1)

        _, entry, _ = await database("audit", "list", "--json")
        assert (entry["who"], entry["action"], entry["reason"]) == ("alice", "void", "a forged volume")
        assert entry["details"]["message_ids"] == [FORGED[0].message_id]
        assert "@" in entry["details"]["login"]


@pytest_twisted.ensureDeferred
async def test_unknown_id_is_reported_and_the_others_are_voided(database):
    async with running(database.dsn) as store:
        await store.write(FORGED)
        status, report, _ = await database("db", "void", "--json", "--reason", "x", FORGED[0].message_id, "no such id")
        assert (status, report["voided"]) == (1, 1)
        assert [each["message_id"] for each in report["left_as_they_are"]] == ["no such id"]
        status, report, _ = await database("db", "unvoid", "--json", "--reason", "x", FORGED[1].message_id)
        assert (status, report["restored"]) == (1, 0)


@pytest_twisted.ensureDeferred
async def test_sample_whose_id_was_stored_anew_or_that_has_expired_stays_voided(database):
    async with running(database.dsn) as store:
        await store.write(FORGED)
        await database("db", "void", "--json", "--reason", "x", *ids(FORGED[:2]))
        # As a collector of an older version would, which does not know of voided samples.
        database.execute(
            f"INSERT INTO sample SELECT timestamp, clock_timestamp(), '{FORGED[0].message_id}', 5, metadata_id, series_id,"
            f" wire_format_id, signature, verbatim_json FROM sample WHERE message_id = '{FORGED[2].message_id}'"
        )
        status, report, _ = await database("db", "unvoid", "--json", "--reason", "x", *ids(FORGED[:2]))
        assert (status, report["restored"]) == (1, 1)
        [left] = report["left_as_they_are"]
        assert (left["message_id"], "another sample with its id" in left["problem"]) == (FORGED[0].message_id, True)

        await database("db", "void", "--json", "--reason", "x", FORGED[3].message_id)
        database.execute(f"INSERT INTO retention_cutoff VALUES ('cpu', '{START + DAY}')")
        for command, id in (("unvoid", FORGED[3].message_id), ("void", FORGED[2].message_id)):
            status, report, _ = await database("db", command, "--json", "--reason", "x", id)
            assert (status, "retention" in report["left_as_they_are"][0]["problem"]) == (1, True)


@pytest_twisted.ensureDeferred
async def test_tables_of_samples_and_of_voided_samples_have_the_same_columns(database):
    async with running(database.dsn):
        columns = {
            table: set(
                database.execute(
                    "SELECT attname, atttypid::regtype::text, attnotnull FROM pg_attribute"
                    f" WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped"
                )
            )
            for table in ("sample", "voided_sample")
        }
    more = {name for name, *_ in columns["voided_sample"] - columns["sample"]}
    assert columns["sample"] <= columns["voided_sample"]
    assert more == {"voided_at", "voided_by", "reason", "audit_seq"}


@pytest_twisted.ensureDeferred
async def test_garbage_collection_keeps_what_voided_samples_refer_to_until_they_expire(database):
    old = [replace_time(each, datetime.now(UTC) - timedelta(days=60)) for each in FORGED[:1]]
    recent = [replace_time(each, datetime.now(UTC) - timedelta(days=10)) for each in FORGED[1:2]]
    async with running(database.dsn, retention=Retention(days=30, rollup_days=30)) as store:
        await store.write([*old, *recent])
        await database("db", "void", "--json", "--reason", "x", *ids([*old, *recent]))
        await store.maintenance.run()
        await store.maintenance.run()

        assert database.execute("SELECT count(*) FROM voided_sample") == [(1,)]
        for table, column in (("series", "series_id"), ("metadata", "metadata_id"), ("wire_format", "wire_format_id")):
            assert database.execute(f"SELECT count(*) FROM voided_sample v JOIN {table} t ON t.id = v.{column}") == [
                (1,)
            ]
        status, report, _ = await database("db", "unvoid", "--json", "--reason", "x", *ids(recent))
        assert (status, report["restored"]) == (0, 1)
        assert as_written(await stored_message(store, recent[0].message_id)) == as_written(recent[0].fields)


def replace_time(one, at):
    return message(one.name, one.volume, at=at, resource_id=one.resource_id, metadata={"flavor": {"name": str(at)}})
