"""``meter-db upgrade``: what it says beforehand is what it does; what keeps it from upgrading is told, and leaves the database as it was."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import closing
from contextlib import contextmanager

import psycopg2
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from meter.commands import audit
from meter.commands import completeness
from meter.commands import db
from meter.commands import tokens
from meter.commands import verify
from meter.commands.command import status_of
from meter.commands.doctor import command as doctor
from meter.commands.rate import command as rate
from meter.interfaces import Unavailable
from meter.store import PostgresStore
from meter.store.maintenance.schema_upgrade import SchemaUpgrade
from meter.store.migrations import Migration
from meter.store.migrations import Schema
from meter.store.migrations import migrations
from meter.store.migrations import table_locks
from meter.store.migrations.facts import FACTS
from meter.store.migrations.facts import STOP_COLLECTORS
from tests.integration.test_store_migrations import NEXT
from tests.integration.test_store_migrations import applied
from tests.integration.test_store_migrations import pool_at
from tests.servers.postgresql import upgrade
from tests.store_messages import message
from tests.system.daemons import House
from tests.system.daemons import until as until_seen
from tests.waiting import until

VERSION = len(migrations())
BEFORE_ARCHIVES = 16
"""The schema version before the archive and the totals of meters."""

BLOCKING_LOCKS = """
SELECT DISTINCT coalesce(parent.relname, c.relname), l.mode FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
LEFT JOIN pg_inherits i ON i.inhrelid = c.oid LEFT JOIN pg_class parent ON parent.oid = i.inhparent
WHERE l.pid = pg_backend_pid() AND c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace
AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
"""

STRENGTH = ("ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock")

SLOW_UPGRADE = """
import sys
from twisted.internet import reactor
from twisted.internet.task import react
from meter.store.maintenance.schema_upgrade import SchemaUpgrade
from meter.store.migrations import Migration, Schema, migrations
async def main(reactor):
    upgrade = SchemaUpgrade(reactor, sys.argv[1], clock=reactor)
    slow = Migration(len(migrations()) + 1, "slow", "CREATE TABLE invoice (id integer); SELECT pg_sleep(600)")
    upgrade._schema = Schema([*migrations(), slow])
    await upgrade.open()
    await upgrade.upgrade(lambda text: print(text, flush=True))
react(main)
"""

NEWER = "install the newer Meter here too"

COMMANDS = {
    "meter-audit": (audit, ["list", "verify"]),
    "meter-completeness": (completeness, [""]),
    "meter-db": (
        db,
        [
            "finalize",
            "pack",
            "partitions",
            "retention",
            "segments an-instance",
            "size",
            "status",
            "upgrade",
            "upgrade --dry-run",
            "voided",
        ],
    ),
    "meter-doctor": (doctor, [""]),
    "meter-rate": (rate, ["list", "webhooks list"]),
    "meter-token": (tokens, ["list"]),
    "meter-verify": (verify, [""]),
}
"""The commands that use the database, with arguments."""


@contextmanager
def client(dsn, statement):
    """A client that has executed ``statement`` in a transaction which goes on."""
    with closing(psycopg2.connect(dsn, application_name="nightly report")) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        yield connection


def slow_upgrade(dsn):
    """Start a process whose upgrade has a step that takes ten minutes."""
    return subprocess.Popen([sys.executable, "-c", SLOW_UPGRADE, dsn], stdout=subprocess.PIPE, text=True)


@pytest.fixture
def said(tmp_path, capsys):
    """Runs a command on the database at a DSN, in this process; returns its exit status, output and errors."""

    async def work(dsn, words, module=db):
        config = tmp_path / "meter.toml"
        config.write_text(f'[store]\ndsn = "{dsn}"\n[signing]\nkey = "k"\n[bus]\nurl = "local:"\n')
        options = module.Options()
        options.parseOptions(["--config", str(config), *words.split()])
        status = await status_of(module.work(reactor, options))
        return status, *capsys.readouterr()

    return work


def newer(postgresql):
    """Return the DSN of a database of a newer Meter."""
    dsn = postgresql.dsn_with_schema()
    postgresql.execute(f"INSERT INTO schema_version (version, name) VALUES ({NEXT}, 'flying_cars')", dsn)
    return dsn


def test_each_step_has_facts_and_takes_the_locks_that_they_state(postgresql):
    assert list(FACTS) == [step.number for step in migrations()]
    with closing(psycopg2.connect(postgresql.dsn())) as connection, connection.cursor() as cursor:
        for step in migrations():
            cursor.execute("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace")
            before = {name for (name,) in cursor.fetchall()}
            cursor.execute(step.statements)
            cursor.execute(BLOCKING_LOCKS)
            taken: dict[str, str] = {}
            for table, mode in cursor.fetchall():
                if table in before:
                    taken[table] = max(mode, taken.get(table, mode), key=STRENGTH.index)
            connection.commit()

            facts = FACTS[step.number]
            stated = {table: mode.title().replace(" ", "") + "Lock" for table, mode in facts.locks.items()}
            assert (step.number, taken) == (step.number, stated)
            assert {*facts.reads, *facts.writes} <= before, step.number
            assert facts.does.endswith("."), step.number


@pytest_twisted.ensureDeferred
async def test_dry_run_says_what_an_upgrade_does_and_changes_nothing(postgresql, said):
    dsn = postgresql.dsn()
    upgrade(dsn, BEFORE_ARCHIVES)
    with client(dsn, "SELECT * FROM final_period"):
        status, out, errors = await said(dsn, "upgrade --dry-run --json")
        plan = json.loads(out)
        text = (await said(dsn, "upgrade --dry-run"))[1]

    assert (status, errors) == (0, "")
    assert (plan["schema_version"], plan["required_schema_version"]) == (BEFORE_ARCHIVES, VERSION)
    assert [each["step"] for each in plan["steps"]][:2] == ["0017 archived_weeks", "0018 totals_of_meters"]
    assert plan["steps"][1]["locks"] == {"final_period": "ACCESS EXCLUSIVE"}
    assert (plan["duration"], plan["problem"]) == ("seconds", None)
    assert "nightly report (pid " in plan["in_use_by"][0]
    assert "step 0018 totals_of_meters, seconds\n    Makes the table of totals of meters" in text
    assert "locks until the upgrade is over: final_period (ACCESS EXCLUSIVE)" in text
    assert "would be waited for now: nightly report" in text
    assert applied(postgresql, dsn)[-1][0] == BEFORE_ARCHIVES

    status, out, _ = await said(dsn, "upgrade")
    assert (status, "0018 totals_of_meters" in out) == (0, True)
    assert applied(postgresql, dsn)[-1][0] == VERSION
    status, out, _ = await said(dsn, "upgrade --dry-run")
    assert (status, out) == (0, f"the schema has version {VERSION}: nothing is to be done\n")


@pytest_twisted.ensureDeferred
async def test_dry_run_of_a_new_database_stops_no_collector(postgresql, said):
    status, out, _ = await said(postgresql.dsn(), "upgrade --dry-run --json")
    plan = json.loads(out)
    assert (status, plan["schema_version"], len(plan["steps"])) == (0, 0, VERSION)
    assert {each["earlier_daemons"] for each in plan["steps"]} == {"there are none"}


@pytest_twisted.ensureDeferred
async def test_estimate_grows_with_the_tables(postgresql):
    dsn = postgresql.dsn()
    upgrade(dsn, 2)
    postgresql.execute(
        "INSERT INTO sample SELECT '2026-11-16T00:00:00Z'::timestamptz + make_interval(secs => n), now(), gen_random_uuid(),"
        " n, 1, 1, 1, '', '' FROM generate_series(1, 20000) n; ANALYZE sample_default",
        dsn,
    )
    database = SchemaUpgrade(reactor, dsn, clock=reactor)
    await database.open()
    third = (await database.plan())["steps"][0]
    database.close()

    assert (third["step"], third["reads_rows"]) == ("0003 voiding_and_audit_log", 2 * 20000)
    assert third["reads_bytes"] > 20000 * 80
    assert third["earlier_daemons"].startswith(STOP_COLLECTORS)


@pytest_twisted.ensureDeferred
async def test_table_that_is_in_use_is_not_waited_for_and_who_uses_it_is_named(postgresql, monkeypatch):
    monkeypatch.setattr(table_locks, "LOCK_SECONDS", 1)
    dsn = postgresql.dsn()
    upgrade(dsn, BEFORE_ARCHIVES)
    database = SchemaUpgrade(reactor, dsn, clock=reactor)
    await database.open()
    with client(dsn, "SELECT * FROM final_period") as reader:
        with pytest.raises(Unavailable, match="the table final_period was not free within 1 s") as failed:
            await database.upgrade(str)
        pid = reader.info.backend_pid
    assert applied(postgresql, dsn)[-1][0] == BEFORE_ARCHIVES
    assert f"it is used by nightly report (pid {pid}, role meter, in a transaction since 2" in str(failed.value)

    await database.upgrade(str)
    database.close()
    assert applied(postgresql, dsn)[-1][0] == VERSION


@pytest_twisted.ensureDeferred
async def test_end_of_a_transaction_that_lasts_long_is_not_waited_for(postgresql, monkeypatch):
    monkeypatch.setattr(table_locks, "LOCK_SECONDS", 0)  # for PostgreSQL, no limit
    dsn = postgresql.dsn()
    upgrade(dsn, BEFORE_ARCHIVES)
    database = SchemaUpgrade(reactor, dsn, clock=reactor)
    await database.open()
    with (
        client(dsn, "SELECT * FROM final_period"),
        pytest.raises(Unavailable, match=r"a table that it changes was not free .* it is used by nightly report"),
    ):
        await database.upgrade(str)
    database.close()
    assert applied(postgresql, dsn)[-1][0] == BEFORE_ARCHIVES


@pytest_twisted.ensureDeferred
async def test_upgrade_that_is_killed_leaves_the_old_schema_and_is_repeated(postgresql):
    dsn = postgresql.dsn()
    upgrade(dsn, BEFORE_ARCHIVES)
    with slow_upgrade(dsn) as killed:
        await deferToThread(next, (line for line in killed.stdout if "(slow)" in line))
        other = SchemaUpgrade(reactor, dsn, clock=reactor)
        await other.open()
        said = []
        waiting = Deferred.fromCoroutine(other.upgrade(said.append))
        await until(lambda: said)
        killed.send_signal(signal.SIGKILL)
    report = await waiting
    other.close()

    assert said[0].startswith("waiting for meter-db (pid ")
    assert said[0].endswith("), which upgrades")
    assert (report["previous_schema_version"], report["schema_version"]) == (BEFORE_ARCHIVES, VERSION)
    assert applied(postgresql, dsn) == [(step.number, step.name) for step in migrations()]
    assert postgresql.execute("SELECT to_regclass('invoice')", dsn) == [(None,)]


@pytest_twisted.ensureDeferred
async def test_role_without_the_rights_is_told_which_it_needs(postgresql, said):
    dsn = postgresql.dsn()
    upgrade(dsn, BEFORE_ARCHIVES)
    name = dsn.rpartition("/")[2]
    postgresql.execute(f"CREATE ROLE clerk_{name} LOGIN; GRANT SELECT ON schema_version TO clerk_{name}", dsn)
    clerks = dsn.replace("meter@", f"clerk_{name}@")
    status, _, errors = await said(clerks, "upgrade")
    assert (status, applied(postgresql, dsn)[-1][0]) == (2, BEFORE_ARCHIVES)
    assert f"cannot be upgraded as PostgreSQL role clerk_{name}, which does not own the tables; meter does" in errors
    status, out, _ = await said(clerks, "upgrade --dry-run")
    assert (status, out.startswith("problem: the schema cannot be upgraded as PostgreSQL role")) == (1, True)

    empty = postgresql.dsn()
    postgresql.execute("REVOKE CREATE ON SCHEMA public FROM public", empty)
    status, _, errors = await said(empty.replace("meter@", f"clerk_{name}@"), "upgrade")
    assert (status, f"GRANT CREATE ON SCHEMA public TO clerk_{name}" in errors) == (2, True)


@pytest.mark.parametrize("command", COMMANDS)
@pytest_twisted.ensureDeferred
async def test_newer_schema_is_refused_by_every_command(postgresql, said, command):
    dsn = newer(postgresql)
    module, lines = COMMANDS[command]
    for words in lines:
        status, out, errors = await said(dsn, words, module)
        assert (words, status > 0, NEWER in out + errors) == (words, True, True), out + errors


def test_newer_schema_is_refused_by_every_daemon_that_uses_the_store(postgresql, tmp_path):
    house = House(tmp_path, store=newer(postgresql))
    house.bus = "amqp://127.0.0.1:1/"
    daemons = [house.daemon(name).start() for name in ("meter-collector", "meter-api")]
    try:
        for daemon in daemons:
            until_seen(lambda daemon=daemon: NEWER in (daemon.reason("store") or ""), f"{daemon.name} to refuse")
    finally:
        house.close()


@pytest.mark.parametrize(
    ("table", "text"),
    [
        (
            "schema_version (installed_rank int, version varchar, description text)",
            "schema_version of the database is not",
        ),
        ("invoice (id int)", "tables of Meter, and has those of another application (invoice)"),
    ],
    ids=["its own versions", "other tables"],
)
@pytest_twisted.ensureDeferred
async def test_database_of_another_application_is_refused_by_readers_and_upgrades(postgresql, said, table, text):
    dsn = postgresql.dsn()
    postgresql.execute(f"CREATE TABLE {table}", dsn)
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=False, readers=1, writers=0)
    store.startService()
    await until(lambda: text in store.readiness().reason)
    with pytest.raises(Unavailable):
        await store.proof(message().message_id)
    await store.stopService()

    status, _, errors = await said(dsn, "upgrade")
    assert (status, text in errors) == (2, True)
    assert postgresql.execute("SELECT to_regclass('sample')", dsn) == [(None,)]


@pytest_twisted.ensureDeferred
async def test_step_without_facts_is_applied_too(postgresql):
    dsn = postgresql.dsn_with_schema()
    async with pool_at(dsn) as pool:
        await pool.run(Schema([*migrations(), Migration(NEXT, "invoice", "CREATE TABLE invoice (id int)")]).upgrade)
    assert applied(postgresql, dsn)[-1] == (NEXT, "invoice")
