"""``meter-dead-letters``: lists dead letters, shows them, and replays them after a fix."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from collections.abc import Iterable
from collections.abc import Sequence
from contextlib import asynccontextmanager
from typing import Any

from twisted.python import usage

from meter.bus.dead_letter import DeadLetter
from meter.bus.masking import masked_body
from meter.commands.command import DONE
from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import CommandError
from meter.commands.command import CommandOptions
from meter.commands.command import configuration
from meter.commands.command import escape_terminal
from meter.commands.command import run
from meter.commands.command import spool_of
from meter.commands.dead_letter_queues import BrokerDeadLetters
from meter.commands.dead_letter_queues import DeadLetterQueue
from meter.commands.dead_letter_queues import Entry
from meter.commands.dead_letter_queues import SpooledDeadLetters
from meter.settings.config_file import SINGLE

SHORTEST_ID = 8
"""Characters that an id may be cut to; a shorter number is a letter's place in the list."""

LONGEST_SHOWN = 64 * 1024
"""Characters of a body that are shown."""


class ListOptions(usage.Options):
    """Which letters to list."""

    optParameters = [  # noqa: N815, RUF012  # Twisted reads it so
        ["kind", "k", None, "Only letters of this kind: undecodable, unverified, invalid, unstorable, defect, …"],
        ["limit", "n", 100, "At most so many.", int],
    ]
    optFlags = [["json", None, "One JSON object a line, with every header."]]  # noqa: N815, RUF012


class ShowOptions(usage.Options):
    """Which letter to show."""

    synopsis = "ID or place in the list"

    def parseArgs(self, *which: str) -> None:
        """Take the letter's id, eight characters of it, or its place in the list."""
        if len(which) != 1:
            raise usage.UsageError("show: name one letter, by its id or its place in the list")
        [self["which"]] = which


class ReplayOptions(usage.Options):
    """Which letters to replay."""

    synopsis = "[ID …]"
    optParameters = [["kind", "k", None, "With --all: only letters of this kind."]]  # noqa: N815, RUF012
    optFlags = [  # noqa: N815, RUF012
        ["all", "a", "All letters that can be replayed."],
        ["force", None, "Also those whose secrets were masked, or of which only the beginning was kept."],
    ]

    def parseArgs(self, *ids: str) -> None:
        """Take ids, or eight characters of each."""
        self["ids"] = ids

    def postOptions(self) -> None:
        """Ask for either."""
        if bool(self["ids"]) == bool(self["all"]):
            raise usage.UsageError("replay: name letters by their ids, or say --all")


class DropOptions(usage.Options):
    """Which letters to remove for good."""

    synopsis = "ID …"

    def parseArgs(self, *ids: str) -> None:
        """Take ids, or eight characters of each."""
        if not ids:
            raise usage.UsageError("drop: name letters by their ids")
        self["ids"] = ids


class Options(CommandOptions):
    """What to do."""

    synopsis = "Usage: meter-dead-letters [--config FILE] list | show | replay | drop"
    subCommands = [  # noqa: N815, RUF012
        ["list", None, ListOptions, "List dead letters, the oldest first."],
        ["show", None, ShowOptions, "Show one letter: headers and body."],
        [
            "replay",
            None,
            ReplayOptions,
            "Send letters back to where they failed; each is removed when it is safe there.",
        ],
        ["drop", None, DropOptions, "Remove letters for good."],
    ]

    def postOptions(self) -> None:
        """Ask for a command."""
        if self.subCommand is None:
            raise usage.UsageError("say what to do: list, show, replay or drop")


def main() -> None:
    """Run ``meter-dead-letters``."""
    run(Options(), sys.argv[1:], work)


async def work(reactor: Any, options: Any) -> int:
    """Open the letterbox that the configuration leads to and do what is asked."""
    asked = options.subOptions
    async with dead_letter_queue(reactor, options["config"]) as (box, waiting):
        match options.subCommand:
            case "list":
                return await list_letters(box, waiting, kind=asked["kind"], limit=asked["limit"], as_json=asked["json"])
            case "show":
                return await show(box, asked["which"])
            case "drop":
                return await drop(box, asked["ids"])
            case _:
                chosen = dead_letters(box, asked["kind"]) if asked["all"] else found(box, asked["ids"])
                return await replay(box, chosen, force=bool(asked["force"]))


@asynccontextmanager
async def dead_letter_queue(reactor: Any, config_path: str | None) -> AsyncIterator[tuple[DeadLetterQueue, int]]:
    """Provide the configured letterbox, open, and how many letters are in it."""
    config = configuration(config_path)
    url = config.bus.url.get_secret_value()
    box: DeadLetterQueue
    if url == "local:":
        box = SpooledDeadLetters(
            spool_of(config, "dead-letters"),
            spool_of(config, SINGLE),
            clock=reactor,
            largest_bytes=config.spool.largest_bytes,
        )
    else:
        largest = config.bus.largest_body_bytes
        box = BrokerDeadLetters(reactor, url, clock=reactor, name="meter-dead-letters", largest_body_bytes=largest)
    try:
        yield box, await box.open()
    finally:
        await box.close()


async def dead_letters(box: DeadLetterQueue, kind: str | None = None) -> AsyncIterator[Entry]:
    """Yield the letters of ``kind``, or all."""
    while (lying := await box.next()) is not None:
        if kind in (None, lying.letter.kind):
            yield lying


async def found(box: DeadLetterQueue, ids: Iterable[str]) -> AsyncIterator[Entry]:
    """Yield the letters with these ids, after all of the box was looked through; :class:`CommandError` if one is not there."""
    wanted = dict.fromkeys(ids)
    for each in wanted:
        if len(each) < SHORTEST_ID:
            raise CommandError(f"{each}: an id has at least {SHORTEST_ID} characters; the list shows them")
    chosen: dict[str, list[Entry]] = {each: [] for each in wanted}
    async for lying in dead_letters(box):
        for each, lies in chosen.items():
            if lying.letter.id.startswith(each):
                lies.append(lying)
    for each, lies in chosen.items():
        if len(lies) != 1:
            raise CommandError(
                f"{each}: there are {len(lies)} such letters" if lies else f"{each}: there is no such letter"
            )
    for lying in {id(lies[0]): lies[0] for lies in chosen.values()}.values():
        yield lying


# --- list ----------------------------------------------------------------------------------------------------------


async def list_letters(box: DeadLetterQueue, waiting: int, *, kind: str | None, limit: int, as_json: bool) -> int:
    """Write a line for each letter."""
    listed = place = 0
    if waiting and not as_json:
        sys.stdout.write(_row("N", "ID", "WHEN", "KIND", "OF", "REASON"))
    while listed < limit and (lying := await box.next()) is not None:
        place += 1
        if kind in (None, lying.letter.kind):
            listed += 1
            sys.stdout.write(_json_line(place, lying.letter) if as_json else _line(place, lying.letter))
    if not as_json:
        sys.stdout.write(f"{listed} of {waiting} letters\n" if waiting else "no dead letters\n")
    sys.stdout.flush()
    return DONE


def _row(place: object, id: str, at: str, kind: str, about: str, reason: str) -> str:
    return f"{place:>5}  {id:<{SHORTEST_ID}}  {at:<19}  {kind:<12} {about:<28} {reason}\n"


def _line(place: int, letter: DeadLetter) -> str:
    remarks = [word for word in ("masked", "cut") if getattr(letter, word)]
    if letter.replayed:
        remarks.append(f"replayed {letter.replayed}x")
    reason = f"{letter.reason} [{', '.join(remarks)}]" if remarks else letter.reason
    cells = (letter.id[:SHORTEST_ID], letter.at[:19], letter.kind, letter.about, reason)
    return _row(place, *(escape_terminal(cell).replace("\n", " ") for cell in cells))


def _json_line(place: int, letter: DeadLetter) -> str:
    about = {name: getattr(letter, name) for name in ("id", "at", "kind", "about", "reason", "exchange", "routing_key")}
    state = {"masked": letter.masked, "cut": letter.cut, "replayed": letter.replayed, "bytes": len(letter.body)}
    return json.dumps({"n": place, **about, **state, "headers": dict(letter.headers)}, default=str) + "\n"


# --- show ----------------------------------------------------------------------------------------------------------


async def show(box: DeadLetterQueue, which: str) -> int:
    """Write one letter for people."""
    if len(which) < SHORTEST_ID:
        if not which.isdecimal() or which == "0":
            raise CommandError(f"{which}: should be an id of at least {SHORTEST_ID} characters, or a place in the list")
        lying = None
        for _ in range(int(which)):
            lying = await box.next()
        if lying is None:
            raise CommandError(f"{which}: there are fewer letters")
    else:
        [lying] = [each async for each in found(box, [which])]
    letter = lying.letter
    for name, value in {"meter-id": letter.id, **letter.headers}.items():
        sys.stdout.write(f"{escape_terminal(str(name))}: {escape_terminal(str(value))}\n")
    text = escape_terminal(readable(masked_body(letter.body)))
    left = len(text) - LONGEST_SHOWN
    sys.stdout.write(f"\n{text[:LONGEST_SHOWN]}\n")
    if left > 0:
        sys.stdout.write(f"… and {left} characters more\n")
    sys.stdout.flush()
    return DONE


def readable(body: bytes) -> str:
    """Return a body indented if it is JSON, the message out of its envelope; as it is otherwise."""
    try:
        content = json.loads(body)
        if isinstance(content, dict) and isinstance(content.get("oslo.message"), str):
            content["oslo.message"] = json.loads(content["oslo.message"])
        return json.dumps(content, indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return body.decode("utf-8", "backslashreplace")


# --- replay and drop -----------------------------------------------------------------------------------------------


async def replay(box: DeadLetterQueue, chosen: AsyncIterator[Entry], *, force: bool) -> int:
    """Send letters back, and remove each when it is safe there; what cannot be replayed stays and is named."""
    sent = refused = 0
    async for lying in chosen:
        not_replayable = lying.letter.not_replayable
        if not_replayable is not None and not force:
            refused += 1
            sys.stderr.write(f"{escape_terminal(lying.letter.id)} stays: {not_replayable} (--force replays it)\n")
            continue
        publication = lying.letter.publication()
        try:
            await box.send(publication)
        except ValueError as error:
            refused += 1
            sys.stderr.write(f"{escape_terminal(lying.letter.id)} stays: {escape_terminal(str(error))}\n")
            continue
        await box.remove(lying)
        sent += 1
        to = (
            publication.routing_key if not publication.exchange else f"{publication.exchange}/{publication.routing_key}"
        )
        sys.stdout.write(escape_terminal(f"{lying.letter.id} is on its way to {to}") + "\n")
    sys.stdout.write(f"{sent} replayed, {refused} stay\n")
    sys.stdout.flush()
    return EXIT_FOUND_PROBLEMS if refused else DONE


async def drop(box: DeadLetterQueue, ids: Sequence[str]) -> int:
    """Remove letters for good."""
    async for lying in found(box, ids):
        await box.remove(lying)
        sys.stdout.write(f"{escape_terminal(lying.letter.id)} is gone\n")
    sys.stdout.flush()
    return DONE
