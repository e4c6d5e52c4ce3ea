"""``meter-dead-letters``: lists, shows, replays and discards dead letters."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import asynccontextmanager
from contextlib import contextmanager
from typing import Any

from twisted.python import usage

from meter.audit_record import Record
from meter.bus.dead_letter_queues import BrokerDeadLetters
from meter.bus.dead_letter_queues import DeadLetterQueue
from meter.bus.dead_letter_queues import Entry
from meter.bus.dead_letter_queues import SpooledDeadLetters
from meter.bus.dead_letter_replay import DISCARD_ACTION
from meter.bus.dead_letter_replay import MIN_ID_CHARACTERS
from meter.bus.dead_letter_replay import NoSuchDeadLetter
from meter.bus.dead_letter_replay import entries
from meter.bus.dead_letter_replay import entries_by_id
from meter.bus.dead_letter_replay import pretty_body
from meter.bus.dead_letter_replay import recorded
from meter.bus.dead_letter_replay import replay_each
from meter.bus.dead_letters import DEAD_LETTER_KINDS
from meter.bus.dead_letters import DeadLetter
from meter.bus.masking import masked_body
from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import EXIT_OK
from meter.commands.command import CommandError
from meter.commands.command import CommandOptions
from meter.commands.command import SubcommandOptions
from meter.commands.command import configuration
from meter.commands.command import escape_terminal
from meter.commands.command import run
from meter.commands.command import spool_of
from meter.commands.operator import REASON
from meter.commands.operator import UNRECORDED
from meter.commands.operator import WHO
from meter.commands.operator import audit_recorder
from meter.counts import counted
from meter.settings.config_file import SINGLE

MAX_SHOWN = 64 * 1024
"""Maximum number of characters of a body that ``show`` prints."""


def check_kind(command: str, kind: str | None) -> None:
    """Raise ``UsageError`` for a ``kind`` that no dead letter has."""
    if kind is not None and kind not in DEAD_LETTER_KINDS:
        raise usage.UsageError(f"{command}: there is no kind {kind!r}; known: {', '.join(DEAD_LETTER_KINDS)}")


class ListOptions(SubcommandOptions):
    """Which dead letters to list."""

    optParameters = [  # noqa: N815, RUF012  # Twisted reads it so
        ["kind", "k", None, "Only dead letters of this kind: undecodable, unverified, invalid, unstorable, defect, …"],
        ["limit", "n", 100, "Maximum number of dead letters to list.", int],
    ]
    optFlags = [["json", None, "Print one JSON object per line, with all headers."]]  # noqa: N815, RUF012

    def postOptions(self) -> None:
        """Refuse an unknown kind."""
        check_kind("list", self["kind"])


class ShowOptions(SubcommandOptions):
    """Which dead letter to show."""

    synopsis = "ID | POSITION"

    def parseArgs(self, *which: str) -> None:
        """Take an id, its first eight or more characters, or a position in the list."""
        if len(which) != 1:
            raise usage.UsageError("show: name one dead letter by its id or its position in the list")
        [self["which"]] = which


class ReplayOptions(SubcommandOptions):
    """Which dead letters to replay."""

    synopsis = "[ID …]"
    optParameters = [["kind", "k", None, "With --all: only dead letters of this kind."], REASON, WHO]  # noqa: N815, RUF012
    optFlags = [  # noqa: N815, RUF012
        ["all", "a", "Replay all dead letters that can be replayed."],
        ["force", None, "Also replay dead letters whose body is masked or truncated."],
        UNRECORDED,
    ]

    def parseArgs(self, *ids: str) -> None:
        """Take ids, or the first eight or more characters of each."""
        self["ids"] = ids

    def postOptions(self) -> None:
        """Require either ids or ``--all``."""
        if bool(self["ids"]) == bool(self["all"]):
            raise usage.UsageError("replay: give either ids or --all")
        check_kind("replay", self["kind"])


class DiscardOptions(SubcommandOptions):
    """Which dead letters to delete."""

    synopsis = "ID …"
    optParameters = [REASON, WHO]  # noqa: N815, RUF012
    optFlags = [UNRECORDED]  # noqa: N815, RUF012

    def parseArgs(self, *ids: str) -> None:
        """Take ids, or the first eight or more characters of each."""
        if not ids:
            raise usage.UsageError("discard: give at least one id")
        self["ids"] = ids


class Options(CommandOptions):
    """The command line."""

    synopsis = "Usage: meter-dead-letters [--config FILE] list | show | replay | discard"
    subCommands = [  # noqa: N815, RUF012
        ["list", None, ListOptions, "List dead letters, oldest first."],
        ["show", None, ShowOptions, "Show headers and body of one dead letter."],
        [
            "replay",
            None,
            ReplayOptions,
            "Send dead letters back to the queue they came from; each is removed once the broker has confirmed it.",
        ],
        ["discard", None, DiscardOptions, "Delete dead letters permanently."],
    ]

    def postOptions(self) -> None:
        """Require a subcommand."""
        if self.subCommand is None:
            raise usage.UsageError("give a subcommand: list, show, replay or discard")


def main() -> None:
    """Run ``meter-dead-letters``."""
    run(Options(), sys.argv[1:], work)


async def work(reactor: Any, options: Any) -> int:
    """Open the configured dead-letter queue and run the subcommand; return the exit status."""
    arguments = options.subOptions
    async with dead_letter_queue(reactor, options["config"]) as (queue, total):
        match options.subCommand:
            case "list":
                return await list_dead_letters(
                    queue, total, kind=arguments["kind"], limit=arguments["limit"], as_json=arguments["json"]
                )
            case "show":
                return await show(queue, arguments["which"])
            case "discard":
                async with audit_recorder(reactor, configuration(options["config"]), arguments) as record:
                    return await discard(queue, arguments["ids"], record)
            case _:
                chosen = (
                    entries(queue, arguments["kind"])
                    if arguments["all"]
                    else entries_by_id(entries(queue), arguments["ids"])
                )
                async with audit_recorder(reactor, configuration(options["config"]), arguments) as record:
                    return await replay(queue, chosen, record, force=bool(arguments["force"]))


@asynccontextmanager
async def dead_letter_queue(reactor: Any, config_path: str | None) -> AsyncIterator[tuple[DeadLetterQueue, int]]:
    """Provide the configured dead-letter queue, open, and the number of dead letters in it."""
    config = configuration(config_path)
    url = config.bus.url.get_secret_value()
    queue: DeadLetterQueue
    if url == "local:":
        queue = SpooledDeadLetters(
            spool_of(config, "dead-letters"),
            spool_of(config, SINGLE),
            clock=reactor,
            max_bytes=config.spool.max_bytes,
        )
    else:
        largest = config.bus.max_body_bytes
        queue = BrokerDeadLetters(reactor, url, clock=reactor, name="meter-dead-letters", max_body_bytes=largest)
    try:
        yield queue, await queue.open()
    finally:
        await queue.close()


# --- list ----------------------------------------------------------------------------------------------------------


async def list_dead_letters(queue: DeadLetterQueue, total: int, *, kind: str | None, limit: int, as_json: bool) -> int:
    """Print a line for each dead letter."""
    listed = position = 0
    if total and not as_json:
        sys.stdout.write(_row("N", "ID", "TIME", "KIND", "SUBJECT", "REASON"))
    while listed < limit and (entry := await queue.next()) is not None:
        position += 1
        if kind in (None, entry.dead_letter.kind):
            listed += 1
            line = _json_line if as_json else _line
            sys.stdout.write(line(position, entry.dead_letter))
    if not as_json:
        sys.stdout.write(f"{listed} of {counted(total, 'dead letter')}\n" if total else "no dead letters\n")
    sys.stdout.flush()
    return EXIT_OK


def _row(position: object, id: str, at: str, kind: str, subject: str, reason: str) -> str:
    return f"{position:>5}  {id:<{MIN_ID_CHARACTERS}}  {at:<19}  {kind:<13} {subject:<28} {reason}\n"


def _line(position: int, dead_letter: DeadLetter) -> str:
    remarks = [word for word in ("masked", "truncated") if getattr(dead_letter, word)]
    if dead_letter.replayed:
        remarks.append(f"replayed {dead_letter.replayed}x")
    reason = f"{dead_letter.reason} [{', '.join(remarks)}]" if remarks else dead_letter.reason
    cells = (dead_letter.id[:MIN_ID_CHARACTERS], dead_letter.at[:19], dead_letter.kind, dead_letter.subject, reason)
    return _row(position, *(escape_terminal(cell).replace("\n", " ") for cell in cells))


def _json_line(position: int, dead_letter: DeadLetter) -> str:
    names = ("id", "at", "kind", "subject", "reason", "exchange", "routing_key", "masked", "truncated", "replayed")
    members = {name: getattr(dead_letter, name) for name in names}
    content = {"n": position, **members, "bytes": len(dead_letter.body), "headers": dict(dead_letter.headers)}
    return json.dumps(content, default=str) + "\n"


# --- show ----------------------------------------------------------------------------------------------------------


async def show(queue: DeadLetterQueue, which: str) -> int:
    """Print headers and body of one dead letter."""
    if len(which) < MIN_ID_CHARACTERS:
        if not which.isdecimal() or which == "0":
            raise CommandError(
                f"{which}: should be an id of at least {MIN_ID_CHARACTERS} characters, or a position in the list"
            )
        entry = None
        for _ in range(int(which)):
            entry = await queue.next()
        if entry is None:
            raise CommandError(f"{which}: the queue has fewer dead letters")
    else:
        with unknown_ids():
            [entry] = [each async for each in entries_by_id(entries(queue), [which])]
    dead_letter = entry.dead_letter
    for name, value in {"meter-id": dead_letter.id, **dead_letter.headers}.items():
        sys.stdout.write(f"{escape_terminal(str(name))}: {escape_terminal(str(value))}\n")
    text = escape_terminal(pretty_body(masked_body(dead_letter.body)))
    omitted = len(text) - MAX_SHOWN
    sys.stdout.write(f"\n{text[:MAX_SHOWN]}\n")
    if omitted > 0:
        sys.stdout.write(f"… {counted(omitted, 'more character')}\n")
    sys.stdout.flush()
    return EXIT_OK


# --- replay and discard --------------------------------------------------------------------------------------------


async def replay(queue: DeadLetterQueue, chosen: AsyncIterator[Entry], record: Record, *, force: bool) -> int:
    """Replay dead letters, and print what became of each; see :func:`~meter.bus.dead_letter_replay.replay_each`."""
    replayed = kept = 0
    with unknown_ids():
        async for result in replay_each(queue, chosen, record, force=force):
            if result.problem is None:
                replayed += 1
                sys.stdout.write(escape_terminal(f"{result.dead_letter.id} replayed to {result.to}") + "\n")
            else:
                kept += 1
                sys.stderr.write(
                    f"{escape_terminal(result.dead_letter.id)} not replayed: {escape_terminal(result.problem)}\n"
                )
    sys.stdout.write(f"{replayed} replayed, {kept} kept\n")
    sys.stdout.flush()
    return EXIT_FOUND_PROBLEMS if kept else EXIT_OK


async def discard(queue: DeadLetterQueue, ids: Sequence[str], record: Record) -> int:
    """Delete dead letters permanently; ``record`` records that before it is done."""
    with unknown_ids():
        async for entry in recorded(entries_by_id(entries(queue), ids), record, DISCARD_ACTION):
            await queue.remove(entry)
            sys.stdout.write(f"{escape_terminal(entry.dead_letter.id)} discarded\n")
    sys.stdout.flush()
    return EXIT_OK


@contextmanager
def unknown_ids() -> Iterator[None]:
    """Raise :class:`CommandError` for ids that no dead letter has."""
    try:
        yield
    except NoSuchDeadLetter as error:
        raise CommandError(str(error)) from error
