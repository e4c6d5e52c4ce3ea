"""A command that cannot use the database says so in one line, with the reason, and does not wait for what will not change."""

from __future__ import annotations

import json

import pytest
import pytest_twisted
from twisted.internet import reactor

from meter.commands import audit
from meter.commands import completeness
from meter.commands import database
from meter.commands import db
from meter.commands import tokens
from meter.commands import verify
from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import UNAVAILABLE
from meter.commands.command import status_of
from meter.commands.rate import command as rate
from meter.store.migrations import migrations
from tests.ports import free_port
from tests.servers.postgresql import upgrade

REASON = ("--reason", "x")
ID = "0" * 36
WEEK = "2026-09-07"

COMMANDS = {
    "meter-db": (
        db,
        [
            ("partitions",),
            ("retention",),
            ("size",),
            ("segments", "i1"),
            ("segments", "--project", "p1"),
            ("void", *REASON, ID),
            ("unvoid", *REASON, ID),
            ("voided",),
            ("finalize",),
            ("retire-agent", *REASON, "meter-compute@h"),
            ("pack", *REASON),
            ("unpack", *REASON, WEEK),
            ("archive", *REASON, WEEK, "old"),
            ("unarchive", *REASON, WEEK),
            ("archive-server", *REASON, "add", "old", "host=192.0.2.1 user=u dbname=m"),
            ("archive-server", *REASON, "remove", "old"),
            ("spread", *REASON),
        ],
    ),
    "meter-rate": (
        rate,
        [
            ("preview",),
            ("list",),
            ("export", "S-1"),
            ("reproduce", "S-1"),
            ("budgets",),
            ("webhooks", "list"),
            ("diff", "--book", "{prices}", "--period", "2026-09"),
        ],
    ),
    "meter-completeness": (completeness, [(), ("--closable",)]),
    "meter-audit": (audit, [("list",), ("verify",), ("note", "x")]),
    "meter-token": (tokens, [("list",), ("purge", *REASON)]),
    "meter-verify": (verify, [()]),
}

SOME = [
    ("meter-db", "size"),
    ("meter-db", "segments"),
    ("meter-rate", "list"),
    ("meter-completeness", ""),
    ("meter-audit", "verify"),
]
"""One command for each way in which the database is used."""

BOOK = """
[[book]]
name = "list"
currency = "EUR"
timezone = "UTC"
issuer = "Example Cloud"
default = true
"""

NEWEST = migrations()[-1].number


def empty(postgresql):
    return postgresql.dsn()


def of_another_program(postgresql):
    dsn = postgresql.dsn()
    postgresql.execute("CREATE TABLE wp_posts (id integer); CREATE TABLE wp_users (id integer)", dsn)
    return dsn


def with_versions_of_another_program(postgresql):
    dsn = postgresql.dsn()
    postgresql.execute("CREATE TABLE schema_version (version varchar(10))", dsn)
    return dsn


def newer(postgresql):
    dsn = postgresql.dsn_with_schema()
    postgresql.execute(f"INSERT INTO schema_version (version, name) VALUES ({NEWEST + 1}, 'next')", dsn)
    return dsn


def older(postgresql):
    dsn = postgresql.dsn()
    upgrade(dsn, NEWEST - 1)
    return dsn


def without_rights(postgresql):
    dsn = postgresql.dsn_with_schema()
    name = dsn.rpartition("/")[2]
    postgresql.execute(f"CREATE ROLE stranger_of_{name} LOGIN")
    return dsn.replace("meter@", f"stranger_of_{name}@")


def without_the_role(postgresql):
    return postgresql.dsn().replace("meter@", "nobody@")


def that_does_not_exist(postgresql):
    return postgresql.url.replace("/postgres", "/lost")


def away(postgresql):
    return f"postgresql://meter:geheim@127.0.0.1:{free_port()}/meter"


@pytest.fixture
def said(tmp_path, capsys, monkeypatch):
    """Runs a command on the database at a DSN, in this process; returns its exit status, output and errors."""

    async def never(*args, **kwargs):
        raise AssertionError("a command waits for what will not change")

    monkeypatch.setattr(database, "wait_ready", never)
    prices = tmp_path / "prices"
    prices.mkdir()
    (prices / "book.toml").write_text(BOOK)
    file = tmp_path / "meter.toml"

    async def work(dsn, module, words):
        file.write_text(
            f'[meter]\nstate_dir = "{tmp_path}"\n[store]\ndsn = "{dsn}"\n[signing]\nkey = "{"k" * 40}"\n'
            f'[rating]\nprice_directory = "{prices}"\n'
        )
        options = module.Options()
        options.parseOptions(["--config", str(file), *(word.format(prices=prices) for word in words)])
        status = await status_of(module.work(reactor, options))
        return status, *capsys.readouterr()

    return work


@pytest.mark.parametrize("program", COMMANDS)
@pytest_twisted.ensureDeferred
async def test_every_command_says_that_the_schema_is_older(program, postgresql, said):
    dsn = older(postgresql)
    expected = (
        f"the database has schema version {NEWEST - 1}, and this Meter needs version {NEWEST}: start meter-collector, or run"
        " meter-db upgrade\n"
    )
    module, calls = COMMANDS[program]
    for words in calls:
        assert (words, *await said(dsn, module, words)) == (words, UNAVAILABLE, "", expected)


@pytest.mark.parametrize(
    ("database", "reason"),
    [
        (empty, "the database is empty (schema version 0), and this Meter needs version"),
        (
            of_another_program,
            "the database has no tables of Meter, and has those of another application (wp_posts, wp_users):",
        ),
        (
            with_versions_of_another_program,
            "the table schema_version of the database is not Meter's, but another application's:",
        ),
        (
            newer,
            f"the database has schema version {NEWEST + 1}, this Meter knows {NEWEST}: install the newer Meter here too",
        ),
        (
            without_rights,
            "{where}: permission denied for table schema_version (role {role}): grant it, or name another role in dsn of [store]",
        ),
        (without_the_role, '{where}: role "nobody" does not exist'),
        (that_does_not_exist, '{where}: database "lost" does not exist'),
        (away, "{where}: Connection refused"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
@pytest_twisted.ensureDeferred
async def test_commands_say_in_one_line_why_they_cannot_use_a_database(database, reason, postgresql, said):
    dsn = database(postgresql)
    role, _, where = dsn.removeprefix("postgresql://").partition("@")
    reason = reason.format(where=f"PostgreSQL at {where}", role=role)
    for program, subcommand in SOME:
        module, calls = COMMANDS[program]
        words = next(words for words in calls if words[:1] == ((subcommand,) if subcommand else ()))
        status, out, errors = await said(dsn, module, words)
        assert (status, out, errors[: len(reason)], errors.count("\n")) == (UNAVAILABLE, "", reason, 1), words


@pytest.mark.parametrize(
    "database", [empty, of_another_program, with_versions_of_another_program, newer, older, without_rights]
)
@pytest_twisted.ensureDeferred
async def test_status_shows_the_server_of_a_database_that_cannot_be_used(database, postgresql, said):
    status, out, errors = await said(database(postgresql), db, ("status", "--json"))
    report = json.loads(out)
    assert (status, errors, report["required_schema_version"]) == (EXIT_FOUND_PROBLEMS, "", NEWEST)
    assert report["server_version"]
    assert report["schema_problem"]
