"""``meter-verify``: verifies the signatures of stored samples with the configured keys."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from datetime import datetime
from typing import Any
from typing import Literal

from cachetools import LRUCache
from twisted.internet.interfaces import IReactorTime
from twisted.python import usage

from meter.ceilometer_signature import BadSignature
from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import EXIT_OK
from meter.commands.command import CommandError
from meter.commands.command import CommandOptions
from meter.commands.command import configuration
from meter.commands.command import escape_terminal
from meter.commands.command import run
from meter.commands.database import connected
from meter.commands.database import database_server
from meter.daemon.services import sleep
from meter.message import BadMessage
from meter.message import MeteringMessage
from meter.message import parse
from meter.message import parse_timestamp
from meter.message import read
from meter.sample import utc_text
from meter.settings import Config
from meter.settings.config_file import has_key
from meter.settings.config_file import keyring
from meter.signing_keys import Keyring
from meter.signing_keys import SignatureScheme
from meter.signing_keys import SigningKey
from meter.store import BatchRows
from meter.store import StoredRow
from meter.store import Verification
from meter.stored_batch import verify_stored_batch


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
        for name in ("from", "to"):
            try:
                self[name] = None if self[name] is None else parse_timestamp(self[name], f"--{name}")
            except BadMessage as error:
                raise usage.UsageError(str(error)) from error


State = Literal["verified", "unsigned", "failed", "missing"]

SCHEME_TEXTS = {
    "meter": "Meter's signature of their batch",
    "ceilometer": "Ceilometer's signature of the message alone",
}

BATCH_WRITING_SECONDS = 1.0
"""An incomplete batch is read again after this time: a collector may write it in several transactions."""

MAX_CACHED_BATCHES = 10_000
"""Signed batches whose verification is remembered, because further pages can have rows of them."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result for a row, or for a message that is missing.

    ``reason`` says why it is reported. ``key_id`` is the id of the key that verified the signature of ``scheme``.
    """

    state: State
    key_id: str | None = None
    reason: str | None = None
    scheme: SignatureScheme | None = None


@dataclass(slots=True)
class VerificationCounts:
    """The number of rows by state, of verified rows by key id and by scheme, and the number of reported findings."""

    states: dict[State, int] = field(default_factory=lambda: {"verified": 0, "unsigned": 0, "failed": 0, "missing": 0})
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
            verifier = RowVerifier(verification, keys, reactor, accept_unsigned=config.signing.accept_unsigned)
            pages = verification.pages(options["from"], options["to"], options["meter"])
            tally = await verify_rows(pages, verifier, as_json=bool(options["json"]))
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


async def verify_rows(
    pages: AsyncIterator[Sequence[StoredRow]], verifier: RowVerifier, *, as_json: bool
) -> VerificationCounts:
    """Verify the rows of ``pages``, write a line for each finding, and return the counts."""
    tally = VerificationCounts()
    async for page in pages:
        for row, result in await verifier.verdicts(page):
            tally.states[result.state] += 1
            if result.key_id is not None and result.scheme is not None:
                tally.keys[result.key_id] += 1
                tally.schemes[result.scheme] += 1
            if result.reason is not None:
                tally.reported += 1
                sys.stdout.write(_json_line(row, result) if as_json else _line(row, result))
    tally.batches = verifier.batches
    return tally


@dataclass(frozen=True, slots=True)
class _VerifiedRows:
    """The verification of a signed batch. ``reasons`` has what is wrong with rows of it, by their id and timestamp."""

    key: SigningKey | None
    key_id: str
    first: str
    last: str
    reasons: Mapping[tuple[str, datetime], str]


class RowVerifier:
    """Verifies stored rows with ``keys``, which must accept unsigned messages.

    Signed batches are read from ``verification`` as a whole, when the first of their rows is verified. ``batches`` is the
    number of those that were verified.
    """

    def __init__(
        self, verification: Verification, keys: Keyring, clock: IReactorTime, *, accept_unsigned: bool
    ) -> None:
        self._verification = verification
        self._clock = clock
        self._keys = keys
        self._accept_unsigned = accept_unsigned
        self._known: LRUCache[int, _VerifiedRows] = LRUCache(MAX_CACHED_BATCHES)
        self._cutoffs: Mapping[str, datetime] | None = None
        self.batches = 0

    async def verdicts(self, rows: Sequence[StoredRow]) -> list[tuple[StoredRow, Verdict]]:
        """Return the verdict on each of ``rows``, and a verdict on each message that is missing in one of their batches.

        A missing message is represented by a row of its batch.
        """
        found: list[tuple[StoredRow, Verdict]] = []
        known: dict[int, _VerifiedRows | None] = {}
        for id in sorted({row.batch_id for row in rows} - {0}):
            if id in self._known:
                known[id] = self._known[id]
        wanted = {row.batch_id for row in rows} - {0} - known.keys()
        read = await self._verification.batches(wanted) if wanted else {}
        if incomplete := [id for id, each in read.items() if self._is_incomplete(each)]:
            await sleep(self._clock, BATCH_WRITING_SECONDS)
            read = {**read, **await self._verification.batches(incomplete)}
        for id in wanted:
            known[id] = None
            if id in read:
                verified, missing = await self._verify_batch(read[id])
                known[id] = self._known[id] = verified
                found += missing
        return found + [(row, self._verdict(row, known.get(row.batch_id))) for row in rows]

    def _is_incomplete(self, read: BatchRows) -> bool:
        key = self._keys.get(read.batch.key_id)
        return key is not None and bool(verify_stored_batch(read.batch, key).missing)

    async def _verify_batch(self, read: BatchRows) -> tuple[_VerifiedRows, list[tuple[StoredRow, Verdict]]]:
        batch, rows = read.batch, read.rows
        key = self._keys.get(batch.key_id)
        if key is None:
            return _VerifiedRows(None, batch.key_id, batch.first, batch.last, {}), []
        self.batches += 1
        findings = verify_stored_batch(batch, key)
        reasons = {
            (row.message_id, row.timestamp): problem
            for row, problem in zip(rows, findings.problems, strict=True)
            if problem is not None
        }
        if findings.signature_matches is False and findings.damage is not None:
            reasons = {(row.message_id, row.timestamp): findings.damage for row in rows}
        verdicts = []
        if findings.damage is not None and findings.signature_matches is not False:
            verdicts.append((rows[0], Verdict("failed", reason=f"{findings.damage} (batch {batch.id})")))
        if findings.missing and not await self._expired(batch.first, rows):
            verdicts += [
                (
                    rows[0],
                    Verdict(
                        "missing", reason=f"message {position} of the batch {batch.id}, of which this is a row, is gone"
                    ),
                )
                for position in findings.missing
            ]
        return _VerifiedRows(key, batch.key_id, batch.first, batch.last, reasons), verdicts

    async def _expired(self, first: str, rows: Sequence[StoredRow]) -> bool:
        """Return whether the retention has deleted samples that are as old as ``first``, the earliest of the batch of ``rows``."""
        if self._cutoffs is None:
            self._cutoffs = await self._verification.retention_cutoffs()
        cutoffs = [self._cutoffs[meter] for meter in ("", *{row.meter or "" for row in rows}) if meter in self._cutoffs]
        return any(utc_text(cutoff) > first for cutoff in cutoffs)

    def _verdict(self, row: StoredRow, batch: _VerifiedRows | None) -> Verdict:
        """Return the verdict on a row; ``batch`` is the verification of its signed batch.

        A row fails if the signature does not match its message, or if its columns differ from its message. A row that arrived
        unsigned does not fail, but is reported if unsigned samples are not accepted.
        """
        if row.fields is None:
            return Verdict("failed", reason=row.damage)
        try:
            message = read(row.fields, self._keys, row.key_id) if row.batch_id == 0 else parse(row.fields)
        except (BadMessage, BadSignature) as error:
            return Verdict("failed", reason=str(error))
        key_id, scheme = message.key_id, message.scheme
        reason = row.damage or row.difference(message)
        if row.batch_id:
            key_id, scheme = row.key_id, "meter"
            reason = _batch_problem(row, message, batch) or reason
        elif key_id is None and row.key_id is not None:
            reason = f"the signature that key {row.key_id} verified on arrival is missing"
        if reason is not None:
            return Verdict("failed", reason=reason)
        if key_id is not None:
            return Verdict("verified", key_id, scheme=scheme)
        return Verdict(
            "unsigned",
            reason=None if self._accept_unsigned else "unsigned, and [signing] does not accept unsigned samples",
        )


def _batch_problem(row: StoredRow, message: MeteringMessage, batch: _VerifiedRows | None) -> str | None:
    """Return what is wrong with a row of the signed ``batch``, which is ``None`` if the store does not have it."""
    if batch is None:
        return "the record of its signed batch is missing"
    if batch.key is None:
        return f"its batch is signed with the key {batch.key_id}, which [signing] does not have"
    if not batch.first <= utc_text(row.timestamp) <= batch.last:
        # Rows of a batch are looked for within its times: this one was not compared with its digest.
        return "the row was altered or added: its timestamp is outside the times of its batch"
    if reason := batch.reasons.get((row.message_id, row.timestamp)):
        return reason
    if row.key_id != batch.key_id:
        return f"its batch is signed with the key {batch.key_id}, and its row names {row.key_id}"
    problem = batch.key.problem(message.timestamp, message.name, message.source)
    return problem and f"key {batch.key_id}, which signed the batch, {problem}"


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
        "scheme": row.scheme,
        "reason": result.reason,
    }
    return json.dumps(values) + "\n"
