"""Names and DSNs of archive servers: what is not meant for one is refused, and passwords are not on command lines."""

from __future__ import annotations

import pytest

from meter.store.archive.archive_servers import ArchiveServerError
from meter.store.archive.archive_servers import archive_parameters
from meter.store.archive.archive_servers import foreign_table


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
