"""Deletes rows on archive servers that are not needed there any more: they have expired, or have been brought back.

What is to be deleted is noted in ``archive_removal`` by the transaction after which it is not needed. While a server is away, the note stays.
A row to which one here refers is never deleted, whatever the notes say: a week can be archived again before its old copy is deleted.
"""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Sequence
from datetime import date
from typing import NamedTuple

from meter.interfaces import Unavailable
from meter.sample_identity import WEEK
from meter.sample_identity import start_of_week
from meter.store.archive.archive_servers import foreign_table
from meter.store.archive.archive_sql import DELETE_ROW
from meter.store.archive.archive_sql import FORGET_REMOVAL
from meter.store.archive.archive_sql import NOT_REFERRED_TO
from meter.store.archive.archive_sql import REMOVALS
from meter.store.archive.archive_sql import REMOVE_SERIES
from meter.store.archive.archive_sql import REMOVE_WEEK
from meter.store.archive.archive_sql import STILL_REFERRED_TO
from meter.store.archive.archive_sql import STORE
from meter.store.packing.packed_partitions import lock_packed_samples
from meter.store.postgres.pool import Session

InTransaction = Callable[..., Awaitable[None]]
"""Calls a function with a session in a transaction, and with the arguments that follow it."""


class Removal(NamedTuple):
    """Rows of ``week`` that are to be deleted on ``server``: those of ``series``, ``None`` for all."""

    id: int
    server: str
    week: date
    series: Sequence[int] | None


async def removals(session: Session) -> list[Removal]:
    """Return what is to be deleted, in the order in which it was noted."""
    return [Removal(*row) for row in await session.rows(REMOVALS)]


async def remove_from_archives(due: Sequence[Removal], run: InTransaction) -> dict[str, str]:
    """Delete what is ``due``, each in a transaction that ``run`` makes; return why it failed, by server.

    Of a server that fails nothing more is tried.
    """
    failed: dict[str, str] = {}
    for each in due:
        if each.server in failed:
            continue
        try:
            await run(remove, each)
        except Unavailable as error:
            failed[each.server] = str(error)
    return failed


async def remove(session: Session, removal: Removal) -> None:
    """Delete the rows of ``removal`` in the archive, except those to which rows here refer, and forget it."""
    await lock_packed_samples(session)
    [[store]] = await session.rows(STORE)
    start = start_of_week(removal.week)
    series = None if removal.series is None else list(removal.series)
    parameters = {"id": removal.id, "store": store, "start": start, "end": start + WEEK, "series": series}
    archive = foreign_table(removal.server)
    [[still_needed]] = await session.rows(STILL_REFERRED_TO, parameters)
    if still_needed:
        for key in await session.rows(NOT_REFERRED_TO.format(archive=archive), parameters):
            row = dict(zip(("series", "first", "part"), key, strict=True))
            await session.count(DELETE_ROW.format(archive=archive), {"store": store, **row})
    else:
        statement = REMOVE_WEEK if series is None else REMOVE_SERIES
        await session.count(statement.format(archive=archive), parameters)
    await session.count(FORGET_REMOVAL, parameters)
