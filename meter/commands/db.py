"""``meter-db``: upgrades the database, and tells what it is like inside."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import asynccontextmanager
from typing import Any

from twisted.python import usage

from meter.commands.command import DONE
from meter.commands.command import FOUND_WRONG
from meter.commands.command import CommandOptions
from meter.commands.command import configuration
from meter.commands.command import printable
from meter.commands.command import run
from meter.interfaces import Unavailable
from meter.services import sleep
from meter.settings import Config
from meter.store import Administration
from meter.store import EmbeddedPostgres
from meter.store import embedded_directory

CONNECT_SECONDS = 60.0
"""How long an embedded database, which may have to be started first, may take to answer."""


class JsonOptions(usage.Options):
    """How to say it."""

    optFlags = [["json", None, "One JSON object."]]  # noqa: N815, RUF012  # Twisted reads it so


class Options(CommandOptions):
    """What to do."""

    synopsis = "Usage: meter-db [--config FILE] upgrade | status | partitions | retention | size [--json]"
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
    ]

    def postOptions(self) -> None:
        """Ask for a command."""
        if self.subCommand is None:
            raise usage.UsageError("say what to do: upgrade, status, partitions, retention or size")


def main() -> None:
    """Run ``meter-db``."""
    run(Options(), sys.argv[1:], work)


async def work(reactor: Any, options: Any) -> int:
    """Do what is asked with the configured database."""
    config = configuration(options["config"])
    async with database(reactor, config) as opened:
        status = DONE
        match options.subCommand:
            case "upgrade":
                facts = await opened.upgrade()
            case "status":
                facts = await opened.status()
                status = DONE if facts["schema"] == facts["needed"] else FOUND_WRONG
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
    sys.stdout.write(f"{json.dumps(facts)}\n" if options.subOptions["json"] else printable(written(facts)))
    sys.stdout.flush()
    return status


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
async def database(reactor: Any, config: Config) -> AsyncIterator[Administration]:
    """Provide the configured database, connected; an embedded one is started if no daemon runs it."""
    dsn = config.store.dsn.get_secret_value()
    directory = embedded_directory(dsn)
    if directory is not None and not (directory / "data").exists():
        raise Unavailable(f"there is no database in {directory}")
    server = None if directory is None else EmbeddedPostgres(reactor, directory, clock=reactor)
    if server is not None:
        server.startService()
    try:
        opened = await _connected(reactor, server.dsn if server else dsn, patient=server is not None)
        try:
            yield opened
        finally:
            opened.close()
    finally:
        if server is not None:
            await server.stopService()


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
