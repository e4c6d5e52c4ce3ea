"""``meter-verify``: verifies the signatures of stored samples with the configured keys."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Any
from typing import get_args

from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import EXIT_OK
from meter.commands.command import CommandError
from meter.commands.command import CommandOptions
from meter.commands.command import configuration
from meter.commands.command import escape_terminal
from meter.commands.command import parse_range
from meter.commands.command import run
from meter.commands.database import connected
from meter.commands.database import database_server
from meter.commands.range_verifier import RangeVerifier
from meter.commands.range_verifier import VerifiedRange
from meter.commands.row_verifier import Finding
from meter.commands.row_verifier import RowVerifier
from meter.commands.row_verifier import State
from meter.commands.row_verifier import Verdict
from meter.sample import utc_text
from meter.settings import Config
from meter.settings.config_file import has_key
from meter.settings.config_file import keyring
from meter.signing_keys import Keyring
from meter.signing_keys import keys_for_audit
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
    optFlags = [  # noqa: N815, RUF012
        ["json", None, "Write one JSON object per line: each reported row or missing message, then the counts."]
    ]

    def postOptions(self) -> None:
        """Parse the times."""
        parse_range(self)


SCHEME_TEXTS = {
    "meter": "Meter's signature of their batch",
    "ceilometer": "Ceilometer's signature of the message alone",
}


ALWAYS_COUNTED: Sequence[State] = tuple(state for state in get_args(State) if state != "lost")


@dataclass(slots=True)
class VerificationCounts:
    """The number of rows by state, *lost* only if there are any, of verified rows by key id and by scheme, and the number of reported findings."""

    states: dict[State, int] = field(default_factory=lambda: dict.fromkeys(ALWAYS_COUNTED, 0))
    keys: Counter[str] = field(default_factory=Counter)
    schemes: Counter[str] = field(default_factory=Counter)
    batches: int = 0
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
            voided = await verification.check_of_voided_samples(keys_for_audit(keys))
            verifier = RowVerifier(
                verification, keys, reactor, accept_unsigned=config.signing.accept_unsigned, explain=voided.problem_of
            )
            range = VerifiedRange(options["from"], options["to"], options["meter"])
            findings = RangeVerifier(verification, verifier, range).findings()
            tally = await report(findings, voided.problems, as_json=bool(options["json"]))
            tally.batches = verifier.batches
    if options["json"]:
        counts = {"by_key": tally.keys, "by_scheme": tally.schemes, "batches": tally.batches}
        sys.stdout.write(json.dumps({**tally.states, **counts}) + "\n")
    else:
        sys.stdout.write(", ".join(f"{count} {state}" for state, count in tally.states.items()) + "\n")
        if tally.schemes:
            schemes = ", ".join(f"{count} by {SCHEME_TEXTS[scheme]}" for scheme, count in sorted(tally.schemes.items()))
            sys.stdout.write(f"verified by signature: {schemes}\n")
    sys.stdout.flush()
    return EXIT_FOUND_PROBLEMS if tally.reported else EXIT_OK


def _keys(config: Config) -> Keyring:
    """Return the configured keys. A key file that does not exist is not created: its key would have signed nothing."""
    if not has_key(config):
        raise CommandError(
            f"nothing can be verified: [signing] has no key, and {config.signing_key_file} does not exist"
        )
    # Unsigned rows must be readable; verdict() decides whether they are accepted.
    signing = config.signing.model_copy(update={"accept_unsigned": True})
    return keyring(config.model_copy(update={"signing": signing}))


async def report(
    findings: AsyncIterator[Sequence[Finding]], problems: Sequence[str], *, as_json: bool
) -> VerificationCounts:
    """Write a line for each of the ``problems`` and of the reported ``findings``, and return the counts."""
    tally = VerificationCounts()
    for problem in problems:
        _report(tally, None, Verdict("failed", reason=problem, count=0), as_json)
    async for page in findings:
        for row, result in page:
            _report(tally, row, result, as_json)
    return tally


def _report(tally: VerificationCounts, row: StoredRow | None, result: Verdict, as_json: bool) -> None:
    tally.states[result.state] = tally.states.get(result.state, 0) + result.count
    if result.key_id is not None and result.scheme is not None:
        tally.keys[result.key_id] += result.count
        tally.schemes[result.scheme] += result.count
    if result.reason is not None:
        # What an administrator recorded as lost is said each time, and is no news.
        tally.reported += result.state != "lost"
        sys.stdout.write(_json_line(row, result) if as_json else _line(row, result))


def _line(row: StoredRow | None, result: Verdict) -> str:
    cells = ["-"] * 4
    if row is not None:
        cells = [row.message_id or "-", row.meter or "-", row.resource_id or "-", utc_text(row.timestamp)]
    cells.append(result.reason or "")
    return f"{result.state.upper():<8}  " + "  ".join(escape_terminal(cell).replace("\n", " ") for cell in cells) + "\n"


def _json_line(row: StoredRow | None, result: Verdict) -> str:
    values = {
        "state": result.state,
        "message_id": row and row.message_id,
        "meter": row and row.meter,
        "resource_id": row and row.resource_id,
        "timestamp": row and utc_text(row.timestamp),
        "key_id": row and row.key_id,
        "scheme": row and row.scheme,
        "reason": result.reason,
    }
    return json.dumps(values) + "\n"
