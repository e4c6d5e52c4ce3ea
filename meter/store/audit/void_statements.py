"""Whether the audit log explains the voided samples: somebody with only the database could void samples without an entry.

Each entry of *void* states how many samples it voided, and the SHA-256 of their ids; each entry of *unvoid* states the same of what
remains voided under every entry that it concerns. Only entries whose hash a signing key verifies count. The newest valid statement on
an entry must fit the rows of ``voided_sample`` that name the entry.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from typing import NamedTuple

import msgspec

from meter.query import AuditEntry
from meter.sample import MAX_VOLUME
from meter.sample import MIN_VOLUME
from meter.signing_keys import SigningKey
from meter.store.audit.chain import hash_matches
from meter.store.audit.log import ENTRY_COLUMNS
from meter.store.audit.log import entry_of

Rows = Callable[[str, Sequence[Any]], Awaitable[Sequence[tuple[Any, ...]]]]

SEPARATOR = ","
"""Between the ids that a hash covers, which are in the order of their texts."""

IDS_SHA256 = (
    "encode(sha256(convert_to(coalesce(string_agg(message_id::text, ',' ORDER BY message_id), ''), 'UTF8')), 'hex')"
)
"""SQL for the hash of the message ids of a group of samples."""

VOIDED_BY_ENTRY = f"SELECT audit_seq, count(*), {IDS_SHA256} FROM voided_sample WHERE {{condition}} GROUP BY audit_seq"

VOID_ENTRIES = f"""
SELECT {ENTRY_COLUMNS} FROM audit_entry WHERE seq > %s AND action IN ('void', 'unvoid') ORDER BY seq LIMIT %s
"""

# What an upgrade of the schema has voided has no entry, and a volume that is out of the bounds.
IN_BOUNDS_WITHOUT_ENTRY = f"""
SELECT count(*) FROM voided_sample
WHERE audit_seq <= 0 AND NOT (audit_seq = 0 AND NOT (volume = 0 OR abs(volume) BETWEEN {MIN_VOLUME!r} AND {MAX_VOLUME!r}))
"""

NEWEST_CUTOFF = "SELECT max(before) FROM retention_cutoff"

PAGE_ENTRIES = 100
"""Entries that are in memory at a time; each lists up to 1000 ids."""


class VoidStatement(NamedTuple):
    """What is voided under an entry: number of samples, hash of their ids (``None`` if not stated), time of the earliest."""

    samples: int
    ids_sha256: str | None
    first: datetime | None


def ids_sha256(ids: Iterable[str]) -> str:
    """Return what :data:`IDS_SHA256` is for the samples with these ids."""
    return hashlib.sha256(SEPARATOR.join(sorted(ids)).encode()).hexdigest()


class VoidStatements:
    """The newest valid statement on each entry of *void*. ``newest`` is the number of the last entry that was read."""

    def __init__(self, keys: Sequence[SigningKey]) -> None:
        self._keys = keys
        self._statements: dict[int, VoidStatement] = {}
        self._invalid: set[int] = set()
        self.newest = 0

    def get(self, seq: int) -> VoidStatement | None:
        """Return what is voided under the entry ``seq``; ``None`` if no valid entry of *void* has this number."""
        return self._statements.get(seq)

    def items(self) -> Iterable[tuple[int, VoidStatement]]:
        """Return all statements with the numbers of their entries."""
        return self._statements.items()

    def why_not(self, seq: int) -> str:
        """Return why there is no statement on the entry ``seq``."""
        if seq in self._invalid:
            return "was altered, or its signing key is missing"
        return "is missing, or is not of the action void"

    async def read(self, rows: Rows) -> None:
        """Read the entries that are newer than ``newest``."""
        async for entry in void_entries(rows, self.newest):
            self.newest = entry.seq
            if not hash_matches(entry, self._keys):
                self._invalid.add(entry.seq)
            elif (details := _details(entry)) is not None:
                self._add(entry, details)

    def _add(self, entry: AuditEntry, details: Mapping[str, Any]) -> None:
        if entry.action == "void":
            stated, ids, first = details.get("ids_sha256"), details.get("message_ids", []), details.get("first")
            if stated is None and len(ids) == details["samples"]:
                stated = ids_sha256(ids)
            self._statements[entry.seq] = VoidStatement(
                details["samples"], stated, datetime.fromisoformat(first) if first else None
            )
            return
        for remaining in details.get("remaining", []):
            seq = remaining["audit_entry"]
            if seq in self._statements:
                self._statements[seq] = self._statements[seq]._replace(
                    samples=remaining["samples"], ids_sha256=remaining["ids_sha256"]
                )


class VoidedSamplesCheck:
    """Compares the voided samples with the statements of the audit log that ``keys`` verify.

    ``problems`` are what is wrong with entries as a whole, whatever the times of their samples.
    """

    def __init__(self, rows: Rows, keys: Sequence[SigningKey]) -> None:
        self._rows = rows
        self._keys = keys
        self._statements = VoidStatements(keys)
        self._listed: dict[int, set[str]] = {}
        self.problems: list[str] = []

    async def run(self) -> None:
        """Compare; in one snapshot of the database, if the session is in such a transaction."""
        await self._statements.read(self._rows)
        [[cutoff]] = await self._rows(NEWEST_CUTOFF, [])
        found = {
            seq: (samples, sha256)
            for seq, samples, sha256 in await self._rows(VOIDED_BY_ENTRY.format(condition="audit_seq > 0"), [])
        }
        differing = []
        for seq, (samples, _) in sorted(found.items()):
            if self._statements.get(seq) is None:
                self.problems.append(
                    f"{samples} voided samples name audit entry {seq}, which {self._statements.why_not(seq)}"
                )
        for seq, stated in sorted(self._statements.items()):
            samples, sha256 = found.get(seq, (0, ids_sha256([])))
            if (samples, sha256) != (stated.samples, sha256 if stated.ids_sha256 is None else stated.ids_sha256):
                differing.append(seq)
                expired = cutoff is not None and stated.first is not None and stated.first < cutoff
                if samples > stated.samples or not expired:
                    self.problems.append(_difference(seq, stated.samples, samples))
        if differing:
            await self._list(set(differing))
        [[unexplained]] = await self._rows(IN_BOUNDS_WITHOUT_ENTRY, [])
        if unexplained:
            self.problems.append(
                f"{unexplained} voided samples name no audit entry, and are not what the upgrade of the schema voids"
            )

    async def problem_of(self, audit_seq: int, message_id: str) -> str | None:
        """Return why the log does not explain a voided sample that names the entry ``audit_seq``; ``None`` if it does."""
        if audit_seq > self._statements.newest:
            await self._statements.read(self._rows)  # voided meanwhile
        if self._statements.get(audit_seq) is None:
            return f"voided under audit entry {audit_seq}, which {self._statements.why_not(audit_seq)}"
        if message_id not in self._listed.get(audit_seq, (message_id,)):
            return f"audit entry {audit_seq}, which the voided sample names, did not void it"
        return None

    async def _list(self, seqs: set[int]) -> None:
        """Read the ids that remain voided under the entries ``seqs``, of those that list all of their ids."""
        async for entry in void_entries(self._rows, min(seqs) - 1):
            details = _details(entry) if hash_matches(entry, self._keys) else None
            if details is None:
                continue
            ids = set(details.get("message_ids", []))
            if entry.action == "unvoid":
                for listed in self._listed.values():
                    listed -= ids
            elif entry.seq in seqs and len(ids) == details["samples"]:
                self._listed[entry.seq] = ids


async def void_entries(rows: Rows, after: int) -> AsyncIterator[AuditEntry]:
    """Yield the entries of *void* and *unvoid* with numbers above ``after``, oldest first."""
    while page := await rows(VOID_ENTRIES, [after, PAGE_ENTRIES]):
        for row in page:
            yield entry_of(row)
        after = page[-1][0]


def _details(entry: AuditEntry) -> Mapping[str, Any] | None:
    details: Mapping[str, Any] = msgspec.json.decode(entry.details)
    return details if isinstance(details.get("samples"), int) else None


def _difference(seq: int, stated: int, found: int) -> str:
    if stated == found:
        return f"the {found} voided samples that name audit entry {seq} are not those that it voided"
    return f"audit entry {seq} explains {stated} voided samples, and {found} name it"
