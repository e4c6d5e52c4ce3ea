"""The subcommands of ``meter-db`` that move packed weeks to archive servers and back, and that make archive servers known."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from twisted.python import usage

from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import EXIT_OK
from meter.commands.command import CommandError
from meter.commands.command import SubcommandOptions
from meter.commands.command import unreadable
from meter.commands.operator import REASON
from meter.commands.operator import WHO
from meter.commands.operator import act
from meter.commands.pack import SampleProgress
from meter.commands.pack import named_week
from meter.commands.pack import one_week
from meter.settings import Config
from meter.store import ArchiveAdministration
from meter.store import ArchiveReader
from meter.store import ArchiveServerError
from meter.store import NotArchived
from meter.store import NotVerified
from meter.store import Rejected
from meter.store import UnexpectedLoss
from meter.store import WeekIsArchived
from meter.store import WeekLoss
from meter.store import archive_parameters
from meter.store import listed

Report = dict[str, Any]

JSON = ["json", None, "Write one JSON object."]


class ArchiveOptions(SubcommandOptions):
    """The options of ``archive``."""

    synopsis = "[options] MONDAY … SERVER"
    optParameters = [REASON, WHO]  # noqa: N815, RUF012  # Twisted reads it so
    optFlags = [JSON]  # noqa: N815, RUF012

    def parseArgs(self, *arguments: str) -> None:
        """Take the days on which weeks begin, and the name of the archive server."""
        if len(arguments) < 2:
            raise usage.UsageError(
                "archive: give the Mondays of weeks and the name of an archive server, after all options"
            )
        *weeks, self["server"] = arguments
        self["weeks"] = sorted({named_week(text) for text in weeks})


class UnarchiveOptions(SubcommandOptions):
    """The options of ``unarchive``."""

    synopsis = "[options] MONDAY"
    optParameters = [REASON, WHO]  # noqa: N815, RUF012
    optFlags = [JSON]  # noqa: N815, RUF012

    def parseArgs(self, *weeks: str) -> None:
        """Take the day on which the week begins."""
        self["week"] = one_week("unarchive", weeks)


class ArchiveServerOptions(SubcommandOptions):
    """The options of ``archive-server``."""

    synopsis = "[options] add NAME DSN | [options] remove NAME | [options] lost NAME [MONDAY …]"
    optParameters = [  # noqa: N815, RUF012
        ["password-file", None, None, "File with the password of the user in DSN."],
        ["reader-role", None, None, "Role of this database, such as that of an API, that is to read the archive."],
        [
            "reader-user",
            None,
            None,
            "User of the archive server that this role reads as; the user gets no other right.",
        ],
        ["reader-password-file", None, None, "File with the password of that user."],
        [
            "expect",
            None,
            None,
            "With lost: record the loss of exactly this number of samples. [default: only say it]",
            int,
        ],
        REASON,
        WHO,
    ]
    optFlags = [JSON]  # noqa: N815, RUF012

    def parseArgs(self, *arguments: str) -> None:
        """Take the action, the name and the DSN or the weeks."""
        self["action"], self["name"], self["dsn"], self["weeks"] = "", "", "", []
        match arguments:
            case ["add", name, dsn]:
                self["action"], self["name"], self["dsn"] = "add", name, dsn
            case ["remove", name]:
                self["action"], self["name"] = "remove", name
            case ["lost", name, *weeks]:
                self["action"], self["name"] = "lost", name
                self["weeks"] = sorted({named_week(text) for text in weeks})
            case _:
                raise usage.UsageError(
                    "archive-server: give add NAME DSN, remove NAME or lost NAME [MONDAY …], after all options"
                )
        if self["expect"] is not None and self["action"] != "lost":
            raise usage.UsageError("archive-server: --expect is an option of lost")
        if bool(self["reader-role"]) != bool(self["reader-user"]):
            raise usage.UsageError("archive-server: --reader-role and --reader-user belong together")


async def archive(
    reactor: Any, administration: ArchiveAdministration, config: Config, options: Mapping[str, Any]
) -> tuple[Report, int]:
    """Move the named weeks to an archive server, packing them first where they are not; return the report and the exit status.

    The status is 1 if a week cannot be moved now.
    """
    weeks, server = options["weeks"], options["server"]
    states = {week: await administration.archive_state(week) for week in weeks}
    plain = {state.week: state.plain for state in await administration.weeks(weeks, after_days=0, retention_days=0)}
    try:
        await administration.require_archive_server(server)
    except ArchiveServerError as error:
        raise CommandError(str(error)) from error
    acting = act(config, options, needs_reason=False)
    await administration.record(acting, "archive", {"weeks": [*map(str, weeks)], "server": server})
    total = sum(state.here + (0 if state.where else plain.get(week, 0)) for week, state in states.items())
    progress = SampleProgress(reactor, "archived", total)
    rows: list[Report] = []
    with progress.shown():
        for week, state in states.items():
            rows.append(
                await _archive_week(administration, week, server, progress, is_over=week in plain, known=state.exists)
            )
    report = {
        "archived_samples": progress.done,
        "samples_per_second": round(progress.rate) if progress.done else None,
        "server": server,
        "weeks": rows,
    }
    return report, EXIT_FOUND_PROBLEMS if any(row["samples"] is None for row in rows) else EXIT_OK


async def _archive_week(
    administration: ArchiveAdministration,
    week: date,
    server: str,
    progress: SampleProgress,
    *,
    is_over: bool,
    known: bool,
) -> Report:
    if not known or not is_over:
        return _row(week, None, "has no partition, or is not over")
    try:
        if (await administration.archive_state(week)).where is None:
            if await administration.pack(week, lambda samples: None) is None:
                return _row(week, None, "not archived: an hour of it is not final; meter-db finalize")
            if not (await administration.archive_state(week)).packed:
                return _row(week, None, "has no samples")
        samples = await administration.archive(week, server, progress.add)
    except (NotArchived, NotVerified, Rejected, WeekIsArchived) as error:
        return _row(week, None, f"not archived: {error}")
    state = await administration.archive_state(week)
    return _row(week, samples, f"archived, {state.archived} samples in all")


async def unarchive(
    reactor: Any, administration: ArchiveAdministration, config: Config, options: Mapping[str, Any]
) -> tuple[Report, int]:
    """Bring an archived week back; return the report and the exit status, 1 if its archive server still has the rows."""
    week = options["week"]
    state = await administration.archive_state(week)
    if state.where is None:
        raise CommandError(f"the week of {week} is not archived")
    if state.where.lost:
        raise CommandError(f"the week of {week} cannot be brought back: its samples are {state.where.text}")
    server = state.where.server
    acting = act(config, options, needs_reason=False)
    await administration.record(acting, "unarchive", {"week": str(week), "server": server})
    progress = SampleProgress(reactor, "brought back", state.archived)
    with progress.shown():
        try:
            samples, failed = await administration.unarchive(week, progress.add)
        except (ArchiveServerError, NotArchived, WeekIsArchived) as error:
            raise CommandError(str(error)) from error
    removed = (
        "removed" if server not in failed else f"to be removed by a collector, or the next command: {failed[server]}"
    )
    return {
        "week": str(week),
        "unarchived_samples": samples,
        "samples_per_second": round(progress.rate) if samples else None,
        "server": server,
        "rows_on_the_server": removed,
    }, EXIT_FOUND_PROBLEMS if server in failed else EXIT_OK


async def archive_server(
    reactor: Any, administration: ArchiveAdministration, config: Config, options: Mapping[str, Any]
) -> tuple[Report, int]:
    """Make an archive server known, forget it, or record what it has lost; return the report and the exit status.

    The status is 1 if the server lacks weeks that it must have, and if a loss was only told.
    """
    name, action = options["name"], options["action"]
    if action == "lost":
        return await _lost(administration, config, options)
    acting = act(config, options, needs_reason=False)
    try:
        if action == "remove":
            await administration.remove_archive_server(name)
            await administration.record(acting, "archive-server", {"action": action, "server": name})
            return {"removed": name}, EXIT_OK
        parameters = archive_parameters(options["dsn"], _password(options["password-file"]))
        reader = None
        if options["reader-role"]:
            of_reader = parameters | {"user": options["reader-user"]}
            of_reader.pop("password", None)
            if options["reader-password-file"]:
                of_reader["password"] = _password(options["reader-password-file"])
            reader = ArchiveReader(options["reader-role"], of_reader)
        made, missing = await administration.add_archive_server(reactor, name, parameters, reader)
    except ArchiveServerError as error:
        raise CommandError(str(error)) from error
    where: Report = {
        key: parameters[key] for key in ("host", "hostaddr", "port", "dbname", "user") if key in parameters
    }
    readers: Report = {"reader_role": options["reader-role"]} if reader else {}
    await administration.record(acting, "archive-server", {"action": action, "server": name, **where, **readers})
    report = {"added": name, **where, **readers, "tables": "made" if made else "were there already"}
    if missing:
        return {**report, "missing_weeks": listed(missing)}, EXIT_FOUND_PROBLEMS
    return report, EXIT_OK


async def _lost(
    administration: ArchiveAdministration, config: Config, options: Mapping[str, Any]
) -> tuple[Report, int]:
    """Say what is lost with an archive server; with the option ``expect`` record it."""
    name, weeks, expected = options["name"], options["weeks"], options["expect"]
    try:
        if expected is None:
            found = await administration.archive_losses(name, weeks)
            samples = sum(each.samples for each in found)
            report = _losses(name, found)
            return report | {
                "nothing_changed": f"add --expect {samples} and a --reason to record that these samples are lost; that cannot be taken back"
            }, EXIT_FOUND_PROBLEMS
        acting = act(config, options, expected=expected)
        found, entry = await administration.record_archive_losses(name, weeks, acting)
    except (ArchiveServerError, UnexpectedLoss) as error:
        raise CommandError(str(error)) from error
    return _losses(name, found) | {"audit_entry": entry.seq}, EXIT_OK


def _losses(server: str, found: Sequence[WeekLoss]) -> Report:
    return {
        "server": server,
        "lost_samples": sum(each.samples for each in found),
        "weeks": [
            {
                "week": str(each.week),
                "lost_samples": each.samples,
                "samples_kept": each.kept,
                "hours_without_late_samples": each.hours_without_late_samples,
            }
            for each in found
        ],
        "what_stays": "rollups, with which statistics of whole hours are answered, closed statements, and the index of message ids",
    }


def _password(path: str | None) -> str:
    if not path:
        return ""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise CommandError(f"{path} cannot be read: {unreadable(error)}") from error
    return text.removesuffix("\n").removesuffix("\r")


def _row(week: date, samples: int | None, outcome: str) -> Report:
    return {"week": str(week), "samples": samples, "outcome": outcome}


ARCHIVING = {"archive": archive, "unarchive": unarchive, "archive-server": archive_server}
"""Subcommands with their implementations."""

SUBCOMMANDS: Sequence[list[Any]] = [
    [
        "archive",
        None,
        ArchiveOptions,
        "Move the samples of packed weeks to an archive server, where questions find them; exit status 1 if a week cannot be moved now.",
    ],
    [
        "unarchive",
        None,
        UnarchiveOptions,
        "Bring the samples of an archived week back; exit status 1 if the archive server could not delete them.",
    ],
    [
        "archive-server",
        None,
        ArchiveServerOptions,
        "Make an archive server known, with its tables, forget it, or record that it has lost weeks for good.",
    ],
]
"""As ``Options`` of ``meter-db`` lists them."""
