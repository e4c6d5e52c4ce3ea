"""``meter-db`` on a real database."""

from __future__ import annotations

import json
import os
import sys

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.utils import getProcessOutputAndValue

from tests.integration.test_retired_agents import AGENT
from tests.integration.test_retired_agents import expected
from tests.integration.test_retired_agents import measured
from tests.integration.test_store_migrations import BEFORE_THE_FIRST_RELEASE
from tests.integration.test_store_rollups import START
from tests.integration.test_store_rollups import finalized
from tests.integration.test_store_rollups import running
from tests.store_messages import message


@pytest.fixture
def meter_db(postgresql, tmp_path):
    """Runs the command on a database of its own; returns its exit status, output and errors."""
    return command_on(postgresql.dsn(), tmp_path / "meter.toml", "retention_days = 30.0")


def command_on(dsn, file, settings=""):
    """Return the function that runs the command on the database at ``dsn``, with more ``settings`` of the store."""
    file.write_text(f'[store]\ndsn = "{dsn}"\n{settings}\n[signing]\nkey = "k"\n')

    async def meter_db(*arguments):
        out, errors, status = await getProcessOutputAndValue(
            sys.executable,
            ["-c", "from meter.commands.db import main; main()", "--config", str(file), *arguments],
            env=os.environ,
            reactor=reactor,
        )
        return status, out.decode(), errors.decode()

    meter_db.dsn = dsn
    return meter_db


@pytest_twisted.ensureDeferred
async def test_upgrade_happens_once(meter_db):
    status, out, _ = await meter_db("status", "--json")
    assert (status, json.loads(out)["schema_version"]) == (1, 0)
    status, _, errors = await meter_db("size")
    assert (status, "schema version 0" in errors) == (2, True)

    status, out, errors = await meter_db("upgrade", "--json")
    upgraded = json.loads(out)
    assert (status, upgraded["previous_schema_version"], errors) == (0, 0, "")
    status, out, _ = await meter_db("upgrade", "--json")
    version = upgraded["schema_version"]
    assert json.loads(out) == {"previous_schema_version": version, "schema_version": version, "applied_steps": []}

    status, out, _ = await meter_db("status", "--json")
    report = json.loads(out)
    assert (status, report["schema_version"], report["required_schema_version"]) == (0, version, version)
    assert (report["schema_problem"], report["extensions"]) == (None, {})


@pytest_twisted.ensureDeferred
async def test_partitions_retention_and_size_are_reported(meter_db):
    async with running(meter_db.dsn) as store:
        await store.write([message(at=START), message(at=START.replace(year=1999))])
        await finalized(store)

    status, out, _ = await meter_db("partitions", "--json")
    partitions = json.loads(out)["partitions"]
    assert status == 0
    assert {"sample_default", "sample_2026_11_16"} <= {each["partition"] for each in partitions}

    report = json.loads((await meter_db("retention", "--json"))[1])
    assert (report["retention_days"], report["final_hours"], report["final_days"]) == (30.0, 2, 2)
    assert report["newest_final_hour"] == "2026-11-16T00:00:00+00:00"
    assert (report["oldest_hour_not_final"], report["garbage_collected_rows"]) == (None, {})

    report = json.loads((await meter_db("size", "--json"))[1])
    assert {each["table"] for each in report["tables"]} >= {"sample", "rollup", "metadata"}
    assert report["total_bytes"] == sum(each["total_bytes"] for each in report["tables"])

    for command in ("status", "partitions", "retention", "size"):
        status, out, _ = await meter_db(command)
        assert status == 0
        assert out.count("\n") > 3


@pytest_twisted.ensureDeferred
async def test_status_of_a_database_from_before_the_first_release_says_what_to_do(meter_db, postgresql):
    postgresql.execute(BEFORE_THE_FIRST_RELEASE, meter_db.dsn)

    status, out, _ = await meter_db("status")
    assert status == 1
    assert "schema problem: the schema of the database cannot be upgraded" in out
    assert "name an empty database in dsn of [store]" in out

    status, _, errors = await meter_db("upgrade")
    assert (status, "before the first release" in errors) == (2, True)


@pytest_twisted.ensureDeferred
async def test_dsn_with_an_unknown_parameter_is_named_without_a_traceback(tmp_path):
    command = command_on("postgresql://u:geheim@h/d?sslmod=x", tmp_path / "meter.toml")
    status, out, errors = await command("status")
    assert (status, out, "geheim" in errors) == (3, "", False)
    assert errors.endswith('invalid URI query parameter: "sslmod"\n')
    assert "Traceback" not in errors


@pytest_twisted.ensureDeferred
async def test_missing_subcommand_is_a_usage_error(meter_db):
    status, _, errors = await meter_db()
    assert (status, "give a subcommand" in errors) == (3, True)


@pytest_twisted.ensureDeferred
async def test_command_retires_an_agent(meter_db):
    async with running(meter_db.dsn) as store:
        await measured(store)
        status, _, errors = await meter_db("retire-agent", AGENT)
        assert (status, "give a --reason" in errors) == (3, True)
        status, out, _ = await meter_db("retire-agent", "--json", "--reason", "scrapped", AGENT)
        report = json.loads(out)
        assert (status, report["ended_resources"], "audit_entry" in report) == (0, 2, True)
        assert await expected(store, 2) == 2 * 4
    assert (await meter_db("retire-agent", "--reason", "scrapped", AGENT))[0] == 1
    status, _, errors = await meter_db("retire-agent", "--reason", "scrapped", "meter-compute@nobody")
    assert (status, "no agent" in errors) == (3, True)
