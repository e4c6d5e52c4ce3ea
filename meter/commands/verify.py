"""``meter-verify``: verifies the signatures of stored samples with the configured keys."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from dataclasses import field
from typing import Any
from typing import Literal

from twisted.python import usage

from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import EXIT_OK
from meter.commands.command import CommandError
from meter.commands.command import CommandOptions
from meter.commands.command import configuration
from meter.commands.command import escape_terminal
from meter.commands.command import run
from meter.commands.database import connected
from meter.commands.database import database_server
from meter.message import BadMessage
from meter.message import parse_timestamp
from meter.message import read
from meter.sample import utc_text
from meter.settings import Config
from meter.settings.config_file import keyring
from meter.signature import BadSignature
from meter.signature import Keyring
from meter.store import StoredRow
from meter.store import Verification


class Options(CommandOptions):
    """The options of ``meter-verify``."""

    synopsis = "Usage: meter-verify [--config FILE] [--from TIME] [--to TIME] [--meter METER]"
    optParameters = [  # noqa: N815, RUF012  # Twisted reads it so
        [
            "from",
            None,
            None,
            "Verify samples with this timestamp, such as 2026-11-22T17:00 (UTC), or a later one. [default: all]",
        ],
        ["to", None, None, "Verify samples with an earlier timestamp. [default: all]"],
        ["meter", "m", None, "Verify samples of this meter only."],
    ]
    optFlags = [["json", None, "Write one JSON object a line: each failed row, then the counts."]]  # noqa: N815, RUF012

    def postOptions(self) -> None:
        """Parse the times."""
        for name in ("from", "to"):
            try:
                self[name] = None if self[name] is None else parse_timestamp(self[name], f"--{name}")
            except BadMessage as error:
                raise usage.UsageError(str(error)) from error


State = Literal["verified", "unsigned", "failed"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result for a row. ``reason`` says why it is reported, ``key_id`` is the id of the key that verified it."""

    state: State
    key_id: str | None = None
    reason: str | None = None


@dataclass(slots=True)
class VerificationCounts:
    """The number of rows by state, the number of verified rows by key id, and the number of reported rows."""

    states: dict[State, int] = field(default_factory=lambda: {"verified": 0, "unsigned": 0, "failed": 0})
    keys: Counter[str] = field(default_factory=Counter)
    reported: int = 0


def main() -> None:
    """Run ``meter-verify``."""
    run(Options(), sys.argv[1:], work)


async def work(reactor: Any, options: Any) -> int:
    """Verify the requested rows; return the exit status, :data:`EXIT_FOUND_PROBLEMS` if a row is reported."""
    config = configuration(options["config"])
    keys = _keys(config)
    async with database_server(reactor, config) as (dsn, retry_seconds):

        def make() -> Verification:
            return Verification(
                reactor, dsn, clock=reactor, statement_timeout_seconds=config.store.statement_timeout_seconds
            )

        async with connected(reactor, make, retry_seconds) as verification:
            rows = verification.rows(options["from"], options["to"], options["meter"])
            tally = await verify_rows(
                rows, keys, accept_unsigned=config.signing.accept_unsigned, as_json=bool(options["json"])
            )
    if options["json"]:
        sys.stdout.write(json.dumps({**tally.states, "by_key": tally.keys}) + "\n")
    else:
        sys.stdout.write(", ".join(f"{count} {state}" for state, count in tally.states.items()) + "\n")
    sys.stdout.flush()
    return EXIT_FOUND_PROBLEMS if tally.reported else EXIT_OK


def _keys(config: Config) -> Keyring:
    """Return the configured keys. A key file that does not exist is not created: its key would have signed nothing."""
    exists = config.signing_key_file.exists()
    if config.signing.key is None and not config.signing.keys and not exists:
        raise CommandError(
            f"nothing can be verified: [signing] has no key, and {config.signing_key_file} does not exist"
        )
    # Unsigned rows must be readable; verdict() decides whether they are accepted.
    signing = config.signing.model_copy(update={"accept_unsigned": True})
    return keyring(config.model_copy(update={"signing": signing}), make=exists)


async def verify_rows(
    rows: AsyncIterator[StoredRow], keys: Keyring, *, accept_unsigned: bool, as_json: bool
) -> VerificationCounts:
    """Verify ``rows``, write a line for each that is reported, and return the counts."""
    tally = VerificationCounts()
    async for row in rows:
        result = verdict(row, keys, accept_unsigned=accept_unsigned)
        tally.states[result.state] += 1
        if result.key_id is not None:
            tally.keys[result.key_id] += 1
        if result.reason is not None:
            tally.reported += 1
            sys.stdout.write(_json_line(row, result) if as_json else _line(row, result))
    return tally


def verdict(row: StoredRow, keys: Keyring, *, accept_unsigned: bool) -> Verdict:
    """Return the result for a row. ``keys`` must accept unsigned messages.

    A row fails if the signature does not match its message, or if its columns differ from its message. A row that arrived
    unsigned does not fail, but is reported if unsigned samples are not accepted.
    """
    if row.fields is None:
        return Verdict("failed", reason=row.damage)
    try:
        message = read(row.fields, keys, row.key_id)
    except (BadMessage, BadSignature) as error:
        return Verdict("failed", reason=str(error))
    reason = row.damage or row.difference(message)
    if message.key_id is None and row.key_id is not None:
        reason = f"the signature that key {row.key_id} verified on arrival is missing"
    if reason is not None:
        return Verdict("failed", reason=reason)
    if message.key_id is not None:
        return Verdict("verified", message.key_id)
    return Verdict(
        "unsigned", reason=None if accept_unsigned else "unsigned, and [signing] does not accept unsigned samples"
    )


def _line(row: StoredRow, result: Verdict) -> str:
    cells = (row.message_id, row.meter or "-", row.resource_id or "-", utc_text(row.timestamp), result.reason or "")
    return f"{result.state.upper():<8}  " + "  ".join(escape_terminal(cell).replace("\n", " ") for cell in cells) + "\n"


def _json_line(row: StoredRow, result: Verdict) -> str:
    values = {
        "state": result.state,
        "message_id": row.message_id,
        "meter": row.meter,
        "resource_id": row.resource_id,
        "timestamp": utc_text(row.timestamp),
        "key_id": row.key_id,
        "reason": result.reason,
    }
    return json.dumps(values) + "\n"
