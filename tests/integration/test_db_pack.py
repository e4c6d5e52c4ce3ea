"""``meter-db pack`` and ``meter-db unpack`` on a real database."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import closing

import psycopg2
import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from meter.sample_identity import week_of
from tests.integration.test_db_command import command_on
from tests.integration.test_store_packing import NOW
from tests.integration.test_store_packing import OLD
from tests.integration.test_store_packing import all_samples
from tests.integration.test_store_packing import counts
from tests.integration.test_store_packing import varied
from tests.integration.test_store_rollups import running
from tests.waiting import until

COMMAND = [sys.executable, "-c", "from meter.commands.db import main; main()", "--config"]


@pytest_twisted.ensureDeferred
async def test_due_weeks_are_packed_and_unpacked_and_the_reports_say_what_was_done(postgresql, tmp_path):
    dsn, week = postgresql.dsn(), str(week_of(OLD))
    meter_db = command_on(dsn, tmp_path / "meter.toml")
    async with running(dsn) as store:
        await store.write(varied(300))
        await store.write(varied(20, at=NOW))
        before = all_samples(postgresql, dsn)

        status, out, _ = await meter_db("pack", "--json")
        report = json.loads(out)
        assert (status, report["packed_samples"]) == (1, 0)
        assert "not final" in report["weeks"][0]["outcome"]
        await store.maintenance.finalize(NOW)

    status, out, errors = await meter_db("pack", "--json")
    report = json.loads(out)
    assert (status, errors, report["packed_samples"]) == (0, "", 300)
    assert report["weeks"] == [{"week": week, "samples": 300, "outcome": "packed"}]
    assert counts(postgresql, dsn) == (20, 300)
    assert all_samples(postgresql, dsn) == before

    status, out, _ = await meter_db("pack", str(week_of(NOW)), "2001-01-01")
    assert (status, out.count("has no partition, or is not over")) == (1, 2)
    size = json.loads((await meter_db("size", "--json"))[1])
    assert size["packed_samples"] == 300
    assert {each["table"] for each in size["tables"]} >= {"packed_samples", "packed_message_id"}
    partitions = json.loads((await meter_db("partitions", "--json"))[1])["partitions"]
    assert {each["partition"]: each["samples"] for each in partitions}[
        f"packed_samples_{week.replace('-', '_')}"
    ] == 300

    status, out, _ = await meter_db("unpack", "--json", week)
    assert (status, json.loads(out)["unpacked_samples"]) == (0, 300)
    assert counts(postgresql, dsn) == (320, 0)
    assert all_samples(postgresql, dsn) == before
    assert postgresql.execute("SELECT count(*) FROM packed_week", dsn) == [(0,)]
    status, _, errors = await meter_db("unpack", week)
    assert (status, "nothing of the week" in errors) == (3, True)
    actions = postgresql.execute("SELECT action FROM audit_entry ORDER BY seq", dsn)
    assert [action for [action] in actions] == ["pack", "pack", "unpack"]


@pytest.mark.parametrize("stopped_by", [signal.SIGINT, signal.SIGKILL])
@pytest_twisted.ensureDeferred
async def test_command_that_is_stopped_leaves_no_statement_on_the_server_and_can_be_given_again(
    postgresql, tmp_path, stopped_by
):
    dsn, table = postgresql.dsn(), f"sample_{week_of(OLD):%Y_%m_%d}"
    meter_db = command_on(dsn, tmp_path / "meter.toml")
    of_command = "FROM pg_stat_activity WHERE application_name = 'meter-db'"
    async with running(dsn) as store:
        await store.write(varied(100))
        await store.maintenance.finalize(NOW)
    with closing(psycopg2.connect(dsn)) as locking:
        locking.cursor().execute(f"LOCK TABLE {table} IN SHARE MODE")
        with subprocess.Popen([*COMMAND, str(tmp_path / "meter.toml"), "pack"], stderr=subprocess.PIPE) as process:  # noqa: ASYNC220
            await until(lambda: postgresql.execute(f"SELECT pid {of_command} AND wait_event_type = 'Lock'"))
            process.send_signal(stopped_by)
            _, errors = await deferToThread(process.communicate)

        await until(lambda: not postgresql.execute(f"SELECT pid {of_command}"))

        if stopped_by == signal.SIGINT:
            said = ["packed 0 of 100 samples; the same command does the rest", "interrupted"]
            assert (process.returncode, errors.decode().splitlines()) == (130, said)
    status, out, _ = await meter_db("pack", "--json")
    assert (status, json.loads(out)["packed_samples"]) == (0, 100)
