"""PostgreSQL refuses every change of closed statements, also by the owner of the tables and in sessions that replicate."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg2
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from meter.store import PostgresStore
from meter.store.rating.statements import LOCK
from tests.statements import closing
from tests.statements import pages
from tests.statements import statement
from tests.waiting import until

MIGRATION = Path(__file__).parents[2] / "meter/store/migrations/0012_statements.sql"
TABLES = ("price_book", "statement", "statement_annex", "statement_credit", "statement_project")


@pytest.fixture(scope="module")
def dsn(request):
    """A database with one closed statement."""
    dsn = request.getfixturevalue("postgresql").dsn_with_schema()

    async def close():
        store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=1, writers=1, rating_connections=1)
        store.startService()
        await until(lambda: store.readiness().ready and store.rating.ready)
        assert await store.rating.statements.add(closing(statement(), credits={"welcome": 1}), pages())
        await store.stopService()

    pytest_twisted.blockon(Deferred.fromCoroutine(close()))
    return dsn


@pytest.fixture
def contents(postgresql, dsn):
    def read():
        return {table: postgresql.execute(f"SELECT t::text FROM {table} t ORDER BY 1", dsn) for table in TABLES}

    return read


def test_every_table_of_the_step_is_tried():
    created = re.findall(r"^CREATE TABLE (\w+)", MIGRATION.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(created) == set(TABLES)


CHANGES = [
    *(f"DELETE FROM {table}" for table in TABLES),
    *(f"TRUNCATE {table} CASCADE" for table in TABLES),
    "UPDATE statement SET document = '{}'",
    "UPDATE statement SET total = '0.01' WHERE id = '2026-11.acme'",
    "UPDATE price_book SET stored_at = now()",
    "UPDATE statement_annex SET lines = ''",
    "UPDATE statement_credit SET amount = 2",
    "UPDATE statement_project SET project_id = 'p9'",
    "INSERT INTO statement SELECT * FROM statement ON CONFLICT (id) DO UPDATE SET total = '0.01'",
    "INSERT INTO statement_annex VALUES ('2026-11.acme', 9, 1, 'p1', '')",
    "INSERT INTO statement_credit VALUES ('2026-11.acme', 'other', 1)",
    "INSERT INTO statement_project VALUES ('2026-11.acme', 'p9')",
]


# A replica by logical replication may receive the parts of a statement after it.
REPLICATED = [change for change in CHANGES if not change.startswith("INSERT INTO statement_")]


@pytest.mark.parametrize(
    ("role", "change"),
    [*(("origin", change) for change in CHANGES), *(("replica", change) for change in REPLICATED)],
)
def test_change_is_refused(postgresql, dsn, contents, role, change):
    before = contents()
    with pytest.raises(psycopg2.Error, match=r"closed statements never change: .* is refused") as raised:
        postgresql.execute(f"SET session_replication_role = {role}; {change}", dsn)
    assert raised.value.pgcode == "42501"
    assert contents() == before


def test_statement_of_another_text_of_its_book_is_refused(postgresql, dsn):
    with pytest.raises(psycopg2.errors.CheckViolation):
        postgresql.execute(f"INSERT INTO price_book VALUES ('{'0' * 64}', 'another text')", dsn)


def test_second_statement_of_a_period_and_fork_of_the_chain_are_refused(postgresql, dsn):
    for changed in ("'x', account_id, account_name, period", "'x', account_id, account_name, '2026-12'"):
        with pytest.raises(psycopg2.errors.UniqueViolation):
            postgresql.execute(
                f"INSERT INTO statement SELECT {changed}, currency, total, as_of, closed_at, closed_by, book_sha256, sha256,"
                " previous_sha256, usage_skus, document FROM statement",
                dsn,
            )


def test_part_without_a_statement_is_refused(postgresql, dsn):
    with pytest.raises(psycopg2.errors.ForeignKeyViolation):
        postgresql.execute("INSERT INTO statement_project VALUES ('2030-01.nobody', 'p1')", dsn)


PARTS = (
    "INSERT INTO statement_project VALUES ('2026-11.late', 'p9')",
    "INSERT INTO statement_credit VALUES ('2026-11.late', 'other', 1)",
    "INSERT INTO statement_annex VALUES ('2026-11.late', 9, 1, 'p1', '')",
)


@pytest.mark.parametrize("part", PARTS)
def test_part_that_is_inserted_before_a_close_commits_keeps_the_close_waiting_and_is_refused(dsn, part):
    """It holds the lock of a close, which finds the statement absent, and without the statement it cannot be committed."""
    with (
        psycopg2.connect(dsn) as other,
        other.cursor() as cursor,
        psycopg2.connect(dsn) as closer,
        closer.cursor() as look,
    ):
        cursor.execute(part)
        look.execute(f"SELECT pg_try_advisory_xact_lock({LOCK})")
        assert look.fetchone() == (False,)
        with pytest.raises(psycopg2.errors.ForeignKeyViolation):
            other.commit()


@pytest.mark.parametrize("part", PARTS)
def test_part_of_an_older_snapshot_is_refused(dsn, part):
    with psycopg2.connect(dsn) as other, other.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        with pytest.raises(psycopg2.errors.InsufficientPrivilege, match="not read committed"):
            cursor.execute(part)
        other.rollback()
