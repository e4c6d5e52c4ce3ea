"""Replaying and discarding dead letters, for ``meter-dead-letters`` and for the pages: recorded in the audit log before it is done."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from collections.abc import Iterable
from typing import NamedTuple

from meter.audit_record import Record
from meter.bus.dead_letter_queues import DeadLetterQueue
from meter.bus.dead_letter_queues import Entry
from meter.bus.dead_letters import DeadLetter

MIN_ID_CHARACTERS = 8
"""Minimum length of an abbreviated id."""

RECORDED_LETTERS = 100
RECORDED_BYTES = 16 * 1024 * 1024
"""Dead letters, and the bytes of their bodies, that one entry of the audit log is about at most: so many are in memory."""

REPLAY_ACTION = "dead-letter.replay"
DISCARD_ACTION = "dead-letter.discard"


class NoSuchDeadLetter(ValueError):
    """An id is too short, unknown or ambiguous; the text says which."""


class ReplayResult(NamedTuple):
    """What became of a dead letter: replayed to ``to``, or kept because of ``problem``."""

    dead_letter: DeadLetter
    to: str
    problem: str | None = None


async def entries(queue: DeadLetterQueue, kind: str | None = None) -> AsyncIterator[Entry]:
    """Yield the dead letters of ``kind``, or all."""
    while (entry := await queue.next()) is not None:
        if kind in (None, entry.dead_letter.kind):
            yield entry


async def entries_by_id(found: AsyncIterator[Entry], ids: Iterable[str]) -> AsyncIterator[Entry]:
    """Yield those of ``found`` with these ids, after reading all of them.

    Raises :class:`NoSuchDeadLetter` before the first if an id is too short, unknown or ambiguous.
    """
    wanted = dict.fromkeys(ids)
    for each in wanted:
        if len(each) < MIN_ID_CHARACTERS:
            raise NoSuchDeadLetter(
                f"{each}: give at least the first {MIN_ID_CHARACTERS} characters of an id; list prints them"
            )
    matches: dict[str, list[Entry]] = {each: [] for each in wanted}
    async for entry in found:
        for prefix, matching in matches.items():
            if entry.dead_letter.id.startswith(prefix):
                matching.append(entry)
    for prefix, matching in matches.items():
        if len(matching) != 1:
            raise NoSuchDeadLetter(
                f"{prefix}: {len(matching)} dead letters match" if matching else f"{prefix}: no such dead letter"
            )
    for entry in {id(matching[0]): matching[0] for matching in matches.values()}.values():
        yield entry


async def recorded(chosen: AsyncIterator[Entry], record: Record, action: str) -> AsyncIterator[Entry]:
    """Yield the dead letters of ``chosen``, each after it has been recorded that ``action`` is done with it."""
    batch: list[Entry] = []

    async def record_batch() -> None:
        names = ("id", "kind", "subject", "reason")
        letters = [{name: getattr(entry.dead_letter, name)[:200] for name in names} for entry in batch]
        await record(action, {"dead_letters": letters})

    async for entry in chosen:
        batch.append(entry)
        size = sum(len(each.dead_letter.body) for each in batch)
        if len(batch) >= RECORDED_LETTERS or size >= RECORDED_BYTES:
            await record_batch()
            for each in batch:
                yield each
            batch = []
    if batch:
        await record_batch()
    for each in batch:
        yield each


async def replay_each(
    queue: DeadLetterQueue, chosen: AsyncIterator[Entry], record: Record, *, force: bool
) -> AsyncIterator[ReplayResult]:
    """Send dead letters back, and remove each once that is confirmed; yield what became of each.

    ``record`` records that before it is done. Without ``force`` those whose replay cannot succeed are kept.
    """
    kept: list[ReplayResult] = []

    async def replayable() -> AsyncIterator[Entry]:
        async for entry in chosen:
            problem = entry.dead_letter.not_replayable
            if problem is None or force:
                yield entry
            else:
                kept.append(ReplayResult(entry.dead_letter, "", problem))

    async for entry in recorded(replayable(), record, REPLAY_ACTION):
        while kept:
            yield kept.pop(0)
        publication = entry.dead_letter.publication()
        try:
            await queue.send(publication)
        except ValueError as error:
            yield ReplayResult(entry.dead_letter, "", str(error))
            continue
        await queue.remove(entry)
        exchange, key = publication.exchange, publication.routing_key
        yield ReplayResult(entry.dead_letter, f"{exchange}/{key}" if exchange else key)
    while kept:
        yield kept.pop(0)


def pretty_body(body: bytes) -> str:
    """Return a JSON body indented, with the message in its envelope decoded; any other body as text."""
    try:
        content = json.loads(body)
        if isinstance(content, dict) and isinstance(content.get("oslo.message"), str):
            content["oslo.message"] = json.loads(content["oslo.message"])
        return json.dumps(content, indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return body.decode("utf-8", "backslashreplace")
