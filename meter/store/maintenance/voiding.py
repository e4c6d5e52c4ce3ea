"""Voiding: samples that an administrator takes out of all answers, without deleting them, and how they are put back.

A voided sample is moved to the table ``voided_sample``, so that queries pay nothing for it: none reads that table, whatever
their ``as_of``. Its id stays known to the writer: a repeat of a voided sample is a duplicate. The rollups that covered it are
deleted, and maintenance makes them again. Each call is one transaction with one entry in the audit log.

A transaction shares the locks of the hours whose samples it moves with writers; it excludes finalization of these hours, which
would otherwise count samples that it no longer sees (:mod:`meter.store.maintenance.rollups`).
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from typing import Any
from typing import NamedTuple

import msgspec

from meter.interfaces import Unavailable
from meter.query import AuditEntry
from meter.sample_identity import WEEK
from meter.sample_identity import start_of_week
from meter.signing_keys import SigningKey
from meter.store.audit.log import append
from meter.store.audit.log import next_seq
from meter.store.audit.void_statements import VOIDED_BY_ENTRY
from meter.store.audit.void_statements import VoidStatements
from meter.store.audit.void_statements import ids_sha256
from meter.store.cluster.spread_voiding import move_spread_back
from meter.store.cluster.spread_voiding import move_spread_to_voided
from meter.store.cluster.visibility import ensure_all_visible
from meter.store.maintenance.rollups import LOCK_HOURS_SHARED
from meter.store.maintenance.rollups import NOTE_SERIES
from meter.store.maintenance.voiding_sql import BY_METER
from meter.store.maintenance.voiding_sql import CHANGED_COMPLETENESS
from meter.store.maintenance.voiding_sql import CHOOSE
from meter.store.maintenance.voiding_sql import CHOOSE_PACKED
from meter.store.maintenance.voiding_sql import CHOSEN_IDS
from meter.store.maintenance.voiding_sql import COLUMNS
from meter.store.maintenance.voiding_sql import DELETE_ROLLUPS
from meter.store.maintenance.voiding_sql import ENTRIES_OF_CHOSEN
from meter.store.maintenance.voiding_sql import EXPIRED_MEANWHILE
from meter.store.maintenance.voiding_sql import FIND_BY_INDEX
from meter.store.maintenance.voiding_sql import HASH_OF_CHOSEN
from meter.store.maintenance.voiding_sql import HOURS_OF_CHOSEN
from meter.store.maintenance.voiding_sql import MISSING
from meter.store.maintenance.voiding_sql import MOVE_BACK
from meter.store.maintenance.voiding_sql import MOVE_TO_VOIDED
from meter.store.maintenance.voiding_sql import NO_LONGER_FINAL
from meter.store.maintenance.voiding_sql import NOT_RESTORABLE
from meter.store.maintenance.voiding_sql import NOT_VOIDABLE
from meter.store.maintenance.voiding_sql import OF_KEY
from meter.store.maintenance.voiding_sql import PACKED_SERIES
from meter.store.maintenance.voiding_sql import PACKED_WITH_IDS
from meter.store.maintenance.voiding_sql import PROBLEMS
from meter.store.maintenance.voiding_sql import RESTORED
from meter.store.maintenance.voiding_sql import SAME_IDS
from meter.store.maintenance.voiding_sql import SUMMARY
from meter.store.maintenance.voiding_sql import VOIDED
from meter.store.maintenance.voiding_sql import packed_of_series
from meter.store.maintenance.voiding_sql import samples_of
from meter.store.packing.packed_batches import add_batches
from meter.store.packing.packed_ids import add_to_index
from meter.store.packing.packed_ids import collect_keys
from meter.store.packing.packed_ids import forget_keys
from meter.store.packing.packed_partitions import lock_packed_samples
from meter.store.packing.unpacking import unpack
from meter.store.postgres.pool import Session
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import both
from meter.store.write.record import uuid_of
from meter.store.write.record import wire_format_of

MAX_LISTED_IDS = 1000
"""Ids that an entry of the audit log lists; the table has all of them, with the number of the entry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The samples to void or to restore: those that meet all of these conditions, with ``start <= timestamp < end``.

    ``ids`` are message ids. ``key_id`` is the id of the signing key that is stored with the batch of a sample, or with the sample.
    ``audit_seq``, for voided samples only, is the entry of the audit log under which they were voided.
    """

    ids: Sequence[str] = ()
    meter: str | None = None
    resource_id: str | None = None
    project_id: str | None = None
    user_id: str | None = None
    source: str | None = None
    key_id: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    audit_seq: int | None = None

    @property
    def names_samples(self) -> bool:
        """Whether a condition other than the time is given; otherwise all samples of everybody would be selected."""
        by_name = (self.meter, self.resource_id, self.project_id, self.user_id, self.source, self.key_id)
        return bool(self.ids) or self.audit_seq is not None or any(each is not None for each in by_name)

    def shown(self) -> dict[str, Any]:
        """The conditions that are given, as JSON; of the ids only the first :data:`MAX_LISTED_IDS`."""
        given = {
            "ids": list(self.ids[:MAX_LISTED_IDS]) or None,
            "meter": self.meter,
            "resource_id": self.resource_id,
            "project_id": self.project_id,
            "user_id": self.user_id,
            "source": self.source,
            "key_id": self.key_id,
            "start": self.start and self.start.astimezone(UTC).isoformat(),
            "end": self.end and self.end.astimezone(UTC).isoformat(),
            "audit_entry": self.audit_seq,
        }
        return {name: value for name, value in given.items() if value is not None}

    def condition(self, wire_formats: Sequence[int]) -> Sql:
        """SQL over the row ``s`` of a sample, its series ``x`` and its meter ``m``.

        ``wire_formats`` are the ids of those that name the key ``key_id``.
        """
        parts = [
            Sql("s.message_id = ANY(%s::uuid[])", (self.uuids,)) if self.ids else None,
            None if self.key_id is None else Sql(OF_KEY, (list(wire_formats), self.key_id)),
            None if self.start is None else Sql("s.timestamp >= %s", (self.start,)),
            None if self.end is None else Sql("s.timestamp < %s", (self.end,)),
            None if self.audit_seq is None else Sql("s.audit_seq = %s", (self.audit_seq,)),
        ]
        return both([self.of_series(), *(part for part in parts if part is not None)])

    @property
    def uuids(self) -> list[str]:
        """The ids as the store has them."""
        return [uuid_of(each) for each in self.ids]

    def of_series(self) -> Sql:
        """SQL over a series ``x`` and its meter ``m``: those that can have such samples."""
        parts = [] if self.meter is None else [Sql("m.name = %s", (self.meter,))]
        for column, value in {
            "resource": self.resource_id,
            "project": self.project_id,
            "user": self.user_id,
            "source": self.source,
        }.items():
            if value is not None:
                parts.append(Sql(f'x.{column}_id = (SELECT id FROM "{column}" WHERE name = %s)', (value,)))
        return both(parts)


class MeterCount(NamedTuple):
    """Number of samples and of resources of a meter of a project."""

    meter: str
    project_id: str | None
    samples: int
    resources: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Voiding:
    """The outcome of voiding or restoring. ``problems`` has, by message id, why a sample is left as it is.

    ``entry`` is the entry in the audit log; ``None`` if nothing was changed.
    """

    samples: int
    first: datetime | None
    last: datetime | None
    meters: Sequence[MeterCount]
    problems: Sequence[tuple[str, str]]
    entry: AuditEntry | None


class UnexpectedCount(Exception):
    """Another number of samples is selected than the administrator expects; nothing was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """Who acts and why, with the signing keys that the audit log needs and ``details`` for its entry, as JSON.

    ``expected``: refuse unless it is the number of samples.
    """

    who: str
    reason: str
    keys: Sequence[SigningKey]
    details: Mapping[str, Any] = field(default_factory=dict)
    expected: int | None = None
    dry_run: bool = False


async def void(session: Session, selection: Selection, act: Act) -> Voiding:
    """Void the selected samples, in the transaction of ``session``; with ``dry_run`` only count them."""
    seq = 0 if act.dry_run else await next_seq(session)
    await _choose(session, selection, table="sample", problem=NOT_VOIDABLE)
    chosen = await _summary(
        session, selection, act, missing="no sample with this id is stored, or it is voided already"
    )
    if act.dry_run or not chosen.samples:
        return chosen
    for week, series in await session.rows(PACKED_SERIES):
        await unpack(session, series, week)
    names, columns = await _lock(session)
    if session.spread:
        await move_spread_to_voided(session, names, columns, [act.who, act.reason, seq])
    else:
        await session.count(MOVE_TO_VOIDED.format(names=names, columns=columns), [act.who, act.reason, seq])
    [[sha256]] = await session.rows(HASH_OF_CHOSEN)
    return await _finish(session, "void", selection, act, chosen, {"ids_sha256": sha256})


async def unvoid(session: Session, selection: Selection, act: Act) -> Voiding:
    """Put the selected voided samples back exactly as they were; with ``dry_run`` only count them."""
    if not act.dry_run:
        await next_seq(session)
    await _choose(session, selection, table="voided_sample", problem=NOT_RESTORABLE)
    if session.spread:
        await session.count(SAME_IDS)
    chosen = await _summary(session, selection, act, missing="no sample with this id is voided")
    if act.dry_run or not chosen.samples:
        return chosen
    names, columns = await _lock(session)
    unchanged = await _unchanged_entries(session, act.keys)
    if session.spread:
        await move_spread_back(session, names, columns)
    else:
        await session.count(MOVE_BACK.format(names=names, columns=columns))
    await _index_restored(session)
    remaining = [
        {"audit_entry": seq, "samples": samples, "ids_sha256": sha256}
        for seq, (samples, sha256) in sorted((await _voided_under(session, unchanged)).items())
    ]
    return await _finish(session, "unvoid", selection, act, chosen, {"remaining": remaining})


async def voided(session: Session, limit: int) -> list[dict[str, Any]]:
    """Return at most ``limit`` voided samples, those that were voided last first, as JSON."""
    return [
        {
            "message_id": msgspec.json.decode(verbatim_json)["message_id"] if verbatim_json[:1] == "{" else message_id,
            "timestamp": timestamp.astimezone(UTC).isoformat(),
            "volume": volume,
            **dict(zip(("meter", "unit", "resource_id", "project_id", "user_id", "source"), names, strict=True)),
            "voided_at": at.astimezone(UTC).isoformat(),
            "voided_by": who,
            "reason": reason,
            "audit_entry": audit_seq,
        }
        for message_id, verbatim_json, timestamp, volume, *names, at, who, reason, audit_seq in await session.rows(
            VOIDED, [limit]
        )
    ]


async def voided_count(session: Session) -> int:
    """Return the number of voided samples."""
    [[count]] = await session.rows("SELECT count(*) FROM voided_sample")
    return int(count)


async def _choose(session: Session, selection: Selection, *, table: str, problem: str) -> None:
    """Make the temporary table ``chosen``; ``problem`` is SQL for why a row cannot be moved, null if it can."""
    await lock_packed_samples(session)
    formats = [] if selection.key_id is None else await _wire_formats_of(session, selection.key_id)
    condition = selection.condition(formats)
    await session.count(FIND_BY_INDEX)
    audit_seq = "s.audit_seq" if table == "voided_sample" else "0"
    if session.spread:
        await ensure_all_visible(session.rows)
    rows = Sql("voided_sample s")
    if table == "sample":
        rows = samples_of(selection.of_series(), selection.uuids, selection.start, selection.end)
    statement = CHOOSE.format(rows=rows, audit_seq=audit_seq, problem=problem, condition=condition)
    await session.count(statement, [*rows.parameters, *condition.parameters])
    if table == "sample":
        await _choose_packed(session, selection, condition, problem)


async def _choose_packed(session: Session, selection: Selection, condition: Sql, problem: str) -> None:
    """Add the packed samples that are selected to ``chosen``."""
    packed = (
        Sql(PACKED_WITH_IDS, (selection.uuids,))
        if selection.ids
        else packed_of_series(selection.of_series(), selection.start, selection.end)
    )
    statement = CHOOSE_PACKED.format(problem=problem, packed=packed, condition=condition)
    await session.count(statement, [*packed.parameters, *condition.parameters])


async def _index_restored(session: Session) -> None:
    """Add the samples that were put back into packed weeks to what finds them there."""
    for week, buckets in await session.rows("SELECT week, id_buckets FROM packed_week ORDER BY week"):
        start, end = (start_of_week(each) for each in (week, week + WEEK))
        of_week = f"{RESTORED} AND s.timestamp >= '{start.isoformat()}' AND s.timestamp < '{end.isoformat()}'"
        if await collect_keys(session, of_week):
            await add_to_index(session, week, buckets)
            await add_batches(session, week, of_week)
            await forget_keys(session)


async def _wire_formats_of(session: Session, key_id: str) -> list[int]:
    """Return the ids of the wire formats of samples that the key ``key_id`` has verified."""
    found = []
    for id, text in await session.rows("SELECT id, text FROM wire_format"):
        with suppress(msgspec.DecodeError):  # altered: the sample is found by its batch, and by meter-verify
            if wire_format_of(text).key_id == key_id:
                found.append(id)
    return found


async def _summary(session: Session, selection: Selection, act: Act, *, missing: str) -> Voiding:
    """Return what is chosen; ``missing`` is the problem of an id that no chosen row has."""
    [[samples, first, last]] = await session.rows(SUMMARY)
    if act.expected is not None and samples != act.expected:
        raise UnexpectedCount(f"{samples} samples are selected, not {act.expected}: nothing was changed")
    given = {uuid_of(each): each for each in selection.ids}
    found = {message_id: problem for message_id, problem in await session.rows(PROBLEMS)}
    if given:
        rows = await session.rows(MISSING, [list(given)])
        found |= {message_id: missing for [message_id] in rows}
    return Voiding(
        samples=int(samples),
        first=first,
        last=last,
        meters=[MeterCount(*row) for row in await session.rows(BY_METER)],
        problems=[(given.get(message_id, message_id), problem) for message_id, problem in sorted(found.items())],
        entry=None,
    )


async def _lock(session: Session) -> tuple[str, str]:
    """Take the locks of the hours of the chosen samples; return the columns of the table of samples, without and with alias."""
    locks = [lock for [lock] in await session.rows(HOURS_OF_CHOSEN)]
    await session.rows(LOCK_HOURS_SHARED, [locks])
    if await session.rows(EXPIRED_MEANWHILE):
        raise Unavailable("some of the samples have just expired: try again")
    [[names, columns]] = await session.rows(COLUMNS)
    return names, columns


async def _voided_under(session: Session, seqs: Sequence[int]) -> dict[int, tuple[int, str]]:
    """Return the number of samples that are voided under each of the entries ``seqs``, and the hash of their ids."""
    statement = VOIDED_BY_ENTRY.format(condition="audit_seq = ANY(%s)")
    found = {seq: (int(samples), sha256) for seq, samples, sha256 in await session.rows(statement, [list(seqs)])}
    return {seq: found.get(seq, (0, ids_sha256([]))) for seq in seqs}


async def _unchanged_entries(session: Session, keys: Sequence[SigningKey]) -> list[int]:
    """Return the entries of the chosen samples whose voided samples are exactly what the audit log states.

    Only on these may a new statement be made: it would otherwise explain rows that somebody else has put there.
    """
    seqs = [seq for [seq] in await session.rows(ENTRIES_OF_CHOSEN)]
    statements = VoidStatements(keys)
    await statements.read(session.rows)
    voided_under = await _voided_under(session, seqs)
    return [seq for seq in seqs if (stated := statements.get(seq)) is not None and voided_under[seq] == stated[:2]]


async def _finish(
    session: Session, action: str, selection: Selection, act: Act, chosen: Voiding, statement: Mapping[str, Any]
) -> Voiding:
    """Delete the rollups that the move makes wrong, and append to the audit log, with ``statement`` among the details."""
    await session.count(NOTE_SERIES)
    await session.count(NO_LONGER_FINAL)
    await session.count(CHANGED_COMPLETENESS)
    await session.count(DELETE_ROLLUPS)
    ids = [id for [id] in await session.rows(CHOSEN_IDS, [MAX_LISTED_IDS])]
    details = {
        **act.details,
        "selection": selection.shown(),
        "samples": chosen.samples,
        "first": chosen.first and chosen.first.astimezone(UTC).isoformat(),
        "last": chosen.last and chosen.last.astimezone(UTC).isoformat(),
        "meters": [each._asdict() for each in chosen.meters],
        "message_ids": ids,
        **statement,
    }
    entry = await append(session, act.keys, who=act.who, action=action, reason=act.reason, details=details)
    return replace(chosen, entry=entry)
