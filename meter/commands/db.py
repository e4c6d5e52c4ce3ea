"""``meter-db``: upgrades the database, tells what it is like inside, and how instances spent their time."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import asynccontextmanager
from datetime import UTC
from datetime import datetime
from typing import Any

from twisted.python import usage

from meter.commands.command import DONE
from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import CommandError
from meter.commands.command import CommandOptions
from meter.commands.command import configuration
from meter.commands.command import escape_terminal
from meter.commands.command import run
from meter.completeness.instance_times import instance_segments
from meter.completeness.instance_times import project_segments
from meter.daemon.services import sleep
from meter.daemon.supervised import wait_ready
from meter.interfaces import Unavailable
from meter.message import BadMessage
from meter.message import parse_timestamp
from meter.settings import Config
from meter.store import Administration
from meter.store import EmbeddedPostgres
from meter.store import PostgresStore
from meter.store import embedded_directory

CONNECT_SECONDS = 60.0
"""How long an embedded database, which may have to be started first, may take to answer."""

ANSWER_SECONDS = 5.0
"""How long any other may take until it can be asked about samples."""


class JsonOptions(usage.Options):
    """How to say it."""

    optFlags = [["json", None, "One JSON object."]]  # noqa: N815, RUF012  # Twisted reads it so


class SegmentsOptions(JsonOptions):
    """Which instance or project, and when."""

    synopsis = "INSTANCE | --project PROJECT"
    optParameters = [  # noqa: N815, RUF012
        ["start", None, None, "Count seconds from then, as 2026-11-01. [default: the first segment's beginning]"],
        ["end", None, None, "Count seconds until then, at most until now. [default: now]"],
        ["project", None, None, "Count those of all instances of a project, deleted ones too."],
    ]

    def parseArgs(self, *instances: str) -> None:
        """Take the id."""
        if len(instances) != (0 if self["project"] else 1):
            raise usage.UsageError("segments: name one instance, after all options, or --project PROJECT")
        self["instance"] = instances[0] if instances else None


class Options(CommandOptions):
    """What to do."""

    synopsis = "Usage: meter-db [--config FILE] upgrade | status | partitions | retention | size | segments [--json]"
    subCommands = [  # noqa: N815, RUF012
        ["upgrade", None, JsonOptions, "Bring the schema up to date, as a collector does when it starts."],
        [
            "status",
            None,
            JsonOptions,
            "Tell where the database is and which schema it has; status 1 if it is out of date.",
        ],
        ["partitions", None, JsonOptions, "List the weeks that have a partition, with their size."],
        ["retention", None, JsonOptions, "Tell what is kept, what was let go, and how far hours are settled."],
        ["size", None, JsonOptions, "Tell how many bytes the tables take, and one sample."],
        [
            "segments",
            None,
            SegmentsOptions,
            "Tell how long an instance, or those of a project, were in which state under which flavor; "
            "status 1 if nothing was heard of it.",
        ],
    ]

    def postOptions(self) -> None:
        """Ask for a command."""
        if self.subCommand is None:
            raise usage.UsageError("say what to do: upgrade, status, partitions, retention, size or segments")


def main() -> None:
    """Run ``meter-db``."""
    run(Options(), sys.argv[1:], work)


async def work(reactor: Any, options: Any) -> int:
    """Do what is asked with the configured database."""
    config = configuration(options["config"])
    status = DONE
    if options.subCommand == "segments":
        asked = options.subOptions
        start, end = (_moment(asked, name) for name in ("start", "end"))
        async with store(reactor, config) as opened_store:
            now = datetime.now(UTC)
            until = min(end or now, now)  # the future is never counted
            if asked["project"]:
                facts = await project_segments(opened_store, asked["project"], start, until)
                return _told(facts, asked, DONE if facts["instances"] else EXIT_FOUND_PROBLEMS)
            facts = await instance_segments(opened_store, asked["instance"], start, until)
        return _told(facts, asked, DONE if facts["segments"] else EXIT_FOUND_PROBLEMS)
    async with database(reactor, config) as opened:
        match options.subCommand:
            case "upgrade":
                facts = await opened.upgrade()
            case "status":
                facts = await opened.status()
                status = EXIT_FOUND_PROBLEMS if facts["schema_problem"] else DONE
            case "partitions":
                facts = {"partitions": await opened.partitions()}
            case "retention":
                settings = config.store
                facts = {
                    "retention_days": settings.retention_days,
                    "retention_days_by_meter": settings.retention_days_by_meter,
                    "rollup_retention_days": settings.rollup_retention_days,
                    **await opened.retention(),
                }
            case _:
                facts = await opened.size()
    return _told(facts, options.subOptions, status)


def _told(facts: Mapping[str, Any], asked: Mapping[str, Any], status: int) -> int:
    sys.stdout.write(f"{json.dumps(facts)}\n" if asked["json"] else escape_terminal(written(facts)))
    sys.stdout.flush()
    return status


def _moment(asked: Mapping[str, Any], name: str) -> datetime | None:
    try:
        return parse_timestamp(asked[name], f"--{name}") if asked[name] else None
    except BadMessage as error:
        raise CommandError(str(error)) from error


def written(facts: Mapping[str, Any]) -> str:
    """Return ``facts`` for people: a line each, lists as tables."""
    lines = []
    for name, value in facts.items():
        if isinstance(value, list):
            lines += _table(value)
        else:
            told = ", ".join(f"{key}: {each}" for key, each in value.items()) if isinstance(value, dict) else value
            lines.append(f"{name.replace('_', ' ')}: {'none' if told in (None, '') else told}")
    return "".join(f"{line}\n" for line in lines)


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return ["none"]
    cells = [
        [name.upper().replace("_", " ") for name in rows[0]],
        *([str(cell) for cell in row.values()] for row in rows),
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


@asynccontextmanager
async def server(reactor: Any, config: Config) -> AsyncIterator[tuple[str, bool]]:
    """Provide the configured database's DSN, and whether it was started only now: an embedded one that no daemon runs."""
    dsn = config.store.dsn.get_secret_value()
    directory = embedded_directory(dsn)
    if directory is None:
        yield dsn, False
        return
    if not (directory / "data").exists():
        raise Unavailable(f"there is no database in {directory}")
    embedded = EmbeddedPostgres(reactor, directory, clock=reactor)
    embedded.startService()
    try:
        yield embedded.dsn, True
    finally:
        await embedded.stopService()


@asynccontextmanager
async def database(reactor: Any, config: Config) -> AsyncIterator[Administration]:
    """Provide the configured database, connected."""
    async with server(reactor, config) as (dsn, patient):
        opened = await _connected(reactor, dsn, patient=patient)
        try:
            yield opened
        finally:
            opened.close()


@asynccontextmanager
async def store(reactor: Any, config: Config) -> AsyncIterator[PostgresStore]:
    """Provide the configured database as the store that it is, for questions only."""
    async with server(reactor, config) as (dsn, patient):
        opened = PostgresStore(
            reactor, dsn, clock=reactor, migrate=False, readers=1, writers=0, application_name="meter-db"
        )
        opened.startService()
        try:
            await wait_ready(opened, reactor, seconds=CONNECT_SECONDS if patient else ANSWER_SECONDS)
            yield opened
        finally:
            await opened.stopService()


async def _connected(reactor: Any, dsn: str, *, patient: bool) -> Administration:
    deadline = reactor.seconds() + (CONNECT_SECONDS if patient else 0.0)
    while True:
        opened = Administration(reactor, dsn, clock=reactor)
        try:
            await opened.open()
        except Unavailable:
            opened.close()
            if reactor.seconds() >= deadline:
                raise
            await sleep(reactor, 0.2)
        else:
            return opened
