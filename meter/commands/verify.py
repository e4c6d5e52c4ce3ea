"""``meter-verify``: verifies again, with the configured keys, what is stored."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from dataclasses import field
from typing import Any
from typing import Literal

from twisted.internet.interfaces import IReactorTime
from twisted.python import usage

from meter.commands.command import DONE
from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import CommandError
from meter.commands.command import CommandOptions
from meter.commands.command import configuration
from meter.commands.command import escape_terminal
from meter.commands.command import run
from meter.daemon.services import sleep
from meter.interfaces import Unavailable
from meter.message import BadMessage
from meter.message import parse_timestamp
from meter.message import read
from meter.sample import utc_text
from meter.settings import Config
from meter.settings.config_file import keyring
from meter.signature import BadSignature
from meter.signature import Keyring
from meter.store import EmbeddedPostgres
from meter.store import StoredRow
from meter.store import Verification
from meter.store import embedded_directory

CONNECT_SECONDS = 60.0
"""How long an embedded database, which may have to be started first, may take to answer."""


class Options(CommandOptions):
    """What to verify."""

    synopsis = "Usage: meter-verify [--config FILE] [--from TIME] [--to TIME] [--meter METER]"
    optParameters = [  # noqa: N815, RUF012  # Twisted reads it so
        ["from", None, None, "Samples measured at this time, as 2026-11-22T17:00 (UTC), or later. [default: all]"],
        ["to", None, None, "Samples measured before this time. [default: all]"],
        ["meter", "m", None, "Samples of this meter only."],
    ]
    optFlags = [["json", None, "One JSON object a line: rows that fail, then the counts."]]  # noqa: N815, RUF012

    def postOptions(self) -> None:
        """Read the times."""
        for name in ("from", "to"):
            try:
                self[name] = None if self[name] is None else parse_timestamp(self[name], f"--{name}")
            except BadMessage as error:
                raise usage.UsageError(str(error)) from error


State = Literal["verified", "unsigned", "failed"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said of a row. ``reason`` says what is wrong with it; ``key_id`` names the key that verified it."""

    state: State
    key_id: str | None = None
    reason: str | None = None


@dataclass(slots=True)
class Tally:
    """How many rows are in which state, how many of them were verified by which key, and how many were named."""

    states: dict[State, int] = field(default_factory=lambda: {"verified": 0, "unsigned": 0, "failed": 0})
    keys: Counter[str] = field(default_factory=Counter)
    named: int = 0


def main() -> None:
    """Run ``meter-verify``."""
    run(Options(), sys.argv[1:], work)


async def work(reactor: Any, options: Any) -> int:
    """Verify what is asked for; the exit status says whether any row failed."""
    config = configuration(options["config"])
    keys = _keys(config)
    async with _store(reactor, config) as store:
        rows = store.rows(options["from"], options["to"], options["meter"])
        tally = await verified(
            rows, keys, accept_unsigned=config.signing.accept_unsigned, as_json=bool(options["json"])
        )
    if options["json"]:
        sys.stdout.write(json.dumps({**tally.states, "by_key": tally.keys}) + "\n")
    else:
        sys.stdout.write(", ".join(f"{count} {state}" for state, count in tally.states.items()) + "\n")
    sys.stdout.flush()
    return EXIT_FOUND_PROBLEMS if tally.named else DONE


def _keys(config: Config) -> Keyring:
    """Return the configured keys; one that would have to be made up first has signed nothing."""
    made = config.signing_key_file.exists()
    if config.signing.key is None and not config.signing.keys and not made:
        raise CommandError(
            f"[signing] names no key, and there is no {config.signing_key_file}: nothing can be verified"
        )
    # A row without signature is read like any other; whether it is accepted is asked of the configuration later.
    lenient = config.signing.model_copy(update={"accept_unsigned": True})
    return keyring(config.model_copy(update={"signing": lenient}), make=made)


@asynccontextmanager
async def _store(reactor: Any, config: Config) -> AsyncIterator[Verification]:
    """Provide the configured store, connected; an embedded one is started if no daemon runs it."""
    dsn = config.store.dsn.get_secret_value()
    directory = embedded_directory(dsn)
    if directory is not None and not (directory / "data").exists():
        raise Unavailable(f"there is no database in {directory}")
    server = None if directory is None else EmbeddedPostgres(reactor, directory, clock=reactor)
    if server is not None:
        server.startService()
    try:
        store = await _connected(reactor, config, server.dsn if server else dsn, patient=server is not None)
        try:
            yield store
        finally:
            store.close()
    finally:
        if server is not None:
            await server.stopService()


async def _connected(reactor: Any, config: Config, dsn: str, *, patient: bool) -> Verification:
    clock: IReactorTime = reactor
    deadline = clock.seconds() + (CONNECT_SECONDS if patient else 0.0)
    while True:
        store = Verification(
            reactor, dsn, clock=clock, statement_timeout_seconds=config.store.statement_timeout_seconds
        )
        try:
            await store.open()
        except Unavailable:
            store.close()
            if clock.seconds() >= deadline:
                raise
            await sleep(clock, 0.2)
        else:
            return store


async def verified(rows: AsyncIterator[StoredRow], keys: Keyring, *, accept_unsigned: bool, as_json: bool) -> Tally:
    """Verify row after row, write a line for each that something is wrong with, and return how many there are of what."""
    tally = Tally()
    async for row in rows:
        found = verdict(row, keys, accept_unsigned=accept_unsigned)
        tally.states[found.state] += 1
        if found.key_id is not None:
            tally.keys[found.key_id] += 1
        if found.reason is not None:
            tally.named += 1
            sys.stdout.write(_json_line(row, found) if as_json else _line(row, found))
    return tally


def verdict(row: StoredRow, keys: Keyring, *, accept_unsigned: bool) -> Verdict:
    """Judge a row with ``keys``, which let unsigned messages pass.

    It fails when its message is not what was signed, and when its columns say something else than its message. One that
    came without a signature proves nothing, which is wrong where unsigned samples are not accepted.
    """
    if row.fields is None:
        return Verdict("failed", reason=row.damage)
    try:
        message = read(row.fields, keys, row.key_id)
    except (BadMessage, BadSignature) as error:
        return Verdict("failed", reason=str(error))
    reason = row.damage or row.difference(message)
    if message.key_id is None and row.key_id is not None:
        reason = f"the signature is gone that key {row.key_id} verified when it came"
    if reason is not None:
        return Verdict("failed", reason=reason)
    if message.key_id is not None:
        return Verdict("verified", message.key_id)
    return Verdict("unsigned", reason=None if accept_unsigned else "not signed, which [signing] does not accept")


def _line(row: StoredRow, found: Verdict) -> str:
    cells = (row.message_id, row.meter or "-", row.resource_id or "-", utc_text(row.timestamp), found.reason or "")
    return f"{found.state.upper():<8}  " + "  ".join(escape_terminal(cell).replace("\n", " ") for cell in cells) + "\n"


def _json_line(row: StoredRow, found: Verdict) -> str:
    told = {
        "state": found.state,
        "message_id": row.message_id,
        "meter": row.meter,
        "resource_id": row.resource_id,
        "timestamp": utc_text(row.timestamp),
        "key_id": row.key_id,
        "reason": found.reason,
    }
    return json.dumps(told) + "\n"
