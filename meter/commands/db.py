"""``meter-db``: upgrades the database, voids samples, and reports its state and how long instances were in each state."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from typing import Any

from twisted.python import usage

from meter.commands.archive import ARCHIVING
from meter.commands.archive import SUBCOMMANDS
from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import EXIT_OK
from meter.commands.command import CommandOptions
from meter.commands.command import SubcommandOptions
from meter.commands.command import configuration
from meter.commands.command import escape_terminal
from meter.commands.command import run
from meter.commands.command import time_option
from meter.commands.database import connected
from meter.commands.database import database_server
from meter.commands.database import ready_store
from meter.commands.operator import act
from meter.commands.pack import PackOptions
from meter.commands.pack import UnpackOptions
from meter.commands.pack import pack
from meter.commands.pack import unpack
from meter.commands.retire_agent import RetireAgentOptions
from meter.commands.retire_agent import retire_agent
from meter.commands.spread import SpreadOptions
from meter.commands.spread import spread
from meter.commands.upgrade import UpgradeOptions
from meter.commands.upgrade import plan_text
from meter.commands.upgrade import upgrade
from meter.commands.upgrade import upgrade_text
from meter.commands.void import FinalizeOptions
from meter.commands.void import UnvoidOptions
from meter.commands.void import VoidedOptions
from meter.commands.void import VoidOptions
from meter.commands.void import change
from meter.completeness.lives.instance_times import instance_segments
from meter.completeness.lives.instance_times import project_segments
from meter.settings import Config
from meter.store import Administration
from meter.store import ArchiveAdministration
from meter.store import PostgresStore
from meter.store import SpreadingAdministration

LONG: Mapping[str, Any] = {"pack": pack, "unpack": unpack, "spread": spread, **ARCHIVING}
"""Subcommands that take long and show their progress, and those of archive servers."""

Report = dict[str, Any]
"""A JSON object."""


class JsonOptions(SubcommandOptions):
    """The options of all subcommands."""

    optFlags = [["json", None, "Write one JSON object."]]  # noqa: N815, RUF012  # Twisted reads it so


class SegmentsOptions(JsonOptions):
    """The options of ``segments``."""

    synopsis = "INSTANCE | --project PROJECT"
    optParameters = [  # noqa: N815, RUF012
        ["start", None, None, "Start of the period, such as 2026-11-01. [default: the start of the first segment]"],
        ["end", None, None, "End of the period; a time in the future means now. [default: now]"],
        ["project", None, None, "Report all instances of this project, deleted ones too."],
    ]

    def parseArgs(self, *instances: str) -> None:
        """Take the id of the instance, if there is no ``--project``."""
        if len(instances) != (0 if self["project"] else 1):
            raise usage.UsageError("segments: give the id of one instance after all options, or --project PROJECT")
        self["instance"] = instances[0] if instances else None


class Options(CommandOptions):
    """The options and subcommands of ``meter-db``."""

    synopsis = "Usage: meter-db [--config FILE] SUBCOMMAND [--json]"
    subCommands = [  # noqa: N815, RUF012
        [
            "upgrade",
            None,
            UpgradeOptions,
            "Upgrade the schema, as a collector does when it starts; with --dry-run, only say what that will do.",
        ],
        [
            "status",
            None,
            JsonOptions,
            "Show where the database is, its versions, unsafe settings, archive servers and the workers of a cluster; exit status 1 unless its schema is the required one and all of these servers answer.",
        ],
        ["partitions", None, JsonOptions, "List the weekly partitions with their sizes."],
        [
            "retention",
            None,
            JsonOptions,
            "Show the configured retention, the retention cutoffs, the deleted unused rows, and which hours are final.",
        ],
        ["size", None, JsonOptions, "Show the size of each table, and the bytes per sample."],
        [
            "segments",
            None,
            SegmentsOptions,
            "Show how long an instance, or all instances of a project, were in each state with each flavor; "
            "exit status 1 if there are no samples of it.",
        ],
        [
            "void",
            None,
            VoidOptions,
            "Take samples out of all answers, without deleting them; exit status 1 if there is no sample with a given id.",
        ],
        [
            "unvoid",
            None,
            UnvoidOptions,
            "Restore voided samples exactly; exit status 1 if one cannot be restored.",
        ],
        ["voided", None, VoidedOptions, "List voided samples, those that were voided last first."],
        [
            "finalize",
            None,
            FinalizeOptions,
            "Compute the rollups that are due now; exit status 1 if that failed for an hour or a day.",
        ],
        [
            "retire-agent",
            None,
            RetireAgentOptions,
            "Expect no samples of an agent that will not report again; exit status 1 if it measures nothing.",
        ],
        [
            "pack",
            None,
            PackOptions,
            "Pack weeks that ended long ago, which takes less than a third of the space; exit status 1 if a week cannot be packed now.",
        ],
        ["unpack", None, UnpackOptions, "Put the samples of a packed week back as they were."],
        *SUBCOMMANDS,
        [
            "spread",
            None,
            SpreadOptions,
            "Divide the samples among the workers of a Citus cluster whose coordinator this database is, while daemons run.",
        ],
    ]

    def postOptions(self) -> None:
        """Require a subcommand."""
        if self.subCommand is None:
            raise usage.UsageError(
                "give a subcommand: upgrade, status, partitions, retention, size, segments, void, unvoid, voided, finalize,"
                " retire-agent, pack, unpack, archive, unarchive, archive-server or spread"
            )


def main() -> None:
    """Run ``meter-db``."""
    run(Options(), sys.argv[1:], work)


async def work(reactor: Any, options: Any) -> int:
    """Run the subcommand on the configured database; return the exit status."""
    config = configuration(options["config"])
    kind: Any = SpreadingAdministration if options.subCommand == "spread" else ArchiveAdministration
    if options.subCommand == "upgrade":
        report, status = await upgrade(reactor, config, options.subOptions)
        text = plan_text if options.subOptions["dry-run"] else upgrade_text
        return _written(report, status, options.subOptions, text)
    if options.subCommand == "segments":
        report, status = await _segments(reactor, config, options.subOptions)
    else:
        async with (
            database_server(reactor, config) as (dsn, retry_seconds),
            connected(reactor, lambda: kind(reactor, dsn, clock=reactor), retry_seconds) as database,
        ):
            if options.subCommand in LONG:
                report, status = await LONG[options.subCommand](reactor, database, config, options.subOptions)
            else:
                report, status = await _administer(database, config, options.subCommand, options.subOptions)
    return _written(report, status, options.subOptions, as_text)


def _written(report: Report, status: int, options: Mapping[str, Any], text: Callable[[Report], str]) -> int:
    sys.stdout.write(f"{json.dumps(report)}\n" if options["json"] else escape_terminal(text(report)))
    sys.stdout.flush()
    return status


async def _administer(
    administration: Administration, config: Config, command: str, options: Mapping[str, Any]
) -> tuple[Report, int]:
    match command:
        case "status":
            report = await administration.status()
            others = [*report["archive_servers"], *report.get("workers", ())]
            away = any(each["state"] != "answers" for each in others)
            return report, EXIT_FOUND_PROBLEMS if report["schema_problem"] or away else EXIT_OK
        case "partitions":
            return {"partitions": await administration.partitions()}, EXIT_OK
        case "retention":
            configured = {
                "retention_days": config.store.retention_days,
                "retention_days_by_meter": config.store.retention_days_by_meter,
                "rollup_retention_days": config.store.rollup_retention_days,
            }
            return configured | await administration.retention(), EXIT_OK
        case "void" | "unvoid":
            return await change(administration, config, command, options)
        case "retire-agent":
            return await retire_agent(administration, config, options)
        case "voided":
            samples = await administration.voided(options["limit"])
            status = await administration.status()
            return {"voided_samples": status["voided_samples"], "samples": samples}, EXIT_OK
        case "finalize":
            acting = act(config, options, needs_reason=False)
            report = await administration.finalize(time_option(options, "until") or datetime.now(UTC), acting)
            return report, EXIT_FOUND_PROBLEMS if report["failed"] else EXIT_OK
        case _:
            return await administration.size(), EXIT_OK


async def _segments(reactor: Any, config: Config, options: Mapping[str, Any]) -> tuple[Report, int]:
    start, end = (time_option(options, name) for name in ("start", "end"))
    async with ready_store(
        reactor,
        config,
        lambda dsn: PostgresStore(
            reactor, dsn, clock=reactor, migrate=False, readers=1, writers=0, application_name="meter-db"
        ),
    ) as store:
        now = datetime.now(UTC)
        until = min(end or now, now)  # the future is never counted
        if options["project"]:
            report = await project_segments(store, options["project"], start, until)
            return report, EXIT_OK if report["instances"] else EXIT_FOUND_PROBLEMS
        report = await instance_segments(store, options["instance"], start, until)
        return report, EXIT_OK if report["segments"] else EXIT_FOUND_PROBLEMS


def as_text(report: Report) -> str:
    """Return ``report`` as text: a line for each member, lists as tables."""
    lines = []
    for name, value in report.items():
        if isinstance(value, list) and value:
            lines += _table(value)
        else:
            text = ", ".join(f"{key}: {each}" for key, each in value.items()) if isinstance(value, dict) else value
            lines.append(f"{name.replace('_', ' ')}: {_word(text)}")
    return "".join(f"{line}\n" for line in lines)


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value in (None, "", []) else str(value)


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    cells = [
        [name.upper().replace("_", " ") for name in rows[0]],
        *(["none" if cell is None else str(cell) for cell in row.values()] for row in rows),
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
