"""``meter-db archive``, ``unarchive`` and ``archive-server`` on two real servers, with roles that may do no more than they need."""

from __future__ import annotations

import json

import psycopg2
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from meter.commands.command import status_of
from meter.commands.db import Options
from meter.commands.db import work
from meter.query import SampleFilter
from meter.sample_identity import week_of
from meter.store import PostgresStore
from tests.integration.test_db_command import command_on
from tests.integration.test_store_archive import HELD
from tests.integration.test_store_archive import REMOTE
from tests.integration.test_store_packing import NOW
from tests.integration.test_store_packing import OLD
from tests.integration.test_store_packing import all_samples
from tests.integration.test_store_packing import varied
from tests.integration.test_store_rollups import running
from tests.servers.postgresql import upgrade
from tests.waiting import until

pytestmark = pytest.mark.timeout(240)

WEEK = str(week_of(OLD))


def in_process(dsn, file, capsys):
    """Return the function that runs ``meter-db`` on the database at ``dsn`` in this process: starting one for each command takes long."""
    command_on(dsn, file)

    async def meter_db(*arguments):
        options = Options()
        options.parseOptions(["--config", str(file), *arguments])
        status = await status_of(work(reactor, options))
        return status, *capsys.readouterr()

    return meter_db


def of_user(dsn, user, password=""):
    """Return ``dsn`` with another user."""
    return dsn.replace("//meter@", f"//{user}{':' if password else ''}{password}@")


async def archive_states(meter_db):
    """Return the exit status of ``meter-db status``, and the states of archive servers by name."""
    status, out, _ = await meter_db("status", "--json")
    return status, {each["server"]: each["state"] for each in json.loads(out)["archive_servers"]}


@pytest.fixture
def roles(postgresql, archive_postgresql):
    """The DSNs of a store and of an archive whose roles are no superusers, and those of roles that only read."""
    dsn, archive_dsn = postgresql.dsn(), archive_postgresql.dsn()
    archive_postgresql.require_passwords("archiver", "auditor")
    postgresql.execute("DROP ROLE IF EXISTS writer")
    for server, users in ((postgresql, ("writer", "api")), (archive_postgresql, ("archiver", "auditor"))):
        for user in users:
            exists = server.execute(f"SELECT FROM pg_roles WHERE rolname = '{user}'")
            server.execute(f"{'ALTER' if exists else 'CREATE'} ROLE {user} LOGIN PASSWORD 'of {user}'")
    postgresql.execute(f"ALTER DATABASE {dsn.rpartition('/')[2]} OWNER TO writer")
    postgresql.execute("GRANT ALL ON SCHEMA public TO writer", dsn)
    archive_postgresql.execute(f"GRANT CREATE ON DATABASE {archive_dsn.rpartition('/')[2]} TO archiver")
    upgrade(of_user(dsn, "writer"))
    yield dsn, archive_dsn
    postgresql.execute(f"DROP DATABASE {dsn.rpartition('/')[2]} WITH (FORCE)")
    archive_postgresql.execute(f"DROP DATABASE {archive_dsn.rpartition('/')[2]} WITH (FORCE)")


@pytest_twisted.ensureDeferred
async def test_week_is_archived_and_brought_back_with_least_rights(
    postgresql, archive_postgresql, roles, tmp_path, capsys
):
    dsn, archive_dsn = roles
    writer, server = of_user(dsn, "writer"), of_user(archive_dsn, "archiver")
    meter_db = in_process(writer, tmp_path / "meter.toml", capsys)
    for user in ("archiver", "auditor"):
        (tmp_path / user).write_text(f"of {user}\n")
    reader = ["--reader-role", "api", "--reader-user", "auditor", "--reader-password-file", str(tmp_path / "auditor")]
    add = ["archive-server", "--json", "--password-file", str(tmp_path / "archiver"), *reader, "add", "cold", server]
    async with running(writer) as store:
        await store.write(varied(300))
        await store.maintenance.finalize(NOW)
    before = all_samples(postgresql, dsn)

    status, _, errors = await meter_db("archive", WEEK, "cold")
    assert (status, "there is no archive server cold" in errors) == (3, True)
    status, _, errors = await meter_db(*add)
    assert (status, "CREATE EXTENSION postgres_fdw" in errors) == (3, True)
    postgresql.execute("CREATE EXTENSION postgres_fdw", dsn)
    status, _, errors = await meter_db(*add)
    assert (status, "GRANT USAGE ON FOREIGN DATA WRAPPER" in errors) == (3, True)
    postgresql.execute('GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO "writer"', dsn)
    status, _, errors = await meter_db(*add[:2], *add[4:])
    assert (status, "password" in errors) == (2, True)
    status, _, errors = await meter_db("archive-server", "add", "cold", of_user(archive_dsn, "archiver", "secret"))
    assert (status, "--password-file" in errors, "secret" in errors) == (3, True, False)
    assert archive_postgresql.execute("SELECT to_regnamespace('meter_archive')", archive_dsn) == [(None,)]
    for tables in ("made", "were there already"):
        status, out, errors = await meter_db(*add)
        assert (status, errors, json.loads(out)["tables"]) == (0, "", tables)

    status, out, errors = await meter_db("archive", "--json", WEEK, "2001-01-01", "cold")
    report = json.loads(out)
    assert (status, errors, report["archived_samples"]) == (1, "", 300)
    assert [row["outcome"] for row in report["weeks"]] == [
        "has no partition, or is not over",
        "archived, 300 samples in all",
    ]
    assert postgresql.execute(HELD, dsn) == [(5, 5)]
    status, out, _ = await meter_db("archive", "--json", WEEK, "cold")
    assert (status, json.loads(out)["archived_samples"]) == (0, 0)
    assert json.loads((await meter_db("status", "--json"))[1])["archive_servers"][0]["weeks"] == 1
    assert json.loads((await meter_db("size", "--json"))[1])["archived_samples"] == 300
    partitions = json.loads((await meter_db("partitions", "--json"))[1])["partitions"]
    assert [each["samples"] for each in partitions if each["archive"] == "cold"] == [300]
    for refused in (["unpack", WEEK], ["void", "--meter", "cpu", "--reason", "wrong"]):
        status, out, errors = await meter_db(*refused)
        assert f"meter-db unarchive {WEEK}" in out + errors, refused
        assert status == 3

    postgresql.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO api", dsn)
    store = PostgresStore(reactor, of_user(dsn, "api"), clock=reactor, migrate=False, readers=1, writers=0)
    store.startService()
    try:
        await until(lambda: store.readiness().ready)
        assert len(await store.samples(SampleFilter(), 1000)) == 300
    finally:
        await store.stopService()
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        postgresql.execute("DELETE FROM archive_cold", of_user(dsn, "api"))
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        archive_postgresql.execute(
            "DELETE FROM meter_archive.packed_samples", of_user(archive_dsn, "auditor:of auditor")
        )

    status, _, errors = await meter_db("archive-server", "remove", "cold")
    assert (status, "has weeks of this store" in errors) == (3, True)

    empty = archive_postgresql.dsn()
    archive_postgresql.execute(f"GRANT CREATE ON DATABASE {empty.rpartition('/')[2]} TO archiver")
    status, _, errors = await meter_db(*add[:-1], of_user(empty, "archiver"))
    assert (status, f"no row of the weeks that are archived on cold ({WEEK})" in errors) == (3, True)
    assert archive_postgresql.execute("SELECT to_regnamespace('meter_archive')", empty) == [(None,)]
    # With tables, such as those of another store, it is no better.
    assert (await meter_db(*add[:-2], "warm", of_user(empty, "archiver")))[0] == 0
    status, _, errors = await meter_db(*add[:-1], of_user(empty, "archiver"))
    assert (status, "no row of the weeks" in errors) == (3, True)
    assert await archive_states(meter_db) == (0, {"cold": "answers", "warm": "answers"})
    for sign, state in (("-", f"has no row of the weeks of {WEEK}"), ("+", "answers")):
        archive_postgresql.execute(
            f"UPDATE meter_archive.packed_samples SET first = first {sign} interval '30 days'", archive_dsn
        )
        assert (await archive_states(meter_db))[1] == {"cold": state, "warm": "answers"}

    await deferToThread(archive_postgresql.stop)
    try:
        status, states = await archive_states(meter_db)
        assert (status, ["could not connect" in each for each in states.values()]) == (1, [True, True])
        status, _, errors = await meter_db("unarchive", WEEK)
        assert (status, "archive server cold" in errors) == (2, True)
    finally:
        await deferToThread(archive_postgresql.start)
    status, out, _ = await meter_db("unarchive", "--json", WEEK)
    report = json.loads(out)
    assert (status, report["unarchived_samples"], report["rows_on_the_server"]) == (0, 300, "removed")
    assert archive_postgresql.execute(REMOTE, archive_dsn) == [(0, 0)]
    assert all_samples(postgresql, dsn) == before
    for name in ("cold", "warm"):
        assert (await meter_db("archive-server", "remove", name))[0] == 0
    actions = postgresql.execute("SELECT action FROM audit_entry ORDER BY seq", dsn)
    assert [action for [action] in actions] == [
        "archive-server",
        "archive-server",
        "archive",
        "archive",
        "unpack",
        "archive-server",
        "unarchive",
        "unarchive",
        "archive-server",
        "archive-server",
    ]
