"""``meter-audit``: lists and verifies the audit log, and adds notes to it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import Any

from twisted.python import usage

from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import EXIT_OK
from meter.commands.command import CommandError
from meter.commands.command import CommandOptions
from meter.commands.command import SubcommandOptions
from meter.commands.command import configuration
from meter.commands.command import escape_terminal
from meter.commands.command import parse_range
from meter.commands.command import run
from meter.commands.database import connected
from meter.commands.database import database_server
from meter.commands.operator import WHO
from meter.commands.operator import act
from meter.commands.operator import audit_keys
from meter.counts import counted
from meter.query import AuditEntry
from meter.query import AuditFilter
from meter.signing_keys import SigningKey
from meter.store import Administration
from meter.store import Anchor
from meter.store import ChainVerifier

PAGE_ENTRIES = 1000
"""Entries that ``verify`` reads at a time."""


BY_USER = ["who", "w", None, "Only what this user did."]


class ListEntriesOptions(SubcommandOptions):
    """Which entries to list."""

    optParameters = [  # noqa: N815, RUF012  # Twisted reads it so
        [
            "action",
            "a",
            None,
            "Only this action: void, unvoid, finalize, dead-letter.replay, dead-letter.discard, webhook.retry,"
            " webhook.discard, statement.close, token.create, token.revoke, token.purge, note.",
        ],
        BY_USER,
        ["from", None, None, "Only entries of this time, such as 2026-11-01T12:00 (UTC), or of a later one."],
        ["to", None, None, "Only entries of an earlier time."],
        ["limit", "n", 100, "Maximum number of entries.", int],
    ]
    optFlags = [["json", None, "Write one JSON object per line."]]  # noqa: N815, RUF012

    def postOptions(self) -> None:
        """Parse the times."""
        parse_range(self)


class VerifyOptions(SubcommandOptions):
    """What the log must contain."""

    optFlags = [["json", None, "Write one JSON object."]]  # noqa: N815, RUF012

    def __init__(self) -> None:
        super().__init__()
        self["expect"] = []

    def opt_expect(self, anchor: str) -> None:
        """SEQ:HASH of an entry that must be in the log, as verify and meter-db print it; repeatable."""
        match = re.fullmatch(r"(\d{1,18}):([0-9a-fA-F]{64})", anchor)
        if match is None:
            raise usage.UsageError(f"--expect: should be SEQ:HASH with 64 hexadecimal digits, not {anchor!r}")
        self["expect"].append(Anchor(int(match[1]), match[2]))


class NoteOptions(SubcommandOptions):
    """What to note."""

    synopsis = "TEXT"
    optParameters = [WHO]  # noqa: N815, RUF012

    def parseArgs(self, *words: str) -> None:
        """Take the text of the note."""
        self["reason"] = " ".join(words)


class Options(CommandOptions):
    """The options and subcommands of ``meter-audit``."""

    synopsis = "Usage: meter-audit [--config FILE] list | verify | note"
    subCommands = [  # noqa: N815, RUF012
        ["list", None, ListEntriesOptions, "List what administrators did, newest first."],
        [
            "verify",
            None,
            VerifyOptions,
            "Verify the chain of hashes and print the newest entry as SEQ:HASH; exit status 1 if something is wrong.",
        ],
        ["note", None, NoteOptions, "Append a note, for example about an act while the database was unavailable."],
    ]

    def postOptions(self) -> None:
        """Require a subcommand."""
        if self.subCommand is None:
            raise usage.UsageError("give a subcommand: list, verify or note")


def main() -> None:
    """Run ``meter-audit``."""
    run(Options(), sys.argv[1:], work)


async def work(reactor: Any, options: Any) -> int:
    """Run the subcommand on the configured database; return the exit status."""
    config, arguments = configuration(options["config"]), options.subOptions
    async with (
        database_server(reactor, config) as (dsn, retry_seconds),
        connected(reactor, lambda: Administration(reactor, dsn, clock=reactor), retry_seconds) as administration,
    ):
        match options.subCommand:
            case "list":
                filter = AuditFilter(
                    action=arguments["action"], who=arguments["who"], start=arguments["from"], end=arguments["to"]
                )
                entries = await administration.audit_entries(filter, arguments["limit"])
                return list_entries(entries, as_json=bool(arguments["json"]))
            case "verify":
                return await verify(
                    administration, audit_keys(config), arguments["expect"], as_json=bool(arguments["json"])
                )
            case _:
                if not arguments["reason"].strip():
                    raise CommandError("note: give a text")
                entry = await administration.record(act(config, arguments), "note", {})
                sys.stdout.write(f"{entry.seq}:{entry.hash}\n")
                sys.stdout.flush()
                return EXIT_OK


def list_entries(entries: Sequence[AuditEntry], *, as_json: bool) -> int:
    """Print a line for each entry."""
    for entry in entries:
        if as_json:
            members = {name: getattr(entry, name) for name in AuditEntry.__struct_fields__}
            details = json.loads(entry.details)
            sys.stdout.write(json.dumps({**members, "at": entry.at.isoformat(), "details": details}) + "\n")
        else:
            cells = (str(entry.seq), f"{entry.at:%Y-%m-%dT%H:%M:%S}Z", entry.who, entry.action, entry.reason)
            line = "  ".join(escape_terminal(cell).replace("\n", " ") for cell in (*cells, entry.details))
            sys.stdout.write(f"{line}\n")
    if not as_json and not entries:
        sys.stdout.write("no entries\n")
    sys.stdout.flush()
    return EXIT_OK


async def verify(
    administration: Administration, keys: Sequence[SigningKey], anchors: Sequence[Anchor], *, as_json: bool
) -> int:
    """Verify all entries, print what is wrong and the newest entry; return the exit status."""
    referenced = await administration.newest_referenced_entry()
    verifier = ChainVerifier(keys, anchors, referenced=referenced)
    problems: list[str] = []
    seq: int | None = None
    while page := await administration.audit_entries_after(seq, PAGE_ENTRIES):
        for entry in page:
            problems += verifier.problems_of(entry)
        seq = page[-1].seq
    problems += verifier.problems_at_end()
    problems += await administration.problems_of_voided_samples(keys)
    newest = verifier.newest and f"{verifier.newest.seq}:{verifier.newest.hash}"
    if as_json:
        report = {"entries": verifier.entries, "newest": newest, "problems": problems}
        sys.stdout.write(json.dumps(report) + "\n")
    else:
        sys.stdout.writelines(f"{escape_terminal(problem)}\n" for problem in problems)
        sys.stdout.write(
            f"{counted(verifier.entries, 'entry')}, {counted(len(problems), 'problem')}, newest: {newest or 'none'}\n"
        )
    sys.stdout.flush()
    return EXIT_FOUND_PROBLEMS if problems else EXIT_OK
