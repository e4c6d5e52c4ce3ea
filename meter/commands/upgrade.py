"""The subcommand of ``meter-db`` that upgrades the schema, or says beforehand what that will do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import EXIT_OK
from meter.commands.command import SubcommandOptions
from meter.commands.command import escape_terminal
from meter.commands.database import connected
from meter.commands.database import database_server
from meter.settings import Config
from meter.store import SchemaUpgrade


class UpgradeOptions(SubcommandOptions):
    """The options of ``upgrade``."""

    optFlags = [  # noqa: N815, RUF012  # Twisted reads it so
        [
            "dry-run",
            None,
            "Change nothing; say what each step does, about how long it takes, which tables it locks, and whether daemons of "
            "earlier versions may go on. Exit status 1 if the database cannot be upgraded now.",
        ],
        ["json", None, "Write one JSON object."],
    ]


class UpgradeProgress:
    """Shows on standard error, if that is a terminal, what is being done and for how many seconds."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._doing = ""
        self._since = clock.seconds()

    def tell(self, doing: str) -> None:
        """Show that ``doing`` has begun."""
        self._doing, self._since = doing, self._clock.seconds()
        self._show()

    def text(self) -> str:
        """Return the line that is shown."""
        return f"{self._doing}, {self._clock.seconds() - self._since:.0f} s" if self._doing else ""

    def _show(self) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{escape_terminal(self.text())}")
            sys.stderr.flush()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show how the seconds go by; erase the line in the end."""
        every_second = LoopingCall(self._show)
        every_second.clock = self._clock
        every_second.start(1.0, now=False)
        try:
            yield
        finally:
            every_second.stop()
            self._doing = ""
            self._show()


async def upgrade(reactor: Any, config: Config, options: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """Upgrade the schema of the configured database, or say what that would do; return the report and the exit status."""
    async with (
        database_server(reactor, config) as (dsn, retry_seconds),
        connected(reactor, lambda: SchemaUpgrade(reactor, dsn, clock=reactor), retry_seconds) as database,
    ):
        if options["dry-run"]:
            report = await database.plan()
            return report, EXIT_FOUND_PROBLEMS if report["problem"] else EXIT_OK
        progress = UpgradeProgress(reactor)
        with progress.shown():
            return await database.upgrade(progress.tell), EXIT_OK


def upgrade_text(report: Mapping[str, Any]) -> str:
    """Return the report of an upgrade as text."""
    return (
        f"previous schema version: {report['previous_schema_version']}\nschema version: {report['schema_version']}\n"
        f"applied steps: {', '.join(report['applied_steps']) or 'none'}\n"
    )


def plan_text(report: Mapping[str, Any]) -> str:
    """Return the report of a dry run as text."""
    found, required = report["schema_version"], report["required_schema_version"]
    if report["problem"]:
        lines = [f"problem: {report['problem']}"]
    elif not report["steps"]:
        return f"the schema has version {found}: nothing is to be done\n"
    else:
        lines = []
    lines += [
        f"from schema version {found} to {required}, in one transaction; takes {report['duration']} (assuming {report['assumed_rates']})",
        f"daemons that are connected: {', '.join(report['connected_daemons']) or 'none'}",
        *(f"would be waited for now: {each}" for each in report["in_use_by"]),
    ]
    for step in report["steps"]:
        locks = ", ".join(f"{table} ({mode})" for table, mode in step["locks"].items())
        lines += [
            f"step {step['step']}, {step['duration']}",
            f"    {step['does']}",
            f"    locks until the upgrade is over: {locks or 'none'}",
            f"    reads {step['reads_rows']:,} rows, {_megabytes(step['reads_bytes'])}; writes {_megabytes(step['writes_bytes'])}",
            f"    daemons of earlier versions: {step['earlier_daemons']}",
        ]
    return "".join(f"{line}\n" for line in lines)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
