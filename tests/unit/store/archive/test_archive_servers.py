"""Names and DSNs of archive servers: what is not meant for one is refused, and passwords are not on command lines."""

from __future__ import annotations

import pytest

from meter.store.archive.archive_servers import ArchiveServerError
from meter.store.archive.archive_servers import archive_parameters
from meter.store.archive.archive_servers import foreign_table
from meter.store.archive.archive_servers import require_postgres_fdw


@pytest.mark.parametrize("name", ["", "Cold", "1a", "a_b", "a-b", "ä", 'a"; DROP TABLE sample', "a" * 31, "cold\n"])
def test_name_that_could_be_part_of_no_table_is_refused(name):
    with pytest.raises(ArchiveServerError, match="cannot be the name of an archive server"):
        foreign_table(name)


def test_name_makes_the_name_of_a_table():
    assert foreign_table("cold2") == "archive_cold2"


@pytest.mark.parametrize(
    ("dsn", "problem"),
    [
        ("postgresql://archiver@archive1", "user and a database"),
        ("postgresql://archive1/archive", "user and a database"),
        ("postgresql://archiver:secret@archive1/archive", "--password-file"),
        ("postgresql://archiver@archive1/archive?options=-cfsync%3Doff", "cannot have options"),
        ("postgresql://archiver@archive1/archive?service=other", "cannot have service"),
        ("host=archive1 nonsense", "give something like"),
    ],
)
def test_dsn_that_cannot_be_one_of_an_archive_server_is_refused(dsn, problem):
    with pytest.raises(ArchiveServerError, match=problem) as refused:
        archive_parameters(dsn, "")
    assert "secret" not in str(refused.value)


def test_parameters_are_those_of_the_dsn_and_the_password():
    found = archive_parameters("postgresql://archiver@archive1:5433/archive?sslmode=verify-full", "of archiver")
    assert found == {
        "user": "archiver",
        "password": "of archiver",
        "host": "archive1",
        "port": "5433",
        "dbname": "archive",
        "sslmode": "verify-full",
    }


class Database:
    """A session of a database that says of postgres_fdw: ``installed``, ``available``, whether the role is a ``superuser``, and ``usable``."""

    def __init__(self, *, installed=False, available=True, superuser=False, usable=False):
        self._answer = [installed, available, superuser, "meter", "store"]
        self._usable = usable
        self.executed = []

    async def rows(self, statement, parameters=None):
        return [[self._usable]] if "has_foreign_data_wrapper_privilege" in statement else [self._answer]

    async def count(self, statement, parameters=None):
        self.executed.append(statement)
        return 0


def required(database):
    try:
        require_postgres_fdw(database).send(None)
    except StopIteration:
        return ""
    except ArchiveServerError as error:
        return str(error)
    raise AssertionError("it waits")


@pytest.mark.parametrize(
    ("database", "problem"),
    [
        (Database(available=False), "the embedded one never has it"),
        (Database(), "let a superuser run CREATE EXTENSION postgres_fdw"),
        (Database(installed=True), 'GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO "meter" in the database store'),
    ],
)
def test_database_without_postgres_fdw_is_told_what_to_do(database, problem):
    assert problem in required(database)
    assert database.executed == []


def test_superuser_makes_the_extension():
    database = Database(superuser=True, usable=True)
    assert required(database) == ""
    assert database.executed == ["CREATE EXTENSION IF NOT EXISTS postgres_fdw"]
