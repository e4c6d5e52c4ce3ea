"""``meter-import ceilometer``: from the tables that Ocata's own storage made on each database, to a real store or broker."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from meter.bus.dead_letters import DeadLetterPublisher
from meter.collector.samples import SampleConsumer
from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import EXIT_OK
from meter.commands.command import EXIT_USAGE
from meter.commands.command import UNAVAILABLE
from meter.daemon.metrics import CollectingMetrics
from meter.daemon.metrics import metrics_registry
from meter.interfaces import Binding
from meter.interfaces import Subscription
from meter.message import read_cast
from meter.query import SampleFilter
from meter.sample import utc_text
from meter.signing_keys import keyring
from tests.ceilometer_tables import SqliteTables
from tests.ceilometer_tables import statements
from tests.importing import meter_import as meter_import
from tests.importing import rejected
from tests.importing import stored_ids
from tests.integration.test_store_packing import OLD
from tests.integration.test_store_packing import counts
from tests.integration.test_store_rollups import running
from tests.packing import pack_all
from tests.servers.mariadb import PASSWORD
from tests.store_messages import message
from tests.waiting import until

KEYS = keyring(["k"], ceilometer_signature=False)
COMMAND = [sys.executable, "-c", "from meter.commands.importing.command import main; main()"]
POLLING = Path(__file__).parents[1] / "data" / "ceilometer-polling"
NOON = datetime(2026, 11, 18, 12, tzinfo=UTC)
UNTIL = ("--until", "2026-11-25")


def ceilometer_messages():
    """The messages that Ceilometer stored in the databases, in the order of its samples."""
    for name in ("cpu", "disk.device.read.bytes", "memory"):
        yield from json.loads((POLLING / f"{name}.json").read_text())["message"]["payload"]["samples"][:4]


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def ceilometer_url(request, tmp_path):
    """The URL of a database with what Ceilometer stored, and options for it."""
    if request.param == "sqlite":
        return [SqliteTables(tmp_path / "ceilometer.sqlite").url]
    if request.param == "postgresql":
        server = request.getfixturevalue("postgresql")
        url = server.dsn()
        server.execute("; ".join(statements("postgresql")), url)
        return [url]
    server = request.getfixturevalue("mariadb")
    database = server.database()
    server.execute(*statements("mysql"), database=database)
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    url = f"mysql+pymysql://meter@127.0.0.1:{server.port}/{database}"
    return ["--password-file", str(tmp_path / "password"), url]


@pytest_twisted.ensureDeferred
async def test_each_sample_is_imported_once_as_ceilometer_got_it(meter_import, ceilometer_url, postgresql, tmp_path):
    status, out, errors = await meter_import("ceilometer", *UNTIL, *ceilometer_url)

    assert (status, errors) == (EXIT_OK, "")
    assert out.splitlines()[:2] == [
        "12 samples of 3 meters stored",
        "  cpu (cumulative, ns): 4, from 2026-11-22T17:00:59.701479 to 2026-11-22T17:00:59.701479",
    ]
    async with running(meter_import.dsn) as store:
        stored = {each.message_id: each for each in await store.samples(SampleFilter(), 100)}
        for sent in ceilometer_messages():
            sample = stored.pop(sent["message_id"])
            assert (sample.name, sample.type, sample.unit) == (
                sent["counter_name"],
                sent["counter_type"],
                sent["counter_unit"],
            )
            assert (sample.volume, utc_text(sample.timestamp)) == (sent["counter_volume"], sent["timestamp"])
            assert (sample.resource_id, sample.project_id, sample.user_id, sample.source) == (
                sent["resource_id"],
                sent["project_id"],
                sent["user_id"],
                sent["source"],
            )
            assert sample.metadata == {**sent["resource_metadata"], "imported_from": "ceilometer"}
        assert stored == {}
        before = stored_ids(postgresql, meter_import.dsn)

        status, out, _ = await meter_import("ceilometer", "--json", *UNTIL, *ceilometer_url)
        assert (status, json.loads(out)["samples"]) == (EXIT_OK, 0)
        status, out, _ = await meter_import("ceilometer", "--json", "--restart", *UNTIL, *ceilometer_url)
        assert (status, json.loads(out)["samples"]) == (EXIT_OK, 12)
        assert stored_ids(postgresql, meter_import.dsn) == before
    actions = postgresql.execute("SELECT action, details::json->>'url' FROM audit_entry ORDER BY seq", meter_import.dsn)
    assert [action for action, _ in actions] == ["import"] * 3
    assert all(PASSWORD not in url for _, url in actions)
    assert rejected(tmp_path) == []


@pytest_twisted.ensureDeferred
async def test_only_the_selected_times_and_meters_are_imported(meter_import, ceilometer_url):
    async def imported(*options):
        _, out, _ = await meter_import("ceilometer", "--json", "--dry-run", *options, *ceilometer_url)
        return {each["meter"]: each["samples"] for each in json.loads(out)["meters"]}

    assert await imported("--until", "2026-11-22T17:00:59.701479") == {"memory": 4}
    assert await imported(*UNTIL, "--since", "2026-11-22T17:00:59.701480") == {"disk.device.read.bytes": 4}
    assert await imported(*UNTIL, "--meter", "c*, disk.*") == {"cpu": 4, "disk.device.read.bytes": 4}
    assert await imported(*UNTIL, "--meter", "none") == {}


@pytest_twisted.ensureDeferred
async def test_volume_is_read_from_mysql_to_the_last_digit(meter_import, mariadb, postgresql, tmp_path):
    database = mariadb.database()
    mariadb.execute(*statements("mysql"), "UPDATE sample SET volume = 0.1 + 1e-16 + id / 3e13", database=database)
    (tmp_path / "password").write_text(PASSWORD)
    url = f"mysql://meter@127.0.0.1:{mariadb.port}/{database}"

    assert (await meter_import("ceilometer", *UNTIL, "--password-file", "password", url))[0] == EXIT_OK

    volumes = [volume for [volume] in mariadb.execute("SELECT volume FROM sample ORDER BY volume", database=database)]
    assert postgresql.execute("SELECT volume FROM sample ORDER BY 1", meter_import.dsn) == [(each,) for each in volumes]


@pytest_twisted.ensureDeferred
async def test_sample_that_came_over_the_bus_too_is_stored_once(meter_import, postgresql, tmp_path):
    tables = SqliteTables(tmp_path / "ceilometer.sqlite")
    async with running(meter_import.dsn) as store:
        live = [
            message(
                sent["counter_name"],
                sent["counter_volume"],
                at=datetime.fromisoformat(sent["timestamp"]).replace(tzinfo=UTC),
                type=sent["counter_type"],
                unit=sent["counter_unit"],
                metadata=sent["resource_metadata"],
                **{name: sent[name] for name in ("resource_id", "project_id", "user_id", "source", "message_id")},
            )
            for sent in ceilometer_messages()
        ]
        assert (await store.write(live)).stored == 12

        assert (await meter_import("ceilometer", *UNTIL, tables.url))[0] == EXIT_OK

        assert stored_ids(postgresql, meter_import.dsn) == sorted(tables.ids())
        assert not any("imported_from" in each.metadata for each in await store.samples(SampleFilter(), 100))


def started(arguments, directory):
    return subprocess.Popen([*COMMAND, *arguments], cwd=directory, stderr=subprocess.PIPE, stdout=subprocess.PIPE)


@pytest.mark.parametrize("stopped_by", [signal.SIGINT, signal.SIGKILL])
@pytest_twisted.ensureDeferred
async def test_import_that_is_stopped_goes_on_and_stores_each_sample_once(
    meter_import, postgresql, tmp_path, stopped_by
):
    tables = SqliteTables(tmp_path / "ceilometer.sqlite", empty=True)
    tables.samples(tables.resource(), [(NOON + timedelta(seconds=n), n) for n in range(5500)])
    await meter_import("ceilometer", "--dry-run", *UNTIL, tables.url)  # writes the configuration
    arguments = ["--config", tmp_path / "meter.toml", "ceilometer", "--rate", "1500", *UNTIL, tables.url]
    running_command = await deferToThread(partial(started, arguments, tmp_path))
    state = tmp_path / "meter-import.state"
    await until(lambda: state.exists() and (json.loads(state.read_text())["mark"] or 0) >= 2000)

    running_command.send_signal(stopped_by)
    _, errors = await deferToThread(running_command.communicate)

    some = len(stored_ids(postgresql, meter_import.dsn))
    assert 2000 <= some < 5500
    if stopped_by == signal.SIGINT:
        assert running_command.returncode == 130
        assert re.search(r"stored [\d,]+ of 5,500 samples; the same command does the rest", errors.decode())
    status, out, _ = await meter_import("ceilometer", "--json", "--rate", "0", *UNTIL, tables.url)
    assert (status, 0 < json.loads(out)["samples"] <= 3500) == (EXIT_OK, True)
    assert stored_ids(postgresql, meter_import.dsn) == sorted(tables.ids())


@pytest_twisted.ensureDeferred
async def test_rows_that_are_no_samples_are_written_down_with_the_reason_and_the_others_imported(
    meter_import, postgresql, tmp_path
):
    tables = SqliteTables(tmp_path / "ceilometer.sqlite", empty=True)
    good = tables.resource()
    tables.samples(good, [(NOON, 1)])
    tables.samples(good, [(NOON, None)])
    tables.samples(good, [(NOON, 1e300)])
    tables.samples(good, [(None, 2)])
    tables.samples(None, [(NOON, 3)])
    tables.samples(good, [(NOON, 4)], meter_id=99)
    tables.samples(tables.resource(metadata='{"cut": "of'), [(NOON, 5)])
    tables.samples(tables.resource(metadata=[1]), [(NOON, 6)])
    tables.samples(tables.resource(metadata={"_meter": {"interval": 1}}), [(NOON, 7)])
    tables.samples(tables.resource("r\0"), [(NOON, 8)])
    tables.samples(tables.resource("r" * 600), [(NOON, 9)])
    [one] = tables.ids()[:1]
    tables.samples(good, [(NOON, 10)], message_id=one)
    tables.samples(good, [(NOON, 1)], message_id=one)  # Ceilometer stored what was delivered again

    status, out, errors = await meter_import("ceilometer", *UNTIL, tables.url)

    assert (status, errors) == (EXIT_FOUND_PROBLEMS, "")
    assert "10 records not imported; see meter-import.rejected:" in out
    reasons = [f"{each['record']}: {each['reason']}" for each in rejected(tmp_path)]
    for number, (reason, expected) in enumerate(
        zip(
            sorted(reasons, key=lambda text: int(re.findall(r"\d+", text)[0])),
            [
                "sample 2: volume of cpu must be a number, not None",
                "sample 3: volume of cpu must be a finite number",
                "sample 5: there is no row None in the table resource",
                "sample 6: there is no row 99 in the table meter",
                "sample 7: the metadata of its resource are not JSON",
                "sample 8: the metadata of its resource are not a JSON object",
                "sample 9: its metadata have _meter",
                "sample 10: resource_id",
                "sample 11: resource_id must be at most 512 characters",
                "sample 12: the store refuses it: message_id",
            ],
            strict=True,
        )
    ):
        assert reason.startswith(expected), number
    assert stored_ids(postgresql, meter_import.dsn) == [one]


@pytest_twisted.ensureDeferred
async def test_dry_run_says_what_would_happen_and_changes_nothing(meter_import, postgresql, tmp_path):
    tables = SqliteTables(tmp_path / "ceilometer.sqlite", empty=True)
    good = tables.resource()
    now = datetime.now(UTC)
    tables.samples(good, [(now - timedelta(days=days), days) for days in (500, 399, 30, 3)])
    tables.samples(good, [(now - timedelta(days=40), 5)], meter="memory")
    until = ("--until", utc_text(now))

    settings = 'retention_days_by_meter = { "mem*" = 30.0 }'
    status, out, errors = await meter_import("ceilometer", "--dry-run", *until, tables.url, settings=settings)

    assert (status, errors) == (EXIT_FOUND_PROBLEMS, "")
    lines = out.splitlines()
    assert lines[0] == "4 samples of 1 meter would be imported"
    assert lines[1].startswith("  cpu (cumulative, ns): 4, from ")
    assert lines[2].startswith("1 of them is older than 400 days: the store keeps these in one table")
    assert lines[3:] == [
        "1 record not imported:",
        "  1 of memory: it is older than the retention of 30 days ([store] retention_days) (sample 5)",
    ]
    assert stored_ids(postgresql, meter_import.dsn) == []
    assert postgresql.execute("SELECT * FROM audit_entry", meter_import.dsn) == []
    assert {path.name for path in tmp_path.iterdir()} == {"ceilometer.sqlite", "meter.toml"}


@pytest_twisted.ensureDeferred
async def test_samples_go_over_the_bus_where_there_is_one_in_batches_that_collectors_verify(
    meter_import, rabbitmq, amqp_bus, tmp_path
):
    tables = SqliteTables(tmp_path / "ceilometer.sqlite")
    url = rabbitmq.vhost()
    bus, came = amqp_bus(url), []

    async def take(delivery):
        came.append(delivery)

    bus.subscribe(
        Subscription(queue="test", bindings=(Binding("metering", "metering.#", ours=True),)), take
    ).startService()
    await until(lambda: bus.readiness().ready)

    settings = f'[bus]\nurl = "{url}"\n'
    status, out, errors = await meter_import("ceilometer", "--json", *UNTIL, tables.url, settings=settings)

    assert (status, errors, json.loads(out)["outcome"]) == (EXIT_OK, "", "published")
    await until(lambda: len(came) == 3)
    read = [each for delivery in came for each in read_cast(delivery.body, KEYS)]
    assert sorted(each.message_id for each in read) == sorted(tables.ids())
    assert {delivery.routing_key for delivery in came} == {
        "metering.cpu",
        "metering.disk.device.read.bytes",
        "metering.memory",
    }


@pytest_twisted.ensureDeferred
async def test_import_over_the_bus_that_is_killed_and_repeated_stores_each_sample_once(
    meter_import, rabbitmq, amqp_bus, postgresql, tmp_path
):
    tables = SqliteTables(tmp_path / "ceilometer.sqlite", empty=True)
    tables.samples(tables.resource(), [(NOON + timedelta(seconds=n), n) for n in range(3500)])
    url = rabbitmq.vhost()
    bus, dead = amqp_bus(url), []
    async with running(meter_import.dsn) as store:
        collector = SampleConsumer(
            store,
            KEYS,
            DeadLetterPublisher(bus, reactor),
            reactor,
            batch_samples=1000,
            batch_seconds=0.05,
            metrics=CollectingMetrics(metrics_registry("test")),
            count_rejected=lambda kind, messages: dead.append(kind),
        )
        queue = Subscription(queue="test", bindings=(Binding("metering", "metering.#", ours=True),))
        bus.subscribe(queue, collector.receive).startService()
        await until(lambda: bus.readiness().ready)
        settings = f'[bus]\nurl = "{url}"\n'
        await meter_import("ceilometer", "--dry-run", *UNTIL, tables.url, settings=settings)
        arguments = ["--config", tmp_path / "meter.toml", "ceilometer", "--rate", "1000", *UNTIL, tables.url]
        process = await deferToThread(partial(started, arguments, tmp_path))
        state = tmp_path / "meter-import.state"
        await until(lambda: state.exists() and (json.loads(state.read_text())["mark"] or 0) >= 1000)
        process.kill()
        await deferToThread(process.communicate)
        # As if the mark had been lost with the disk.
        assert 1000 <= json.loads(state.read_text())["mark"] < 3500
        state.unlink()

        status, out, _ = await meter_import(
            "ceilometer", "--json", "--rate", "0", *UNTIL, tables.url, settings=settings
        )

        assert (status, json.loads(out)["samples"]) == (EXIT_OK, 3500)
        await until(lambda: len(stored_ids(postgresql, meter_import.dsn)) >= 3500)
        assert stored_ids(postgresql, meter_import.dsn) == sorted(tables.ids())
        assert dead == []


@pytest_twisted.ensureDeferred
async def test_import_into_final_hours_and_packed_weeks_is_part_of_all_answers(meter_import, postgresql, tmp_path):
    tables = SqliteTables(tmp_path / "ceilometer.sqlite", empty=True)
    tables.samples(tables.resource(), [(OLD + timedelta(minutes=n), n) for n in range(100)], meter="memory")
    async with running(meter_import.dsn) as store:
        await store.write([message("other", n, at=OLD + timedelta(minutes=n)) for n in range(100)])
        assert await pack_all(meter_import.dsn) == 100

        status, _, _ = await meter_import("ceilometer", *UNTIL, tables.url)

        assert (status, counts(postgresql, meter_import.dsn)) == (EXIT_OK, (100, 100))
        await store.maintenance.finalize(datetime.now(UTC))
        assert len(await store.samples(SampleFilter(), 1000)) == 200
    # Once more, after they are packed, too: each is known.
    await pack_all(meter_import.dsn)
    status, out, _ = await meter_import("ceilometer", "--json", "--restart", *UNTIL, tables.url)
    assert (status, json.loads(out)["samples"]) == (EXIT_OK, 100)
    assert sum(counts(postgresql, meter_import.dsn)) == 200


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_done_is_said_before_anything_is_sent(meter_import, postgresql, tmp_path):
    tables = SqliteTables(tmp_path / "ceilometer.sqlite")

    async def refused(*arguments, settings=""):
        status, out, errors = await meter_import("ceilometer", *arguments, settings=settings)
        assert out == ""
        return status, errors.splitlines()[0]

    status, error = await refused(tables.url)
    assert (status, "give --until" in error) == (EXIT_USAGE, True)
    status, error = await refused("--until", "2126-01-01", tables.url)
    assert (status, error) == (EXIT_USAGE, "--until must not be in the future")
    status, error = await refused(*UNTIL, f"sqlite:///{tmp_path}/other.sqlite")
    assert (status, error.endswith(f"there is no file {tmp_path}/other.sqlite")) == (EXIT_USAGE, True)
    assert not (tmp_path / "other.sqlite").exists()
    (tmp_path / "other.sqlite").write_bytes(b"")
    status, error = await refused(*UNTIL, f"sqlite:///{tmp_path}/other.sqlite")
    assert (status, error.endswith("it has no table sample")) == (EXIT_USAGE, True)
    status, error = await refused(*UNTIL, "mongodb://x/y")
    assert (status, "mongodb cannot be read, only MySQL, MariaDB" in error) == (EXIT_USAGE, True)
    status, error = await refused(*UNTIL, "mysql+mysqldb://x/y")
    assert (status, "write a URL without a driver" in error) == (EXIT_USAGE, True)
    for wrong in ("ceilometer", "mysql://u:ge:heim@h:port/ceilometer", "mysql://u:geheim@[::1/ceilometer"):
        status, error = await refused(*UNTIL, wrong)
        assert (status, "is not like mysql://" in error, "heim" in error) == (EXIT_USAGE, True, False)
    status, error = await refused(*UNTIL, "postgresql://meter:geheim@127.0.0.1:9/ceilometer")
    assert (status, "Connection refused" in error, "geheim" in error) == (UNAVAILABLE, True, False)
    status, error = await refused(*UNTIL, tables.url, settings='[bus]\nurl = "amqp://127.0.0.1:9/"\n')
    assert (status, error.startswith("the broker: ")) == (UNAVAILABLE, True)
    assert (await meter_import("ceilometer", *UNTIL, tables.url))[0] == EXIT_OK
    status, error = await refused(*UNTIL, "--meter", "cpu", tables.url)
    assert (status, "which differs in meters" in error) == (EXIT_USAGE, True)
    (tmp_path / "text").write_text("text")
    status, error = await refused(*UNTIL, "--state", "text", tables.url)
    assert (status, "--state text is not the state of an import" in error) == (EXIT_USAGE, True)
    status, error = await refused(*UNTIL, "--state", "no/where", tables.url)
    assert (status, "--state no/where cannot be written" in error) == (EXIT_USAGE, True)
    assert len(stored_ids(postgresql, meter_import.dsn)) == 12
