"""The archiver: moves the arrays of a packed week to an archive server group by group, and brings them back.

A group of series is copied, and committed on the archive server, in a first transaction. A second one compares each row with what the
archive server reads back, by checksums of all columns that both servers compute, and only then takes the arrays out of the rows here.
For every snapshot a row has its arrays here, or they are on the archive server. An archiver that is killed has moved whole groups or
nothing; a copy that was not finished is deleted when the group is moved again.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

from meter.archive_unavailable import ArchiveUnavailable
from meter.sample_identity import WEEK
from meter.sample_identity import start_of_week
from meter.store.archive.archive_servers import foreign_table
from meter.store.archive.archive_servers import require_server
from meter.store.archive.archive_sql import BACK_EXACTLY
from meter.store.archive.archive_sql import BEGIN_WEEK
from meter.store.archive.archive_sql import BRING_BACK
from meter.store.archive.archive_sql import COPY
from meter.store.archive.archive_sql import COUNT_BACK
from meter.store.archive.archive_sql import DELETE_ROW
from meter.store.archive.archive_sql import DIFFERENT
from meter.store.archive.archive_sql import END_WEEK
from meter.store.archive.archive_sql import EXACT_TEXT
from meter.store.archive.archive_sql import FORGET_WEEK
from meter.store.archive.archive_sql import HERE
from meter.store.archive.archive_sql import IN_ARCHIVE
from meter.store.archive.archive_sql import LEAVE_STUBS
from meter.store.archive.archive_sql import LEFTOVERS
from meter.store.archive.archive_sql import NEXT_GROUP
from meter.store.archive.archive_sql import NOT_LEFT
from meter.store.archive.archive_sql import REMOVE_LATER
from meter.store.archive.archive_sql import STORE
from meter.store.archive.archive_sql import STUBS
from meter.store.archive.archived_weeks import WeekIsArchived
from meter.store.archive.archived_weeks import archived_week
from meter.store.packing.packed_partitions import lock_packed_samples
from meter.store.packing.packed_partitions import packed_partition_name
from meter.store.postgres.connection import Locked
from meter.store.postgres.pool import Session
from meter.store.postgres.transaction import in_transaction

MAX_GROUP_SAMPLES = 200_000
"""Samples that one transaction moves, unless a single series has more: about ten megabytes."""

RELEASE_LOCK_SECONDS = 5
"""How long giving back space waits for readers of the week. It blocks new ones meanwhile."""


class NotArchived(Exception):
    """A group differs on the archive server, or is not there; nothing of it was changed here. The text says which."""


class Archiver:
    """Moves weeks over ``session``, which is outside of a transaction, without time limits, and has the packer's lock.

    ``moved`` is called with the number of samples of each group after its commit.
    """

    def __init__(
        self,
        session: Session,
        *,
        max_group_samples: int = MAX_GROUP_SAMPLES,
        moved: Callable[[int], object] = lambda samples: None,
    ) -> None:
        self._session = session
        self._max_group_samples = max_group_samples
        self._moved = moved

    async def archive(self, week: date, server: str) -> int:
        """Move what of the packed ``week`` is still here to ``server``; return how many samples.

        :class:`WeekIsArchived` if it is archived on another server, :class:`NotArchived` if a copy differs.
        """
        session = self._session
        await require_server(session, server)
        found = await archived_week(session, week)
        if found is not None and (found.server != server or found.lost is not None):
            raise WeekIsArchived(found)
        move = await self._move(week, server)
        await session.count(BEGIN_WEEK, move.parameters)
        total = 0
        async for group in self._groups(move, HERE):
            with _naming(server):
                await in_transaction(self._session, self._copy, move, group)
                samples = await in_transaction(self._session, self._leave_stubs, move, group)
            total += samples
            self._moved(samples)
        await session.count(END_WEEK, move.parameters)
        await release_arrays(session, week)  # also if all had been moved: a reader may have prevented it then
        return total

    async def unarchive(self, week: date) -> int:
        """Bring ``week`` back; return how many samples. The rows in the archive are to be removed afterwards, as ``archive_removal`` says.

        :class:`NotArchived` if the archive server does not have a row exactly.
        """
        session = self._session
        found = await archived_week(session, week)
        if found is None:
            raise NotArchived(f"the week of {week} is not archived")
        if found.lost is not None:
            raise WeekIsArchived(found)
        await require_server(session, found.server)
        move = await self._move(week, found.server)
        total = 0
        async for group in self._groups(move, IN_ARCHIVE):
            with _naming(found.server):
                samples = await in_transaction(self._session, self._bring_back, move, group)
            total += samples
            self._moved(samples)
        await in_transaction(self._session, self._forget, move)
        return total

    async def _move(self, week: date, server: str) -> _Move:
        [[store]] = await self._session.rows(STORE)
        return _Move(week, server, store)

    async def _groups(self, move: _Move, state: str) -> Any:
        """Generate the parameters of groups of whole series that have rows in ``state``."""
        after = -1
        statement = NEXT_GROUP.format(table=move.table, state=state)
        while rows := await self._session.rows(statement, {"after": after}):
            last, total = after, 0
            for series_id, samples in rows:
                total += samples
                if last > after and total > self._max_group_samples:
                    break
                last = series_id
            yield {**move.parameters, "after": after, "last": last}
            after = last

    async def _copy(self, move: _Move, group: dict[str, Any]) -> None:
        session = self._session
        await lock_packed_samples(session)
        [[leftovers]] = await session.rows(LEFTOVERS.format(archive=move.archive), group)
        if leftovers:
            for key in await session.rows(NOT_LEFT.format(archive=move.archive, table=move.table), group):
                row = dict(zip(("series", "first", "part"), key, strict=True))
                await session.count(DELETE_ROW.format(archive=move.archive), {"store": move.store, **row})
        await session.count(COPY.format(archive=move.archive, table=move.table), group)

    async def _leave_stubs(self, move: _Move, group: dict[str, Any]) -> int:
        session = self._session
        await lock_packed_samples(session)
        await session.count(EXACT_TEXT)
        names = {"archive": move.archive, "table": move.table}
        [[rows, samples, different]] = await session.rows(DIFFERENT.format(**names), group)
        if different:
            raise NotArchived(
                f"{different} of {rows} rows of {move.table} are not on the archive server {move.server} as they are here"
            )
        [[moved_rows, moved_samples]] = await session.rows(LEAVE_STUBS.format(**names), group)
        if (moved_rows, moved_samples) != (rows, samples):
            raise NotArchived(f"of {rows} rows of {move.table}, {moved_rows} would be left without arrays")
        return int(samples)

    async def _bring_back(self, move: _Move, group: dict[str, Any]) -> int:
        session = self._session
        await lock_packed_samples(session)
        await session.count(EXACT_TEXT)
        names = {"archive": move.archive, "table": move.table}
        [[rows, samples]] = await session.rows(STUBS.format(**names), group)
        back = await session.count(BRING_BACK.format(**names), group)
        if back != rows:
            raise NotArchived(
                f"the archive server {move.server} has {back} of {rows} rows of {move.table} as they were moved there"
            )
        [[different]] = await session.rows(BACK_EXACTLY.format(**names), group)
        if different:
            raise NotArchived(
                f"{different} of {rows} rows of {move.table} did not come back as they are on {move.server}"
            )
        await session.count(COUNT_BACK, {**group, "rows": rows, "samples": samples})
        return int(samples)

    async def _forget(self, move: _Move) -> None:
        await lock_packed_samples(self._session)
        await self._session.count(REMOVE_LATER, {**move.parameters, "series": None})
        await self._session.count(FORGET_WEEK, move.parameters)


@contextmanager
def _naming(server: str) -> Iterator[None]:
    """Name ``server`` in errors that do not tell which archive server they come from."""
    try:
        yield
    except ArchiveUnavailable as error:
        if error.server == server:
            raise
        raise ArchiveUnavailable(server, None, None, error.reason) from error


class _Move:
    """A week and the server to or from which it is moved, with the names of the tables and the parameters of all statements."""

    def __init__(self, week: date, server: str, store: str) -> None:
        self.server = server
        self.store = store
        self.table = packed_partition_name(week)
        self.archive = foreign_table(server)
        start = start_of_week(week)
        self.parameters = {"week": week, "server": server, "store": store, "start": start, "end": start + WEEK}


async def release_arrays(session: Session, week: date) -> None:
    """Give the space that the arrays of an archived week had back to the file system.

    Without arrays the table is small, and is rewritten in a moment. Where a reader does not end, it is left to a later call.
    """
    await session.count(f"SET lock_timeout = '{RELEASE_LOCK_SECONDS}s'")
    try:
        await session.count(f"VACUUM (FULL, ANALYZE) {packed_partition_name(week)}")
    except Locked:
        pass
    finally:
        if not session.closed:
            await session.count("RESET lock_timeout")
